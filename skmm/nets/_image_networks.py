"""A small U-Net that takes noisy pictures, a time and a condition."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._image_layers import (
    ModulatedBlock,
    group_norm,
    patch_size,
    stage_sizes,
    time_features,
)

__all__ = ["PictureUNet"]

_WIDEST = 4  # times the first stage


class PictureUNet(nn.Module):
    """From a noisy picture, a time and a condition to something of the picture's shape [1]_.

    Every block is scaled and shifted by the time and the condition. Pixels of a patch come in and
    go out as channels of one place: the finest maps are those of the patches.

    Parameters
    ----------
    n_colors : int
        Channels of the pictures.
    image_size : int
        Their side in pixels, a multiple of 4.
    n_condition : int
        Length of the condition.
    n_channels : int, default=32
        Width of the finest maps; coarser ones have up to 4 times as many.
    dropout : float, default=0.0
        Share of the units of a block that is zeroed in training.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox (2015), "U-Net: convolutional networks for biomedical image
       segmentation", MICCAI.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import PictureUNet
    >>> network = PictureUNet(1, 32, n_condition=8, n_channels=16)
    >>> network(torch.ones(5, 1, 32, 32), torch.linspace(0, 1, 5), torch.ones(5, 8)).shape
    torch.Size([5, 1, 32, 32])
    """

    def __init__(
        self,
        n_colors: int,
        image_size: int,
        n_condition: int,
        *,
        n_channels: int = 32,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.patch = patch_size(image_size)
        widths = [n_channels * min(2**i, _WIDEST) for i in range(len(stage_sizes(image_size)))]
        n_inner = _WIDEST * n_channels
        self.n_time = 2 * n_channels
        self.of_time = nn.Sequential(
            nn.Linear(self.n_time, n_inner), nn.SiLU(), nn.Linear(n_inner, n_inner)
        )
        self.of_condition = nn.Linear(n_condition, n_inner)
        n_pixels = n_colors * self.patch**2
        self.begin = nn.Conv2d(n_pixels, n_channels, 3, padding=1)
        own = {"dropout": dropout}
        self.down = nn.ModuleList(
            ModulatedBlock(before, after, n_inner, **own)
            for before, after in zip([n_channels, *widths[:-1]], widths, strict=True)
        )
        self.middle = ModulatedBlock(widths[-1], widths[-1], n_inner, **own)
        # What comes up from below, beside what was there on the way down.
        self.up = nn.ModuleList(
            ModulatedBlock(below + own_width, own_width, n_inner, **own)
            for below, own_width in zip([*widths[1:], widths[-1]], widths, strict=True)
        )
        self.norm = group_norm(n_channels)
        self.end = nn.Conv2d(n_channels, n_pixels, 3, padding=1)
        for weight in self.end.parameters():
            nn.init.zeros_(weight)

    def forward(self, pictures: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return a tensor of the shape of ``pictures``.

        Parameters
        ----------
        pictures : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Between noise and a picture.
        time : Tensor of shape (n_rows,)
            How far on the way, in [0, 1].
        condition : Tensor of shape (n_rows, n_condition)
            What the picture is to be of.
        """
        bend = self.of_time(time_features(time, self.n_time)) + self.of_condition(condition)
        bend = functional.silu(bend)
        maps = self.begin(functional.pixel_unshuffle(pictures, self.patch))
        kept: list[Tensor] = []
        for stage, block in enumerate(self.down):
            maps = block(maps if stage == 0 else functional.avg_pool2d(maps, 2), bend)
            kept.append(maps)
        maps = self.middle(maps, bend)
        for stage in reversed(range(len(self.up))):
            if maps.shape[2:] != kept[stage].shape[2:]:
                maps = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = self.up[stage](torch.cat([maps, kept[stage]], dim=1), bend)
        out = self.end(functional.silu(self.norm(maps)))
        return functional.pixel_shuffle(out, self.patch)
