"""Answers to questions about cells of any modality."""

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
from skmm.fusion import FusionStrategy, JointFusionClassifier, make_strategy
from skmm.generation._base import BaseMethod, MethodsMixin
from skmm.generation._caption_generator import CaptionGenerator
from skmm.generation._decoding import DECODINGS, BeamSearch, GreedySearch, resolve_decoding
from skmm.generation._text_targets import prefixes_of_rows, resolve_others, texts_of_rows
from skmm.metrics import exact_match, vqa_accuracy

__all__ = ["QuestionAnswerer"]

_SCORES: dict[str, Callable[[Any, Any], float]] = {"accuracy": exact_match, "vqa": vqa_accuracy}
# What "auto" of the trainer means, whichever estimator answers.
_DEFAULTS = {"batch_size": 64, "learning_rate": 1e-3}
_QUESTION_WIDTH = 64
_DECODINGS = {name: DECODINGS[name] for name in ("greedy", "beam")}
# Of both vocabularies, as the estimator that answers calls them.
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
# Of one vocabulary alone.
_OF_VOCABULARY = {
    "closed": ("question_encoder", "max_answers", "strategy"),
    "open": ("decoder", "decoding", "max_length"),
}
_OF_ATTENTION = ("n_heads", "n_layers")
# Those that are read when it answers.
_READ = {"all_missing", "missing_columns", "device", "decoding", "max_length"}


def _is_closed(answerer: "QuestionAnswerer") -> bool:
    return answerer.vocabulary == "closed"


