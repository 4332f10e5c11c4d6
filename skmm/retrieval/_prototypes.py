"""Few-shot classification by the mean of each class."""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._constraints import NON_NEGATIVE, POSITIVE_REAL, StrOptions, check_sample_weight

__all__ = ["PrototypeClassifier"]

_LARGEST = 1e150  # its square does not overflow


class PrototypeClassifier(ClassifierMixin, BaseEstimator):
    """Classify vectors by the nearest prototype, the shrunken mean of each class.

    This is few-shot learning on features that are already informative: after an alignment or an
    ``EarlyFusion`` in a pipeline, one to twenty rows per class are enough. Only means are
    computed, so that ``partial_fit`` can add rows at any time.

    Parameters
    ----------
    metric : {"euclidean", "cosine"}, default="euclidean"
        Distance to a prototype, which is squared as in prototypical networks. ``"cosine"`` scales
        rows and prototypes to unit length first.
    shrinkage : float, default=0.0
        Number of additional rows at the mean of all classes that each prototype is computed with:
        the prototype of n rows is shrunken toward that mean by ``shrinkage / (n + shrinkage)``.
    temperature : float, default=None
        What negative squared distances are divided by before the softmax. None is the value for
        which the probabilities are those of isotropic normal distributions around the prototypes:
        twice the variance per feature within classes, or between classes if each has one row.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes.
    prototypes_ : ndarray of shape (n_classes, n_features)
        Prototype of each class.
    class_count_ : ndarray of shape (n_classes,)
        Rows of each class, or the sum of their weights.
    temperature_ : float
        Temperature that is used.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the features seen in ``fit``. Defined only if ``X`` has feature names.

    See Also
    --------
    ZeroShotClassifier : Classification by texts that describe the classes.
    skmm.model_selection.FewShotSplit : Splits with a few training rows per class.

    Notes
    -----
    A class of ``partial_fit`` without any row so far is never predicted.

    References
    ----------
    Snell, Swersky and Zemel (2017), "Prototypical networks for few-shot learning", NeurIPS.
    Tibshirani et al. (2002), "Diagnosis of multiple cancer types by shrunken centroids of gene
    expression", PNAS.

    Examples
    --------
    >>> from skmm import PrototypeClassifier
    >>> model = PrototypeClassifier().fit([[0.0, 0.1], [0.2, 0.0], [1.0, 0.9]], ["a", "a", "b"])
    >>> model.predict([[0.1, 0.3], [0.8, 0.8]])
    array(['a', 'b'], dtype='<U1')
    >>> model.partial_fit([[0.1, 0.3]], ["b"]).predict([[0.1, 0.3]])
    array(['a'], dtype='<U1')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "metric": [StrOptions({"euclidean", "cosine"})],
        "shrinkage": NON_NEGATIVE,
        "temperature": [*POSITIVE_REAL, None],
    }

    def __init__(
        self,
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        shrinkage: float = 0.0,
        temperature: float | None = None,
    ):
        self.metric = metric
        self.shrinkage = shrinkage
        self.temperature = temperature

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Compute the prototype of each class.

        Rows of an earlier ``fit`` or ``partial_fit`` are forgotten.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training vectors, without NaN or infinity.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean of their class, finite and not negative. None gives each
            row weight 1.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If ``X`` has NaN, infinity or values beyond 1e150, or all weights are zero.
        """
        self._validate_params()
        vectors, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        return self._count(vectors, labels, sample_weight, first=True)

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Update the prototypes with more rows.

        The prototypes are those of all rows so far. Up to rounding, they do not depend on how the
        rows are divided into calls.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training vectors, without NaN or infinity.
        y : array-like of shape (n_samples,)
            Class labels.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call may contain. Required in the first call, unless ``fit`` was
            called before; later calls can leave it out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean of their class, finite and not negative. None gives each
            row weight 1.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If ``classes`` is missing in the first call or differs in a later one, or ``y`` has a
            label that is not among the classes.
        """
        self._validate_params()
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError(
                f"{type(self).__name__}.partial_fit needs classes in the first call. Give all"
                " classes of this and later calls."
            )
        vectors, labels = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(labels)
        known = self.classes_ if classes is None else np.unique(np.asarray(classes))
        if not first and not np.array_equal(known, self.classes_):
            raise ValueError(
                f"{type(self).__name__}.partial_fit got other classes than in the first call. Leave"
                " classes out, or call fit."
            )
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise ValueError(
                f"{type(self).__name__}.partial_fit: y has the label {unknown[0]!r}, which is not"
                " among the classes of the first call. Call fit with that class."
            )
        self.classes_ = known
        return self._count(vectors, labels, sample_weight, first=first)

    def _count(
        self, X: np.ndarray, y: np.ndarray, sample_weight: ArrayLike | None, *, first: bool
    ) -> Self:
        """Add rows to the sums, and compute prototypes from these."""
        weights = np.ones(len(X))
        if sample_weight is not None:
            weights = check_sample_weight(sample_weight, X)
        X = self._scaled(X)
        if first:
            # Sums are relative to the mean, since sums far from zero would lose digits.
            self._origin = np.average(X, axis=0, weights=weights)
            self._sums = np.zeros((len(self.classes_), X.shape[1]))
            self._squares = 0.0
            self.class_count_ = np.zeros(len(self.classes_))
        indices = np.searchsorted(self.classes_, y)
        offsets = X - self._origin
        np.add.at(self._sums, indices, weights[:, None] * offsets)
        self._squares += float(weights @ (offsets**2).sum(axis=1))
        self.class_count_ = self.class_count_ + np.bincount(
            indices, weights=weights, minlength=len(self.classes_)
        )
        self._set_prototypes()
        return self

    def _set_prototypes(self) -> None:
        """Compute prototypes and temperature from the sums."""
        counts = self.class_count_[:, None]
        means = self._sums / np.where(counts > 0, counts, 1.0)
        seen = self.class_count_ > 0
        center = means[seen].mean(axis=0)
        shrunken = (self._sums + self.shrinkage * center) / np.maximum(
            counts + self.shrinkage, np.finfo(float).tiny
        )
        self.prototypes_ = self._scaled(np.where(seen[:, None], shrunken, center) + self._origin)
        within = self._squares - (means**2 * counts).sum()
        n_degrees = self.class_count_.sum() - seen.sum()  # degrees of freedom
        variance = within / n_degrees if n_degrees > 0 else 0.0  # summed over features
        # Rounding leaves a small number if all rows of a class are equal.
        if variance <= 1e-12 * self._squares / self.class_count_.sum():
            variance = ((means[seen] - center) ** 2).sum(axis=1).mean()
        estimated = 2 * variance / self.prototypes_.shape[1] or 1.0
        self.temperature_ = float(estimated if self.temperature is None else self.temperature)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        """Scale vectors to unit length, with ``metric="cosine"``."""
        if np.abs(X).max(initial=0.0) > _LARGEST:
            raise ValueError(
                f"{type(self).__name__}: X has values beyond {_LARGEST:g}, whose distances"
                " overflow. Scale the features."
            )
        if self.metric == "euclidean":
            return X
        lengths = np.linalg.norm(X, axis=1, keepdims=True)
        return X / np.where(lengths > 0, lengths, 1.0)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the negative squared distances to the prototypes, divided by the temperature.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Vectors to classify, without NaN or infinity.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Scores in the order of ``classes_``, up to a constant per row that is the same for all
            classes; for two classes, the score of the second minus that of the first.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Predict class probabilities, the softmax of the scores.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Vectors to classify, without NaN or infinity.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        probabilities: np.ndarray = softmax(self._scores(X), axis=1)
        return probabilities

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict the class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Vectors to classify, without NaN or infinity.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Class of the nearest prototype.
        """
        nearest = self._scores(X).argmax(axis=1)
        predicted: np.ndarray = self.classes_[nearest]
        return predicted

    def _scores(self, X: ArrayLike) -> np.ndarray:
        """Return the scores (n_samples, n_classes)."""
        check_is_fitted(self)
        vectors = self._scaled(validate_data(self, X, dtype=np.float64, reset=False))
        # |x|^2 - |x - p|^2, relative to the center, where the fewest digits are lost.
        center = self.prototypes_.mean(axis=0)
        prototypes = self.prototypes_ - center
        nearness = 2 * (vectors - center) @ prototypes.T - (prototypes**2).sum(axis=1)
        nearness[:, self.class_count_ == 0] = -np.inf
        scores: np.ndarray = nearness / self.temperature_
        return scores
