"""How a series generator is trained."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._environment._device import seeded
from skmm._frame._column import n_rows, take_rows
from skmm._training._inputs import JointInputs
from skmm.generation._base import BaseGenerator
from skmm.generation._series_module import LENGTH, SeriesModule
from skmm.generation._series_targets import SeriesCode, series_of_rows
from skmm.nets import GRUSeriesDecoder, SeriesDecoder, SeriesLoss, TransformerSeriesDecoder

__all__ = ["BaseSeries"]


class BaseSeries(BaseGenerator):
    """Training of the decoder, with the trainer of the joint fusions."""

    module_: SeriesModule
    _code: SeriesCode

    # Parameters of the generator, told to type checkers.
    decoder: str
    position: str
    max_length: int | None
    n_components: int
    n_heads: int
    n_layers: int
    max_epochs: int

    @with_callbacks
    def fit(self, X: Any, y: Any) -> Self:
        """Fit the transformers and train the decoder, and encoders that need training.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality. One that lacks all is not learned from.
        y : array-like of shape (n_samples,)
            Series of any lengths: arrays, lists of numbers, pandas or polars objects of shape
            (n_steps,) or (n_steps, n_channels), NaN where a value is unknown. A row whose series
            is missing or holds nothing but NaN is not learned from, but its cells are seen by the
            transformers. An array of numbers (n_samples, n_steps) or (n_samples, n_steps,
            n_channels) holds series of one length.

        Returns
        -------
        self : object
            The fitted generator.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        series, is_flat = series_of_rows(y, n_rows(X), type(self).__name__)
        series = [None if own is None else self._cut(own) for own in series]
        inputs, seed = self._frozen_inputs(X)
        with seeded(seed), TaskReporter(self, X, y, self.max_epochs, "epoch") as reporter:
            tensors, rows = self._start(X, series, inputs)
            self._is_flat = is_flat
            held_out = self._hold_out(rows, np.zeros(len(series)), seed)
            train = np.setdiff1d(rows, held_out)
            self._new_net(
                self._all_callbacks(reporter),
                self._rows_of(tensors, series, held_out) if len(held_out) else None,
                max_epochs=self.max_epochs,
            )
            own = X if inputs.augments else None
            self._train(self._rows_of(tensors, series, train, own))
        return self

    def _rows_of(
        self, tensors: dict[str, Tensor], series: list[Any], rows: np.ndarray, X: Any = None
    ) -> Any:
        """Training or held-out rows, with the targets of these alone."""
        own = [series[row] for row in rows]
        chosen = torch.from_numpy(rows)
        inputs = {name: tensor[chosen] for name, tensor in tensors.items()}
        inputs[LENGTH] = torch.tensor([len(values) for values in own])
        everyone = np.arange(len(rows))
        return self._dataset(
            inputs,
            self._code.encode(own, max(len(values) for values in own)),
            None,
            everyone,
            None if X is None else take_rows(X, rows),
        )

    def _start(
        self, X: Any, series: list[Any], inputs: JointInputs
    ) -> tuple[dict[str, Tensor], np.ndarray]:
        """Start the networks that are trained, learn the scales, and build the decoder.

        Returns tensors of all rows, and the rows to learn from.
        """
        tensors, networks = self._all_inputs(X, inputs)
        present = inputs.present(tensors)
        self._refuse_empty(present)
        known = np.array([own is not None for own in series])
        rows = np.flatnonzero(known & present.any(axis=1))
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: none of n_samples={len(series)}"
                " rows has both a series and a modality. Give rows that have."
            )
        self._inputs = inputs
        self._code = SeriesCode()
        self._code.learn([series[row] for row in rows])
        self.n_channels_ = len(self._code.mean)
        self.max_length_ = self._code.longest
        self.module_ = self._memory_of(SeriesModule, inputs, networks, self._make_decoder())
        self.history_ = []
        return tensors, rows

    def _cut(self, series: np.ndarray) -> np.ndarray | None:
        """As much of a series as is learned; None where nothing of that is known."""
        cut = series[: self.max_length]
        return None if np.isnan(cut).all() else cut

    def _make_decoder(self) -> SeriesDecoder:
        options: dict[str, Any] = {
            "dropout": self.dropout,
            "n_layers": self.n_layers,
            "position": self.position,
        }
        if self.decoder == "gru":
            return GRUSeriesDecoder(self.n_channels_, self.n_components, **options)
        return TransformerSeriesDecoder(
            self.n_channels_, self.n_components, n_heads=self.n_heads, **options
        )

    def _criterion(self) -> nn.Module:
        return SeriesLoss(self._code.mean_known)
