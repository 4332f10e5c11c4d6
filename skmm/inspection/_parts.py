"""Parts of a raw cell (words, patches, segments of time), and the cell without each of them."""

import io
import os
import re
import sys
import wave
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skmm._frame._media import cell_kind
from skmm.readers import read_audio, read_image, read_series, read_text, read_video

__all__ = ["KINDS", "Parts", "kind_of_cell", "parts_of"]

KINDS = ("text", "image", "audio", "video", "timeseries")
_RATE = 16_000  # samples per second of an audio file
_PER_SIDE = 8  # patches along the longer side of an image
_IN_TIME = 16  # segments of an audio clip, a video or a series


class Parts(NamedTuple):
    """Parts of one cell.

    Attributes
    ----------
    whole : object
        The cell itself, in the form of the others, so that the form does not affect a score.
    without : list of object
        The cell without each part.
    tokens : list or None
        Words, or (start, end) of segments of time; None for patches.
    shape : tuple of int
        Shape of the scores: (n_parts,), or (n_rows, n_columns) of patches.
    """

    whole: Any
    without: list[Any]
    tokens: list[Any] | None
    shape: tuple[int, ...]


def kind_of_cell(cell: object) -> str | None:
    """Return the modality of a cell, one of ``KINDS``, None for others."""
    kind = cell_kind(cell) or ""
    kind = {"string": "text", "1-D array": "timeseries", "2-D array": "timeseries"}.get(kind, kind)
    return kind if kind in KINDS else None


def parts_of(cell: object, kind: str, n_parts: int | None, rate: float | None) -> Parts:
    """Split a cell into parts.

    Parameters
    ----------
    cell : object
        Raw cell that the reader of its kind accepts.
    kind : str
        One of ``KINDS``.
    n_parts : int or None
        Patches along the longer side of an image, or segments of time. A text is split into words.
    rate : float or None
        Samples per second of arrays; None counts time in samples.

    Returns
    -------
    parts : Parts
        The input cell is not changed.
    """
    if kind == "text":
        return _words(read_text(cell))
    if kind == "image":
        return _patches(cell, n_parts or _PER_SIDE)
    if kind == "video":
        return _frames(cell, n_parts or _IN_TIME)
    if kind == "audio":
        return _audio(cell, n_parts or _IN_TIME, rate)
    return _series(cell, n_parts or _IN_TIME, rate)


def _words(text: str) -> Parts:
    found = list(re.finditer(r"\S+", text))
    # A word is removed with the space after it; the last word with the space before it.
    without = [(text[: word.start()] + text[word.end() :].lstrip()).strip() for word in found]
    return Parts(text, without, [word.group() for word in found], (len(found),))


def _patches(cell: object, n: int) -> Parts:
    """Set one square at a time to the mean color of the image."""
    array, back = _pixels(cell)  # channels last
    height, width = array.shape[:2]
    side = -(-max(height, width) // n)
    gray = array.reshape(height * width, -1).astype(np.float64).mean(axis=0)
    if array.dtype.kind in "biu":
        gray = np.rint(gray)
    color = gray.astype(array.dtype).reshape(array.shape[2:])
    without = []
    shape = (-(-height // side), -(-width // side))
    for row in range(shape[0]):
        for column in range(shape[1]):
            changed = array.copy()
            place = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
            changed[place] = color
            without.append(back(changed))
    return Parts(back(array), without, None, shape)


def _pixels(cell: Any) -> tuple[np.ndarray, Any]:
    """Return an image as an array with the channels last, and a function to its original form."""
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(cell, pil.Image):
        return read_image(cell), pil.fromarray
    if isinstance(cell, np.ndarray):
        if cell.ndim == 3 and cell.shape[2] not in (1, 3, 4) and cell.shape[0] in (1, 3):
            return np.moveaxis(cell, 0, -1), lambda array: np.moveaxis(array, -1, 0)
        return cell, np.asarray
    return read_image(cell), np.asarray  # a file: pixels from here on


def _frames(cell: Any, n: int) -> Parts:
    """Set one segment of frames at a time to the mean color of the video."""
    if isinstance(cell, np.ndarray):
        array = cell
    else:
        array = np.stack(list(read_video(cell, n_frames=n)))
    mean = array.reshape(-1, array.shape[-1]).astype(np.float64).mean(axis=0)
    if array.dtype.kind in "biu":
        mean = np.rint(mean)
    return _segments(array, n, mean.astype(array.dtype), None, np.asarray)


def _audio(cell: Any, n: int, rate: float | None) -> Parts:
    """Silence one segment at a time."""
    if isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview):
        samples = np.concatenate(list(read_audio(cell, rate=_RATE)))
        return _segments(samples, n, 0.0, _RATE, _wave)
    array = np.asarray(cell)
    return _segments(array, n, np.zeros((), array.dtype), rate, np.asarray)


def _wave(samples: np.ndarray) -> bytes:
    """Return audio as the content of a WAV file, which holds the rate."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return stream.getvalue()


def _series(cell: object, n: int, rate: float | None) -> Parts:
    """Set one segment at a time to the mean of each channel."""
    array = np.asarray(cell, dtype=float) if isinstance(cell, list | tuple) else np.asarray(cell)
    known = read_series(cell).astype(np.float64)  # (n_timestamps, n_channels)
    count = np.maximum((~np.isnan(known)).sum(axis=0), 1)
    mean = np.nansum(known, axis=0) / count
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    return _segments(array, n, mean.reshape(array.shape[1:]), rate, np.asarray)


def _segments(
    array: np.ndarray,
    n: int,
    silence: ArrayLike,
    rate: float | None,
    back: Callable[[np.ndarray], Any],
) -> Parts:
    """Split the first axis into ``n`` segments, or one for each entry if there are fewer."""
    edges = np.linspace(0, len(array), min(n, len(array)) + 1).round().astype(int)
    without = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        changed = array.copy()
        changed[start:end] = silence
        without.append(back(changed))
    times = edges / (rate or 1)
    tokens = [(float(a), float(b)) for a, b in zip(times[:-1], times[1:], strict=True)]
    return Parts(back(array), without, tokens, (len(tokens),))
