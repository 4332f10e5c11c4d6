"""Answers to questions about cells of any modality."""

from numbers import Integral
from typing import Any, ClassVar

from torch import nn

from skmm._compose._base import BaseFusion
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    HasMethods,
    Interval,
    StrOptions,
)
from skmm._training._trainer import TrainingMixin
from skmm.generation._answering import SCORES, BaseAnswerer
from skmm.nets import STRATEGIES

__all__ = ["QuestionAnswerer"]

_NOT_HERE = ("accumulate", "max_grad_norm", "warmup")
_TRAINING = {
    name: constraint
    for name, constraint in TrainingMixin._training_constraints.items()
    if name not in _NOT_HERE
}


class QuestionAnswerer(BaseAnswerer):
    """Answer a question about a picture, a sound, a series or anything encoded.

    A row holds a question, in a column of texts, and what it is about, in one modality or several.
    With a closed vocabulary an answer is a class: a network reads the question, cross-attention
    fuses it with the other modalities, and the answers of training are what there is to choose
    from [1]_. With an open one a decoder reads the question and writes the answer behind it, word
    by word, looking at the other modalities [2]_: so it may put together what no answer was.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What is asked about, as in ``ColumnTransformer``. ``transformer`` is any scikit-learn
        transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors
        of one length), or a modality such as ``"image"`` or ``"audio"`` for its default encoder.
        ``"auto"`` infers the modalities of all columns but the question's.
    question : str or int, default="auto"
        Column of the questions, by name or position. ``"auto"`` is the only column of text that
        no triple selects.
    vocabulary : {"closed", "open"}, default="closed"
        Whether an answer is chosen, by a :class:`~skmm.fusion.JointFusionClassifier`, or written,
        by a :class:`CaptionGenerator` whose ``prefix`` is the question.
    question_encoder : transformer or str, default=None
        Of ``"closed"``: what reads the question; a modality's name stands for its default encoder.
        None is ``TextEncoder("gru", n_components=64)``, which is trained with the network. Not
        used where a triple selects the question's column.
    max_answers : int, default=None
        Of ``"closed"``: how many answers there are to choose from, the most frequent ones; rows
        with another are left out of the training. None is all.
    strategy : str, nn.Module or callable, default="cross_attention"
        Of ``"closed"``: how modalities are fused, as in ``JointFusionClassifier``.
    decoder : {"transformer", "gru"}, default="transformer"
        Of ``"open"``: what reads the question and writes.
    decoding : {"greedy", "beam"}, default="greedy"
        Of ``"open"``: how ``predict`` chooses words, the likeliest each time or by a beam search.
    beam_size : int, default=5
        Of ``"beam"``, how many beginnings are kept.
    max_length : int, default=None
        Of ``"open"``: most tokens of an answer. None is the length of the longest in training.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether one vector of a modality goes in or its tokens: patches, words, frames. Closed,
        this holds for the question too.
    max_tokens : int, default=None
        Of ``"sequence"``: most tokens of a modality that are kept, evenly spaced; None for all.
    n_components : int, default=128
        Width of the network, where there is attention a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads.
    n_layers : int, default=2
        Layers of attention, or of the decoder.
    dropout : float, default=0.1
        Share of units that is zeroed in training.
    modality_dropout : float, default=0.1
        Probability that a row loses its question or a modality in training, never the last one it
        has. So what answers without one of them knows how often each answer is right; 0 where no
        row will lack any.
    scoring : {"accuracy", "vqa"} or callable, default="accuracy"
        What ``score`` measures: whether an answer is one of its row's;
        :func:`~skmm.metrics.vqa_accuracy`; or a function of ``(y_true, y_pred)``.
    max_epochs : int, default=100
        Most passes over the training rows.
    batch_size : int, default=64
        Rows per step.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW; ``"auto"`` is 1e-3.
    encoder_learning_rate : float or "auto", default="auto"
        Step size of the encoders that are trained with the network. ``"auto"`` is, for pretrained
        ones, 5e-5 for the last blocks, 2e-5 for all and 2e-4 for adapters; from scratch that of
        the network.
    weight_decay : float, default=1e-2
        Decoupled weight decay of AdamW.
    early_stopping : bool, default=True
        Whether to hold out a part of the training rows, stop when its loss no longer falls, and go
        back to the best epoch. With fewer than 40 rows nothing is held out.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=10
        Epochs without a better loss after which training stops.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks its question and every modality gets the most frequent answer, None where
        the vocabulary is open, or ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the network is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products in training (autocast). ``"auto"`` is bfloat16 on a GPU that
        has it where an encoder is trained, else float32.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout and the held-out part.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    estimator_ : JointFusionClassifier or CaptionGenerator
        What was trained, with its network, its attention and the encoder of the question.
    question_ : str or int
        Column of the questions.
    classes_ : ndarray of shape (n_classes,), object
        Answers there are to choose from; only of a closed vocabulary.
    modalities_ : list of (name, transformer, columns)
        Fitted transformers; closed, that of the question is among them.
    history_ : list of dict
        ``train_loss`` and ``valid_loss`` of every epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    CaptionGenerator : Writes without a question; with ``prefix`` it has more to set.
    skmm.metrics.vqa_accuracy : Where ten people answered.

    Notes
    -----
    ``all_missing``, ``missing_columns``, ``device``, ``scoring``, ``decoding``, ``beam_size`` and
    ``max_length`` are read when they are used: ``set_params`` changes them without training again.

    Words of a question that no training row holds say nothing: closed, they stand for the one
    unknown word, open, they are left out.

    References
    ----------
    .. [1] Antol et al. (2015), "VQA: visual question answering", ICCV; with the cross-attention of
       Lu, Batra, Parikh, Lee (2019), "ViLBERT: pretraining task-agnostic visiolinguistic
       representations for vision-and-language tasks", NeurIPS.
    .. [2] Wang et al. (2022), "GIT: a generative image-to-text transformer for vision and
       language", TMLR.

    Examples
    --------
    Things that have a colour and a size, and a question about one of the two:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import QuestionAnswerer
    >>> rng = np.random.default_rng(0)
    >>> colour, size, asked = rng.integers(0, 2, (3, 400))
    >>> seen = np.column_stack([colour, size]) + 0.1 * rng.standard_normal((400, 2))
    >>> questions = np.where(asked, "how large is it?", "what color is it?")
    >>> X = pd.DataFrame({"camera": list(seen), "question": questions})
    >>> y = np.where(asked, np.array(["small", "large"])[size], np.array(["red", "blue"])[colour])
    >>> triples = [("seen", "passthrough", ["camera"])]
    >>> options = {"n_components": 32, "max_epochs": 20, "random_state": 0}
    >>> answerer = QuestionAnswerer(triples, **options).fit(X[:300], y[:300])
    >>> new = pd.DataFrame({"camera": [[1.0, 0.1]] * 2, "question": ["what color?", "how large?"]})
    >>> answerer.predict(new)
    array(['blue', 'small'], dtype=object)
    >>> answerer.score(X[300:], y[300:])
    1.0

    Written instead of chosen:

    >>> writer = QuestionAnswerer(triples, vocabulary="open", **options).fit(X[:300], y[:300])
    >>> writer.predict(new)
    array(['blue', 'small'], dtype=object)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFusion._parameter_constraints,
        **_TRAINING,
        "question": [str, Interval(Integral, 0, None, closed="left")],
        "vocabulary": [StrOptions({"closed", "open"})],
        "question_encoder": [str, HasMethods(["fit", "transform"]), None],
        "max_answers": [Interval(Integral, 2, None, closed="left"), None],
        "strategy": [StrOptions(set(STRATEGIES)), nn.Module, callable],
        "decoder": [StrOptions({"transformer", "gru"})],
        "decoding": [StrOptions({"greedy", "beam"})],
        "beam_size": POSITIVE_INT,
        "max_length": [*POSITIVE_INT, None],
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "scoring": [StrOptions(set(SCORES)), callable],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        question: str | int = "auto",
        vocabulary: str = "closed",
        question_encoder: Any = None,
        max_answers: int | None = None,
        strategy: Any = "cross_attention",
        decoder: str = "transformer",
        decoding: str = "greedy",
        beam_size: int = 5,
        max_length: int | None = None,
        granularity: str = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
        modality_dropout: float = 0.1,
        scoring: Any = "accuracy",
        max_epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float | str = "auto",
        encoder_learning_rate: float | str = "auto",
        weight_decay: float = 1e-2,
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
        self.question = question
        self.vocabulary = vocabulary
        self.question_encoder = question_encoder
        self.max_answers = max_answers
        self.strategy = strategy
        self.decoder = decoder
        self.decoding = decoding
        self.beam_size = beam_size
        self.max_length = max_length
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.n_components = n_components
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.scoring = scoring
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.encoder_learning_rate = encoder_learning_rate
        self.weight_decay = weight_decay
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
