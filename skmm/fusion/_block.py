"""One modality on its way into a fusion: fitted where it is present, NaN where it is not."""

import warnings
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import clone

from skmm._column import Column, column_names, n_rows, take_columns, take_rows, to_columns
from skmm.exceptions import ModalityWarning
from skmm.fusion._modalities import Modality, presence

__all__ = ["Block", "BlockValues"]

# More numbers than this in one block are a sparse matrix made dense by accident.
_LARGEST_DENSE = 500_000_000


class BlockValues:
    """Features of one modality for a frame.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_features)
        float32 (float64 if passed through as such); NaN in rows that lack the modality.
    present : ndarray of shape (n_samples,)
        False where the row lacks the modality.
    """

    def __init__(self, values: np.ndarray, present: np.ndarray):
        self.values = values
        self.present = present

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature, over the rows that have it.

        What is constant up to rounding has deviation 1, as in ``StandardScaler``.
        """
        features = self.values.astype(np.float64)
        known = ~np.isnan(features)
        counts = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, features, 0.0).sum(axis=0) / counts
        deviation = np.sqrt((np.where(known, features - mean, 0.0) ** 2).sum(axis=0) / counts)
        tiny = 10 * np.finfo(self.values.dtype).eps * np.maximum(np.abs(mean), 1.0)
        return mean, np.where(deviation > tiny, deviation, 1.0)


class Block:
    """A modality with its fitted transformer.

    Parameters
    ----------
    modality : Modality
        Name, unfitted transformer and columns.
    """

    def __init__(self, modality: Modality):
        self.name = modality.name
        self.columns = modality.columns
        self.middle = modality.middle
        self.transformer: Any = None  # fitted; None if passed through

    @property
    def is_passthrough(self) -> bool:
        """Whether cells are taken as the numbers or vectors they are."""
        return isinstance(self.middle, str)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> BlockValues:
        """Fit on the rows that have the modality, and give everybody's features."""
        own, present = self.select(X)
        self.input_names = column_names(X, self.columns)
        rows = np.flatnonzero(present)
        if not len(rows):
            self.warn_absent()
            self.n_features = 0
            self.transformer = None
            return BlockValues(np.empty((n_rows(X), 0), dtype=np.float32), present)
        if self.is_passthrough:
            features = _as_numbers(take_rows(own, rows), self.name)
        else:
            self.transformer = clone(self.middle)
            with _noted(self.name, "fit_transform"):
                features = _dense(
                    self.transformer.fit_transform(
                        take_rows(own, rows), None if y is None else y[rows], **fit_params
                    ),
                    self.name,
                )
        self.n_features = features.shape[1]
        value = self._scattered(features, rows, present)
        self.mean, self.deviation = value.scale()
        return value

    def fit_lazily(self, X: Any) -> BlockValues:
        """Note columns and presence of a modality that the caller trains by itself."""
        _, present = self.select(X)
        self.input_names = column_names(X, self.columns)
        return BlockValues(np.empty((n_rows(X), 0), dtype=np.float32), present)

    def transform(self, X: Any) -> BlockValues:
        """Features of a new frame."""
        own, present = self.select(X)
        rows = np.flatnonzero(present)
        if not self.n_features or not len(rows):
            empty = np.full((n_rows(X), self.n_features), np.nan, dtype=np.float32)
            return BlockValues(empty, present & bool(self.n_features))
        if self.is_passthrough:
            features = _as_numbers(take_rows(own, rows), self.name)
        else:
            with _noted(self.name, "transform"):
                features = _dense(self.transformer.transform(take_rows(own, rows)), self.name)
        if features.shape[1] != self.n_features:
            raise ValueError(
                f"Modality {self.name!r} had {self.n_features} features in fit and has"
                f" {features.shape[1]} now. Its cells must be vectors of the same length."
            )
        return self._scattered(features, rows, present)

    def warn_absent(self) -> None:
        """Say that this modality cannot be used."""
        warnings.warn(
            f"Modality {self.name!r} is absent in every training row and is left out.",
            ModalityWarning,
            stacklevel=4,
        )

    def select(self, X: Any) -> tuple[Any, np.ndarray]:
        """Return this modality's part of the frame, and which rows have it."""
        own = take_columns(X, self.columns)
        return own, presence(own)

    def _scattered(
        self, features: np.ndarray, rows: np.ndarray, present: np.ndarray
    ) -> BlockValues:
        # An encoder may find a cell unreadable and count it as absent: so do we.
        unreadable = np.isnan(features).all(axis=1) if features.shape[1] else np.zeros(0, bool)
        if len(unreadable) and unreadable.any():
            present = present.copy()
            present[rows[unreadable]] = False
        if len(rows) == len(present):
            return BlockValues(features, present)
        values = np.full((len(present), features.shape[1]), np.nan, dtype=features.dtype)
        values[rows] = features
        return BlockValues(values, present)

    def present_rows(self, value: BlockValues) -> np.ndarray:
        """Features of the rows that have the modality, without NaN.

        A row may have the modality in part, e.g. one photo of two; what is lacking is then the
        average.
        """
        features = value.values[value.present]
        return np.where(np.isnan(features), self.mean.astype(features.dtype), features)

    def names_out(self) -> list[str]:
        """Feature names, with the modality in front."""
        names: Any
        try:
            names = (
                self.input_names
                if self.is_passthrough
                else self.transformer.get_feature_names_out()
            )
        except (AttributeError, NotImplementedError):
            names = []
        if len(names) != self.n_features:
            digits = len(str(max(self.n_features - 1, 0)))
            names = [f"{i:0{digits}d}" for i in range(self.n_features)]
        return [f"{self.name}__{name}" for name in names]


