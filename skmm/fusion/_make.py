"""A first model for a frame, in one call."""

from typing import Literal

from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline

from skmm._compose._base import Modalities
from skmm._constraints import RandomState
from skmm.fusion import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
)

__all__ = ["make_multimodal_pipeline"]

_LATE = {"classifier": LateFusionClassifier, "regressor": LateFusionRegressor}
_JOINT = {"classifier": JointFusionClassifier, "regressor": JointFusionRegressor}


def make_multimodal_pipeline(
    task: Literal["classifier", "regressor"],
    *,
    modalities: Modalities = "auto",
    fusion: Literal["early", "late", "joint"] = "early",
    random_state: RandomState = None,
) -> Pipeline:
    """Build a first model for a frame of raw modalities.

    Parameters
    ----------
    task : {"classifier", "regressor"}
        What to predict.
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in the fusions; ``"auto"`` infers them from the frame in ``fit``.
    fusion : {"early", "late", "joint"}, default="early"
        ``"early"``: features side by side, then a regularized linear model. ``"late"``: a
        linear model per modality, stacked. ``"joint"``: one network over all of them.
    random_state : int, RandomState instance or None, default=None
        Seed of the parts that sample.

    Returns
    -------
    pipeline : Pipeline
        With the step ``fusion`` and, for ``"early"``, the step ``classifier`` or
        ``regressor``.

    Raises
    ------
    ValueError
        If ``task`` or ``fusion`` is not one of those named.

    Examples
    --------
    >>> from skmm import make_multimodal_pipeline
    >>> from skmm.datasets import make_multimodal_classification
    >>> X, y = make_multimodal_classification(
    ...     n_samples=60, modalities=("tabular",), random_state=0
    ... )
    >>> make_multimodal_pipeline("classifier").fit(X, y).predict(X).shape
    (60,)
    """
    if task not in _LATE:
        raise ValueError(f"task must be 'classifier' or 'regressor', got {task!r}.")
    if fusion == "late":
        return Pipeline([("fusion", _LATE[task](modalities, random_state=random_state))])
    if fusion == "joint":
        return Pipeline([("fusion", _JOINT[task](modalities, random_state=random_state))])
    if fusion != "early":
        raise ValueError(f"fusion must be 'early', 'late' or 'joint', got {fusion!r}.")
    if task == "regressor":
        ridge = RidgeCV(alphas=[0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0])
        return Pipeline([("fusion", EarlyFusion(modalities)), ("regressor", ridge)])
    # Divided by the root of their number, so that one penalty suits features of wide and of
    # narrow modalities.
    early = EarlyFusion(modalities, scaling="block")
    logistic = LogisticRegression(C=5.0, tol=1e-5, max_iter=2000, random_state=random_state)
    return Pipeline([("fusion", early), ("classifier", logistic)])
