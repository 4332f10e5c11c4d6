"""What every inspection has to check: rows, metric, folds."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

from skmm._frame._column import n_rows

__all__ = [
    "check_frame",
    "check_rows",
    "check_scorer",
    "check_scorers",
    "group_splitter",
    "make_splits",
]

Split = tuple[np.ndarray, np.ndarray]


def check_frame(X: Any, *, function: str) -> int:
    """Number of rows of what must have columns."""
    if not hasattr(X, "columns") and getattr(X, "ndim", None) != 2:
        raise TypeError(
            f"{function}: X must be a DataFrame or an array of two dimensions, got"
            f" {type(X).__name__}. Pass one whose columns are the modalities."
        )
    return n_rows(X)


def check_rows(X: Any, y: Any, *, function: str) -> int:
    """Number of rows, which must be that of ``y`` too."""
    n = check_frame(X, function=function)
    if n_rows(y) != n:
        raise ValueError(f"{function}: X has {n} rows and y has {n_rows(y)}. Give one y per row.")
    return n


def check_scorer(estimator: Any, scoring: Any, *, function: str) -> Any:
    """One scorer: ``scorer(estimator, X, y)`` gives a float."""
    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(
            f"{function}: scoring must be a name, a scorer or None, got {scoring!r}. Call"
            f" {function} once for each metric."
        )
    return check_scoring(estimator, scoring=scoring)


def check_scorers(estimator: Any, scoring: Any) -> tuple[Any, bool]:
    """One scorer, or one that gives a dict of scores, and whether it does."""
    several = isinstance(scoring, list | tuple | set | dict)
    return check_scoring(estimator, scoring=scoring), several


def make_splits(estimator: Any, X: Any, y: Any, cv: Any, groups: Any) -> list[Split]:
    """Row numbers of the training and test part of every split, as ``cross_validate`` has them."""
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    return [(np.asarray(a), np.asarray(b)) for a, b in splitter.split(X, y, groups)]


def group_splitter(estimator: Any, n_splits: int) -> Any:
    """Folds that keep groups together, stratified for a classifier."""
    return StratifiedGroupKFold(n_splits) if is_classifier(estimator) else GroupKFold(n_splits)
