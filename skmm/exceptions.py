"""Errors and warnings that a user may want to catch.

This module imports nothing from skmm, so every other module may import it.
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
    """A cell holds an object of a type that is not supported for its modality."""


class MediaDecodeError(ValueError):
    """A cell names or holds content, such as an image, that cannot be decoded.

    Attributes
    ----------
    column : object
        Name of the column, None if the cell was read without a frame.
    row : object
        Index label of the row, None if the cell was read without a frame.
    """

    def __init__(self, message: str, *, column: object = None, row: object = None):
        super().__init__(message)
        self.column = column
        self.row = row

    def __reduce__(self) -> tuple[Callable[..., "MediaDecodeError"], tuple[object, ...]]:
        # The default reduction of exceptions loses keyword-only arguments, but joblib workers
        # pickle this error.
        return (_rebuild_media_error, (str(self), self.column, self.row))


def _rebuild_media_error(message: str, column: object, row: object) -> MediaDecodeError:
    return MediaDecodeError(message, column=column, row=row)


class ModalityMissingError(ValueError):
    """A row has no modality at all, and the estimator has ``all_missing="raise"``."""


class CheckpointError(ValueError):
    """Pretrained weights are missing, incomplete, or not the expected ones."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra to install."""


class ConvergenceError(ValueError):
    """Training diverged: a loss or a weight is not finite."""


class FusionWarning(UserWarning):
    """There is no evidence that a fusion is better than its best single modality."""


class LeakageError(ValueError):
    """The same content is on both sides of a split; raised if the caller requests an error."""


class LeakageWarning(UserWarning):
    """The same content is on both sides of a split, so the score is too optimistic."""


class ModalityWarning(UserWarning):
    """A modality cannot be used as expected, e.g. because it is absent in all rows."""


class StoreWarning(UserWarning):
    """The embedding store failed, e.g. on a full disk, and is no longer used."""
