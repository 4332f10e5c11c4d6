"""Encoder of time series."""

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
    NON_NEGATIVE,
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
from skmm.encoders._cell_encoder import CellEncoder, LearningRate, OnError
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
    their number of channels. An index is ignored: timestamps count as evenly spaced.

    Every model standardizes the channels by the training cells. NaN is interpolated linearly in
    time; before the first and after the last known value that value is used, and a channel
    without any value has its training mean. A series without timestamps, with NaN only, or with
    an infinite value is unreadable.

    Parameters
    ----------
    model : {"minirocket", "inception", "gru"} or nn.Module, default="minirocket"
        Model of the series:

        - ``"minirocket"``: the share of timestamps at which random convolutions exceed their
          thresholds, which are fitted on the training cells. No network is trained.
        - ``"inception"``: a network of convolutions of several lengths, trained from scratch:
          in a joint fusion together with its head, alone with ``y`` through a linear head that
          is then dropped, or without ``y`` by reconstructing the means of 16 segments.
        - ``"gru"``: a bidirectional GRU, trained like ``"inception"``.
        - an ``nn.Module``, trained like ``"inception"``: from standardized floats
          ``(n, n_timestamps, n_channels)`` to ``(n, n_outputs)`` or ``(n, n_tokens, n_outputs)``.
          All series of one call have the same length, so there is no padding.
    n_kernels : int, default=10_000
        Width of the vectors of ``"minirocket"``, rounded down to a multiple of 84, at least 84.
    n_components : int, default=128
        Width of the vectors of ``"inception"`` and ``"gru"``.
    max_length : int, default=None
        Longest series that the model reads, in timestamps; a longer one is cut. None has no
        limit.
    max_epochs : int, default=50
        Passes over the training series when a network is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when a network is trained alone. ``"auto"`` is 1e-3.
    batch_size : int, default=32
        Number of series per batch.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training series when a network is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 series nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable series: raise ``MediaDecodeError`` with its row and
        column, or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the random convolutions and of the training.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Number of output features.
    n_channels_ : int
        Number of channels of the training cells.
    checkpoint_ : None
        There are no pretrained weights.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if cells are held out,
        ``valid_loss``. Defined only if the encoder's own ``fit`` trained a network.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if ``X`` has names.

    Notes
    -----
    Every model is fitted on the training cells, so its vectors belong to one fit and are not
    stored. As a sequence (``transform_sequence``) a series has one token per timestamp, or the
    tokens of your module. For ``"minirocket"`` it is a single token, because its features have
    no position in time.

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

    Series of any length; the row of the absent one is NaN, and the gap in the last one is
    interpolated.

    >>> encoder = TimeSeriesEncoder(n_kernels=500, random_state=0)
    >>> features = encoder.fit_transform(X)
    >>> features.shape
    (5, 420)
    >>> np.isnan(features).any(axis=1).tolist()
    [False, False, False, True, False]
    """

    modality: ClassVar[str] = "timeseries"
    takes_numbers: ClassVar[bool] = False
    # MiniRocket compares values with thresholds: half precision would move some across.
    dtype = "float32"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [StrOptions({"minirocket", "inception", "gru"}), nn.Module],
        "n_kernels": POSITIVE_INT,
        "n_components": POSITIVE_INT,
        "max_length": [*POSITIVE_INT, None],
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "warmup": NON_NEGATIVE,
        "early_stopping": ["boolean"],
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
        learning_rate: LearningRate = "auto",
        batch_size: int = 32,
        warmup: float = 0,
        early_stopping: bool = False,
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
        self.warmup = warmup
        self.early_stopping = early_stopping
        self.on_error = on_error
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return isinstance(self.model, nn.Module) or self.model != "minirocket"

    def _unused_parameters(self) -> dict[str, str]:
        unused = super()._unused_parameters()
        if self._is_from_scratch:
            unused["n_kernels"] = "model"
        if self.model not in ("inception", "gru"):
            unused["n_components"] = "model"
        return unused

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
        # 0 without a readable cell: the base class raises after it has read all cells.
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
                f" the first training cell, which has {self.n_channels_} channels. Use another"
                " encoder for columns with other channels."
            )
        return series
