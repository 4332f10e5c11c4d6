"""Cells of other rows in place of a row's own. What comes in is never changed."""

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["exchange_cells", "put_cells"]


def exchange_cells(X: Any, positions: list[int], order: np.ndarray, source: Any = None) -> Any:
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
        What these are rows of. None is ``X``.

    Returns
    -------
    X : same container
        The cells themselves are shared with the one that came in.
    """
    source = X if source is None else source
    if isinstance(X, pd.DataFrame):
        frame = X.copy(deep=False)
        for position in positions:
            frame.isetitem(position, source.iloc[:, position].array.take(order))
        return frame
    if hasattr(X, "with_columns"):  # polars
        columns = source.get_columns()
        return X.with_columns([columns[position].gather(order) for position in positions])
    array = np.array(X)
    array[:, positions] = np.asarray(source)[np.ix_(order, np.asarray(positions))]
    return array


def put_cells(X: Any, position: int, cells: list[Any]) -> Any:
    """Return ``X`` with other cells in one column.

    Parameters
    ----------
    X : pandas or polars DataFrame, or array-like of shape (n_samples, n_columns)
        Data.
    position : int
        The column.
    cells : list of length n_samples
        What is put there, as it is.

    Returns
    -------
    X : same container
        The other columns are shared with the one that came in.
    """
    column = np.fromiter(cells, dtype=object, count=len(cells))
    if isinstance(X, pd.DataFrame):
        frame = X.copy(deep=False)
        frame.isetitem(position, column)
        return frame
    if hasattr(X, "with_columns"):  # polars
        series = X.get_columns()[position]
        return X.with_columns(type(series)(series.name, list(cells)))
    array = np.array(X, dtype=object)
    array[:, position] = column
    return array
