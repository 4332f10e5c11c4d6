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

    The regressor of a modality is fitted on the rows that have the modality. In rows without it
    the other modalities decide. The rules ``"weighted"`` and ``"stacking"`` learn from out-of-fold
    predictions how reliable each modality is; ``"mean"`` trusts all modalities equally.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), a modality such as ``"image"`` or ``"text"`` for its default encoder, or a
        regressor that takes the cells as they are. ``"auto"`` infers the modalities from the
        training frame.
    estimator : regressor, default=None
        Regressor that is cloned for each modality. None is a ridge regression, whose penalty is
        selected by leave-one-out cross-validation. Its features are standardized and divided by
        the square root of their number.
    rule : {"stacking", "weighted", "mean"}, default="stacking"
        How the predictions are combined: ``"stacking"`` fits ``final_estimator`` on them,
        ``"weighted"`` computes a weighted mean, ``"mean"`` an unweighted one.
    weights : array-like of shape (n_modalities,), default=None
        Weights of ``rule="weighted"``, in the order of the modalities. None learns those that
        minimize the out-of-fold squared error.
    final_estimator : regressor, default=None
        Regressor that ``rule="stacking"`` fits on the predictions. It receives the standardized
        predictions and indicators of absent modalities, see :meth:`transform`. None is a ridge
        regression.
    cv : int, splitter, iterable or None, default=5
        Cross-validation that computes the out-of-fold predictions. An int is the number of folds,
        at most the number of rows, which are shuffled with a fixed seed. None means 5.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without any modality gets: ``"prior"`` is the mean of the training target,
        ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    n_jobs : int, default=None
        Number of jobs that fit modalities and folds in parallel, as in scikit-learn. None means 1
        unless in a ``joblib.parallel_config`` context.
    random_state : int, RandomState instance or None, default=None
        Seed of each transformer and estimator whose own ``random_state`` is None. The default
        regressors use none.
    verbose : bool or int, default=0
        Whether to print, for each estimator that is fitted, how long it took.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers, or with the fitted regressor where a
        regressor takes the cells as they are.
    estimators_ : dict of str to regressor
        Fitted regressor of each modality.
    weights_ : ndarray of shape (n_modalities,) or None
        Weights of ``rule="weighted"`` in the order of ``modalities_``, which sum to one. None with
        another rule.
    final_estimator_ : regressor or None
        Fitted final estimator of ``rule="stacking"``; None with another rule.
    modality_scores_ : dict of str to float, or None
        Out-of-fold R2 of each modality alone, over the rows that have it. None if the rule learns
        nothing from the predictions: with given ``weights``, or with ``"mean"``.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    LateFusionClassifier : The same for classification.
    EarlyFusion : Features of all modalities next to each other, for one regressor.
    JointFusionRegressor : One network over all modalities.

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
        """Predict the target of each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        values : ndarray of shape (n_samples,)
            Predicted values. A row without any modality gets the mean of the training target.

        Raises
        ------
        ModalityMissingError
            If a row has no modality and ``all_missing="raise"``.
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
