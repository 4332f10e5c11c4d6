"""Errors and warnings that a user of skmm may want to catch.

This file imports nothing from skmm, so every other file may import it.
"""

from collections.abc import Callable

__all__ = [
    "CellTypeError",
    "CheckpointError",
    "ConvergenceError",
    "FusionWarning",
    "LeakageError",
    "LeakageWarning",
    "MediaDecodeError",
    "MissingExtraError",
    "ModalityMissingError",
    "ModalityWarning",
    "StoreWarning",
]


def __dir__() -> list[str]:
    return sorted(__all__)


class CellTypeError(TypeError):
    """A cell holds an object that an encoder cannot take for its modality."""


class MediaDecodeError(ValueError):
    """A cell names or holds an image, audio or video that cannot be decoded.

    Attributes
    ----------
    column : object
        Name of the column, None where the cell came without a frame.
    row : object
        Index label of the row, None where the cell came without a frame.
    """

    def __init__(self, message: str, *, column: object = None, row: object = None):
        super().__init__(message)
        self.column = column
        self.row = row

    def __reduce__(self) -> tuple[Callable[..., "MediaDecodeError"], tuple[object, ...]]:
        # Keyword-only arguments are lost by the default reduction of exceptions,
        # and this error has to travel back from joblib workers.
        return (_rebuild_media_error, (str(self), self.column, self.row))


def _rebuild_media_error(message: str, column: object, row: object) -> MediaDecodeError:
    return MediaDecodeError(message, column=column, row=row)


class ModalityMissingError(ValueError):
    """A row lacks every modality and the estimator was asked to raise."""


class CheckpointError(ValueError):
    """Pretrained weights cannot be found, are incomplete, or are not those expected."""


class MissingExtraError(ImportError):
    """An optional package is needed; the message names the extra to install."""


class ConvergenceError(ValueError):
    """Training met a loss that is not a number."""


class FusionWarning(UserWarning):
    """A fusion is not shown to do better than its best single modality."""


class LeakageError(ValueError):
    """The same content is on both sides of a split, and the caller asked to raise."""


class LeakageWarning(UserWarning):
    """The same content is on both sides of a split, so its score flatters."""


class ModalityWarning(UserWarning):
    """A modality is there but cannot be used as expected, e.g. it is always absent."""


class StoreWarning(UserWarning):
    """The embedding store met trouble (damage, full disk) and work goes on without it."""
