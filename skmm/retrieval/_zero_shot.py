"""Classes from texts, without a labeled row."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._constraints import POSITIVE_REAL, HasMethods, StrOptions
from skmm._frame._types import Frame
from skmm.exceptions import ModalityMissingError
from skmm.metrics._scorers import Alignment, modality_names
from skmm.retrieval._rows import as_rows, check_names, present_rows, unit_vectors

__all__ = [
    "ZeroShotClassifier",
    "class_prompts",
    "mean_direction",
    "prompt_vectors",
]


_TEMPERATURE = 0.01  # what CLIP and its successors were trained to


class ZeroShotClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classify rows by the texts that describe the classes.

    The texts of each class are taken into the space of an alignment, and a row belongs to the
    class whose texts lie nearest to it. No labeled row is needed: ``y`` only tells which
    classes there are.

    Parameters
    ----------
    alignment : estimator
        An estimator of ``skmm.alignment``, or any estimator that has ``fit``,
        ``transform_modality(X, modality)`` and, once fitted, ``modalities_``, a list of (name,
        transformer, columns). It is cloned and fitted on the rows without their ``y``; wrap a
        fitted one in scikit-learn's ``FrozenEstimator`` to keep it as it is.
    prompts : str, list of str or dict, default="{}"
        Templates in which ``{}`` stands for the class, such as ``"a photo of a {}"``, or a dict
        from class to its text or texts. The vectors of several texts are averaged.
    classes : array-like of shape (n_classes,), default=None
        Classes. None takes those in ``y``, or else the keys of ``prompts``.
    source : str, default=None
        Modality by which rows are classified. None takes the mean of all but
        ``target`` that the row has.
    target : str, default="text"
        Modality of the alignment that the texts belong to.
    prompt_column : str, default=None
        Column that takes the texts; needed if the modality has several, or if the alignment does
        not tell which columns it has.
    temperature : float, default=None
        Cosines are divided by it before the softmax: the lower, the surer. None takes the
        ``temperature_`` that the alignment has learned, or 0.01.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks the source gets the same probability for each class, or
        ``ModalityMissingError`` is raised.

    Attributes
    ----------
    alignment_ : estimator
        The fitted alignment.
    classes_ : ndarray of shape (n_classes,)
        Classes, sorted.
    prompts_ : dict of class to list of str
        Texts of each class.
    class_vectors_ : ndarray of shape (n_classes, n_components), float32
        Unit vector of each class.
    temperature_ : float
        The temperature used.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    PrototypeClassifier : Classes from a few labeled rows.

    References
    ----------
    Radford et al. (2021), "Learning transferable visual models from natural language
    supervision", ICML. Frome et al. (2013), "DeViSE: a deep visual-semantic embedding model",
    NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.base import BaseEstimator
    >>> from skmm import ZeroShotClassifier
    >>> class Letters(BaseEstimator):  # a toy alignment of images and texts
    ...     def fit(self, X, y=None):
    ...         self.modalities_ = [(name, None, [name]) for name in ("image", "text")]
    ...         return self
    ...     def transform_modality(self, X, modality):
    ...         if modality == "image":
    ...             return np.stack(X["image"])
    ...         return np.array([[text.count("a"), text.count("o")] for text in X["text"]])
    >>> X = pd.DataFrame({"image": [[0.9, 0.1], [0.2, 0.7]]})
    >>> model = ZeroShotClassifier(
    ...     Letters(), prompts="this is {}", classes=["cat", "dog"], prompt_column="text"
    ... ).fit(X)
    >>> model.predict(X)
    array(['cat', 'dog'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "alignment": [HasMethods(["fit", "transform_modality"])],
        "prompts": [str, list, tuple, Mapping],
        "classes": ["array-like", None],
        "source": [str, None],
        "target": [str],
        "prompt_column": [str, None],
        "temperature": [*POSITIVE_REAL, None],
        "all_missing": [StrOptions({"prior", "raise"})],
    }

    def __init__(
        self,
        alignment: Alignment,
        *,
        prompts: str | Sequence[str] | Mapping[Any, Any] = "{}",
        classes: ArrayLike | None = None,
        source: str | None = None,
        target: str = "text",
        prompt_column: str | None = None,
        temperature: float | None = None,
        all_missing: Literal["prior", "raise"] = "prior",
    ):
        self.alignment = alignment
        self.prompts = prompts
        self.classes = classes
        self.source = source
        self.target = target
        self.prompt_column = prompt_column
        self.temperature = temperature
        self.all_missing = all_missing

    def fit(self, X: Frame | None, y: ArrayLike | None = None) -> Self:
        """Fit the alignment and take the classes' texts into its space.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells, for the alignment. With one that is frozen it may be None.
        y : array-like of shape (n_samples,), default=None
            Labels, of which only the distinct values are looked at.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        self._validate_params()
        owner = type(self).__name__
        if X is not None:
            validate_data(self, X=as_rows(X, owner), reset=True, skip_check_array=True)
        self.classes_ = self._resolve_classes(y)
        self.prompts_ = class_prompts(self.prompts, self.classes_.tolist(), owner)
        self.alignment_ = clone(self.alignment).fit(X, None)
        names = modality_names(self.alignment_)
        check_names([self.target], names, owner, parameter="target")
        check_names(list(filter(None, [self.source])), names, owner, parameter="source")
        others = [name for name in names if name != self.target]
        self._sources = others if self.source is None else [self.source]
        texts = [text for own in self.prompts_.values() for text in own]
        vectors = prompt_vectors(
            self.alignment_, self.target, self.prompt_column, texts, owner
        )
        ends = np.cumsum([len(own) for own in self.prompts_.values()])
        of_classes = np.split(vectors.astype(np.float64), ends[:-1])
        self.class_vectors_ = unit_vectors(np.stack([own.mean(axis=0) for own in of_classes]))
        learned = getattr(self.alignment_, "temperature_", None)
        chosen = learned if self.temperature is None else self.temperature
        self.temperature_ = float(_TEMPERATURE if chosen is None else chosen)
        return self

    def _resolve_classes(self, y: ArrayLike | None) -> np.ndarray:
        owner = type(self).__name__
        if y is not None:
            check_classification_targets(y)
        seen = None if y is None else np.unique(np.asarray(y))
        if self.classes is not None:
            classes = np.unique(np.asarray(self.classes))
            strangers = [] if seen is None else [c for c in seen.tolist() if c not in classes]
            if strangers:
                raise ValueError(
                    f"{owner}: y holds {strangers[0]!r}, which is not in classes. Add it there."
                )
        elif seen is not None:
            classes = seen
        elif isinstance(self.prompts, Mapping):
            classes = np.unique(np.asarray(list(self.prompts)))
        else:
            raise ValueError(f"{owner} knows no classes. Give classes, or y, or prompts as a dict.")
        if not len(classes):
            raise ValueError(f"{owner}: classes is empty. Give at least one class.")
        return classes

    def decision_function(self, X: Frame) -> np.ndarray:
        """Cosines between rows and classes, divided by the temperature.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; the columns of the source are enough.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            In the order of ``classes_``; of two classes that of the second less that of the
            first. Zeros for a row that lacks the source.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Frame) -> np.ndarray:
        """Predict probabilities.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; the columns of the source are enough.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        probabilities: np.ndarray = softmax(self._scores(X), axis=1)
        return probabilities

    def predict(self, X: Frame) -> np.ndarray:
        """Predict classes.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; the columns of the source are enough.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            The nearest class.
        """
        nearest = self._scores(X).argmax(axis=1)
        predicted: np.ndarray = self.classes_[nearest]
        return predicted

    def _scores(self, X: Frame) -> np.ndarray:
        check_is_fitted(self)
        vectors = mean_direction(
            [unit_vectors(self.alignment_.transform_modality(X, name)) for name in self._sources]
        )
        present = present_rows(vectors)
        if self.all_missing == "raise" and not present.all():
            raise ModalityMissingError(
                f"{type(self).__name__}: row {int(np.flatnonzero(~present)[0])} (by position) lacks"
                f" {' and '.join(map(repr, self._sources))}, and {int((~present).sum())} rows do."
                " Drop such rows, or set all_missing='prior'."
            )
        vectors = np.where(present[:, None], vectors, 0.0).astype(np.float64)
        return vectors @ self.class_vectors_.T.astype(np.float64) / self.temperature_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags


