"""Scorers of estimators that write texts."""

import inspect
from collections.abc import Callable
from typing import Any

from skmm.metrics._text import chrf, cider, corpus_bleu, exact_match, rouge_l

__all__ = ["TEXT_METRICS", "make_text_scorer"]

TEXT_METRICS: dict[str, Callable[..., float]] = {
    "chrf": chrf,
    "cider": cider,
    "corpus_bleu": corpus_bleu,
    "exact_match": exact_match,
    "rouge_l": rouge_l,
}


def make_text_scorer(metric: str = "corpus_bleu", **params: Any) -> "TextScorer":
    """Make a scorer for ``cross_val_score`` and ``GridSearchCV`` of a metric of texts.

    It asks a fitted estimator for the text of each row and compares it with ``y``.

    Parameters
    ----------
    metric : {"corpus_bleu", "chrf", "rouge_l", "exact_match", "cider"}, default="corpus_bleu"
        Name of a metric of this module.
    **params : dict
        Parameters of the metric, e.g. ``lowercase=True``.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` gives a float, higher is better.

    Raises
    ------
    ValueError
        If there is no such metric.
    TypeError
        If the metric has no such parameter.

    Examples
    --------
    >>> from skmm.metrics import make_text_scorer
    >>> class Parrot:
    ...     def predict(self, X):
    ...         return [cell.lower() for cell in X]
    >>> scorer = make_text_scorer("exact_match", ignore="case")
    >>> scorer(Parrot(), ["A red circle", "A dot"], ["a red circle", "two dots"])
    0.5
    """
    if metric not in TEXT_METRICS:
        raise ValueError(
            f"make_text_scorer: metric must be one of {sorted(TEXT_METRICS)}, got {metric!r}."
        )
    known = [
        name for name in inspect.signature(TEXT_METRICS[metric]).parameters if name[:2] != "y_"
    ]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise TypeError(f"{metric} has no parameter {unknown[0]!r}: it takes {sorted(known)}.")
    return TextScorer(metric, params)


class TextScorer:
    """What :func:`make_text_scorer` makes: a class, so that workers can be sent one."""

    def __init__(self, metric: str, params: dict[str, Any]):
        self.metric = metric
        self.params = params

    def __repr__(self) -> str:
        shown = "".join(f", {name}={value!r}" for name, value in self.params.items())
        return f"make_text_scorer({self.metric!r}{shown})"

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score a fitted estimator on rows."""
        return TEXT_METRICS[self.metric](y, estimator.predict(X), **self.params)
