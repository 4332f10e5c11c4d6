"""The weights that a fitted estimator gives to its modalities."""

from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline

from skmm._frame._types import Frame
from skmm.inspection._validation import check_frame

__all__ = ["modality_weights", "part_that_can"]

_NAME = "modality_weights"


def modality_weights(estimator: object, X: Frame) -> pd.DataFrame:
    """Return the weight that a fitted fusion gives to each modality in each row.

    The weights are part of the estimator: the gates of a gated joint fusion [1]_; the attention
    to the tokens of each modality, rolled out over the layers [2]_; the weights of the modality
    predictors in a late fusion. A large weight does not imply a large influence on the
    prediction, which :func:`modality_shapley` measures.

    Parameters
    ----------
    estimator : estimator
        Fitted: a late fusion (except with ``rule="max"``); a joint fusion with the strategy
        ``"gated"``, ``"cross_gated"``, ``"attention"`` or ``"bottleneck"``, or with a custom module
        that has a method ``weights(tokens, masks)``; or a pipeline or a search that contains one.
        Any estimator with a method ``modality_weights(X)`` and an attribute ``modalities_`` is
        accepted.
    X : DataFrame of shape (n_samples, n_columns)
        Cells; any modality may be missing in any row.

    Returns
    -------
    weights : DataFrame of shape (n_samples, n_modalities)
        A column for each modality, with the index of ``X``; NaN where the modality is missing.
        A row sums to one over the modalities that are present in it.

    Raises
    ------
    TypeError
        If the estimator has no weights of its modalities.

    See Also
    --------
    modality_shapley : Shares of the modalities in the predictions of any estimator.

    References
    ----------
    .. [1] Arevalo, Solorio, Montes-y-Gomez and Gonzalez (2017), "Gated multimodal units for
       information fusion", ICLR workshop.
    .. [2] Abnar and Zuidema (2020), "Quantifying attention flow in transformers", ACL.

    Examples
    --------
    >>> from skmm import LateFusionClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import modality_weights
    >>> X, y = make_multimodal_classification(
    ...     300, modalities={"voice": "vector", "face": "vector"}, random_state=0
    ... )
    >>> model = LateFusionClassifier(
    ...     [("voice", "passthrough", ["voice"]), ("face", "passthrough", ["face"])],
    ...     rule="weighted", weights=[3, 1],
    ... ).fit(X, y)
    >>> X["face"] = X["face"].where(X.index > 0)
    >>> modality_weights(model, X[:2])
       voice  face
    0   1.00   NaN
    1   0.75  0.25
    """
    check_frame(X, function=_NAME)
    part, rows = part_that_can("modality_weights", estimator, X)
    if part is None:
        raise TypeError(
            f"{_NAME}: {type(estimator).__name__} gives its modalities no weights. Late fusion and"
            " a gated joint fusion do; modality_shapley divides the predictions of any estimator."
        )
    weights = part.modality_weights(rows)
    names = [name for name, *_ in part.modalities_]
    index = X.index if isinstance(X, pd.DataFrame) else None
    return pd.DataFrame(weights, columns=names, index=index)


def part_that_can(method: str, estimator: object, X: Frame) -> tuple[Any, Any]:
    """Find the fitted part of an estimator that has a method, and the input of that part.

    Pipelines and searches are searched for it. Both values are None where no part has the method.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, method):
        return estimator, X
    if isinstance(estimator, Pipeline):
        for place, (_, step) in enumerate(estimator.steps):
            if _has(method, step):
                return part_that_can(method, step, estimator[:place].transform(X) if place else X)
    return None, None


def _has(method: str, estimator: object) -> bool:
    """Return whether an estimator, or a part of it, has a method."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if isinstance(estimator, Pipeline):
        return any(_has(method, step) for _, step in estimator.steps)
    return hasattr(estimator, method)
