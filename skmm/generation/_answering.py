"""How a question answerer is built and fitted, and what it does afterwards."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from sklearn.utils import ClassifierTags, Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import BaseFusion
from skmm._compose._callbacks import CallbackSupportMixin
from skmm._compose._default_encoder import default_encoder
from skmm._frame._column import column_names, columns_of, n_rows, take_columns, take_rows
from skmm._frame._modality import infer_modalities
from skmm.fusion import JointFusionClassifier
from skmm.fusion._modalities import Modality
from skmm.generation._answer_target import answers_of_rows, kept_answers
from skmm.generation._caption_generator import CaptionGenerator
from skmm.generation._prefix import prefixes_of_rows, resolve_others
from skmm.generation._text_targets import texts_of_rows
from skmm.metrics import exact_match, vqa_accuracy

__all__ = ["SCORES", "BaseAnswerer"]

SCORES: dict[str, Callable[[Any, Any], float]] = {"accuracy": exact_match, "vqa": vqa_accuracy}
_STEP_SIZE = 1e-3
_QUESTION_WIDTH = 64
# Of both routes, as they are called there.
_SHARED = (
    "granularity",
    "max_tokens",
    "n_components",
    "n_heads",
    "n_layers",
    "dropout",
    "modality_dropout",
    "max_epochs",
    "batch_size",
    "encoder_learning_rate",
    "weight_decay",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
    "callbacks",
    "all_missing",
    "missing_columns",
    "device",
    "dtype",
    "random_state",
    "verbose",
)
# Of each route alone.
_OWN = {"closed": ("strategy",), "open": ("decoder", "decoding", "beam_size", "max_length")}
# Those that are read when it answers.
_READ = {"all_missing", "missing_columns", "device", "decoding", "beam_size", "max_length"}


def _is_closed(answerer: Any) -> bool:
    return answerer.vocabulary == "closed"


class BaseAnswerer(CallbackSupportMixin, BaseFusion):
    """The methods of a question answerer."""

    # Parameters, told to type checkers.
    question: str | int
    vocabulary: str
    question_encoder: Any
    max_answers: int | None
    learning_rate: float | str
    scoring: Any

    def fit(self, X: Any, y: Any) -> Self:
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
        self._validate_params()
        X = self._check_frame(X, reset=True)
        name = type(self).__name__
        answers = answers_of_rows(texts_of_rows(y, n_rows(X), name, several=True))
        given = None if isinstance(self.modalities, str) else self._resolve(X)
        self.question_ = self._find_question(X, given)
        prefixes_of_rows(X, self.question_, name)  # what is no text is told before any work
        if given is None:
            given = resolve_others(X, self.question_, name, self._resolve)
        self.__dict__.pop("classes_", None)
        rows = self._rows_to_learn(answers)
        target = np.array([answers[row] for row in rows], dtype=object)
        model = self._closed(X, given) if _is_closed(self) else self._open(given)
        own = X if len(rows) == len(answers) else take_rows(X, rows)
        with _handed_on(self, model):
            model.fit(own, target)
        self.estimator_ = model
        if _is_closed(self):
            self.classes_ = model.classes_
        self.modalities_ = model.modalities_
        self.history_, self.n_iter_ = model.history_, model.n_iter_
        return self

    def _find_question(self, X: Any, given: list[Modality] | None) -> str | int:
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
        kept = kept_answers(answers, self.max_answers if _is_closed(self) else None)
        if len(kept) < 1 + _is_closed(self):
            raise ValueError(
                f"{type(self).__name__}: y holds {len(kept)} different answers, of which"
                f" vocabulary={self.vocabulary!r} needs at least {1 + _is_closed(self)}. Give rows"
                " with other answers too, or a larger max_answers."
            )
        return np.flatnonzero([answer in kept for answer in answers])

    # --- the two routes ---------------------------------------------------------------------

    def _options(self, route: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_SHARED, *_OWN[route])} | {
            "learning_rate": _STEP_SIZE if self.learning_rate == "auto" else self.learning_rate
        }

    def _closed(self, X: Any, given: list[Modality]) -> Any:
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

    def _open(self, given: list[Modality]) -> Any:
        """The question as what stands in front of the answer."""
        triples = [tuple(own) for own in given]
        return CaptionGenerator(triples, prefix=self.question_, **self._options("open"))

    # --- after fit --------------------------------------------------------------------------

    def _ready(self) -> Any:
        """The fitted model, answering as the parameters say now."""
        check_is_fitted(self, "estimator_")
        self._validate_params()
        model = copy.copy(self.estimator_)  # shares the network
        now = self._options("closed" if isinstance(model, JointFusionClassifier) else "open")
        return model.set_params(**{name: now[name] for name in _READ & set(now)})

    def predict(self, X: Any) -> np.ndarray:
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
    def predict_proba(self, X: Any) -> np.ndarray:
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
        return self._ready().predict_proba(self._check_frame(X, reset=False))

    def predict_log_proba(self, X: Any, y: Any = None) -> np.ndarray:
        """Return how likely answers are for their rows.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality, or the question.
        y : array-like of shape (n_samples,), default=None
            An answer for each row; None for those that ``predict`` gives.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            One number a row. Closed: of the answer among ``classes_``, minus infinity for one
            that is not there. Open: sum over the answer's tokens and its end, for any text, as
            :meth:`CaptionGenerator.predict_log_proba` gives it. NaN where the answer is missing.
        """
        model = self._ready()
        X = self._check_frame(X, reset=False)
        if isinstance(model, CaptionGenerator):
            return model.predict_log_proba(X, y)
        owner = f"{type(self).__name__}.predict_log_proba"
        probabilities = model.predict_proba(X)
        given = self.classes_[probabilities.argmax(axis=1)] if y is None else y
        texts = texts_of_rows(given, len(probabilities), owner, several=False)
        places = {answer: place for place, answer in enumerate(self.classes_.tolist())}
        with np.errstate(divide="ignore"):
            logs = np.log(probabilities.astype(np.float64))
        result = np.full(len(texts), np.nan)
        for row, own in enumerate(texts):
            if own:
                result[row] = logs[row, places[own[0]]] if own[0] in places else -np.inf
        return result

    def score(self, X: Any, y: Any) -> float:
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
        return SCORES[self.scoring](texts_of_rows(y, len(answers), owner, several=True), answers)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # it needs a column of texts, which no check has
        tags.target_tags.required = True
        if _is_closed(self):
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags()
        return tags


def _texts_among(X: Any, places: list[int]) -> list[int]:
    """Which columns hold texts; if none, those of strings that come back, as questions do."""
    kinds = list(infer_modalities(take_columns(X, places)).values())
    found = [place for place, kind in zip(places, kinds, strict=True) if kind == "text"]
    return found or [
        place
        for place, kind in zip(places, kinds, strict=True)
        if kind in ("tabular", "drop") and _holds_sentences(columns_of(X, place)[0])
    ]


def _holds_sentences(column: Any) -> bool:
    present = column.values[~column.missing]
    return len(present) > 0 and all(isinstance(cell, str) and " " in cell for cell in present)


@contextmanager
def _handed_on(answerer: Any, model: Any) -> Iterator[None]:
    """Let scikit-learn's callbacks see the fit of the model, whose epochs are what there is."""
    names = ("_skl_callbacks", "_parent_callback_ctx")
    given = {name: value for name, value in vars(answerer).items() if name in names}
    vars(model).update(given)
    try:
        yield
    finally:
        for name in given:
            vars(model).pop(name, None)
