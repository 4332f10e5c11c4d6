"""What a fitted series generator does: draws and scores."""

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skmm._frame._column import n_rows
from skmm.generation._series_targets import series_of_rows
from skmm.generation._series_training import BaseSeries

__all__ = ["SeriesDrawer"]


class SeriesDrawer(BaseSeries):
    """The methods of a series generator beside ``fit``."""

    def predict(self, X: Any) -> np.ndarray:
        """Draw a series for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        series : ndarray of shape (n_samples,), object
            Arrays of shape (n_steps, n_channels), or (n_steps,) if those of ``fit`` were so,
            float32. A row that lacks every modality gets the mean of the training series.
        """
        check_is_fitted(self, "module_")
        self._validate_params()  # max_length may have been set after fit
        X = self._check_frame(X, reset=False)
        longest = self.max_length or self.max_length_
        found = np.empty(n_rows(X), dtype=object)
        for row in range(len(found)):
            found[row] = self._shaped(self._code.prior[:longest].astype(np.float32))
        device = self._placed()
        inputs = self._inputs.tensors(X)
        present = self._inputs.present(inputs)
        self._refuse_empty(present)
        rows = np.flatnonzero(present.any(axis=1))
        for some, batch in self._batches(inputs, rows, device):
            with self._threads(), torch.inference_mode():
                drawn = self._draw(batch, longest)
            for row, own in zip(some, drawn, strict=True):
                found[row] = self._shaped(own)
        return found

    def _draw(self, batch: dict[str, torch.Tensor], longest: int) -> list[np.ndarray]:
        """Series of the rows of a batch, (n_steps, n_channels) each."""
        seen = self.module_.see(**batch)
        told = self.module_.head.predict_length(*seen).cpu().numpy()
        lengths = self._code.lengths(told, longest)
        values = self.module_.head(*seen, torch.from_numpy(lengths).to(seen[0].device))
        return [
            self._code.decode(own[:length])
            for own, length in zip(values.cpu().numpy(), lengths, strict=True)
        ]

    def _shaped(self, series: np.ndarray) -> np.ndarray:
        return series[:, 0] if self._is_flat else series

    def score(self, X: Any, y: Any) -> float:
        """Return the coefficient of determination of the series that are drawn.

        All known values of all series count the same, in deviations of their channel. Behind its
        end a series counts as being at the training mean of its channel: one that is drawn too
        short or too long loses by it.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells.
        y : array-like of shape (n_samples,)
            Series, as ``fit`` takes them. Rows without one are left out.

        Returns
        -------
        score : float
            At most 1; 0 is what the mean of ``y`` of each channel gets.
        """
        check_is_fitted(self, "module_")
        series, _ = series_of_rows(y, n_rows(X), f"{type(self).__name__}.score")
        rows = [row for row, own in enumerate(series) if own is not None]
        if not rows:
            raise ValueError(
                f"{type(self).__name__}.score: none of n_samples={len(series)} rows of y has a"
                " series. Give rows that have."
            )
        true = [self._code.standardised(self._of_channels(series[row])) for row in rows]
        drawn = self.predict(X)
        errors = 0.0
        for row, own in zip(rows, true, strict=True):
            guess = drawn[row].reshape(len(drawn[row]), -1).astype(np.float64)
            errors += _squared_error(own, self._code.standardised(guess))
        values = np.concatenate(true)
        total = float(np.nansum((values - _mean(values)) ** 2))
        if not total:
            return 1.0 if not errors else 0.0
        return 1 - errors / total

    def _of_channels(self, series: Any) -> np.ndarray:
        if series.shape[1] != self.n_channels_:
            raise ValueError(
                f"{type(self).__name__}.score: the series of y have {series.shape[1]} channels,"
                f" those of fit had {self.n_channels_}. Give the same."
            )
        return series


def _squared_error(true: np.ndarray, drawn: np.ndarray) -> float:
    """Of standardised series; each is zero behind its end, and NaN of the truth is left out."""
    n = max(len(true), len(drawn))
    sides = []
    for own in (true, drawn):
        padded = np.zeros((n, true.shape[1]))
        padded[: len(own)] = own
        sides.append(padded)
    return float(np.nansum((sides[0] - sides[1]) ** 2))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of each channel over its known values."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
