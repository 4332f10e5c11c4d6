"""Every file of a collection of formats is read or refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from skmm.exceptions import MediaDecodeError
from skmm.readers import read_audio, read_image, read_video

pytestmark = pytest.mark.data

# FFmpeg 7.1 and 8.1 cannot decode a quarter of the packets of this Theora stream ("error in
# unpack_block_qpis").
REFUSED = {"video/demo.ogg", "video/demo.ogv"}
# Videos of `make test-fast`; the others take seconds each.
FAST = {"demo.gif", "demo.mp4", "demo.ogv"}


def samples(kind, *, all_fast=True):
    spec = importlib.util.find_spec("iscc_samples")
    if spec is None or spec.origin is None:
        missing = pytest.mark.skip(reason="the package iscc-samples (0.6.0) is not installed")
        return [pytest.param(None, marks=missing, id="none")]
    folder = Path(spec.origin).parent / "files" / kind
    return [
        pytest.param(
            path, id=path.name, marks=() if all_fast or path.name in FAST else pytest.mark.slow
        )
        for path in sorted(folder.iterdir())
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", samples("video", all_fast=False))
def test_video(path):
    pytest.importorskip("av", reason="video files need the extra 'video'")
    if f"video/{path.name}" in REFUSED:
        with pytest.raises(MediaDecodeError, match="damaged"):
            list(read_video(path))
        return
    frames = [*read_video(path)]
    assert len(frames) == 8 and len({frame.shape for frame in frames}) == 1
    assert min(frame.std() for frame in frames[2:]) > 5  # after the titles
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert min(apart) > 1  # the frames differ
    assert len([*read_video(path, sampling="keyframes")]) >= 1
    at_rate = [*read_video(path, sampling="rate", frame_rate=0.2)]
    seconds = 5 if path.suffix == ".gif" else 60
    assert len(at_rate) in (seconds // 5, seconds // 5 + 1)


@pytest.mark.parametrize("path", samples("image"))
def test_image(path):
    assert read_image(path).shape == (133, 200, 3)
    (frame,) = [*read_video(path)] if importlib.util.find_spec("av") else [read_image(path)]
    assert frame.shape == (133, 200, 3)


@pytest.mark.slow
@pytest.mark.parametrize("path", samples("audio"))
def test_audio(path):
    pytest.importorskip("soundfile", reason="audio files need the extra 'audio'")
    pytest.importorskip("av", reason="formats that soundfile does not read need the extra 'video'")
    windows = list(read_audio(path, window=10.0))
    (whole,) = read_audio(path.read_bytes())
    np.testing.assert_array_equal(np.concatenate(windows), whole)
    assert len(whole) > 16_000 and 0.01 < np.abs(whole).max() < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("path", samples("video"))
def test_audio_of_a_video(path):
    pytest.importorskip("av", reason="the audio track of a video needs the extra 'video'")
    try:
        windows = list(read_audio(path, window=10.0))
    except MediaDecodeError as error:
        assert "no audio" in str(error)
        return
    assert sum(map(len, windows)) > 16_000


@pytest.mark.parametrize("path", [*samples("audio"), *samples("text")])
def test_files_without_video_are_refused(path):
    pytest.importorskip("av", reason="video files need the extra 'video'")
    with pytest.raises(MediaDecodeError, match="no video stream|no format"):
        read_video(path)
