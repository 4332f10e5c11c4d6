"""Columns of any container as cells (values, missing mask, row labels), and their selection.

Only this file distinguishes pandas, polars, numpy and lists. polars is never imported: an X of
polars has imported it. No cell is converted or changed, and the returned arrays are read-only.
"""

import difflib
import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skmm._frame._types import CellColumn, ColumnKey

if TYPE_CHECKING:
    import polars

__all__ = [
    "Column",
    "add_absent_columns",
    "column_names",
    "columns_of",
    "is_missing",
    "iter_series",
    "n_rows",
    "take_columns",
    "take_rows",
    "to_column",
    "to_columns",
]


# The containers that _container returns.
_Container: TypeAlias = (
    "pd.DataFrame | pd.Series | polars.DataFrame | polars.Series | np.ndarray"
    " | list[Any] | tuple[Any, ...]"
)
_Rows = TypeVar("_Rows")


class Column(NamedTuple):
    """One column of X as cells.

    Attributes
    ----------
    name : object
        Name of the column, None if X has no names.
    values : ndarray of shape (n_samples,), object
        The cells, the same objects if X holds objects. Read-only.
    missing : ndarray of shape (n_samples,), bool
        True where the cell is absent.
    labels : ndarray of shape (n_samples,), object
        Row labels for messages: the index of a pandas object, else 0, 1, ...
    """

    name: Hashable
    values: np.ndarray
    missing: np.ndarray
    labels: np.ndarray


def is_missing(values: np.ndarray) -> np.ndarray:
    """Return which cells are absent.

    Parameters
    ----------
    values : ndarray of shape (n_samples,), object
        Cells.

    Returns
    -------
    missing : ndarray of shape (n_samples,), bool
        True for None, a NaN or NaT scalar of any library, and ``pandas.NA``. An empty string is
        present, and so is every container, even an empty one.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm._frame._column import is_missing
    >>> is_missing(np.array([None, float("nan"), "nan", ""], dtype=object)).tolist()
    [True, True, False, False]
    """
    cells = _objects(values, len(values))
    try:  # checks each cell of an object array as a scalar; an array cell is present
        return pd.isna(cells)
    except ArithmeticError:  # Decimal("sNaN"), which pandas compares with itself
        nan = (c.is_nan() if hasattr(c, "is_snan") else pd.isna(c) is True for c in cells)
        return np.fromiter(nan, dtype=bool, count=len(cells))


def _objects(cells: Iterable[object], n: int) -> np.ndarray:
    """Return an object array of n cells without unpacking them."""
    if isinstance(cells, np.ndarray) and cells.dtype == object and cells.ndim == 1:
        return cells
    # np.array(cells, dtype=object) would unpack arrays, lists and PIL images.
    return np.fromiter(cells, dtype=object, count=n)


def _polars_cells(series: "polars.Series") -> np.ndarray:
    dtype: Any = series.dtype
    polars_type = type(dtype).__name__
    if polars_type == "List" and dtype.inner.is_numeric():
        cells = (None if cell is None else cell.to_numpy() for cell in series)
        return _objects(cells, len(series))
    if polars_type == "Array":
        # With nulls, to_numpy would convert every cell to float.
        present = iter(series.drop_nulls().to_numpy())
        cells = (None if null else next(present) for null in series.is_null())
        return _objects(cells, len(series))
    return _objects(series.to_list(), len(series))


def _cells(series: CellColumn) -> np.ndarray:
    """Return the cells of one column of any container, read-only."""
    if isinstance(series, pd.Series):
        values = _objects(series.to_numpy(dtype=object), len(series))
    elif _is_polars_series(series):
        values = _polars_cells(series)
    elif isinstance(series, np.ndarray) and series.ndim == 1 and series.dtype.kind not in "mM":
        values = series.astype(object, copy=False)
    else:  # a list; images along a first axis; times, which astype(object) makes integers
        values = _objects(cast(Iterable[object], series), len(series))
    values = values.view()
    values.flags.writeable = False
    return values


def _is_polars(X: object) -> bool:
    return any(base.__module__.partition(".")[0] == "polars" for base in type(X).__mro__)


def _is_polars_frame(X: object) -> TypeGuard["polars.DataFrame"]:
    return _is_polars(X) and type(X).__name__ == "DataFrame"


def _is_polars_series(X: object) -> TypeGuard["polars.Series"]:
    return _is_polars(X) and type(X).__name__ == "Series"


def _container(X: object) -> _Container:
    """Return X as pandas, polars, ndarray or list; other array-likes become ndarrays."""
    if isinstance(X, pd.DataFrame | pd.Series):
        return X
    if isinstance(X, list | tuple):
        if not _is_table(X):
            return X
        rows = np.empty((len(X), len(X[0])), dtype=object)
        for row, cells in zip(rows, X, strict=True):
            row[:] = _objects(cells, len(cells))
        return rows
    if _is_polars_frame(X) or _is_polars_series(X):
        return X
    if _is_polars(X):
        raise TypeError(f"A polars {type(X).__name__} has no rows yet. Pass X.collect().")
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError("A sparse matrix has no cells to encode. Pass X.toarray().")
    if not isinstance(X, str | bytes | dict) and hasattr(X, "__array__"):
        array = np.asarray(X)
        if array.ndim:
            return array
    raise TypeError(
        f"X must hold one row per sample, got {type(X).__name__}. Pass a pandas or polars frame, a"
        " numpy array, or a list of cells."
    )


