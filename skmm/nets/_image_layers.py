"""Layers of the networks that generate images and of those that discriminate between them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "ModulatedBlock",
    "SpectralBlock",
    "SpectralConv2d",
    "SpectralLinear",
    "group_norm",
    "patch_size",
    "stage_sizes",
    "time_features",
]

_SMALLEST_MAP = 4


def patch_size(image_size: int) -> int:
    """Side of the patches whose pixels a network takes and gives as channels of one place.

    Most of the work of a convolutional network is in its finest layers.

    Parameters
    ----------
    image_size : int
        Side of the images in pixels.

    Returns
    -------
    patch_size : int
        1 for images of up to 16 pixels, 2 up to 64, then 4.
    """
    return 1 if image_size <= 16 else 2 if image_size <= 64 else 4


def stage_sizes(image_size: int) -> list[int]:
    """Sides of the maps of a network, each half the one before, the smallest last.

    Parameters
    ----------
    image_size : int
        Side of the images, a multiple of 4.

    Returns
    -------
    sizes : list of int
        From the patches down to 4 places or a little more.
    """
    sizes = [image_size // patch_size(image_size)]
    while sizes[-1] > _SMALLEST_MAP and sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return sizes


def group_norm(n_channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation of at most 8 groups.

    Parameters
    ----------
    n_channels : int
        Number of channels.
    affine : bool, default=True
        Whether it has weights of its own.

    Returns
    -------
    norm : GroupNorm
        Its groups divide the channels.
    """
    return nn.GroupNorm(math.gcd(n_channels, 8), n_channels, affine=affine)


def time_features(time: Tensor, width: int) -> Tensor:
    """Waves of many lengths, by which a network tells times apart.

    Parameters
    ----------
    time : Tensor of shape (n_rows,)
        In [0, 1].
    width : int
        Number of features, even.

    Returns
    -------
    features : Tensor of shape (n_rows, width)
        Sines and cosines; Vaswani et al. (2017).
    """
    half = torch.arange(width // 2, device=time.device, dtype=time.dtype)
    angles = time[:, None] * 1000.0 ** (1 - half / max(width // 2 - 1, 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ModulatedBlock(nn.Module):
    """A residual block whose normalised maps are scaled and shifted by a condition [1]_, [2]_.

    It begins as the identity, or as a projection where the number of channels changes.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    n_condition : int
        Length of the condition.
    dropout : float, default=0.0
        Share of the units that is zeroed in training.

    References
    ----------
    .. [1] He et al. (2016), "Identity mappings in deep residual networks", ECCV.
    .. [2] Perez et al. (2018), "FiLM: visual reasoning with a general conditioning layer", AAAI.
    """

    def __init__(self, n_in: int, n_out: int, n_condition: int, *, dropout: float = 0.0):
        super().__init__()
        self.norm_in = group_norm(n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.modulate = nn.Linear(n_condition, 2 * n_out)
        self.norm_out = group_norm(n_out, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(n_out, n_out, 3, padding=1)
        for weight in self.conv_out.parameters():
            nn.init.zeros_(weight)
        self.skip = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Return maps (n_rows, n_out, height, width).

        Parameters
        ----------
        maps : Tensor of shape (n_rows, n_in, height, width)
            What the block changes.
        condition : Tensor of shape (n_rows, n_condition)
            What scales and shifts it.
        """
        own = self.conv_in(functional.silu(self.norm_in(maps)))
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, dim=1)
        own = self.norm_out(own) * (1 + scale) + shift
        out: Tensor = self.skip(maps) + self.conv_out(self.dropout(functional.silu(own)))
        return out


class _Spectral(nn.Module):
    """A layer whose weight is divided by its largest singular value [1]_.

    That value comes from one step of the power iteration for each pass in training.

    References
    ----------
    .. [1] Miyato, Kataoka, Koyama, Yoshida (2018), "Spectral normalization for generative
       adversarial networks", ICLR.
    """

    weight: Tensor
    left: Tensor

    def _start(self) -> None:
        self.register_buffer("left", functional.normalize(torch.randn(len(self.weight)), dim=0))

    def normalised(self) -> Tensor:
        """Return the weight divided by its largest singular value."""
        matrix = self.weight.flatten(1)
        # In half precision the value would be off by a part in a hundred.
        with torch.autocast(matrix.device.type, enabled=False):
            with torch.no_grad():
                right = functional.normalize(self.left @ matrix, dim=0)
                left = functional.normalize(matrix @ right, dim=0)
                if self.training:
                    self.left.copy_(left)
            value: Tensor = left @ matrix @ right
            return self.weight / value.clamp(min=1e-12)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution under spectral normalisation; parameters as of ``nn.Conv2d``."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, *, padding: int = 0):
        super().__init__(n_in, n_out, kernel_size, padding=padding)
        self._start()

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n_rows, n_out, height, width) of maps (n_rows, n_in, height, width)."""
        out: Tensor = self._conv_forward(maps, self.normalised(), self.bias)
        return out


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer under spectral normalisation; parameters as of ``nn.Linear``."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True):
        super().__init__(n_in, n_out, bias=bias)
        self._start()

    def forward(self, vectors: Tensor) -> Tensor:
        """Return vectors (n_rows, n_out) of vectors (n_rows, n_in)."""
        out: Tensor = functional.linear(vectors, self.normalised(), self.bias)
        return out


class SpectralBlock(nn.Module):
    """A residual block under spectral normalisation, without normalisation of the maps.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv_in = SpectralConv2d(n_in, n_out, 3, padding=1)
        self.conv_out = SpectralConv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Identity() if n_in == n_out else SpectralConv2d(n_in, n_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n_rows, n_out, height, width) of maps (n_rows, n_in, height, width)."""
        own = self.conv_in(functional.leaky_relu(maps, 0.2))
        out: Tensor = self.skip(maps) + self.conv_out(functional.leaky_relu(own, 0.2))
        return out
