"""A user's own module as a backbone: over any cells, or in the place of one of our networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded
from skmm.backbones._image_cnn import stack_images
from skmm.backbones._point_clouds import repeated
from skmm.backbones._pointnet import PointCloudInputs
from skmm.backbones._series import SeriesBackbone
from skmm.backbones._spectrogram import coarse_spectrogram, log_mel, mel_spectrogram

__all__ = [
    "ModuleBackbone",
    "ImageModule",
    "PointCloudModule",
    "SeriesModule",
    "AudioModule",
    "stack_cells",
]

_N_MELS = 64


def stack_cells(cells: Sequence[ArrayLike]) -> Tensor:
    """Stack cells of one shape into a float32 tensor; a number becomes a vector of one."""
    try:
        with np.errstate(over="raise"):
            arrays = [np.atleast_1d(np.asarray(cell, dtype=np.float32)) for cell in cells]
    except ArithmeticError as error:  # an integer without end is an OverflowError, too
        raise ValueError(
            f"A cell holds a number that float32 cannot hold ({error}). Scale the cells, or give"
            " collate= a function that stacks them otherwise."
        ) from error
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        shown = ", ".join(str(shape) for shape in sorted(shapes)[:3])
        raise ValueError(
            f"Cells of different shapes ({shown}) cannot be stacked. Give collate= a function"
            " that pads them."
        )
    return torch.from_numpy(np.stack(arrays))


class ModuleBackbone(Backbone):
    """Any module whose output is a vector, a grid or a sequence per cell.

    Parameters
    ----------
    module : nn.Module
        Takes what ``collate`` gives: one tensor, several as positional arguments, or a
        mapping as keyword arguments. Returns ``(n, width)``, ``(n, n_tokens, width)``,
        ``(n, width, height, width)`` or ``(tokens, mask)``.
    collate : callable, default=stack_cells
        From a list of decoded cells to tensors.
    """

    def __init__(self, module: nn.Module, *, collate: Callable[[list[Any]], Any] = stack_cells):
        super().__init__()
        self.module = module
        self._collate = collate

    def measure(self, cell: object) -> None:
        """Set ``width``, which only a forward pass can tell, from one decoded cell."""
        was_training = self.training
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        tensors = {name: t.to(device) for name, t in self.collate([cell]).items()}
        self.eval()
        with torch.no_grad():
            self.width = int(self(**tensors).pooled.shape[1])
        self.train(was_training)

    def collate(self, cells: Sequence[Any]) -> dict[str, Tensor]:
        collated = self._collate(list(cells))
        if isinstance(collated, Mapping):
            return dict(collated)
        if isinstance(collated, Tensor):
            return {"0": collated}
        return {str(position): tensor for position, tensor in enumerate(collated)}

    def forward(self, **tensors: Tensor) -> Encoded:
        if all(name.isdigit() for name in tensors):
            output = self.module(*(tensors[str(i)] for i in range(len(tensors))))
        else:
            output = self.module(**tensors)
        return _as_encoded(output, type(self.module).__name__)

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        floats = [t.flatten(1) for t in tensors.values() if t.is_floating_point()]
        if not floats:
            return super().reconstruction_target(**tensors)
        return torch.cat(floats, dim=1)


def _as_encoded(output: object, name: str) -> Encoded:
    mask = None
    if isinstance(output, tuple | list) and len(output) == 2:
        output, mask = output
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{name} returned {shape}. It has to return a tensor (n, width), (n, n_tokens, width)"
            " or (n, width, height, width), or such tokens with their mask."
        )
    if output.ndim == 4:
        output = output.flatten(2).transpose(1, 2)  # (n, height * width, width)
    tokens = output[:, None] if output.ndim == 2 else output
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    weights = mask[..., None].to(tokens.dtype)
    total = torch.where(mask[..., None], tokens, 0.0).sum(1)
    return Encoded(tokens, mask.bool(), total / weights.sum(1).clamp(min=1.0))


class ImageModule(ModuleBackbone):
    """A user's module over images, in the place of our own network.

    Parameters
    ----------
    module : nn.Module
        From ``(n, 3, image_size, image_size)`` floats in [0, 1].
    image_size : int, default=64
        Height and width in pixels.
    """

    separable = True

    def __init__(self, module: nn.Module, *, image_size: int = 64):
        super().__init__(module)
        self.image_size = image_size

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        return {"0": stack_images(cells, self.image_size)}

    def forward(self, **tensors: Tensor) -> Encoded:
        return super().forward(**{"0": tensors["0"].float() / 255.0})

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(tensors["0"].float() / 255.0, 8)
        return small.flatten(1)


class AudioModule(ModuleBackbone):
    """A user's module over audio clips, in the place of our own network.

    Parameters
    ----------
    module : nn.Module
        From ``(n, n_samples)`` floats. Returns ``(n, width)``, ``(n, n_tokens, width)``,
        ``(n, width, height, width)`` or ``(tokens, mask)``.
    n_samples : int
        Samples of every audio clip that the module is given: shorter ones are padded with silence,
        longer ones cut. So what it gives for an audio clip never depends on the others of a batch.
    rate : int, default=16000
        Samples per second of the cells.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skmm.backbones import AudioModule
    >>> model = AudioModule(torch.nn.Linear(800, 3), n_samples=800)
    >>> model(**model.collate([np.ones(500, np.float32)])).pooled.shape
    torch.Size([1, 3])
    """

    separable = True

    def __init__(self, module: nn.Module, *, n_samples: int, rate: int = 16_000):
        super().__init__(module)
        self.n_samples = n_samples
        self.rate = rate

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Bring audio clips to one length.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Audio clips of any length.

        Returns
        -------
        tensors : dict of str to Tensor
            ``samples`` of shape (n_cells, n_samples).
        """
        samples = torch.zeros(len(cells), self.n_samples)
        for row, cell in zip(samples, cells, strict=True):
            kept = cell[: self.n_samples]
            row[: len(kept)] = torch.from_numpy(kept)
        return {"samples": samples}

    def forward(self, **tensors: Tensor) -> Encoded:
        return super().forward(**{"0": tensors["samples"]})

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        """Give small spectrograms, (n_cells, 64): see ``AudioCNN.reconstruction_target``."""
        samples, hop = tensors["samples"], self.rate // 100
        power = mel_spectrogram(
            samples, n_mels=_N_MELS, rate=self.rate, n_fft=self.rate // 25, hop=hop
        )
        frames = log_mel(power).transpose(1, 2)
        n_frames = torch.full((len(samples),), frames.shape[1], device=samples.device)
        return coarse_spectrogram(frames, n_frames)


