"""Time series generated from cells of any modality."""

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import Modalities
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._constraints import FRACTION, POSITIVE_INT, RandomState, StrOptions, refuse_unused
from skmm._environment._device import seeded
from skmm._frame._column import n_rows
from skmm._frame._types import CellColumn, Frame
from skmm._training._inputs import JointInputs
from skmm._training._trainer import Trainer, TrainingDefaults, threads_for
from skmm.generation._base import BaseGenerator, chosen_rows
from skmm.generation._memory_modules import SeriesBatch, SeriesGeneratorModule
from skmm.generation._series_targets import (
    SeriesTarget,
    channel_means,
    series_of_rows,
    squared_error,
)
from skmm.nets._layers import TokenMemory
from skmm.nets._series_decoders import GRUSeriesDecoder, SeriesDecoder, TransformerSeriesDecoder

__all__ = ["SeriesGenerator"]


class SeriesGenerator(BaseGenerator):
    """Generate a series for each row, from text, images, audio, tables or any encoded modality.

    The decoder predicts the length of the series and then all of its time steps, each from its
    position and by attention over the vectors or tokens of all modalities of the row. It is
    trained by squared error, so it predicts the mean of the series that such a row may have.
    Frozen encoders and other transformers run once, and their features are standardized; an
    encoder whose model is trained, from scratch (``"gru"``, ``"cnn"``, ...) or by its
    ``fine_tune``, is trained together with the decoder.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the series are generated from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"text"`` or ``"image"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    decoder : {"transformer", "gru"}, default="transformer"
        A transformer whose queries, one per time step, attend to each other and to the row [1]_
        and are decoded in parallel [2]_; or a recurrent network whose outputs attend to the row
        [3]_, whose cost is linear in the length of a series and not quadratic.
    position : {"steps", "share"}, default="steps"
        How the position of a time step is encoded: as the number of steps before it, for series
        with a fixed rate such as waves; or as a fraction of the length, for series that are
        stretched in time, such as words spoken fast or slowly.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the decoder attends to one vector per modality or to its tokens: words, patches,
        frames, time steps.
    max_tokens : int, default=None
        Maximum number of tokens of a modality, evenly spaced, with ``granularity="sequence"``.
        None keeps all.
    n_components : int, default=128
        Width of the decoder; a multiple of ``n_heads`` with ``decoder="transformer"``.
    n_heads : int, default=4
        Number of attention heads with ``decoder="transformer"``.
    n_layers : int, default=2
        Number of layers of the decoder.
    dropout : float, default=0.0
        Fraction of the units that is zeroed in training. 0, since dropout adds noise to values
        that are regressed exactly.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality in a training step. At least one of those that it
        has is kept.
    max_length : int, default=None
        Maximum length of a series in time steps. Longer series are cut, in ``fit`` and in
        ``predict``. None is the length of the longest training series.
    max_epochs : int, default=None
        Maximum number of passes over the training series. None is that of ``trainer``, 100 by
        default.
    trainer : Trainer, default=None
        How the network is trained: learning rate, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None.
    all_missing : {"prior", "raise"}, default="prior"
        What to do with a row without any modality: ``"prior"`` predicts the mean of the training
        series at each time step, of their mean length; ``"raise"`` raises
        ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Where the decoder is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, the dropout and the held-out rows.
    verbose : bool or int, default=0
        Whether to print one line per epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers; transformers that are trained with
        the decoder are included.
    n_channels_ : int
        Number of channels of the training series.
    max_length_ : int
        Length of the longest training series in time steps, after series are cut to
        ``max_length``. It limits ``predict`` if ``max_length`` is None.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``: the mean squared error of the values, in standard deviations of their
        channel, plus that of the lengths, in standard deviations of the lengths.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    skmm.encoders.TimeSeriesEncoder : Encode series, also generated ones.
    CaptionGenerator : Write texts, also for series.

    Notes
    -----
    The mean of series that differ in phase is flat: what the modalities do not determine, such as
    the phase of a wave, is averaged out. ``max_length`` is read by ``predict``.

    References
    ----------
    .. [1] Carion et al. (2020), "End-to-end object detection with transformers", ECCV.
    .. [2] Gu, Bradbury, Xiong, Li, Socher (2018), "Non-autoregressive neural machine translation",
       ICLR.
    .. [3] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.

    Examples
    --------
    Descriptions of waves, and the waves:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import SeriesGenerator, TextEncoder, Trainer
    >>> rng = np.random.default_rng(0)
    >>> steps, height = rng.choice([20, 30], 200), rng.choice([1.0, 3.0], 200)
    >>> words = {20: "short", 30: "long", 1.0: "low", 3.0: "high"}
    >>> X = pd.DataFrame({"text": [f"a {words[n]} {words[h]} wave" for n, h in zip(steps, height)]})
    >>> y = [h * np.sin(np.arange(n) / 3) for n, h in zip(steps, height)]
    >>> waves = SeriesGenerator(
    ...     [("text", TextEncoder("tfidf", n_components=4, random_state=0), ["text"])],
    ...     n_components=32, n_layers=1, max_epochs=40, trainer=Trainer(learning_rate=3e-3),
    ...     random_state=0,
    ... ).fit(X[:150], y[:150])
    >>> waves.score(X[150:], y[150:]) > 0.98
    True

    Each series has its own length. A row without a text gets the mean of the training series:

    >>> new = pd.DataFrame({"text": ["a short high wave", "a long low wave", None]})
    >>> [len(series) for series in waves.predict(new)]
    [20, 30, 26]
    """

    module_: SeriesGeneratorModule
    _target: SeriesTarget

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseGenerator._parameter_constraints,
        "decoder": [StrOptions({"transformer", "gru"})],
        "position": [StrOptions({"steps", "share"})],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "max_length": [*POSITIVE_INT, None],
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        decoder: Literal["transformer", "gru"] = "transformer",
        position: Literal["steps", "share"] = "steps",
        granularity: Literal["pooled", "sequence"] = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
        max_length: int | None = None,
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.decoder = decoder
        self.position = position
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.n_components = n_components
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.max_length = max_length
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Frame, y: CellColumn) -> Self:
        """Fit the transformers and train the decoder, with the encoders that are trained.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing; rows without any modality are not used to train the
            decoder.
        y : array-like of shape (n_samples,)
            Series of any lengths: arrays, lists of numbers, pandas or polars objects of shape
            (n_steps,) or (n_steps, n_channels), NaN where a value is unknown. Rows whose series is
            missing or all NaN are used to fit the transformers, not to train the decoder. An array
            of numbers (n_samples, n_steps) or (n_samples, n_steps, n_channels) holds series of one
            length.

        Returns
        -------
        self : object
            The fitted generator.
        """
        trainer, X, series = self._check(X, y)
        seed = self._draw_seed()
        # Encode before torch is seeded: only one thread of the process at a time may hold the seed.
        inputs = self._encode(X, seed)
        with (
            seeded(seed),
            TaskReporter(self, X, y, self._n_epochs(trainer), "epoch") as reporter,
        ):
            batch, target, places = self._build(X, series, inputs)
            self._train_on(trainer, X, batch, target, places, seed, reporter)
        return self

    def _check(self, X: Frame, y: CellColumn) -> tuple[Trainer, Frame, list[np.ndarray | None]]:
        """Check everything before any cell is encoded: trainer, frame and series."""
        trainer = self._check_params()
        if self.decoder == "gru":
            refuse_unused(self, ["n_heads"], "with decoder='gru'")
        X = self._check_frame(X, reset=True)
        series, self._is_flat = series_of_rows(y, n_rows(X), type(self).__name__)
        return trainer, X, [None if own is None else self._cut(own) for own in series]

    def _cut(self, series: np.ndarray) -> np.ndarray | None:
        """Cut a series to ``max_length``; None if all of its values are unknown."""
        cut = series[: self.max_length]
        return None if np.isnan(cut).all() else cut

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=64, max_grad_norm=1.0)

    def _build(
        self, X: Frame, series: list[np.ndarray | None], inputs: JointInputs
    ) -> tuple[SeriesBatch, np.ndarray, np.ndarray]:
        """Initialize the trained encoders, learn the scales and build the network.

        Returns a batch of the rows to train on, their target, and their positions in ``X``.
        """
        batch = inputs.build(X)
        present = batch.present()
        self._refuse_empty(present)
        rows = self._rows_to_learn(series, present)
        known = [own for own in (series[row] for row in rows) if own is not None]
        self._target = SeriesTarget()
        self._target.learn(known)
        self.n_channels_, self.max_length_ = len(self._target.mean), self._target.longest
        decoder = self._make_decoder()
        memory = TokenMemory(inputs.widths, decoder.width, dropout=self.dropout)
        self._inputs = inputs
        self.module_ = SeriesGeneratorModule(self._make_encoders(inputs), memory, decoder)
        lengths = torch.tensor([len(own) for own in known])
        own = chosen_rows(batch, rows).modalities
        return SeriesBatch(own, lengths=lengths), self._target.encode(known), rows

    def _rows_to_learn(self, series: list[np.ndarray | None], present: np.ndarray) -> np.ndarray:
        known = np.array([own is not None for own in series])
        rows = np.flatnonzero(known & present.any(axis=1))
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: none of n_samples={len(series)}"
                " rows has both a series and a modality. Give rows that have both."
            )
        return rows

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

    def predict(self, X: Frame) -> np.ndarray:
        """Generate a series for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. Any cell may be missing.

        Returns
        -------
        series : ndarray of shape (n_samples,), object
            Arrays of shape (n_steps, n_channels), or (n_steps,) if the training series have this
            shape, float32. A row without any modality gets the mean of the training series.
        """
        check_is_fitted(self, "module_")
        self._validate_params()  # max_length may have been set after fit
        X = self._check_frame(X, reset=False)
        longest = self.max_length or self.max_length_
        found = np.empty(n_rows(X), dtype=object)
        for row in range(len(found)):
            found[row] = self._shaped(self._target.prior[:longest].astype(np.float32))
        batch = SeriesBatch(self._inputs.batch(X).modalities)
        present = batch.present()
        self._refuse_empty(present)
        rows = np.flatnonzero(present.any(axis=1))
        for some, part in self._parts(batch, rows):
            with threads_for(self.module_), torch.inference_mode():
                generated = self._generate(part, longest)
            for row, own in zip(some, generated, strict=True):
                found[row] = self._shaped(own)
        return found

    def _generate(self, batch: SeriesBatch, longest: int) -> list[np.ndarray]:
        """Return the series of the rows of a batch, (n_steps, n_channels) each."""
        memory, mask = self.module_.make_memory(batch)
        outputs = self.module_.decoder.predict_length(memory, mask).cpu().numpy()
        lengths = self._target.lengths(outputs, longest)
        values = self.module_.decoder(memory, mask, torch.from_numpy(lengths).to(memory.device))
        return [
            self._target.decode(own[:length])
            for own, length in zip(values.cpu().numpy(), lengths, strict=True)
        ]

    def _shaped(self, series: np.ndarray) -> np.ndarray:
        return series[:, 0] if self._is_flat else series

    def score(self, X: Frame, y: CellColumn) -> float:
        """Return the coefficient of determination of the generated series.

        All known values of all series have the same weight, in standard deviations of their
        channel. After its end a series is continued by the training mean of its channel, so
        predictions that are too short or too long lower the score.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells.
        y : array-like of shape (n_samples,)
            Series, as in ``fit``. Rows without one are left out.

        Returns
        -------
        score : float
            At most 1. Predicting the mean of each channel of ``y`` scores 0.
        """
        check_is_fitted(self, "module_")
        series, _ = series_of_rows(y, n_rows(X), f"{type(self).__name__}.score")
        known = {row: own for row, own in enumerate(series) if own is not None}
        if not known:
            raise ValueError(
                f"{type(self).__name__}.score: none of n_samples={len(series)} rows of y has a"
                " series. Give rows that have."
            )
        true = [self._target.standardized(self._of_channels(own)) for own in known.values()]
        generated = self.predict(X)
        errors = 0.0
        for row, own in zip(known, true, strict=True):
            guess = generated[row].reshape(len(generated[row]), -1).astype(np.float64)
            errors += squared_error(own, self._target.standardized(guess))
        values = np.concatenate(true)
        total = float(np.nansum((values - channel_means(values)) ** 2))
        if not total:
            return 1.0 if not errors else 0.0
        return 1 - errors / total

    def _of_channels(self, series: np.ndarray) -> np.ndarray:
        if series.shape[1] != self.n_channels_:
            raise ValueError(
                f"{type(self).__name__}.score: the series of y have {series.shape[1]} channels,"
                f" those of fit had {self.n_channels_}. Give the same."
            )
        return series
