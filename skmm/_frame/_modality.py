"""Inference of the modality of a column from its dtype and a few of its cells.

No file is opened, decoded or downloaded, and polars is not imported.
"""

import os
import re
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pandas as pd

from skmm._frame._column import Column, column_names, iter_series, n_rows, to_column
from skmm._frame._media import SCALARS, cell_kind, describe, path_kind, shape_and_dtype
from skmm._frame._types import CellColumn
from skmm.exceptions import CellTypeError

__all__ = ["MODALITIES", "infer_modalities"]

MODALITIES = (
    "text",
    "image",
    "audio",
    "video",
    "timeseries",
    "pointcloud",
    "tabular",
    "vector",
    "drop",
)

_N_SAMPLED = 200

# Words in the name of a column whose (n, 3 or more) arrays are points.
_POINT_NAME = re.compile(r"points?|clouds?|pointclouds?|lidar|xyz|pcd")

_NUMBER = re.compile(r"\s*[+-]?(\d[\d ]*([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*%?\s*")
_DATE = re.compile(r"\s*\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}.*)?")

# A column of strings holds categories if each value is repeated often enough and there are few
# values: (limit of words per value, average count of a value, maximum number of values).
_REPEATS = [(1.5, 1.25, 1000), (4.5, 3, 1000), (np.inf, 10, 40)]


def infer_modalities(X: CellColumn) -> dict[str, str]:
    """Infer the modality of each column.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Raw data; a row is a sample. Columns without a name are called ``"x0"``, ``"x1"``, ...

    Returns
    -------
    modalities : dict of str to str
        Modality of each column, in order:

        - ``"tabular"``: numbers, booleans, dates, categories, repeated strings (see *Notes*);
        - ``"text"``: other strings;
        - ``"image"``, ``"audio"``, ``"video"``, ``"pointcloud"``: paths and URLs by their suffix,
          bytes by their signature, and PIL images. Arrays of shape ``(height, width)`` of dtype
          uint8, uint16 or bool, ``(height, width, 1 or 3 or 4)`` or ``(1 or 3, height, width)``
          are images, arrays of 4 dimensions are videos, and a list of images is ``"image"`` too;
        - ``"vector"``: one-dimensional arrays or lists of numbers, all of the same length;
        - ``"timeseries"``: such arrays of different lengths, and arrays ``(n_timestamps,
          n_channels)``. With 3 or more columns these are ``"pointcloud"`` if the name of the
          column contains one of the words point, cloud, pointcloud, lidar, xyz and pcd;
        - ``"drop"``: a column without any cell, or with the same number or string in every row
          (with missing cells it is kept, because absence is information).

    Raises
    ------
    CellTypeError
        If a cell belongs to no modality, or two cells of a column belong to different ones; the
        message names column and rows.
    ValueError
        If X has no rows, no columns, or two columns of the same name.

    Notes
    -----
    At most 200 cells of a column are inspected, spread evenly over the present ones, so that the
    result is deterministic. Only distinct strings are counted over all cells. No file is opened.

    Strings are categories (``"tabular"``) if their values are repeated, and texts otherwise. Each
    distinct value must occur at least 1.25 times on average if values have one word, 3 times if
    they have up to 4 words, and 10 times if they are longer; and there may be at most 1000
    distinct values, or 40 long ones. Strings that are all numbers or dates are ``"tabular"`` too.
    Unique identifiers are inferred as ``"text"``: drop such a column.

    If at least half of the strings of a column are paths of media files, all of them must be.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import infer_modalities
    >>> frame = pd.DataFrame(
    ...     {
    ...         "photo": ["coat.jpg", None, "hat.jpg", "scarf.png"],
    ...         "review": ["Warm and soft", "Fell apart", None, "Bought it twice"],
    ...         "color": ["red", "blue", "red", "red"],
    ...         "price": [89.0, 12.5, None, 20.0],
    ...         "shop": ["north", "north", "north", "north"],
    ...     }
    ... )
    >>> infer_modalities(frame)
    {'photo': 'image', 'review': 'text', 'color': 'tabular', 'price': 'tabular', 'shop': 'drop'}
    """
    names = column_names(X)
    if not names or not n_rows(X):
        raise ValueError(
            f"Modalities cannot be inferred from X with {n_rows(X)} rows and {len(names)} columns."
            " Pass at least one of each."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"X has several columns named {twice[0]!r}. Rename them.")
    return {
        name: _modality(name, series)
        for name, (_, series) in zip(names, iter_series(X), strict=True)
    }


def _modality(name: str, series: CellColumn) -> str:
    if _is_tabular_dtype(series):
        return _tabular_or_drop(series)
    column = to_column(name, series)
    present = np.flatnonzero(~column.missing)
    if not present.size:
        return "drop"
    if present.size == len(column.values) > 1 and _is_constant(column.values):
        return "drop"
    # Spread evenly, because a frame may be sorted by source.
    few = np.linspace(0, present.size - 1, min(present.size, _N_SAMPLED)).astype(np.intp)
    kinds: dict[str, int] = {}  # kind -> its first row
    for row in present[few]:
        kinds.setdefault(_kind(column, row), int(row))
    kinds = _settle_strings(column, kinds, present[few])
    if len(kinds) > 1:
        _refuse_mixture(column, kinds)
    (kind,) = kinds
    if kind == "string":
        return _string_modality([str(column.values[i]) for i in present])
    if kind == "1-D array":
        return "vector" if _one_length(column.values[present]) else "timeseries"
    if kind == "2-D array":
        return _series_or_points(column, present[few])
    return kind


