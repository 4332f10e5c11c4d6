import builtins
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import _source
from skmm.readers._source import (
    digest_bytes,
    digest_file,
    hasher,
    is_source,
    open_file,
    shorten,
    source_bytes,
    with_position,
)

DATA = b"\x89PNG and more"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("spell", [str, Path, np.str_, os.fsencode], ids=lambda f: f.__name__)
def test_a_path_in_any_spelling_is_read(file, spell):
    cell = spell(file)
    if spell is os.fsencode:
        # bytes are content, never a path: the two could not be distinguished.
        assert source_bytes(cell) == cell
    else:
        assert source_bytes(cell) == DATA


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview], ids=lambda f: f.__name__)
def test_bytes_in_any_form_are_content(wrap):
    data = source_bytes(wrap(DATA))
    assert data == DATA
    assert type(data) is bytes


def test_a_strided_memoryview_is_read_in_its_order():
    assert source_bytes(memoryview(b"a.b.c.")[::2]) == b"abc"


def test_no_file_stays_open(file, monkeypatch):
    opened = []
    real = builtins.open

    def spy(*args, **kwargs):
        opened.append(real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(builtins, "open", spy)
    source_bytes(file)
    assert len(opened) == 1
    assert opened[0].closed


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.png",
        "https://example.org/a.png",
        "s3://bucket/a.png",
        "file:///a.png",
        "data:image/png;base64,AAAA",
    ],
)
def test_urls_are_refused_and_not_fetched(url, monkeypatch):
    def no_network(*args):
        raise AssertionError("a reader opened a socket")

    monkeypatch.setattr("socket.socket.connect", no_network)
    with pytest.raises(MediaDecodeError, match="URLs are not fetched. Download"):
        source_bytes(url, kind="image")


def test_a_windows_drive_is_no_url():
    with pytest.raises(MediaDecodeError, match="no such file"):
        source_bytes(r"C:\photos\a.png")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("nowhere.png", "'nowhere.png': there is no such file"),
        (Path("nowhere.png"), "'nowhere.png': there is no such file"),
        (np.str_("nowhere.png"), "'nowhere.png': there is no such file"),
        ("", "'': there is no such file"),
        ("~", "no such file"),  # the home folder is not looked up
        ("a\0b.png", "cannot be a path"),
        ("x" * 5000, "[Nn]ame too long"),
    ],
)
def test_paths_without_a_file_are_refused(cell, message):
    with pytest.raises(MediaDecodeError, match=message) as caught:
        source_bytes(cell)
    assert len(str(caught.value)) < 300


def test_a_directory_is_said(tmp_path):
    with pytest.raises(MediaDecodeError, match="it is a directory"):
        source_bytes(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(10)
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaDecodeError, match="not a regular file"):
        source_bytes(tmp_path / "pipe")


def test_an_unreadable_file_is_said(file, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(MediaDecodeError, match="Permission denied"):
        source_bytes(file)


def test_open_files_are_refused(file):
    with open(file, "rb") as handle, pytest.raises(CellTypeError, match="BufferedReader"):
        source_bytes(handle)
    with pytest.raises(CellTypeError, match="BytesIO.*path or its bytes"):
        source_bytes(io.BytesIO(DATA))


@pytest.mark.parametrize("cell", [None, 3, {"path": "a.png"}, ["a.png"], object()])
def test_other_cells_are_refused_by_type(cell):
    assert not is_source(cell)
    with pytest.raises(CellTypeError, match=f"audio from a cell of type {type(cell).__name__}"):
        source_bytes(cell, kind="audio")


def test_domains_do_not_meet():
    digests = {digest_bytes(DATA)}
    for domain in ("text", "pil", "array"):
        h = hasher(domain)
        h.update(DATA)
        digests.add(h.digest())
    assert len(digests) == 4
    assert {len(d) for d in digests} == {16}


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_digest_is_equal_where_bytes_are(a, b):
    assert (digest_bytes(a) == digest_bytes(b)) == (a == b)


def test_shorten_keeps_both_ends():
    spelled = shorten("/data/" + "x" * 500 + "/cat.png")
    assert len(spelled) < 130
    assert spelled.startswith("'/data/")
    assert spelled.endswith("/cat.png'")


def test_position_is_added_and_survives_a_pickle():
    error = with_position(MediaDecodeError("Broken."), column="photo", row=np.int64(7))
    assert str(error) == "Column 'photo', row 7: Broken."
    error = pickle.loads(pickle.dumps(error))
    assert isinstance(error, MediaDecodeError)
    assert (error.column, error.row) == ("photo", 7)


def test_position_without_a_column_name():
    assert str(with_position(MediaDecodeError("Broken."), column=None, row="b")) == (
        "Row 'b': Broken."
    )


def test_position_keeps_the_class():
    error = with_position(CellTypeError("Broken."), column="photo", row=7)
    assert type(error) is CellTypeError
    assert str(error) == "Column 'photo', row 7: Broken."


def test_a_file_in_pieces_has_the_digest_of_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(_source, "_PIECE", 7)
    path = tmp_path / "file"
    for n in (0, 1, 7, 8, 100):
        path.write_bytes(bytes(range(n)))
        with open_file(path) as file:
            assert digest_file(file) == digest_bytes(bytes(range(n)))


def test_files_that_cannot_be_opened(tmp_path):
    for path, reason in {
        tmp_path: "it is a directory",
        tmp_path / "none": "there is no such file",
        "https://example.org/a": "URLs are not fetched",
        "a\0b": "this cannot be a path",
    }.items():
        with pytest.raises(MediaDecodeError, match=f"Cannot read a film from .*{reason}"):
            open_file(path, kind="film")
