"""Checks of the target that the fusions share."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array
from torch import nn

from skmm._frame._column import is_missing
from skmm._frame._types import Frame
from skmm.nets import make_loss

__all__ = ["class_indices", "regression_target", "row_loss"]

_Target = TypeVar("_Target")


def class_indices(
    X: Frame, y: ArrayLike | None, owner: str, *, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Check a classification target.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame.
    y : array-like of shape (n_samples,)
        Classes.
    owner : str
        Class of the estimator, for messages.
    known : ndarray of shape (n_classes,), default=None
        Sorted classes that there are; None takes those of ``y``.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted.
    indices : ndarray of shape (n_samples,)
        Of each row's class.
    """
    target = column_or_1d(_given(y, owner), warn=True)
    check_consistent_length(X, target)
    _refuse_missing(target, owner)
    check_classification_targets(target)
    if known is not None:
        strange = sorted(set(target.tolist()) - set(known.tolist()), key=str)
        if strange:
            raise ValueError(
                f"{owner}: y holds {strange[0]!r}, which is not among the classes"
                f" {known.tolist()}. Name all classes in the first partial_fit, or fit again."
            )
        return known, np.searchsorted(known, target)
    classes, indices = np.unique(target, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{owner} needs at least 2 classes, but y holds 1 class only: {classes.tolist()[0]!r}."
            " Give training rows of another class too."
        )
    return classes, indices


def regression_target(
    X: Frame, y: ArrayLike | None, owner: str, *, multi_output: bool = False
) -> np.ndarray:
    """Check a regression target.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Values.
    owner : str
        Class of the estimator, for messages.
    multi_output : bool, default=False
        Whether several targets are taken.

    Returns
    -------
    y : ndarray of float64, of the same shape
        Finite.
    """
    given = _given(y, owner)
    target = check_array(
        given if multi_output else column_or_1d(given, warn=True),
        dtype=np.float64,
        ensure_2d=False,
        ensure_all_finite=False,
        input_name="y",
        estimator=owner,
    )
    check_consistent_length(X, target)
    _refuse_missing(target, owner)
    return target


def row_loss(
    owner: str, loss: str | nn.Module, kind: str, params: Mapping[str, object]
) -> nn.Module:
    """Build the loss of each row; errors name the ``owner``."""
    try:
        return make_loss(loss, kind, **params)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def _given(y: _Target | None, owner: str) -> _Target:
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
