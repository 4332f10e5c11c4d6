"""Target images: read, checked, resized."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from skmm._frame._column import Column, to_column
from skmm._training._batches import Target
from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.nets._autoencoder import GivenLoss
from skmm.readers import read_image
from skmm.readers._source import with_position

__all__ = ["ImageTarget", "TargetImages", "images_of_rows", "to_user_images"]

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as pillow has it


class ImageTarget(Target):
    """Images as a target; the network reads them itself and returns the loss of each row.

    Encoded images are pixels, (n_images, n_colors, image_size, image_size) uint8.
    """

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return zeros, one per image, which the loss does not use."""
        return torch.zeros(len(encoded))

    def criterion(self) -> nn.Module:
        """Return the loss of each image."""
        return GivenLoss()


class TargetImages(NamedTuple):
    """Images of the same size.

    Attributes
    ----------
    pixels : ndarray of shape (n_known, n_colors, image_size, image_size), uint8
        Pixels for the networks. The colors of ``"RGBA"`` are those over a black background.
    known : ndarray of shape (n_rows,), bool
        Which rows have an image.
    mode : {"L", "RGB", "RGBA"}
        Meaning of the channels.
    """

    pixels: np.ndarray
    known: np.ndarray
    mode: str


def images_of_rows(y: Any, n_rows: int, owner: str, *, image_size: int, mode: str) -> TargetImages:
    """Read the images of a target.

    Parameters
    ----------
    y : array-like of shape (n_samples,), or (n_samples, height, width) and with channels
        Cells as ``ImageEncoder`` takes them; missing ones are left out.
    n_rows : int
        Number of rows of ``X``.
    owner : str
        Name of the caller, for messages.
    image_size : int
        Height and width to which the images are resized; the aspect ratio is not kept.
    mode : {"auto", "L", "RGB", "RGBA"}
        Mode to convert the images to.

    Returns
    -------
    images : TargetImages
        May be empty.
    """
    column = _column(y, n_rows, owner)
    known = ~column.missing
    over_white = np.empty((int(known.sum()), image_size, image_size, 3), dtype=np.uint8)
    # Opacity is the difference of an image over two backgrounds.
    over_black = np.empty_like(over_white) if mode in ("auto", "RGBA") else None
    for place, row in enumerate(np.flatnonzero(known)):
        cell = column.values[row]
        try:
            over_white[place] = _resized(read_image(cell, background=_WHITE), image_size)
            if over_black is not None:
                over_black[place] = _resized(read_image(cell, background=_BLACK), image_size)
        except (CellTypeError, MediaDecodeError) as error:
            located = with_position(error, column="y", row=column.labels[row])
            raise located from error
    if mode == "auto":
        mode = _mode_of(over_white, over_black)
    return TargetImages(_channels_first(over_white, over_black, mode), known, mode)


def _column(y: Any, n_rows: int, owner: str) -> Column:
    wanted = "Give an image for each row, None where there is none."
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None. {wanted}")
    if isinstance(y, str | bytes | dict) or not hasattr(y, "__len__") or _is_scalar(y):
        raise TypeError(
            f"{owner}: y must hold an image for each row, got {type(y).__name__}. {wanted}"
        )
    if hasattr(y, "columns"):
        if y.shape[1] != 1:
            raise ValueError(
                f"{owner}: y must be one column of images, got a frame of {y.shape[1]}. {wanted}"
            )
        y = y[y.columns[0]]
    column = to_column("y", y)
    if len(column.values) != n_rows:
        raise ValueError(f"{owner}: X has {n_rows} rows and y has {len(column.values)}. {wanted}")
    return column


def _is_scalar(y: object) -> bool:
    return getattr(y, "ndim", 1) == 0


def _resized(image: np.ndarray, image_size: int) -> np.ndarray:
    """Resize an image by bicubic interpolation with antialiasing, without its aspect ratio."""
    if image.shape[:2] == (image_size, image_size):
        return image
    maps = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    size = (image_size, image_size)
    maps = interpolate(maps, size, mode="bicubic", antialias=True, align_corners=False)
    return maps[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _mode_of(over_white: np.ndarray, over_black: np.ndarray | None) -> str:
    if over_black is not None and not np.array_equal(over_white, over_black):
        return "RGBA"
    gray = (over_white == over_white[..., :1]).all()
    return "L" if gray else "RGB"


def _channels_first(over_white: np.ndarray, over_black: np.ndarray | None, mode: str) -> np.ndarray:
    pixels: np.ndarray
    if mode == "L":
        pixels = np.rint(over_white @ _LUMA).astype(np.uint8)[..., None]
    elif mode == "RGB" or over_black is None:
        pixels = over_white
    else:
        # The difference is how transparent a pixel is; take the largest of three roundings.
        clear = (over_white.astype(np.int16) - over_black).max(axis=3, keepdims=True)
        alpha = (255 - np.clip(clear, 0, 255)).astype(np.uint8)
        pixels = np.concatenate([over_black, alpha], axis=3)
    return np.ascontiguousarray(np.moveaxis(pixels, 3, 1))


def to_user_images(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Convert pixels of the networks to images as users have them.

    Parameters
    ----------
    pixels : ndarray of shape (n, n_colors, height, width), uint8
        As in :class:`TargetImages`.
    mode : {"L", "RGB", "RGBA"}
        Meaning of the channels.

    Returns
    -------
    images : ndarray of shape (n, height, width), or (n, height, width, 3 or 4), uint8
        The colors of ``"RGBA"`` are independent of the background.
    """
    if mode == "L":
        return pixels[:, 0]
    images = np.ascontiguousarray(np.moveaxis(pixels, 1, 3))
    if mode == "RGBA":
        alpha = images[..., 3:].astype(np.float32)
        colors = images[..., :3] * (255 / np.maximum(alpha, 1))
        images[..., :3] = np.clip(np.rint(colors), 0, 255)
    return images
