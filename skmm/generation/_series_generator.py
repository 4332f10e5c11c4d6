"""Series from cells of any modality."""

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
from skmm.nets import GRUSeriesDecoder, SeriesDecoder, TokenMemory, TransformerSeriesDecoder

__all__ = ["SeriesGenerator"]


class SeriesGenerator(BaseGenerator):
    """Generate a series for each row, from texts, images, audio clips, tables or anything encoded.

    Features of frozen encoders, tables and passed-through columns are standardized and encoded
    once; an encoder whose model is trained, from scratch (``"gru"``, ``"cnn"``, ...) or by its
    ``fine_tune``, is trained with the decoder. The decoder first says how long the series is, and
    then gives all of its steps, each from its place and from what it sees of the row by attention
    over the vectors or tokens of all modalities. It is trained by squared error, so what it gives
    is the mean of the series that such a row may have.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the series are generated from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"text"`` or ``"image"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    decoder : {"transformer", "gru"}, default="transformer"
        A transformer in which queries for the places attend to each other and to the row [1]_,
        none waiting for another [2]_; or a recurrent network whose outputs attend to the row [3]_,
        whose cost grows with the length of a series and not with its square.
    position : {"steps", "share"}, default="steps"
        What a step knows of its place: how many steps are before it, as for waves that go on at
        their own pace; or which share of the length, as for words that are said fast or slowly.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the decoder sees one vector of a modality or its tokens: words, patches, frames,
        steps in time.
    max_tokens : int, default=None
        Of ``"sequence"``: most tokens of a modality that are seen, evenly spaced; None for all.
    n_components : int, default=128
        Width of the decoder, for ``"transformer"`` a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads of ``"transformer"``; ``"gru"`` has none.
    n_layers : int, default=2
        Layers of the decoder.
    dropout : float, default=0.0
        Share of units that is zeroed in training.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality in training; one always stays.
    max_length : int, default=None
        Most steps of a series: longer ones are cut, in ``fit`` and in ``predict``. None is the
        length of the longest training series.
    max_epochs : int, default=None
        Most passes over the training series; None is the trainer's, 100.
    trainer : Trainer, default=None
        How the network is trained: step sizes, batches, early stopping, callbacks. None is
        ``Trainer()``; its parameters are searched as ``trainer__learning_rate``.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets the mean of the training series, step by step and of
        their mean length, or ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the decoder is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout and the held-out part.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        Fitted transformers, those trained with the decoder included.
    n_channels_ : int
        Channels of the training series.
    max_length_ : int
        Steps of the longest training series.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    history_ : list of dict
        ``train_loss`` and ``valid_loss`` of every epoch: mean squared error of the values in
        deviations of their channel, and that of the length in deviations of the lengths.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    skmm.encoders.TimeSeriesEncoder : Takes generated series as cells.
    CaptionGenerator : Writes texts, of series too.

    Notes
    -----
    A mean of series that differ in phase is flat: what the row does not tell, such as where a wave
    begins, is averaged out. ``max_length`` is read when ``predict`` runs.

    References
    ----------
    .. [1] Carion et al. (2020), "End-to-end object detection with transformers", ECCV.
    .. [2] Gu, Bradbury, Xiong, Li, Socher (2018), "Non-autoregressive neural machine translation",
       ICLR.
    .. [3] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.

    Examples
    --------
    Words for a wave, and the wave:

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

    Series of their own length each, and for a row without a text the mean of all:

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
        trainer, X, series = self._check(X, y)
        seed = self._draw_seed()
        # Before torch is seeded, for that lets in one thread of the process at a time.
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
        """As much of a series as is learned; None where nothing of that is known."""
        cut = series[: self.max_length]
        return None if np.isnan(cut).all() else cut

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=64, max_grad_norm=1.0)

    def _build(
        self, X: Frame, series: list[np.ndarray | None], inputs: JointInputs
    ) -> tuple[SeriesBatch, np.ndarray, np.ndarray]:
        """Start the encoders that are trained, learn the scales, and build the network.

        Returns the rows to learn from, the target there, and their places in ``X``.
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
                " rows has both a series and a modality. Give rows that have."
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
        """Series of the rows of a batch, (n_steps, n_channels) each."""
        memory, mask = self.module_.remember(batch)
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

        All known values of all series count the same, in deviations of their channel. Behind its
        end a series counts as being at the training mean of its channel: one that is too short or
        too long loses by it.

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
