"""Classification by texts that describe the classes."""

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


_TEMPERATURE = 0.01  # the lower bound that CLIP was trained with


class ZeroShotClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classify rows by texts that describe the classes.

    The alignment encodes the texts of each class, and a row is assigned to the class whose texts
    have the highest cosine similarity. No labels are used in training: ``y`` only lists the
    classes.

    Parameters
    ----------
    alignment : estimator
        An estimator of ``skmm.alignment``, or any estimator that has ``fit``,
        ``transform_modality(X, modality)`` and, once fitted, ``modalities_``, a list of (name,
        transformer, columns). It is cloned and fitted on the rows without their ``y``; wrap a
        fitted one in scikit-learn's ``FrozenEstimator`` to keep it as it is.
    prompts : str, list of str or dict, default="{}"
        Template or templates in which ``{}`` is replaced by the class, such as ``"a photo of a
        {}"``, or a dict from each class to its text or texts. The vectors of several texts are
        averaged.
    classes : array-like of shape (n_classes,), default=None
        Classes. None is those in ``y``, or the keys of ``prompts`` without ``y``.
    source : str, default=None
        Modality by which rows are classified. None uses the mean of all modalities of a row
        except ``target``.
    target : str, default="text"
        Modality of the texts that describe the classes.
    prompt_column : str, default=None
        Column of ``target`` that the texts are passed in. Required if the modality has several
        columns, or if the alignment has no ``feature_names_in_``.
    temperature : float, default=None
        What similarities are divided by before the softmax. None is the ``temperature_`` of the
        alignment if it has one, else 0.01.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without the source gets: ``"prior"`` gives each class the same probability,
        ``"raise"`` raises ``ModalityMissingError``.

    Attributes
    ----------
    alignment_ : estimator
        Fitted alignment.
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
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    PrototypeClassifier : Few-shot classification by a few labeled rows.

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
        """Fit the alignment and encode the texts of the classes.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells to fit the alignment on. May be None if the alignment is frozen.
        y : array-like of shape (n_samples,), default=None
            Labels, of which only the distinct values are used.

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
        vectors = prompt_vectors(self.alignment_, self.target, self.prompt_column, texts, owner)
        ends = np.cumsum([len(own) for own in self.prompts_.values()])
        of_classes = np.split(vectors.astype(np.float64), ends[:-1])
        self.class_vectors_ = unit_vectors(np.stack([own.mean(axis=0) for own in of_classes]))
        learned = getattr(self.alignment_, "temperature_", None)
        chosen = learned if self.temperature is None else self.temperature
        self.temperature_ = float(_TEMPERATURE if chosen is None else chosen)
        return self

    def _resolve_classes(self, y: ArrayLike | None) -> np.ndarray:
        """Return the sorted classes of ``classes``, ``y`` or ``prompts``."""
        owner = type(self).__name__
        if y is not None:
            check_classification_targets(y)
        seen = None if y is None else np.unique(np.asarray(y))
        if self.classes is not None:
            classes = np.unique(np.asarray(self.classes))
            unknown = [] if seen is None else [c for c in seen.tolist() if c not in classes]
            if unknown:
                raise ValueError(
                    f"{owner}: y has the label {unknown[0]!r}, which is not in classes. Add it"
                    " there."
                )
        elif seen is not None:
            classes = seen
        elif isinstance(self.prompts, Mapping):
            classes = np.unique(np.asarray(list(self.prompts)))
        else:
            raise ValueError(
                f"{owner} got no classes. Give y, or set classes, or set prompts to a dict."
            )
        if not len(classes):
            raise ValueError(f"{owner}: classes is empty. Give at least one class.")
        return classes

    def decision_function(self, X: Frame) -> np.ndarray:
        """Return the cosine similarities of rows and classes, divided by the temperature.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; only the columns of the source are required.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Scores in the order of ``classes_``; for two classes, the score of the second minus
            that of the first. Zeros for a row without the source.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Frame) -> np.ndarray:
        """Predict class probabilities, the softmax of the scores.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; only the columns of the source are required.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        probabilities: np.ndarray = softmax(self._scores(X), axis=1)
        return probabilities

    def predict(self, X: Frame) -> np.ndarray:
        """Predict the class of each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; only the columns of the source are required.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Class with the highest score.
        """
        nearest = self._scores(X).argmax(axis=1)
        predicted: np.ndarray = self.classes_[nearest]
        return predicted

    def _scores(self, X: Frame) -> np.ndarray:
        """Return the scores (n_samples, n_classes)."""
        check_is_fitted(self)
        vectors = mean_direction(
            [unit_vectors(self.alignment_.transform_modality(X, name)) for name in self._sources]
        )
        present = present_rows(vectors)
        if self.all_missing == "raise" and not present.all():
            raise ModalityMissingError(
                f"{type(self).__name__}: {' and '.join(map(repr, self._sources))} missing in row"
                f" {int(np.flatnonzero(~present)[0])} (by position), and in"
                f" {int((~present).sum())} rows in all. Drop such rows, or set all_missing='prior'."
            )
        vectors = np.where(present[:, None], vectors, 0.0).astype(np.float64)
        return vectors @ self.class_vectors_.T.astype(np.float64) / self.temperature_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags


# --- Texts of the classes, and their vectors ---


def class_prompts(
    prompts: str | Sequence[str] | Mapping[Any, Any], classes: Sequence[Any], owner: str
) -> dict[Any, list[str]]:
    """Return the texts of each class.

    Parameters
    ----------
    prompts : str, list of str or mapping of class to str or list of str
        Templates in which ``{}`` is replaced by the class, or the texts themselves.
    classes : sequence
        Classes.
    owner : str
        Class of the estimator, for messages.

    Returns
    -------
    texts : dict of class to list of str
        Texts of each class.
    """
    if isinstance(prompts, Mapping):
        without = [label for label in classes if label not in prompts]
        if without:
            raise ValueError(
                f"{owner}: prompts has no text for class {without[0]!r}. Give one, or leave the"
                " class out of classes."
            )
        found = {label: _listed(prompts[label]) for label in classes}
    else:
        templates = _listed(prompts)
        for template in templates:
            if isinstance(template, str) and "{}" not in template:
                raise ValueError(
                    f"{owner}: the template {template!r} has no {{}}, which the class replaces. Add"
                    " it, or give a dict from each class to its texts."
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
    """Return the unit vectors (n_texts, n_components) of texts as cells of a modality."""
    column = _column_of(alignment, modality, owner) if column is None else column
    # Without a column name, the cells alone are passed.
    frame = texts if column is None else pd.DataFrame({column: texts})
    vectors = unit_vectors(alignment.transform_modality(frame, modality))
    if not present_rows(vectors).all():
        first = texts[int(np.flatnonzero(~present_rows(vectors))[0])]
        raise ValueError(
            f"{owner}: {type(alignment).__name__} returned no vector for the prompt {first!r}."
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
    """Return unit vectors of the mean over those present, (n, width), NaN where none is."""
    stacked = np.stack(vectors).astype(np.float64)
    present = np.isfinite(stacked[:, :, 0])  # (n_modalities, n)
    total = np.where(present[:, :, None], stacked, 0.0).sum(axis=0)
    return unit_vectors(np.where(present.any(axis=0, keepdims=True).T, total, np.nan))
