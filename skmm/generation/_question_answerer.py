"""Question answering about cells of any modality."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmm._compose._base import BaseMultimodalEstimator, Modalities, Modality, Transformer
from skmm._compose._callbacks import CallbackSupportMixin
from skmm._compose._default_encoder import default_encoder
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    HasMethods,
    Interval,
    RandomState,
    StrOptions,
    refuse_unused,
)
from skmm._frame._column import (
    Column,
    column_names,
    columns_of,
    n_rows,
    take_columns,
    take_rows,
)
from skmm._frame._modality import infer_modalities
from skmm._frame._types import CellColumn, Frame
from skmm._training._trainer import TrainedNetworkMixin, Trainer
from skmm.exceptions import ModalityMissingError
from skmm.fusion import FusionStrategy, JointFusionClassifier, make_strategy
from skmm.generation._base import BaseMethod, MethodsMixin
from skmm.generation._caption_generator import CaptionGenerator
from skmm.generation._decoding import DECODINGS, BeamSearch, GreedySearch, resolve_decoding
from skmm.generation._text_targets import prefixes_of_rows, resolve_others, texts_of_rows
from skmm.metrics import exact_match, vqa_accuracy

__all__ = ["QuestionAnswerer"]

_SCORES: dict[str, Callable[[Any, Any], float]] = {"accuracy": exact_match, "vqa": vqa_accuracy}
# Values of "auto" in the trainer, for both estimators that may answer.
_DEFAULTS = {"batch_size": 64, "learning_rate": 1e-3}
_QUESTION_WIDTH = 64
_DECODINGS = {name: DECODINGS[name] for name in ("greedy", "beam")}
# Parameters of both forms of answers, by the names of the estimator that answers.
_SHARED = (
    "granularity",
    "max_tokens",
    "n_components",
    "dropout",
    "modality_dropout",
    "max_epochs",
    "all_missing",
    "missing_columns",
    "device",
    "random_state",
    "verbose",
)
# Parameters of one form alone.
_OF_ANSWERS = {
    "closed": ("question_encoder", "max_answers", "strategy"),
    "open": ("decoder", "decoding", "max_length"),
}
_OF_ATTENTION = ("n_heads", "n_layers")
# Parameters read by predict, which may change after fit.
_READ = {"all_missing", "missing_columns", "device", "decoding", "max_length"}


def _is_closed(answerer: "QuestionAnswerer") -> bool:
    return answerer.answers == "closed"


class QuestionAnswerer(
    MethodsMixin, TrainedNetworkMixin, CallbackSupportMixin, BaseMultimodalEstimator
):
    """Answer a question about an image, a recording, a series or any encoded modality.

    A row holds a question, in a column of texts, and its subject, in one or more modalities.
    Closed answers are classes: a network encodes the question, cross-attention fuses it with the
    other modalities, and a classifier chooses among the training answers [1]_. Open answers are
    texts: a decoder reads the question and writes the answer after it, token by token, with
    attention over the other modalities [2]_, so an answer may be one that training did not have.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        Subjects of the questions, as in ``ColumnTransformer``. ``transformer`` is any scikit-learn
        transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors
        of one length), or a modality such as ``"image"`` or ``"audio"`` for its default encoder.
        ``"auto"`` infers the modalities of all columns except that of the questions.
    question_column : str or int, default="auto"
        Name or position of the column of the questions. ``"auto"`` takes the only column of text
        that no triple selects.
    answers : {"closed", "open"}, default="closed"
        Whether an answer is chosen among the training answers, by a
        :class:`~skmm.fusion.JointFusionClassifier`, or written, by a :class:`CaptionGenerator`
        whose ``prefix_column`` is that of the questions.
    question_encoder : transformer or str, default=None
        Encoder of the questions, with ``answers="closed"``; the name of a modality is its default
        encoder. None is ``TextEncoder("gru", n_components=64)``, trained with the network. Not
        used if a triple selects the column of the questions.
    max_answers : int, default=None
        Maximum number of classes, with ``answers="closed"``. The most frequent answers are kept,
        and rows with other answers are left out of the training. None keeps all.
    strategy : str, FusionStrategy, nn.Module or callable, default="cross_attention"
        How the modalities are fused, with ``answers="closed"``, as in ``JointFusionClassifier``. A
        strategy given by name gets ``n_heads`` and ``n_layers``, if it has them.
    decoder : {"transformer", "gru"}, default="transformer"
        Network that reads the question and writes, with ``answers="open"``.
    decoding : {"greedy", "beam"}, GreedySearch or BeamSearch, default="greedy"
        How ``predict`` chooses tokens, with ``answers="open"``: the most likely one at each step,
        or by a beam search, whose options :class:`BeamSearch` sets.
    max_length : int, default=None
        Maximum length of an answer in tokens, with ``answers="open"``. Longer answers are cut, in
        ``fit`` and in ``predict``. None is the length of the longest training answer.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether a modality is one vector or a sequence of tokens: patches, words, frames. With
        ``answers="closed"`` this includes the question.
    max_tokens : int, default=None
        Maximum number of tokens of a modality, evenly spaced, with ``granularity="sequence"``.
        None keeps all.
    n_components : int, default=128
        Width of the network; with attention a multiple of ``n_heads``.
    n_heads : int, default=4
        Number of attention heads of the decoder, or of a strategy given by name.
    n_layers : int, default=2
        Number of layers of the decoder, or of the attention of such a strategy.
    dropout : float, default=0.1
        Fraction of the units that is zeroed in training. Lower than the 0.2 of the fusions, as in
        :class:`CaptionGenerator`, so that both forms of answers are trained alike.
    modality_dropout : float, default=0.1
        Probability that a row loses its question or a modality in a training step. At least one of
        those that it has is kept. The network so learns the frequencies of the answers for rows
        without a question or a subject; set 0 if no row has anything missing.
    scoring : {"accuracy", "vqa"} or callable, default="accuracy"
        What ``score`` returns: the share of rows whose answer is one of those given,
        :func:`~skmm.metrics.vqa_accuracy`, or the value of a scikit-learn scorer
        ``scorer(estimator, X, y)``.
    max_epochs : int, default=None
        Maximum number of passes over the training rows. None is that of ``trainer``, 100 by
        default.
    trainer : Trainer, default=None
        How the network is trained: learning rate, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None.
    all_missing : {"prior", "raise"}, default="prior"
        What to do with a row without a question and without any modality: ``"prior"`` predicts
        the most frequent training answer, ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Where the network is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, the dropout and the held-out rows.
    verbose : bool or int, default=0
        Whether to print one line per epoch.

    Attributes
    ----------
    estimator_ : JointFusionClassifier or CaptionGenerator
        Fitted estimator that answers.
    question_column_ : str or int
        Name or position of the column of the questions.
    classes_ : ndarray of shape (n_classes,), object
        Answers to choose from; only with ``answers="closed"``.
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers. With ``answers="closed"`` the
        question is one of them.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``: the mean cross-entropy of a row (closed) or of a token (open), in nats.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    CaptionGenerator : Write texts, with ``prefix_column`` after a question, with more options.
    skmm.metrics.vqa_accuracy : Accuracy with several answers per question.

    Notes
    -----
    ``all_missing``, ``missing_columns``, ``device``, ``scoring``, ``decoding`` and ``max_length``
    are read by ``predict`` and ``score``, so ``set_params`` changes them on a fitted estimator
    without another training.

    Words of a question that occur in no training row carry no information: with
    ``answers="closed"`` each is replaced by the unknown word, with ``answers="open"`` it is left
    out.

    References
    ----------
    .. [1] Antol et al. (2015), "VQA: visual question answering", ICCV; with the cross-attention of
       Lu, Batra, Parikh, Lee (2019), "ViLBERT: pretraining task-agnostic visiolinguistic
       representations for vision-and-language tasks", NeurIPS.
    .. [2] Wang et al. (2022), "GIT: a generative image-to-text transformer for vision and
       language", TMLR.

    Examples
    --------
    Objects with a color and a size, and a question about one of the two:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import QuestionAnswerer
    >>> rng = np.random.default_rng(0)
    >>> color, size, asked = rng.integers(0, 2, (3, 400))
    >>> seen = np.column_stack([color, size]) + 0.1 * rng.standard_normal((400, 2))
    >>> questions = np.where(asked, "how large is it?", "what color is it?")
    >>> X = pd.DataFrame({"camera": list(seen), "question": questions})
    >>> y = np.where(asked, np.array(["small", "large"])[size], np.array(["red", "blue"])[color])
    >>> triples = [("seen", "passthrough", ["camera"])]
    >>> options = {"n_components": 32, "max_epochs": 20, "random_state": 0}
    >>> answerer = QuestionAnswerer(triples, **options).fit(X[:300], y[:300])
    >>> new = pd.DataFrame({"camera": [[1.0, 0.1]] * 2, "question": ["what color?", "how large?"]})
    >>> answerer.predict(new)
    array(['blue', 'small'], dtype=object)
    >>> answerer.score(X[300:], y[300:])
    1.0

    Answers that are written instead of chosen:

    >>> written = QuestionAnswerer(triples, answers="open", **options).fit(X[:300], y[:300])
    >>> written.predict(new)
    array(['blue', 'small'], dtype=object)
    """

    _shorthands: ClassVar[dict[str, dict[str, type[BaseMethod]]]] = {"decoding": _DECODINGS}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "question_column": [str, Interval(Integral, 0, None, closed="left")],
        "answers": [StrOptions({"closed", "open"})],
        "question_encoder": [str, HasMethods(["fit", "transform"]), None],
        "max_answers": [Interval(Integral, 2, None, closed="left"), None],
        "strategy": [str, FusionStrategy, nn.Module, callable],
        "decoder": [StrOptions({"transformer", "gru"})],
        "decoding": [StrOptions(set(_DECODINGS)), GreedySearch, BeamSearch],
        "max_length": [*POSITIVE_INT, None],
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "scoring": [StrOptions(set(_SCORES)), callable],
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        question_column: str | int = "auto",
        answers: Literal["closed", "open"] = "closed",
        question_encoder: Transformer | str | None = None,
        max_answers: int | None = None,
        strategy: str | FusionStrategy | nn.Module | Callable[..., nn.Module] = "cross_attention",
        decoder: Literal["transformer", "gru"] = "transformer",
        decoding: Literal["greedy", "beam"] | GreedySearch | BeamSearch = "greedy",
        max_length: int | None = None,
        granularity: Literal["pooled", "sequence"] = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
        modality_dropout: float = 0.1,
        scoring: Literal["accuracy", "vqa"] | Callable[..., float] = "accuracy",
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.question_column = question_column
        self.answers = answers
        self.question_encoder = question_encoder
        self.max_answers = max_answers
        self.strategy = strategy
        self.decoder = decoder
        self.decoding = decoding
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
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Frame, y: CellColumn) -> Self:
        """Fit the transformers and train the network.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row, with one column of questions. Any cell may be missing.
        y : array-like of shape (n_samples,)
            Answers. An element is a text, or a list of texts if several people answered; then the
            most frequent text is learned, the first one if several are equally frequent. Rows
            whose answer is missing are not used.

        Returns
        -------
        self : object
            The fitted answerer.

        Raises
        ------
        ValueError
            If the column of the questions cannot be inferred, if no answer is given, or if
            ``answers="closed"`` and fewer than two different answers are given.
        TypeError
            If ``y`` holds anything but texts and lists of texts.
        """
        self._check_params()
        X = self._check_frame(X, reset=True)
        name = type(self).__name__
        answers = _answers_of_rows(texts_of_rows(y, n_rows(X), name, several=True))
        given = None if isinstance(self.modalities, str) else self._resolve(X)
        self.question_column_ = self._find_question(X, given)
        # Refuse what is no text before any work.
        prefixes_of_rows(X, self.question_column_, name)
        if given is None:
            given = resolve_others(X, self.question_column_, name, self._resolve)
        self.__dict__.pop("classes_", None)
        rows = self._rows_to_learn(answers)
        target = np.array([answers[row] for row in rows], dtype=object)
        counts = Counter(target.tolist())
        # The first in the alphabet of several, as the argmax over the classes.
        self._prior = min(counts, key=lambda answer: (-counts[answer], answer))
        model: Any = self._closed(X, given) if _is_closed(self) else self._open(given)
        own = X if len(rows) == len(answers) else take_rows(X, rows)
        with _handed_on(self, model), _as_own(self, model):
            model.fit(own, target)
        self.estimator_ = model
        if _is_closed(self):
            self.classes_ = model.classes_
        self.modalities_ = model.modalities_
        self.history_, self.n_iter_ = model.history_, model.n_iter_
        return self

    def _check_params(self) -> None:
        """Refuse parameters out of range and parameters without effect."""
        self._validate_params()
        other = "open" if self.answers == "closed" else "closed"
        refuse_unused(self, _OF_ANSWERS[other], f"with answers={self.answers!r}")
        resolve_decoding(self.decoding)
        if self.granularity == "pooled":
            refuse_unused(self, ["max_tokens"], "with granularity='pooled'")
        if self.answers == "open" and self.decoder == "gru":
            refuse_unused(self, ["n_heads"], "with decoder='gru'")
        if self.answers == "closed":
            useless = [name for name in _OF_ATTENTION if name not in self._attention()]
            refuse_unused(self, useless, f"with strategy={self.strategy!r}")
        self._checked_trainer()

    def _attention(self) -> dict[str, int]:
        """Return the attention options that the strategy takes from this estimator."""
        strategy = make_strategy(self.strategy)
        known = strategy.get_params(deep=False) if isinstance(self.strategy, str) else {}
        return {name: getattr(self, name) for name in _OF_ATTENTION if name in known}

    def _find_question(self, X: Frame, given: list[Modality] | None) -> str | int:
        """Return the name of the column of questions, or its position if it has no name."""
        if self.question_column != "auto":
            columns_of(X, self.question_column)  # raises for a column that is not there
            return self.question_column
        names = column_names(X)
        taken = {name for own in given or [] for name in column_names(X, own.columns)}
        free = [place for place, name in enumerate(names) if name not in taken]
        # A triple may select the column of the questions too.
        for places in (free, list(range(len(names)))):
            texts = _texts_among(X, places) if places else []
            if len(texts) > 1:
                raise ValueError(
                    f"{type(self).__name__}: X has {len(texts)} columns of text,"
                    f" {[names[place] for place in texts]}. Name that of the questions with"
                    " question_column=..."
                )
            if texts:
                label = getattr(X, "columns", names)[texts[0]]
                named = isinstance(label, str) and hasattr(X, "columns")
                return str(label) if named else texts[0]
        raise ValueError(
            f"{type(self).__name__}: X has no column of text among {names}. Name that of the"
            " questions with question_column=..."
        )

    def _rows_to_learn(self, answers: list[str | None]) -> np.ndarray:
        kept = _kept_answers(answers, self.max_answers if _is_closed(self) else None)
        if len(kept) < 1 + _is_closed(self):
            raise ValueError(
                f"{type(self).__name__}: y holds {len(kept)} different answers, of which"
                f" answers={self.answers!r} needs at least {1 + _is_closed(self)}. Give rows"
                " with other answers too, or a larger max_answers."
            )
        return np.flatnonzero([answer in kept for answer in answers])

    def _options(self, answers: str) -> dict[str, Any]:
        """Return the parameters of the estimator that answers."""
        options = {name: getattr(self, name) for name in _SHARED}
        options["trainer"] = self._trainer_of_model()
        if answers == "closed":
            strategy = make_strategy(self.strategy)
            return {**options, "strategy": strategy.set_params(**self._attention())}
        names = (*_OF_ANSWERS["open"], *_OF_ATTENTION)
        options |= {name: getattr(self, name) for name in names}
        # A row that has nothing gets None from the generator, and the prior from predict.
        return {**options, "all_missing": "none" if self.all_missing == "prior" else "raise"}

    def _trainer_of_model(self) -> Trainer:
        """Return the trainer with the values of ``"auto"`` filled in."""
        trainer = Trainer() if self.trainer is None else copy.copy(self.trainer)
        params = trainer.get_params(deep=False)
        unset = {name: value for name, value in _DEFAULTS.items() if params[name] == "auto"}
        return trainer.set_params(**unset)

    def _closed(self, X: Frame, given: list[Modality]) -> JointFusionClassifier:
        """Make the classifier, with the question as a modality if no triple selects it."""
        triples: list[tuple[str, Any, Any]] = [tuple(own) for own in given]
        (question,) = column_names(X, [self.question_column_])
        if all(question not in column_names(X, own.columns) for own in given):
            encoder = self.question_encoder
            if encoder is None:
                encoder = default_encoder("text")
                encoder.set_params(model="gru", n_components=_QUESTION_WIDTH)
            triples.append((self._free_name(question, given), encoder, [self.question_column_]))
        return JointFusionClassifier(triples, **self._options("closed"))

    def _free_name(self, wanted: str, given: list[Modality]) -> str:
        """Return a name for the modality of the question: that of its column, if it is free."""
        wanted = wanted.replace("__", "_") or "question"
        taken = {own.name for own in given} | set(self.get_params(deep=False))
        taken |= set(JointFusionClassifier().get_params(deep=False))
        while wanted in taken:
            wanted += "_text"
        return wanted

    def _open(self, given: list[Modality]) -> CaptionGenerator:
        """Make the generator, with the question as the prefix of the answer."""
        triples = [tuple(own) for own in given]
        options = self._options("open")
        return CaptionGenerator(triples, prefix_column=self.question_column_, **options)

    def _ready(self) -> Any:
        """Return the fitted model with the current values of the parameters of ``predict``."""
        check_is_fitted(self, "estimator_")
        self._check_params()
        model = copy.copy(self.estimator_)  # shares the network
        now = self._options("closed" if isinstance(model, JointFusionClassifier) else "open")
        return model.set_params(**{name: now[name] for name in _READ & set(now)})

    def predict(self, X: Frame) -> np.ndarray:
        """Answer the question of each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing, also the question.

        Returns
        -------
        answers : ndarray of shape (n_samples,), object
            Texts. A row without a question and without any modality gets the most frequent
            training answer.
        """
        model = self._ready()
        with _as_own(self, model):
            answers = np.array(model.predict(self._check_frame(X, reset=False)), dtype=object)
        answers[[answer is None for answer in answers]] = self._prior
        return answers

    @available_if(_is_closed)
    def predict_proba(self, X: Frame) -> np.ndarray:
        """Predict the probability of each answer, only with ``answers="closed"``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing, also the question.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. A row without a question and without any modality gets
            the frequencies of the training answers.
        """
        model = self._ready()
        with _as_own(self, model):
            probabilities = model.predict_proba(self._check_frame(X, reset=False))
        return np.asarray(probabilities)

    def score_samples(self, X: Frame, y: CellColumn) -> np.ndarray:
        """Compute the log-likelihood of an answer for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing, also the question.
        y : array-like of shape (n_samples,)
            An answer for each row.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            One number per row, NaN where the answer is missing. With ``answers="closed"``: the
            log-probability of the answer, minus infinity if it is not in ``classes_``. With
            ``answers="open"``: the sum over the tokens of the answer and its end, for any text, as
            :meth:`CaptionGenerator.score_samples` computes it; NaN for a row without a question
            and without any modality.
        """
        model = self._ready()
        X = self._check_frame(X, reset=False)
        with _as_own(self, model):
            if isinstance(model, CaptionGenerator):
                return model.score_samples(X, y)
            probabilities = model.predict_proba(X)
        owner = f"{type(self).__name__}.score_samples"
        texts = texts_of_rows(y, len(probabilities), owner, several=False)
        places = {answer: place for place, answer in enumerate(self.classes_.tolist())}
        with np.errstate(divide="ignore"):
            logs = np.log(probabilities.astype(np.float64))
        result = np.full(len(texts), np.nan)
        for row, own in enumerate(texts):
            if own:
                result[row] = logs[row, places[own[0]]] if own[0] in places else -np.inf
        return result

    def score(self, X: Frame, y: CellColumn) -> float:
        """Score the answers of ``predict`` against those given.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing, also the question.
        y : array-like of shape (n_samples,)
            Answers, or a list of several in a cell. A named metric leaves out rows without any.

        Returns
        -------
        score : float
            By default the accuracy, from 0 to 1, where an answer is correct if it is one of its
            row's; else what ``scoring`` names or returns. Higher is better.
        """
        if callable(self.scoring):
            return float(self.scoring(self, X, y))
        answers = self.predict(X)
        owner = f"{type(self).__name__}.score"
        return _SCORES[self.scoring](texts_of_rows(y, len(answers), owner, several=True), answers)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # it needs a column of texts, which no check has
        tags.target_tags.required = True
        if _is_closed(self):
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags()
        return tags


def _answers_of_rows(answers: list[list[str]]) -> list[str | None]:
    """Return the most frequent answer of each row, the first of several; None without answers.

    Parameters
    ----------
    answers : list of list of str
        One list for each row.
    """
    return [Counter(row).most_common(1)[0][0] if row else None for row in answers]


def _kept_answers(answers: list[str | None], max_answers: int | None) -> set[str]:
    """Return the most frequent answers; ties are broken alphabetically.

    Parameters
    ----------
    answers : list of str or None
        As :func:`_answers_of_rows` gives them.
    max_answers : int or None
        Maximum number of answers; None keeps all.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return set(sorted(counts, key=lambda answer: (-counts[answer], answer))[:max_answers])