class QuestionAnswerer(
    MethodsMixin, TrainedNetworkMixin, CallbackSupportMixin, BaseMultimodalEstimator
):
    """Answer a question about an image, an audio clip, a series or anything encoded.

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
    strategy : str, FusionStrategy, nn.Module or callable, default="cross_attention"
        Of ``"closed"``: how modalities are fused, as in ``JointFusionClassifier``. One that is
        given by its name has ``n_heads`` and ``n_layers``, if it takes them.
    decoder : {"transformer", "gru"}, default="transformer"
        Of ``"open"``: what reads the question and writes.
    decoding : {"greedy", "beam"}, GreedySearch or BeamSearch, default="greedy"
        Of ``"open"``: how ``predict`` chooses words, the likeliest each time or by a beam search,
        of which :class:`BeamSearch` sets more.
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
        Attention heads of the decoder, or of a strategy that is given by its name.
    n_layers : int, default=2
        Layers of the decoder, or of attention in such a strategy.
    dropout : float, default=0.1
        Share of units that is zeroed in training.
    modality_dropout : float, default=0.1
        Probability that a row loses its question or a modality in training, never the last one it
        has. So what answers without one of them knows how often each answer is right; 0 where no
        row will lack any.
    scoring : {"accuracy", "vqa"} or callable, default="accuracy"
        What ``score`` measures: whether an answer is one of its row's;
        :func:`~skmm.metrics.vqa_accuracy`; or a function of ``(y_true, y_pred)``.
    max_epochs : int, default=None
        Most passes over the training rows; None is the trainer's, 100.
    trainer : Trainer, default=None
        How the network is trained: step sizes, batches, early stopping, callbacks. None is
        ``Trainer()``; its parameters are searched as ``trainer__learning_rate``.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks its question and every modality gets the most frequent answer, None where
        the vocabulary is open, or ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the network is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
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
    ``all_missing``, ``missing_columns``, ``device``, ``scoring``, ``decoding`` and
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
    Things that have a color and a size, and a question about one of the two:

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

    Written instead of chosen:

    >>> written = QuestionAnswerer(triples, vocabulary="open", **options).fit(X[:300], y[:300])
    >>> written.predict(new)
    array(['blue', 'small'], dtype=object)
    """

    _shorthands: ClassVar[dict[str, dict[str, type[BaseMethod]]]] = {"decoding": _DECODINGS}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "question": [str, Interval(Integral, 0, None, closed="left")],
        "vocabulary": [StrOptions({"closed", "open"})],
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
        question: str | int = "auto",
        vocabulary: Literal["closed", "open"] = "closed",
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
        self.question = question
        self.vocabulary = vocabulary
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
            Cells, one column of questions among them; any row may lack any of them.
        y : array-like of shape (n_samples,)
            Answers, texts; or a list of several people's answers in a cell, of which the most
            frequent one is learned. A row whose answer is missing is left out.

        Returns
        -------
        self : object
            The fitted answerer.
        """
        self._check_params()
        X = self._check_frame(X, reset=True)
        name = type(self).__name__
        answers = _answers_of_rows(texts_of_rows(y, n_rows(X), name, several=True))
        given = None if isinstance(self.modalities, str) else self._resolve(X)
        self.question_ = self._find_question(X, given)
        prefixes_of_rows(X, self.question_, name)  # what is no text is refused before any work
        if given is None:
            given = resolve_others(X, self.question_, name, self._resolve)
        self.__dict__.pop("classes_", None)
        rows = self._rows_to_learn(answers)
        target = np.array([answers[row] for row in rows], dtype=object)
        model: Any = self._closed(X, given) if _is_closed(self) else self._open(given)
        own = X if len(rows) == len(answers) else take_rows(X, rows)
        with _handed_on(self, model):
            model.fit(own, target)
        self.estimator_ = model
        if _is_closed(self):
            self.classes_ = model.classes_
        self.modalities_ = model.modalities_
        self.history_, self.n_iter_ = model.history_, model.n_iter_
        return self

    def _check_params(self) -> None:
        """Refuse parameters out of range, and those that others make useless."""
        self._validate_params()
        other = "open" if self.vocabulary == "closed" else "closed"
        refuse_unused(self, _OF_VOCABULARY[other], f"with vocabulary={self.vocabulary!r}")
        resolve_decoding(self.decoding)
        if self.granularity == "pooled":
            refuse_unused(self, ["max_tokens"], "with granularity='pooled'")
        if self.vocabulary == "open" and self.decoder == "gru":
            refuse_unused(self, ["n_heads"], "with decoder='gru'")
        if self.vocabulary == "closed":
            useless = [name for name in _OF_ATTENTION if name not in self._attention()]
            refuse_unused(self, useless, f"with strategy={self.strategy!r}")
        self._checked_trainer()

    def _attention(self) -> dict[str, int]:
        """Options of attention that the strategy takes from this estimator."""
        strategy = make_strategy(self.strategy)
        known = strategy.get_params(deep=False) if isinstance(self.strategy, str) else {}
        return {name: getattr(self, name) for name in _OF_ATTENTION if name in known}

    def _find_question(self, X: Frame, given: list[Modality] | None) -> str | int:
        """Name of the column of questions, or its position where it has none."""
        if self.question != "auto":
            columns_of(X, self.question)  # raises for a column that is not there
            return self.question
        names = column_names(X)
        taken = {name for own in given or [] for name in column_names(X, own.columns)}
        free = [place for place, name in enumerate(names) if name not in taken]
        # A question may stand among the modalities, too.
        for places in (free, list(range(len(names)))):
            texts = _texts_among(X, places) if places else []
            if len(texts) > 1:
                raise ValueError(
                    f"{type(self).__name__}: X has {len(texts)} columns of text,"
                    f" {[names[place] for place in texts]}. Name that of the questions by"
                    " question=..."
                )
            if texts:
                label = getattr(X, "columns", names)[texts[0]]
                named = isinstance(label, str) and hasattr(X, "columns")
                return str(label) if named else texts[0]
        raise ValueError(
            f"{type(self).__name__}: X has no column of text among {names}. Name that of the"
            " questions by question=..."
        )

    def _rows_to_learn(self, answers: list[str | None]) -> np.ndarray:
        kept = _kept_answers(answers, self.max_answers if _is_closed(self) else None)
        if len(kept) < 1 + _is_closed(self):
            raise ValueError(
                f"{type(self).__name__}: y holds {len(kept)} different answers, of which"
                f" vocabulary={self.vocabulary!r} needs at least {1 + _is_closed(self)}. Give rows"
                " with other answers too, or a larger max_answers."
            )
        return np.flatnonzero([answer in kept for answer in answers])

    def _options(self, vocabulary: str) -> dict[str, Any]:
        """Parameters of the estimator that answers."""
        options = {name: getattr(self, name) for name in _SHARED}
        options["trainer"] = self._trainer_of_model()
        if vocabulary == "closed":
            strategy = make_strategy(self.strategy)
            return {**options, "strategy": strategy.set_params(**self._attention())}
        names = (*_OF_VOCABULARY["open"], *_OF_ATTENTION)
        return {**options, **{name: getattr(self, name) for name in names}}

    def _trainer_of_model(self) -> Trainer:
        """The trainer, with what ``"auto"`` means here."""
        trainer = Trainer() if self.trainer is None else copy.copy(self.trainer)
        params = trainer.get_params(deep=False)
        unset = {name: value for name, value in _DEFAULTS.items() if params[name] == "auto"}
        return trainer.set_params(**unset)

    def _closed(self, X: Frame, given: list[Modality]) -> JointFusionClassifier:
        """The question as one more modality, if it is none yet."""
        triples: list[tuple[str, Any, Any]] = [tuple(own) for own in given]
        (question,) = column_names(X, [self.question_])
        if all(question not in column_names(X, own.columns) for own in given):
            encoder = self.question_encoder
            if encoder is None:
                encoder = default_encoder("text")
                encoder.set_params(model="gru", n_components=_QUESTION_WIDTH)
            triples.append((self._free_name(question, given), encoder, [self.question_]))
        return JointFusionClassifier(triples, **self._options("closed"))

    def _free_name(self, wanted: str, given: list[Modality]) -> str:
        """Name for the question's modality: that of its column, if nothing else is called so."""
        wanted = wanted.replace("__", "_") or "question"
        taken = {own.name for own in given} | set(self.get_params(deep=False))
        taken |= set(JointFusionClassifier().get_params(deep=False))
        while wanted in taken:
            wanted += "_text"
        return wanted

    def _open(self, given: list[Modality]) -> CaptionGenerator:
        """The question as what stands in front of the answer."""
        triples = [tuple(own) for own in given]
        return CaptionGenerator(triples, prefix=self.question_, **self._options("open"))

    def _ready(self) -> Any:
        """The fitted model, answering as the parameters say now."""
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
            Cells; any row may lack any modality, or the question.

        Returns
        -------
        answers : ndarray of shape (n_samples,), object
            Texts. A row that has neither a question nor anything it is about gets the most
            frequent training answer, or None where the vocabulary is open.
        """
        model = self._ready()
        return np.asarray(model.predict(self._check_frame(X, reset=False)), dtype=object)

    @available_if(_is_closed)
    def predict_proba(self, X: Frame) -> np.ndarray:
        """Predict the probability of each answer; only there with a closed vocabulary.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality, or the question.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; shares of the training answers for a row that lacks
            everything.
        """
        probabilities = self._ready().predict_proba(self._check_frame(X, reset=False))
        return np.asarray(probabilities)

    def score_samples(self, X: Frame, y: CellColumn) -> np.ndarray:
        """Compute the log-likelihood of an answer for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality, or the question.
        y : array-like of shape (n_samples,)
            An answer for each row.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            One number a row. Closed: of the answer among ``classes_``, minus infinity for one
            that is not there. Open: sum over the answer's tokens and its end, for any text, as
            :meth:`CaptionGenerator.score_samples` gives it. NaN where the answer is missing.
        """
        model = self._ready()
        X = self._check_frame(X, reset=False)
        if isinstance(model, CaptionGenerator):
            return model.score_samples(X, y)
        owner = f"{type(self).__name__}.score_samples"
        probabilities = model.predict_proba(X)
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
        """Return the share of right answers.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality, or the question.
        y : array-like of shape (n_samples,)
            Answers, or a list of several in a cell. Rows without any are left out.

        Returns
        -------
        score : float
            By ``scoring``, from 0 to 1: by default an answer is right that is one of its row's.
        """
        answers = self.predict(X)
        if callable(self.scoring):
            return float(self.scoring(y, answers))
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
    """Return the most frequent answer of each row, the first of several; None where none is.

    Parameters
    ----------
    answers : list of list of str
        One list for each row.
    """
    return [Counter(row).most_common(1)[0][0] if row else None for row in answers]


def _kept_answers(answers: list[str | None], max_answers: int | None) -> set[str]:
    """Return the answers that most rows have, in the order of the alphabet where as many do.

    Parameters
    ----------
    answers : list of str or None
        As :func:`_answers_of_rows` gives them.
    max_answers : int or None
        How many; None for all.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return set(sorted(counts, key=lambda answer: (-counts[answer], answer))[:max_answers])


def _texts_among(X: Frame, places: list[int]) -> list[int]:
    """Which columns hold texts; if none, those of strings that come back, as questions do."""
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
def _handed_on(answerer: BaseEstimator, model: BaseEstimator) -> Iterator[None]:
    """Let scikit-learn's callbacks see the fit of the model, whose epochs are what there is."""
    names = ("_skl_callbacks", "_parent_callback_ctx")
    given = {name: value for name, value in vars(answerer).items() if name in names}
    vars(model).update(given)
    try:
        yield
    finally:
        for name in given:
            vars(model).pop(name, None)
