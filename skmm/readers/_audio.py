"""Audio cells: path, bytes or array, all decoded to one channel at the rate of the model.

A recording is decoded window by window, so that an hour of audio is never in memory at once.
"""

import io
import math
import os
import stat
import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any, BinaryIO, cast

import numpy as np

from skmm._environment._optional import import_optional, is_installed
from skmm.exceptions import CellTypeError, MediaDecodeError, MissingExtraError
from skmm.readers._source import (
    array_of,
    digest_array,
    digest_bytes,
    digest_file,
    is_source,
    open_file,
    shorten,
    source_bytes,
)

__all__ = [
    "digest_audio",
    "load_audio",
    "read_audio",
    "reason_of",
    "audio_blocks",
]


class _LongFile(str):
    """Path of a file that is too large to be held in memory."""


def read_audio(
    cell: object,
    *,
    rate: int = 16_000,
    array_rate: int | None = None,
    window: float | None = None,
) -> Iterator[np.ndarray]:
    """Decode audio, window by window.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview or array
        A path, the content of an audio or video file, or the samples themselves: float, int16 or
        int32 of shape ``(n_samples,)`` or ``(n_samples, n_channels)``. Any object with
        ``__array__`` (e.g. a torch tensor on the CPU) counts as an array.
    rate : int, default=16000
        Sampling rate of the result, in samples per second.
    array_rate : int, default=None
        Sampling rate of a cell that is an array, in samples per second. A file states its own.
    window : float, default=None
        Length of a window in seconds. By default there is one window with the whole audio.

    Returns
    -------
    windows : iterator of ndarray of shape (n_samples,), float32
        Mean of the channels, integers scaled to [-1, 1]. The last window may be shorter than the
        others. The first one is decoded by this call, so most errors are raised here and not by
        the iterator.

    Raises
    ------
    CellTypeError
        If the cell is not audio, or an array whose shape or dtype is not supported, or whose rate
        is not given.
    MediaDecodeError
        If a file is missing, truncated or not audio; if there are no samples, or values that are
        not finite.

    Notes
    -----
    Other rates are resampled to ``rate`` by a polyphase filter (``scipy.signal.resample_poly``).
    Windows are cut afterwards, so together they equal the whole audio resampled at once. A file
    that ends earlier than its header states is refused. An mp3 whose header states no length is
    read to its end.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.readers import read_audio
    >>> second = np.zeros(8000)
    >>> [len(samples) for samples in read_audio(second, array_rate=8000)]
    [16000]
    >>> [len(samples) for samples in read_audio(second, array_rate=8000, window=0.4)]
    [6400, 6400, 3200]
    """
    return _decode(_content_of(cell), cell, rate, array_rate, window)


def digest_audio(cell: object) -> bytes:
    """Compute the digest of an audio cell.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview or array
        As for :func:`read_audio`.

    Returns
    -------
    digest : bytes
        16 bytes. That of a file depends on its bytes and not on its path; that of an array on
        dtype, shape and values. The rate of an array is not part of it.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As for :func:`read_audio`, but the bytes of a file are not decoded.
    """
    return _digest(_content_of(cell))


def load_audio(
    cell: object,
    *,
    rate: int = 16_000,
    array_rate: int | None = None,
    window: float | None = None,
) -> tuple[bytes, Iterator[np.ndarray]]:
    """Digest and decode audio while reading the cell once.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview or array
        As for :func:`read_audio`.
    rate, array_rate, window : int, int or None, float or None
        As in :func:`read_audio`. They do not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_audio(cell)``.
    windows : iterator of ndarray of shape (n_samples,), float32
        Equal to those of ``read_audio(cell)``. It raises ``MediaDecodeError`` if a file that is
        too large to be held in memory has changed since the digest was computed.
    """
    content = _content_of(cell)
    stamp = _stamp(content)
    digest = _digest(content)
    return digest, _unchanged(
        _decode(content, cell, rate, array_rate, window), content, stamp, cell
    )


def _content_of(cell: object) -> "bytes | _LongFile | np.ndarray":
    """Reduce a cell to file bytes, the path of a long file, or a numeric array."""
    if is_source(cell):
        if isinstance(cell, str | os.PathLike) and _is_long(cell):
            return _LongFile(os.fsdecode(cell))
        return source_bytes(cell, kind="audio")
    if hasattr(type(cell), "__array__") and not isinstance(cell, np.generic):
        return _array(cell)
    if hasattr(cell, "read"):
        source_bytes(cell, kind="audio")  # raises the error for open files
    way = "Give a path, bytes or an array."
    if isinstance(cell, list | tuple):
        way = "Convert it first: numpy.asarray(cell, dtype=numpy.float32)."
    raise CellTypeError(f"{_TROUBLE} a cell of type {type(cell).__name__}. {way}")


