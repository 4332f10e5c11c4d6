"""The decrease of the score when the cells of a modality are shuffled."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.parallel import Parallel, delayed

from skmm._constraints import Estimator, RandomState, Scoring
from skmm._frame._types import ColumnKey, Frame
from skmm.inspection._cell_edits import exchange_cells
from skmm.inspection._modalities import check_modalities
from skmm.inspection._validation import check_rows, check_scorers

__all__ = ["modality_importance"]

_NAME = "modality_importance"


def modality_importance(
    estimator: Estimator,
    X: Frame,
    y: ArrayLike,
    *,
    scoring: Scoring = None,
    modalities: Sequence[str] | Mapping[str, ColumnKey] | None = None,
    n_repeats: int = 5,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Bunch:
    """Score a fitted estimator while the cells of one modality at a time are shuffled.

    All columns of the modality are shuffled together, so that each row gets the complete
    modality of another row [1]_. The importance of the modality is the decrease of the score.
    This is scikit-learn's ``permutation_importance`` for groups of columns. Frozen encoders encode
    each cell only once.

    Parameters
    ----------
    estimator : estimator
        Fitted: a fusion, or any estimator that contains one or a ``ColumnTransformer``, such as a
        pipeline or a search; with ``modalities`` as a dict any estimator of a frame.
    X : DataFrame of shape (n_samples, n_columns)
        Cells; any modality may be missing in any row, and missing cells are shuffled with the
        others. Held-out rows show which modalities matter on new data. Arrays are accepted too.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Target.
    scoring : str, callable, list, tuple or dict, default=None
        Metric, where higher is better; several as in ``cross_validate``. None uses the
        estimator's own ``score``.
    modalities : list of str or dict of str to columns, default=None
        Names of modalities of the estimator, or columns (as in ``ColumnTransformer``) under names
        of your choice: ``{"photo": ["front", "back"]}``. None uses all modalities of the
        estimator.
    n_repeats : int, default=5
        Number of times that each modality is shuffled.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the score.
    n_jobs : int, default=None
        Number of evaluations that run in parallel. The scores do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Samples the permutations, which are the same for all modalities.

    Returns
    -------
    result : Bunch
        - ``importances_mean`` : ndarray of shape (n_modalities,), the score minus the score with
          the modality shuffled, averaged over the repeats;
        - ``importances_std`` : ndarray of shape (n_modalities,), the standard deviation over the
          repeats;
        - ``importances`` : ndarray of shape (n_modalities, n_repeats), each difference;
        - ``modalities`` : list of str, the names in the same order;
        - ``score`` : float, the score with nothing shuffled;
        - ``frame`` : DataFrame indexed by modality, with the columns
          ``importance`` and ``std``.

        With several metrics, a dict from the name of each metric to such a Bunch.

    Raises
    ------
    ValueError
        If a modality or column does not exist, or if the estimator has no modalities and none are
        given.

    See Also
    --------
    modality_shapley : Shares of the modalities, which add up, and their interactions.
    fusion_report : Scores of the estimator fitted again without a modality.

    Notes
    -----
    If two modalities contain the same information, each can replace the other and both may appear
    unimportant. :func:`modality_shapley` divides their joint contribution between them.

    References
    ----------
    .. [1] Breiman (2001), "Random forests", Machine Learning 45.

    Examples
    --------
    >>> from skmm import LateFusionClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import modality_importance
    >>> X, y = make_multimodal_classification(
    ...     300, modalities={"voice": "vector", "face": "vector"},
    ...     redundant=0, private={"voice": 1.0}, random_state=0,
    ... )
    >>> model = LateFusionClassifier(
    ...     [("voice", "passthrough", ["voice"]), ("face", "passthrough", ["face"])]
    ... ).fit(X[:200], y[:200])
    >>> result = modality_importance(model, X[200:], y[200:], random_state=0)
    >>> result.frame["importance"].round(1).abs()
    modality
    voice    0.5
    face     0.0
    Name: importance, dtype: float64
    """
    n = check_rows(X, y, function=_NAME)
    if not isinstance(n_repeats, Integral) or isinstance(n_repeats, bool) or n_repeats < 1:
        raise ValueError(f"{_NAME}: n_repeats must be an int of at least 1, got {n_repeats!r}.")
    scorer, several = check_scorers(estimator, scoring)
    # Scored first, so that an estimator that is not fitted raises NotFittedError.
    score = _score(scorer, estimator, X, y, sample_weight)
    columns = check_modalities(modalities, estimator, X, y, function=_NAME)
    random = check_random_state(random_state)
    orders = [random.permutation(n) for _ in range(n_repeats)]
    shuffled = Parallel(n_jobs=n_jobs)(
        delayed(_score_shuffled)(scorer, estimator, X, y, sample_weight, name, own, order)
        for name, own in columns.items()
        for order in orders
    )
    if not several:
        return _result(list(columns), score, shuffled, n_repeats)
    return {
        metric: _result(list(columns), score[metric], [s[metric] for s in shuffled], n_repeats)
        for metric in score
    }


def _score(
    scorer: Callable[..., Any],
    estimator: Estimator,
    X: Frame,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
) -> Any:
    if sample_weight is None:
        return scorer(estimator, X, y)
    return scorer(estimator, X, y, sample_weight=sample_weight)


def _score_shuffled(
    scorer: Callable[..., Any],
    estimator: Estimator,
    X: Frame,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    name: str,
    positions: list[int],
    order: np.ndarray,
) -> Any:
    try:
        exchanged = exchange_cells(X, positions, order)
        return _score(scorer, estimator, exchanged, y, sample_weight)
    except Exception as error:
        error.add_note(f"In {_NAME}: the cells of modality {name!r} were shuffled.")
        raise


def _result(names: list[str], score: float, shuffled: list[float], n_repeats: int) -> Bunch:
    importances = score - np.asarray(shuffled, dtype=float).reshape(len(names), n_repeats)
    mean, std = importances.mean(axis=1), importances.std(axis=1)
    index = pd.Index(names, name="modality")
    return Bunch(
        importances_mean=mean,
        importances_std=std,
        importances=importances,
        modalities=names,
        score=float(score),
        frame=pd.DataFrame({"importance": mean, "std": std}, index=index),
    )
