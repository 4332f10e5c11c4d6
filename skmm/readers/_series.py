"""Time series cells: arrays, lists, pandas and polars objects, all read as float32.

NaN is kept as an unknown value, which each model handles in its own way. Infinity is refused.
"""

from numbers import Real

import numpy as np

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers._source import array_of, hasher, is_source
from skmm.readers._text import as_float

__all__ = ["digest_series", "load_series", "read_series"]

_TROUBLE = "Cannot read a time series from"


def read_series(cell: object, *, max_length: int | None = None) -> np.ndarray:
    """Read a time series.

    Parameters
    ----------
    cell : array, list, pandas or polars Series or DataFrame
        Numbers of shape ``(n_timestamps,)`` or ``(n_timestamps, n_channels)``, NaN or None where
        a value is unknown. The columns of a DataFrame are the channels, in their order; its index
        is not used. Any object with ``__array__`` (e.g. a torch tensor on the CPU) counts as an
        array.
    max_length : int, default=None
        Number of timestamps that are kept; longer series are cut. By default all are kept.

    Returns
    -------
    series : ndarray of shape (n_timestamps, n_channels), float32
        It shares no memory with the cell.

    Raises
    ------
    CellTypeError
        If the cell is not an array of numbers of one or two dimensions.
    MediaDecodeError
        If it has no timestamps, only NaN, or a value that is infinite or beyond the range of
        float32.

    Examples
    --------
    >>> from skmm.readers import read_series
    >>> read_series([1, 2, None]).tolist()
    [[1.0], [2.0], [nan]]
    >>> read_series([[0.5, 1], [1.5, 2]]).shape
    (2, 2)
    >>> read_series("recording.csv")
    Traceback (most recent call last):
        ...
    skmm.exceptions.CellTypeError: Cannot read a time series from a cell of type str. Load the \
file, and put an array (n_timestamps, n_channels) into the cell.
    """
    return _cut(_content_of(cell), max_length)


def digest_series(cell: object) -> bytes:
    """Compute the digest of a time series.

    Parameters
    ----------
    cell : array, list, pandas or polars Series or DataFrame
        As for :func:`read_series`.

    Returns
    -------
    digest : bytes
        16 bytes that depend on the float32 values and their shape. A list and an array of the same
        values have the same digest, for any dtype.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As for :func:`read_series`.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.readers._series import digest_series
    >>> digest_series([1, 2]) == digest_series(np.array([[1.0], [2.0]]))
    True
    >>> digest_series([1, 2]) == digest_series([[1, 2]])
    False
    """
    return _digest(_content_of(cell))


def load_series(cell: object, *, max_length: int | None = None) -> tuple[bytes, np.ndarray]:
    """Digest and read a time series while reading the cell once.

    Parameters
    ----------
    cell : array, list, pandas or polars Series or DataFrame
        As for :func:`read_series`.
    max_length : int, default=None
        As in :func:`read_series`. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_series(cell)``.
    series : ndarray of shape (n_timestamps, n_channels), float32
        Equal to ``read_series(cell, max_length=max_length)``.
    """
    content = _content_of(cell)
    return _digest(content), _cut(content, max_length)


def _content_of(cell: object) -> np.ndarray:
    """Return a new float32 array of shape (n_timestamps, n_channels), without infinity."""
    array = _array(cell)
    if array.ndim not in (1, 2):
        raise CellTypeError(
            f"{_TROUBLE} an array of shape {array.shape}."
            " Use (n_timestamps,) or (n_timestamps, n_channels)."
        )
    if not len(array):
        raise MediaDecodeError(f"{_TROUBLE} an array of shape {array.shape}: it has no timestamps.")
    if not array.size:
        raise CellTypeError(
            f"{_TROUBLE} an array of shape {array.shape}: it has no channels."
            " Use (n_timestamps,) or (n_timestamps, n_channels)."
        )
    if array.dtype == object:
        array = _numbers(array)
    if array.dtype.kind not in "biuf":
        raise CellTypeError(
            f"{_TROUBLE} an array of dtype {array.dtype}. Use numbers, NaN where one is unknown."
        )
    with np.errstate(over="ignore"):  # raised below, with the position
        series = array.reshape(len(array), -1).astype(np.float32, order="C")
    infinite = np.isinf(series)
    if infinite.any():
        timestamp, channel = np.argwhere(infinite)[0]
        value = array.reshape(series.shape)[timestamp, channel]
        why = "infinite" if np.isinf(value) else "beyond the range of float32"
        raise MediaDecodeError(
            f"{_TROUBLE} an array of shape {array.shape}: its value {value} at timestamp"
            f" {timestamp} of channel {channel} is {why}. Use NaN for an unknown value."
        )
    return series


def _array(cell: object) -> np.ndarray:
    if isinstance(cell, list | tuple):
        try:
            return np.asarray(cell)
        except ValueError as error:
            raise CellTypeError(
                f"{_TROUBLE} a {type(cell).__name__} whose items differ in length."
                " Give each timestamp as many values as there are channels."
            ) from error
    if is_source(cell):
        raise CellTypeError(
            f"{_TROUBLE} a cell of type {type(cell).__name__}. Load the file, and put an array"
            " (n_timestamps, n_channels) into the cell."
        )
    if isinstance(cell, np.ma.MaskedArray):
        return np.ma.filled(cell.astype(np.float64), np.nan)
    # numpy scalars have __array__ too, but a series is not one number.
    if not isinstance(cell, np.generic):
        if hasattr(type(cell), "to_numpy"):  # pandas, polars
            return array_of(cell, "time series", take=lambda cell: np.asarray(cell.to_numpy()))
        if hasattr(type(cell), "__array__"):
            return array_of(cell, "time series")
    way = "Give an array (n_timestamps, n_channels), a list of numbers, or a Series or DataFrame."
    if isinstance(cell, Real):
        way = "Put each series into one cell; for a matrix with a series per row use list(matrix)."
    raise CellTypeError(f"{_TROUBLE} a cell of type {type(cell).__name__}. {way}")


def _numbers(array: np.ndarray) -> np.ndarray:
    """Convert an array of objects to floats: numbers, and None or pandas.NA as NaN."""
    values = np.empty(array.size, dtype=np.float64)
    for i, value in enumerate(array.flat):
        if isinstance(value, Real):  # of numpy too
            values[i] = as_float(value)
        elif value is None or type(value).__name__ == "NAType":
            values[i] = np.nan
        else:
            raise CellTypeError(
                f"{_TROUBLE} values of type {type(value).__name__}. Use numbers, NaN where one is"
                " unknown."
            )
    return values.reshape(array.shape)


def _cut(series: np.ndarray, max_length: int | None) -> np.ndarray:
    if max_length is not None and len(series) > max_length:
        series = series[:max_length].copy()
    if np.isnan(series).all():
        raise MediaDecodeError(
            f"{_TROUBLE} an array of shape {series.shape} that holds nothing but NaN. Use None"
            " for an absent series."
        )
    return series


def _digest(series: np.ndarray) -> bytes:
    h = hasher("series")
    h.update(f"{series.shape}\0".encode())
    # All bit patterns of NaN must have the same digest.
    h.update(np.where(np.isnan(series), np.float32(np.nan), series).astype("<f4").tobytes())
    return h.digest()