def _is_long(path: "str | os.PathLike[str]") -> bool:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False  # source_bytes raises the error
    return stat.S_ISREG(status.st_mode) and status.st_size > _IN_MEMORY


def _array(cell: object) -> np.ndarray:
    array = array_of(cell, "audio")
    if array.dtype.kind != "f" and array.dtype.name not in _FULL_SCALE:
        raise CellTypeError(
            f"{_TROUBLE} an array of dtype {array.dtype}, whose full scale is unknown. Use float,"
            " int16 or int32."
        )
    if array.ndim not in (1, 2):
        raise CellTypeError(
            f"{_TROUBLE} an array of shape {array.shape}. Use (n_samples,) or"
            " (n_samples, n_channels)."
        )
    if array.ndim == 2 and array.shape[1] > min(len(array), _MANY_CHANNELS) > 0:
        raise CellTypeError(
            f"{_TROUBLE} an array of shape {array.shape}, which has {array.shape[1]} channels."
            " If its channels come first, use cell.T."
        )
    return array


def _digest(content: "bytes | _LongFile | np.ndarray") -> bytes:
    if isinstance(content, bytes):
        return digest_bytes(content)
    if isinstance(content, np.ndarray):
        return digest_array(content)
    with open_file(content, kind="audio") as file:
        return digest_file(file)


def _stamp(content: object) -> object:
    if not isinstance(content, _LongFile):
        return None
    try:
        status = os.stat(content)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _unchanged(
    windows: Iterator[np.ndarray], content: object, stamp: object, cell: object
) -> Iterator[np.ndarray]:
    yield from windows
    if _stamp(content) != stamp:
        raise MediaDecodeError(f"{_TROUBLE} {shorten(cell)}: it changed while it was read.")


def _decode(
    content: "bytes | _LongFile | np.ndarray",
    cell: object,
    rate: int,
    array_rate: int | None,
    window: float | None,
) -> Iterator[np.ndarray]:
    if isinstance(content, np.ndarray):
        pieces = _pieces_of_array(content, rate, array_rate)
    else:
        pieces = _pieces_of_file(content, rate)
    length = None if window is None else max(1, round(window * rate))
    windows = _named(_windows(pieces, length), cell)
    first = next(windows, None)
    if first is None:
        raise MediaDecodeError(f"Cannot decode the audio {_name(cell)}: it has no samples.")
    return _chained(first, windows)


def _chained(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    del first
    yield from rest


def _named(windows: Iterator[np.ndarray], cell: object) -> Iterator[np.ndarray]:
    """Add the cell to the message of any error, and refuse values that are not finite."""
    try:
        for samples in windows:
            if not np.isfinite(samples).all():
                raise MediaDecodeError("it has values that are NaN, infinite or beyond float32")
            yield samples
    except (MissingExtraError, MemoryError):
        raise  # not an error of the audio
    except Exception as error:  # each library has its own error classes
        raise MediaDecodeError(
            f"Cannot decode the audio {_name(cell)}: {reason_of(error)}."
        ) from error


def _name(cell: object) -> str:
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell[:8])
        return f"in {memoryview(cell).nbytes} bytes that begin with {data!r}"
    if is_source(cell):
        return shorten(cell)
    return f"in a {type(cell).__name__} of shape {np.asarray(cell).shape}"


def _pieces_of_array(array: np.ndarray, rate: int, array_rate: int | None) -> Iterator[np.ndarray]:
    if array_rate is None:
        raise CellTypeError(
            f"{_TROUBLE} an array whose rate is unknown. Set sampling_rate to its samples per"
            " second."
        )
    scale = _FULL_SCALE.get(array.dtype.name, 1.0)

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(array), _PIECE):
            piece = array[start : start + _PIECE].astype(np.float64)
            mono = piece if piece.ndim == 1 else piece.mean(axis=1)
            with np.errstate(over="ignore"):  # infinite values are refused later
                single = (mono / scale).astype(np.float32)
            yield single  # outside of errstate: a generator may continue in another thread

    return _resampled(pieces(), array_rate, rate)


def _pieces_of_file(content: "bytes | _LongFile", rate: int) -> Iterator[np.ndarray]:
    opened: BinaryIO = (
        io.BytesIO(content) if isinstance(content, bytes) else open_file(content, kind="audio")
    )
    with opened as file, closing(audio_blocks(file)) as blocks:
        file_rate = next(blocks, None)
        if file_rate is not None:
            yield from _resampled(blocks, file_rate, rate)


