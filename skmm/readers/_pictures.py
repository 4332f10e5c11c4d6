"""Cells that hold several pictures: a list of paths, bytes, PIL images or arrays."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers._image import digest_image, load_image, read_image
from skmm.readers._source import hasher

__all__ = ["Pictures", "digest_pictures", "is_pictures", "load_pictures"]


class Pictures:
    """The pictures of one cell, decoded as they are asked for, any number of times.

    Parameters
    ----------
    cells : sequence of cells
        Each as ``read_image`` takes it.
    digests : list of bytes
        Their contents; a file that has another by the time it is decoded is refused.
    draft : int, default=None
        As in ``read_image``.
    """

    def __init__(self, cells: Sequence[Any], digests: list[bytes], draft: int | None = None):
        self._cells = cells
        self._digests = digests
        self._draft = draft

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[np.ndarray]:
        for i, (cell, expected) in enumerate(zip(self._cells, self._digests, strict=True)):
            digest, picture = _named(partial(load_image, draft=self._draft), cell, i, len(self))
            if digest != expected:
                raise MediaDecodeError(
                    f"Picture {i + 1} of {len(self)} changed while being read. Encode files that"
                    " nobody writes to."
                )
            yield picture

    def __getitem__(self, picked: list[int]) -> "Pictures":
        cells = [self._cells[i] for i in picked]
        return Pictures(cells, [self._digests[i] for i in picked], self._draft)


def is_pictures(cell: object) -> bool:
    """Whether a cell is a list of pictures, as against one picture.

    Parameters
    ----------
    cell : object
        A cell that is not missing.

    Returns
    -------
    bool
        True for a list, a tuple or a one-dimensional object array, save nested lists of numbers.
    """
    if isinstance(cell, np.ndarray):
        return cell.dtype == object and cell.ndim == 1
    if not isinstance(cell, list | tuple):
        return False
    return not cell or not isinstance(cell[0], list | tuple | int | float | np.generic)


def digest_pictures(cell: Sequence[Any]) -> bytes:
    """Name the content of a list of pictures: theirs, in their order.

    Parameters
    ----------
    cell : list, tuple or ndarray of cells
        What :func:`is_pictures` says yes to.

    Returns
    -------
    digest : bytes
        16 bytes, other than those of the pictures, one alone included.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As ``digest_image`` does, naming the picture; the latter also if the list is empty.
    """
    return _digest(_digests(cell))


def load_pictures(cell: Sequence[Any], *, draft: int | None = None) -> tuple[bytes, Pictures]:
    """Digest a list of pictures, and give them to be decoded one after the other.

    Parameters
    ----------
    cell : list, tuple or ndarray of cells
        What :func:`is_pictures` says yes to.
    draft : int, default=None
        As in ``read_image``. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_pictures(cell)``.
    pictures : Pictures
        Of that very content.
    """
    digests = _digests(cell)
    for i, item in enumerate(cell):
        if hasattr(type(item), "__array__") and not hasattr(item, "filename"):
            # An array of the wrong shape or range is told here, where the cell is known.
            _named(read_image, item, i, len(cell))
    return _digest(digests), Pictures(cell, digests, draft)


def _digests(cell: Sequence[Any]) -> list[bytes]:
    if not len(cell):
        raise MediaDecodeError(
            "Cannot read a picture from an empty list. Put None into the cell where there is none."
        )
    return [_named(digest_image, item, i, len(cell)) for i, item in enumerate(cell)]


def _digest(digests: list[bytes]) -> bytes:
    h = hasher("pictures")
    for digest in digests:
        h.update(digest)
    return h.digest()


def _named(verb: Any, cell: Any, i: int, n: int) -> Any:
    """Apply a reader to one of several pictures, and say which one it does not take."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        raise CellTypeError(f"Picture {i + 1} of {n} is missing. Leave it out of the list.")
    try:
        return verb(cell)
    except (CellTypeError, MediaDecodeError) as error:
        raise type(error)(f"Picture {i + 1} of {n}: {error}") from error
