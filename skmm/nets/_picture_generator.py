"""A small network that draws a picture in one go, from noise and a condition."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._image_layers import ModulatedBlock, group_norm, patch_size, stage_sizes

__all__ = ["PictureGenerator"]

_WIDEST = 4  # times the last stage


class PictureGenerator(nn.Module):
    """From noise and a condition to a picture: what plays against a discriminator [1]_, [2]_.

    Parameters
    ----------
    n_colors : int
        Channels of the pictures.
    image_size : int
        Their side in pixels, a multiple of 4.
    n_noise : int
        Length of the noise.
    n_condition : int
        Length of the condition.
    n_channels : int, default=32
        Width of the finest maps; coarser ones have up to 4 times as many.

    References
    ----------
    .. [1] Goodfellow et al. (2014), "Generative adversarial nets", NeurIPS.
    .. [2] Brock, Donahue, Simonyan (2019), "Large scale GAN training for high fidelity natural
       image synthesis", ICLR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import PictureGenerator
    >>> draw = PictureGenerator(3, 32, n_noise=4, n_condition=8, n_channels=16)
    >>> draw(torch.randn(5, 4), torch.ones(5, 8)).shape
    torch.Size([5, 3, 32, 32])
    """

    def __init__(
        self,
        n_colors: int,
        image_size: int,
        n_noise: int,
        n_condition: int,
        *,
        n_channels: int = 32,
    ):
        super().__init__()
        self.n_noise = n_noise
        self.patch = patch_size(image_size)
        sizes = stage_sizes(image_size)[::-1]
        widths = [n_channels * min(2**i, _WIDEST) for i in range(len(sizes))][::-1]
        self.first = sizes[0]
        n_given = n_noise + n_condition
        self.begin = nn.Linear(n_given, widths[0] * self.first**2)
        blocks = [
            ModulatedBlock(before, after, n_given)
            for before, after in zip([widths[0], *widths[:-1]], widths, strict=True)
        ]
        for block in blocks:  # drawn in one go, a picture needs all layers from the start
            nn.init.kaiming_uniform_(block.conv_out.weight, a=5**0.5)
        self.blocks = nn.ModuleList(blocks)
        self.norm = group_norm(n_channels)
        self.end = nn.Conv2d(n_channels, n_colors * self.patch**2, 3, padding=1)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return pictures (n_rows, n_colors, image_size, image_size) in [-1, 1].

        Parameters
        ----------
        noise : Tensor of shape (n_rows, n_noise)
            What sets pictures of one condition apart.
        condition : Tensor of shape (n_rows, n_condition)
            What the picture is to be of.
        """
        given = torch.cat([noise, condition], dim=1)
        maps = self.begin(given).unflatten(1, (-1, self.first, self.first))
        for stage, block in enumerate(self.blocks):
            if stage:
                maps = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = block(maps, given)
        out = self.end(functional.silu(self.norm(maps)))
        return functional.pixel_shuffle(out, self.patch).tanh()
