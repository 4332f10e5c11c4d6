"""What the networks that draw pictures share: the condition, and weights averaged over steps."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from skmm._training._module import SEPARATOR, JointModule
from skmm._training._net import Callback

__all__ = ["PICTURE", "KeepAverage", "PictureModule", "WeightAverage", "to_units"]

# Beside the modalities' tensors in a batch; no modality has an empty name.
PICTURE = f"{SEPARATOR}picture"


def to_units(pictures: Tensor) -> Tensor:
    """Pictures of uint8 as floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


class WeightAverage:
    """Exponential moving average of weights, which draws better pictures than the last ones.

    Parameters
    ----------
    decay : float
        Of the average; smaller in the first steps, so that what the weights began with does not
        stay in it: ``min(decay, (1 + step) / (10 + step))``.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.n_steps = 0
        self.kept: list[Tensor] = []

    @torch.no_grad()
    def update(self, weights: Iterable[Tensor]) -> None:
        """Take in the weights after a step."""
        own = list(weights)
        self.n_steps += 1
        if not self.kept:
            self.kept = [weight.detach().clone() for weight in own]
            return
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        torch._foreach_lerp_(self.kept, own, 1 - decay)

    @torch.no_grad()
    def swap(self, weights: Iterable[Tensor]) -> None:
        """Exchange average and weights in place: a recurrent network wants its memory kept."""
        for kept, weight in zip(self.kept, weights, strict=False):
            before = weight.clone()
            weight.copy_(kept)
            kept.copy_(before)


class KeepAverage(Callback):
    """Lets the module's average take in its weights after each step."""

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Update after a training batch."""
        if training:
            net.module_.average.update(net.module_.parameters())


class PictureModule(JointModule):
    """From tensors of all modalities to a condition, and the network that draws under it.

    In evaluation its weights are the average over the steps.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features or tokens of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    fusion : nn.Module
        From tokens and masks to a vector.
    n_components : int
        Width of that vector.
    head : nn.Module
        What draws.
    unconditional_fraction : float
        Share of the rows that lose their condition in training.
    ema_decay : float
        Of the average of the weights.
    **options : object
        Of :class:`JointModule`.
    """

    # A picture's maps take the memory, not its condition.
    rows_at_once = 256

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        n_components: int,
        head: nn.Module,
        *,
        unconditional_fraction: float,
        ema_decay: float,
        **options: Any,
    ):
        super().__init__(list(widths), encoders, fusion, n_components, 1, dropout=0.0, **options)
        self.average = WeightAverage(ema_decay)
        self.head: Any = head
        self.unconditional_fraction = unconditional_fraction
        self.nothing = nn.Parameter(0.02 * torch.randn(n_components))

    def measure(self, pictures: Tensor) -> None:
        """Look at the training pictures, (n_rows, n_colors, image_size, image_size), uint8."""

    def train(self, mode: bool = True) -> Self:
        """Take up the weights of the last step for training, their average for all else."""
        if mode != self.training:
            self.average.swap(self.parameters())
        return super().train(mode)

    def finish(self) -> None:
        """Keep the average alone."""
        self.eval()
        self.average = WeightAverage(self.average.decay)

    def kept(self, known: Mapping[str, Tensor]) -> Tensor:
        """Which rows have a condition, (n_rows,); in training some lose it."""
        exists = torch.stack([mask.any(dim=1) for mask in known.values()]).any(dim=0)
        if self.training and self.unconditional_fraction:
            luck = torch.rand(exists.shape, device=exists.device)
            exists = exists & (luck >= self.unconditional_fraction)
        return exists

    def condition(self, **inputs: Tensor) -> Tensor:
        """Return what a picture is to be of, (n_rows, n_components).

        A row that has no modality, or in training loses all, gets a learned vector that stands
        for no condition.
        """
        tokens, known = self.gather(**inputs)
        return torch.where(self.kept(known)[:, None], self.fuse(tokens, known), self.nothing)
