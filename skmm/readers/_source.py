"""From a cell to its bytes: a path is read, bytes are used as they are, the rest is refused.

This module also holds what all readers share: arrays, digests with a domain for each kind of
content, short forms of a cell for messages, and row and column in an error.
"""

import hashlib
import os
import re
import reprlib
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias, TypeGuard, TypeVar

import numpy as np

from skmm.exceptions import CellTypeError, MediaDecodeError

__all__ = [
    "Source",
    "array_of",
    "digest_array",
    "digest_bytes",
    "digest_file",
    "hasher",
    "is_source",
    "open_file",
    "shorten",
    "source_bytes",
    "with_position",
]

# Two letters at least: "C:\photo.jpg" is a path.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:[a-z]")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120

_PIECE = 1 << 20  # bytes

# A path, or the content of a file.
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"

_CellError = TypeVar("_CellError", bound=CellTypeError | MediaDecodeError)


def hasher(domain: str) -> "hashlib.blake2b":
    """Start a 16-byte digest of one kind of content.

    Parameters
    ----------
    domain : str
        Kind of content, at most 11 ASCII characters. Equal bytes in two domains have unrelated
        digests, so the embedding of a text is never used for an image.

    Returns
    -------
    hasher : hashlib.blake2b
        Call ``update`` with the content; ``digest()`` returns 16 bytes.
    """
    return hashlib.blake2b(digest_size=16, person=b"skmm." + domain.encode("ascii"))


def digest_bytes(data: bytes) -> bytes:
    """Compute the digest of a media file's content.

    Parameters
    ----------
    data : bytes
        Content of the file.

    Returns
    -------
    digest : bytes
        16 bytes.
    """
    h = hasher("bytes")
    h.update(data)
    return h.digest()


def digest_file(file: BinaryIO) -> bytes:
    """Compute the digest of an open file, block by block.

    Parameters
    ----------
    file : file object
        Binary; read from its current position to its end.

    Returns
    -------
    digest : bytes
        16 bytes, equal to those that :func:`digest_bytes` returns for the same content.
    """
    h = hasher("bytes")
    while piece := file.read(_PIECE):
        h.update(piece)
    return h.digest()


def digest_array(array: np.ndarray) -> bytes:
    """Compute the digest of an array.

    Parameters
    ----------
    array : ndarray
        Array of numbers, not structured.

    Returns
    -------
    digest : bytes
        16 bytes that depend on dtype, shape and values, but not on the memory layout.
    """
    h = hasher("array")
    h.update(f"{array.dtype.str} {array.shape}\0".encode())
    h.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return h.digest()