def _is_tabular_dtype(series: CellColumn) -> bool:
    dtype: Any = getattr(series, "dtype", None)
    if isinstance(series, pd.Series):
        types = pd.api.types
        return (
            types.is_numeric_dtype(dtype)
            or types.is_datetime64_any_dtype(dtype)
            or types.is_timedelta64_dtype(dtype)
            or isinstance(dtype, pd.CategoricalDtype)
        )
    if isinstance(series, np.ndarray):
        return series.ndim == 1 and series.dtype.kind in "biufcmM"
    if hasattr(dtype, "is_numeric"):  # polars
        simple = dtype.is_numeric() or dtype.is_temporal()
        return simple or type(dtype).__name__ in ("Boolean", "Categorical", "Enum")
    return False


def _tabular_or_drop(series: CellColumn) -> str:
    if hasattr(series, "drop_nulls"):  # polars, in which NaN is not null
        present = series.drop_nulls()
        present = present.drop_nans() if present.dtype.is_float() else present
        n_distinct = present.n_unique()
    else:
        present = pd.Series(cast(Any, series)).dropna()
        n_distinct = present.nunique()
    if n_distinct == 0 or (n_distinct == 1 and len(present) == len(series) > 1):
        return "drop"
    return "tabular"


def _is_constant(cells: np.ndarray) -> bool:
    first = cells[0]
    if not isinstance(first, (str, bytes, os.PathLike, *SCALARS)):
        return False  # == of arrays and images is no bool, and slow
    # Stops at the first different cell, usually the second.
    return all(type(cell) is type(first) and cell == first for cell in cells)


def _string_modality(cells: list[str]) -> str:
    """Distinguish categories and texts; see the notes of :func:`infer_modalities`."""
    distinct = sorted(set(cells))
    few = [distinct[i] for i in np.linspace(0, len(distinct) - 1, _N_SAMPLED).astype(np.intp)]
    if all(_NUMBER.fullmatch(cell) for cell in few) or all(_DATE.fullmatch(c) for c in few):
        return "tabular"
    # Some scripts have no spaces: 16 characters count as a word.
    n_words = np.mean([max(len(cell.split()), len(cell) / 16) for cell in few])
    repeats, at_most = next((r, k) for limit, r, k in _REPEATS if n_words < limit)
    repeated = len(cells) >= repeats * len(distinct) and len(distinct) <= at_most
    return "tabular" if repeated else "text"


def _one_length(cells: Iterable[object]) -> bool:
    return len({len(cell) for cell in cells if hasattr(cell, "__len__")}) == 1


def _series_or_points(column: Column, rows: np.ndarray) -> str:
    first: dict[int, int] = {}  # n_channels -> row
    for row in rows:
        first.setdefault(shape_and_dtype(column.values[row])[0][1], int(row))
    if len(first) > 1:
        (a, i), (b, j) = list(first.items())[:2]
        raise CellTypeError(
            f"{_where(column, i)} holds an array of {a} columns and row {column.labels[j]!r} one of"
            f" {b}, but a time series has one number of channels. If the arrays are images,"
            " name an encoder for the column."
        )
    (n_channels,) = first
    # "leftCloud_xyz" -> left, cloud, xyz
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", str(column.name))
    named = any(_POINT_NAME.fullmatch(word.lower()) for word in words)
    return "pointcloud" if named and n_channels >= 3 else "timeseries"


def _kind(column: Column, row: int) -> str:
    cell = column.values[row]
    kind = cell_kind(cell)
    if kind is None:
        raise CellTypeError(
            f"{_where(column, row)} holds {describe(cell)}, which belongs to no modality. Name an"
            " encoder for this column, or leave it out."
        )
    return kind


def _settle_strings(column: Column, kinds: dict[str, int], rows: np.ndarray) -> dict[str, int]:
    """Decide between plain strings, media paths and other scalars within one column."""
    if "string" not in kinds:
        return kinds
    sampled = [column.values[row] for row in rows]
    strings = [cell for cell in sampled if isinstance(cell, str)]
    media = [cell for cell in strings if path_kind(cell)]
    if 2 * len(media) >= len(strings):
        return kinds
    # A text may end in a file name, and 13 next to "A12" is an identifier: all are strings.
    others = {
        _kind(column, row): int(row)
        for row in rows[::-1]
        if not isinstance(column.values[row], str)
    }
    others.pop("tabular", None)
    return {"string": kinds["string"], **others}


def _refuse_mixture(column: Column, kinds: dict[str, int]) -> None:
    (kind_a, row_a), (kind_b, row_b) = list(kinds.items())[:2]
    a, b = (_short(column.values[row]) for row in (row_a, row_b))
    raise CellTypeError(
        f"{_where(column, row_a)} holds {kind_a} ({a}) and row {column.labels[row_b]!r} {kind_b}"
        f" ({b}). Give each modality its own column, with None in rows without it."
    )


def _where(column: Column, row: int) -> str:
    return f"Column {column.name!r}: row {column.labels[row]!r}"


def _short(cell: object) -> str:
    return repr(cell)[:60] if isinstance(cell, str | os.PathLike) else type(cell).__name__
