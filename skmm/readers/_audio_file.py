"""Sound files: opened by their content, checked against their header, decoded block by block.

soundfile reads what libsndfile knows (wav, flac, ogg, mp3, aiff, ...); PyAV reads the rest (m4a,
aac, the sound of a video). Neither ever sees a file's name, so a wrong suffix misleads nobody.
"""

import io
import struct
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Any, BinaryIO, cast

from skmm._environment._optional import import_optional, is_installed
from skmm.exceptions import MediaDecodeError

__all__ = ["reason_of", "sound_blocks"]

_NEEDED_BY = "Reading a sound file"
_BLOCK = 1 << 16  # samples of each channel
# What programs write that do not know the length in advance: ffmpeg the largest number, sox this.
_UNKNOWN = 0x7FFFF000
# An mp3 may count samples that its encoder added, or estimate its length: two frames, a hundredth.
_SLACK, _SLACK_SHARE = 2 * 1152, 0.01
_MALFORMED = 3  # libsndfile's number for a format that it knows, and a file that is broken
# Nothing that the bytes refer to (playlists name other files) is ever opened.
_CLOSED = {"protocol_whitelist": "none"}


def sound_blocks(file: BinaryIO) -> Generator[Any, None, None]:
    """Decode a sound file.

    Parameters
    ----------
    file : binary file
        Its content; it has to be open as long as blocks are taken.

    Yields
    ------
    rate : int
        First, the samples per second.
    block : ndarray of shape (n_samples,), float32
        Then the sound itself, the mean of its channels.

    Raises
    ------
    MediaDecodeError
        If the file is no sound, or ends before its header says. The message is a reason, to be
        put behind the name of the cell.
    """
    head = file.read(16)
    _check_length(file, head)
    reason = ""
    # Of an mp3 without a tag libsndfile guesses the length, and stops there.
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
    """soundfile does not know a file's format, so another library has its turn."""


class _Nameless:
    """A file without its name; a damaged header may ask for places that are in no file."""

    def __init__(self, file: BinaryIO):
        self.read = file.read
        self.readinto = cast(io.BufferedIOBase, file).readinto
        self.tell = file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with suppress(OSError, ValueError):  # whoever asked sees that it is not there
            self._seek(offset, whence)
        return self.tell()


def _by_soundfile(file: BinaryIO) -> Iterator[Any]:
    soundfile = import_optional("soundfile", needed_by=_NEEDED_BY)
    try:
        sound = soundfile.SoundFile(_Nameless(file))
    except soundfile.LibsndfileError as error:
        if error.code == _MALFORMED:  # another library would give the part that is there
            raise
        raise _UnknownFormatError(error.error_string.rstrip(".")) from error
    with closing(sound):
        yield sound.samplerate
        n_read = 0
        # Not by its method blocks(), which believes the header: behind the end of a truncated mp3
        # it repeats what came before.
        while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
            n_read += len(block)
            yield block.mean(axis=1)
    if sound.frames - n_read > max(_SLACK, _SLACK_SHARE * sound.frames):
        raise MediaDecodeError(
            f"it is truncated: {n_read} samples are there, of {sound.frames} that it declares"
        )


def _by_av(file: BinaryIO) -> Iterator[Any]:
    av = import_optional("av", needed_by=_NEEDED_BY)
    with av.open(_Nameless(file), container_options=_CLOSED) as container:
        if not container.streams.audio:
            raise MediaDecodeError("it has no sound")
        rate, resampler = None, None
        for frame in container.decode(container.streams.audio[0]):
            if resampler is None:
                # Only once a frame is decoded is the rate known for sure: AAC may double it.
                rate = frame.sample_rate
                resampler = av.AudioResampler("fltp", frame.layout, rate)
                yield rate
            for plain in resampler.resample(frame):
                yield plain.to_ndarray().mean(axis=0)
        if resampler is not None:
            for plain in resampler.resample(None):
                yield plain.to_ndarray().mean(axis=0)


def _is_container(head: bytes) -> bool:
    """Whether a file begins like something that PyAV reads and soundfile does not."""
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat")
        or head.startswith((b"\x1aE\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\x30\x26\xb2\x75"))
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0)  # AAC
    )


def _is_untagged_mp3(file: BinaryIO, head: bytes) -> bool:
    """Whether a file is an mp3 whose first frame does not tell how many there are."""
    begin = 0
    if head[:3] == b"ID3":  # its size comes in four bytes of seven bits
        begin = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
    file.seek(begin)
    frame = file.read(200)
    is_mp3 = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2
    return is_mp3 and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def _check_length(file: BinaryIO, head: bytes) -> None:
    """Refuse a wav or aiff whose header promises more sound than there is.

    libsndfile gives what is there without a word, so that a download that was cut would pass
    for a short recording.
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
                    f"it is truncated: {there} bytes of sound are there, of {size} that its"
                    " header declares"
                )
            return
        position += 8 + size + size % 2


def reason_of(error: Exception) -> str:
    """Why a file cannot be decoded, in the words of whichever library stumbled over it."""
    error_string = getattr(error, "error_string", None)  # soundfile's own message names an object
    told = str(error_string or error).strip().partition("\n")[0].rstrip(".")
    return told or type(error).__name__
