"""What an estimator answers to each row, as numbers."""

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

__all__ = ["place_of_target", "respond", "response_classes"]


def respond(estimator: Any, X: Any, *, function: str) -> np.ndarray | None:
    """Answer of an estimator to each row.

    Parameters
    ----------
    estimator : estimator
        Fitted classifier or regressor.
    X : DataFrame of shape (n_samples, n_columns)
        Cells.
    function : str
        The function that asks, for errors.

    Returns
    -------
    answer : ndarray of shape (n_samples, n_outputs), float64, or None
        Probabilities in the order of the classes; where there are none, what
        ``decision_function`` says, or 1 for the class that is predicted; values in regression.
        None for several tasks at once, whose answers are no one table.
    """
    if not hasattr(estimator, "predict"):
        raise TypeError(
            f"{function}: {type(estimator).__name__} predicts nothing. Put a classifier or a"
            " regressor behind it, as in make_pipeline(fusion, LogisticRegression())."
        )
    for method in ("predict_proba", "decision_function") if is_classifier(estimator) else ():
        if hasattr(estimator, method):
            return _as_table(getattr(estimator, method)(X))
    answer = estimator.predict(X)
    classes = response_classes(estimator)
    if classes is not None and np.ndim(answer) == 1:
        return (np.asarray(answer)[:, None] == classes).astype(float)
    return _as_table(answer)


def response_classes(estimator: Any) -> np.ndarray | None:
    """Classes of a classifier, None for others and for those that have several sets of them."""
    if not is_classifier(estimator):
        return None
    classes = getattr(estimator, "classes_", None)
    return classes if isinstance(classes, np.ndarray) and classes.ndim == 1 else None


def place_of_target(target: Any, classes: Any, answer: np.ndarray, *, function: str) -> int:
    """Number of the output that is explained."""
    if target is None:
        if classes is None and len(answer) > 1:
            raise ValueError(
                f"{function}: there are {len(answer)} outputs. Say by target which one is to be"
                " explained, from 0."
            )
        return int(np.argmax(answer))
    if classes is not None:
        (places,) = np.nonzero(np.asarray(classes == target))
        if not len(places):
            raise ValueError(
                f"{function}: target {target!r} is no class. The classes are {list(classes)}."
            )
        return int(places[0])
    if not isinstance(target, Integral) or not 0 <= int(target) < len(answer):
        raise ValueError(
            f"{function}: target must be the number of an output, from 0 to {len(answer) - 1}, got"
            f" {target!r}."
        )
    return int(target)


def _as_table(answer: Any) -> np.ndarray | None:
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
