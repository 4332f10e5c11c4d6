"""EfficientNet-Lite0, a small network for images with weights trained on ImageNet."""

import math
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded
from skmm.backbones._image_cnn import stack_images
from skmm.backbones._pretrained._image_model import PretrainedImage
from skmm.exceptions import CheckpointError

__all__ = ["EfficientNetLite0", "LiteRecipe", "load_weights"]

# Repeats, kernel size, stride of the first repeat, expansion, output channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_N_CLASSES = 1000
_CPU_BATCH = 4  # images


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 [1]_, a convolutional network for images with published weights.

    An EfficientNet-B0 [2]_ without squeeze-and-excitation and with ReLU6. It has 4.7 million
    weights, an accuracy of 75.1 % on ImageNet, and takes about 0.4 billion multiplications per
    image. Names of the weights are those of the published PyTorch checkpoint, which
    ``load_weights`` reads. Batch normalization uses the statistics of the checkpoint, in training
    too, so that the features of an image do not depend on its batch.

    Parameters
    ----------
    image_size : int, default=224
        Height and width in pixels to which images are resized. The weights were trained at 224.
    crop : float or None, default=None
        Side of the central square that is encoded, as a share of the image's shorter side,
        in (0, 1]. None encodes the whole image and changes its aspect ratio, since the borders of
        catalog images, scans and signs have content. The published accuracy was measured with
        0.875.

    Attributes
    ----------
    width : int
        1280, the channels of the last convolution. Tokens are the positions of its feature map,
        7 x 7 at 224 pixels, row by row; the pooled vector is their mean.

    References
    ----------
    .. [1] "EfficientNet-lite", the TensorFlow TPU model garden, 2020.
    .. [2] Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks",
       ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._pretrained._efficientnet import EfficientNetLite0
    >>> model = EfficientNetLite0(image_size=64).eval()
    >>> images = [np.zeros((48, 60, 3), dtype=np.uint8)]
    >>> encoded = model(**model.collate(images))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([1, 4, 1280]), torch.Size([1, 1280]))
    """

    width = _HEAD_CHANNELS
    stages = tuple(repeats for repeats, *_ in _STAGES)

    separable = True

    def __init__(self, image_size: int = 224, *, crop: float | None = None):
        super().__init__()
        self.image_size = image_size
        self.crop = crop
        self._conv_stem = _NormedConv2d(3, _STEM_CHANNELS, 3, stride=2)
        self._bn0 = _FixedNorm(_STEM_CHANNELS)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = _NormedConv2d(_STAGES[-1][-1], _HEAD_CHANNELS, 1)
        self._bn1 = _FixedNorm(_HEAD_CHANNELS)
        self._fc = nn.Linear(_HEAD_CHANNELS, _N_CLASSES)

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
        return {"images": stack_images(cells, self.image_size, crop=self.crop)}

    def forward(self, *, images: Tensor) -> Encoded:
        """Encode images.

        Parameters
        ----------
        images : Tensor of shape (n_cells, 3, height, width)
            Pixels from 0 to 255, uint8 or float, of any size.

        Returns
        -------
        encoded : Encoded
            One token per position of the feature map, none of them masked.
        """
        if images.device.type == "cpu" and not torch.is_grad_enabled():
            # The activations of a few images fit into the processor's cache: an image takes
            # less than half the time that it takes in a batch of 32.
            x = torch.cat([self._grid(part) for part in torch.split(images, _CPU_BATCH)])
        else:
            x = self._grid(images)
        tokens = x.flatten(start_dim=2).transpose(1, 2)  # (n_cells, n_tokens, 1280)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, tokens.mean(dim=1))

    def class_scores(self, pooled: Tensor) -> Tensor:
        """Score the 1000 classes of ImageNet.

        Parameters
        ----------
        pooled : Tensor of shape (n_cells, 1280)
            Pooled vectors of ``forward``.

        Returns
        -------
        scores : Tensor of shape (n_cells, 1000)
            Logits, in the order of the classes in ImageNet.
        """
        scores: Tensor = self._fc(pooled)
        return scores

    def _grid(self, images: Tensor) -> Tensor:
        """Return the last feature map, (n_cells, 1280, height / 32, width / 32)."""
        x = (images.to(self._conv_stem.weight.dtype) - 127.0) / 128.0
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on CPUs
        x = F.relu6(self._conv_stem.normed(x, self._bn0))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._conv_head.normed(x, self._bn1))


class _NormedConv2d(nn.Conv2d):
    """Convolution fused with the batch normalization that follows.

    The padding is TensorFlow's, with which the weights were trained: an odd pixel of padding goes
    to the end. Symmetric padding would shift each strided convolution by half a pixel.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel_size: int, *, stride: int = 1, groups: int = 1
    ):
        super().__init__(n_in, n_out, kernel_size, stride=stride, groups=groups, bias=False)

    def normed(self, x: Tensor, norm: "_FixedNorm") -> Tensor:
        """Convolve and normalize."""
        scale, shift = norm.scale_and_shift()
        weight = self.weight * scale[:, None, None, None]
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, weight, shift, padding=kernel // 2, groups=self.groups)
        height, width = x.shape[-2:]
        down = max((math.ceil(height / stride) - 1) * stride + kernel - height, 0)
        across = max((math.ceil(width / stride) - 1) * stride + kernel - width, 0)
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, weight, shift, stride=stride, groups=self.groups)