def _is_table(X: Sequence[Any]) -> bool:
    """Return whether a list holds rows of scalars, which scikit-learn reads as a 2-D array."""
    if not len(X) or not all(isinstance(row, list | tuple) and len(row) for row in X):
        return False
    if len({len(row) for row in X}) > 1:
        return False
    return all(pd.api.types.is_scalar(c) or isinstance(c, os.PathLike) for row in X for c in row)


def n_rows(X: CellColumn | ArrayLike) -> int:
    """Count the rows of X."""
    return len(X) if isinstance(X, list | tuple) else len(_container(X))


def _names(X: _Container) -> list[Hashable]:
    """Return the column names of a container, None for a column without a name."""
    if isinstance(X, pd.Series):
        return [X.name]
    if isinstance(X, pd.DataFrame) or _is_polars_frame(X):
        return list(X.columns)
    if _is_polars_series(X):
        return [X.name or None]  # polars has no None here, only ""
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return [None] * X.shape[1]
    return [None]


def iter_series(X: CellColumn) -> Iterator[tuple[Hashable, Any]]:
    """Yield name and column, the latter as a Series, ndarray (cells along axis 0) or list."""
    frame = _container(X)
    for position, name in enumerate(_names(frame)):
        yield name, _pick(frame, [position], scalar=True)


def to_column(name: Hashable, series: CellColumn) -> Column:
    """Return the cells of one column that :func:`iter_series` yields."""
    values = _cells(series)
    if isinstance(series, pd.Series):
        labels = series.index.to_numpy(dtype=object)
    else:
        labels = np.arange(len(values)).astype(object)
    return Column(name, values, is_missing(values), labels)


def to_columns(X: CellColumn) -> list[Column]:
    """Split X into columns of cells.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, array-like or list of cells
        A Series, a 1-D array and a list of cells are one column. So is an array of more than 2
        dimensions, whose cells are ``X[0]``, ``X[1]``, ... A list of equally long lists of scalars
        is a 2-D array, as in scikit-learn.

    Returns
    -------
    columns : list of Column
        Cells of polars ``Array`` columns, and of ``List`` columns of numbers, are ndarrays.

    Raises
    ------
    TypeError
        If X is not a container of rows, e.g. a dict or a sparse matrix.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm._frame._column import to_columns
    >>> frame = pd.DataFrame({"review": ["warm", None]}, index=["a", "b"])
    >>> (review,) = to_columns(frame)
    >>> review.name, review.missing.tolist(), review.labels.tolist()
    ('review', [False, True], ['a', 'b'])
    """
    return [to_column(name, series) for name, series in iter_series(X)]


def take_rows(X: _Rows, rows: ArrayLike | slice) -> _Rows:
    """Return some rows of X in the same container.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, array-like or list of cells
        Data; a row is a sample.
    rows : array-like of int, array-like of bool of shape (n_samples,), or slice
        Positions, in any order and possibly repeated, or a mask.
    """
    chosen: slice | np.ndarray = rows if isinstance(rows, slice) else np.asarray(rows)
    if isinstance(chosen, np.ndarray) and not chosen.size:
        chosen = chosen.astype(np.intp)  # np.asarray([]) is float
    frame: Any = X if isinstance(X, list | tuple) else _container(X)
    # Gives the same errors about mask length and range for all containers.
    positions = np.arange(len(frame))[chosen]
    if isinstance(frame, list | tuple):
        cells = [frame[i] for i in positions]
        picked: Any = cells if isinstance(frame, list) else tuple(cells)
    else:
        picked = frame.iloc[positions] if hasattr(frame, "iloc") else frame[positions]
    return cast(_Rows, picked)


def take_columns(X: CellColumn, key: ColumnKey) -> Any:
    """Return some columns of X, selected by a key of ``ColumnTransformer``.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, array-like or list of cells
        Data; Series, 1-D arrays and lists of cells are one column.
    key : str, int, list of str, list of int, slice, bool mask or callable
        Strings are names, integers are positions. A scalar returns one column as a Series or 1-D
        array, other keys a frame or 2-D array. A slice of names includes its end. A callable is
        called with X and returns one of the others.

    Raises
    ------
    ValueError
        If a column does not exist or its name is not unique; the message lists similar names.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm._frame._column import take_columns
    >>> take_columns(pd.DataFrame({"photo": ["a.jpg"], "price": [3.0]}), "foto")
    Traceback (most recent call last):
        ...
    ValueError: X has no column 'foto': did you mean 'photo'? Its columns are 'photo', 'price'.
    """
    frame = _container(X)
    scalar, positions = _positions(frame, key)
    return _pick(frame, positions, scalar)


