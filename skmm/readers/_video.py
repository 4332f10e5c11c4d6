"""Video cells: a file by path or bytes, an array of frames, a list of images.

A reader returns an iterable that decodes the selected frames one after the other, each time it is
iterated over, so that one frame is in memory at a time.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers._image import (
    ImageList,
    digest_image_list,
    is_image_list,
    load_image_list,
    read_image,
)
from skmm.readers._source import (
    array_of,
    digest_file,
    hasher,
    is_source,
    open_file,
    shorten,
    source_bytes,
)
from skmm.readers._video_file import Survey, decode_frames, every, spread, survey_video

__all__ = ["Frames", "digest_video", "load_video", "read_video"]


class _Sampling(NamedTuple):
    """Which frames are selected: the parameters of :func:`read_video`."""

    kind: str
    n_frames: int
    frame_rate: float | None


class Frames:
    """The frames selected from one video; it can be iterated over repeatedly.

    Each frame is an ndarray of shape (height, width, 3), uint8, in the order of the video. Frames
    are decoded lazily, so the iteration may raise ``MediaDecodeError``.
    """

    def __iter__(self) -> Iterator[np.ndarray]:
        raise NotImplementedError


def read_video(
    cell: object,
    *,
    sampling: str = "uniform",
    n_frames: int = 8,
    frame_rate: float | None = None,
) -> Iterable[np.ndarray]:
    """Open a video and select frames, which are decoded lazily.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, array, or list
        A path, or the content of a video file in any format that FFmpeg reads; a still image is
        a video of one frame. Or an array of shape ``(n_frames, height, width, channels)`` or
        ``(n_frames, 1 or 3, height, width)``, with dtype and values as for :func:`read_image`. Or
        a list of images, each a cell of :func:`read_image`.
    sampling : {"uniform", "rate", "keyframes"}, default="uniform"
        Which frames are selected:

        - ``"uniform"``: those in the middle of ``n_frames`` equal parts;
        - ``"rate"``: ``frame_rate`` frames per second, including the first one;
        - ``"keyframes"``: the key frames of a file, which is the fastest.

        An array or a list has neither timestamps nor key frames and supports only ``"uniform"``.
    n_frames : int, default=8
        Number of frames for ``"uniform"``. Of a shorter video, all frames are selected.
    frame_rate : float, default=None
        Frames per second for ``"rate"``. If the video has fewer, each frame is selected once.

    Returns
    -------
    frames : iterable of ndarray of shape (height, width, 3), uint8
        RGB, rotated by the file's rotation, transparent parts over white. One frame is in memory
        at a time.

    Raises
    ------
    CellTypeError
        If the cell is not a video, or does not support ``sampling``.
    MediaDecodeError
        If a file is missing, has no video stream or no frame, or ends earlier than its header
        states. Broken packets are skipped, as players do; the iteration raises this error if they
        are more than a tenth of all.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.readers import read_video
    >>> clip = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    >>> [int(frame[0, 0, 0]) for frame in read_video(clip, n_frames=3)]
    [1, 3, 5]
    """
    return _load(cell, _Sampling(sampling, n_frames, frame_rate), named=False)[1]


def digest_video(cell: object) -> bytes:
    """Compute the digest of a video cell.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, array, or list
        As for :func:`read_video`.

    Returns
    -------
    digest : bytes
        16 bytes. That of a file depends on its bytes and not on its path; that of an array on
        dtype, shape and values; that of a list on its images, in their order.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As for :func:`read_video`, but the bytes of a file are not decoded.
    """
    if is_source(cell):
        with _opened(cell) as file:
            return digest_file(file)
    if is_image_list(cell):
        return digest_image_list(cell)
    return _digest_array(_array(cell))


def load_video(
    cell: object,
    *,
    sampling: str = "uniform",
    n_frames: int = 8,
    frame_rate: float | None = None,
) -> tuple[bytes, Iterable[np.ndarray]]:
    """Digest a video, and open it to decode frames of exactly this content.

    A file is closed in between, and its content is not kept in memory. Decoding raises an error if
    the file has changed since the digest was computed.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, array, or list
        As for :func:`read_video`.
    sampling : {"uniform", "rate", "keyframes"}, default="uniform"
        As in :func:`read_video`. This and the next two parameters do not enter the digest.
    n_frames : int, default=8
        As in :func:`read_video`.
    frame_rate : float, default=None
        As in :func:`read_video`.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_video(cell)``.
    frames : iterable of ndarray of shape (height, width, 3), uint8
        Equal to those of ``read_video(cell)`` with the same options.
    """
    return _load(cell, _Sampling(sampling, n_frames, frame_rate), named=True)


def _load(cell: object, how: _Sampling, *, named: bool) -> tuple[bytes, Frames | ImageList]:
    """Return digest and frames; the digest, which takes a pass over all bytes, is optional."""
    if how.kind == "rate" and how.frame_rate is None:
        raise ValueError("sampling='rate' needs frame_rate, the frames to take per second.")
    if is_source(cell):
        return _load_file(cell, how, named=named)
    array = None if is_image_list(cell) else _array(cell)
    if how.kind != "uniform":
        what = "a list of images" if array is None else "an array of frames"
        raise CellTypeError(
            f"Cannot take frames by sampling={how.kind!r} from {what}, which has no timestamps and"
            " no key frames. Use sampling='uniform'; it takes all if n_frames is large enough."
        )
    if array is None:
        digest, images = load_image_list(cast(Sequence[object], cell))
        return digest, images[_center_frames(len(images), how.n_frames)]
    frames = _ArrayFrames(array, _center_frames(len(array), how.n_frames))
    if array.dtype.kind != "u":
        for _ in frames:  # values out of range are refused here, where the cell is known
            pass
    return _digest_array(array) if named else b"", frames


def _center_frames(n: int, n_wanted: int) -> list[int]:
    return [int(time) for time in spread(Survey(n, [], Fraction(1)), n_wanted)]


# --- arrays -------------------------------------------------------------------------------


class _ArrayFrames(Frames):
    def __init__(self, array: np.ndarray, picked: Sequence[int]):
        self._array = array
        self._picked = picked

    def __iter__(self) -> Iterator[np.ndarray]:
        for i in self._picked:
            yield read_image(self._array[i])


def _array(cell: object) -> np.ndarray:
    if not hasattr(type(cell), "__array__") or isinstance(cell, np.generic):
        way = "Give a path, bytes, an array of frames, or a list of images."
        if hasattr(cell, "read"):
            way = "It can be read only once: put its path or its bytes into the cell."
        elif isinstance(cell, list | tuple):
            way = "Convert it first: numpy.asarray(cell, dtype=numpy.uint8)."
        raise CellTypeError(f"Cannot read a video from a cell of type {type(cell).__name__}. {way}")
    array = array_of(cell, "video")
    if array.dtype.kind not in "biuf":
        raise CellTypeError(
            f"Cannot read a video from an array of dtype {array.dtype}."
            " Use uint8, uint16, bool, or float in [0, 1]."
        )
    _check_shape(array.shape)
    return array


def _check_shape(shape: tuple[int, ...]) -> None:
    trouble = f"Cannot read a video from an array of shape {shape}"
    if len(shape) == 4 and shape[0] == 0:
        raise MediaDecodeError(f"{trouble}: it has no frame. Put None into a cell without a video.")
    if len(shape) == 4 and (shape[3] in (1, 3, 4) or shape[1] in (1, 3)) and 0 not in shape:
        return
    way = "Use (n_frames, height, width, channels) with 1, 3 or 4 channels."
    if len(shape) == 3:
        way = "Gray frames or slices need an axis for their channel: cell[..., None]."
    elif len(shape) == 4 and shape[0] in (1, 3):
        way = "If its channels come first, use numpy.moveaxis(cell, 0, -1)."
    raise CellTypeError(f"{trouble}. {way}")


def _digest_array(array: np.ndarray) -> bytes:
    h = hasher("frames")
    h.update(f"{array.dtype.str} {array.shape}\0".encode())
    for frame in array:  # frame by frame, so that a memory-mapped array is never copied as a whole
        h.update(np.ascontiguousarray(frame).reshape(-1).view(np.uint8).data)
    return h.digest()


# --- files --------------------------------------------------------------------------------


class _FileFrames(Frames):
    def __init__(self, cell: object, stamp: tuple[int, ...], survey: Survey, how: _Sampling):
        self._cell = cell
        self._stamp = stamp
        self._survey = survey
        self._how = how

    def __iter__(self) -> Iterator[np.ndarray]:
        with _opened(self._cell) as file, _cell_in_errors(self._cell):
            self._check_unchanged(file)
            yield from decode_frames(file, self._survey, self._wanted())
            self._check_unchanged(file)

    def _wanted(self) -> Iterable[Fraction] | None:
        how = self._how
        if how.kind == "keyframes":
            return None
        if how.kind == "rate" and how.frame_rate is not None:
            return every(self._survey, how.frame_rate)
        return spread(self._survey, how.n_frames)

    def _check_unchanged(self, file: BinaryIO) -> None:
        if _stamp(file) != self._stamp:
            raise MediaDecodeError("it changed while it was read")


def _load_file(cell: object, how: _Sampling, *, named: bool) -> tuple[bytes, Frames]:
    with _opened(cell) as file:
        stamp = _stamp(file)
        digest = digest_file(file) if named else b""
        file.seek(0)
        with _cell_in_errors(cell):
            survey = survey_video(file)
            if how.kind == "rate" and how.frame_rate is not None and not survey.still:
                next(every(survey, how.frame_rate))  # raises if there are no timestamps
    # The file is not kept open, and mutable bytes are copied.
    kept = bytes(cell) if isinstance(cell, bytearray | memoryview) else cell
    return digest, _FileFrames(kept, stamp, survey, how)


@contextmanager
def _opened(cell: object) -> Iterator[BinaryIO]:
    if isinstance(cell, str | os.PathLike):
        with open_file(cell, kind="video") as file:
            yield file
    else:
        yield io.BytesIO(source_bytes(cell, kind="video"))


def _stamp(file: BinaryIO) -> tuple[int, ...]:
    """Return values that differ if the file is replaced or changed."""
    if isinstance(file, io.BytesIO):
        return ()
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def _cell_in_errors(cell: object) -> Iterator[None]:
    """Put the cell before the reason in an error."""
    try:
        yield
    except MediaDecodeError as error:
        named = shorten(cell)
        if isinstance(cell, bytes | bytearray | memoryview):
            data = bytes(cell[:8])
            named = f"in {len(cell)} bytes that begin with {data!r}"
        raise MediaDecodeError(
            f"Cannot decode the video {named}: {str(error).rstrip('.')}."
        ) from error
