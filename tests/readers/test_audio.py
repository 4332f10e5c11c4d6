"""Audio cells: every form of one recording, resampling, windows, broken files."""

import io
import os
import pickle
import tracemalloc
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from skmm.exceptions import CellTypeError, MediaDecodeError, MissingExtraError
from skmm.readers import _audio, read_audio
from skmm.readers._audio import digest_audio, load_audio
from skmm.readers._image import digest_image
from skmm.readers._source import digest_bytes

soundfile = pytest.importorskip("soundfile", reason="audio files need the extra 'audio'")

RATE = 16_000
RNG = np.random.default_rng(0)


def chirp(n=RATE // 2, rate=RATE):
    t = np.arange(n) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 900 * t) * t)).astype(np.float32)


def encoded(samples, rate=RATE, format="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def in_container(samples, format, codec, rate=RATE, image=False):
    """Return the audio in a container that only PyAV writes and reads."""
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        if image:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        stream = container.add_stream(codec, rate=rate) if codec else None
        if stream is not None:
            stream.layout = "mono"
            for start in range(0, len(samples), 1024):
                block = np.ascontiguousarray(samples[None, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if image:
            for i in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                frame.pts = i
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
    return buffer.getvalue()


def whole(cell, **options):
    (samples,) = read_audio(cell, **options)
    assert samples.dtype == np.float32 and samples.ndim == 1
    return samples


# ---- forms of one recording ----------------------------------------------------------------


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "RF64", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_lossless_files(format, subtype):
    atol = 2.0**-15 if subtype == "PCM_16" else 2.0**-22
    np.testing.assert_allclose(whole(encoded(chirp(), RATE, format, subtype)), chirp(), atol=atol)


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy_files(format, subtype):
    samples = whole(encoded(chirp(), RATE, format, subtype))
    assert len(samples) == len(chirp())
    middle = slice(1000, -1000)
    assert np.corrcoef(samples[middle], chirp()[middle])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("format", "codec", "image"),
    [
        ("mp4", "aac", False),
        ("adts", "aac", False),
        ("mp4", "aac", True),
        ("matroska", "aac", True),
    ],
)
def test_containers(format, codec, image):
    samples = whole(in_container(chirp(), format, codec, image=image))
    n = len(chirp())
    assert 0 <= len(samples) - n <= 3 * 1024  # AAC pads at either end
    lag = np.argmax(np.correlate(samples, chirp(), "valid"))
    middle = slice(lag + 1000, lag + n - 1000)
    assert np.corrcoef(samples[middle], chirp()[1000:-1000])[0, 1] > 0.99


@pytest.mark.parametrize("spell", [str, Path, np.str_, lambda p: p.read_bytes(), "bytearray"])
def test_path_and_bytes(spell, tmp_path):
    path = tmp_path / "no suffix that helps.raw"
    path.write_bytes(encoded(chirp(), subtype="FLOAT"))
    cell = bytearray(path.read_bytes()) if spell == "bytearray" else spell(path)
    np.testing.assert_array_equal(whole(cell), chirp())
    assert digest_audio(cell) == digest_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("array", "scale"),
    [
        (chirp(), 1),
        (chirp().astype(np.float64), 1),
        (chirp().astype(">f4"), 1),
        ((chirp() * 2**15).astype(np.int16), 2**15),
        ((chirp().astype(float) * 2**31).astype(np.int32), 2**31),
        (np.repeat(chirp(), 2)[::2], 1),
    ],
    ids=["float32", "float64", "big endian", "int16", "int32", "strided"],
)
def test_arrays(array, scale):
    np.testing.assert_allclose(whole(array, array_rate=RATE), chirp(), atol=1.01 / scale)


def test_channels_are_averaged():
    stereo = np.stack([chirp(), np.zeros_like(chirp())], axis=1)
    expected = chirp() / 2
    np.testing.assert_allclose(whole(stereo, array_rate=RATE), expected, atol=1e-7)
    np.testing.assert_allclose(whole(encoded(stereo, subtype="FLOAT")), expected, atol=1e-7)
    integers = np.full((100, 2), 32767, np.int16)  # a sum of int16 would overflow
    np.testing.assert_allclose(whole(integers, array_rate=RATE), 32767 / 32768, atol=1e-6)


def test_objects_with_array_protocol():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return chirp()

    np.testing.assert_array_equal(whole(Foreign(), array_rate=RATE), chirp())
    assert digest_audio(Foreign()) == digest_audio(chirp())


def test_the_cell_is_left_alone():
    array = chirp()
    array.setflags(write=False)
    samples = whole(array, array_rate=RATE)
    samples += 1  # memory of its own
    np.testing.assert_array_equal(array, chirp())


# ---- resampling and windows -----------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 15_999])
@pytest.mark.parametrize("piece", [37, 1_000, 1 << 20])
def test_resampled_piece_by_piece_as_at_once(rate, piece, monkeypatch):
    monkeypatch.setattr(_audio, "_PIECE", piece)
    audio = RNG.normal(size=3_001).astype(np.float32)
    expected = resample_poly(audio.astype(np.float64), RATE, rate)
    samples = whole(audio, array_rate=rate)
    assert len(samples) == len(expected)
    np.testing.assert_allclose(samples, expected, atol=2e-5)


def test_a_tone_keeps_its_pitch():
    t = np.arange(44_100) / 44_100
    samples = whole(np.sin(2 * np.pi * 1234 * t), array_rate=44_100)
    assert len(samples) == RATE
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(np.argmax(spectrum) - 1234) <= 1  # bins of one hertz
    # Frequencies beyond the new Nyquist frequency are removed, not aliased.
    high = whole(np.sin(2 * np.pi * 12_000 * t), array_rate=44_100)
    assert np.abs(high[100:-100]).max() < 1e-2


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_windows_lie_side_by_side(format, tmp_path):
    audio = 0.1 * RNG.normal(size=100_000)
    path = tmp_path / "audio"
    path.write_bytes(encoded(audio, 22_050, format))
    at_once = whole(path)
    windows = list(read_audio(path, window=0.7))
    assert {len(w) for w in windows[:-1]} == {round(0.7 * RATE)} and len(windows) == 7
    assert 0 < len(windows[-1]) < 0.7 * RATE
    np.testing.assert_array_equal(np.concatenate(windows), at_once)


def test_a_window_as_long_as_the_audio_clip():
    (samples,) = read_audio(chirp(), array_rate=RATE, window=len(chirp()) / RATE)
    np.testing.assert_array_equal(samples, chirp())


@pytest.mark.slow
def test_a_long_recording_does_not_lie_in_memory(tmp_path):
    path, rate, minutes = tmp_path / "long.wav", 8_000, 35
    with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_16") as file:
        for i in range(minutes):
            file.write(np.full(60 * rate, i / 100))
    assert path.stat().st_size > _audio._IN_MEMORY
    tracemalloc.start()
    digest, windows = load_audio(path, window=30.0)
    n, means = 0, []
    for samples in windows:
        n += len(samples)
        means.append(float(samples[RATE:-RATE].mean()))
        del samples
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n == minutes * 60 * RATE
    np.testing.assert_allclose(means, np.repeat(np.arange(minutes) / 100, 2), atol=1e-3)
    assert peak < 20e6 < 4 * n  # bytes; as float32 the whole of it would be 134 MB
    assert digest == digest_bytes(path.read_bytes()) == digest_audio(str(path))


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_audio, "_IN_MEMORY", 1000)
    path = tmp_path / "audio.wav"
    path.write_bytes(encoded(np.zeros(10 * RATE)))
    _, windows = load_audio(path, window=1.0)
    next(windows)
    path.write_bytes(encoded(np.full(10 * RATE, 0.5)))
    os.utime(path, ns=(1, 1))
    with pytest.raises(MediaDecodeError, match=r"audio\.wav.*: it changed while it was read"):
        list(windows)


