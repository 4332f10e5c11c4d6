"""Random convolution features of time series, without training."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Encoded
from skmm.backbones._series import SeriesBackbone

__all__ = ["MiniRocket"]

_LENGTH = 9  # of a kernel
_KERNELS = list(combinations(range(_LENGTH), 3))  # positions where a kernel is 2; others are -1
_N_KERNELS = len(_KERNELS)
_MAX_CHANNELS = 9  # of one kernel
_MAX_DILATIONS = 32
_GOLDEN_RATIO = (5**0.5 + 1) / 2
# Added to every threshold, in standard deviations of a channel: the convolution of a constant
# series is constant up to rounding errors, which must not determine the feature.
_SLACK = 1e-4
_AT_ONCE = 2**22  # values in memory: inputs or results of convolutions


class MiniRocket(SeriesBackbone):
    """Random convolution features of time series, for several channels and any length.

    A series is convolved with 84 fixed kernels under several dilations, and a feature is the
    share of timestamps at which the result exceeds a threshold [1]_. :meth:`fit` computes the
    scale of the channels, the dilations, from the median length of the training cells, and the
    thresholds, which are quantiles of the convolution of a random training cell. With several
    channels, each kernel is applied to the sum of a random subset of them. No weight is trained.

    Parameters
    ----------
    n_channels : int
        Number of channels.
    n_kernels : int, default=10_000
        Number of features, rounded down to a multiple of 84, at least 84.

    Attributes
    ----------
    width : int
        Number of features.
    dilations : list of int
        Dilations, computed by :meth:`fit`.
    counts : list of int
        Number of thresholds of each kernel, per dilation.

    Notes
    -----
    For half of the kernels the series is padded with zeros, which are the means of the channels.
    The other half is applied only where the kernel is within the series; a series shorter than
    the kernel is padded here too. A series is one token, since its features have no position in
    time.

    References
    ----------
    .. [1] Dempster, Schmidt, Webb, "MiniRocket: a very fast (almost) deterministic transform for
       time series classification", KDD 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._minirocket import MiniRocket
    >>> cells = [np.sin(np.arange(n, dtype=np.float32))[:, None] for n in (40, 50, 1)]
    >>> model = MiniRocket(1, n_kernels=500).fit(cells, np.random.RandomState(0))
    >>> model(**model.collate(cells)).pooled.shape
    torch.Size([3, 420])
    """

    kernels: Tensor
    channels: Tensor
    thresholds: Tensor

    def __init__(self, n_channels: int, *, n_kernels: int = 10_000):
        super().__init__(n_channels)
        self.n_thresholds = max(1, n_kernels // _N_KERNELS)  # of each kernel
        self.width = _N_KERNELS * self.n_thresholds
        kernels = torch.full((_N_KERNELS, _LENGTH), -1.0)
        for k, places in enumerate(_KERNELS):
            kernels[k, list(places)] = 2.0
        self.register_buffer("kernels", kernels)
        self.dilations: list[int] = []
        self.counts: list[int] = []

    def fit(self, cells: Sequence[np.ndarray], rng: np.random.RandomState) -> "MiniRocket":
        """Compute scale, dilations and thresholds, and sample the channels of each kernel.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_timestamps, n_channels), float32
            Training cells.
        rng : RandomState
            Source of the training cells for thresholds, and of the channels.

        Returns
        -------
        self : MiniRocket
            The fitted model.
        """
        self.fit_scale(cells)
        self._choose_dilations(float(np.median([len(cell) for cell in cells])))
        self.register_buffer("channels", torch.from_numpy(self._sample_channels(rng)))
        quantiles = np.arange(1, self.width + 1) * _GOLDEN_RATIO % 1
        thresholds = np.empty((_N_KERNELS, self.n_thresholds), dtype=np.float32)
        first = 0  # first threshold of this dilation
        for d, count in enumerate(self.counts):
            drawn = rng.randint(len(cells), size=_N_KERNELS)
            levels = quantiles[first * _N_KERNELS :][: count * _N_KERNELS]
            for k, levels_of_k in enumerate(levels.reshape(_N_KERNELS, count)):
                x, _ = self.scaled(**self.collate([cells[drawn[k]]]))
                # At most the first values of a very long series.
                values = self._convolved(x, d, slice(k, k + 1))[0, 0]
                n = len(values)
                start = int(self._starts(torch.tensor([n]), d)[0, k])
                inside = values[start : n - start].numpy()
                thresholds[k, first : first + count] = np.quantile(inside, levels_of_k)
            first += count
        self.register_buffer("thresholds", torch.from_numpy(thresholds + np.float32(_SLACK)))
        return self

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
            One token per series: its features.
        """
        scaled, _ = self.scaled(series, lengths)
        n_rows = max(1, self._n_at_once() // scaled.shape[1])
        parts = [
            self._features(scaled[i : i + n_rows], lengths[i : i + n_rows])
            for i in range(0, len(scaled), n_rows)
        ]
        pooled = torch.cat(parts) if parts else scaled.new_zeros(0, self.width)
        return Encoded(pooled[:, None], (lengths > 0)[:, None], pooled)

    def _features(self, scaled: Tensor, lengths: Tensor) -> Tensor:
        """Return the share of the timestamps above each threshold, (n, width)."""
        n, longest, _ = scaled.shape
        shares = scaled.new_zeros(n, _N_KERNELS, self.n_thresholds)
        first = 0
        for d, count in enumerate(self.counts):
            starts = self._starts(lengths, d)  # (n, 84)
            stops = lengths[:, None] - starts
            for begin in range(0, longest, self._n_at_once()):
                values = self._convolved(scaled, d, begin=begin)
                at = torch.arange(begin, begin + values.shape[2], device=scaled.device)
                inside = (at >= starts[..., None]) & (at < stops[..., None])
                values.masked_fill_(~inside, -torch.inf)
                for j in range(first, first + count):
                    shares[:, :, j] += (values > self.thresholds[:, j, None]).sum(dim=2)
            n_inside = (stops - starts).clamp(min=1)
            shares[:, :, first : first + count] /= n_inside[..., None]
            first += count
        return shares.flatten(start_dim=1)

    def _convolved(
        self, scaled: Tensor, d: int, kernels: slice = slice(None), *, begin: int = 0
    ) -> Tensor:
        """Convolve (n, n_timestamps, n_channels) with a dilation to (n, n_kernels, n_values).

        Computed as a matrix product of nine shifted copies: convolutions on a GPU have a lower
        precision, and values near a threshold would then depend on the device.
        """
        end = min(scaled.shape[1], begin + self._n_at_once())
        dilation = self.dilations[d]
        reach = _LENGTH // 2 * dilation
        left, right = begin - reach, end + reach
        x = scaled[:, max(0, left) : right].transpose(1, 2)  # (n, n_channels, n)
        x = nn.functional.pad(x, (max(0, -left), max(0, right - scaled.shape[1])))
        shifted = [x[:, :, j * dilation : j * dilation + end - begin] for j in range(_LENGTH)]
        weights = self.channels[d, kernels, :, None] * self.kernels[kernels, None, :]
        return weights.flatten(start_dim=1) @ torch.stack(shifted, dim=2).flatten(1, 2)

    def _n_at_once(self) -> int:
        """Return the number of timestamps that are convolved at a time."""
        return max(1, _AT_ONCE // max(_N_KERNELS, _LENGTH * self.n_channels))

    def _starts(self, lengths: Tensor, d: int) -> Tensor:
        """Return the number of timestamps ignored by each kernel at either end, (n, 84)."""
        reach = _LENGTH // 2 * self.dilations[d]
        kernel = torch.arange(_N_KERNELS, device=lengths.device)
        cut = ((kernel + d) % 2 == 1) & (lengths > 2 * reach)[:, None]
        return torch.where(cut, reach, 0)

    def _choose_dilations(self, length: float) -> None:
        """Choose dilations on a log scale, up to kernels as long as the series."""
        n = min(self.n_thresholds, _MAX_DILATIONS)
        largest = max(0.0, np.log2(max(1.0, length - 1) / (_LENGTH - 1)))
        dilations, counts = np.unique(
            np.logspace(0, largest, n, base=2.0).astype(np.int64), return_counts=True
        )
        counts = counts * self.n_thresholds // n
        counts[: self.n_thresholds - counts.sum()] += 1
        self.dilations, self.counts = dilations.tolist(), counts.tolist()

    def _sample_channels(self, rng: np.random.RandomState) -> np.ndarray:
        """Return 1 for the channels of each kernel, (n_dilations, 84, n_channels), float32."""
        used = np.zeros((len(self.dilations), _N_KERNELS, self.n_channels), dtype=np.float32)
        most = np.log2(min(self.n_channels, _MAX_CHANNELS) + 1)
        for of_kernel in used.reshape(-1, self.n_channels):
            n = min(int(2.0 ** rng.uniform(0, most)), self.n_channels)
            of_kernel[rng.choice(self.n_channels, n, replace=False)] = 1.0
        return used
