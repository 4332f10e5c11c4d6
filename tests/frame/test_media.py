import datetime
import io
import wave
from decimal import Decimal
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skmm._frame._media import bytes_kind, cell_kind, describe, path_kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a.jpg", "image"),
        ("A.JPEG", "image"),
        ("/data/my holiday.png", "image"),
        (r"C:\photos\a.webp", "image"),
        ("a.b.c.tiff", "image"),
        ("https://example.org/a.png?width=3&x=/b.wav#top", "image"),
        ("s3://bucket/a.GIF", "image"),
        ("data:image/png;base64,AAAA", "image"),
        ("a.wav", "audio"),
        ("a.mp3", "audio"),
        ("data:audio/wav;base64,AAAA", "audio"),
        ("a.mp4", "video"),
        ("a.mkv", "video"),
        ("a.ply", "pointcloud"),
        ("a.las", "pointcloud"),
        ("a.obj", "pointcloud"),
        ("", None),
        ("a", None),
        ("a.txt", None),
        ("a.npy", None),
        ("jpg", None),
        (".jpg", None),
        ("see a.jpg for details", None),
        ("first line\na.jpg", None),
        ("https://example.xyz", None),  # a domain, not a file
        ("https://example.org/page?file=a.jpg", None),
        ("http://[broken/a.jpg", None),
        ("data:text/plain,hello", None),
        ("x" * 5000 + ".jpg", None),
    ],
)
def test_paths_by_suffix(text, kind):
    assert path_kind(text) == kind
    assert cell_kind(text) == (kind or "string")


@pytest.mark.slow
@given(st.text())
def test_any_text_is_a_path_or_a_string(text):
    assert cell_kind(text) in ("image", "audio", "video", "pointcloud", "string")


def test_path_objects():
    assert cell_kind(Path("a.png")) == cell_kind(PurePosixPath("a.png")) == "image"
    assert cell_kind(Path("a.npy")) is None


def audio():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(100))
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF"])
def test_images_by_first_bytes(format):
    Image.init()
    if format not in Image.SAVE:
        pytest.skip(f"this pillow writes no {format}")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format)
    for wrap in (bytes, bytearray, memoryview):
        assert cell_kind(wrap(buffer.getvalue())) == "image"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (audio(), "audio"),
        (b"fLaC\0\0\0\x22", "audio"),
        (b"ID3\x04\0\0", "audio"),
        (b"\xff\xfb\x90\x64", "audio"),  # mp3 without tags
        (b"\xff\xf1\x50\x80", "audio"),  # aac
        (b"OggS\0\x02" + bytes(22) + b"\x01vorbis", "audio"),
        (b"OggS\0\x02" + bytes(22) + b"\x80theora", "video"),
        (b"FORM\0\0\0\0AIFF", "audio"),
        (b"\0\0\0\x20ftypM4A ", "audio"),
        (b"\0\0\0\x20ftypisom", "video"),
        (b"\0\0\0\x14ftypqt  ", "video"),
        (b"\0\0\0\x20ftypavif", "image"),
        (b"\0\0\0\x20ftypheic", "image"),
        (b"\x1aE\xdf\xa3", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\0\0\x01\xba", "video"),
        (b"ply\nformat ascii 1.0\n", "pointcloud"),
        (b"# .PCD v0.7", "pointcloud"),
        (b"LASF\0\0", "pointcloud"),
        (b"", None),
        (b"hello, world", None),
        ("text".encode("utf-16"), None),
        (b"%PDF-1.7", None),
        (b"PK\x03\x04", None),
        (bytes(80), None),
    ],
)
def test_media_by_first_bytes(head, kind):
    assert bytes_kind(head[:80]) == kind
    assert cell_kind(head + bytes(1000)) == kind


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((8, 9), "uint8", "image"),
        ((8, 9), "uint16", "image"),
        ((8, 9), "bool", "image"),
        ((8, 9, 1), "uint8", "image"),
        ((8, 9, 3), "uint8", "image"),
        ((8, 9, 4), "uint8", "image"),
        ((3, 8, 9), "uint8", "image"),
        ((8, 9, 3), "float32", "image"),
        ((8, 9), "float32", "2-D array"),
        ((8, 9), "int64", "2-D array"),
        ((8,), "float32", "1-D array"),
        ((8,), "uint8", "1-D array"),
        ((2, 8, 9, 3), "uint8", "video"),
        ((2, 3, 8, 9), "float32", "video"),
        ((5, 8, 9), "uint8", None),
        ((2, 2, 2, 2, 2), "uint8", None),
        ((), "float32", None),
        ((8,), "complex64", None),
        ((8,), "U3", None),
        ((8,), "object", None),
        ((8,), "M8[s]", None),
    ],
)
def test_arrays_by_shape_and_dtype(shape, dtype, kind):
    array = np.empty(shape, dtype)
    assert cell_kind(array) == kind
    if dtype in ("uint8", "float32") and shape:
        torch = pytest.importorskip("torch")
        assert cell_kind(torch.from_numpy(array)) == kind


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ([0.1, 0.2], "1-D array"),
        ((1, 2), "1-D array"),
        ([[1, 2], [3, 4]], "2-D array"),
        ([[1, 2], [3]], None),
        (["a", "b"], None),
        ([{}], None),
    ],
)
def test_lists_are_like_arrays(cell, kind):
    assert cell_kind(cell) == kind


@pytest.mark.parametrize(
    "cell",
    [
        1,
        1.5,
        True,
        np.int8(1),
        np.float32(1),
        np.bool_(True),
        Decimal(1),
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1),
        datetime.time(1),
        datetime.timedelta(1),
        np.datetime64("2020"),
        np.timedelta64(1, "s"),
        pd.Timestamp("2020"),
        pd.Timedelta(1),
    ],
    ids=lambda c: type(c).__name__,
)
def test_scalars_are_tabular(cell):
    assert cell_kind(cell) == "tabular"


def test_pil_images():
    assert cell_kind(Image.new("F", (1, 1))) == "image"


@pytest.mark.parametrize(
    ("cell", "spelled"),
    [
        ({}, "dict"),
        (object(), "object"),
        (Path("a/b.npy"), "a path with the suffix '.npy', which is not of a known medium"),
        (b"%PDF-1.7 long", "bytes that begin with b'%PDF-1.7', which is no known format"),
        (np.zeros((5, 6, 7), "u1"), "ndarray of shape (5, 6, 7) and dtype uint8"),
        ([[1, 2], [3]], "list of shape (2,) and dtype object"),
    ],
)
def test_description_of_other_cells(cell, spelled):
    assert cell_kind(cell) is None
    assert describe(cell) == spelled


def object_array(*cells):
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (["a.jpg", "b.png"], "image"),
        (("a.jpg",), "image"),
        ([Path("a.jpg"), Image.new("L", (2, 2)), np.zeros((4, 5), "u1")], "image"),
        ([np.zeros((4, 5, 3), "u1"), np.zeros((4, 5, 3), "u1")], "image"),
        (object_array("a.jpg", "b.jpg"), "image"),
        # Nested numbers are one array, and only images can be listed.
        ([[0, 1], [2, 3]], "2-D array"),
        ([[[0, 1, 2]], [[0, 1, 2]]], "image"),
        ([np.zeros((4, 5)), np.zeros((4, 5))], None),
        (["a.jpg", "b.wav"], None),
        (["a word"], None),
        ([], "1-D array"),
    ],
)
def test_lists_of_images(cell, kind):
    assert cell_kind(cell) == kind
