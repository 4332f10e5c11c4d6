"""Lists of images: distinguished from single images, digested, decoded one by one."""

import numpy as np
import pytest
from PIL import Image

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import read_image
from skmm.readers._image import digest_image, digest_image_list, is_image_list, load_image_list

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
        # Numbers in lists are one image that was not converted to an array.
        ([[0, 1], [2, 3]], False),
        ([0.5, 0.5], False),
        ({"a": 1}, False),
        (3, False),
    ],
)
def test_is_image_list(cell, several):
    assert is_image_list(cell) is several


def test_they_are_read_as_single_ones_are(tmp_path):
    first, second, third = photos(3)
    path = tmp_path / "photo.png"
    Image.fromarray(second).save(path)
    cells = [first, path, Image.fromarray(third)]
    for cell in (cells, tuple(cells), object_array(cells)):
        digest, images = load_image_list(cell)
        assert digest == digest_image_list(cell) and len(images) == 3
        for _ in range(2):  # any number of times
            for image, expected in zip(images, cells, strict=True):
                np.testing.assert_array_equal(image, read_image(expected))
        assert [image.shape[0] for image in images[[2, 0]]] == [7, 5]


def test_the_digest_is_of_the_contents_in_their_order():
    a, b, c = photos(3)
    lists = [[a], [b], [a, b], [b, a], [a, b, c], [a, a]]
    digests = {digest_image_list(cell) for cell in lists} | {digest_image(a), digest_image(b)}
    assert len(digests) == len(lists) + 2
    assert digest_image_list([a, b]) == digest_image_list((a.copy(), b.copy()))


def test_draft(tmp_path):
    path = tmp_path / "large.jpg"
    Image.fromarray(RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    digest, images = load_image_list([path], draft=8)
    (image,) = images
    np.testing.assert_array_equal(image, read_image(path, draft=8))
    assert image.shape == (8, 12, 3) and digest == digest_image_list([path])


def test_none_is_decoded_before_its_turn(tmp_path):
    good, bad = photos(1)[0], tmp_path / "bad.png"
    bad.write_bytes(b"garbage")
    images = iter(load_image_list([good, bad])[1])
    np.testing.assert_array_equal(next(images), good)
    with pytest.raises(MediaDecodeError, match="Image 2 of 2: Cannot decode"):
        next(images)


def test_a_file_that_changes(tmp_path):
    path = tmp_path / "photo.png"
    first, second = photos(2)
    Image.fromarray(first).save(path)
    images = load_image_list([path])[1]
    Image.fromarray(second).save(path)
    with pytest.raises(MediaDecodeError, match="Image 1 of 1 changed while it was read"):
        list(images)


@pytest.mark.parametrize("verb", [digest_image_list, load_image_list])
@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        ([], MediaDecodeError, "an empty list. Put None into a cell"),
        (["none.png"], MediaDecodeError, "Image 1 of 1: .*no such file"),
        ([np.zeros((2, 2), np.uint8), None], CellTypeError, "Image 2 of 2 is missing"),
        ([np.zeros((2, 2), np.uint8), float("nan")], CellTypeError, "Image 2 of 2 is missing"),
        ([np.zeros((2, 2), np.uint8), {}], CellTypeError, "Image 2 of 2: .*type dict"),
    ],
)
def test_bad_lists(verb, cell, error, message):
    with pytest.raises(error, match=message):
        verb(cell)


@pytest.mark.parametrize("array", [np.full((2, 2), 7.0), np.zeros((4, 5, 6, 7), np.uint8)])
def test_arrays_that_are_no_image_are_refused_at_once(array):
    """They are refused before decoding, where row and column are known."""
    with pytest.raises(CellTypeError, match="Image 1 of 1: Cannot read an image"):
        load_image_list([array])
