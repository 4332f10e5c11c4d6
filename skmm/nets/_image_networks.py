"""Small networks for images: a U-Net for flow matching, generator and discriminator of a GAN."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "GANImageGenerator",
    "ImageDiscriminator",
    "ImageUNet",
    "ModulatedBlock",
    "SpectralBlock",
    "SpectralConv2d",
    "SpectralLinear",
    "group_norm",
    "patch_size",
    "stage_sizes",
    "time_features",
]

# --- Layers of the networks that generate images and of those that discriminate between them ---

_SMALLEST_MAP = 4


def patch_size(image_size: int) -> int:
    """Return the side of the patches whose pixels become channels of one position.

    Most of the computation of a convolutional network is in its finest layers.

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
    """Return the sides of a network's feature maps, each half of the previous one.

    Parameters
    ----------
    image_size : int
        Side of the images, a multiple of 4.

    Returns
    -------
    sizes : list of int
        From the number of patches down to 4 or a little more.
    """
    sizes = [image_size // patch_size(image_size)]
    while sizes[-1] > _SMALLEST_MAP and sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return sizes


def group_norm(n_channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Build a group normalization of at most 8 groups.

    Parameters
    ----------
    n_channels : int
        Number of channels.
    affine : bool, default=True
        Whether it has learned weights.

    Returns
    -------
    norm : GroupNorm
        The number of groups divides the number of channels.
    """
    return nn.GroupNorm(math.gcd(n_channels, 8), n_channels, affine=affine)


def time_features(time: Tensor, width: int) -> Tensor:
    """Encode times by sines and cosines of several frequencies.

    Parameters
    ----------
    time : Tensor of shape (n_rows,)
        Times in [0, 1].
    width : int
        Number of features, even.

    Returns
    -------
    features : Tensor of shape (n_rows, width)
        Sines and cosines, as in Vaswani et al. (2017).
    """
    half = torch.arange(width // 2, device=time.device, dtype=time.dtype)
    angles = time[:, None] * 1000.0 ** (1 - half / max(width // 2 - 1, 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ModulatedBlock(nn.Module):
    """A residual block whose normalized maps are scaled and shifted by a condition [1]_, [2]_.

    It is initialized as the identity, or as a projection if the number of channels changes.

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
            Input maps.
        condition : Tensor of shape (n_rows, n_condition)
            Vector that determines scale and shift.
        """
        own = self.conv_in(functional.silu(self.norm_in(maps)))
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, dim=1)
        own = self.norm_out(own) * (1 + scale) + shift
        out: Tensor = self.skip(maps) + self.conv_out(self.dropout(functional.silu(own)))
        return out


class _Spectral(nn.Module):
    """A layer whose weight is divided by its largest singular value [1]_.

    The value is estimated by one step of the power iteration per forward pass in training.

    References
    ----------
    .. [1] Miyato, Kataoka, Koyama, Yoshida (2018), "Spectral normalization for generative
       adversarial networks", ICLR.
    """

    weight: Tensor
    left: Tensor

    def _start(self) -> None:
        self.register_buffer("left", functional.normalize(torch.randn(len(self.weight)), dim=0))

    def normalized(self) -> Tensor:
        """Return the weight divided by its largest singular value."""
        matrix = self.weight.flatten(1)
        # In half precision the value would have an error of a hundredth.
        with torch.autocast(matrix.device.type, enabled=False):
            with torch.no_grad():
                right = functional.normalize(self.left @ matrix, dim=0)
                left = functional.normalize(matrix @ right, dim=0)
                if self.training:
                    self.left.copy_(left)
            value: Tensor = left @ matrix @ right
            return self.weight / value.clamp(min=1e-12)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution with spectral normalization; parameters as for ``nn.Conv2d``."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, *, padding: int = 0):
        super().__init__(n_in, n_out, kernel_size, padding=padding)
        self._start()

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n_rows, n_out, height, width) of maps (n_rows, n_in, height, width)."""
        out: Tensor = self._conv_forward(maps, self.normalized(), self.bias)
        return out


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer with spectral normalization; parameters as for ``nn.Linear``."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True):
        super().__init__(n_in, n_out, bias=bias)
        self._start()

    def forward(self, vectors: Tensor) -> Tensor:
        """Return vectors (n_rows, n_out) of vectors (n_rows, n_in)."""
        out: Tensor = functional.linear(vectors, self.normalized(), self.bias)
        return out


class SpectralBlock(nn.Module):
    """A residual block with spectral normalization, without normalization of the maps.

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


_WIDEST = 4  # width of the coarsest maps relative to the finest


class ImageUNet(nn.Module):
    """U-Net from a noisy image, a time and a condition to a tensor of the image's shape [1]_.

    Every block is modulated by the time and the condition. The pixels of a patch are channels of
    one position of the finest maps.

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
    >>> from skmm.nets._image_networks import ImageUNet
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
        # Inputs are coarser maps and, by a skip connection, maps of the same size.
        self.up = nn.ModuleList(
            ModulatedBlock(coarser + own_width, own_width, n_inner, **own)
            for coarser, own_width in zip([*widths[1:], widths[-1]], widths, strict=True)
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
            Interpolations of noise and images.
        time : Tensor of shape (n_rows,)
            Times of the interpolations, in [0, 1].
        condition : Tensor of shape (n_rows, n_condition)
            Encoded conditions.
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
    """Generator of a GAN, from noise and a condition to an image [1]_, [2]_.

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
    >>> from skmm.nets._image_networks import GANImageGenerator
    >>> generator = GANImageGenerator(3, 32, n_noise=4, n_condition=8, n_channels=16)
    >>> generator(torch.randn(5, 4), torch.ones(5, 8)).shape
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
        for block in blocks:  # a generator uses all layers from the start, not the identity
            nn.init.kaiming_uniform_(block.conv_out.weight, a=5**0.5)
        self.blocks = nn.ModuleList(blocks)
        self.norm = group_norm(n_channels)
        self.end = nn.Conv2d(n_channels, n_colors * self.patch**2, 3, padding=1)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return images (n_rows, n_colors, image_size, image_size) in [-1, 1].

        Parameters
        ----------
        noise : Tensor of shape (n_rows, n_noise)
            Noise, which makes images of one condition different.
        condition : Tensor of shape (n_rows, n_condition)
            Encoded conditions.
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
    """Projection discriminator of a GAN, which scores an image given a condition [1]_.

    The score is the sum of a linear score of the image's features and their product with the
    projected condition. All layers have spectral normalization [2]_.

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
    >>> from skmm.nets._image_networks import ImageDiscriminator
    >>> discriminator = ImageDiscriminator(1, 32, n_condition=8, n_channels=16)
    >>> features = discriminator.features(torch.ones(5, 1, 32, 32))
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

    def features(self, images: Tensor) -> Tensor:
        """Return features (n_rows, n_features) of images.

        Parameters
        ----------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Images with values in [-1, 1].
        """
        maps = self.begin(functional.pixel_unshuffle(images, self.patch))
        for stage, block in enumerate(self.blocks):
            maps = block(maps if stage == 0 else functional.avg_pool2d(maps, 2))
        return functional.leaky_relu(maps, 0.2).sum(dim=(2, 3))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return scores (n_rows,), high for real images that match the condition.

        Parameters
        ----------
        features : Tensor of shape (n_rows, n_features)
            From :meth:`features`.
        condition : Tensor of shape (n_rows, n_condition)
            Encoded conditions.
        """
        fit: Tensor = (features * self.of_condition(condition)).sum(dim=1)
        is_real: Tensor = self.is_real(features)
        return is_real.squeeze(1) + fit
