"""Base of the alignments, which map each modality of a row to a vector of one common space."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import permutations
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import BaseMultimodalEstimator
from skmm._compose._block import Block
from skmm._compose._callbacks import CallbackSupportMixin
from skmm._constraints import POSITIVE_INT, StrOptions
from skmm._frame._column import add_absent_columns, column_names, take_columns, to_columns
from skmm._frame._types import CellColumn, Frame
from skmm._training._batches import ModalityInputs
from skmm.alignment._recall import encode_contents, recall

__all__ = ["BaseAlignment", "Cells", "unit_length"]

# Representation of a modality: an array of features, or the inputs of a network.
Values = TypeVar("Values", np.ndarray, ModalityInputs)


class Cells(NamedTuple, Generic[Values]):
    """Cells of one modality of a frame.

    Attributes
    ----------
    values : ndarray of shape (n_present, n_features), FeatureInputs or EncoderInputs
        Representation of the rows that have the modality.
    present : ndarray of shape (n_samples,), bool
        Which rows have the modality.
    """

    values: Values
    present: np.ndarray


class BaseAlignment(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseMultimodalEstimator,
    Generic[Values],
):
    """Base of the transformers from several modalities into one common space.

    A subclass implements ``fit``, ``_read`` and ``_project``. Its ``fit`` sets ``n_components_``
    and ends with ``_set_modalities``. Methods that work on ready features derive from
    ``BaseBlockAlignment``.
    """

    modalities_: list[tuple[str, Any, list[str]]]
    n_components_: int

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        "all_missing": [StrOptions({"zeros", "raise"})],
    }

    # --- implemented by a subclass ----------------------------------------------------------

    @abstractmethod
    def _read(self, name: str, X: Frame) -> Cells[Values]:
        """Return the cells of one modality of a frame that has all columns of ``fit``."""

    @abstractmethod
    def _project(self, name: str, values: Values) -> np.ndarray:
        """Return finite vectors (n_present, n_components), which the base scales to unit length."""

    # --- helpers of fit ---------------------------------------------------------------------

    def _draw_seed(self) -> int:
        """Return the seed of a fit, a constant for a class without ``random_state``."""
        return int(check_random_state(getattr(self, "random_state", 0)).randint(2**31 - 1))

    def _set_modalities(self, X: Frame, blocks: Sequence[Block]) -> None:
        """Remember the fitted transformers, and the positions of their columns in the frame."""
        names = column_names(X)
        self.modalities_ = [block.triple for block in blocks]
        self._places = {
            block.name: [names.index(column) for column in block.input_names] for block in blocks
        }

    def _refuse_single(self, blocks: Sequence[Block], *, usable: bool) -> None:
        """Refuse a single modality."""
        if len(blocks) < 2:
            found = [block.name for block in blocks]
            hint = "usable " if usable else ""
            raise ValueError(
                f"{type(self).__name__} aligns two modalities or more and found one {hint}"
                f"modality only, {found[0]!r}, in X with n_features={self.n_features_in_}. Give at"
                " least two triples whose columns have cells."
            )

    def _refuse_unpaired(self, present: np.ndarray) -> None:
        """Refuse a frame with fewer than two rows that have two modalities.

        ``present`` has shape (n_samples, n_modalities).
        """
        n_paired = int((present.sum(axis=1) >= 2).sum())
        if n_paired < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two training rows that have two modalities"
                f" or more, got {n_paired} of n_samples={len(present)}. Give such rows."
            )

    # --- vectors ----------------------------------------------------------------------------

    def transform(self, X: Frame) -> np.ndarray:
        """Return the vector of each row in the common space.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        vectors : ndarray of shape (n_samples, n_components), float32
            Mean of the unit vectors of the modalities that the row has. With
            ``all_missing="zeros"`` a row without any modality gets zeros, whose cosine similarity
            with any vector is 0.
        """
        check_is_fitted(self)
        X = self._check_frame(X, reset=False)
        vectors = np.stack([self._vectors(name, X) for name in self._names])
        present = ~np.isnan(vectors[:, :, 0])  # (n_modalities, n_samples)
        self._refuse_empty(present.T)
        total = np.where(present[:, :, None], vectors, 0.0).sum(axis=0)
        counts = np.maximum(present.sum(axis=0), 1)
        mean: np.ndarray = total / counts[:, None]
        return mean.astype(np.float32)

    def transform_modality(self, X: CellColumn, modality: str) -> np.ndarray:
        """Return the vectors of one modality.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), Series or list of cells
            Only the columns of this modality are required and read. For a modality of one column,
            ``X`` may be its cells alone.
        modality : str
            Name of the modality.

        Returns
        -------
        vectors : ndarray of shape (n_samples, n_components), float32
            Vectors of unit length; NaN for a row without the modality.

        Raises
        ------
        ValueError
            If there is no such modality, or one of its columns is not in ``X``.
        """
        check_is_fitted(self)
        self._check_name(modality)
        return self._vectors(modality, self._frame_for([modality], X))

    def score(self, X: Frame, y: object = None, *, k: int = 1) -> float:
        """Return the mean recall at ``k`` over all ordered pairs of modalities.

        For each pair, every row that has both modalities is a query: the vector of its first
        modality is compared by cosine similarity with those of the second modality of all such
        rows. The recall is the fraction of queries with their own row, or one of equal content,
        among the ``k`` most similar.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; rows with fewer than two modalities are not used.
        y : None
            Ignored.
        k : int, default=1
            Number of most similar cells that are considered.

        Returns
        -------
        score : float
            Between 0 and 1. Chance is ``k`` divided by the number of rows.
        """
        check_is_fitted(self)
        if not POSITIVE_INT[0].is_satisfied_by(k):
            raise ValueError(
                f"{type(self).__name__}.score: k must be an int of at least 1, got {k!r}."
            )
        X = self._check_frame(X, reset=False)
        found = {name: self._read(name, X) for name in self._names}
        vectors = {name: self._scattered(name, cells) for name, cells in found.items()}
        contents = {name: _scattered_contents(cells) for name, cells in found.items()}
        recalls = []
        for source, target in permutations(self._names, 2):
            both = found[source].present & found[target].present
            if both.any():
                pair = vectors[source][both], vectors[target][both]
                recalls.append(recall(*pair, contents[target][both], k))
        if not recalls:
            raise ValueError(
                f"{type(self).__name__}.score needs rows that have two modalities, and none of the"
                f" {len(next(iter(contents.values())))} rows does. Give such rows."
            )
        return float(np.mean(recalls))

    # --- helpers ----------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    @property
    def _names(self) -> list[str]:
        return [name for name, _, _ in self.modalities_]

    def _vectors(self, name: str, X: Frame) -> np.ndarray:
        """Return the unit vectors of one modality, NaN where it is missing."""
        return self._scattered(name, self._read(name, X))

    def _scattered(self, name: str, cells: Cells[Values]) -> np.ndarray:
        """Return unit vectors (n_samples, n_components), NaN where the modality is missing."""
        present = cells.present
        vectors = np.full((len(present), self.n_components_), np.nan, dtype=np.float32)
        if present.any():
            vectors[present] = unit_length(self._project(name, cells.values))
        return vectors

    def _frame_for(self, modalities: Sequence[str], X: CellColumn) -> Frame:
        """Return a frame with all columns of ``fit`` from one that has those of some modalities."""
        owner, n_columns = type(self).__name__, self.n_features_in_
        needed = [place for name in modalities for place in self._places[name]]
        names = getattr(self, "feature_names_in_", None)
        known = None if names is None else list(names)
        whole = whole_frame(X, needed, known, n_columns, owner)
        return cast(Frame, self._check_frame(whole, reset=False))

    def _check_name(self, modality: str) -> None:
        if modality not in self._names:
            known = ", ".join(map(repr, self._names))
            raise ValueError(
                f"{type(self).__name__} has no modality {modality!r}. Its modalities are {known}."
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def whole_frame(
    X: CellColumn, needed: Sequence[int], names: Sequence[str] | None, n_columns: int, owner: str
) -> Frame:
    """Return a frame with all columns of ``fit``, those that are not needed without any cell.

    Parameters
    ----------
    X : DataFrame, ndarray, Series or list of cells
        All columns, or those that are needed. A Series, a list of cells and an array of one
        dimension are one column.
    needed : sequence of int
        Positions in the frame of ``fit`` of the columns that are required.
    names : sequence of str or None
        Column names of the frame of ``fit``, None if it had no names.
    n_columns : int
        Number of columns of the frame of ``fit``.
    owner : str
        Class of the estimator, for messages.

    Returns
    -------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame whose columns that are not needed are missing in every row, even if ``X`` has them.
        An array with all columns is returned unchanged.

    Raises
    ------
    ValueError
        If a needed column is not in ``X``.
    """
    needed = sorted(set(needed))
    if names is not None and hasattr(X, "columns"):
        return cast(Frame, add_absent_columns(take_columns(X, [names[p] for p in needed]), names))
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if names is None and len(shape) == 2 and shape[1] == n_columns:
        return cast(Frame, X)
    columns = to_columns(X)
    if len(columns) not in (n_columns, len(needed)):
        listed = ", ".join(map(repr, [names[p] for p in needed] if names else needed))
        raise ValueError(
            f"{owner} got {len(columns)} columns without names, and needs the"
            f" {len(needed)} columns {listed} or all {n_columns} of fit. Give a DataFrame with"
            " these column names."
        )
    places = needed if len(columns) == len(needed) else range(n_columns)
    if names is None:
        cells = np.full((len(columns[0].values), n_columns), None, dtype=object)
        for place, column in zip(places, columns, strict=True):
            cells[:, place] = column.values
        return cells
    by_name = {
        names[place]: pd.Series(column.values, index=column.labels, dtype=object).infer_objects()
        for place, column in zip(places, columns, strict=True)
    }
    return cast(Frame, add_absent_columns(pd.DataFrame(by_name), names))


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors by their lengths; zeros stay zeros.

    Parameters
    ----------
    vectors : ndarray of shape (n, n_components)
        Finite vectors.

    Returns
    -------
    vectors : ndarray of shape (n, n_components), float32
        Vectors of length 1.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    # Relative to the largest number, since the square of 1e-200 underflows.
    vectors = vectors / np.where(largest > 0, largest, 1.0)
    lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def _scattered_contents(cells: Cells[Values]) -> np.ndarray:
    """Return the number of each row's content (n_samples,), -1 where the modality is missing."""
    contents = np.full(len(cells.present), -1, dtype=np.int64)
    if cells.present.any():
        contents[cells.present] = encode_contents(cells.values)
    return contents
