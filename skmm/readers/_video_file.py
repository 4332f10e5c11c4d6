"""Video files: surveyed by their packets, then decoded in order, a frame at a time.

A survey demultiplexes without decoding, which takes a few thousandths of the time. It finds how
many frames there are, when each is shown, and whether the file is as long as its header states.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from skmm._environment._optional import import_optional
from skmm.exceptions import MediaDecodeError, MissingExtraError
from skmm.readers._image import read_image

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Survey", "decode_frames", "every", "spread", "survey_video"]

_NEEDED_BY = "Reading a video file"
# Playlists name other files, which must not be opened.
_CLOSED = {"protocol_whitelist": "none"}
_COVER = 0x400  # disposition of a stream that is a cover image
# Formats that store their length; for others FFmpeg estimates it from the bytes or last packet.
_VIDEO_LENGTH = {"mov,mp4,m4a,3gp,3g2,mj2"}
_WHOLE_LENGTH = {"matroska,webm", "flv"}
_SLACK = 0.03  # share of the length
# Players skip a broken packet; a file with a larger share of them is refused.
_MOST_BROKEN = 0.1


class Survey(NamedTuple):
    """Frames of a video file, found from its packets.

    Attributes
    ----------
    n_frames : int
        Number of frames.
    times : list of int
        When each is shown, ascending, in units of the stream; empty if the file has no times.
    unit : Fraction
        Length of a unit in seconds.
    still : bool
        Whether the file is an image, which is read by pillow.
    """

    n_frames: int
    times: list[int]
    unit: Fraction
    still: bool = False

    @property
    def interval(self) -> Fraction:
        """Mean time between two frames, in units of the stream."""
        if len(self.times) < 2:
            return Fraction(0)
        return Fraction(self.times[-1] - self.times[0], len(self.times) - 1)


def survey_video(file: BinaryIO) -> Survey:
    """Find the frames of a file without decoding it.

    Parameters
    ----------
    file : file object
        Binary, seekable, at its start.

    Returns
    -------
    survey : Survey
        Its frames.

    Raises
    ------
    MediaDecodeError
        If the file has no video or no frame, or is shorter than its header states. The message is
        a reason, to be put after the name of the cell.
    """
    with _opened(file) as container:
        if container.format.name.endswith("_pipe"):
            return Survey(1, [], Fraction(1), still=True)
        stream = _video_stream(container)
        n_frames, times, timed = 0, [], True
        start, end = None, Fraction(0)  # of the file, in seconds
        own_end = Fraction(0)  # of the stream, measured from its start
        for packet in _packets(container, _timed_streams(container)):
            if packet.pts is not None and packet.time_base is not None:
                begin = packet.pts * packet.time_base
                until = begin + (packet.duration or 0) * packet.time_base
                start, end = begin if start is None else min(start, begin), max(end, until)
            # An empty packet repeats a frame; a discarded one only helps to decode others.
            no_frame = not packet.size or packet.is_discard or packet.is_corrupt
            if packet.stream_index != stream.index or no_frame:
                continue
            n_frames += 1
            timed = timed and packet.pts is not None
            if packet.pts is not None:
                times.append(packet.pts)
                own_end = max(own_end, until)
        times = sorted(set(times)) if timed else []
        survey = Survey(n_frames, times, stream.time_base or Fraction(1))
        if not n_frames:
            raise MediaDecodeError("it has no frame")
        _check_length(container, stream, survey, own_end, end, start or Fraction(0))
        return survey


def decode_frames(
    file: BinaryIO, survey: Survey, wanted: Iterable[Fraction] | None
) -> Iterator[np.ndarray]:
    """Decode some frames of a file, in order.

    Parameters
    ----------
    file : file object
        Binary, seekable, at its start.
    survey : Survey
        Result of :func:`survey_video`.
    wanted : iterable of Fraction or None
        Ascending times, in units of the stream, or numbers of frames if it has no times. The
        first frame at or after each is decoded, a frame at most once. None selects key frames.

    Yields
    ------
    image : ndarray of shape (height, width, 3), uint8
        RGB, rotated by the file's rotation, transparent parts over white.
    """
    if survey.still:
        yield read_image(file.read())
        return
    with _opened(file) as container:
        stream = _video_stream(container)
        # Several files are decoded at once by our threads; each thread of FFmpeg would hold
        # further frames.
        stream.codec_context.thread_count = 1
        count: Counter[str] = Counter()
        frames = _frames(container, stream, count, keys_only=wanted is None)
        for frame in frames if wanted is None else _at(frames, wanted, bool(survey.times)):
            count["given"] += 1
            yield _image(frame)
        if count["broken"] > _MOST_BROKEN * count["packets"]:
            raise MediaDecodeError(
                f"it is damaged: {count['broken']} of {count['packets']} packets are unreadable"
            )
        if not count["given"]:
            raise MediaDecodeError("none of its frames can be decoded")


def spread(survey: Survey, n_frames: int) -> list[Fraction]:
    """Return times of the frames in the middle of ``n_frames`` parts; of all if there are fewer."""
    n = min(n_frames, survey.n_frames)
    picked = [(2 * k + 1) * survey.n_frames // (2 * n) for k in range(n)]
    if not survey.times:
        return [Fraction(k) for k in picked]
    last = len(survey.times) - 1  # two packets may share a time
    return [Fraction(survey.times[min(k, last)]) for k in picked]


def every(survey: Survey, frame_rate: float) -> Iterator[Fraction]:
    """Yield times at ``frame_rate`` per second, from the first frame to the last."""
    if not survey.times:
        raise MediaDecodeError(
            "its frames have no timestamps, so they cannot be sampled at a rate (use"
            " sampling='uniform')"
        )
    step = 1 / (Fraction(frame_rate) * survey.unit)
    # Stored times are rounded: half a frame earlier, the nearest frame is selected.
    early = survey.interval / 2
    k, time = 0, Fraction(survey.times[0])
    while time - early <= survey.times[-1]:
        yield time - early
        k += 1
        time = survey.times[0] + k * step


@contextmanager
def _opened(file: BinaryIO) -> Iterator["InputContainer"]:
    """Open a container; any error of FFmpeg becomes a ``MediaDecodeError``."""
    av = import_optional("av", needed_by=_NEEDED_BY)
    # Without its name, whose suffix would influence the detected format.
    nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
    try:
        with av.open(nameless, container_options=_CLOSED, metadata_errors="replace") as container:
            yield container
    except (MediaDecodeError, MissingExtraError, MemoryError):
        raise
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise MediaDecodeError("it is in no format that FFmpeg reads, or truncated") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaDecodeError(str(reason).rstrip(".")) from error


def _video_stream(container: "InputContainer") -> "VideoStream":
    streams = [s for s in container.streams.video if not s.disposition.value & _COVER]
    if not streams:
        only = ", only audio" if container.streams.audio else ""
        raise MediaDecodeError(f"it has no video stream{only}")
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def _timed_streams(container: "InputContainer") -> "list[Stream]":
    return [s for s in container.streams if s.type in ("video", "audio")]


def _packets(container: "InputContainer", streams: "list[Stream]") -> "Iterator[Packet[Stream]]":
    """Yield packets up to the end of the file, or to the first damage."""
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, _ffmpeg_error()):
            return
        yield packet


def _ffmpeg_error() -> type[Exception]:
    error: type[Exception] = import_optional("av.error", needed_by=_NEEDED_BY).FFmpegError
    return error


def _check_length(
    container: "InputContainer",
    stream: "VideoStream",
    survey: Survey,
    own_end: Fraction,
    end: Fraction,
    start: Fraction,
) -> None:
    """Refuse a file that ends earlier than its header states, e.g. a truncated download."""
    name, what, there, declared = container.format.name, "seconds", 0.0, 0.0
    if name == "avi" and stream.frames:
        there, declared, what = survey.n_frames, stream.frames, "frames"
    elif name in _VIDEO_LENGTH and stream.duration:
        there = float(own_end - (stream.start_time or 0) * survey.unit)
        declared = float(stream.duration * survey.unit)
    elif name in _WHOLE_LENGTH and container.duration:
        there, declared = float(end - min(start, Fraction(0))), container.duration / 1e6
    if what == "frames":
        slack = max(2.0, _SLACK * declared / 2)
    else:
        slack = max(0.1, _SLACK * declared, 2 * float(survey.interval * survey.unit))
    if there < declared - slack:
        raise MediaDecodeError(
            f"it is truncated: it has {there:.4g} of the {declared:.4g} {what} that its header"
            " declares"
        )


def _frames(
    container: "InputContainer", stream: "VideoStream", count: "Counter[str]", *, keys_only: bool
) -> "Iterator[VideoFrame]":
    """Yield frames in the order in which they are shown, and count packets and broken ones."""
    if keys_only:
        stream.codec_context.skip_frame = "NONKEY"
    for packet in _packets(container, [stream]):
        if not packet.size:  # repeats a frame, or is the end
            continue
        count["packets"] += 1
        try:
            # From a packet whose end is missing, a decoder would invent the rest of the image.
            frames = [] if packet.is_corrupt else cast("list[VideoFrame]", packet.decode())
        except _ffmpeg_error():
            frames = []
            count["broken"] += 1
        count["broken"] += packet.is_corrupt
        # Not every decoder supports skip_frame.
        yield from (frame for frame in frames if frame.key_frame or not keys_only)
    yield from (frame for frame in stream.decode(None) if frame.key_frame or not keys_only)


def _at(
    frames: "Iterable[VideoFrame]", wanted: Iterable[Fraction], timed: bool
) -> "Iterator[VideoFrame]":
    """Yield the first frame at or after each of ascending times, each frame once."""
    targets = iter(wanted)
    target = next(targets, None)
    for number, frame in enumerate(frames):
        if target is None:
            return
        time = frame.pts if timed else number
        if time is None or time < target:
            continue
        yield frame
        while target is not None and target <= time:
            target = next(targets, None)


def _image(frame: "VideoFrame") -> np.ndarray:
    format_ = frame.format
    clear = format_.has_palette or any(part.is_alpha for part in format_.components)
    image = frame.to_ndarray(format="rgba" if clear else "rgb24")
    side_data: Iterable[Any] = frame.side_data
    matrix = next((data for data in side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is not None:
        image = _turned(image, np.frombuffer(matrix, dtype=np.int32)[:5])
    return read_image(image)


def _turned(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate by quarter turns and mirror an image by the display matrix of the file."""
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = (int(value) for value in matrix)
    if abs(a) >= abs(b):
        across, down = a, d
    else:
        image = image.swapaxes(0, 1)
        across, down = c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