def array_of(
    cell: object,
    kind: str,
    *,
    way: str = "For a torch tensor use cell.detach().cpu().float().numpy().",
    take: Callable[[Any], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Convert an array-like cell to an array.

    Parameters
    ----------
    cell : object
        Cell that ``take`` may accept.
    kind : str
        What the cell should hold, for messages: ``"image"``, ``"audio"``, ...
    way : str
        What the user should do instead, for messages.
    take : callable, default=numpy.asarray
        Function that converts the cell to an array.

    Returns
    -------
    array : ndarray
        Of any dtype and shape; it may share memory with the cell.

    Raises
    ------
    CellTypeError
        If numpy cannot convert the cell.
    """
    try:
        return take(cell)
    except Exception as error:  # ragged lists; torch: on the GPU, with a gradient, bfloat16
        raise CellTypeError(
            f"Cannot read {_with_article(kind)} from a {type(cell).__name__} that numpy cannot"
            f" convert ({error}). {way}"
        ) from error


def _with_article(kind: str) -> str:
    return {"image": "an image", "audio": "audio"}.get(kind, f"a {kind}")


def shorten(cell: object) -> str:
    """Return the ``repr`` of a cell for a message, cut in the middle."""
    # numpy's own repr of a string is np.str_('...'), which no user typed.
    return _SHORT.repr(str(cell) if isinstance(cell, str | os.PathLike) else cell)


def is_source(cell: object) -> TypeGuard[Source]:
    """Return whether a cell is a path or bytes, which :func:`source_bytes` accepts.

    Parameters
    ----------
    cell : object
        A cell that is not missing.

    Returns
    -------
    bool
        True for str, path-like, bytes, bytearray and memoryview.
    """
    return isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview)


def source_bytes(cell: object, *, kind: str = "file") -> bytes:
    """Return the bytes of a cell: those that it holds, or those of the file that it names.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray or memoryview
        A path (``~`` is not expanded), or the content of a file.
    kind : str, default="file"
        What the bytes should be, for messages: ``"image"``, ``"audio"``, ...

    Returns
    -------
    data : bytes
        The content.

    Raises
    ------
    CellTypeError
        If the cell is neither a path nor bytes.
    MediaDecodeError
        If the path names no readable, regular file, or is a URL. URLs are never fetched.

    Examples
    --------
    >>> from skmm.readers._source import source_bytes
    >>> source_bytes(b"GIF89a")
    b'GIF89a'
    >>> source_bytes("https://example.org/cat.png", kind="image")
    Traceback (most recent call last):
        ...
    skmm.exceptions.MediaDecodeError: Cannot read an image from \
'https://example.org/cat.png': URLs are not fetched. Download the file and put its path or \
its bytes into the cell.
    """
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, bytearray | memoryview):
        return bytes(cell)
    if isinstance(cell, str | os.PathLike):
        return _file_bytes(cell, kind)
    if hasattr(cell, "read"):
        raise CellTypeError(
            f"Cannot read {_with_article(kind)} from an open file ({type(cell).__name__}): it can"
            " be read only once. Put its path or its bytes into the cell."
        )
    raise CellTypeError(
        f"Cannot read {_with_article(kind)} from a cell of type {type(cell).__name__}. Give a path"
        " or bytes."
    )


def _file_bytes(path: "str | os.PathLike[str]", kind: str) -> bytes:
    with open_file(path, kind=kind) as file:
        try:
            return file.read()
        except OSError as error:
            raise MediaDecodeError(
                f"Cannot read {_with_article(kind)} from {shorten(path)}:"
                f" {error.strerror or error}."
            ) from error


def open_file(path: "str | os.PathLike[str]", *, kind: str = "file") -> BinaryIO:
    """Open the file that a cell names, for readers that read it in blocks.

    Parameters
    ----------
    path : str or path-like
        As for :func:`source_bytes`.
    kind : str, default="file"
        What the file should be, for messages.

    Returns
    -------
    file : file object
        Opened in binary mode, at its start; the caller closes it.

    Raises
    ------
    MediaDecodeError
        As for :func:`source_bytes`.
    """
    trouble = f"Cannot read {_with_article(kind)} from {shorten(path)}: "
    text = os.fspath(path)
    if isinstance(text, str) and _URL.match(text):
        raise MediaDecodeError(
            f"{trouble}URLs are not fetched. Download the file and put its path or its bytes"
            " into the cell."
        )
    try:
        mode = os.stat(path).st_mode
        # A pipe or a device would block, or never end.
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise MediaDecodeError(f"{trouble}it is {what}. Give the path of one file.")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise MediaDecodeError(
            f"{trouble}there is no such file. Relative paths start at the working directory."
        ) from error
    except OSError as error:
        raise MediaDecodeError(f"{trouble}{error.strerror or error}.") from error
    except MediaDecodeError:
        raise
    except ValueError as error:  # a null byte, or a character that file names cannot hold
        raise MediaDecodeError(f"{trouble}this cannot be a path ({error}).") from error


def with_position(error: _CellError, *, column: object, row: object) -> _CellError:
    """Add the column and row of the cell to an error of a reader.

    Parameters
    ----------
    error : CellTypeError or MediaDecodeError
        Error that the reader raised.
    column : object
        Name of the column, None where X has no column names.
    row : object
        Index label of the row.

    Returns
    -------
    error : CellTypeError or MediaDecodeError
        New error of the same class; raise it ``from`` the old one.

    Examples
    --------
    >>> from skmm.exceptions import CellTypeError
    >>> from skmm.readers._source import with_position
    >>> with_position(CellTypeError("Cannot read a text."), column="review", row=7)
    CellTypeError("Column 'review', row 7: Cannot read a text.")
    """
    column, row = (x.item() if isinstance(x, np.generic) else x for x in (column, row))
    where = f"Row {row!r}" if column is None else f"Column {column!r}, row {row!r}"
    message = f"{where}: {error}"
    if isinstance(error, MediaDecodeError):
        return type(error)(message, column=column, row=row)
    return type(error)(message)
