"""A recurrent network over time series, trained from scratch."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skmm.backbones._base import Encoded
from skmm.backbones._pooling import pool_tokens
from skmm.backbones._series import SeriesBackbone

__all__ = ["SeriesGRU"]


class SeriesGRU(SeriesBackbone):
    """Bidirectional GRU over the timestamps of a series, to be trained from scratch.

    A gated recurrent network [1]_ reads the series from both ends; the largest value of each
    state over time is the pooled vector. Weights are drawn from torch's current generator.

    Parameters
    ----------
    n_channels : int
        Number of channels.
    n_components : int, default=128
        Length of the tokens and of the pooled vector.
    n_layers : int, default=1
        Number of recurrent layers.

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the states at the timestamps.

    References
    ----------
    .. [1] Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones import SeriesGRU
    >>> model = SeriesGRU(2, n_components=16)
    >>> cells = [np.ones((50, 2), dtype=np.float32), np.zeros((1, 2), dtype=np.float32)]
    >>> encoded = model(**model.collate(cells))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 50, 16]), torch.Size([2, 16]))
    """

    def __init__(self, n_channels: int, *, n_components: int = 128, n_layers: int = 1):
        super().__init__(n_channels)
        if n_components < 1 or n_layers < 1:
            raise ValueError(
                f"{type(self).__name__}: n_components and n_layers must be positive, got"
                f" {n_components} and {n_layers}."
            )
        self.width = n_components
        n_states = -(-n_components // 2)  # of each direction
        self.gru = nn.GRU(n_channels, n_states, n_layers, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * n_states, n_components)

    def forward(self, *, series: Tensor, lengths: Tensor) -> Encoded:  # type: ignore[override]
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
            A token for every timestamp, up to the longest series of the batch.
        """
        scaled, mask = self.scaled(series, lengths)
        if not len(scaled):
            empty = self.project.weight.new_zeros(*mask.shape, self.width)
            return Encoded(empty, mask, empty.sum(dim=1))
        steps = lengths.clamp(min=1).cpu()
        packed = pack_padded_sequence(scaled, steps, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        tokens = self.project(states)
        return Encoded(tokens, mask, pool_tokens(tokens, mask, "max"))
