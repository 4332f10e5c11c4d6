from pathlib import Path

import numpy as np
import pytest

from skmm.datasets import _render
from skmm.datasets._render import cached_arrays, data_folder, find_font, is_rendering, rendering_key


class Maker:
    """Compute arrays and count the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"numbers": np.arange(1000), "more": np.ones((3, 2), dtype=np.float32)}


def _is_valid(arrays):
    return set(arrays) == {"numbers", "more"} and arrays["numbers"].shape == (1000,)


@pytest.fixture
def make():
    return Maker()


def _load(path, make):
    return cached_arrays(path, make, _is_valid, needed_by="test")


def test_arrays_are_computed_once_and_then_read(tmp_path, make):
    path = tmp_path / "deep" / "file.npz"
    for _ in range(3):
        arrays = _load(path, make)
        np.testing.assert_array_equal(arrays["numbers"], np.arange(1000))
        arrays["numbers"][:] = 0  # must not change the next result
    assert make.calls == 1
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[content.find(b"numbers.npy") + 60] ^= 0xFF
    path.write_bytes(bytes(content))


def _objects(path):
    np.savez(path, numbers=np.array([{}], dtype=object), more=np.ones(1))


def _other_shape(path):
    np.savez(path, numbers=np.arange(10), more=np.ones((3, 2)))


def _plain_array(path):
    with path.open("wb") as file:
        np.save(file, np.arange(1000))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive" * 50),
        _truncate,
        _flip,
        _objects,
        _other_shape,
        _plain_array,
    ],
    ids=["empty", "garbage", "truncated", "flipped bit", "pickled", "other shape", "npy"],
)
def test_damaged_file_is_written_again(tmp_path, make, damage):
    path = tmp_path / "file.npz"
    _load(path, make)
    damage(path)
    np.testing.assert_array_equal(_load(path, make)["numbers"], np.arange(1000))
    assert make.calls == 2
    _load(path, make)
    assert make.calls == 2  # the file is valid again


def test_flipped_bits_are_detected(tmp_path, make):
    path = tmp_path / "file.npz"
    _load(path, make)
    good = path.read_bytes()
    for position in range(0, len(good), 37):
        content = bytearray(good)
        content[position] ^= 0x10
        path.write_bytes(bytes(content))
        arrays = _load(path, make)
        np.testing.assert_array_equal(arrays["numbers"], np.arange(1000))
        np.testing.assert_array_equal(arrays["more"], np.ones((3, 2)))


def test_failed_write_leaves_no_file(tmp_path, make, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.warns(
        UserWarning, match="test cannot keep its images .* disk full. Pass data_home="
    ):
        arrays = _load(tmp_path / "file.npz", make)
    np.testing.assert_array_equal(arrays["numbers"], np.arange(1000))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file_warns(tmp_path, make):
    (tmp_path / "taken").write_text("a file")
    with pytest.warns(UserWarning, match="SKMM_DATA_HOME"):
        _load(tmp_path / "taken" / "file.npz", make)


def test_folder_is_given_by_argument_variable_or_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("SKMM_DATA_HOME", str(tmp_path / "variable"))
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert data_folder("~/here") == Path.home() / "here"
    assert data_folder() == tmp_path / "variable"
    monkeypatch.delenv("SKMM_DATA_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert data_folder() == Path.home() / ".cache" / "skmm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data_folder() == tmp_path / "xdg" / "skmm"
    monkeypatch.setattr("sys.platform", "darwin")
    assert data_folder() == Path.home() / "Library" / "Caches" / "skmm"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert data_folder() == tmp_path / "local" / "skmm"


def test_key_depends_on_font_size_and_version(tmp_path, monkeypatch):
    font = find_font("test")
    key = rendering_key(font, 16, needed_by="test")
    assert key == rendering_key(font, 16, needed_by="test")
    other_font = tmp_path / "other.ttf"
    other_font.write_bytes(font.read_bytes() + b"x")
    others = {
        rendering_key(font, 17, needed_by="test"),
        rendering_key(other_font, 16, needed_by="test"),
    }
    monkeypatch.setattr(_render, "VERSION", _render.VERSION + 1)
    others.add(rendering_key(font, 16, needed_by="test"))
    assert len(others | {key}) == 4


def test_is_rendering_checks_names_shapes_and_dtypes():
    good = {
        "code_points": np.zeros(3, dtype=np.int32),
        "images": np.zeros((3, 8, 8), dtype=np.uint8),
        "measures": np.zeros((3, len(_render.MEASURES)), dtype=np.float32),
        "shapes": np.zeros(3, dtype=np.int32),
    }
    assert is_rendering(good, 8)
    assert not is_rendering(good, 9)
    assert not is_rendering({**good, "images": good["images"][:2]}, 8)
    assert not is_rendering({**good, "measures": good["measures"].astype(np.float64)}, 8)
    assert not is_rendering({name: good[name] for name in ("code_points", "images")}, 8)
    assert not is_rendering({name: value[:0] for name, value in good.items()}, 8)
