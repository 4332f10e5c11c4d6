"""A modality of a fusion: its transformer, fitted on the rows that have the modality."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import clone

from skmm._compose._base import Modality, presence
from skmm._frame._column import Column, column_names, columns_of, n_rows, take_columns, take_rows
from skmm._frame._types import CellColumn, Frame

__all__ = [
    "Block",
    "BlockValues",
    "FARTHEST",
    "Noted",
    "params_of_rows",
    "seeded_clone",
]

# Largest distance from the training mean, in standard deviations; larger values are clipped.
FARTHEST = 20.0


# Largest number of values of a sparse matrix that is converted to a dense one.
_LARGEST_DENSE = 500_000_000


class BlockValues:
    """Features of one modality for a frame.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_features)
        float32, or float64 where a transformer gave that or numbers are passed through; NaN in
        rows without the modality.
    present : ndarray of shape (n_samples,)
        False for a row without the modality.
    """

    def __init__(self, values: np.ndarray, present: np.ndarray):
        self.values = values
        self.present = present

    @property
    def flaw(self) -> str | None:
        """Reason why these training rows cannot be used, None if they can."""
        if not self.present.any():
            return "is absent in every training row"
        return None if self.values.shape[-1] else "has no features"

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and standard deviation of each feature, over the rows that have it.

        A feature that is constant up to rounding has deviation 1, as in ``StandardScaler``.
        """
        features = self.values.astype(np.float64)
        known = ~np.isnan(features)
        counts = np.maximum(known.sum(axis=0), 1)
        # Relative to the largest value: squares of 1e200 overflow and those of 1e-200 underflow.
        largest = np.abs(np.where(known, features, 0.0)).max(axis=0, initial=0.0)
        unit = np.where(largest > 0, largest, 1.0)
        relative = np.where(known, features / unit, 0.0)
        mean = relative.sum(axis=0) / counts
        deviation = np.sqrt((np.where(known, relative - mean, 0.0) ** 2).sum(axis=0) / counts)
        constant = deviation <= 10 * np.finfo(self.values.dtype).eps * np.abs(mean)
        return mean * unit, np.where(constant, 1.0, deviation * unit)