def _resampled(pieces: Iterable[np.ndarray], rate: int, target: int) -> Iterator[np.ndarray]:
    """Resample piece by piece, with the same result as for the whole audio at once.

    The filter reads samples on both sides, so each piece is resampled together with the end of
    the previous and the beginning of the next piece, whose results are dropped.
    """
    if rate == target:
        yield from pieces
        return
    if not _RATES[0] <= rate <= _RATES[1]:  # a damaged header; resampling would fill the memory
        raise MediaDecodeError(f"it declares {rate} samples per second")
    common = math.gcd(rate, target)
    up, down = target // common, rate // common
    # In samples of the input; a multiple of down gives a whole number of output samples.
    reach = -(-(_REACH * max(up, down) // up + 1) // down) * down
    held, done = np.zeros(0, np.float32), 0
    for piece in _gathered(pieces, _PIECE):  # a call of the filter costs more than a short piece
        held = np.concatenate([held, piece])
        ready = (len(held) - done - reach) // down * down
        if ready <= 0:
            continue
        until = done + ready
        samples = _filtered(held[: until + reach], up, down)
        yield samples[done * up // down : until * up // down]
        kept = min(until, reach)
        held, done = held[until - kept :], kept
    if len(held) > done:
        yield _filtered(held, up, down)[done * up // down :]


def _gathered(pieces: Iterable[np.ndarray], least: int) -> Iterator[np.ndarray]:
    """Join short pieces until each has at least ``least`` samples, except the last one."""
    held: list[np.ndarray] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= least:
            yield np.concatenate(held)
            held, n_held = [], 0
    if n_held:
        yield np.concatenate(held)


def _filtered(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    filtered: np.ndarray = resample_poly(samples, up, down, window=_filter(max(up, down)))
    return filtered


@lru_cache(maxsize=8)
def _filter(most: int) -> np.ndarray:
    """Return the low-pass filter of ``resample_poly``, which would design it at every call."""
    from scipy.signal import firwin

    window: np.ndarray = firwin(2 * _REACH * most + 1, 1.0 / most, window=("kaiser", 5.0))
    return window.astype(np.float32)


def _windows(pieces: Iterable[np.ndarray], length: int | None) -> Iterator[np.ndarray]:
    """Cut the joined pieces into windows of one length; None yields a single window."""
    held: list[np.ndarray] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if length is not None and n_held >= length:
            joined = np.concatenate(held)
            whole = n_held // length * length
            yield from np.split(joined[:whole], whole // length)
            held, n_held = [joined[whole:]], n_held - whole
    if n_held:
        yield np.concatenate(held)


# --- Audio files: opened by content, checked against their header, decoded block by block ---
# soundfile reads the formats of libsndfile (wav, flac, ogg, mp3, aiff, ...); PyAV reads the rest
# (m4a, aac, the audio track of a video). Neither gets the name of a file, so a wrong suffix has no
# effect.

_NEEDED_BY = "Reading an audio file"
_BLOCK = 1 << 16  # samples of each channel
# Written by programs that do not know the length in advance: ffmpeg the largest number, sox this.
_UNKNOWN = 0x7FFFF000
# An mp3 may count samples that its encoder added, or estimate its length: two frames, a hundredth.
_SLACK, _SLACK_SHARE = 2 * 1152, 0.01
_MALFORMED = 3  # libsndfile's code for a broken file of a supported format
# Nothing that the bytes refer to (playlists name other files) is ever opened.
_CLOSED = {"protocol_whitelist": "none"}


def audio_blocks(file: BinaryIO) -> Generator[Any, None, None]:
    """Decode an audio file.

    Parameters
    ----------
    file : binary file
        Seekable; it must stay open while blocks are read.

    Yields
    ------
    rate : int
        First, the samples per second.
    block : ndarray of shape (n_samples,), float32
        Then the samples, the mean of the channels.

    Raises
    ------
    MediaDecodeError
        If the file is not audio, or ends earlier than its header states. The message is a reason,
        to be put after the name of the cell.
    """
    head = file.read(16)
    _check_length(file, head)
    reason = ""
    # libsndfile estimates the length of an mp3 without a tag, and stops there.
    if not (_is_untagged_mp3(file, head) and is_installed("av")):
        file.seek(0)
        try:
            yield from _by_soundfile(file)
            return
        except _UnknownFormatError as error:
            reason = str(error)
    if not is_installed("av") and not _is_container(head):
        raise MediaDecodeError(f"it is in no format that soundfile reads ({reason})")
    file.seek(0)
    yield from _by_av(file)


class _UnknownFormatError(Exception):
    """soundfile does not support a file's format, so another library is tried."""


class _Nameless:
    """A file without its name, in which seeking to an invalid position has no effect."""

    def __init__(self, file: BinaryIO):
        self.read = file.read
        self.readinto = cast(io.BufferedIOBase, file).readinto
        self.tell = file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with suppress(
            OSError, ValueError
        ):  # of a damaged header; the caller reads the unchanged position
            self._seek(offset, whence)
        return self.tell()


def _by_soundfile(file: BinaryIO) -> Iterator[Any]:
    soundfile = import_optional("soundfile", needed_by=_NEEDED_BY)
    try:
        audio = soundfile.SoundFile(_Nameless(file))
    except soundfile.LibsndfileError as error:
        if error.code == _MALFORMED:  # another library would return the part that exists
            raise
        raise _UnknownFormatError(error.error_string.rstrip(".")) from error
    with closing(audio):
        yield audio.samplerate
        n_read = 0
        # Not by its method blocks(), which trusts the header: after the end of a truncated mp3 it
        # repeats earlier samples.
        while len(block := audio.read(_BLOCK, dtype="float32", always_2d=True)):
            n_read += len(block)
            yield block.mean(axis=1)
    if audio.frames - n_read > max(_SLACK, _SLACK_SHARE * audio.frames):
        raise MediaDecodeError(
            f"it is truncated: it has {n_read} of the {audio.frames} samples that it declares"
        )


def _by_av(file: BinaryIO) -> Iterator[Any]:
    av = import_optional("av", needed_by=_NEEDED_BY)
    with av.open(_Nameless(file), container_options=_CLOSED) as container:
        if not container.streams.audio:
            raise MediaDecodeError("it has no audio")
        rate, resampler = None, None
        for frame in container.decode(container.streams.audio[0]):
            if resampler is None:
                # The rate is certain only once a frame is decoded: AAC may double it.
                rate = frame.sample_rate
                resampler = av.AudioResampler("fltp", frame.layout, rate)
                yield rate
            for plain in resampler.resample(frame):
                yield plain.to_ndarray().mean(axis=0)
        if resampler is not None:
            for plain in resampler.resample(None):
                yield plain.to_ndarray().mean(axis=0)


def _is_container(head: bytes) -> bool:
    """Return whether a file begins like a format that PyAV reads and soundfile does not."""
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat")
        or head.startswith((b"\x1aE\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\x30\x26\xb2\x75"))
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0)  # AAC
    )


def _is_untagged_mp3(file: BinaryIO, head: bytes) -> bool:
    """Return whether a file is an mp3 whose first frame does not state the number of frames."""
    begin = 0
    if head[:3] == b"ID3":  # its size comes in four bytes of seven bits
        begin = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
    file.seek(begin)
    frame = file.read(200)
    is_mp3 = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2
    return is_mp3 and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def _check_length(file: BinaryIO, head: bytes) -> None:
    """Refuse a wav or aiff that is shorter than its header states.

    libsndfile returns the part that exists without a warning, so that a truncated download would
    be read as a short recording.
    """
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RF64"):
        order, wanted = "<", b"data"
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        order, wanted = ">", b"SSND"
    else:
        return
    end = file.seek(0, io.SEEK_END)
    position, long_size = 12, None
    while position + 8 <= end:
        file.seek(position)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"ds64" and size >= 16:  # RF64 keeps sizes beyond 4 GB here
            long_size = struct.unpack("<8xQ", file.read(16))[0]
        if name == wanted:
            there = end - position - 8
            if size >= _UNKNOWN:
                size = there if long_size is None else long_size
            if there < size:
                raise MediaDecodeError(
                    f"it is truncated: it has {there} of the {size} bytes of audio that its header"
                    " declares"
                )
            return
        position += 8 + size + size % 2


def reason_of(error: Exception) -> str:
    """Return why a file cannot be decoded, in the words of the library that failed."""
    error_string = getattr(error, "error_string", None)  # soundfile's str() names an object
    reason = str(error_string or error).strip().partition("\n")[0].rstrip(".")
    return reason or type(error).__name__


_TROUBLE = "Cannot read audio from"
# A larger file, in bytes, is read from the disk piece by piece.
_IN_MEMORY = 1 << 25
_PIECE = 1 << 18
_REACH = 10  # half length of the resampling filter, in samples of the slower rate
_FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}
_MANY_CHANNELS = 64
_RATES = (100, 1_000_000)  # plausible samples per second
