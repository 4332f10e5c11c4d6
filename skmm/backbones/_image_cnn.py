"""A small residual network for images, trained from scratch, and the resizing of images."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded

__all__ = ["ImageCNN", "resized", "stack_images"]

_N_STAGES = 4
_TARGET_SIZE = 8  # height and width in pixels of the reconstruction target


class ImageCNN(Backbone):
    """Small residual network for images, trained from scratch.

    A residual network [1]_ of four stages. Each stage doubles the channels, and each but the
    first halves the resolution. Group normalization [2]_ replaces batch normalization, so that
    the features of an image do not depend on its batch and a batch may have one image. Weights
    are sampled from torch's global generator.

    Parameters
    ----------
    n_components : int, default=128
        Length of the tokens and of the pooled vector.
    image_size : int, default=64
        Height and width in pixels to which images are resized; their aspect ratio changes.
    n_blocks : int, default=1
        Number of residual blocks per stage, of two convolutions each.
    dropout : float, default=0.0
        Dropout rate of the channels before the last stage, in [0, 1].

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the positions of the last feature map, row by row, 16 for
        images of 64 pixels; the pooled vector is their mean.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    .. [2] Wu, He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._image_cnn import ImageCNN
    >>> model = ImageCNN(32)
    >>> images = [np.zeros((48, 60, 3), dtype=np.uint8), np.ones((9, 9, 3), dtype=np.uint8)]
    >>> encoded = model(**model.collate(images))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 16, 32]), torch.Size([2, 32]))
    """

    separable = True

    def __init__(
        self,
        n_components: int = 128,
        *,
        image_size: int = 64,
        n_blocks: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        if n_components < 1 or image_size < 1 or n_blocks < 1:
            raise ValueError(
                f"{type(self).__name__}: n_components, image_size and n_blocks must be positive,"
                f" got {n_components}, {image_size} and {n_blocks}."
            )
        self.width = n_components
        self.image_size = image_size
        # An eighth, a quarter, a half, all of n_components; the first ones in steps of 8.
        channels = [
            8 * max(1, round(n_components / 2**k / 8)) for k in range(_N_STAGES - 1, 0, -1)
        ] + [n_components]
        self.stem = nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)
        self.stem_norm = _group_norm(channels[0])
        blocks: list[nn.Module] = []
        n_in = channels[0]
        for stage, n_out in enumerate(channels):
            if stage == _N_STAGES - 1:
                blocks.append(nn.Dropout2d(dropout))
            for i in range(n_blocks):
                blocks.append(_ResidualBlock(n_in, n_out, stride=2 if stage and i == 0 else 1))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Resize images.

        Parameters
        ----------
        cells : sequence of ndarray of shape (height, width, 3), uint8
            Images of any size.

        Returns
        -------
        tensors : dict of str to Tensor
            ``images``, uint8 of shape (n_cells, 3, image_size, image_size).
        """
        return {"images": stack_images(cells, self.image_size)}

    def forward(self, *, images: Tensor) -> Encoded:
        """Encode images.

        Parameters
        ----------
        images : Tensor of shape (n_cells, 3, image_size, image_size)
            Pixels from 0 to 255, uint8 or float.

        Returns
        -------
        encoded : Encoded
            One token per position of the feature map, none of them masked.
        """
        x = (images.to(self.stem.weight.dtype) - 127.5) / 64.0
        x = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        tokens = x.flatten(start_dim=2).transpose(1, 2)  # (n_cells, n_tokens, n_components)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, tokens.mean(dim=1))

    def reconstruction_target(self, *, images: Tensor) -> Tensor:
        """Return the images averaged to 8 x 8 pixels.

        Parameters
        ----------
        images : Tensor of shape (n_cells, 3, image_size, image_size), uint8
            Output of ``collate``.

        Returns
        -------
        target : Tensor of shape (n_cells, 192)
            Mean pixels from 0 to 1, one color channel after the other.
        """
        return F.adaptive_avg_pool2d(images.float() / 255.0, _TARGET_SIZE).flatten(start_dim=1)


class _ResidualBlock(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, n_in: int, n_out: int, *, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _group_norm(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = _group_norm(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def _group_norm(n_channels: int) -> nn.Module:
    # Groups of at least eight channels: a feature map may have a single position.
    if n_channels == 1:
        return nn.Identity()
    return nn.GroupNorm(math.gcd(n_channels, max(1, n_channels // 8)), n_channels)


def stack_images(
    cells: Sequence[np.ndarray], image_size: int, *, crop: float | None = None
) -> Tensor:
    """Resize images to squares by bicubic interpolation with antialiasing, and stack them.

    Parameters
    ----------
    cells : sequence of ndarray of shape (height, width, 3), uint8
        Images of any size.
    image_size : int
        Height and width of the result in pixels.
    crop : float or None, default=None
        Side of the central square to keep, as a share of the shorter side, in (0, 1]. None keeps
        the whole image and changes its aspect ratio.

    Returns
    -------
    images : Tensor of shape (n_cells, 3, image_size, image_size), uint8
        Images on the CPU.
    """
    stacked = np.empty((len(cells), image_size, image_size, 3), dtype=np.uint8)
    for i, cell in enumerate(cells):
        height, width = cell.shape[:2]
        if cell.shape == stacked.shape[1:] and crop in (None, 1.0):
            stacked[i] = cell  # already of the right size
            continue
        box = None
        if crop is not None:
            side = crop * min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        image = Image.fromarray(np.ascontiguousarray(cell))
        size = (image_size, image_size)
        stacked[i] = np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def resized(images: Iterable[np.ndarray], image_size: int) -> list[np.ndarray]:
    """Resize images like ``stack_images``, each before the next is read from the iterable.

    Parameters
    ----------
    images : iterable of ndarray of shape (height, width, 3), uint8
        Images that may not fit into memory together, such as frames of a video.
    image_size : int
        Height and width of the results in pixels.

    Returns
    -------
    small : list of ndarray of shape (image_size, image_size, 3), uint8
        Images that ``stack_images`` leaves unchanged.
    """
    return [
        stack_images([image], image_size)[0].permute(1, 2, 0).contiguous().numpy()
        for image in images
    ]
