"""Rows of a retriever, their vectors, and names of its modalities."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from skmm._frame._column import column_names, n_rows, take_columns, take_rows, to_columns
from skmm._frame._types import DataFrameLike, Frame

__all__ = [
    "VectorSet",
    "append_rows",
    "as_rows",
    "check_names",
    "check_pair",
    "found_frame",
    "present_rows",
    "row_labels",
    "unit_vectors",
]

_Rows = TypeVar("_Rows", bound=DataFrameLike | np.ndarray)


def as_rows(X: Frame, owner: str) -> DataFrameLike | np.ndarray:
    """Return a frame of rows in its own container; nested lists become an array."""
    rows = cast(DataFrameLike, X) if hasattr(X, "columns") else np.asarray(X)
    if len(rows.shape) != 2:
        raise ValueError(
            f"Expected 2D array, got {len(rows.shape)}D array instead by {owner}. Reshape your data"
            " or give a DataFrame."
        )
    return rows


def append_rows(rows: _Rows, X: DataFrameLike | np.ndarray, owner: str) -> _Rows:
    """Concatenate the rows of two frames, with the columns of the first."""
    if type(rows) is not type(X):
        raise TypeError(
            f"{owner}.partial_fit got a {type(X).__name__}, and fit a {type(rows).__name__}. Give"
            " the same type of frame."
        )
    longer: Any
    if isinstance(rows, np.ndarray):
        longer = np.concatenate([rows, X])
    else:
        added = take_columns(X, column_names(rows))  # raises if a column is missing
        if isinstance(rows, pd.DataFrame):
            # pandas would warn of a column without any cell when it infers a common dtype.
            kept = {c: rows[c].dtype for c in added.columns[added.isna().all()]}
            longer = pd.concat([rows, added.astype(kept, errors="ignore")])
        else:
            longer = cast(Any, rows).vstack(added)
    return cast(_Rows, longer)


def row_labels(rows: DataFrameLike | np.ndarray) -> pd.Index:
    """Return the index of a pandas frame, the positions of the rows of any other."""
    return rows.index if isinstance(rows, pd.DataFrame) else pd.RangeIndex(n_rows(rows))


def found_frame(
    rows: DataFrameLike | np.ndarray, positions: np.ndarray, columns: dict[str, Any]
) -> pd.DataFrame:
    """Return the rows at some positions as a DataFrame, with other columns before theirs."""
    found = take_rows(rows, positions)
    if not isinstance(found, pd.DataFrame):
        names = column_names(found)
        cells = [column.values for column in to_columns(found)]
        found = pd.DataFrame(dict(zip(names, cells, strict=True)), index=positions)
    taken = {name: f"{name}_row" for name in found.columns if name in columns}
    found = found.rename(columns=taken)
    front = pd.DataFrame(columns, index=found.index)
    return pd.concat([front, found], axis=1)


# --- Vectors of one modality ---


class VectorSet:
    """Unit vectors of the rows that have one modality, by the numbers of the rows.

    Parameters
    ----------
    width : int
        Number of dimensions of a vector.
    """

    def __init__(self, width: int):
        self._n = 0
        self._numbers = np.empty(0, dtype=np.int64)
        self._vectors = np.empty((0, width), dtype=np.float32)

    def __len__(self) -> int:
        return self._n

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the rows, (n,) int64, increasing."""
        return self._numbers[: self._n]

    @property
    def vectors(self) -> np.ndarray:
        """Vectors, (n, width) float32."""
        return self._vectors[: self._n]

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors, which the caller must not change, with numbers higher than all before."""
        if not self._n:  # no copy is needed
            self._n, self._numbers, self._vectors = len(numbers), numbers, vectors
            return
        n = self._n + len(numbers)
        if n > len(self._numbers):
            # More than is needed, so that rows that are added one by one are not copied each time.
            capacity = max(n, self._n + self._n // 4)
            self._numbers = _resized(self._numbers, self._n, capacity)
            self._vectors = _resized(self._vectors, self._n, capacity)
        self._numbers[self._n : n] = numbers
        self._vectors[self._n : n] = vectors
        self._n = n

    def remove(self, numbers: np.ndarray) -> None:
        """Remove the vectors of these numbers, if there are any."""
        kept = ~np.isin(self.numbers, numbers)
        self._numbers, self._vectors = self.numbers[kept], self.vectors[kept]
        self._n = len(self._numbers)

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return the positions of numbers that the set has."""
        return np.searchsorted(self.numbers, numbers)

    def get(self, numbers: np.ndarray) -> np.ndarray:
        """Return the vectors of these numbers, NaN for a number without one."""
        vectors = np.full((len(numbers), self._vectors.shape[1]), np.nan, dtype=np.float32)
        known = np.isin(numbers, self.numbers)
        vectors[known] = self.vectors[self.positions(numbers[known])]
        return vectors

    def __getstate__(self) -> dict[str, object]:
        return {"_n": self._n, "_numbers": self.numbers, "_vectors": self.vectors}


def _resized(array: np.ndarray, n: int, capacity: int) -> np.ndarray:
    """Copy the first ``n`` rows of an array into a larger one."""
    larger = np.empty((capacity, *array.shape[1:]), dtype=array.dtype)
    larger[:n] = array[:n]
    return larger


def unit_vectors(values: object, rows_at_once: int = 65_536) -> np.ndarray:
    """Divide vectors by their lengths; zeros stay zeros and NaN stays NaN.

    Parameters
    ----------
    values : array-like of shape (n, width)
        Vectors; a row of NaN is missing.
    rows_at_once : int, default=65536
        Number of rows that are converted to float64 at once.

    Returns
    -------
    units : ndarray of shape (n, width), float32
        Vectors of length 1, a new array.
    """
    array = np.asarray(values)
    units = np.empty(array.shape, dtype=np.float32)
    for begin in range(0, len(array), rows_at_once):
        part = slice(begin, begin + rows_at_once)
        exact = array[part].astype(np.float64)
        # Relative to the largest number, since the square of 1e-200 underflows.
        largest = np.abs(exact).max(axis=1, keepdims=True, initial=0.0)
        exact /= np.where(largest > 0, largest, 1.0)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        units[part] = exact / np.where(lengths > 0, lengths, 1.0)
    return units


# --- Names of modalities ---


def check_names(
    given: Sequence[str] | None, names: list[str], owner: str, *, parameter: str | None = None
) -> None:
    """Refuse a name that is not that of a modality; ``parameter`` is named in the message."""
    for name in given or ():
        if name not in names:
            known = ", ".join(map(repr, names))
            place = f"{owner}, {parameter}={name!r}" if parameter else owner
            raise ValueError(
                f"{place}: no modality {name!r}. The modalities of its alignment are {known}."
            )


def check_pair(
    source: str | None, target: str | None, names: list[str], owner: str
) -> tuple[str, str]:
    """Return source and target, with defaults if there are two modalities."""
    check_names([name for name in (source, target) if name is not None], names, owner)
    if source is not None and target is not None:
        return source, target
    if len(names) != 2:
        raise ValueError(
            f"{owner} needs source and target, since its alignment has {len(names)} modalities,"
            f" {', '.join(map(repr, names))}."
        )
    first, second = names
    if source is None and target is None:
        return first, second
    if source is None:
        return (first if target == second else second), str(target)
    return source, (first if source == second else second)


def present_rows(vectors: np.ndarray) -> np.ndarray:
    """Return which rows have a vector, (n,) bool."""
    present: np.ndarray = ~np.isnan(vectors).any(axis=1)
    return present
