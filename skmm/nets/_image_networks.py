"""Small networks over images: a U-Net for diffusion, and generator and discriminator of a GAN."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._image_layers import (
    ModulatedBlock,
    SpectralBlock,
    SpectralConv2d,
    SpectralLinear,
    group_norm,
    patch_size,
    stage_sizes,
    time_features,
)

__all__ = [
    "GANImageGenerator",
    "ImageDiscriminator",
    "ImageUNet",
]

_WIDEST = 4  # times the stage of full size


class ImageUNet(nn.Module):
    """From a noisy image, a time and a condition to something of the image's shape [1]_.

    Every block is scaled and shifted by the time and the condition. Pixels of a patch come in and
    go out as channels of one place: the finest maps are those of the patches.

    Parameters
    ----------
    n_colors : int
        Channels of the images.
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
    >>> from skmm.nets import ImageUNet
    >>> network = ImageUNet(1, 32, n_condition=8, n_channels=16)
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

    def forward(self, images: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return a tensor of the shape of ``images``.

        Parameters
        ----------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Between noise and an image.
        time : Tensor of shape (n_rows,)
            How far on the way, in [0, 1].
        condition : Tensor of shape (n_rows, n_condition)
            What the image has to show.
        """
        given = self.of_time(time_features(time, self.n_time)) + self.of_condition(condition)
        given = functional.silu(given)
        maps = self.begin(functional.pixel_unshuffle(images, self.patch))
        kept: list[Tensor] = []
        for stage, block in enumerate(self.down):
            maps = block(maps if stage == 0 else functional.avg_pool2d(maps, 2), given)
            kept.append(maps)
        maps = self.middle(maps, given)
        for stage in reversed(range(len(self.up))):
            if maps.shape[2:] != kept[stage].shape[2:]:
                maps = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = self.up[stage](torch.cat([maps, kept[stage]], dim=1), given)
        out = self.end(functional.silu(self.norm(maps)))
        return functional.pixel_shuffle(out, self.patch)


class GANImageGenerator(nn.Module):
    """From noise and a condition to an image: trained against a discriminator [1]_, [2]_.

    Parameters
    ----------
    n_colors : int
        Channels of the images.
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
    >>> from skmm.nets import GANImageGenerator
    >>> draw = GANImageGenerator(3, 32, n_noise=4, n_condition=8, n_channels=16)
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
        for block in blocks:  # drawn in one go, an image needs all layers from the start
            nn.init.kaiming_uniform_(block.conv_out.weight, a=5**0.5)
        self.blocks = nn.ModuleList(blocks)
        self.norm = group_norm(n_channels)
        self.end = nn.Conv2d(n_channels, n_colors * self.patch**2, 3, padding=1)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return images (n_rows, n_colors, image_size, image_size) in [-1, 1].

        Parameters
        ----------
        noise : Tensor of shape (n_rows, n_noise)
            What sets images of one condition apart.
        condition : Tensor of shape (n_rows, n_condition)
            What the image has to show.
        """
        given = torch.cat([noise, condition], dim=1)
        maps = torch.unflatten(self.begin(given), 1, (-1, self.first, self.first))
        for stage, block in enumerate(self.blocks):
            if stage:
                maps = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = block(maps, given)
        out = self.end(functional.silu(self.norm(maps)))
        return functional.pixel_shuffle(out, self.patch).tanh()


class ImageDiscriminator(nn.Module):
    """Score of an image under a condition: a projection discriminator [1]_.

    Two terms make the score: how real the image looks, and the product of its features with the
    condition. All layers are under spectral normalisation [2]_.

    Parameters
    ----------
    n_colors : int
        Channels of the images.
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
    >>> from skmm.nets import ImageDiscriminator
    >>> discriminator = ImageDiscriminator(1, 32, n_condition=8, n_channels=16)
    >>> features = discriminator.look(torch.ones(5, 1, 32, 32))
    >>> discriminator(features, torch.ones(5, 8)).shape
    torch.Size([5])
    """

    def __init__(self, n_colors: int, image_size: int, n_condition: int, *, n_channels: int = 32):
        super().__init__()
        self.patch = patch_size(image_size)
        widths = [n_channels * min(2**i, _WIDEST) for i in range(len(stage_sizes(image_size)))]
        self.begin = SpectralConv2d(n_colors * self.patch**2, n_channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            SpectralBlock(before, after)
            for before, after in zip([n_channels, *widths[:-1]], widths, strict=True)
        )
        self.is_real = SpectralLinear(widths[-1], 1)
        self.of_condition = SpectralLinear(n_condition, widths[-1], bias=False)

    def look(self, images: Tensor) -> Tensor:
        """Return features (n_rows, n_features) of images.

        Parameters
        ----------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            In [-1, 1].
        """
        maps = self.begin(functional.pixel_unshuffle(images, self.patch))
        for stage, block in enumerate(self.blocks):
            maps = block(maps if stage == 0 else functional.avg_pool2d(maps, 2))
        return functional.leaky_relu(maps, 0.2).sum(dim=(2, 3))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return scores (n_rows,), high for real images of what the condition says.

        Parameters
        ----------
        features : Tensor of shape (n_rows, n_features)
            From :meth:`look`.
        condition : Tensor of shape (n_rows, n_condition)
            What the image has to show.
        """
        fit: Tensor = (features * self.of_condition(condition)).sum(dim=1)
        is_real: Tensor = self.is_real(features)
        return is_real.squeeze(1) + fit
