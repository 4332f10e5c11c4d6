"""A raw cell as parts: words, patches, stretches of time; and the cell without each of them."""

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
_RATE = 16_000  # samples a second of an audio clip that comes as a file
_PER_SIDE = 8  # patches along the longer side of an image
_IN_TIME = 16  # stretches of an audio clip, a video or a series


class Parts(NamedTuple):
    """Parts of one cell.

    Attributes
    ----------
    whole : object
        The cell itself, in the form of the others, so that the form makes no difference.
    without : list of object
        The cell without each part.
    tokens : list or None
        Words, or (start, end) of stretches of time; None for patches.
    shape : tuple of int
        How the parts lie: (n_parts,), or (n_rows, n_columns) of patches.
    """

    whole: Any
    without: list[Any]
    tokens: list[Any] | None
    shape: tuple[int, ...]


def kind_of_cell(cell: object) -> str | None:
    """Tell the modality of a cell, one of ``KINDS``, None for others."""
    kind = cell_kind(cell) or ""
    kind = {"string": "text", "1-D array": "timeseries", "2-D array": "timeseries"}.get(kind, kind)
    return kind if kind in KINDS else None


def parts_of(cell: object, kind: str, n_parts: int | None, rate: float | None) -> Parts:
    """Take a cell apart.

    Parameters
    ----------
    cell : object
        As the reader of its kind takes it.
    kind : str
        One of ``KINDS``.
    n_parts : int or None
        Patches along the longer side of an image, or stretches of time; texts have words.
    rate : float or None
        Samples a second of arrays; None leaves their times in samples.

    Returns
    -------
    parts : Parts
        Nothing of the cell that came in is changed.
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
    # With the space that follows it, or the one before the last.
    without = [(text[: word.start()] + text[word.end() :].lstrip()).strip() for word in found]
    return Parts(text, without, [word.group() for word in found], (len(found),))


def _patches(cell: object, n: int) -> Parts:
    """Squares, each in turn given the mean color of the image."""
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
    """Image as an array with the channels last, and the way back to the form it came in."""
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(cell, pil.Image):
        return read_image(cell), pil.fromarray
    if isinstance(cell, np.ndarray):
        if cell.ndim == 3 and cell.shape[2] not in (1, 3, 4) and cell.shape[0] in (1, 3):
            return np.moveaxis(cell, 0, -1), lambda array: np.moveaxis(array, -1, 0)
        return cell, np.asarray
    return read_image(cell), np.asarray  # a file: pixels from here on


def _frames(cell: Any, n: int) -> Parts:
    """Frames, each stretch of them in turn given the mean color of the video."""
    if isinstance(cell, np.ndarray):
        array = cell
    else:
        array = np.stack(list(read_video(cell, n_frames=n)))
    mean = array.reshape(-1, array.shape[-1]).astype(np.float64).mean(axis=0)
    if array.dtype.kind in "biu":
        mean = np.rint(mean)
    return _stretches(array, n, mean.astype(array.dtype), None, np.asarray)


def _audio(cell: Any, n: int, rate: float | None) -> Parts:
    """Stretches, each in turn silenced."""
    if isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview):
        samples = np.concatenate(list(read_audio(cell, rate=_RATE)))
        return _stretches(samples, n, 0.0, _RATE, _wave)
    array = np.asarray(cell)
    return _stretches(array, n, np.zeros((), array.dtype), rate, np.asarray)


def _wave(samples: np.ndarray) -> bytes:
    """Audio as the content of a WAV file: an array would not say its rate."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return stream.getvalue()


def _series(cell: object, n: int, rate: float | None) -> Parts:
    """Stretches, each in turn at the mean of each channel."""
    array = np.asarray(cell, dtype=float) if isinstance(cell, list | tuple) else np.asarray(cell)
    known = read_series(cell).astype(np.float64)  # (n_timestamps, n_channels)
    count = np.maximum((~np.isnan(known)).sum(axis=0), 1)
    mean = np.nansum(known, axis=0) / count
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    return _stretches(array, n, mean.reshape(array.shape[1:]), rate, np.asarray)


def _stretches(
    array: np.ndarray,
    n: int,
    silence: ArrayLike,
    rate: float | None,
    back: Callable[[np.ndarray], Any],
) -> Parts:
    """``n`` stretches along the first axis, of fewer entries one each."""
    edges = np.linspace(0, len(array), min(n, len(array)) + 1).round().astype(int)
    without = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        changed = array.copy()
        changed[start:end] = silence
        without.append(back(changed))
    times = edges / (rate or 1)
    tokens = [(float(a), float(b)) for a, b in zip(times[:-1], times[1:], strict=True)]
    return Parts(back(array), without, tokens, (len(tokens),))
