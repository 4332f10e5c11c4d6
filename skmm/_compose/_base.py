"""What every fusion does: triples, nested parameters, blocks, rows that lack modalities."""

import warnings
from abc import ABCMeta
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from scipy import sparse
from sklearn import get_config
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from skmm._constraints import BaseComposition, StrOptions, VisualBlock
from skmm._frame._column import add_absent_columns, n_rows
from skmm.exceptions import ModalityMissingError, ModalityWarning
from skmm.fusion._modalities import Modality, resolve_modalities

__all__ = ["BaseFusion"]


class _HasName(Protocol):
    name: str


_Named = TypeVar("_Named", bound=_HasName)


class BaseFusion(BaseComposition, metaclass=ABCMeta):
    """Base of the meta-estimators over (name, transformer, columns) triples."""

    modalities: Any
    all_missing: str
    missing_columns: str

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "modalities": [StrOptions({"auto"}), list, tuple],
        "all_missing": [StrOptions({"prior", "raise"})],
        "missing_columns": [StrOptions({"raise", "absent"})],
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
        if "modalities" in params:  # before the others, which may speak of the new ones
            self.modalities = params.pop("modalities")
        middles = dict(self._named_middles)
        for key in params:
            name, _, rest = key.partition("__")
            if rest and isinstance(middles.get(name), str) and name not in params:
                raise ValueError(
                    f"Modality {name!r} of {type(self).__name__} is {middles[name]!r}, which has"
                    f" no parameter {rest!r}. Put a transformer there, and then set its parameters."
                )
        self._set_params("_named_middles", **params)
        return self

    # --- frames and blocks ----------------------------------------------------------------

    def _check_frame(self, X: Any, *, reset: bool) -> Any:
        """Check the container; remember or compare its columns."""
        name = type(self).__name__
        if self.missing_columns == "absent" and not reset:
            X = add_absent_columns(X, getattr(self, "feature_names_in_", ()))
        if sparse.issparse(X):
            raise TypeError(
                f"Sparse data was passed to {name}, which takes a frame of cells. Use"
                " X.toarray() to get a dense array."
            )
        if not hasattr(X, "columns"):
            X = _as_array(X)
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
        names = list(getattr(X, "columns", ()))
        if len(set(names)) < len(names):
            twice = next(other for other in names if names.count(other) > 1)
            raise ValueError(f"{name}: X has several columns named {twice!r}. Rename them.")
        validate_data(self, X=X, reset=reset, skip_check_array=True)
        return X

    def _resolve(self, X: Any, *, predictors: bool = False) -> list[Modality]:
        """Make the triples concrete for a training frame."""
        return resolve_modalities(
            self.modalities,
            X,
            type(self).__name__,
            reserved=self.get_params(deep=False),
            predictors=predictors,
        )

    def _keep_usable(self, blocks: list[_Named], flaws: list[str | None]) -> list[_Named]:
        """Leave out what has a flaw, with a warning; something must be left to learn from."""
        for block, flaw in zip(blocks, flaws, strict=True):
            if flaw:
                message = f"Modality {block.name!r} {flaw} and is left out."
                warnings.warn(message, ModalityWarning, stacklevel=2)
        if all(flaws):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: modality {blocks[0].name!r}"
                f" {flaws[0]}, and so is any other. Give rows that have at least one modality."
            )
        return [block for block, flaw in zip(blocks, flaws, strict=True) if not flaw]

    def _refuse_unrouted(self, fit_params: dict[str, Any]) -> None:
        """Refuse metadata that scikit-learn would not route anywhere."""
        if fit_params and not get_config()["enable_metadata_routing"]:
            raise ValueError(
                f"{type(self).__name__}.fit got {sorted(fit_params)}, which it can hand on only"
                " under sklearn.set_config(enable_metadata_routing=True). Set that, or leave them"
                " out."
            )

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
        triples = getattr(self, "modalities_", self.modalities)
        try:
            names, middles, columns = zip(*triples, strict=True)
        except (TypeError, ValueError):  # "auto", or not triples: told in fit
            return VisualBlock("single", self, names=type(self).__name__, name_details=str(self))
        return VisualBlock(
            "parallel", list(middles), names=list(names), name_details=[str(c) for c in columns]
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags


def _as_array(X: Any) -> np.ndarray:
    """Make an array of lists and the like, whose cells stay what they are."""
    array = np.asarray(X)
    # numpy makes text of the numbers in [["good", 5.0]].
    return np.asarray(X, dtype=object) if array.dtype.kind in "US" else array
