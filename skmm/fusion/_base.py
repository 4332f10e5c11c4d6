"""What every fusion does: triples, nested parameters, blocks, rows that lack modalities."""

from abc import ABCMeta
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from skmm._column import n_rows
from skmm._constraints import BaseComposition, StrOptions, VisualBlock
from skmm.exceptions import ModalityMissingError
from skmm.fusion._block import Block, BlockValues
from skmm.fusion._modalities import resolve_modalities

__all__ = ["BaseFusion"]


class BaseFusion(BaseComposition, metaclass=ABCMeta):
    """Base of the meta-estimators over (name, transformer, columns) triples."""

    modalities: Any
    all_missing: str

    _parameter_constraints: dict[str, Any] = {
        "modalities": [StrOptions({"auto"}), list, tuple],
        "all_missing": [StrOptions({"prior", "raise"})],
    }

    # --- parameters, as ColumnTransformer has them ---------------------------------------

    @property
    def _named_middles(self) -> list[tuple[str, Any]]:
        try:
            return [(name, middle) for name, middle, _ in self.modalities]
        except (TypeError, ValueError):  # "auto", or not triples: told in fit
            return []

    @_named_middles.setter
    def _named_middles(self, pairs: list[tuple[str, Any]]) -> None:
        self.modalities = [
            (name, middle, columns)
            for (name, middle), (_, _, columns) in zip(pairs, self.modalities, strict=True)
        ]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of this fusion and, if ``deep``, of its transformers.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include ``<modality>`` and ``<modality>__<parameter>``.

        Returns
        -------
        params : dict
            Names and values.
        """
        return self._get_params("_named_middles", deep=deep)

    def set_params(self, **params: Any) -> Any:
        """Set parameters of this fusion and of its transformers.

        Parameters
        ----------
        **params : dict
            Names as :meth:`get_params` gives them, e.g. ``photo__pooling="max"``, or
            ``photo="drop"`` to leave a modality out.

        Returns
        -------
        self : object
            This fusion.
        """
        self._set_params("_named_middles", **params)
        return self

    # --- frames and blocks ----------------------------------------------------------------

    def _check_frame(self, X: Any, *, reset: bool) -> Any:
        """Check the container; remember or compare its columns."""
        name = type(self).__name__
        if sparse.issparse(X):
            raise TypeError(
                f"Sparse data was passed to {name}, which takes a frame of cells. Use"
                " X.toarray() to get a dense array."
            )
        if not hasattr(X, "columns"):
            X = np.asarray(X)
            if X.dtype.kind == "c":
                raise ValueError(f"Complex data not supported by {name}.")
            if X.ndim != 2:
                raise ValueError(
                    f"Expected 2D array, got {X.ndim}D array instead by {name}. Reshape your data"
                    " or give a DataFrame."
                )
        if n_rows(X) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required"
                f" by {name}."
            )
        if X.shape[1] == 0:
            raise ValueError(
                f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required"
                f" by {name}."
            )
        validate_data(self, X=X, reset=reset, skip_check_array=True)
        return X

    def _start_blocks(self, X: Any) -> list[Block]:
        """Resolve the triples against the training frame."""
        resolved = resolve_modalities(self.modalities, X, type(self).__name__)
        return [Block(modality) for modality in resolved]

    def _fit_blocks(self, X: Any, y: Any, params_of: Any = None) -> list[BlockValues]:
        """Fit every modality's transformer; sets ``modalities_``."""
        blocks = self._start_blocks(X)
        values = [
            block.fit_transform(X, y, **(params_of(block.name) if params_of else {}))
            for block in blocks
        ]
        kept = [(b, v) for b, v in zip(blocks, values, strict=True) if b.n_features]
        if not kept:
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: every modality is absent in"
                " every training row."
            )
        self._blocks = [block for block, _ in kept]
        self._set_modalities()
        values = [value for _, value in kept]
        self._refuse_empty_rows(values)
        return values

    def _set_modalities(self) -> None:
        """Publish the fitted triples."""
        self.modalities_ = [
            (block.name, block.transformer or "passthrough", block.input_names)
            for block in self._blocks
        ]

    def _transform_blocks(self, X: Any) -> list[BlockValues]:
        values = [block.transform(X) for block in self._blocks]
        self._refuse_empty_rows(values)
        return values

    def _refuse_empty_rows(self, values: list[BlockValues]) -> None:
        self._refuse_empty(np.column_stack([value.present for value in values]))

    def _refuse_empty(self, present: np.ndarray) -> None:
        """Raise for a row without any modality, if that was asked for.

        ``present`` has shape (n_samples, n_modalities).
        """
        if self.all_missing != "raise":
            return
        empty = ~present.any(axis=1)
        if empty.any():
            raise ModalityMissingError(
                f"{type(self).__name__}: row {int(np.flatnonzero(empty)[0])} (by position) lacks"
                f" every modality, and {int(empty.sum())} rows do. Drop such rows, or set"
                " all_missing='prior'."
            )

    # --- shown and described --------------------------------------------------------------

    def _sk_visual_block_(self) -> Any:
        if isinstance(self.modalities, str):
            return VisualBlock("single", self, names=type(self).__name__, name_details=str(self))
        names, middles, columns = zip(*self.modalities, strict=True)
        return VisualBlock(
            "parallel", list(middles), names=list(names), name_details=[str(c) for c in columns]
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags
