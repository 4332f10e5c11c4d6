"""The contract of a network that draws series: a memory in, a length and values out."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skmm.nets._layers import masked_mean
from skmm.nets._perceptron import Perceptron

__all__ = ["SeriesDecoder"]

_N_WAVES = 16
_SLOWEST = 10_000


class SeriesDecoder(ABC, nn.Module):
    """Base of the networks that draw a series of any length, looking at a memory.

    All steps are drawn at once, each from its place and what it sees of the memory. Height and
    level of a series are found apart from its shape.

    Parameters
    ----------
    n_channels : int
        Values of a step.
    width : int
        Length of the vectors of the memory.
    position : {"steps", "share"}, default="steps"
        What a step is told of its place: the steps before it, or their share of the length.
    """

    rates: Tensor

    def __init__(self, n_channels: int, width: int, *, position: str = "steps"):
        super().__init__()
        self.n_channels = n_channels
        self.width = width
        self.position = position
        half = (width + 1) // 2
        if position == "steps":  # from two steps a wave, the fastest there is, to very slow ones
            rates = math.pi * _SLOWEST ** (-torch.arange(half) / half)
        else:  # half waves over the length
            rates = math.pi * torch.arange(1, _N_WAVES + 1)
        self.register_buffer("rates", rates, persistent=False)
        self.place = nn.Linear(2 * len(rates), width)
        self.length = Perceptron(width, 1, hidden_sizes=(width,))
        # Height one and level zero before anything is learned.
        self.scale = nn.Linear(width, 2 * n_channels)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def places(self, lengths: Tensor, n_steps: int) -> Tensor:
        """Return a vector for each place, (n_rows, n_steps, width)."""
        steps = torch.arange(n_steps, device=lengths.device)[None]
        if self.position == "share":
            steps = steps / (lengths[:, None] - 1).clamp(min=1)
        angles = steps[:, :, None] * self.rates
        places = self.place(torch.cat([angles.sin(), angles.cos()], dim=2))
        return places.expand(len(lengths), -1, -1)

    def predict_length(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Return the length of each row's series, (n_rows,), in units of the training.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            What is looked at.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where it exists; at least once in each row.
        """
        return self.length(masked_mean(memory, mask)).squeeze(1)

    def forward(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return series (n_rows, n_steps, n_channels), of as many steps as the longest has.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            What is looked at.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where it exists; at least once in each row.
        lengths : Tensor of shape (n_rows,), int
            Steps of each series, at least one; what stands behind them is of no meaning.
        """
        height, level = self.scale(masked_mean(memory, mask))[:, None].chunk(2, dim=2)
        return height.exp() * self.shapes(memory, mask, lengths) + level

    @abstractmethod
    def shapes(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return what ``forward`` brings to each series' height and level."""
