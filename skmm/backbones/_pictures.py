"""Pictures of any size to one size: stacked in a tensor, or one after the other."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["resized", "stack_pictures"]


def stack_pictures(
    cells: Sequence[np.ndarray], image_size: int, *, crop: float | None = None
) -> Tensor:
    """Resize pictures to squares, bicubic with antialiasing, and stack them.

    Parameters
    ----------
    cells : sequence of ndarray of shape (height, width, 3), uint8
        Pictures of any size.
    image_size : int
        Side of the result in pixels.
    crop : float or None, default=None
        Side of the central square that is kept, as a share of the shorter side, in (0, 1];
        None keeps the whole picture and changes its proportions.

    Returns
    -------
    pictures : Tensor of shape (n_cells, 3, image_size, image_size), uint8
        On the CPU.
    """
    stacked = np.empty((len(cells), image_size, image_size, 3), dtype=np.uint8)
    for i, cell in enumerate(cells):
        height, width = cell.shape[:2]
        if cell.shape == stacked.shape[1:] and crop in (None, 1.0):
            stacked[i] = cell  # glyphs and thumbnails: nothing to resample
            continue
        box = None
        if crop is not None:
            side = crop * min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        picture = Image.fromarray(np.ascontiguousarray(cell))
        size = (image_size, image_size)
        stacked[i] = np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box=box))
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def resized(pictures: Iterable[np.ndarray], image_size: int) -> list[np.ndarray]:
    """Resize pictures as ``stack_pictures`` does, each of them before the next is asked for.

    Parameters
    ----------
    pictures : iterable of ndarray of shape (height, width, 3), uint8
        Frames of a video, say, that are too large to be held together.
    image_size : int
        Side of the results in pixels.

    Returns
    -------
    small : list of ndarray of shape (image_size, image_size, 3), uint8
        They go through ``stack_pictures`` unchanged.
    """
    return [
        stack_pictures([picture], image_size)[0].permute(1, 2, 0).contiguous().numpy()
        for picture in pictures
    ]
