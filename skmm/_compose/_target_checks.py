"""Checks of the target that the fusions share."""

from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array
from torch import nn

from skmm._frame._column import is_missing
from skmm.nets import make_loss

__all__ = ["class_indices", "regression_target", "row_loss"]


def class_indices(
    X: Any, y: Any, owner: str, *, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Check a classification target.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame.
    y : array-like of shape (n_samples,)
        Classes.
    owner : str
        Class that asks, for messages.
    known : ndarray of shape (n_classes,), default=None
        Sorted classes that there are; None takes those of ``y``.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted.
    indices : ndarray of shape (n_samples,)
        Of each row's class.
    """
    y = _given(y, owner)
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    _refuse_missing(y, owner)
    check_classification_targets(y)
    if known is not None:
        strange = sorted(set(y.tolist()) - set(known.tolist()), key=str)
        if strange:
            raise ValueError(
                f"{owner}: y holds {strange[0]!r}, which is not among the classes"
                f" {known.tolist()}. Name all classes in the first partial_fit, or fit anew."
            )
        return known, np.searchsorted(known, y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{owner} needs at least 2 classes, but y holds 1 class only: {classes.tolist()[0]!r}."
            " Give training rows of another class too."
        )
    return classes, indices


def regression_target(X: Any, y: Any, owner: str, *, multi_output: bool = False) -> np.ndarray:
    """Check a regression target.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Values.
    owner : str
        Class that asks, for messages.
    multi_output : bool, default=False
        Whether several targets are taken.

    Returns
    -------
    y : ndarray of float64, of the same shape
        Finite.
    """
    y = _given(y, owner)
    if not multi_output:
        y = column_or_1d(y, warn=True)
    y = check_array(
        y,
        dtype=np.float64,
        ensure_2d=False,
        ensure_all_finite=False,
        input_name="y",
        estimator=owner,
    )
    check_consistent_length(X, y)
    _refuse_missing(y, owner)
    return y


def row_loss(owner: str, loss: Any, kind: str, params: dict[str, Any]) -> nn.Module:
    """Build the loss of each row; errors name the ``owner``."""
    try:
        return make_loss(loss, kind, **params)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def _given(y: Any, owner: str) -> Any:
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None. Give the target."
        )
    return y


def _refuse_missing(y: np.ndarray, owner: str) -> None:
    if y.dtype.kind == "O":
        absent = is_missing(y)
    elif y.dtype.kind == "f":
        absent = ~np.isfinite(y).reshape(len(y), -1).all(axis=1)
    else:
        return
    if absent.any():
        raise ValueError(
            f"{owner}: Input y contains NaN or infinity, first in row"
            f" {int(np.flatnonzero(absent)[0])} (by position). Drop the rows without a target."
        )
    if y.dtype.kind == "O" and type_of_target(y) == "unknown":
        raise ValueError(f"Unknown label type: {owner} takes classes that are str or numbers.")
