"""Edits of cells in a copy of the container. The input is never changed."""

from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from skmm._frame._column import column_names, columns_of, is_missing, take_columns
from skmm._frame._types import CellColumn, ColumnKey

__all__ = [
    "column_positions",
    "exchange_cells",
    "has_cells",
    "put_cells",
    "remove_cells",
]

_Frame = TypeVar("_Frame")


def column_positions(X: CellColumn, key: ColumnKey) -> list[int]:
    """Return the positions of the columns of ``X`` that a key of ``take_columns`` selects."""
    key = key(X) if callable(key) else key
    numbers = list(range(len(column_names(X))))
    # Select from a frame of one row whose cells are the positions.
    names = getattr(X, "columns", None)
    probe = np.array([numbers]) if names is None else pd.DataFrame([numbers], columns=list(names))
    return [int(position) for position in np.ravel(take_columns(probe, key))]


def has_cells(X: CellColumn, positions: list[int]) -> np.ndarray:
    """Return which rows have a cell in at least one of the columns, (n_samples,) bool."""
    absent: np.ndarray = np.logical_and.reduce(
        [column.missing for column in columns_of(X, positions)]
    )
    return ~absent


def remove_cells(X: _Frame, positions: list[int], rows: np.ndarray) -> _Frame:
    """Return ``X`` without some cells.

    Parameters
    ----------
    X : pandas or polars DataFrame, or array-like of shape (n_samples, n_columns)
        Data.
    positions : list of int
        Columns.
    rows : ndarray of shape (n_samples,), bool
        Rows in which they are set to missing.

    Returns
    -------
    X : same container
        The other columns are shared with the input. A column of integers that gets a missing cell
        becomes a column of floats, as in pandas.
    """
    if not rows.any():
        return X
    if isinstance(X, pd.DataFrame):
        frame = X.copy(deep=False)
        for position in positions:
            frame.isetitem(position, _without(X.iloc[:, position], rows).array)
        return cast(_Frame, frame)
    if hasattr(X, "with_columns"):  # polars
        columns: Any = cast(Any, X).get_columns()
        series = [columns[position] for position in positions]
        keep = [type(s)(~rows) for s in series]
        emptied = [s.zip_with(k, s.clear(len(rows))) for s, k in zip(series, keep, strict=True)]
        return cast(_Frame, X.with_columns(emptied))
    array = np.array(X)
    if array.dtype.kind not in "fc":  # an array of integers or texts cannot hold NaN
        array = array.astype(float if array.dtype.kind in "biu" else object)
    array[np.ix_(rows, np.asarray(positions))] = np.nan
    return cast(_Frame, array)


def _without(series: pd.Series, rows: np.ndarray) -> pd.Series:
    if series.dtype != object:
        return series.mask(rows)
    cells = series.to_numpy(dtype=object, copy=True)
    # In the form that the column already has: a OneHotEncoder distinguishes None and NaN.
    written = cells[is_missing(cells)]
    cells[rows] = written[0] if len(written) else np.nan
    return pd.Series(cells, index=series.index, name=series.name, dtype=object)


# --- Replacing cells by those of other rows, or by given ones ---


def exchange_cells(
    X: _Frame, positions: list[int], order: np.ndarray, source: _Frame | None = None
) -> _Frame:
    """Return ``X`` with some of its columns from other rows, together.

    Parameters
    ----------
    X : pandas or polars DataFrame, or array-like of shape (n_samples, n_columns)
        Data.
    positions : list of int
        Columns.
    order : ndarray of shape (n_samples,), int
        Row whose cells each row gets.
    source : same container with the same columns, default=None
        Container of these rows; None is ``X``.

    Returns
    -------
    X : same container
        The cells themselves are shared with the input.
    """
    others: Any = X if source is None else source
    if isinstance(X, pd.DataFrame):
        frame = X.copy(deep=False)
        for position in positions:
            frame.isetitem(position, others.iloc[:, position].array.take(order))
        return cast(_Frame, frame)
    if hasattr(X, "with_columns"):  # polars
        columns = others.get_columns()
        exchanged = [columns[position].gather(order) for position in positions]
        return cast(_Frame, X.with_columns(exchanged))
    array = np.array(X)
    array[:, positions] = np.asarray(others)[np.ix_(order, np.asarray(positions))]
    return cast(_Frame, array)


def put_cells(X: _Frame, position: int, cells: list[Any]) -> _Frame:
    """Return ``X`` with other cells in one column.

    Parameters
    ----------
    X : pandas or polars DataFrame, or array-like of shape (n_samples, n_columns)
        Data.
    position : int
        The column.
    cells : list of length n_samples
        The new cells, unchanged.

    Returns
    -------
    X : same container
        The other columns are shared with the input.
    """
    column = np.fromiter(cells, dtype=object, count=len(cells))
    if isinstance(X, pd.DataFrame):
        frame = X.copy(deep=False)
        frame.isetitem(position, column)
        return cast(_Frame, frame)
    if hasattr(X, "with_columns"):  # polars
        series = cast(Any, X).get_columns()[position]
        return cast(_Frame, X.with_columns(type(series)(series.name, list(cells))))
    array = np.array(X, dtype=object)
    array[:, position] = column
    return cast(_Frame, array)
