"""Videos by path, bytes, array and list: selected frames, and what is refused."""

import gc
import io
import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skmm import exceptions
from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import read_image, read_video
from skmm.readers._image import digest_image
from skmm.readers._source import digest_bytes
from skmm.readers._video import digest_video, load_video

av = pytest.importorskip("av", reason="video files need the extra 'video'")

from clips import FIRST, STEP, clip, damaged, gray, number_of, numbers_of, turned  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def ten():
    return clip(10)


def center_frames(n, n_wanted):
    """Return the frames at the centers of equal parts, by the definition."""
    n_wanted = min(n, n_wanted)
    return [int((k + 0.5) * n / n_wanted + 1e-9) for k in range(n_wanted)]


# ---- selected frames -----------------------------------------------------------------------


@pytest.mark.parametrize("n_wanted", [1, 2, 3, 4, 7, 10, 99])
@pytest.mark.parametrize(
    ("format", "codec"),
    [
        ("mp4", "mpeg4"),
        ("mp4", "libx264"),  # with frames out of order
        ("matroska", "libx264"),
        ("avi", "mpeg4"),
        ("mpegts", "mpeg2video"),
        ("webm", "libvpx-vp9"),
        ("h264", "libx264"),  # packets without any time
        ("gif", "gif"),
    ],
)
def test_uniform(format, codec, n_wanted, made={}):  # noqa: B006 - one file for all numbers
    key = format, codec
    if key not in made:
        pixels, rate = ("rgb8", 10) if codec == "gif" else ("yuv420p", 25)
        shades = {i: gray(i) if codec != "gif" else gray(36 * (i % 2)) for i in range(11)}
        made[key] = clip(11, format=format, codec=codec, pixels=pixels, rate=rate, frame=shades.get)
    found = numbers_of(read_video(made[key], n_frames=n_wanted))
    expected = center_frames(11, n_wanted)
    assert found == ([36 * (i % 2) for i in expected] if codec == "gif" else expected)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [10, 24, 30000 / 1001])
def test_at_a_rate(rate):
    # matroska rounds times to milliseconds: no frame must be lost or repeated.
    for format in ("mp4", "matroska"):
        data = clip(30, format=format, rate=Fraction(rate).limit_denominator(1001))
        for asked in (rate, rate / 2, rate / 3, 1.0, 100 * rate):
            found = numbers_of(read_video(data, sampling="rate", frame_rate=asked))
            n = min(asked, rate) * 29 / rate
            step = max(1.0, rate / asked)
            expected = [round(k * step) for k in range(int(n + 1e-9) + 1)]
            assert np.abs(np.subtract(found, expected[: len(found)])).max() <= 1
            assert len(found) in (len(expected), len(expected) + 1)
            assert found[0] == 0 and len(set(found)) == len(found)
        assert numbers_of(read_video(data, sampling="rate", frame_rate=rate)) == [*range(30)]


def test_a_rate_follows_the_clock_and_not_the_number_of_frames():
    times = [0, 100, 200, 300, 2000, 2100, 4000]
    data = clip(7, format="matroska", times=times, rate=10)
    found = numbers_of(read_video(data, sampling="rate", frame_rate=0.5))
    assert found == [0, 4, 6]


def test_key_frames():
    data = clip(23, codec="libx264", codec_options={"g": "5", "sc_threshold": "0"})
    assert numbers_of(read_video(data, sampling="keyframes")) == [0, 5, 10, 15, 20]
    assert len([*read_video(clip(4, codec="mjpeg", pixels="yuvj420p"), sampling="keyframes")]) == 4


def test_frames_can_be_read_again(ten):
    frames = read_video(ten, n_frames=3)
    assert numbers_of(frames) == numbers_of(frames) == [1, 5, 8]


def test_a_rate_needs_a_number(ten):
    with pytest.raises(ValueError, match="sampling='rate' needs frame_rate"):
        read_video(ten, sampling="rate")


def test_a_rate_needs_a_clock():
    data = clip(5, format="h264", codec="libx264")
    with pytest.raises(MediaDecodeError, match="have no timestamps.*use sampling='uniform'"):
        read_video(data, sampling="rate", frame_rate=1.0)


# ---- forms of one video --------------------------------------------------------------------


def test_path_and_bytes(tmp_path, ten):
    path = tmp_path / "clip.jpg"  # a wrong suffix has no effect
    path.write_bytes(ten)
    expected = [*read_video(ten)]
    for cell in (path, str(path), np.str_(path), bytearray(ten), memoryview(ten)):
        digest, frames = load_video(cell)
        assert digest == digest_video(cell) == digest_bytes(ten)
        for frame, other in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(frame, other)