class _noted:
    """Adds to an error which modality it came from."""

    def __init__(self, name: str, verb: str):
        self.note = f"In {verb} of modality {name!r} of the fusion."

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            error.add_note(self.note)


def _dense(features: Any, name: str) -> np.ndarray:
    if sparse.issparse(features):
        if np.prod(features.shape, dtype=np.int64) > _LARGEST_DENSE:
            raise ValueError(
                f"Modality {name!r} gives a sparse matrix of shape {features.shape}, too large to"
                " be fused. Put a TruncatedSVD after its transformer."
            )
        features = features.toarray()
    features = np.asarray(features)
    if features.ndim != 2:
        raise ValueError(
            f"The transformer of modality {name!r} gave an array of shape {features.shape}; a"
            " fusion needs (n_samples, n_features)."
        )
    if features.dtype.kind not in "biuf":
        features = features.astype(np.float64)
    return features if features.dtype == np.float64 else features.astype(np.float32, copy=False)


def _as_numbers(X: Any, name: str) -> np.ndarray:
    """Numbers as they are, cells that hold vectors side by side."""
    return np.column_stack([_column_numbers(column, name) for column in to_columns(X)])


def _column_numbers(column: Column, name: str) -> np.ndarray:
    present = np.flatnonzero(~column.missing)
    if not len(present):
        return np.full((len(column.values), 1), np.nan)
    try:
        cells = [np.asarray(column.values[i], dtype=np.float64).ravel() for i in present]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Modality {name!r} is passed through, but column {column.name!r} holds"
            f" {type(column.values[present[0]]).__name__}. Give it a transformer, such as 'text'"
            " or 'image'."
        ) from error
    lengths = {len(cell) for cell in cells}
    if len(lengths) > 1:
        raise ValueError(
            f"Modality {name!r} is passed through, but the vectors in column {column.name!r} have"
            f" {len(lengths)} different lengths, from {min(lengths)} to {max(lengths)}. Vectors"
            " must be of one length."
        )
    values = np.full((len(column.values), lengths.pop()), np.nan)
    values[present] = np.stack(cells)
    return values