class _FixedNorm(nn.Module):
    """Batch normalization with the statistics of the checkpoint."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        self.register_buffer("running_mean", torch.zeros(n_channels))
        self.register_buffer("running_var", torch.ones(n_channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))  # a name of the checkpoint

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the factor and the shift of the normalization, (n_channels,) each."""
        scale = self.weight * torch.rsqrt(self.running_var + 1e-3)
        return scale, self.bias - self.running_mean * scale


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a shortcut if shapes are equal."""

    def __init__(self, n_in: int, n_out: int, *, kernel_size: int, stride: int, expansion: int):
        super().__init__()
        n_inner = n_in * expansion
        self._expands = expansion > 1
        self._adds = stride == 1 and n_in == n_out
        if self._expands:
            self._expand_conv = _NormedConv2d(n_in, n_inner, 1)
            self._bn0 = _FixedNorm(n_inner)
        self._depthwise_conv = _NormedConv2d(
            n_inner, n_inner, kernel_size, stride=stride, groups=n_inner
        )
        self._bn1 = _FixedNorm(n_inner)
        self._project_conv = _NormedConv2d(n_inner, n_out, 1)
        self._bn2 = _FixedNorm(n_out)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        if self._expands:
            x = F.relu6(self._expand_conv.normed(x, self._bn0))
        x = F.relu6(self._depthwise_conv.normed(x, self._bn1))
        x = self._project_conv.normed(x, self._bn2)
        return x + inputs if self._adds else x


def _blocks() -> Iterator[_InvertedResidual]:
    n_in = _STEM_CHANNELS
    for repeats, kernel_size, stride, expansion, n_out in _STAGES:
        for i in range(repeats):
            yield _InvertedResidual(
                n_in,
                n_out,
                kernel_size=kernel_size,
                stride=stride if i == 0 else 1,
                expansion=expansion,
            )
            n_in = n_out


class LiteRecipe:
    """EfficientNet-Lite0 without its weights.

    Parameters
    ----------
    file : Path
        File with the weights.
    name : str
        Name of the checkpoint, for errors.
    """

    def __init__(self, file: Path, name: str):
        self.file = file
        self.name = name
        with torch.device("meta"):  # without weights: its collate and its width are used
            self.model = EfficientNetLite0()
        self.width = self.model.width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``ImageRecipe.settings``."""
        if pooling not in ("auto", "mean", "max", "pooler"):
            raise ValueError(
                f"pooling={pooling!r} does not suit {self.name!r}, a convolutional network."
                " Use 'auto', 'mean' or 'max'."
            )
        return {
            # The model's own pooled vector is the mean of its tokens.
            "pooling": "max" if pooling == "max" else "mean",
            "normalize": False if normalize == "auto" else bool(normalize),
            "max_length": None,
            "processor": f"EfficientNetLite0({self.model.image_size}, crop={self.model.crop})",
            "width": self.width,
            # The shorter side before the crop.
            "image_size": math.ceil(self.model.image_size / (self.model.crop or 1.0)),
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the weights."""
        with torch.random.fork_rng(devices=[]):  # the constructor samples weights
            model = EfficientNetLite0()
        load_weights(model, self.file)
        return _LiteTower(model.requires_grad_(False)).to(device, dtype).eval()

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedImage:
        """Return a backbone with the weights of a tower."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedImage(tower, self.model.collate, **options)

    def sample(self) -> dict[str, Tensor]:
        """Return a small input, on which the model is tried."""
        return self.model.collate([np.zeros((32, 32, 3), np.uint8)])


class _LiteTower(nn.Module):
    """The network with the output of a tower."""

    has_pooler = True
    # A small input: the network takes images of any size.
    blank: ClassVar[dict[str, Tensor]] = {"images": torch.zeros(1, 3, 32, 32)}

    def __init__(self, model: EfficientNetLite0):
        super().__init__()
        self.model = model
        self.stages = model.stages

    def forward(self, *, images: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.model(images=images)
        return encoded.tokens, encoded.pooled


def load_weights(module: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load the weights of a module from a file with a ``state_dict``.

    Only tensors are read (``weights_only=True``), never objects, so a file from an unknown
    source cannot run code.

    Parameters
    ----------
    module : Module
        Module whose weights are replaced, on any device.
    path : str or path-like
        File with a ``state_dict``, written by ``torch.save``.

    Returns
    -------
    module : Module
        The module itself.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or weights are missing, unexpected or of another shape. The
        module is then unchanged.
    """
    name = f"{type(module).__name__} from {os.fspath(path)!r}"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"Cannot load {name}: {type(error).__name__}: {reason} The path must be that of a"
            " file with a state_dict, saved by torch.save."
        ) from error
    _check(module, state, name)
    module.load_state_dict(state)
    return module


def _check(module: nn.Module, state: object, name: str) -> None:
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"Cannot load {name}: the file has a {type(state).__name__} that is not a"
            " dictionary of tensors. Save the module's state_dict."
        )
    expected = module.state_dict()
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise CheckpointError(
            f"Cannot load {name}: {_some(missing)} missing, {_some(unexpected)} unexpected."
            " The file belongs to another model."
        )
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise CheckpointError(
                f"Cannot load {name}: {key} has shape {tuple(state[key].shape)} in the file and"
                f" {tuple(value.shape)} in the module. The file belongs to another model."
            )


def _some(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    if not ordered:
        return "no weights"
    shown = ", ".join(ordered[:3])
    return f"{len(ordered)} weights ({shown}{', ...' if len(ordered) > 3 else ''})"
