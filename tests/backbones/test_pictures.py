"""Resizing and cropping, against Pillow on its own and against known pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from skmm.backbones._image_cnn import stack_pictures


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in [(40, 60, 3), (16, 16, 3)]]


def test_against_pillow(cells):
    stacked = stack_pictures(cells, 20)
    assert stacked.shape == (2, 3, 20, 20)
    assert stacked.dtype == torch.uint8
    for i, cell in enumerate(cells):
        expected = Image.fromarray(cell).resize((20, 20), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(stacked[i].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_crop_against_pillow(cells):
    for i, cell in enumerate(cells):
        height, width = cell.shape[:2]
        side = min(height, width) // 2  # even in every direction here: whole pixels
        left, top = (width - side) // 2, (height - side) // 2
        cropped = Image.fromarray(cell[top : top + side, left : left + side])
        # Pillow may look at pixels outside its box, so only the middle has to agree.
        expected = np.asarray(cropped.resize((32, 32), Image.Resampling.BICUBIC))
        got = stack_pictures(cells, 32, crop=0.5)[i].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(got[8:-8, 8:-8], expected[8:-8, 8:-8])


def test_picture_of_the_right_size_is_untouched(cells):
    for crop in (None, 1.0):
        stacked = stack_pictures([cells[1]], 16, crop=crop)
        np.testing.assert_array_equal(stacked[0].permute(1, 2, 0).numpy(), cells[1])
    assert not torch.equal(stack_pictures([cells[1]], 16, crop=0.5), stacked)


def test_cells_are_never_changed_and_may_be_views(cells):
    before = [cell.copy() for cell in cells]
    cells[0].flags.writeable = False
    stacked = stack_pictures([cells[0], cells[0][::-1]], 40)
    stacked.zero_()
    for cell, copy in zip(cells, before, strict=True):
        np.testing.assert_array_equal(cell, copy)


def test_nothing():
    assert stack_pictures([], 5).shape == (0, 3, 5, 5)
