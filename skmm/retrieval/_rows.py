"""The rows of a retriever: frames that grow and shrink, and rows picked as a DataFrame."""

from typing import Any

import numpy as np
import pandas as pd

from skmm._frame._column import column_names, n_rows, take_columns, take_rows, to_columns

__all__ = ["append_rows", "as_rows", "found_frame", "row_labels"]


def as_rows(X: Any, owner: str) -> Any:
    """Frame of rows in the container it comes in; nested lists become an array."""
    rows = X if hasattr(X, "columns") else np.asarray(X)
    if len(rows.shape) != 2:
        raise ValueError(
            f"Expected 2D array, got {len(rows.shape)}D array instead by {owner}. Reshape your data"
            " or give a DataFrame."
        )
    return rows


def append_rows(rows: Any, X: Any, owner: str) -> Any:
    """Rows of two frames, the columns as in the first."""
    if type(rows) is not type(X):
        raise TypeError(
            f"{owner}.partial_fit got a {type(X).__name__}, and fit a {type(rows).__name__}. Give"
            " the same kind of frame."
        )
    if isinstance(rows, np.ndarray):
        return np.concatenate([rows, X])
    X = take_columns(X, column_names(rows))  # raises for a column that is not there
    if isinstance(rows, pd.DataFrame):
        # A column without any cell would warn when pandas looks for a common dtype.
        X = X.astype({c: rows[c].dtype for c in X.columns[X.isna().all()]}, errors="ignore")
        return pd.concat([rows, X])
    return rows.vstack(X)


def row_labels(rows: Any) -> pd.Index:
    """Index of a pandas frame, positions of any other."""
    return rows.index if isinstance(rows, pd.DataFrame) else pd.RangeIndex(n_rows(rows))


def found_frame(rows: Any, places: np.ndarray, columns: dict[str, Any]) -> pd.DataFrame:
    """Rows at the places, as a DataFrame, with other columns in front of theirs."""
    found = take_rows(rows, places)
    if not isinstance(found, pd.DataFrame):
        names = column_names(found)
        cells = [column.values for column in to_columns(found)]
        found = pd.DataFrame(dict(zip(names, cells, strict=True)), index=places)
    taken = {name: f"{name}_row" for name in found.columns if name in columns}
    found = found.rename(columns=taken)
    front = pd.DataFrame(columns, index=found.index)
    return pd.concat([front, found], axis=1)
