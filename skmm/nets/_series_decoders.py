"""Networks that generate series from a memory: a length, and the values of all timestamps.

First the base class, then the two networks and their loss.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skmm.nets._layers import Perceptron, masked_mean, masked_softmax

__all__ = [
    "GRUSeriesDecoder",
    "SeriesDecoder",
    "SeriesLoss",
    "TransformerSeriesDecoder",
]

_N_WAVES = 16
_SLOWEST = 10_000


class SeriesDecoder(ABC, nn.Module):
    """Base class of networks that generate a series of any length, with attention to a memory.

    All timestamps are generated at once, each from its position and the memory. Scale and level of
    a series are predicted separately from its shape.

    Parameters
    ----------
    n_channels : int
        Number of channels of the series.
    width : int
        Length of the vectors of the memory.
    position : {"steps", "share"}, default="steps"
        Position of a timestamp: its number, or its number as a share of the length.
    """

    rates: Tensor

    def __init__(self, n_channels: int, width: int, *, position: str = "steps"):
        super().__init__()
        self.n_channels = n_channels
        self.width = width
        self.position = position
        half = (width + 1) // 2
        if (
            position == "steps"
        ):  # wavelengths from two steps, the shortest possible, to very long ones
            rates = math.pi * _SLOWEST ** (-torch.arange(half) / half)
        else:  # half waves over the length
            rates = math.pi * torch.arange(1, _N_WAVES + 1)
        self.register_buffer("rates", rates, persistent=False)
        self.place = nn.Linear(2 * len(rates), width)
        self.length = Perceptron(width, 1, hidden_sizes=(width,))
        # Before training the scale is one and the level zero.
        self.scale = nn.Linear(width, 2 * n_channels)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def places(self, lengths: Tensor, n_steps: int) -> Tensor:
        """Return a vector for each position, (n_rows, n_steps, width)."""
        steps = torch.arange(n_steps, device=lengths.device)[None]
        if self.position == "share":
            steps = steps / (lengths[:, None] - 1).clamp(min=1)
        angles = steps[:, :, None] * self.rates
        places: Tensor = self.place(torch.cat([angles.sin(), angles.cos()], dim=2))
        return places.expand(len(lengths), -1, -1)

    def predict_length(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Predict the length of each row's series, (n_rows,), in units of the training.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            Vectors that are attended to.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where a vector exists; at least once in each row.
        """
        length: Tensor = self.length(masked_mean(memory, mask))
        return length.squeeze(1)

    def forward(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return series (n_rows, n_steps, n_channels) with the length of the longest.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            Vectors that are attended to.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where a vector exists; at least once in each row.
        lengths : Tensor of shape (n_rows,), int
            Length of each series, at least one; values after it have no meaning.
        """
        scale: Tensor = self.scale(masked_mean(memory, mask))
        log_scale, level = scale[:, None].chunk(2, dim=2)
        return log_scale.exp() * self.shapes(memory, mask, lengths) + level

    @abstractmethod
    def shapes(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return the series that ``forward`` scales and shifts."""


class GRUSeriesDecoder(SeriesDecoder):
    """A GRU over positions, whose outputs attend to the memory [1]_.

    Its initial state is computed from the mean of the memory. Values are not fed back.

    Parameters
    ----------
    n_channels : int
        Number of channels of the series.
    width : int
        Units of each layer and length of the memory's vectors.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    n_layers : int, default=1
        Number of recurrent layers.
    position : {"steps", "share"}, default="steps"
        Position of a timestamp: its number, or its number as a share of the length.

    References
    ----------
    .. [1] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._series_decoders import GRUSeriesDecoder
    >>> decoder = GRUSeriesDecoder(2, 16)
    >>> memory, mask = torch.ones(2, 3, 16), torch.ones(2, 3).bool()
    >>> decoder(memory, mask, torch.tensor([7, 4])).shape
    torch.Size([2, 7, 2])
    """

    def __init__(
        self,
        n_channels: int,
        width: int,
        *,
        dropout: float = 0.0,
        n_layers: int = 1,
        position: str = "steps",
    ):
        super().__init__(n_channels, width, position=position)
        self.n_layers = n_layers
        self.begin = nn.Linear(width, n_layers * width)
        self.gru = nn.GRU(
            width, width, n_layers, batch_first=True, dropout=dropout if n_layers > 1 else 0.0
        )
        self.query = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Sequential(nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, n_channels))

    def shapes(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return series (n_rows, n_steps, n_channels) before scaling and shifting."""
        mean = masked_mean(memory, mask)
        hidden = torch.tanh(self.begin(mean))
        hidden = torch.unflatten(hidden, 1, (self.n_layers, self.width))
        places = self.places(lengths, int(lengths.max())) + mean[:, None]
        outputs, _ = self.gru(places, hidden.transpose(0, 1).contiguous())
        scores = self.query(outputs) @ memory.transpose(1, 2) * self.width**-0.5
        found = masked_softmax(scores, mask[:, None], dim=2) @ memory
        shapes: Tensor = self.out(self.mix(torch.cat([outputs, found], dim=2)))
        return shapes


class TransformerSeriesDecoder(SeriesDecoder):
    """A transformer whose queries, one per position, attend to each other and to the memory [1]_.

    It is not autoregressive: values are not fed back [2]_.

    Parameters
    ----------
    n_channels : int
        Number of channels of the series.
    width : int
        Width of the layers and length of the memory's vectors, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=2
        Number of layers.
    position : {"steps", "share"}, default="steps"
        Position of a timestamp: its number, or its number as a share of the length.

    References
    ----------
    .. [1] Carion et al. (2020), "End-to-end object detection with transformers", ECCV.
    .. [2] Gu, Bradbury, Xiong, Li, Socher (2018), "Non-autoregressive neural machine translation",
       ICLR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._series_decoders import TransformerSeriesDecoder
    >>> decoder = TransformerSeriesDecoder(2, 16)
    >>> memory, mask = torch.ones(2, 3, 16), torch.ones(2, 3).bool()
    >>> decoder(memory, mask, torch.tensor([7, 4])).shape
    torch.Size([2, 7, 2])
    >>> decoder.predict_length(memory, mask).shape
    torch.Size([2])
    """

    def __init__(
        self,
        n_channels: int,
        width: int,
        *,
        dropout: float = 0.0,
        n_heads: int = 4,
        n_layers: int = 2,
        position: str = "steps",
    ):
        if width % n_heads or width < 2:
            raise ValueError(
                f"TransformerSeriesDecoder needs a width of at least 2 that is a multiple of"
                f" n_heads, got {width} and n_heads={n_heads}."
            )
        super().__init__(n_channels, width, position=position)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width,
                n_heads,
                4 * width,
                dropout=dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(n_layers)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_channels))

    def shapes(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return series (n_rows, n_steps, n_channels) before scaling and shifting."""
        n_steps = int(lengths.max())
        x = self.places(lengths, n_steps)
        absent = torch.arange(n_steps, device=lengths.device) >= lengths[:, None]
        for layer in self.layers:
            x = layer(x, memory, tgt_key_padding_mask=absent, memory_key_padding_mask=~mask)
        shapes: Tensor = self.out(x)
        return shapes


class SeriesLoss(nn.Module):
    """Squared error of the known values, summed over a series, plus that of its length.

    The sum is divided by one number for all series, so that each value has the same weight, in
    short and long series.

    Parameters
    ----------
    mean_known : float, default=1.0
        Mean number of known values in a series.

    Examples
    --------
    Two series of one channel, each after its length; the second one has a gap and is shorter:

    >>> import torch
    >>> from skmm.nets._series_decoders import SeriesLoss
    >>> unknown = torch.nan
    >>> target = torch.tensor([[0.0, 1.0, 2.0, 3.0], [1.0, unknown, 2.0, unknown]])
    >>> SeriesLoss(2.0)(torch.zeros(2, 4, 1), target[:, :, None])
    tensor([7., 3.])
    """

    def __init__(self, mean_known: float = 1.0):
        super().__init__()
        self.mean_known = mean_known

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each series.

        Parameters
        ----------
        outputs : Tensor of shape (n_rows, 1 + n_steps, n_channels)
            Lengths, in the first channel of the first step, followed by the series.
        target : Tensor of shape (n_rows, 1 + at least n_steps, n_channels)
            The same, NaN where unknown, as all values after ``n_steps`` are.

        Returns
        -------
        loss : Tensor of shape (n_rows,)
            Nonnegative losses.
        """
        target = target[:, : outputs.shape[1]]
        known = ~torch.isnan(target)
        # Not a product with the mask: its gradient would be NaN where the target is.
        errors = torch.where(known, outputs - torch.where(known, target, 0.0), 0.0) ** 2
        return errors[:, 1:].sum(dim=(1, 2)) / self.mean_known + errors[:, 0].sum(dim=1)
