"""Late fusion for values."""

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

    Each modality's regressor sees the rows that have the modality; where a row lacks it, it
    has no vote. ``"weighted"`` and ``"stacking"`` learn from out-of-fold predictions how far
    each modality can be trusted.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), a modality such as ``"image"`` or ``"text"`` for its default encoder, or a
        regressor that takes the cells as they are. ``"auto"`` infers the modalities from the
        training frame.
    estimator : regressor, default=None
        Cloned for every modality. None is a ridge regression over standardized features,
        its penalty chosen by leave-one-out.
    rule : {"stacking", "weighted", "mean"}, default="stacking"
        How predictions become one: ``"stacking"`` fits ``final_estimator`` on them,
        ``"weighted"`` takes a weighted mean, ``"mean"`` a plain one.
    weights : array-like of shape (n_modalities,), default=None
        Of ``"weighted"``, in the order of the modalities. None learns them: those under which
        the out-of-fold squared error is least.
    final_estimator : regressor, default=None
        Of ``"stacking"``. None is a ridge regression over the predictions and markers of
        absent modalities.
    cv : int, splitter or iterable, default=5
        Folds of the out-of-fold predictions.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets the mean of the training target, or
        ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    n_jobs : int, default=None
        Workers that fit modalities and folds.
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
        Of ``"weighted"``, of sum one.
    final_estimator_ : regressor or None
        Of ``"stacking"``.
    modality_scores_ : dict of str to float, or None
        R2 of each modality alone, out of fold, over the rows that have it; of the rules that
        learn.
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
            Cells; any row may lack any modality.

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
