"""A user's own torch module as a backbone: over any cells, or over those of one modality."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded
from skmm.backbones._image_cnn import stack_images
from skmm.backbones._point_clouds import repeat_points
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
    """Stack cells of equal shape into a float32 tensor; a number becomes a vector of length 1."""
    try:
        with np.errstate(over="raise"):
            arrays = [np.atleast_1d(np.asarray(cell, dtype=np.float32)) for cell in cells]
    except ArithmeticError as error:  # FloatingPointError, or OverflowError for a large int
        raise ValueError(
            f"A cell holds a number that float32 cannot hold ({error}). Scale the cells, or pass"
            " a function that stacks them as collate=."
        ) from error
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        shown = ", ".join(str(shape) for shape in sorted(shapes)[:3])
        raise ValueError(
            f"Cells of different shapes ({shown}) cannot be stacked. Pass a function that pads"
            " them as collate=."
        )
    return torch.from_numpy(np.stack(arrays))


class ModuleBackbone(Backbone):
    """Backbone of a module that returns a vector, a feature map or a sequence per cell.

    Parameters
    ----------
    module : nn.Module
        Takes the output of ``collate``: one tensor, several as positional arguments, or a
        mapping as keyword arguments. Returns vectors ``(n, n_outputs)``, tokens ``(n, n_tokens,
        n_outputs)``, a feature map ``(n, n_outputs, height, width)`` or ``(tokens, mask)``.
    collate : callable, default=stack_cells
        Function from a list of decoded cells to tensors.
    """

    def __init__(self, module: nn.Module, *, collate: Callable[[list[Any]], Any] = stack_cells):
        super().__init__()
        self.module = module
        self._collate = collate

    def measure(self, cell: object) -> None:
        """Set ``width`` by a forward pass of one decoded cell."""
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
            f"{name} returned {shape}. It must return a tensor (n, n_outputs), (n, n_tokens,"
            " n_outputs) or (n, n_outputs, height, width), or a pair (tokens, mask)."
        )
    if output.ndim == 4:
        output = output.flatten(2).transpose(1, 2)  # (n, height * width, n_outputs)
    tokens = output[:, None] if output.ndim == 2 else output
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    weights = mask[..., None].to(tokens.dtype)
    total = torch.where(mask[..., None], tokens, 0.0).sum(1)
    return Encoded(tokens, mask.bool(), total / weights.sum(1).clamp(min=1.0))


class ImageModule(ModuleBackbone):
    """Backbone of a user's module over images.

    Parameters
    ----------
    module : nn.Module
        Takes floats in [0, 1] of shape ``(n, 3, image_size, image_size)``.
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
    """Backbone of a user's module over audio.

    Parameters
    ----------
    module : nn.Module
        Takes floats of shape ``(n, n_samples)``. Returns vectors, tokens or a feature map, as in
        `ModuleBackbone`.
    n_samples : int
        Number of samples of each input. Shorter clips are padded with silence and longer ones
        cut, so that the output for a clip does not depend on the others of its batch.
    rate : int, default=16000
        Samples per second.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skmm.backbones._user_module import AudioModule
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
        """Pad or cut audio clips to ``n_samples``.

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
        """Return coarse spectrograms, (n_cells, 64), as ``AudioCNN.reconstruction_target``."""
        samples, hop = tensors["samples"], self.rate // 100
        power = mel_spectrogram(
            samples, n_mels=_N_MELS, rate=self.rate, n_fft=self.rate // 25, hop=hop
        )
        frames = log_mel(power).transpose(1, 2)
        n_frames = torch.full((len(samples),), frames.shape[1], device=samples.device)
        return coarse_spectrogram(frames, n_frames)


class SeriesModule(SeriesBackbone):
    """Backbone of a user's module over time series.

    The module receives series of one length at a time, without padding, so it needs no mask.

    Parameters
    ----------
    module : nn.Module
        Takes floats of mean 0 and variance 1, of shape ``(n, n_timestamps, n_channels)``. Returns
        vectors ``(n, n_outputs)`` or tokens ``(n, n_tokens, n_outputs)``.
    n_channels : int
        Number of channels.
    """

    def __init__(self, module: nn.Module, *, n_channels: int):
        super().__init__(n_channels)
        self.inner = ModuleBackbone(module)

    def measure(self, cell: np.ndarray) -> None:
        """Set ``width`` by a forward pass of one decoded cell."""
        scaled, _ = self.scaled(**self.collate([cell]))
        self.inner.measure(scaled[0].numpy())
        self.width = self.inner.width

    def forward(self, *, series: Tensor, lengths: Tensor) -> Encoded:
        """Encode time series.

        Parameters
        ----------
        series : Tensor of shape (n_cells, n_timestamps, n_channels)
            Output of ``collate``.
        lengths : Tensor of shape (n_cells,), int64
            Output of ``collate``.

        Returns
        -------
        encoded : Encoded
            The module's tokens, or one token if it returns a vector.
        """
        scaled, _ = self.scaled(series, lengths)
        steps = lengths.clamp(min=1)  # the module may fail on an empty series
        distinct = sorted(set(steps.tolist()))
        groups = [(steps == n).nonzero().squeeze(1) for n in distinct]
        parts = [
            self.inner(**{"0": scaled[rows, :n]}) for rows, n in zip(groups, distinct, strict=True)
        ]
        if not parts:
            empty = scaled.new_zeros(0, 1, self.width)
            return Encoded(empty, empty.new_zeros(0, 1, dtype=torch.bool), empty[:, 0])
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
    """Backbone of a user's module over point clouds.

    Parameters
    ----------
    module : nn.Module
        Takes floats of shape ``(n, n_points, n_columns)``. The order of the points has no
        meaning, and points of smaller clouds are repeated.
    inputs : PointCloudInputs
        Inputs fitted on the training clouds.
    """

    def __init__(self, module: nn.Module, inputs: PointCloudInputs):
        super().__init__(module)
        self.inputs = inputs

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        shape = (len(cells), self.inputs.n_points, self.inputs.n_columns)
        points = np.empty(shape, dtype=np.float32)
        for i, cell in enumerate(cells):
            points[i] = repeat_points(self.inputs.columns(cell), self.inputs.n_points)
        return {"0": torch.from_numpy(points)}

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        points = tensors["0"]
        mask = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
        return self.inputs.reconstruction_target(points, mask)
