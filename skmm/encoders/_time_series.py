"""Time series to vectors."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    LEARNING_RATE,
    ON_ERROR,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    RandomState,
    StrOptions,
)
from skmm._frame._column import Column
from skmm.backbones import Backbone
from skmm.backbones._minirocket import MiniRocket
from skmm.backbones._series_networks import InceptionTime, SeriesGRU
from skmm.backbones._user_module import SeriesModule
from skmm.encoders._cell_encoder import CellEncoder, OnError
from skmm.encoders._engines._base import Engine
from skmm.encoders._engines._trained import TrainedEngine
from skmm.encoders._pass import Place, first_readable
from skmm.exceptions import CellTypeError
from skmm.readers._series import digest_series, load_series, read_series

__all__ = ["TimeSeriesEncoder"]


class TimeSeriesEncoder(CellEncoder):
    """Encode time series with random convolutions or a small network.

    A cell is an array, a list of numbers, or a pandas or polars Series or DataFrame, of shape
    ``(n_timestamps,)`` or ``(n_timestamps, n_channels)``. Series may differ in length, not in
    their number of channels. An index is not used: timestamps count as evenly spaced.

    Every model standardizes the channels by the training cells and interpolates NaN linearly
    in time, before the first and after the last known value by that value; a channel without
    any value is at its training mean. A series without timestamps, with nothing but NaN, or
    with an infinite value is unreadable.

    Parameters
    ----------
    model : {"minirocket", "inception", "gru"} or nn.Module, default="minirocket"
        What looks at the series:

        - ``"minirocket"``: how often random convolutions of it exceed their thresholds, which
          are fitted on the training cells. Nothing is trained.
        - ``"inception"``: a network of convolutions of several lengths, trained from scratch:
          inside a joint fusion with its head, alone with ``y`` through a linear head that is
          then dropped, or without ``y`` by reconstructing the series in 16 segments.
        - ``"gru"``: a bidirectional GRU, trained like ``"inception"``.
        - an ``nn.Module``, trained like ``"inception"``: from standardized floats
          ``(n, n_timestamps, n_channels)`` to ``(n, width)`` or ``(n, n_tokens, width)``. It
          is given series of one length at a time, so it never meets padding.
    n_kernels : int, default=10_000
        Width of the vectors of ``"minirocket"``, rounded down to a multiple of 84, at least 84.
    n_components : int, default=128
        Width of the vectors of ``"inception"`` and ``"gru"``.
    max_length : int, default=None
        Timestamps after which a series is cut; None keeps all.
    max_epochs : int, default=50
        Passes over the training series when a network is trained alone.
    learning_rate : float, default=1e-3
        Step size when a network is trained alone.
    batch_size : int, default=32
        Series that go through the model at once.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable series: raise ``MediaDecodeError`` with its row and
        column, or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the random convolutions and of what is trained here.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Width of the result.
    n_channels_ : int
        Number of channels of the training cells.
    checkpoint_ : None
        There are no pretrained weights.
    loss_curve_ : list of float
        Mean loss of every epoch, if a network was trained alone.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    Notes
    -----
    Every model is fitted on the training cells, so its vectors belong to one fit and are not
    kept in a store. As a sequence (``transform_sequence``) a series is one token a timestamp,
    or what a module of yours gives; of ``"minirocket"`` it is a single token, for its features
    have no place in time.

    References
    ----------
    Dempster, Schmidt and Webb (2021), "MiniRocket", KDD. Ismail Fawaz et al. (2020),
    "InceptionTime", Data Mining and Knowledge Discovery. Cho et al. (2014), "Learning phrase
    representations using RNN encoder-decoder", EMNLP.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import TimeSeriesEncoder
    >>> wave = [np.sin(np.arange(n) / 3) for n in (60, 80, 50)]
    >>> X = pd.DataFrame({"sensor": [*wave, None, [1.0, None, 2.0]]})

    Series of any length; the absent one stays absent, the gap in the last one is filled.

    >>> encoder = TimeSeriesEncoder(n_kernels=500, random_state=0)
    >>> features = encoder.fit_transform(X)
    >>> features.shape
    (5, 420)
    >>> np.isnan(features).any(axis=1).tolist()
    [False, False, False, True, False]
    """

    modality: ClassVar[str] = "timeseries"
    takes_numbers: ClassVar[bool] = False
    # Shares of timestamps above a threshold: half precision would move values across it.
    dtype = "float32"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [StrOptions({"minirocket", "inception", "gru"}), nn.Module],
        "n_kernels": POSITIVE_INT,
        "n_components": POSITIVE_INT,
        "max_length": [*POSITIVE_INT, None],
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "on_error": ON_ERROR,
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: Literal["minirocket", "inception", "gru"] | nn.Module = "minirocket",
        *,
        n_kernels: int = 10_000,
        n_components: int = 128,
        max_length: int | None = None,
        max_epochs: int = 50,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        on_error: OnError = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.n_kernels = n_kernels
        self.n_components = n_components
        self.max_length = max_length
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.on_error = on_error
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return isinstance(self.model, nn.Module) or self.model != "minirocket"

    def _without_effect(self) -> dict[str, str]:
        idle = ["n_kernels"] if self._is_from_scratch else ["max_epochs", "learning_rate"]
        if self.model not in ("inception", "gru"):
            idle.append("n_components")
        return dict.fromkeys(idle, "model")

    def _make_engine(self, columns: list[Column]) -> Engine:
        cells, _ = self._training_cells(columns)
        model = MiniRocket(self.n_channels_, n_kernels=self.n_kernels)
        return TrainedEngine(model.fit(cells, np.random.RandomState(self._seed())))

    def _make_backbone(self, cells: Sequence[np.ndarray]) -> Backbone:
        network: InceptionTime | SeriesGRU | SeriesModule
        if isinstance(self.model, nn.Module):
            # A copy: training must not touch the parameter.
            network = SeriesModule(copy.deepcopy(self.model), n_channels=self.n_channels_)
            network.fit_scale(cells)
            network.measure(cells[0])
            return network
        network_class = InceptionTime if self.model == "inception" else SeriesGRU
        network = network_class(self.n_channels_, n_components=self.n_components)
        network.fit_scale(cells)
        return network

    def _training_cells(self, columns: list[Column]) -> tuple[list[Any], list[Place]]:
        # Without a readable cell 0 of them, which is told when all are read.
        first = first_readable(columns, partial(read_series, max_length=self.max_length))
        self.n_channels_ = 0 if first is None else first.shape[1]
        return super()._training_cells(columns)

    def _read(self, cell: object) -> np.ndarray:
        return self._checked(read_series(cell, max_length=self.max_length))

    def _digest(self, cell: object) -> bytes:
        return digest_series(cell)

    def _read_with_digest(self, cell: object) -> tuple[bytes, np.ndarray]:
        digest, series = load_series(cell, max_length=self.max_length)
        return digest, self._checked(series)

    def _reading(self) -> dict[str, Any]:
        return {"max_length": self.max_length}

    def _checked(self, series: np.ndarray) -> np.ndarray:
        if series.shape[1] != self.n_channels_:
            raise CellTypeError(
                f"A time series of shape {series.shape}, (n_timestamps, n_channels), does not fit"
                f" the first training cell, which has {self.n_channels_} channels. Give columns"
                " with other channels an encoder of their own."
            )
        return series