# --- Classes as texts, and the texts as vectors ---


def class_prompts(
    prompts: str | Sequence[str] | Mapping[Any, Any], classes: Sequence[Any], owner: str
) -> dict[Any, list[str]]:
    """Texts of each class.

    Parameters
    ----------
    prompts : str, list of str or mapping of class to str or list of str
        Templates in which ``{}`` stands for the class, or the texts themselves.
    classes : sequence
        Classes.
    owner : str
        Class that asks, for messages.
    """
    if isinstance(prompts, Mapping):
        lacking = [label for label in classes if label not in prompts]
        if lacking:
            raise ValueError(
                f"{owner}: prompts has no text for class {lacking[0]!r}. Give one, or leave the"
                " class out of classes."
            )
        found = {label: _listed(prompts[label]) for label in classes}
    else:
        templates = _listed(prompts)
        for template in templates:
            if isinstance(template, str) and "{}" not in template:
                raise ValueError(
                    f"{owner}: the template {template!r} has no {{}}, where the class goes. Put it"
                    " in, or give a dict from class to texts."
                )
        found = {
            label: [t.replace("{}", str(label)) if isinstance(t, str) else t for t in templates]
            for label in classes
        }
    for label, texts in found.items():
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(
                f"{owner}: prompts of class {label!r} must be one or more texts that are not empty,"
                f" got {texts!r}."
            )
    return found


