"""Texts of cells of any modality: captions."""

from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar

from skmm._compose._base import BaseFusion
from skmm._constraints import (
    FRACTION,
    NON_NEGATIVE,
    POSITIVE_INT,
    POSITIVE_REAL,
    RANDOM_STATE,
    VERBOSE,
    Interval,
    StrOptions,
)
from skmm.generation._caption_writing import CaptionWriter
from skmm.metrics._text_scorer import TEXT_METRICS

__all__ = ["CaptionGenerator"]

_TRAINING = {
    name: constraint
    for name, constraint in CaptionWriter._training_constraints.items()
    if name != "accumulate"
}


class CaptionGenerator(CaptionWriter):
    """Write a text for each row, from pictures, sounds, videos, series or anything encoded.

    Features of frozen encoders, tables and passed-through columns are standardised and encoded
    once; an encoder whose model is trained, from scratch (``"cnn"``, ``"gru"``, ...) or by its
    ``fine_tune``, is trained with the decoder. The decoder learns to give each token of the
    training texts from what is before it [1]_ and what it sees of the row, by attention over the
    vectors or tokens of all modalities [2]_. Its tokens are learned from the training texts.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the texts are written from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"image"`` or ``"audio"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    prefix : str or int, default=None
        Column, by name or position, whose text stands in front of what is written: a question, a
        language, the first words. The decoder reads its tokens, is not taught to write them, and
        goes on behind them. ``"auto"`` leaves that column out of the modalities. A missing prefix
        is an empty one; tokens that no training text or prefix held are left out of it.
    model : str or path, default=None
        Folder or hub name of a pretrained checkpoint of ``transformers`` that writes: from pictures
        (BLIP, GIT, a vision-encoder-decoder such as ViT-GPT2, ...) or from speech (Whisper). It
        reads the raw cells of one column, so ``modalities`` is one triple whose ``transformer``
        is ``"image"`` or ``"audio"``, or ``"auto"``. Nothing is trained. None trains a decoder
        from scratch.
    prompt : str, default=None
        With ``model``: text in front of what is written, such as ``"a photo of"``, or the
        question to a model that answers. It is no part of the text that is returned. With
        ``prefix`` that column's text stands where the prompt has ``{}``, else behind it.
    decoder : {"transformer", "gru"}, default="transformer"
        A transformer [3]_, or a recurrent network whose outputs attend to the row [4]_.
    tokenizer : {"word", "bpe", "character"}, default="word"
        What a token is: a word or sign, a part of a word found by byte-pair encoding [5]_, or a
        character. Only ``"word"`` meets unknown ones in texts of the same letters. Case and signs
        are kept.
    max_vocabulary : int, default=8000
        Most tokens, the most frequent ones.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the decoder sees one vector of a modality or its tokens: patches, words, frames,
        steps in time.
    max_tokens : int, default=None
        Most tokens of a modality that are seen, evenly spaced; None for all.
    n_components : int, default=128
        Width of the decoder, for ``"transformer"`` a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads of ``"transformer"``.
    n_layers : int, default=2
        Layers of the decoder.
    dropout : float, default=0.1
        Share of units that is zeroed in training.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality, or its prefix, in training; one of all that it
        has always stays.
    label_smoothing : float, default=0.0
        Share of each target that is spread over all tokens in training.
    decoding : {"greedy", "beam", "nucleus"}, default="greedy"
        How ``predict`` chooses: the likeliest token each time; the likeliest text among those
        that a beam search finds; or tokens drawn among the likeliest [6]_.
    beam_size : int, default=5
        Of ``"beam"``, how many beginnings are kept.
    length_penalty : float, default=0.0
        Of ``"beam"``: log-likelihoods are compared divided by the number of tokens to this
        power. 0 favours short texts, 1 compares the mean of a token.
    top_p : float, default=0.9
        Of ``"nucleus"``: tokens are drawn among the likeliest that together have this
        probability.
    temperature : float, default=1.0
        Of ``"nucleus"``: below 1 the likely becomes likelier.
    max_length : int, default=None
        Most tokens of a text: longer ones are cut, in ``fit`` and in ``predict``. None is the
        length of the longest training text; with ``model`` that which the checkpoint's
        ``generation_config.json`` allows, else 20.
    scoring : str or callable, default="corpus_bleu"
        What ``score`` measures: a name that :func:`~skmm.metrics.make_text_scorer` takes, or a
        function of ``(y_true, y_pred)``.
    max_epochs : int, default=100
        Most passes over the training texts.
    batch_size : int, default=64
        Texts per step.
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
        Whether to hold out a part of the training rows, stop when the likelihood of their texts
        no longer rises, and go back to the best epoch. With fewer than 40 rows nothing is held
        out.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=10
        Epochs without a better loss after which training stops.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality, and has no prefix, gets None, a missing text, or
        ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the decoder is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products in training (autocast). ``"auto"`` is bfloat16 on a GPU that
        has it where an encoder is trained, else float32.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout, the held-out part, and of what ``"nucleus"`` draws.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        Fitted transformers, those trained with the decoder included.
    vocabulary_ : list of str
        Tokens that can be written; a word's begins with the space before it.
    max_length_ : int
        Tokens of the longest training text, that of its end included.
    module_ : nn.Module
        Trained network. Neither it nor anything else about training is there with ``model``.
    checkpoint_ : dict or None
        With ``model``: name, source and sha256 of the pretrained checkpoint, and what it reads.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    history_ : list of dict
        ``train_loss`` and ``valid_loss`` of every epoch: nats a token.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    skmm.metrics.corpus_bleu : What ``score`` gives.
    skmm.retrieval.CrossModalRetriever : Finds a text that is there instead of writing one.

    Notes
    -----
    The parameters from ``decoding`` to ``scoring`` are read when they are used, and so is
    ``prompt``: after ``set_params`` a fitted generator writes another way, without training again.

    With ``model`` these have a meaning: ``modalities``, ``prefix``, ``prompt``, those from
    ``decoding`` to ``scoring``, ``batch_size`` (cells at once), ``all_missing``,
    ``missing_columns``, ``device``, ``dtype`` (of the weights; ``"auto"`` is bfloat16 on a GPU
    that has it) and ``random_state``. All others concern training from scratch and are not looked
    at. Whatever else the checkpoint's ``generation_config.json`` says of writing (tokens that are
    never written, a penalty for repetition) holds; how likely a text is, is told without it.

    References
    ----------
    .. [1] Vinyals, Toshev, Bengio, Erhan (2015), "Show and tell: a neural image caption
       generator", CVPR.
    .. [2] Xu et al. (2015), "Show, attend and tell: neural image caption generation with visual
       attention", ICML.
    .. [3] Vaswani et al. (2017), "Attention is all you need", NeurIPS.
    .. [4] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.
    .. [5] Sennrich, Haddow, Birch (2016), "Neural machine translation of rare words with subword
       units", ACL.
    .. [6] Holtzman, Buys, Du, Forbes, Choi (2020), "The curious case of neural text
       degeneration", ICLR.

    Examples
    --------
    Vectors that say a colour and a size, and sentences about them:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import CaptionGenerator
    >>> rng = np.random.default_rng(0)
    >>> colour, size = rng.integers(0, 3, 200), rng.integers(0, 2, 200)
    >>> seen = np.column_stack([np.eye(3)[colour], size]) + 0.1 * rng.standard_normal((200, 4))
    >>> words = np.array(["red", "green", "blue"])[colour], np.array(["small", "large"])[size]
    >>> y = [f"One {s} {c} thing." for c, s in zip(*words)]
    >>> X = pd.DataFrame({"camera": list(seen)})
    >>> captions = CaptionGenerator(
    ...     [("seen", "passthrough", ["camera"])], n_components=32, max_epochs=20,
    ...     learning_rate=3e-3, scoring="exact_match", random_state=0,
    ... ).fit(X[:150], y[:150])
    >>> captions.predict(pd.DataFrame({"camera": [[0.0, 0.9, 0.1, 1.0], None]}))
    array(['One large green thing.', None], dtype=object)
    >>> captions.score(X[150:], y[150:])
    1.0

    How likely two texts are for a row:

    >>> likely, unlikely = captions.predict_log_proba(X[:1].iloc[[0, 0]], [y[0], "One thing."])
    >>> bool(likely > unlikely)
    True

    A search over the decoding alone fits nothing again: each candidate is a copy that shares the
    trained network, and ``FrozenEstimator`` leaves it as it is.

    >>> from copy import copy
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.model_selection import GridSearchCV, ParameterGrid
    >>> from sklearn.pipeline import Pipeline
    >>> grid = ParameterGrid({"decoding": ["beam"], "beam_size": [2, 4]})
    >>> ways = [FrozenEstimator(copy(captions).set_params(**way)) for way in grid]
    >>> search = GridSearchCV(Pipeline([("captions", ways[0])]), {"captions": ways}, cv=2)
    >>> float(search.fit(X[150:], y[150:]).best_score_)
    1.0
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFusion._parameter_constraints,
        **_TRAINING,
        "prefix": [str, Interval(Integral, 0, None, closed="left"), None],
        "model": [str, PathLike, None],
        "prompt": [str, None],
        "decoder": [StrOptions({"transformer", "gru"})],
        "tokenizer": [StrOptions({"word", "bpe", "character"})],
        "max_vocabulary": POSITIVE_INT,
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "label_smoothing": FRACTION,
        "decoding": [StrOptions({"greedy", "beam", "nucleus"})],
        "beam_size": POSITIVE_INT,
        "length_penalty": NON_NEGATIVE,
        "top_p": [Interval(Real, 0, 1, closed="right")],
        "temperature": POSITIVE_REAL,
        "max_length": [*POSITIVE_INT, None],
        "scoring": [StrOptions(set(TEXT_METRICS)), callable],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        prefix: str | int | None = None,
        model: Any = None,
        prompt: str | None = None,
        decoder: str = "transformer",
        tokenizer: str = "word",
        max_vocabulary: int = 8000,
        granularity: str = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
        modality_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        decoding: str = "greedy",
        beam_size: int = 5,
        length_penalty: float = 0.0,
        top_p: float = 0.9,
        temperature: float = 1.0,
        max_length: int | None = None,
        scoring: Any = "corpus_bleu",
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
        self.prefix = prefix
        self.model = model
        self.prompt = prompt
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.max_vocabulary = max_vocabulary
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.n_components = n_components
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.label_smoothing = label_smoothing
        self.decoding = decoding
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.top_p = top_p
        self.temperature = temperature
        self.max_length = max_length
        self.scoring = scoring
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
