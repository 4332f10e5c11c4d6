"""Checks that all inspection functions share: rows, metric, folds, outputs."""

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

from skmm._constraints import Scoring, Splits
from skmm._frame._column import n_rows
from skmm._frame._types import Frame

__all__ = [
    "check_frame",
    "check_rows",
    "check_scorer",
    "check_scorers",
    "group_splitter",
    "make_splits",
    "place_of_target",
    "respond",
    "response_classes",
]

Split = tuple[np.ndarray, np.ndarray]


def check_frame(X: Frame, *, function: str) -> int:
    """Return the number of rows of a frame or matrix."""
    if not hasattr(X, "columns") and getattr(X, "ndim", None) != 2:
        raise TypeError(
            f"{function}: X must be a DataFrame or an array of two dimensions, got"
            f" {type(X).__name__}. Pass one whose columns are the modalities."
        )
    return n_rows(X)


def check_rows(X: Frame, y: ArrayLike, *, function: str) -> int:
    """Return the number of rows, which must equal that of ``y``."""
    n = check_frame(X, function=function)
    if n_rows(y) != n:
        raise ValueError(f"{function}: X has {n} rows and y has {n_rows(y)}. Give one y per row.")
    return n


def check_scorer(estimator: object, scoring: Scoring, *, function: str) -> Any:
    """Return the scorer: ``scorer(estimator, X, y)`` gives a float."""
    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(
            f"{function}: scoring must be a name, a scorer or None, got {scoring!r}. Call"
            f" {function} once for each metric."
        )
    return check_scoring(estimator, scoring=scoring)


def check_scorers(estimator: object, scoring: Scoring) -> tuple[Any, bool]:
    """Return a scorer that gives a float or a dict of floats, and whether it gives a dict."""
    several = isinstance(scoring, list | tuple | set | dict)
    return check_scoring(estimator, scoring=scoring), several


def make_splits(
    estimator: object, X: Frame, y: ArrayLike, cv: Splits, groups: ArrayLike | None
) -> list[Split]:
    """Return the row numbers of the training and test part of every split of ``cross_validate``."""
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    return [(np.asarray(a), np.asarray(b)) for a, b in splitter.split(X, y, groups)]


def group_splitter(estimator: object, n_splits: int) -> Any:
    """Return a splitter that keeps groups together, stratified for a classifier."""
    return StratifiedGroupKFold(n_splits) if is_classifier(estimator) else GroupKFold(n_splits)


# --- The prediction of an estimator for each row, as numbers ---


def respond(estimator: object, X: Frame, *, function: str) -> np.ndarray | None:
    """Return the prediction of an estimator for each row, as numbers.

    Parameters
    ----------
    estimator : estimator
        Fitted classifier or regressor.
    X : DataFrame of shape (n_samples, n_columns)
        Cells.
    function : str
        Name of the public function, for error messages.

    Returns
    -------
    answer : ndarray of shape (n_samples, n_outputs), float64, or None
        Probabilities in the order of the classes; without ``predict_proba`` the values of
        ``decision_function``, or 1 for the predicted class; the predicted values in regression.
        None where several tasks are predicted at once, which do not form one table.
    """
    if not hasattr(estimator, "predict"):
        raise TypeError(
            f"{function}: {type(estimator).__name__} has no predict. Put a classifier or a"
            " regressor after it, as in make_pipeline(fusion, LogisticRegression())."
        )
    for method in ("predict_proba", "decision_function") if is_classifier(estimator) else ():
        if hasattr(estimator, method):
            return _as_table(getattr(estimator, method)(X))
    answer = estimator.predict(X)
    classes = response_classes(estimator)
    if classes is not None and np.ndim(answer) == 1:
        chosen: np.ndarray = np.asarray(answer)[:, None] == classes
        return chosen.astype(float)
    return _as_table(answer)


def response_classes(estimator: object) -> np.ndarray | None:
    """Return the classes of a classifier; None for others and for several targets."""
    if not is_classifier(estimator):
        return None
    classes = getattr(estimator, "classes_", None)
    return classes if isinstance(classes, np.ndarray) and classes.ndim == 1 else None


def place_of_target(
    target: object, classes: np.ndarray | None, answer: np.ndarray, *, function: str
) -> int:
    """Return the number of the output that is explained."""
    if target is None:
        if classes is None and len(answer) > 1:
            raise ValueError(
                f"{function}: there are {len(answer)} outputs. Set target to the number of one of"
                " them, from 0."
            )
        return int(np.argmax(answer))
    if classes is not None:
        (places,) = np.nonzero(np.asarray(classes == target))
        if not len(places):
            raise ValueError(
                f"{function}: target {target!r} is not a class. The classes are {list(classes)}."
            )
        return int(places[0])
    if not isinstance(target, Integral) or not 0 <= int(target) < len(answer):
        raise ValueError(
            f"{function}: target must be the number of an output, from 0 to {len(answer) - 1}, got"
            f" {target!r}."
        )
    return int(target)


def _as_table(answer: object) -> np.ndarray | None:
    if isinstance(answer, dict | list):
        return None
    if isinstance(answer, pd.DataFrame) and any(
        not pd.api.types.is_numeric_dtype(kind) for kind in answer.dtypes
    ):
        return None
    table = np.asarray(answer)
    if table.dtype.kind not in "biuf":
        return None
    return table.astype(np.float64).reshape(len(table), -1)
