"""Series from cells of any modality."""

from typing import Any, ClassVar

from skmm._compose._base import BaseFusion
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    StrOptions,
)
from skmm.generation._series_drawing import SeriesDrawer

__all__ = ["SeriesGenerator"]

_TRAINING = {
    name: constraint
    for name, constraint in SeriesDrawer._training_constraints.items()
    if name != "accumulate"
}


class SeriesGenerator(SeriesDrawer):
    """Draw a series for each row, from texts, pictures, sounds, tables or anything encoded.

    Features of frozen encoders, tables and passed-through columns are standardised and encoded
    once; an encoder whose model is trained, from scratch (``"gru"``, ``"cnn"``, ...) or by its
    ``fine_tune``, is trained with the decoder. The decoder first says how long the series is, and
    then draws all of its steps, each from its place and from what it sees of the row by attention
    over the vectors or tokens of all modalities. It is trained by squared error, so what it draws
    is the mean of the series that such a row may have.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the series are drawn from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"text"`` or ``"image"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    decoder : {"transformer", "gru"}, default="transformer"
        A transformer in which queries for the places attend to each other and to the row [1]_,
        none waiting for another [2]_; or a recurrent network whose outputs attend to the row [3]_,
        whose cost grows with the length of a series and not with its square.
    position : {"steps", "share"}, default="steps"
        What a step is told of its place: how many steps are before it, as for waves that go on at
        their own pace; or which share of the length, as for words that are said fast or slowly.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the decoder sees one vector of a modality or its tokens: words, patches, frames,
        steps in time.
    max_tokens : int, default=None
        Most tokens of a modality that are seen, evenly spaced; None for all.
    n_components : int, default=128
        Width of the decoder, for ``"transformer"`` a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads of ``"transformer"``.
    n_layers : int, default=2
        Layers of the decoder.
    dropout : float, default=0.0
        Share of units that is zeroed in training.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality in training; one always stays.
    max_length : int, default=None
        Most steps of a series: longer ones are cut, in ``fit`` and in ``predict``. None is the
        length of the longest training series.
    max_epochs : int, default=100
        Most passes over the training series.
    batch_size : int, default=64
        Series per step.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW; ``"auto"`` is 1e-3.
    encoder_learning_rate : float or "auto", default="auto"
        Step size of the encoders that are trained with the decoder. ``"auto"`` is, for pretrained
        ones, 5e-5 for the last blocks, 2e-5 for all and 2e-4 for adapters; from scratch that of
        the decoder.
    warmup : float, default=0
        Epochs in which all step sizes grow evenly from nothing, such as 1 or 0.5.
    weight_decay : float, default=1e-2
        Decoupled weight decay of AdamW.
    max_grad_norm : float, default=1.0
        Norm to which the gradient of a step is shortened where it is longer; None leaves it.
    early_stopping : bool, default=True
        Whether to hold out a part of the training rows, stop when the error of their series no
        longer falls, and go back to the best epoch. With fewer than 40 rows nothing is held out.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=10
        Epochs without a better loss after which training stops.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets the mean of the training series, step by step and of
        their mean length, or ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the decoder is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products in training (autocast). ``"auto"`` is bfloat16 on a GPU that
        has it where an encoder is trained, else float32.
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
    skmm.encoders.TimeSeriesEncoder : Takes the series that are drawn as cells.
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
    >>> from skmm import SeriesGenerator, TextEncoder
    >>> rng = np.random.default_rng(0)
    >>> steps, height = rng.choice([20, 30], 200), rng.choice([1.0, 3.0], 200)
    >>> words = {20: "short", 30: "long", 1.0: "low", 3.0: "high"}
    >>> X = pd.DataFrame({"text": [f"a {words[n]} {words[h]} wave" for n, h in zip(steps, height)]})
    >>> y = [h * np.sin(np.arange(n) / 3) for n, h in zip(steps, height)]
    >>> waves = SeriesGenerator(
    ...     [("text", TextEncoder("tfidf", n_components=4, random_state=0), ["text"])],
    ...     n_components=32, n_layers=1, max_epochs=40, learning_rate=3e-3, random_state=0,
    ... ).fit(X[:150], y[:150])
    >>> waves.score(X[150:], y[150:]) > 0.98
    True

    Series of their own length each, and for a row without a text the mean of all:

    >>> new = pd.DataFrame({"text": ["a short high wave", "a long low wave", None]})
    >>> [len(series) for series in waves.predict(new)]
    [20, 30, 26]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFusion._parameter_constraints,
        **_TRAINING,
        "decoder": [StrOptions({"transformer", "gru"})],
        "position": [StrOptions({"steps", "share"})],
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "max_length": [*POSITIVE_INT, None],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        decoder: str = "transformer",
        position: str = "steps",
        granularity: str = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
        max_length: int | None = None,
        max_epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float | str = "auto",
        encoder_learning_rate: float | str = "auto",
        warmup: float = 0,
        weight_decay: float = 1e-2,
        max_grad_norm: float | None = 1.0,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: Any = None,
        all_missing: str = "prior",
        missing_columns: str = "raise",
        device: str = "auto",
        dtype: str = "auto",
        random_state: Any = None,
        verbose: Any = 0,
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
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.encoder_learning_rate = encoder_learning_rate
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
