"""The metrics as a table, and how a metric is taken of scores that come in parts."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from skmm.metrics._relevance import orders

__all__ = ["METRICS", "Metric", "check_params", "measure"]


class Metric(NamedTuple):
    """What is computed of each query, and what is made of these values."""

    value: Callable[..., np.ndarray]  # (where relevant items stand, **params) -> (n_queries,)
    summary: Callable[[np.ndarray], Any] = np.mean
    greater_is_better: bool = True
    params: Mapping[str, int | None] = {}  # with their defaults


METRICS = {
    "hit_rate_at_k": Metric(lambda order, k: order.hit(k), params={"k": 1}),
    "mean_average_precision": Metric(lambda order: order.average_precision()),
    "mean_rank": Metric(lambda order: order.rank(), greater_is_better=False),
    "mean_reciprocal_rank": Metric(lambda order: order.reciprocal_rank()),
    "median_rank": Metric(lambda order: order.rank(), np.median, greater_is_better=False),
    "ndcg": Metric(lambda order, k: order.ndcg(k), params={"k": None}),
    "recall_at_k": Metric(lambda order, k: order.recall(k), params={"k": 1}),
}


def measure(name: str, parts: Iterable[tuple[Any, Any]], params: Mapping[str, Any]) -> float:
    """Take a metric of parts of the queries, each (scores, relevance).

    NaN if no query has anything that it could find.
    """
    metric = METRICS[name]
    values = [
        metric.value(order, **params)[order.known]
        for scores, relevance in parts
        for order in orders(scores, relevance, name)
    ]
    found = np.concatenate(values)
    return float(metric.summary(found)) if len(found) else float("nan")


def check_params(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what is left open; refuse a k that is no positive integer."""
    metric = METRICS[name]
    unknown = sorted(set(params) - set(metric.params))
    if unknown:
        known = sorted(metric.params) or "no parameters"
        raise TypeError(f"{name} has no parameter {unknown[0]!r}: it takes {known}.")
    checked = {**metric.params, **params}
    for parameter, value in checked.items():
        if value is None and metric.params[parameter] is None:
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: {parameter} must be an int of at least 1, got {value!r}.")
    return checked
