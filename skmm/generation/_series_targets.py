"""Target series: read, checked, standardized, and arranged for the loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmm._frame._column import is_missing
from skmm._training._batches import Target
from skmm.nets._series_decoders import SeriesLoss

__all__ = ["SeriesTarget", "channel_means", "series_of_rows", "squared_error"]

_LARGEST = float(np.finfo(np.float32).max)
_WANTED = "a series, (n_steps,) or (n_steps, n_channels)"


def series_of_rows(y: object, n_rows: int, owner: str) -> tuple[list[np.ndarray | None], bool]:
    """Read the series of a target.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Series with the same number of channels; or an array of numbers, (n_samples, n_steps) or
        (n_samples, n_steps, n_channels).
    n_rows : int
        Number of rows of ``X``.
    owner : str
        Name of the caller, for messages.

    Returns
    -------
    series : list of ndarray of shape (n_steps, n_channels), float64
        NaN where a value is unknown; None where all values are.
    is_flat : bool
        Whether all have the shape (n_steps,).
    """
    cells = _cells(y, owner)
    if len(cells) != n_rows:
        raise ValueError(
            f"{owner}: X has {n_rows} rows and y has {len(cells)}. Give {_WANTED}, for each row."
        )
    missing = is_missing(np.fromiter(cells, dtype=object, count=len(cells)))
    series: list[np.ndarray | None] = [None] * n_rows
    is_flat, width = True, None
    for row, (cell, absent) in enumerate(zip(cells, missing, strict=True)):
        if absent:
            continue
        values = _numbers(cell, owner, row)
        is_flat &= values.ndim == 1
        own = values.reshape(len(values), -1)
        if width is not None and own.shape[1] != width:
            raise ValueError(
                f"{owner}: the series of y have {width} channels, that in row {row} (by position)"
                f" has {own.shape[1]}. Give all of them the same channels, NaN where one is"
                " unknown."
            )
        width = own.shape[1]
        series[row] = None if np.isnan(own).all() else own
    return series, is_flat


def _cells(y: Any, owner: str) -> list[Any]:
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None. Give {_WANTED}, for each"
            " row."
        )
    if isinstance(y, str | dict) or not hasattr(y, "__len__"):
        raise TypeError(
            f"{owner}: y must hold {_WANTED}, for each row, got {type(y).__name__}. For one row"
            " give a list of one."
        )
    if hasattr(y, "columns"):  # a frame: one column of cells, or one column per time step
        if y.shape[1] > 1:
            y = np.asarray(y)
        else:
            y = y.iloc[:, 0] if hasattr(y, "iloc") else np.asarray(y, dtype=object)[:, 0]
    elif isinstance(y, np.ndarray) and y.dtype.kind == "O" and y.shape[1:] == (1,):
        y = y[:, 0]
    return list(y)


def _numbers(cell: Any, owner: str, row: int) -> np.ndarray:
    given = f"{owner}: a cell of y must be {_WANTED}, or None,"
    place = f"in row {row} (by position)."
    if isinstance(cell, str | bytes | dict) or not hasattr(cell, "__len__"):
        raise TypeError(f"{given} got {type(cell).__name__} {place}")
    try:
        values = np.asarray(cell)
        if values.dtype == object or values.dtype.kind in "biuf":
            values = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{given} got one that holds no numbers ({error}) {place}") from error
    if values.dtype.kind != "f":
        raise TypeError(f"{given} got values of dtype {values.dtype} {place}")
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(f"{given} got an array of shape {values.shape} {place}")
    if (np.abs(values, where=~np.isnan(values), out=np.zeros(values.shape)) > _LARGEST).any():
        raise ValueError(
            f"{owner}: a value of y is infinite or beyond the range of float32 {place} Replace it,"
            " by NaN if it is not known."
        )
    return values


class SeriesTarget(Target):
    """Series as a target: a standardized length, followed by standardized values.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_channels,)
        Mean and standard deviation of the training values.
    prior : ndarray of shape (n_steps, n_channels)
        Mean of the training series at each time step, cut to their mean length.
    longest : int
        Length of the longest training series in time steps.
    mean_known : float
        Mean number of known values in a series.
    """

    mean: np.ndarray
    scale: np.ndarray
    prior: np.ndarray
    longest: int
    mean_known: float

    def learn(self, series: list[np.ndarray]) -> None:
        """Learn the scales from the training series."""
        values = np.concatenate(series)
        known = ~np.isnan(values)
        counts = np.maximum(known.sum(axis=0), 1)
        self.mean = np.where(known, values, 0.0).sum(axis=0) / counts
        centered = np.where(known, values - self.mean, 0.0)
        deviation = np.sqrt((centered**2).sum(axis=0) / counts)
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(self.mean)
        self.scale = np.where(constant, 1.0, deviation)
        self.mean_known = known.sum() / len(series)
        lengths = np.array([len(own) for own in series])
        self.longest = int(lengths.max())
        self.length_mean, self.length_scale = float(lengths.mean()), float(lengths.std())
        self.prior = self._prior(series)

    def _prior(self, series: list[np.ndarray]) -> np.ndarray:
        """Return the mean series; a step without any known value is the mean of its channel."""
        total = np.zeros((self.longest, len(self.mean)))
        counts = np.zeros(total.shape)
        for own in series:
            known = ~np.isnan(own)
            total[: len(own)] += np.where(known, own - self.mean, 0.0)
            counts[: len(own)] += known
        mean = self.mean + total / np.maximum(counts, 1)
        prior: np.ndarray = mean[: max(1, round(self.length_mean))]
        return prior

    def standardized(self, series: np.ndarray) -> np.ndarray:
        """Standardize the values of each channel."""
        values: np.ndarray = (series - self.mean) / self.scale
        return values

    def encode(self, series: list[np.ndarray]) -> np.ndarray:
        """Return the target of the loss, (n_series, 1 + longest, n_channels) float32.

        The standardized length is in the first channel of the first step; NaN is not compared.
        """
        target = np.full((len(series), 1 + self.longest, len(self.mean)), np.nan, dtype=np.float32)
        for row, own in enumerate(series):
            target[row, 0, 0] = (len(own) - self.length_mean) / (self.length_scale or 1.0)
            target[row, 1 : 1 + len(own)] = self.standardized(own)
        return target

    def lengths(self, outputs: np.ndarray, longest: int) -> np.ndarray:
        """Convert outputs of the network to lengths in time steps, from 1 to ``longest``."""
        lengths = self.length_mean + self.length_scale * outputs.astype(np.float64)
        return np.clip(np.rint(lengths), 1, longest).astype(np.int64)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Convert outputs of the network to a series, (n_steps, n_channels) float32."""
        series = self.mean + self.scale * outputs.astype(np.float64)
        values: np.ndarray = np.clip(series, -_LARGEST, _LARGEST).astype(np.float32)
        return values

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as a tensor for the loss."""
        return torch.from_numpy(encoded)

    def criterion(self) -> nn.Module:
        """Return the loss of each series."""
        return SeriesLoss(self.mean_known)


def squared_error(true: np.ndarray, guess: np.ndarray) -> float:
    """Sum the squared errors of a standardized series.

    Each series is continued by zeros after its end; NaN of the true series is left out.
    """
    n = max(len(true), len(guess))
    sides = []
    for own in (true, guess):
        padded = np.zeros((n, true.shape[1]))
        padded[: len(own)] = own
        sides.append(padded)
    return float(np.nansum((sides[0] - sides[1]) ** 2))


def channel_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of the known values of each channel."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    means: np.ndarray = total / np.maximum(known.sum(axis=0), 1)
    return means