class Block:
    """A modality with its fitted transformer.

    Parameters
    ----------
    modality : Modality
        Name, unfitted transformer and columns.
    seed : int or None, default=None
        Seed of every part of the transformer whose ``random_state`` is None.

    Attributes
    ----------
    transformer : object or None
        Fitted; None if cells are passed through or no row has the modality.
    n_features : int
        Number of features; 0 for a modality that cannot be used.
    mean, deviation : ndarray of shape (n_features,)
        Mean and standard deviation of the features over the training rows that have them.
    """

    def __init__(self, modality: Modality, seed: int | None = None):
        self.name = modality.name
        self.columns = modality.columns
        self.unfitted = modality.transformer
        self.seed = seed
        self.transformer: Any = None
        self.n_features = 0

    @property
    def is_passthrough(self) -> bool:
        """Whether cells are numbers or vectors that are used unchanged."""
        return isinstance(self.unfitted, str)

    @property
    def triple(self) -> tuple[str, Any, list[str]]:
        """Name, fitted transformer and names of the columns."""
        fitted = "passthrough" if self.transformer is None else self.transformer
        return self.name, fitted, self.input_names

    def fit_transform(
        self, X: Frame, y: np.ndarray | None = None, params: Mapping[str, Any] | None = None
    ) -> BlockValues:
        """Fit on the rows that have the modality, and return the features of all rows.

        ``params`` are passed to the transformer's ``fit``; those with an entry per row are
        restricted to its rows. Check the ``flaw`` of the result before using it.
        """
        cells = columns_of(X, self.columns)
        present = presence(cells)
        self.input_names = column_names(X, self.columns)
        rows = np.flatnonzero(present)
        if not len(rows):
            return BlockValues(np.empty((len(present), 0), dtype=np.float32), present)
        if self.is_passthrough:
            features = self._as_numbers(cells, rows)
        else:
            features = self._fit_transformer(
                self._rows(X, rows, len(present)),
                None if y is None else y[rows],
                params_of_rows(params or {}, rows, len(present)),
            )
        self.n_features = features.shape[1]
        value = self._scattered(features, rows, present)
        self.mean, self.deviation = value.scale()
        return value

    def _fit_transformer(
        self, own: CellColumn, y: np.ndarray | None, params: Mapping[str, Any]
    ) -> np.ndarray:
        self.transformer = seeded_clone(self.unfitted, self.seed)
        with Noted(self.name, "fit"):
            if hasattr(self.transformer, "fit_transform"):
                features = self.transformer.fit_transform(own, y, **params)
            else:
                features = self.transformer.fit(own, y, **params).transform(own)
        return _dense(features, self.name, n_rows(own))

    def fit_lazily(self, X: Frame) -> BlockValues:
        """Record the columns and presence of a modality whose encoder the caller trains."""
        _, present = self.select(X)
        self.input_names = column_names(X, self.columns)
        return BlockValues(np.empty((len(present), 0), dtype=np.float32), present)

    def transform(self, X: Frame) -> BlockValues:
        """Return the features of a new frame."""
        cells = columns_of(X, self.columns)
        present = presence(cells)
        rows = np.flatnonzero(present)
        if not len(rows):
            empty = np.full((len(present), self.n_features), np.nan, dtype=np.float32)
            return BlockValues(empty, present)
        if self.is_passthrough:
            features = self._as_numbers(cells, rows)
        else:
            with Noted(self.name, "transform"):
                features = self.transformer.transform(self._rows(X, rows, len(present)))
            features = _dense(features, self.name, len(rows))
        if features.shape[1] != self.n_features:
            raise ValueError(
                f"Modality {self.name!r} had {self.n_features} features in fit and has"
                f" {features.shape[1]} now. Its cells must be vectors of the same length."
            )
        return self._scattered(features, rows, present)

    def standardized(self, value: BlockValues) -> np.ndarray:
        """Return features (n_samples, n_features), float32, standardized by the training rows.

        Missing features are 0, the mean: those of rows without the modality or a part of it.
        """
        with np.errstate(over="ignore"):
            scaled = (value.values - self.mean) / self.deviation
        features: np.ndarray = np.nan_to_num(np.clip(scaled, -FARTHEST, FARTHEST))
        return features.astype(np.float32)

    def select(self, X: Frame) -> tuple[CellColumn, np.ndarray]:
        """Return the columns of this modality, and which rows have it."""
        return take_columns(X, self.columns), presence(columns_of(X, self.columns))

    def _rows(self, X: Frame, rows: np.ndarray, n: int) -> CellColumn:
        """Return some of the ``n`` rows of the modality's columns."""
        own: CellColumn = take_columns(X, self.columns)
        if len(rows) < n:
            own = take_rows(own, rows)
        return own

    def _as_numbers(self, cells: list[Column], rows: np.ndarray) -> np.ndarray:
        """Return the numbers and the concatenated vectors of passed-through cells."""
        if len(rows) < len(cells[0].values):
            cells = [Column(c.name, c.values[rows], c.missing[rows], c.labels[rows]) for c in cells]
        columns = [_column_numbers(column, self.name) for column in cells]
        if not self.n_features:
            self._widths = [column.shape[1] for column in columns]
        for j, (width, name) in enumerate(zip(self._widths, self.input_names, strict=True)):
            if cells[j].missing.all():  # the length of its vectors is unknown
                columns[j] = np.full((len(rows), width), np.nan, dtype=np.float32)
            if columns[j].shape[1] != width:
                raise ValueError(
                    f"Modality {self.name!r} is passed through: column {name!r} held vectors of"
                    f" {width} numbers in fit and holds {columns[j].shape[1]} now. Give vectors of"
                    " the same length."
                )
        features = np.column_stack(columns)
        return _finite(features, self.name)

    def _scattered(
        self, features: np.ndarray, rows: np.ndarray, present: np.ndarray
    ) -> BlockValues:
        # Cells that an encoder cannot read count as absent.
        if features.shape[1]:
            unreadable = np.isnan(features).all(axis=1)
            if unreadable.any():
                present = present.copy()
                present[rows[unreadable]] = False
        if len(rows) == len(present):
            return BlockValues(features, present)
        values = np.full((len(present), features.shape[1]), np.nan, dtype=features.dtype)
        values[rows] = features
        return BlockValues(values, present)

    def present_rows(self, value: BlockValues) -> np.ndarray:
        """Return the features of the rows that have the modality, float64, without NaN.

        A row may have a part of the modality, such as one photo of two; the mean replaces the
        features of the other part.
        """
        features = value.values[value.present].astype(np.float64)
        known: np.ndarray = np.where(np.isnan(features), self.mean, features)
        return known

    def names_out(self) -> list[str]:
        """Return the feature names, prefixed with the modality."""
        names: list[str] = []
        if self.is_passthrough:
            for name, width in zip(self.input_names, self._widths, strict=True):
                names += [name] if width == 1 else [f"{name}_{i}" for i in _digits(width)]
        else:
            try:
                names = list(self.transformer.get_feature_names_out())
            except (AttributeError, NotImplementedError):
                pass  # a transformer without names: numbers
        if len(names) != self.n_features:
            names = _digits(self.n_features)
        return [f"{self.name}__{name}" for name in names]


