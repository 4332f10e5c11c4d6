"""A recurrent network that draws a series, with attention to the memory."""

import torch
from torch import Tensor, nn

from skmm.nets._layers import masked_mean, masked_softmax
from skmm.nets._series_decoders import SeriesDecoder

__all__ = ["GRUSeriesDecoder"]


class GRUSeriesDecoder(SeriesDecoder):
    """A GRU that is told each place, and whose outputs look at the memory [1]_.

    It begins with the mean of the memory. Values are not fed back.

    Parameters
    ----------
    n_channels : int
        Values of a step.
    width : int
        Units of each layer and length of the memory's vectors.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    n_layers : int, default=1
        Number of recurrent layers.
    position : {"steps", "share"}, default="steps"
        What a step is told of its place: the steps before it, or their share of the length.

    References
    ----------
    .. [1] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import GRUSeriesDecoder
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
        """Return series (n_rows, n_steps, n_channels) before height and level are put in."""
        mean = masked_mean(memory, mask)
        hidden = torch.tanh(self.begin(mean)).unflatten(1, (self.n_layers, self.width))
        places = self.places(lengths, int(lengths.max())) + mean[:, None]
        outputs, _ = self.gru(places, hidden.transpose(0, 1).contiguous())
        scores = self.query(outputs) @ memory.transpose(1, 2) * self.width**-0.5
        found = masked_softmax(scores, mask[:, None], dim=2) @ memory
        return self.out(self.mix(torch.cat([outputs, found], dim=2)))