def _listed(texts: object) -> list[Any]:
    return list(texts) if isinstance(texts, list | tuple) else [texts]


def prompt_vectors(
    alignment: Alignment, modality: str, column: str | None, texts: list[str], owner: str
) -> np.ndarray:
    """Unit vectors (n_texts, n_components) of texts, as cells of a modality."""
    column = _column_of(alignment, modality, owner) if column is None else column
    # Without a column's name the cells alone have to do.
    frame = texts if column is None else pd.DataFrame({column: texts})
    vectors = unit_vectors(alignment.transform_modality(frame, modality))
    if not present_rows(vectors).all():
        first = texts[int(np.flatnonzero(~present_rows(vectors))[0])]
        raise ValueError(
            f"{owner}: {type(alignment).__name__} gives no vector for the prompt {first!r}."
            f" target={modality!r} must be the modality of texts."
        )
    return vectors


def _column_of(alignment: Alignment, modality: str, owner: str) -> str | None:
    """Return the name of a modality's only column, None if the alignment has no names."""
    if not hasattr(alignment, "feature_names_in_"):
        return None
    (key,) = [columns for name, _, columns in alignment.modalities_ if name == modality]
    columns = [key] if isinstance(key, str) else key
    if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
        return None
    if len(columns) == 1:
        return str(columns[0])
    raise ValueError(
        f"{owner}: modality {modality!r} has the columns {columns}. Name the one that takes the"
        " prompts by prompt_column."
    )


def mean_direction(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Unit vector of the mean over those that are there, (n, width); NaN where none is."""
    stacked = np.stack(vectors).astype(np.float64)
    present = np.isfinite(stacked[:, :, 0])  # (n_modalities, n): a vector is there or it is not
    total = np.where(present[:, :, None], stacked, 0.0).sum(axis=0)
    return unit_vectors(np.where(present.any(axis=0, keepdims=True).T, total, np.nan))