def seeded_clone(estimator: object, seed: int | None) -> Any:
    """Clone an estimator and seed each of its parts whose ``random_state`` is None.

    One ``random_state`` of a fusion thus makes all its parts reproducible, as in scikit-learn's
    ensembles.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    seed : int or None
        None leaves everything as it is.

    Returns
    -------
    clone : estimator
        Unfitted.
    """
    cloned: Any = clone(estimator)
    if seed is None:
        return cloned
    parameters = cloned.get_params(deep=True)
    open_states = sorted(
        name
        for name, value in parameters.items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    )
    if open_states:
        # One seed each, or two equal parts of a pipeline would sample the same numbers.
        draws = np.random.RandomState(seed).randint(2**31 - 1, size=len(open_states))
        cloned.set_params(**{n: int(d) for n, d in zip(open_states, draws, strict=True)})
    return cloned


def params_of_rows(params: Mapping[str, Any], rows: np.ndarray, n: int) -> dict[str, Any]:
    """Restrict fit parameters that have an entry for each of ``n`` rows to ``rows``."""
    return {
        name: take_rows(value, rows)
        if not isinstance(value, str | bytes | dict) and np.shape(value)[:1] == (n,)
        else value
        for name, value in params.items()
    }


class Noted:
    """Add a note with the modality, and a hint, to an error raised inside the block.

    Parameters
    ----------
    name : str
        Of the modality.
    verb : str
        Method of its transformer that runs.
    """

    def __init__(self, name: str, verb: str):
        self.note = f"In {verb} of modality {name!r} of the fusion."

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        error.add_note(self.note)
        if "contains NaN" in str(error):
            error.add_note(
                "A row that has the modality in part, such as one photo of two, is NaN in the"
                " other part: put a SimpleImputer in between, or make each column a modality."
            )


def _dense(features: Any, name: str, n: int) -> np.ndarray:
    """Return the features of a transformer as a finite float matrix of ``n`` rows."""
    if sparse.issparse(features):
        if np.prod(features.shape, dtype=np.int64) > _LARGEST_DENSE:
            raise ValueError(
                f"Modality {name!r} gives a sparse matrix of shape {features.shape}, too large to"
                " be fused. Put a TruncatedSVD after its transformer."
            )
        features = features.toarray()
    # C order for every container, because the order in memory changes how sums are rounded.
    features = np.asarray(features, order="C")
    if features.ndim != 2 or len(features) != n:
        raise ValueError(
            f"The transformer of modality {name!r} gave an array of shape {features.shape} for {n}"
            " rows. A fusion needs (n_samples, n_features)."
        )
    # float16 is too short for sums; float32 represents integers of up to 24 bits only.
    small = features.dtype.kind in "biuf" and features.dtype.itemsize <= 2
    if not small and features.dtype not in (np.float32, np.float64):
        try:
            features = features.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"The transformer of modality {name!r} gave cells that are no numbers ({error}). A"
                " fusion needs (n_samples, n_features) numbers."
            ) from error
    return _finite(features.astype(np.float32) if small else features, name)


def _finite(features: np.ndarray, name: str) -> np.ndarray:
    """Refuse infinite values; NaN marks missing ones."""
    infinite = np.isinf(features)
    if infinite.any():
        raise ValueError(
            f"Modality {name!r} has an infinite value among its features"
            f" ({int(infinite.any(axis=1).sum())} rows). Replace it by a number, or by None if it"
            " is not known."
        )
    return features


def _column_numbers(column: Column, name: str) -> np.ndarray:
    """Return the cells of a passed-through column, (n_rows, length of a cell), with NaN."""
    present = np.flatnonzero(~column.missing)
    if not len(present):
        return np.full((len(column.values), 1), np.nan, dtype=np.float32)
    cells = [column.values[i] for i in present]
    single = all(getattr(cell, "dtype", None) == np.float32 for cell in cells)
    try:
        cells = [np.asarray(c, dtype=np.float32 if single else np.float64).ravel() for c in cells]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Modality {name!r} is passed through, but column {column.name!r} holds cells that are"
            f" no numbers ({error}). Give it a transformer, such as 'text' or 'image'."
        ) from error
    lengths = {len(cell) for cell in cells}
    if len(lengths) > 1:
        raise ValueError(
            f"Modality {name!r} is passed through, but the vectors in column {column.name!r} have"
            f" {len(lengths)} different lengths, from {min(lengths)} to {max(lengths)}. Vectors"
            " must be of one length."
        )
    values = np.full((len(column.values), lengths.pop()), np.nan, dtype=cells[0].dtype)
    values[present] = np.stack(cells)
    return values


def _digits(n: int) -> list[str]:
    """Return the numbers from 0 to n - 1, padded with zeros to one length."""
    width = len(str(max(n - 1, 0)))
    return [f"{i:0{width}d}" for i in range(n)]
