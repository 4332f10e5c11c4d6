"""Late fusion for regression."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from skmm._compose._base import SupervisedEstimator
from skmm._constraints import StrOptions
from skmm._frame._types import Frame
from skmm.fusion._late import BaseLateFusion, weighable
from skmm.fusion._targets import regression_target

__all__ = ["LateFusionRegressor"]


class LateFusionRegressor(RegressorMixin, BaseLateFusion):
    """Fit a regressor per modality and combine their predictions.

    The regressor of a modality is fitted on the rows that have the modality, and has no vote in
    the others. ``"weighted"`` and ``"stacking"`` learn from out-of-fold predictions how reliable
    each modality is.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), a modality such as ``"image"`` or ``"text"`` for its default encoder, or a
        regressor that takes the cells as they are. ``"auto"`` infers the modalities from the
        training frame.
    estimator : regressor, default=None
        Cloned for each modality. None is a ridge regression over standardized features, whose
        penalty is selected by leave-one-out cross-validation.
    rule : {"stacking", "weighted", "mean"}, default="stacking"
        How the predictions are combined: ``"stacking"`` fits ``final_estimator`` on them,
        ``"weighted"`` computes a weighted mean, ``"mean"`` an unweighted one.
    weights : array-like of shape (n_modalities,), default=None
        Weights of ``rule="weighted"``, in the order of the modalities. None learns those that
        minimize the out-of-fold squared error.
    final_estimator : regressor, default=None
        Final estimator of ``rule="stacking"``. None is a ridge regression over the predictions
        and indicators of absent modalities.
    cv : int, splitter or iterable, default=5
        Cross-validation that computes the out-of-fold predictions. An int is the number of
        folds.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without any modality gets: ``"prior"`` is the mean of the training target,
        ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame without a column of the training frame: raise an error, or treat
        the column as missing in every row.
    n_jobs : int, default=None
        Number of jobs that fit modalities and folds in parallel.
    random_state : int, RandomState instance or None, default=None
        Not used by the default estimators.
    verbose : bool or int, default=0
        Whether to print, for each estimator that is fitted, how long it took.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        Fitted transformers.
    estimators_ : dict of str to regressor
        Fitted regressor of each modality.
    weights_ : ndarray of shape (n_modalities,) or None
        Weights of ``rule="weighted"``, which sum to one; None with another rule.
    final_estimator_ : regressor or None
        Fitted final estimator of ``rule="stacking"``; None with another rule.
    modality_scores_ : dict of str to float, or None
        Out-of-fold R2 of each modality alone, over the rows that have it; None with a rule that
        learns nothing.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    References
    ----------
    Wolpert (1992), "Stacked generalization", Neural Networks. Breiman (1996), "Stacked
    regressions", Machine Learning.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import LateFusionRegressor, TextEncoder
    >>> X = pd.DataFrame({
    ...     "review": ["good", "bad", None, "good", "bad", "good"],
    ...     "sold": [9.0, 1.0, 8.0, None, 2.0, 8.0],
    ... })
    >>> fusion = LateFusionRegressor([
    ...     ("text", TextEncoder("tfidf", n_components=2, random_state=0), ["review"]),
    ...     ("sold", "passthrough", ["sold"]),
    ... ], rule="mean").fit(X, [5.0, 1.0, 4.0, 5.0, 1.0, 5.0])
    >>> fusion.predict(pd.DataFrame({"review": ["bad", None], "sold": [None, 9.0]})).round()
    array([1., 5.])
    """

    _classes: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseLateFusion._parameter_constraints,
        "rule": [StrOptions({"stacking", "weighted", "mean"})],
    }

    def predict(self, X: Frame) -> np.ndarray:
        """Predict values.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any modality may be missing in any row.

        Returns
        -------
        values : ndarray of shape (n_samples,)
            Predictions.
        """
        return self._fused(X)[:, 0]

    def _ask_final(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self.final_estimator_.predict(features), dtype=float).reshape(-1, 1)

    def _encode_target(self, X: Frame, y: ArrayLike) -> np.ndarray:
        return regression_target(X, y, type(self).__name__)

    def _default_estimator(self) -> SupervisedEstimator:
        ridge: SupervisedEstimator = weighable(RidgeCV(alphas=np.logspace(-3, 4, 15)))
        return ridge

    def _default_final(self) -> SupervisedEstimator:
        ridge: SupervisedEstimator = RidgeCV(alphas=np.logspace(-3, 3, 7))
        return ridge

    def _n_outputs(self) -> int:
        return 0

    def _prior(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
        return np.array([np.average(y, weights=sample_weight)])

    def _target_spread(self, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        centered = y - self._prior_[0]
        return float(np.sqrt(np.average(centered**2, weights=sample_weight))) or 1.0

    def _score_votes(self, y: np.ndarray, votes: np.ndarray) -> float:
        return float(r2_score(y, votes[:, 0]))

    def _output_labels(self) -> list[str]:
        return ["prediction"]
