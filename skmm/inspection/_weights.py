"""The weights that a fitted estimator itself gives to the modalities."""

from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline

from skmm._frame._types import Frame
from skmm.inspection._validation import check_frame

__all__ = ["modality_weights", "part_that_can"]

_NAME = "modality_weights"


def modality_weights(estimator: object, X: Frame) -> pd.DataFrame:
    """Tell which modality a fitted fusion listens to, row by row.

    The weights are the estimator's own: the gates of a gated joint fusion [1]_, the attention
    that the tokens of each modality get, rolled out over the layers [2]_, the weights of the votes
    in late fusion. They say where the estimator looks, which need not be what decides:
    :func:`modality_shapley` tells that.

    Parameters
    ----------
    estimator : estimator
        Fitted: a late fusion (but for ``rule="max"``), a joint fusion with the strategy
        ``"gated"``, ``"cross_gated"``, ``"attention"`` or ``"bottleneck"`` or a module of your own
        with a method ``weights(tokens, masks)``; or a pipeline or a search that holds one. Any
        estimator counts that has the method ``modality_weights(X)`` and the attribute
        ``modalities_``.
    X : DataFrame of shape (n_samples, n_columns)
        Cells; any row may lack any modality.

    Returns
    -------
    weights : DataFrame of shape (n_samples, n_modalities)
        A column for each modality, with the index of ``X``; NaN where the modality is missing.
        A row sums to one over the modalities that it has.

    Raises
    ------
    TypeError
        If the estimator gives its modalities no weights.

    See Also
    --------
    modality_shapley : Shares of any estimator's predictions.

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
    """Find the fitted part of an estimator that has a method, and what it sees of a frame.

    Pipelines and searches are looked into. Both are None where no part has it.
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
    """Whether an estimator, or a part of it, has a method."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if isinstance(estimator, Pipeline):
        return any(_has(method, step) for _, step in estimator.steps)
    return hasattr(estimator, method)
