"""Base class of models of time series: interpolation of gaps, standardization, padding."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Backbone

__all__ = ["SeriesBackbone", "fill_gaps"]

_N_TARGET_SEGMENTS = 16


def fill_gaps(series: np.ndarray, default: np.ndarray) -> np.ndarray:
    """Interpolate missing values linearly in time.

    Parameters
    ----------
    series : ndarray of shape (n_timestamps, n_channels), float32
        NaN where a value is missing.
    default : ndarray of shape (n_channels,)
        Values of channels without any observed value.

    Returns
    -------
    series : ndarray of shape (n_timestamps, n_channels), float32
        Array without NaN. The first and the last observed value are extended to the ends. The
        input itself if it has no gaps.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._series import fill_gaps
    >>> gaps = np.array([[np.nan], [1], [np.nan], [np.nan], [4], [np.nan]], dtype=np.float32)
    >>> fill_gaps(gaps, np.zeros(1)).ravel().tolist()
    [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    """
    missing = np.isnan(series)
    if not missing.any():
        return series
    filled = series.copy()
    timestamps = np.arange(len(series))
    for channel in np.flatnonzero(missing.any(axis=0)):
        gap = missing[:, channel]
        filled[gap, channel] = (
            default[channel]
            if gap.all()
            else np.interp(timestamps[gap], timestamps[~gap], series[~gap, channel])
        )
    return filled


class SeriesBackbone(Backbone):
    """Base class of models of time series.

    Channels are standardized with the mean and the standard deviation of the training cells
    (:meth:`fit_scale`). Gaps are interpolated (:func:`fill_gaps`), and channels without any
    value get their training mean. Padding is zero, so its length does not change the output.

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
            raise ValueError(
                f"{type(self).__name__}: n_channels must be positive, got {n_channels}."
            )
        self.n_channels = n_channels
        self.register_buffer("center", torch.zeros(n_channels))
        self.register_buffer("spread", torch.ones(n_channels))

    def fit_scale(self, cells: Sequence[np.ndarray]) -> None:
        """Compute the mean and the standard deviation of each channel.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_timestamps, n_channels)
            Training cells; NaN are ignored.
        """
        n = sum(np.count_nonzero(~np.isnan(cell), axis=0) for cell in cells)
        n = np.maximum(n, 1)
        center = sum(np.nansum(cell, axis=0, dtype=np.float64) for cell in cells) / n
        # In a second pass: a difference of sums would be inexact where the mean is large.
        squares = sum(np.nansum(np.square(cell - center), axis=0) for cell in cells)
        spread = np.sqrt(squares / n)
        # A channel that is constant up to rounding is not scaled.
        constant = spread <= 1e-6 * np.abs(center)
        self.center = torch.from_numpy(np.asarray(center, dtype=np.float32))
        self.spread = torch.from_numpy(np.where(constant, 1.0, spread).astype(np.float32))

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Fill the gaps of series and pad them at the end.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_timestamps, n_channels), float32
            Series of any length, NaN where a value is missing.

        Returns
        -------
        tensors : dict of str to Tensor
            ``series``, float32 of shape (n_cells, n_timestamps, n_channels), zero-padded to the
            longest, and ``lengths``, int64 of shape (n_cells,).
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
        """Standardize the channels and remove padding beyond the longest series of the batch.

        Parameters
        ----------
        series : Tensor of shape (n_cells, n_timestamps, n_channels)
            Output of ``collate``.
        lengths : Tensor of shape (n_cells,), int64
            Output of ``collate``.

        Returns
        -------
        series : Tensor of shape (n_cells, n_longest, n_channels)
            Zero where the mask is False.
        mask : BoolTensor of shape (n_cells, n_longest)
            True for timestamps of the series, False for padding.
        """
        # At least one timestamp, also in a batch of empty series; its mask stays False.
        longest = max(1, int(lengths.max())) if len(lengths) else 1
        series = series[:, :longest]
        mask = torch.arange(longest, device=series.device) < lengths[:, None]
        series = (series - self.center) / self.spread
        return torch.where(mask[..., None], series, 0.0), mask

    def reconstruction_target(self, *, series: Tensor, lengths: Tensor) -> Tensor:
        """Return the means of 16 segments of equal duration.

        Parameters
        ----------
        series : Tensor of shape (n_cells, n_timestamps, n_channels)
            Output of ``collate``.
        lengths : Tensor of shape (n_cells,), int64
            Output of ``collate``.

        Returns
        -------
        target : Tensor of shape (n_cells, 16 * n_channels)
            Standardized values, one segment with all channels after the other. Segments may begin
            and end between two timestamps.
        """
        scaled, _ = self.scaled(series, lengths)
        n, longest, n_channels = scaled.shape
        # Integral up to each edge of a segment: the sum of whole timestamps and a part of the next.
        before = nn.functional.pad(scaled.double().cumsum(dim=1), (0, 0, 1, 0))
        shares = torch.linspace(0, 1, _N_TARGET_SEGMENTS + 1, device=scaled.device)
        places = shares * lengths[:, None]  # (n, 17)
        whole = places.long().clamp(max=longest - 1)
        index = whole[..., None].expand(-1, -1, n_channels)
        part = (places - whole)[..., None] * scaled.gather(1, index)
        total = (before.gather(1, index) + part).diff(dim=1)
        duration = lengths.clamp(min=1)[:, None, None] / _N_TARGET_SEGMENTS
        return (total / duration).flatten(start_dim=1).to(scaled.dtype)
