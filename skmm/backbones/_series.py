"""What the models of time series share: gaps, a common scale, padding that is never seen."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Backbone

__all__ = ["SeriesBackbone", "fill_gaps"]

_N_TARGET_SEGMENTS = 16


def fill_gaps(series: np.ndarray, default: np.ndarray) -> np.ndarray:
    """Interpolate unknown values linearly in time.

    Parameters
    ----------
    series : ndarray of shape (n_timestamps, n_channels), float32
        NaN where a value is unknown.
    default : ndarray of shape (n_channels,)
        What a channel holds that has no value at all.

    Returns
    -------
    series : ndarray of shape (n_timestamps, n_channels), float32
        Without NaN; before the first and after the last known value stands that value. The very
        array where there are no gaps.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._series import fill_gaps
    >>> gaps = np.array([[np.nan], [1], [np.nan], [np.nan], [4], [np.nan]], dtype=np.float32)
    >>> fill_gaps(gaps, np.zeros(1)).ravel().tolist()
    [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    """
    unknown = np.isnan(series)
    if not unknown.any():
        return series
    filled = series.copy()
    timestamps = np.arange(len(series))
    for channel in np.flatnonzero(unknown.any(axis=0)):
        gap = unknown[:, channel]
        filled[gap, channel] = (
            default[channel]
            if gap.all()
            else np.interp(timestamps[gap], timestamps[~gap], series[~gap, channel])
        )
    return filled


class SeriesBackbone(Backbone):
    """Base of the models of time series.

    Channels are brought to mean zero and variance one by what :meth:`fit_scale` found in the
    training cells, gaps are interpolated (:func:`fill_gaps`), and a channel without any value is
    its training mean. After the end of a series stand zeros, as before its start: how far a
    batch is padded changes nothing.

    Parameters
    ----------
    n_channels : int
        Number of channels.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, n_channels: int):
        super().__init__()
        if n_channels < 1:
            raise ValueError(f"{type(self).__name__}: n_channels must be positive: {n_channels}.")
        self.n_channels = n_channels
        self.register_buffer("center", torch.zeros(n_channels))
        self.register_buffer("spread", torch.ones(n_channels))

    def fit_scale(self, cells: Sequence[np.ndarray]) -> None:
        """Find the mean and the standard deviation of each channel.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_timestamps, n_channels)
            Training cells; NaN are left out.
        """
        n = sum(np.count_nonzero(~np.isnan(cell), axis=0) for cell in cells)
        n = np.maximum(n, 1)
        center = sum(np.nansum(cell, axis=0, dtype=np.float64) for cell in cells) / n
        # In a second pass, for the mean may be far larger than the spread.
        squares = sum(np.nansum(np.square(cell - center), axis=0) for cell in cells)
        spread = np.sqrt(squares / n)
        # A channel that is constant up to rounding has nothing to be scaled to.
        constant = spread <= 1e-6 * np.abs(center)
        self.center = torch.from_numpy(np.asarray(center, dtype=np.float32))
        self.spread = torch.from_numpy(np.where(constant, 1.0, spread).astype(np.float32))

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Fill the gaps of series and pad them at the end.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_timestamps, n_channels), float32
            Series of any length, NaN where a value is unknown.

        Returns
        -------
        tensors : dict of str to Tensor
            ``series``, float32 of shape (n_cells, n_timestamps, n_channels) with the timestamps
            of the longest, and ``lengths``, int64 of shape (n_cells,).
        """
        default = self.center.cpu().numpy()
        lengths = [len(cell) for cell in cells]
        series = np.zeros((len(cells), max(lengths, default=1), self.n_channels), np.float32)
        for i, cell in enumerate(cells):
            series[i, : lengths[i]] = fill_gaps(cell, default)
        return {
            "series": torch.from_numpy(series),
            "lengths": torch.tensor(lengths, dtype=torch.int64),
        }

    def scaled(self, series: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Bring channels to one scale, cut what pads every series of the batch.

        Parameters
        ----------
        series : Tensor of shape (n_cells, n_timestamps, n_channels)
            What ``collate`` gave.
        lengths : Tensor of shape (n_cells,), int64
            What ``collate`` gave.

        Returns
        -------
        series : Tensor of shape (n_cells, n_longest, n_channels)
            Zero where the mask is False.
        mask : BoolTensor of shape (n_cells, n_longest)
            True where there is a timestamp.
        """
        # A row of nothing but padding still has to be of some length; its mask stays False.
        longest = max(1, int(lengths.max())) if len(lengths) else 1
        series = series[:, :longest]
        mask = torch.arange(longest, device=series.device) < lengths[:, None]
        series = (series - self.center) / self.spread
        return torch.where(mask[..., None], series, 0.0), mask

    def reconstruction_target(self, *, series: Tensor, lengths: Tensor) -> Tensor:
        """Give the means of 16 segments of equal duration.

        Parameters
        ----------
        series : Tensor of shape (n_cells, n_timestamps, n_channels)
            What ``collate`` gave.
        lengths : Tensor of shape (n_cells,), int64
            What ``collate`` gave.

        Returns
        -------
        target : Tensor of shape (n_cells, 16 * n_channels)
            Scaled values; all channels of a segment, then the next. A segment may begin and end
            between two timestamps.
        """
        scaled, _ = self.scaled(series, lengths)
        n, longest, n_channels = scaled.shape
        # What lies before any place in time: the whole timestamps, and a part of the next.
        before = nn.functional.pad(scaled.double().cumsum(dim=1), (0, 0, 1, 0))
        shares = torch.linspace(0, 1, _N_TARGET_SEGMENTS + 1, device=scaled.device)
        places = shares * lengths[:, None]  # (n, 17)
        whole = places.long().clamp(max=longest - 1)
        index = whole[..., None].expand(-1, -1, n_channels)
        part = (places - whole)[..., None] * scaled.gather(1, index)
        total = (before.gather(1, index) + part).diff(dim=1)
        duration = lengths.clamp(min=1)[:, None, None] / _N_TARGET_SEGMENTS
        return (total / duration).flatten(start_dim=1).to(scaled.dtype)
