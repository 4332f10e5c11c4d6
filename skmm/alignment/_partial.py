"""Frames that hold some of the columns of ``fit``: what one modality needs, and no more."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skmm._frame._column import add_absent_columns, take_columns, to_columns

__all__ = ["whole_frame"]


def whole_frame(
    X: Any, needed: Sequence[int], names: Sequence[str] | None, n_columns: int, owner: str
) -> Any:
    """Give a frame the columns that it lacks, with every cell missing.

    Parameters
    ----------
    X : DataFrame, ndarray, Series or list of cells
        All columns, or those that are needed; a Series, a list of cells and an array of one
        dimension are one column.
    needed : sequence of int
        Positions, in the frame of ``fit``, of the columns that have to be there.
    names : sequence of str or None
        Columns of the frame of ``fit``, None if it had no names.
    n_columns : int
        Their number.
    owner : str
        Who asks, for messages.

    Returns
    -------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Columns that are not needed are absent, whether they were there or not.

    Raises
    ------
    ValueError
        If a needed column is not there.
    """
    needed = sorted(set(needed))
    if names is not None and hasattr(X, "columns"):
        return add_absent_columns(take_columns(X, [names[p] for p in needed]), names)
    if names is None and getattr(X, "ndim", 1) == 2 and X.shape[1] == n_columns:
        return X
    columns = to_columns(X)
    if len(columns) not in (n_columns, len(needed)):
        listed = ", ".join(map(repr, [names[p] for p in needed] if names else needed))
        raise ValueError(
            f"{owner} got {len(columns)} columns without names, and needs the"
            f" {len(needed)} columns {listed} or all {n_columns} of fit. Give a DataFrame with"
            " their names."
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
    return add_absent_columns(pd.DataFrame(by_name), names)
