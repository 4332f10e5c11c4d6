"""Networks over time series, trained from scratch: InceptionTime and a GRU."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skmm.backbones._base import Encoded, pool_tokens
from skmm.backbones._series import SeriesBackbone

__all__ = ["InceptionTime", "SeriesGRU"]

_KERNEL_SIZES = (39, 19, 9)
_BLOCKS_PER_SHORTCUT = 3
_GROUP = 8  # minimum number of channels of a normalization group


class InceptionTime(SeriesBackbone):
    """InceptionTime network for time series, trained from scratch.

    A stack of inception blocks [1]_ with a shortcut around every three. A block concatenates
    convolutions over 39, 19 and 9 timestamps and a maximum over 3. Masked group normalization
    [2]_ replaces batch normalization, so that the features of a series depend neither on its
    batch nor on padding. Weights are sampled from torch's global generator.

    Parameters
    ----------
    n_channels : int
        Number of channels.
    n_components : int, default=128
        Length of the tokens and of the pooled vector.
    n_blocks : int, default=6
        Number of blocks.

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the timestamps, and the pooled vector is their mean.

    References
    ----------
    .. [1] Ismail Fawaz et al., "InceptionTime: finding AlexNet for time series classification",
       Data Mining and Knowledge Discovery 2020.
    .. [2] Wu, He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._series_networks import InceptionTime
    >>> model = InceptionTime(2, n_components=16)
    >>> cells = [np.ones((50, 2), dtype=np.float32), np.zeros((1, 2), dtype=np.float32)]
    >>> encoded = model(**model.collate(cells))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 50, 16]), torch.Size([2, 16]))
    >>> encoded.mask.sum(dim=1)
    tensor([50,  1])
    """

    def __init__(self, n_channels: int, *, n_components: int = 128, n_blocks: int = 6):
        super().__init__(n_channels)
        if n_components < 1 or n_blocks < 1:
            raise ValueError(
                f"{type(self).__name__}: n_components and n_blocks must be positive, got"
                f" {n_components} and {n_blocks}."
            )
        self.width = n_components
        self.blocks = nn.ModuleList()
        self.shortcuts = nn.ModuleList()
        for i in range(n_blocks):
            n_in = n_components if i else n_channels
            self.blocks.append(_InceptionBlock(n_in, n_components))
            if i % _BLOCKS_PER_SHORTCUT == _BLOCKS_PER_SHORTCUT - 1:
                first = i < _BLOCKS_PER_SHORTCUT
                self.shortcuts.append(_Shortcut(n_channels if first else n_components, self.width))

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
            One token per timestamp, up to the longest series of the batch.
        """
        scaled, mask = self.scaled(series, lengths)
        x = before = scaled.transpose(1, 2)  # (n_cells, n_channels, n_longest)
        for i, block in enumerate(self.blocks):
            x = block(x, mask)
            if i % _BLOCKS_PER_SHORTCUT == _BLOCKS_PER_SHORTCUT - 1:
                x = before = self.shortcuts[i // _BLOCKS_PER_SHORTCUT](before, x, mask)
        tokens = x.transpose(1, 2)
        return Encoded(tokens, mask, pool_tokens(tokens, mask, "mean"))


class _InceptionBlock(nn.Module):
    """Convolutions of several lengths and a maximum, concatenated."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        # Four branches; the first ones take the remainder of the division.
        sizes = [(n_out + 3 - branch) // 4 for branch in range(4)]
        n_narrow = max(1, n_out // 4)
        # Bottleneck: convolutions of full width would have four times the weights.
        self.narrow = nn.Conv1d(n_in, n_narrow, 1, bias=False) if n_in > 1 else nn.Identity()
        self.convs = nn.ModuleList(
            nn.Conv1d(n_narrow if n_in > 1 else n_in, n, size, padding=size // 2, bias=False)
            for n, size in zip(sizes, _KERNEL_SIZES, strict=False)
            if n
        )
        self.of_maximum = nn.Conv1d(n_in, sizes[3], 1, bias=False) if sizes[3] else None
        self.norm = _SeriesNorm(n_out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        is_timestamp = mask[:, None]
        narrow = self.narrow(x)  # padding stays zero: no bias
        branches = [conv(narrow) for conv in self.convs]
        if self.of_maximum is not None:
            # Zeros of padding must not become the maximum.
            largest = nn.functional.max_pool1d(
                x.masked_fill(~is_timestamp, -torch.inf), 3, stride=1, padding=1
            )
            branches.append(self.of_maximum(torch.where(is_timestamp, largest, 0.0)))
        x = torch.relu(self.norm(torch.cat(branches, dim=1), mask))
        return torch.where(is_timestamp, x, 0.0)


class _Shortcut(nn.Module):
    """Residual connection: add the input of some blocks to their output."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, 1, bias=False)
        self.norm = _SeriesNorm(n_out)

    def forward(self, before: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        x = torch.relu(x + self.norm(self.conv(before), mask))
        return torch.where(mask[:, None], x, 0.0)


class _SeriesNorm(nn.Module):
    """Group normalization over the timestamps of each series, without padding."""

    def __init__(self, n_channels: int):
        super().__init__()
        self.n_groups = max(1, n_channels // _GROUP)
        while n_channels % self.n_groups:
            self.n_groups -= 1
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n_channels = x.shape[1]
        if n_channels > 1:  # one channel of a series of one timestamp would become zero
            # (n, n_groups, n_of_group, t)
            grouped = x.reshape(len(x), self.n_groups, n_channels // self.n_groups, x.shape[2])
            is_timestamp = mask[:, None, None]
            n = (mask.sum(dim=1) * grouped.shape[2]).clamp(min=1)[:, None, None, None]
            mean = torch.where(is_timestamp, grouped, 0.0).sum(dim=(2, 3), keepdim=True) / n
            grouped = torch.where(is_timestamp, grouped - mean, 0.0)
            variance = grouped.square().sum(dim=(2, 3), keepdim=True) / n
            x = (grouped * (variance + 1e-5).rsqrt()).flatten(1, 2)
        return x * self.weight[:, None] + self.bias[:, None]


class SeriesGRU(SeriesBackbone):
    """Bidirectional GRU over the timestamps of a series, trained from scratch.

    A bidirectional gated recurrent network [1]_ reads the series, and the maximum of the
    projected states over time is the pooled vector. Weights are sampled from torch's global
    generator.

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
        ``n_components``. Tokens are the projected states of the timestamps.

    References
    ----------
    .. [1] Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._series_networks import SeriesGRU
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
            One token per timestamp, up to the longest series of the batch.
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
