"""Bases of the alignments that work on the features of fitted transformers."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmm._compose._block import Block
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._frame._types import Frame
from skmm._training._batches import Batch, FeatureInputs
from skmm.alignment._base import BaseAlignment, Cells

__all__ = ["BaseBlockAlignment", "BaseDecodingAlignment", "batch_of_blocks", "unpacked"]


class BaseBlockAlignment(BaseAlignment[np.ndarray]):
    """Base of the alignments that work on the features of fitted transformers.

    Features are standardized by the training rows to mean 0 and deviation 1, and clipped at 20
    deviations. Missing features of a modality that the row has are 0, the mean. A subclass
    implements ``_fit_blocks``, which sets ``n_components_``, and ``_project``, and may override
    ``_check_settings`` and ``_needs_pairs``. A method that can predict features of a modality
    derives from ``BaseDecodingAlignment``.
    """

    # --- implemented by a subclass ----------------------------------------------------------

    @abstractmethod
    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: np.ndarray | None
    ) -> None:
        """Learn the space and set ``n_components_``.

        Parameters
        ----------
        blocks : dict of str to ndarray of shape (n_samples, n_features), float32
            Standardized features of each modality, zeros in rows without the modality, in the
            order of the triples. ``n_features`` differs between modalities.
        present : dict of str to ndarray of shape (n_samples,), bool
            Which rows have each modality.
        y : ndarray of shape (n_samples,) or None
            Target as passed to ``fit``.
        """

    def _check_settings(self) -> None:
        """Refuse incompatible parameters, before any cell is encoded."""

    @property
    def _needs_pairs(self) -> bool:
        """Whether the training needs rows that have two modalities."""
        return True

    # --- fit --------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Fit the transformers and learn the space.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,), default=None
            Target, passed to the transformers.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        self._check_settings()
        X = self._check_frame(X, reset=True)
        target = None if y is None else np.asarray(y)
        check_consistent_length(X, target)
        seed = self._draw_seed()
        blocks = [Block(modality, seed) for modality in self._resolve(X)]
        self._refuse_single(blocks, usable=False)
        values = []
        with TaskReporter(self, X, target, len(blocks), "modality") as reporter:
            for block in blocks:
                with reporter.task():
                    values.append(block.fit_transform(X, target))
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
            name: self._blocks[name].standardized(value)
            for name, value in zip(self._blocks, usable, strict=True)
        }
        self._fit_blocks(features, present, target)
        self._set_modalities(X, list(self._blocks.values()))
        return self

    # --- after fit --------------------------------------------------------------------------

    def _read(self, name: str, X: Frame) -> Cells[np.ndarray]:
        block = self._blocks[name]
        value = block.transform(X)
        return Cells(block.standardized(value)[value.present], value.present)


class BaseDecodingAlignment(BaseBlockAlignment):
    """Base of the alignments that also predict the features of a modality from the others.

    A subclass implements ``_predict_block`` too.
    """

    @abstractmethod
    def _predict_block(
        self, modality: str, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Predict the standardized features of one modality, (n_rows, n_features).

        Parameters
        ----------
        modality : str
            Name of the modality to predict.
        blocks, present : dict of str to ndarray
            The other modalities, in the form that ``_fit_blocks`` gets. Each row has at least one
            of them.
        """

    def predict_modality(self, X: Frame, modality: str) -> np.ndarray:
        """Predict the features of one modality from the others.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells of the other modalities; the columns of ``modality`` are not needed and not
            read.
        modality : str
            Name of the modality to predict.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            Features in the units of the modality's transformer. A row without any other modality
            gets the mean of the training rows.

        Raises
        ------
        ValueError
            If there is no such modality, or a column of another one is not in ``X``.
        """
        check_is_fitted(self)
        self._check_name(modality)
        others = [name for name in self._names if name != modality]
        X = self._frame_for(others, X)
        values = {name: self._blocks[name].transform(X) for name in others}
        present = {name: value.present for name, value in values.items()}
        known = np.column_stack(list(present.values()))
        self._refuse_empty(known)
        features = {n: self._blocks[n].standardized(value) for n, value in values.items()}
        rows = np.asarray(known.any(axis=1))
        block = self._blocks[modality]
        scaled = np.zeros((len(rows), block.n_features))
        if rows.any():
            scaled[rows] = self._predict_block(
                modality,
                {name: feature[rows] for name, feature in features.items()},
                {name: mask[rows] for name, mask in present.items()},
            )
        predicted: np.ndarray = block.mean + scaled * block.deviation
        return predicted.astype(np.float32)


# --- from features to the batches of a network ----------------------------------------------


def batch_of_blocks(blocks: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]) -> Batch:
    """Return the batch of a trainer from features in the form that ``_fit_blocks`` gets."""
    return Batch(
        {
            name: FeatureInputs(torch.from_numpy(values), torch.from_numpy(present[name]))
            for name, values in blocks.items()
        }
    )


def unpacked(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Unpack a batch of features into the arguments of the networks of ``skmm.nets``.

    Parameters
    ----------
    batch : Batch
        Batch whose modalities are all features.

    Returns
    -------
    present : BoolTensor of shape (n_rows, n_modalities)
        Which modalities each row has.
    values : dict of str to Tensor of shape (n_rows, n_features)
        ``values_0``, ``values_1`` and so on.
    """
    inputs = [cast(FeatureInputs, own) for own in batch.modalities.values()]
    present = torch.stack([own.present for own in inputs], dim=1)
    return present, {f"values_{i}": own.values for i, own in enumerate(inputs)}