# ---- digests -------------------------------------------------------------------------------


def test_digest_of_an_array_is_its_dtype_shape_and_values():
    array = np.arange(6, dtype=np.int16)
    others = [array.astype(np.int32), array.reshape(3, 2), array[::-1], array.astype(np.float32)]
    digests = [digest_audio(a) for a in [array, *others]]
    assert len(set(digests)) == 5 and {len(d) for d in digests} == {16}
    assert digest_audio(array.copy()) == digests[0]
    image = np.zeros((4, 4), np.uint8)
    assert digest_image(image) != digest_audio(image.astype(np.int16))


def test_load_is_digest_and_read():
    for cell in (chirp(), encoded(chirp())):
        digest, windows = load_audio(cell, array_rate=8_000, window=0.1)
        assert digest == digest_audio(cell)
        for mine, other in zip(
            windows, read_audio(cell, array_rate=8_000, window=0.1), strict=True
        ):
            np.testing.assert_array_equal(mine, other)


# ---- broken files --------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["WAV", "AIFF", "RF64", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_truncated_files(format, part):
    data = encoded(chirp(3 * RATE), format=format)
    assert len(whole(data)) == 3 * RATE
    with pytest.raises(MediaDecodeError, match="Cannot decode the audio in .* bytes"):
        list(read_audio(data[: int(part * len(data))]))