class SeriesModule(SeriesBackbone):
    """A user's module over time series, in the place of our own network.

    Series of one length go through the module together and never meet padding, so that it need
    not know about masks.

    Parameters
    ----------
    module : nn.Module
        From ``(n, n_timestamps, n_channels)`` floats, of mean zero and variance one, to
        ``(n, width)`` or ``(n, n_tokens, width)``.
    n_channels : int
        Number of channels.
    """

    def __init__(self, module: nn.Module, *, n_channels: int):
        super().__init__(n_channels)
        self.inner = ModuleBackbone(module)

    def measure(self, cell: np.ndarray) -> None:
        """Set ``width``, which only a forward pass can tell, from one decoded cell."""
        scaled, _ = self.scaled(**self.collate([cell]))
        self.inner.measure(scaled[0].numpy())
        self.width = self.inner.width

    def forward(self, *, series: Tensor, lengths: Tensor) -> Encoded:
        """Encode series.

        Parameters
        ----------
        series : Tensor of shape (n_cells, n_timestamps, n_channels)
            What ``collate`` gave.
        lengths : Tensor of shape (n_cells,), int64
            What ``collate`` gave.

        Returns
        -------
        encoded : Encoded
            The module's own tokens; one token where it gives a vector.
        """
        scaled, _ = self.scaled(series, lengths)
        steps = lengths.clamp(min=1)  # a module may not take a series of none
        different = sorted(set(steps.tolist()))
        groups = [(steps == n).nonzero().squeeze(1) for n in different]
        parts = [
            self.inner(**{"0": scaled[rows, :n]}) for rows, n in zip(groups, different, strict=True)
        ]
        if not parts:
            nothing = scaled.new_zeros(0, 1, self.width)
            return Encoded(nothing, nothing.new_zeros(0, 1, dtype=torch.bool), nothing[:, 0])
        n_tokens = max(part.tokens.shape[1] for part in parts)
        order = torch.cat(groups).argsort()
        padded = [
            Encoded(
                nn.functional.pad(tokens, (0, 0, 0, n_tokens - tokens.shape[1])),
                nn.functional.pad(mask, (0, n_tokens - mask.shape[1])),
                pooled,
            )
            for tokens, mask, pooled in parts
        ]
        tokens, mask, pooled = (torch.cat(v)[order] for v in zip(*padded, strict=True))
        return Encoded(tokens, mask & (lengths > 0)[:, None], pooled)


class PointCloudModule(ModuleBackbone):
    """A user's module over point clouds, in the place of our own network.

    Parameters
    ----------
    module : nn.Module
        From ``(n, n_points, n_columns)`` floats. Points have no order of meaning, and of clouds
        with fewer points some are there several times.
    inputs : PointCloudInputs
        Fitted on the training clouds.
    """

    def __init__(self, module: nn.Module, inputs: PointCloudInputs):
        super().__init__(module)
        self.inputs = inputs

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        shape = (len(cells), self.inputs.n_points, self.inputs.n_columns)
        points = np.empty(shape, dtype=np.float32)
        for i, cell in enumerate(cells):
            points[i] = repeated(self.inputs.columns(cell), self.inputs.n_points)
        return {"0": torch.from_numpy(points)}

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        points = tensors["0"]
        mask = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
        return self.inputs.reconstruction_target(points, mask)