def test_the_digest_is_of_the_content(tmp_path, ten):
    other = clip(10, frame=lambda i: gray(i + 1))
    frames = np.stack([gray(i) for i in range(3)])
    cells = [ten, other, frames, frames[:2], frames[::-1], frames / 255.0, frames[:, :16]]
    cells += [[*frames], [*frames[::-1]], [frames[0]], frames[0][None]]
    assert len({digest_video(cell) for cell in cells}) == len(cells)
    assert digest_video(frames) == digest_video(frames.copy()) == digest_video(frames[::-1][::-1])
    assert digest_video([*frames]) == digest_video((*frames,))
    assert digest_video([frames[0]]) != digest_image(frames[0])


def test_a_bytearray_may_change_afterwards(ten):
    data = bytearray(ten)
    frames = read_video(data)
    data[:] = b"x" * len(data)
    assert numbers_of(frames) == center_frames(10, 8)


def test_a_file_that_changes_between_digest_and_frames(tmp_path, ten):
    path = tmp_path / "clip.mp4"
    path.write_bytes(ten)
    frames = read_video(path)
    path.write_bytes(clip(10, frame=lambda i: gray(9 - i)))
    with pytest.raises(MediaDecodeError, match=r"clip.mp4'?.*changed while it was read"):
        list(frames)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, bool])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("first", [False, True])
def test_arrays_are_read_frame_by_frame_as_images_are(dtype, channels, first):
    if dtype is bool or np.dtype(dtype).kind == "f":
        array = RNG.uniform(0, 1, (6, 8, 9, channels)).round().astype(dtype)
    else:
        array = RNG.integers(0, np.iinfo(dtype).max, (6, 8, 9, channels)).astype(dtype)
    if first and channels == 4:
        return  # the image reader refuses that too: four gray frames look the same
    cell = np.moveaxis(array, -1, 1) if first else array
    found = [*read_video(cell, n_frames=3)]
    for i, frame in zip((1, 3, 5), found, strict=True):
        np.testing.assert_array_equal(frame, read_image(array[i]))


def test_a_stack_of_slices_is_a_video():
    """A CT of 40 slices, 12 bits deep in 16: each slice a frame."""
    depth = np.arange(40)[:, None, None, None]
    stack = np.broadcast_to(depth * 100, (40, 12, 14, 1)).astype(np.uint16)
    found = [*read_video(stack, n_frames=4)]
    assert [int(frame[0, 0, 0]) for frame in found] == [
        round(100 * i / 257) for i in (5, 15, 25, 35)
    ]


def test_a_list_of_images(tmp_path):
    array = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(array).save(path)
    cell = [array, Image.fromarray(array), path, str(path), path.read_bytes()]
    frames = read_video(cell)
    assert len([*frames]) == 5
    for frame in frames:
        np.testing.assert_array_equal(frame, array)
    many = [np.full((3, 4), i, np.uint8) for i in range(10)]
    assert [int(f[0, 0, 0]) for f in read_video(many, n_frames=3)] == center_frames(10, 3)


@pytest.mark.parametrize("sampling", ["rate", "keyframes"])
@pytest.mark.parametrize("cell", [np.zeros((3, 4, 4, 1), np.uint8), [np.zeros((4, 4), np.uint8)]])
def test_arrays_and_lists_have_no_clock(cell, sampling):
    with pytest.raises(CellTypeError, match=f"'{sampling}' from a.* Use sampling='uniform'"):
        read_video(cell, sampling=sampling, frame_rate=1.0)


# ---- pixels of a frame ---------------------------------------------------------------------


def corner(i):
    """Red above left, dark elsewhere."""
    image = np.full((32, 48, 3), 30, np.uint8)
    image[:16, :24] = (250, 20, 20)
    return image


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # what a phone held upright writes
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((-1, 0, 0, 1), np.fliplr),  # a camera that shows oneself
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    ],
)
def test_rotation_is_applied(matrix, expected):
    data = clip(3, frame=corner)
    plain = next(iter(read_video(data)))
    found = next(iter(read_video(turned(data, matrix))))
    np.testing.assert_array_equal(found, expected(plain))
    assert np.abs(plain.astype(int) - corner(0)).mean() < 12


@pytest.mark.parametrize(
    ("format", "codec", "pixels"),
    [
        ("avi", "ffv1", "gray"),
        ("avi", "ffv1", "gray16le"),
        ("matroska", "ffv1", "yuv420p10le"),
        ("avi", "ffv1", "bgr0"),
        ("mov", "qtrle", "argb"),
        ("mov", "qtrle", "rgb24"),
        ("mov", "png", "rgba64be"),
    ],
)
def test_formats_of_pixels(format, codec, pixels):
    data = clip(4, format=format, codec=codec, pixels=pixels)
    for i, frame in enumerate(read_video(data, n_frames=4)):
        assert frame.dtype == np.uint8 and frame.shape == (32, 48, 3)
        assert np.abs(frame.astype(int) - (FIRST + STEP * i)).max() <= 2