def test_a_truncated_wav_says_how_much_is_there(tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(encoded(chirp())[:1044])
    with pytest.raises(MediaDecodeError, match=r"cut\.wav'.*: it has 1000 of the 16000 bytes"):
        read_audio(path)


def test_a_wav_one_sample_short():
    with pytest.raises(MediaDecodeError, match="truncated"):
        read_audio(encoded(chirp())[:-2])
    np.testing.assert_array_equal(whole(encoded(chirp()) + b"junk"), whole(encoded(chirp())))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_stream_that_did_not_know_its_length(size):
    data = bytearray(encoded(chirp()))
    assert data[36:40] == b"data"
    data[40:44] = size.to_bytes(4, "little")
    np.testing.assert_array_equal(whole(data), whole(encoded(chirp())))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.zeros(0), r"in a ndarray of shape \(0,\): it has no samples"),
        (np.zeros((0, 2), np.int16), "it has no samples"),
        (encoded(np.zeros(0)), "in 44 bytes .*: it has no samples"),
        (np.array([0.1, np.nan]), "NaN, infinite"),
        (np.array([0.1, np.inf]), "NaN, infinite"),
        (np.array([1e39]), "beyond float32"),
        # The header contains the time, so the bytes cannot be the id of a test.
        pytest.param(
            encoded(np.array([0.1, np.nan]), subtype="FLOAT"), "NaN, infinite", id="float wav"
        ),
        (b"", "in 0 bytes"),
        (b"no audio at all, but long enough for a header " * 10, "begin with b'no audio'"),
        ("gone.wav", "there is no such file"),
        (".", "a directory"),
        ("https://example.org/a.wav", "URLs are not fetched"),
        ("a\0b", "cannot be a path"),
    ],
)
def test_unreadable_content(cell, message):
    with pytest.raises(MediaDecodeError, match=message):
        list(read_audio(cell, array_rate=RATE))


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_a_rate_that_nothing_has(rate):
    data = bytearray(encoded(chirp(), 8_000))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(MediaDecodeError, match=f"declares {rate} samples per second"):
        read_audio(data)


def test_an_mp3_without_a_length():
    pytest.importorskip("av", reason="an mp3 without a tag needs the extra 'video'")
    data = bytearray(encoded(chirp(3 * RATE), format="MP3"))
    at = data.find(b"Xing")
    data[at : at + 4] = b"none"
    assert abs(len(whole(data)) - 3 * RATE) < 4 * 1152  # some frames of the encoder's own
    half = whole(data[: len(data) // 2])
    assert 0.4 * 3 * RATE < len(half) < 0.6 * 3 * RATE


@pytest.mark.slow
@settings(max_examples=60)
@given(
    format=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "mp4"]),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=30),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_is_noise_or_one_error(format, places, cut):
    data = bytearray(whole_file(format))
    for place, value in places:
        data[place % min(len(data), 2_000)] = value  # where the headers are
    data = data[: len(data) if cut is None else int(cut * len(data))]
    try:
        windows = list(read_audio(bytes(data), window=0.1))
    except MediaDecodeError as error:
        assert len(str(error)) < 400
    else:
        assert windows and all(np.isfinite(w).all() and w.dtype == np.float32 for w in windows)


