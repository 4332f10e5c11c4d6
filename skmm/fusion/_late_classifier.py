"""Late fusion for classification."""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from skmm._compose._base import SupervisedEstimator
from skmm._frame._types import Frame
from skmm.fusion._late import BaseLateFusion, weighable
from skmm.fusion._targets import class_indices

__all__ = ["LateFusionClassifier"]


class LateFusionClassifier(ClassifierMixin, BaseLateFusion):
    """Fit a classifier per modality and combine their predictions.

    The classifier of a modality is fitted on the rows that have the modality. Its vote for a row
    is what it predicts, by default the probabilities of the classes. In rows without the modality
    it has no vote, and the other modalities decide.

    The rules ``"weighted"`` and ``"stacking"`` learn from out-of-fold votes how reliable each
    modality is. The other rules trust all modalities equally, so that a poor modality can degrade
    a good one.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), a modality such as ``"image"`` or ``"text"`` for its default encoder, or a
        classifier that takes the cells as they are. ``"auto"`` infers the modalities from the
        training frame.
    estimator : classifier, default=None
        Classifier that is cloned for each modality. It needs ``predict_proba``, except with
        ``rule="vote"``. None is a logistic regression. Its features are standardized and divided
        by the square root of their number, so that one penalty suits modalities of any width.
    rule : {"stacking", "weighted", "mean", "vote", "max", "product"}, default="stacking"
        How the votes are combined: ``"stacking"`` fits ``final_estimator`` on them,
        ``"weighted"`` computes a weighted mean, ``"mean"`` an unweighted one, ``"vote"`` counts
        the most probable class of each modality, ``"max"`` takes the largest probability,
        ``"product"`` multiplies the probabilities.
    weights : array-like of shape (n_modalities,), default=None
        Weights of ``rule="weighted"``, in the order of the modalities. None learns those that
        minimize the out-of-fold log loss.
    final_estimator : classifier, default=None
        Classifier that ``rule="stacking"`` fits on the votes. It receives log-odds of the classes
        and indicators of absent modalities, see :meth:`transform`. None is a logistic regression.
    cv : int, splitter, iterable or None, default=5
        Cross-validation that computes the out-of-fold votes. An int is the number of folds; if a
        class has fewer rows than that, there are as many folds as it has rows, at least two. The
        folds of an int are shuffled with a fixed seed, and stratified if each class has two rows.
        None means 5.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without any modality gets: ``"prior"`` is the share of each class in
        training, ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    n_jobs : int, default=None
        Number of jobs that fit modalities and folds in parallel, as in scikit-learn. None means 1
        unless in a ``joblib.parallel_config`` context.
    random_state : int, RandomState instance or None, default=None
        Seed of each transformer and estimator whose own ``random_state`` is None.
    verbose : bool or int, default=0
        Whether to print, for each estimator that is fitted, how long it took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers, or with the fitted classifier where a
        classifier takes the cells as they are.
    estimators_ : dict of str to classifier
        Fitted classifier of each modality; its classes are indices into ``classes_``.
    weights_ : ndarray of shape (n_modalities,) or None
        Weights of ``rule="weighted"`` in the order of ``modalities_``, which sum to one. None with
        another rule.
    final_estimator_ : classifier or None
        Fitted final estimator of ``rule="stacking"``; None with another rule.
    modality_scores_ : dict of str to float, or None
        Out-of-fold accuracy of each modality alone, over the rows that have it. None if the rule
        learns nothing from the votes: with given ``weights``, or with a rule other than
        ``"weighted"`` and ``"stacking"``.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    LateFusionRegressor : The same for regression.
    EarlyFusion : Features of all modalities next to each other, for one classifier.
    JointFusionClassifier : One network over all modalities.

    References
    ----------
    Kittler et al. (1998), "On combining classifiers", TPAMI. Wolpert (1992), "Stacked
    generalization", Neural Networks.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import LateFusionClassifier, TextEncoder
    >>> X = pd.DataFrame({
    ...     "review": ["good", "bad", None, "good", "bad", "good"],
    ...     "stars": [5.0, 1.0, 4.0, None, 2.0, 4.0],
    ... })
    >>> y = ["keep", "return", "keep", "keep", "return", "keep"]
    >>> fusion = LateFusionClassifier([
    ...     ("text", TextEncoder("tfidf", n_components=2, random_state=0), ["review"]),
    ...     ("stars", "passthrough", ["stars"]),
    ... ], rule="mean").fit(X, y)
    >>> fusion.predict(pd.DataFrame({"review": ["bad", None], "stars": [None, 5.0]}))
    array(['return', 'keep'], dtype='<U6')
    """

    _classes: ClassVar[bool] = True
    classes_: np.ndarray

    def predict(self, X: Frame) -> np.ndarray:
        """Predict the class of each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Most probable class of each row.
        """
        best = self.predict_proba(X).argmax(axis=1)
        classes: np.ndarray = self.classes_[best]
        return classes

    def predict_proba(self, X: Frame) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``. With ``rule="vote"`` they are the shares of
            the modalities that chose each class.
        """
        return self._fused(X)

    def _ask_final(self, features: np.ndarray) -> np.ndarray:
        final = self.final_estimator_
        if not hasattr(final, "predict_proba"):
            choices = np.asarray(final.predict(features), dtype=int)
            votes: np.ndarray = np.eye(len(self.classes_))[choices]
            return votes
        probabilities = np.zeros((len(features), len(self.classes_)))
        probabilities[:, final.classes_] = final.predict_proba(features)
        return probabilities

    def _encode_target(self, X: Frame, y: ArrayLike) -> np.ndarray:
        self.classes_, indices = class_indices(X, y, type(self).__name__)
        return indices

    def _default_estimator(self) -> SupervisedEstimator:
        logistic: SupervisedEstimator = weighable(
            LogisticRegression(C=5.0, tol=1e-5, max_iter=2000)
        )
        return logistic

    def _default_final(self) -> SupervisedEstimator:
        logistic: SupervisedEstimator = LogisticRegression(C=0.1, max_iter=1000)
        return logistic

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _prior(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
        shares = np.bincount(y, weights=sample_weight, minlength=len(self.classes_))
        prior: np.ndarray = shares / shares.sum()
        return prior

    def _target_spread(self, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        return 1.0  # of log-odds

    def _score_votes(self, y: np.ndarray, votes: np.ndarray) -> float:
        return float(accuracy_score(y, votes.argmax(axis=1)))

    def _output_labels(self) -> list[str]:
        labels = [str(label) for label in self.classes_]
        return labels[1:] if len(labels) == 2 else labels