def test_transparent_pixels_are_white():
    def half(i):
        image = np.full((32, 48, 4), 40, np.uint8)
        image[:, :24, 3] = 255
        image[:, 24:, 3] = 0
        return image

    data = clip(2, format="mov", codec="qtrle", pixels="argb", frame=half)
    frame = next(iter(read_video(data)))
    assert (frame[:, :24] == 40).all() and (frame[:, 24:] == 255).all()


def test_a_still_image_is_a_video_of_one_frame(tmp_path):
    array = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp", "bmp", "tiff"):
        path = tmp_path / f"image.{suffix}"
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(array).save(path, **({"exif": exif} if suffix == "jpg" else {}))
        for how in ({}, {"sampling": "keyframes"}, {"sampling": "rate", "frame_rate": 2.0}):
            (frame,) = read_video(path, **how)
            # FFmpeg itself does not rotate it.
            np.testing.assert_array_equal(frame, read_image(path))
    assert len([*read_video(clip(1))]) == 1


# ---- memory --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_long_video_is_never_in_memory(tmp_path):
    """200 frames of 0.2 MB each, of which 4 or all are selected."""
    path = tmp_path / "long.mp4"
    path.write_bytes(clip(200, frame=lambda i: gray(i % 30, 240, 320), rate=25))
    next(iter(read_video(path)))  # libraries are imported
    for how, n in (
        ({"n_frames": 4}, 4),
        ({"sampling": "rate", "frame_rate": 0.5}, 4),
        ({"n_frames": 200}, 200),
    ):
        gc.collect()
        tracemalloc.start()
        n_seen = sum(1 for _ in read_video(path, **how))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n_seen == n
        # Two pieces of the file while it is hashed, or a few frames; all would be 46 MB.
        assert peak < 4_000_000, (how, peak)


# ---- refused cells -------------------------------------------------------------------------


def audio_alone():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    return buffer.getvalue()