@lru_cache
def whole_file(format):
    if format == "mp4":
        return in_container(chirp(), "mp4", "aac")
    return encoded(chirp(), format=format)


def test_nothing_but_images():
    silent = in_container(chirp(), "mp4", None, image=True)
    with pytest.raises(MediaDecodeError, match="it has no audio"):
        read_audio(silent)


def test_a_flaw_after_the_first_window(tmp_path):
    audio = RNG.normal(size=20 * RATE) / 10
    audio[-100] = np.nan
    windows = read_audio(encoded(audio, subtype="FLOAT"), window=1.0)
    with pytest.raises(MediaDecodeError, match="NaN"):
        list(windows)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile audio.wav\n",
        "ffconcat version 1.0\nfile {path}\n",
    ],
)
def test_a_playlist_opens_no_other_file(playlist, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="needs the extra 'video'")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio.wav").write_bytes(encoded(chirp()))
    with pytest.raises(MediaDecodeError):
        list(read_audio(playlist.format(path=tmp_path / "audio.wav").encode()))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (object(), "type object"),
        (3.5, "type float"),
        (np.float32(1), "type float32"),
        ([0.1, 0.2], "type list. Convert it first"),
        ({"array": [0.1]}, "type dict"),
        (io.BytesIO(encoded(chirp())), r"an open file \(BytesIO\)"),
        (np.zeros(9, np.int64), "dtype int64, whose full scale is unknown"),
        (np.zeros(9, np.uint8), "dtype uint8"),
        (np.zeros(9, bool), "dtype bool"),
        (np.zeros(9, complex), "dtype complex128"),
        (np.array(["a"]), "dtype <U1"),
        (np.zeros(()), r"shape \(\)"),
        (np.zeros((3, 4, 5)), r"shape \(3, 4, 5\)"),
        (np.zeros((2, 16_000)), r"16000 channels. If its channels come first, use cell\.T"),
    ],
)
def test_other_kinds_are_refused(cell, message):
    with pytest.raises(CellTypeError, match=f"Cannot read audio from .*{message}"):
        read_audio(cell, array_rate=RATE)
    if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "f":
        with pytest.raises(CellTypeError):
            digest_audio(cell)


def test_an_array_needs_its_rate():
    with pytest.raises(CellTypeError, match="Set sampling_rate"):
        read_audio(chirp())


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(whole(torch.from_numpy(chirp()), array_rate=RATE), chirp())
    with pytest.raises(CellTypeError, match=r"cell\.detach"):
        read_audio(torch.zeros(9, requires_grad=True), array_rate=RATE)


def test_errors_travel_between_processes():
    with pytest.raises(MediaDecodeError) as caught:
        read_audio(b"nothing")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_without_the_packages(monkeypatch):
    from skmm.readers import _audio as _audio_file

    def absent(name, *, needed_by):
        raise MissingExtraError(f"{needed_by} needs {name}")

    m4a = in_container(chirp(), "mp4", "aac")
    monkeypatch.setattr(_audio_file, "is_installed", lambda name: name != "av")
    with pytest.raises(MediaDecodeError, match="no format that soundfile reads"):
        read_audio(b"no audio at all, and no container either")
    original = _audio_file.import_optional
    monkeypatch.setattr(
        _audio_file,
        "import_optional",
        lambda name, needed_by: (
            absent(name, needed_by=needed_by)
            if name == "av"
            else original(name, needed_by=needed_by)
        ),
    )
    with pytest.raises(MissingExtraError, match="needs av"):
        read_audio(m4a)
    monkeypatch.setattr(_audio_file, "import_optional", absent)
    with pytest.raises(MissingExtraError, match="Reading an audio file needs soundfile"):
        read_audio(encoded(chirp()))
    whole(chirp(), array_rate=RATE)  # an array needs neither
