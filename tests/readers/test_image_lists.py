"""Lists of pictures: told from single ones, named by their content, decoded one by one."""

import numpy as np
import pytest
from PIL import Image

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import (
    digest_image,
    digest_pictures,
    is_pictures,
    load_pictures,
    read_image,
)

RNG = np.random.default_rng(0)


def photos(n):
    return [RNG.integers(0, 256, (5 + i, 7, 3), dtype=np.uint8) for i in range(n)]


def object_array(cells):
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


@pytest.mark.parametrize(
    ("cell", "several"),
    [
        ([], True),
        ((), True),
        (["a.jpg"], True),
        (("a.jpg", b"\xff\xd8\xff"), True),
        ([np.zeros((2, 2), np.uint8)], True),
        (object_array(["a.jpg"]), True),
        ("a.jpg", False),
        (b"\xff\xd8\xff", False),
        (np.zeros((2, 2), np.uint8), False),
        (Image.new("L", (2, 2)), False),
        # Numbers in lists are one picture that somebody forgot to make an array.
        ([[0, 1], [2, 3]], False),
        ([0.5, 0.5], False),
        ({"a": 1}, False),
        (3, False),
    ],
)
def test_what_is_a_list_of_pictures(cell, several):
    assert is_pictures(cell) is several


def test_they_are_read_as_single_ones_are(tmp_path):
    first, second, third = photos(3)
    path = tmp_path / "photo.png"
    Image.fromarray(second).save(path)
    cells = [first, path, Image.fromarray(third)]
    for cell in (cells, tuple(cells), object_array(cells)):
        digest, pictures = load_pictures(cell)
        assert digest == digest_pictures(cell) and len(pictures) == 3
        for _ in range(2):  # any number of times
            for picture, expected in zip(pictures, cells, strict=True):
                np.testing.assert_array_equal(picture, read_image(expected))
        assert [picture.shape[0] for picture in pictures[[2, 0]]] == [7, 5]


def test_the_digest_is_of_the_contents_in_their_order():
    a, b, c = photos(3)
    lists = [[a], [b], [a, b], [b, a], [a, b, c], [a, a]]
    digests = {digest_pictures(cell) for cell in lists} | {digest_image(a), digest_image(b)}
    assert len(digests) == len(lists) + 2
    assert digest_pictures([a, b]) == digest_pictures((a.copy(), b.copy()))


def test_draft(tmp_path):
    path = tmp_path / "large.jpg"
    Image.fromarray(RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    digest, pictures = load_pictures([path], draft=8)
    (picture,) = pictures
    np.testing.assert_array_equal(picture, read_image(path, draft=8))
    assert picture.shape == (8, 12, 3) and digest == digest_pictures([path])


def test_none_is_decoded_before_its_turn(tmp_path):
    good, bad = photos(1)[0], tmp_path / "bad.png"
    bad.write_bytes(b"garbage")
    pictures = iter(load_pictures([good, bad])[1])
    np.testing.assert_array_equal(next(pictures), good)
    with pytest.raises(MediaDecodeError, match="Picture 2 of 2: Cannot decode"):
        next(pictures)


def test_a_file_that_changes(tmp_path):
    path = tmp_path / "photo.png"
    first, second = photos(2)
    Image.fromarray(first).save(path)
    pictures = load_pictures([path])[1]
    Image.fromarray(second).save(path)
    with pytest.raises(MediaDecodeError, match="Picture 1 of 1 changed while being read"):
        list(pictures)


@pytest.mark.parametrize("verb", [digest_pictures, load_pictures])
@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        ([], MediaDecodeError, "an empty list. Put None into the cell"),
        (["none.png"], MediaDecodeError, "Picture 1 of 1: .*no such file"),
        ([np.zeros((2, 2), np.uint8), None], CellTypeError, "Picture 2 of 2 is missing"),
        ([np.zeros((2, 2), np.uint8), float("nan")], CellTypeError, "Picture 2 of 2 is missing"),
        ([np.zeros((2, 2), np.uint8), {}], CellTypeError, "Picture 2 of 2: .*type dict"),
    ],
)
def test_bad_lists(verb, cell, error, message):
    with pytest.raises(error, match=message):
        verb(cell)


@pytest.mark.parametrize("array", [np.full((2, 2), 7.0), np.zeros((4, 5, 6, 7), np.uint8)])
def test_arrays_that_are_no_picture_are_told_at_once(array):
    """Not in the middle of a batch, where nobody knows the cell any more."""
    with pytest.raises(CellTypeError, match="Picture 1 of 1: Cannot read a picture"):
        load_pictures([array])