def columns_of(X: CellColumn, key: ColumnKey) -> list[Column]:
    """Return the columns of cells that a key of :func:`take_columns` selects.

    The result is that of ``to_columns(take_columns(X, key))`` without a frame in between, whose
    creation takes longer than a network for one row.
    """
    frame = _container(X)
    names = _names(frame)
    _, positions = _positions(frame, key)
    return [to_column(names[p], _pick(frame, [p], scalar=True)) for p in positions]


def add_absent_columns(X: _Rows, names: Sequence[str]) -> _Rows:
    """Return a frame with a column of missing cells, in its place, for each missing name.

    X without column names is returned unchanged.
    """
    known = list(getattr(X, "columns", names))
    absent = [name for name in names if name not in known]
    if not absent or len(set(known)) < len(known):
        return X
    order = known.copy()
    for position, name in enumerate(names):
        if name in absent:
            order.insert(position, name)
    frame: Any = X
    if isinstance(frame, pd.DataFrame):
        longer: Any = frame.reindex(columns=order)
    else:
        longer = frame.with_columns(**dict.fromkeys(absent)).select(order)
    return cast(_Rows, longer)


def column_names(X: CellColumn, key: ColumnKey = slice(None)) -> list[str]:
    """Return the names of the columns that a key of :func:`take_columns` selects.

    Columns without a name are ``"x0"``, ``"x1"``, ... by position in X, as in scikit-learn.
    """
    frame = _container(X)
    names = _names(frame)
    _, positions = _positions(frame, key)
    return [f"x{p}" if names[p] is None else str(names[p]) for p in positions]


def _pick(X: _Container, positions: list[int], scalar: bool) -> Any:
    if isinstance(X, pd.DataFrame):
        if not scalar:
            return X.iloc[:, positions]
        name = X.columns[positions[0]]
        # pandas is ten times faster by name, but only a str is sure to select one column.
        return X[name] if type(name) is str and X.columns.is_unique else X.iloc[:, positions[0]]
    if _is_polars_frame(X):
        series = X.get_columns()
        return series[positions[0]] if scalar else X.select([series[p].name for p in positions])
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return X[:, positions[0] if scalar else positions]
    if scalar:
        return X
    if isinstance(X, pd.Series):
        return X.to_frame().iloc[:, positions]
    if _is_polars_series(X):
        return X.to_frame() if positions else X.to_frame().select([])
    cells = X if isinstance(X, np.ndarray) and X.ndim <= 2 else _cells(X)
    return cells[:, None][:, positions]


def _positions(X: _Container, key: ColumnKey) -> tuple[bool, list[int]]:
    """Return whether a key is one column and not a list, and the positions of its columns."""
    key = key(X) if callable(key) else key
    names = _names(X)
    if isinstance(key, str):
        return True, [_locate(names, key)]
    if isinstance(key, Integral) and not isinstance(key, bool):
        return True, [_in_range(names, key)]
    if isinstance(key, slice):
        if not isinstance(key.start, str) and not isinstance(key.stop, str):
            return False, list(range(len(names)))[key]
        start = None if key.start is None else _locate(names, key.start)
        stop = None if key.stop is None else _locate(names, key.stop) + 1
        return False, list(range(len(names)))[start : stop : key.step]
    keys = list(key) if isinstance(key, Iterable) and not isinstance(key, dict | set) else None
    if keys is None:
        pass
    elif all(isinstance(k, bool | np.bool_) for k in keys) and keys:
        if len(keys) != len(names):
            raise ValueError(f"A mask of {len(keys)} columns does not fit X with {len(names)}.")
        return False, [p for p, k in enumerate(keys) if k]
    elif all(isinstance(k, str) for k in keys):
        return False, [_locate(names, k) for k in keys]
    elif all(isinstance(k, Integral) and not isinstance(k, bool) for k in keys):
        return False, [_in_range(names, k) for k in keys]
    raise ValueError(
        f"No columns can be selected by {key!r}. Give a name or position, a list of names or of"
        " positions, a slice, a mask or a callable."
    )


def _in_range(names: list[Hashable], position: Integral) -> int:
    if not -len(names) <= int(position) < len(names):
        raise ValueError(f"X has no column at position {position}: it has {len(names)} columns.")
    return int(position) % len(names)


def _locate(names: list[Hashable], name: str) -> int:
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise ValueError(f"X has {names.count(name)} columns named {name!r}. Rename them.")
    known = [str(other) for other in names if other is not None]
    if not known:
        raise ValueError(
            f"X has no column {name!r}, because it has no column names. Pass a DataFrame, or"
            " give the column's position."
        )
    near = difflib.get_close_matches(name, known, n=3)
    hint = f": did you mean {_listed(near)}?" if near else "."
    raise ValueError(f"X has no column {name!r}{hint} Its columns are {_listed(known)}.")


def _listed(names: list[str], at_most: int = 20) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(repr(name) for name in names[:at_most]) + more
