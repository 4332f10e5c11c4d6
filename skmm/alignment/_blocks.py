"""Base of the alignments that work on ready features of every modality."""

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skmm._compose._block import Block
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm.alignment._base import BaseAlignment, Cells

__all__ = ["BaseBlockAlignment"]


def _has_decoder(alignment: Any) -> bool:
    if not alignment._can_predict:
        raise AttributeError(
            f"{type(alignment).__name__} with these parameters has no way back from the space to"
            " the features of a modality."
        )
    return True


class BaseBlockAlignment(BaseAlignment):
    """Base of the alignments that work on ready features of every modality.

    Features are standardised by the training rows: mean 0, deviation 1, at most 20 deviations
    off; where a row has a modality in part, the rest is the average, 0. A subclass writes

    - ``_fit_blocks(blocks, present, y)``, which sets ``n_components_``;
    - ``_project(name, values)``, vectors of rows that have the modality;
    - ``_predict_block(to, blocks, present)``, if the method has a decoder, and then perhaps
      ``_can_predict``, where that depends on parameters.
    """

    # Whether rows with two modalities are needed to learn from.
    _needs_pairs = True

    # --- written by a method ----------------------------------------------------------------

    @abstractmethod
    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: Any
    ) -> None:
        """Learn the space; sets ``n_components_``.

        Parameters
        ----------
        blocks : dict of str to ndarray of shape (n_samples, n_features), float32
            Standardised features, zeros in rows that lack the modality. In the order of the
            triples; ``n_features`` is the modality's own.
        present : dict of str to ndarray of shape (n_samples,), bool
            Which rows have the modality.
        y : array-like of shape (n_samples,) or None
            Target as it was given.
        """

    @property
    def _can_predict(self) -> bool:
        return hasattr(self, "_predict_block")

    # --- fit --------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the transformers and learn the space.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,), default=None
            Target, handed to the transformers.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        y = None if y is None else np.asarray(y)
        check_consistent_length(X, y)
        seed = self._draw_seed()
        blocks = [Block(modality, seed) for modality in self._resolve(X)]
        self._refuse_single(blocks, usable=False)
        values = []
        with TaskReporter(self, X, y, len(blocks), "modality") as reporter:
            for block in blocks:
                with reporter.task():
                    values.append(block.fit_transform(X, y))
        self._blocks = {
            block.name: block
            for block in self._keep_usable(blocks, [value.flaw for value in values])
        }
        self._refuse_single(list(self._blocks.values()), usable=True)
        usable = [value for value in values if not value.flaw]
        present = {n: value.present for n, value in zip(self._blocks, usable, strict=True)}
        self._refuse_empty(np.column_stack(list(present.values())))
        if self._needs_pairs:
            self._refuse_unpaired(np.column_stack(list(present.values())))
        features = {
            name: self._blocks[name].standardised(value)
            for name, value in zip(self._blocks, usable, strict=True)
        }
        self._fit_blocks(features, present, y)
        self._set_modalities(X, list(self._blocks.values()))
        return self

    # --- after fit --------------------------------------------------------------------------

    def _read(self, name: str, X: Any) -> Cells:
        block = self._blocks[name]
        value = block.transform(X)
        return Cells(block.standardised(value)[value.present], value.present)

    @available_if(_has_decoder)
    def predict_modality(self, X: Any, to: str) -> np.ndarray:
        """Predict the features of one modality from the others.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; the columns of ``to`` are not needed and not looked at.
        to : str
            Name of the modality.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            In the units in which the modality's transformer gives them. A row that lacks every
            other modality gets the average of the training rows.

        Raises
        ------
        ValueError
            If there is no such modality, or a column of another one is not in ``X``.
        """
        check_is_fitted(self)
        self._check_name(to)
        others = [name for name in self.modalities_ if name != to]
        X = self._frame_for(others, X)
        values = {name: self._blocks[name].transform(X) for name in others}
        present = {name: value.present for name, value in values.items()}
        known = np.column_stack(list(present.values()))
        self._refuse_empty(known)
        features = {n: self._blocks[n].standardised(value) for n, value in values.items()}
        rows = np.asarray(known.any(axis=1))
        block = self._blocks[to]
        scaled = np.zeros((len(rows), block.n_features))
        if rows.any():
            decode: Any = getattr(self, "_predict_block")  # noqa: B009 - not every method has it
            scaled[rows] = decode(
                to,
                {name: feature[rows] for name, feature in features.items()},
                {name: mask[rows] for name, mask in present.items()},
            )
        return (block.mean + scaled * block.deviation).astype(np.float32)