def _texts_among(X: Frame, places: list[int]) -> list[int]:
    """Return the columns of texts; if there is none, those of sentences that are repeated.

    The same question is often asked of many rows, which makes its column look like a category.
    """
    kinds = list(infer_modalities(take_columns(X, places)).values())
    found = [place for place, kind in zip(places, kinds, strict=True) if kind == "text"]
    return found or [
        place
        for place, kind in zip(places, kinds, strict=True)
        if kind in ("tabular", "drop") and _holds_sentences(columns_of(X, place)[0])
    ]


def _holds_sentences(column: Column) -> bool:
    present = column.values[~column.missing]
    return len(present) > 0 and all(isinstance(cell, str) and " " in cell for cell in present)


@contextmanager
def _as_own(answerer: QuestionAnswerer, model: Any) -> Iterator[None]:
    """Let an error about rows without any modality name the class and parameter of the user."""
    try:
        yield
    except ModalityMissingError as error:
        words = str(error).replace(type(model).__name__, type(answerer).__name__)
        raise ModalityMissingError(words.replace("'none'", "'prior'")) from None


@contextmanager
def _handed_on(answerer: BaseEstimator, model: BaseEstimator) -> Iterator[None]:
    """Pass scikit-learn's callbacks on to the model, so that they receive its epochs."""
    names = ("_skl_callbacks", "_parent_callback_ctx")
    given = {name: value for name, value in vars(answerer).items() if name in names}
    vars(model).update(given)
    try:
        yield
    finally:
        for name in given:
            vars(model).pop(name, None)
