"""Cells of some columns, read with their position in every error and warning."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from skmm._frame._column import Column
from skmm.exceptions import CellTypeError, MediaDecodeError, ModalityWarning
from skmm.readers import with_position

__all__ = ["CellReader", "Place", "first_readable", "places_of"]

Place = tuple[int, int]  # (column, row)


class CellReader:
    """Applies an encoder's readers to cells, given by their place.

    Several threads may use it at once.

    Parameters
    ----------
    encoder : CellEncoder
        Whose ``_read``, ``_digest`` and ``on_error`` are used.
    columns : list of Column
        Where the cells stand.

    Attributes
    ----------
    unreadable : list of (column, row)
        Cells that were found to be unreadable, where that is to be survived.
    """

    def __init__(self, encoder: Any, columns: list[Column]):
        self.encoder = encoder
        self.columns = columns
        self.unreadable: list[Place] = []

    def read(self, place: Place) -> Any:
        """Decode a cell; None if it is unreadable."""
        return self._try(place, self.encoder._read)

    def digest(self, place: Place) -> bytes | None:
        """Digest of a cell's content; None if there is none, e.g. no such file."""
        return self._try(place, self.encoder._digest)

    def read_as(self, place: Place, is_expected: Callable[[bytes], bool]) -> Any:
        """Decode a cell, None if unreadable; what is decoded must be what was looked up."""
        read = self._try(place, self.encoder._read_with_digest)
        if read is None:
            return None
        digest, decoded = read
        if not is_expected(digest):
            raise self._located(place, MediaDecodeError("changed while being encoded"))
        return decoded

    def _try(self, place: Place, verb: Callable[[Any], Any]) -> Any:
        try:
            return verb(self.columns[place[0]].values[place[1]])
        except CellTypeError as error:
            raise self._located(place, error) from error
        except MediaDecodeError as error:
            self.survive(place, error)
            return None

    def survive(self, place: Place, error: MediaDecodeError) -> None:
        """Count a cell as absent, or raise its error where that is not wanted."""
        if self.encoder.on_error != "missing":
            raise self._located(place, error) from error

    def _located(self, place: Place, error: CellTypeError | MediaDecodeError) -> Exception:
        """Return the error with column and row in front, and the way out behind."""
        column = self.columns[place[0]]
        told = with_position(error, column=column.name, row=column.labels[place[1]])
        told.args = (f"{type(self.encoder).__name__}: {told}",)
        if isinstance(error, MediaDecodeError):
            told.args = (f'{told} Use on_error="missing" to count such cells as absent.',)
        return told

    def warn(self) -> None:
        """Tell of the unreadable cells, if there are any."""
        if not self.unreadable:
            return
        shown = ", ".join(
            f"row {self.columns[c].labels[r]!r} of {self.columns[c].name!r}"
            for c, r in sorted(self.unreadable)[:5]
        )
        n = len(self.unreadable)
        warnings.warn(
            f"{type(self.encoder).__name__} counts {n} unreadable {'cell' if n == 1 else 'cells'}"
            f" as absent: {shown}{', ...' if n > 5 else ''}.",
            ModalityWarning,
            stacklevel=2,
        )


def places_of(columns: list[Column]) -> Iterator[Place]:
    """Places of the cells that are not missing, column by column."""
    for c, column in enumerate(columns):
        for row in np.flatnonzero(~column.missing):
            yield c, int(row)


def first_readable(columns: list[Column], read: Callable[[Any], Any]) -> Any:
    """Decode the first cell that can be; None if there is none.

    Of the others nothing is said: they are told when all cells are read, or survived.
    """
    for c, row in places_of(columns):
        try:
            return read(columns[c].values[row])
        except (CellTypeError, MediaDecodeError):
            continue
    return None
