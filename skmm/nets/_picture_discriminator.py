"""A small network that judges whether a picture is real and is of what is asked for."""

from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._image_layers import SpectralConv2d, SpectralLinear, patch_size, stage_sizes

__all__ = ["PictureDiscriminator"]

_WIDEST = 4  # times the first stage


class _Block(nn.Module):
    """A residual block without normalisation of the maps."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv_in = SpectralConv2d(n_in, n_out, 3, padding=1)
        self.conv_out = SpectralConv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Identity() if n_in == n_out else SpectralConv2d(n_in, n_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        own = self.conv_in(functional.leaky_relu(maps, 0.2))
        return self.skip(maps) + self.conv_out(functional.leaky_relu(own, 0.2))


class PictureDiscriminator(nn.Module):
    """Score of a picture under a condition: a projection discriminator [1]_.

    Two terms make the score: how real the picture looks, and the product of its features with the
    condition. All layers are under spectral normalisation [2]_.

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

    References
    ----------
    .. [1] Miyato, Koyama (2018), "cGANs with projection discriminator", ICLR.
    .. [2] Miyato, Kataoka, Koyama, Yoshida (2018), "Spectral normalization for generative
       adversarial networks", ICLR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import PictureDiscriminator
    >>> judge = PictureDiscriminator(1, 32, n_condition=8, n_channels=16)
    >>> features = judge.look(torch.ones(5, 1, 32, 32))
    >>> judge(features, torch.ones(5, 8)).shape
    torch.Size([5])
    """

    def __init__(self, n_colors: int, image_size: int, n_condition: int, *, n_channels: int = 32):
        super().__init__()
        self.patch = patch_size(image_size)
        widths = [n_channels * min(2**i, _WIDEST) for i in range(len(stage_sizes(image_size)))]
        self.begin = SpectralConv2d(n_colors * self.patch**2, n_channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            _Block(before, after)
            for before, after in zip([n_channels, *widths[:-1]], widths, strict=True)
        )
        self.is_real = SpectralLinear(widths[-1], 1)
        self.of_condition = SpectralLinear(n_condition, widths[-1], bias=False)

    def look(self, pictures: Tensor) -> Tensor:
        """Return features (n_rows, n_features) of pictures.

        Parameters
        ----------
        pictures : Tensor of shape (n_rows, n_colors, image_size, image_size)
            In [-1, 1].
        """
        maps = self.begin(functional.pixel_unshuffle(pictures, self.patch))
        for stage, block in enumerate(self.blocks):
            maps = block(maps if stage == 0 else functional.avg_pool2d(maps, 2))
        return functional.leaky_relu(maps, 0.2).sum(dim=(2, 3))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return scores (n_rows,), high for real pictures of what the condition says.

        Parameters
        ----------
        features : Tensor of shape (n_rows, n_features)
            From :meth:`look`.
        condition : Tensor of shape (n_rows, n_condition)
            What the picture should be of.
        """
        fit = (features * self.of_condition(condition)).sum(dim=1)
        return self.is_real(features).squeeze(1) + fit