def audio_with_cover():
    """A tune whose only image is the sleeve of the record."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        voice = container.add_stream("mp3", rate=44100)
        voice.layout = "mono"
        sleeve = container.add_stream("png", rate=1)
        sleeve.height, sleeve.width, sleeve.pix_fmt = 32, 48, "rgb24"
        sleeve.disposition = av.stream.Disposition.attached_pic
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), "fltp", "mono")
        tone.sample_rate = 44100
        container.mux(sleeve.encode(av.VideoFrame.from_ndarray(gray(0))))
        container.mux(sleeve.encode())
        container.mux(voice.encode(tone))
        container.mux(voice.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("make", [audio_alone, audio_with_cover])
def test_no_video_stream(make):
    with pytest.raises(MediaDecodeError, match="no video stream, only audio"):
        read_video(make())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no format that FFmpeg reads"),
        (b"garbage" * 500, "no format that FFmpeg reads"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "no format|truncated"),
        # Files and URLs of a playlist are not opened.
        (b"ffconcat version 1.0\nfile 'secret.ts'\n", "Invalid argument"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "no format"),
    ],
)
def test_garbage(data, reason, tmp_path, monkeypatch):
    (tmp_path / "secret.ts").write_bytes(clip(5, format="mpegts", codec="mpeg2video"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaDecodeError, match=reason):
        list(read_video(data))


def test_paths_that_are_none(tmp_path):
    for path, reason in {
        tmp_path / "none.mp4": "no such file",
        tmp_path: "it is a directory",
        "https://example.org/clip.mp4": "URLs are not fetched",
    }.items():
        with pytest.raises(MediaDecodeError, match=f"Cannot read a video from .*{reason}"):
            digest_video(path)
        with pytest.raises(MediaDecodeError, match=reason):
            read_video(path)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("format", "codec", "options"),
    [
        ("mp4", "mpeg4", {}),  # its index is at the end
        ("mp4", "mpeg4", {"movflags": "faststart"}),  # and here at the start
        ("matroska", "mpeg4", {}),
        ("avi", "mpeg4", {}),
        ("flv", "flv", {}),
        ("mov", "mjpeg", {"movflags": "faststart"}),
    ],
)
def test_a_file_that_was_cut_is_refused(format, codec, options, share):
    noisy = RNG.integers(0, 256, (40, 32, 48, 3), dtype=np.uint8)
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    data = clip(
        40, format=format, codec=codec, options=options, frame=noisy.__getitem__, pixels=pixels
    )
    assert len([*read_video(data, n_frames=40)]) == 40
    with pytest.raises(MediaDecodeError, match="truncated"):
        read_video(data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("format", "codec", "options"),
    [
        ("mpegts", "mpeg2video", {}),
        ("mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}),  # as browsers record
    ],
)
def test_a_stream_of_no_stated_length_is_read_to_where_it_ends(format, codec, options):
    data = clip(40, format=format, codec=codec, options=options)
    assert numbers_of(read_video(data, n_frames=40)) == [*range(40)]
    found = numbers_of(read_video(data[: len(data) // 2], n_frames=50))
    assert 10 < len(found) < 30 and found == [*range(len(found))]


def test_a_video_that_outlasts_its_audio_clip_or_the_other_way_round():
    for format in ("mp4", "matroska"):
        assert numbers_of(read_video(clip(10, format=format, audio=True), n_frames=2)) == [2, 7]


def test_slow_videos_are_not_taken_for_cut_ones():
    for format in ("mp4", "matroska", "avi"):
        data = clip(3, format=format, rate=1)
        assert numbers_of(read_video(data)) == [0, 1, 2]


def test_broken_packets_are_left_out_while_they_are_few():
    found = numbers_of(read_video(damaged(40, 0.05), n_frames=40))
    assert len(found) == 38 and sorted(found) == found
    with pytest.raises(MediaDecodeError, match="damaged: 10 of 40 packets are unreadable"):
        list(read_video(damaged(40, 0.25), n_frames=40))
    with pytest.raises(MediaDecodeError, match="damaged"):
        list(read_video(damaged(40, 1.0)))


def test_no_frame():
    with pytest.raises(MediaDecodeError, match="has no frame. Put None"):
        read_video(np.zeros((0, 4, 4, 3), np.uint8))
    with pytest.raises(MediaDecodeError, match="an empty list. Put None"):
        read_video([])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.zeros((5, 6, 7), np.uint8), r"shape \(5, 6, 7\).*cell\[..., None\]"),
        (np.zeros((5, 6), np.uint8), r"\(n_frames, height, width, channels\)"),
        (np.zeros((3, 16, 20, 22), np.uint8), "numpy.moveaxis"),
        (np.zeros((5, 6, 0, 3), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.int64), "white is unknown"),
        (np.full((2, 4, 4, 3), 2.0), r"Scale it to \[0, 1\]"),
        (np.full((2, 4, 4, 3), np.nan), r"Scale it to \[0, 1\]"),
        (np.array(["a"]), "dtype <U1"),
        (3, "type int"),
        ({"a": 1}, "type dict"),
        ([[0.1, 0.2]], "Convert it first"),
        ([np.zeros((4, 4)), None], "Image 2 of 2 is missing"),
        ([np.zeros((4, 4)), float("nan")], "Image 2 of 2 is missing"),
        ([np.zeros((4, 4)), {}], "Image 2 of 2: .*type dict"),
        ([np.zeros((4, 4)), np.full((4, 4), 7.0)], "Image 2 of 2: .*Scale it"),
        (io.BytesIO(b"x"), "read only once"),
    ],
)
def test_other_cells_are_refused(cell, message):
    with pytest.raises(CellTypeError, match=message):
        load_video(cell)


def test_unreadable_images_of_a_list_are_named(tmp_path):
    good = np.zeros((4, 4), np.uint8)
    with pytest.raises(MediaDecodeError, match="Image 2 of 2: .*no such file"):
        read_video([good, tmp_path / "none.png"])
    with pytest.raises(MediaDecodeError, match="Image 1 of 2: Cannot decode"):
        list(read_video([b"garbage", good]))


def test_a_image_of_a_list_that_changes(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)).save(path)
    frames = read_video([path])
    Image.fromarray(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)).save(path)
    with pytest.raises(MediaDecodeError, match="Image 1 of 1 changed"):
        list(frames)


def test_without_pyav(monkeypatch, ten):
    import importlib

    real = importlib.import_module

    def absent(name, *rest):
        if name.partition(".")[0] == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr("skmm._environment._optional.is_installed", lambda package: False)
    with pytest.raises(exceptions.MissingExtraError, match=r'pip install "skmm\[video\]"'):
        read_video(ten)
    assert len([*read_video(np.zeros((3, 4, 4, 1), np.uint8))]) == 3  # arrays need none


@pytest.mark.slow
def test_a_path_is_not_held_open(tmp_path, ten):
    path = tmp_path / "clip.mp4"
    path.write_bytes(ten)
    frames = iter(read_video(path))
    assert number_of(next(frames)) == 0
    frames.close()  # a ResourceWarning would be an error
    gc.collect()
    assert isinstance(path, Path)
