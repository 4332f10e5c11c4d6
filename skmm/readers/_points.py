"""Point-cloud cells: array, path or bytes, all to rows of x, y, z and what else a point has.

A point without a return is no point: sensors write NaN or infinity for it, and such rows are
left out. A cloud of which nothing is left cannot be decoded.
"""

from typing import Any

import numpy as np

from skmm.exceptions import CellTypeError, MediaDecodeError, MissingExtraError
from skmm.readers._point_files import decode_points, from_fields
from skmm.readers._source import array_of, digest_bytes, hasher, is_source, shorten, source_bytes

__all__ = ["digest_points", "load_points", "read_points"]


def read_points(cell: object, *, n_surface: int = 1024) -> np.ndarray:
    """Decode a point cloud.

    Parameters
    ----------
    cell : array-like of shape (n_points, 3 + n_features), str, path-like or bytes
        Points, or a file of them. Arrays and lists of lists hold x, y, z and any further numbers
        of each point (intensity, colour, time); a structured array has them by name. Files are
        NPY, text with a point a line (``.xyz``, ``.csv``), and with the extra ``points`` PLY,
        PCD, OBJ, OFF and STL. Their format is told from the content. Of PLY and PCD every scalar
        field of a point becomes a column, in the file's order; a packed ``rgb`` becomes three,
        from 0 to 255.
    n_surface : int, default=1024
        A file with faces is a mesh, and stands for its surface: so many points are spread over
        it, always the same ones, with the features of the corners in between.

    Returns
    -------
    points : ndarray of shape (n_points, 3 + n_features), float64
        At least one row, all values finite: a point with a NaN or an infinite value is left out.
        It shares no memory with the cell.

    Raises
    ------
    CellTypeError
        If the cell is no array of numbers with at least three columns, no path and no bytes.
    MediaDecodeError
        If a file is missing, damaged or in no known format, or no finite point is there.
    MissingExtraError
        If the format needs a package that is not installed.

    Examples
    --------
    >>> from skmm.readers import read_points
    >>> read_points([[0, 0, 1], [0, float("nan"), 2], [5, 6, 7]]).tolist()
    [[0.0, 0.0, 1.0], [5.0, 6.0, 7.0]]
    """
    return _decode(_taken(cell), cell, n_surface)


def digest_points(cell: object) -> bytes:
    """Name the content of a point-cloud cell.

    Parameters
    ----------
    cell : array-like, str, path-like or bytes
        As :func:`read_points` takes it.

    Returns
    -------
    digest : bytes
        16 bytes: of the bytes of a file, or of dtype, shape and values of an array.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As :func:`read_points` does, save that the bytes of a file are not decoded.
    """
    return _digest(_taken(cell))


def load_points(cell: object, *, n_surface: int = 1024) -> tuple[bytes, np.ndarray]:
    """Digest and decode a point cloud from one look at the cell.

    Parameters
    ----------
    cell : array-like, str, path-like or bytes
        As :func:`read_points` takes it.
    n_surface : int, default=1024
        As in :func:`read_points`. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_points(cell)``.
    points : ndarray of shape (n_points, 3 + n_features), float64
        Equal to ``read_points(cell)`` under the same options.
    """
    taken = _taken(cell)
    return _digest(taken), _decode(taken, cell, n_surface)


def _taken(cell: object) -> "bytes | np.ndarray":
    """Reduce a cell to file bytes or an array of numbers."""
    if is_source(cell) or hasattr(cell, "read"):  # open files are refused there
        return source_bytes(cell, kind="point cloud")
    is_array = hasattr(type(cell), "__array__") and not isinstance(cell, np.generic)
    if not is_array and not isinstance(cell, list | tuple):
        raise CellTypeError(
            f"Cannot read a point cloud from a cell of type {type(cell).__name__}. Give an array"
            " (n_points, 3 + n_features), a path or bytes."
        )
    way = "Give an array (n_points, 3 + n_features)."
    return _checked(array_of(cell, "point cloud", way=way))


def _checked(array: np.ndarray) -> np.ndarray:
    kinds = [array.dtype[name] for name in array.dtype.names or ()] or [array.dtype]
    if any(kind.kind not in "biuf" for kind in kinds) and array.size:
        raise CellTypeError(
            f"Cannot read a point cloud from an array of dtype {shorten(str(array.dtype))}. Give"
            " numbers, a row a point."
        )
    if array.dtype.names and array.ndim == 1:
        return array
    if array.size == 0 and array.ndim <= 2:
        return array  # no point at all, which is told as such
    if array.ndim != 2 or array.shape[1] < 3:
        way = "Give (n_points, 3 + n_features): x, y and z of each point come first."
        if array.ndim == 3:
            way = "A grid of points is cell.reshape(-1, cell.shape[-1]); put one cloud into a cell."
        raise CellTypeError(
            f"Cannot read a point cloud from an array of shape {array.shape}. {way}"
        )
    if len(array) == 3 and array.shape[1] > 16:
        raise CellTypeError(
            f"Cannot read a point cloud from an array of shape {array.shape}: its points seem to be"
            " columns. Use cell.T."
        )
    return array


def _digest(taken: "bytes | np.ndarray") -> bytes:
    if isinstance(taken, bytes):
        return digest_bytes(taken)
    h = hasher("points")
    h.update(f"{taken.dtype.descr!r} {taken.shape}\0".encode())
    h.update(np.ascontiguousarray(taken).reshape(-1).view(np.uint8).data)
    return h.digest()


def _decode(taken: "bytes | np.ndarray", cell: object, n_surface: int) -> np.ndarray:
    if isinstance(taken, bytes):
        points = _file_points(taken, cell, n_surface)
    elif taken.dtype.names:
        points = _structured(taken)
    else:
        points = taken.astype(np.float64)
    if points.size:
        # In float32, as the models take them: 1e300 marks an absent return too.
        with np.errstate(over="ignore"):
            points = points[np.isfinite(points.astype(np.float32)).all(axis=1)]
    if not points.size:
        raise MediaDecodeError(
            f"Cannot read the point cloud {_named(cell)}: it has no finite point."
        )
    return points


def _structured(array: np.ndarray) -> np.ndarray:
    try:
        return from_fields({name: array[name] for name in array.dtype.names or ()})
    except ValueError as error:
        raise CellTypeError(f"Cannot read a point cloud from an array: {error}.") from error


def _file_points(data: bytes, cell: object, n_surface: int) -> np.ndarray:
    try:
        points = decode_points(data, n_surface=n_surface)
        if points.ndim != 2 or points.shape[1] < 3:
            raise ValueError(f"its points have {points.shape[-1]} values, and 3 are needed")
        return points
    except (MemoryError, MissingExtraError):
        raise  # says nothing about the file
    except Exception as error:
        # Parsers let through what they stumble over. No list of it stays complete.
        reason = str(error).rstrip(".") or type(error).__name__
        raise MediaDecodeError(f"Cannot read the point cloud {_named(cell)}: {reason}.") from error


def _named(cell: Any) -> str:
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
        return f"in {len(data)} bytes that begin with {data[:8]!r}"
    if is_source(cell):
        return shorten(cell)
    return f"in a {type(cell).__name__} of shape {np.shape(cell)}"
