"""Small videos, written on the spot, whose frames say which they are."""

import io
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

FIRST, STEP = 20, 6  # brightness of the first frame, and what each next one is brighter by
_MILLISECOND = Fraction(1, 1000)


def gray(number, height=32, width=48):
    """Frame of that number."""
    return np.full((height, width, 3), FIRST + STEP * number, np.uint8)


def number_of(frame):
    """Which frame of a clip this is; codecs change brightness by less than half a step."""
    return round((float(np.mean(frame)) - FIRST) / STEP)


def numbers_of(frames):
    return [number_of(frame) for frame in frames]


def clip(
    n_frames=10,
    *,
    format="mp4",
    codec="mpeg4",
    pixels="yuv420p",
    rate=10,
    frame=gray,
    times=None,
    codec_options=None,
    audio=False,
    options=None,
):
    """Bytes of a video; ``frame(i)`` gives its images, ``times`` their milliseconds."""
    import av

    # A name, because an index at the start (faststart) is written in a second go.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        with av.open(str(path), "w", format=format, options=options or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=codec_options or {})
            first = frame(0)
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = pixels
            stream.bit_rate = 4_000_000
            if audio:
                voice = container.add_stream("aac" if format == "mp4" else "pcm_s16le", rate=8000)
                voice.layout = "mono"
            for i in range(n_frames):
                image = frame(i)
                kind = "rgba" if image.shape[2] == 4 else "rgb24"
                made = av.VideoFrame.from_ndarray(image, format=kind)
                if times is not None:
                    made.pts, made.time_base = times[i], _MILLISECOND
                container.mux(stream.encode(made))
            container.mux(stream.encode())
            if audio:
                wave = np.sin(np.arange(int(8000 * n_frames / rate)) / 5).astype(np.float32)[None]
                tone = av.AudioFrame.from_ndarray(
                    wave if format == "mp4" else (wave * 9000).astype(np.int16),
                    format="fltp" if format == "mp4" else "s16",
                    layout="mono",
                )
                tone.sample_rate = 8000
                container.mux(voice.encode(tone))
                container.mux(voice.encode())
        return path.read_bytes()


def turned(data, matrix):
    """Write another display matrix (a, b, c, d) into an mp4 file."""
    data = bytearray(data)
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # after version, times and layer
    assert data[data.index(b"tkhd") + 4] == 0
    a, b, c, d = (int(value) << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(data)


def damaged(n_frames=40, share=0.25):
    """A film of which a share of the packets holds nothing that is an image."""
    import av

    whole = clip(n_frames, format="matroska", codec="mjpeg", pixels="yuvj420p")
    buffer = io.BytesIO()
    with av.open(io.BytesIO(whole)) as source, av.open(buffer, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux(video=0)):
            if not packet.size:
                continue
            made = packet
            if (i * share) % 1 + share >= 1:
                made = av.Packet(b"\0" * packet.size)
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.is_keyframe = True
            made.stream = stream
            target.mux(made)
    return buffer.getvalue()
