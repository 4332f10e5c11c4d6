"""Metrics of retrieval."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "METRICS",
    "ManyRelevant",
    "Metric",
    "OneRelevant",
    "check_params",
    "hit_rate_at_k",
    "mean_average_precision",
    "mean_rank",
    "mean_reciprocal_rank",
    "measure",
    "median_rank",
    "ndcg",
    "orders",
    "recall_at_k",
]


def recall_at_k(scores: ArrayLike, relevance: ArrayLike | None = None, *, k: int = 1) -> float:
    """Compute the fraction of the relevant items among the first k, averaged over queries.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        Similarities, where higher is more similar. NaN excludes an item for a query: it counts
        neither as an item nor as relevant. A missing query is a row of NaN.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        Relevant items of each query: a matrix of bool or of grades, 0 for not relevant, or one int
        per query, the position of its relevant item, -1 for none. None: the i-th item is relevant
        for the i-th query.
    k : int, default=1
        Number of first items. If it exceeds their number, all items count.

    Returns
    -------
    recall : float
        From 0 to 1, averaged over the queries that have a relevant item that is not excluded.

    Raises
    ------
    ValueError
        If shapes do not fit, or no query has a relevant item.

    See Also
    --------
    hit_rate_at_k : Whether at least one relevant item is among the first k. Benchmarks of images
        with several captions often call it recall.

    Notes
    -----
    Items with equal scores are tied. As in all metrics of this module the value is the mean over
    all orders of tied items, so it does not depend on a sort, and a constant score gains nothing.

    References
    ----------
    McSherry and Najork (2008), "Computing information retrieval performance measures efficiently
    in the presence of tied scores", ECIR.

    Examples
    --------
    >>> from skmm.metrics import recall_at_k
    >>> scores = [[0.9, 0.1, 0.3], [0.8, 0.5, 0.1], [0.2, 0.2, 0.2]]
    >>> round(recall_at_k(scores, k=1), 3)  # found, not found, one of three that are tied
    0.444
    >>> recall_at_k(scores, [[1, 1, 0], [1, 1, 0], [1, 1, 1]], k=2)
    0.722...
    """
    return _measure("recall_at_k", scores, relevance, k=k)


def hit_rate_at_k(scores: ArrayLike, relevance: ArrayLike | None = None, *, k: int = 1) -> float:
    """Compute the fraction of queries with at least one relevant item among the first k.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.
    k : int, default=1
        Number of first items.

    Returns
    -------
    hit_rate : float
        From 0 to 1; with one relevant item per query it equals :func:`recall_at_k`. The mean over
        all orders of tied items.

    Examples
    --------
    >>> from skmm.metrics import hit_rate_at_k, recall_at_k
    >>> scores, relevance = [[0.9, 0.5, 0.1]], [[1, 0, 1]]
    >>> hit_rate_at_k(scores, relevance, k=1), recall_at_k(scores, relevance, k=1)
    (1.0, 0.5)
    """
    return _measure("hit_rate_at_k", scores, relevance, k=k)


def median_rank(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Compute the median over queries of the rank of the first relevant item.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.

    Returns
    -------
    rank : float
        At least 1; lower is better. The rank of a query is the mean over all orders of tied items,
        which for one relevant item is its average rank.

    Examples
    --------
    >>> from skmm.metrics import median_rank
    >>> median_rank([[0.9, 0.1, 0.3], [0.8, 0.5, 0.1], [0.4, 0.3, 0.2]])
    2.0
    """
    return _measure("median_rank", scores, relevance)


def mean_rank(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Compute the mean over queries of the rank of the first relevant item.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.

    Returns
    -------
    rank : float
        At least 1; lower is better. Tied items as in :func:`median_rank`.

    Examples
    --------
    >>> from skmm.metrics import mean_rank
    >>> mean_rank([[0.9, 0.1], [0.5, 0.5]])
    1.25
    """
    return _measure("mean_rank", scores, relevance)


def mean_reciprocal_rank(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Compute the mean over queries of the reciprocal rank of the first relevant item.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.

    Returns
    -------
    mrr : float
        From 0 to 1. The mean over all orders of tied items.

    Examples
    --------
    >>> from skmm.metrics import mean_reciprocal_rank
    >>> mean_reciprocal_rank([[0.9, 0.1], [0.7, 0.5]])
    0.75
    """
    return _measure("mean_reciprocal_rank", scores, relevance)


def mean_average_precision(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Compute the mean average precision.

    The average precision of a query is the mean over its relevant items of the precision at their
    ranks.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`; any grade above 0 is relevant.

    Returns
    -------
    mean_ap : float
        From 0 to 1. The mean over all orders of tied items.

    Examples
    --------
    >>> from skmm.metrics import mean_average_precision
    >>> mean_average_precision([[0.9, 0.5, 0.1]], [[1, 0, 1]])  # (1/1 + 2/3) / 2
    0.833...
    """
    return _measure("mean_average_precision", scores, relevance)


def ndcg(scores: ArrayLike, relevance: ArrayLike | None = None, *, k: int | None = None) -> float:
    """Compute the normalized discounted cumulative gain, averaged over queries.

    The gain is the grade and the discount is logarithmic. The value equals scikit-learn's
    ``ndcg_score`` if no query is left out.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.
    k : int, default=None
        Number of first items; None is all.

    Returns
    -------
    ndcg : float
        From 0 to 1. The mean over all orders of tied items.

    References
    ----------
    Järvelin and Kekäläinen (2002), "Cumulated gain-based evaluation of IR techniques", TOIS.

    Examples
    --------
    >>> from skmm.metrics import ndcg
    >>> round(ndcg([[0.9, 0.5, 0.1]], [[1, 0, 2]]), 3)
    0.76
    """
    return _measure("ndcg", scores, relevance, k=k)


def _measure(name: str, scores: ArrayLike, relevance: ArrayLike | None, **params: object) -> float:
    value = measure(name, [(scores, relevance)], check_params(name, params))
    if value != value:
        raise ValueError(
            f"{name}: no query has a relevant item: each query is missing, or all of its relevant"
            " items are. Give at least one pair without NaN."
        )
    return value


# --- Scores and relevance: checked, and split into parts of bounded size ---

# Number of scores per part; the arrays of a part take about ten times as many bytes.
_PART = 1 << 20


def orders(
    scores: ArrayLike, relevance: ArrayLike | None, owner: str
) -> "Iterator[OneRelevant | ManyRelevant]":
    """Check the input and yield the positions of relevant items for parts of the queries."""
    known = _check_scores(scores, owner)
    gains = _check_relevance(relevance, known.shape, owner)
    step = max(1, _PART // known.shape[1])
    for begin in range(0, len(known), step):
        part = slice(begin, begin + step)
        if gains.ndim == 1:
            yield OneRelevant(known[part], gains[part])
        else:
            yield ManyRelevant(known[part], gains[part])


def _check_scores(scores: ArrayLike, owner: str) -> np.ndarray:
    array = np.asarray(scores)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: scores must be numbers, got an array of {array.dtype}.")
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{owner}: scores must have shape (n_queries, n_items) with at least one of each, got"
            f" {array.shape}."
        )
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _check_relevance(relevance: ArrayLike | None, shape: tuple[int, ...], owner: str) -> np.ndarray:
    """Return the position of the relevant item of each query, or the grades of all items."""
    n_queries, n_items = shape
    if relevance is None:
        if n_items < n_queries:
            raise ValueError(
                f"{owner}: without relevance the i-th item is relevant for the i-th query, and"
                f" scores of shape {shape} have more queries than items. Give relevance."
            )
        return np.arange(n_queries)
    array = np.asarray(relevance)
    if array.shape == (n_queries,) and array.dtype.kind in "iu":
        outside = (array < -1) | (array >= n_items)
        if outside.any():
            raise ValueError(
                f"{owner}: relevance names item {int(array[outside][0])}, and items are numbered"
                f" from 0 to {n_items - 1} (-1 for none)."
            )
        return array.astype(np.intp)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{owner}: relevance must be bool or numbers of shape {shape}, or one int for each"
            f" query, shape {(n_queries,)}; got {array.dtype} of shape {array.shape}."
        )
    gains = array.astype(np.float64)
    if not np.isfinite(gains).all() or (gains < 0).any():
        raise ValueError(f"{owner}: relevance must be finite and not negative.")
    return gains


# --- The table of metrics, and the computation from parts of the queries ---


class Metric(NamedTuple):
    """Value of each query, and summary of these values."""

    value: Callable[..., np.ndarray]  # (OneRelevant or ManyRelevant, **params) -> (n_queries,)
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
    """Compute a metric from parts of the queries, each (scores, relevance).

    Returns NaN if no query has a relevant item.
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
    """Fill in defaults, and refuse a k that is not a positive integer."""
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


# --- Ranks of the relevant items of each query, as means over all orders of tied items ---
# A sort would order tied items arbitrarily. All values here are means over all orders of tied
# items, in closed form: McSherry and Najork (2008), "Computing information retrieval performance
# measures efficiently in the presence of tied scores", ECIR. Positions are counted from 1 in the
# formulas and from 0 in the arrays.


class OneRelevant:
    """Queries with one relevant item each, evaluated by counting, without a sort.

    Parameters
    ----------
    scores : ndarray of shape (n_queries, n_items)
        Similarities; NaN for an excluded item.
    relevant : ndarray of shape (n_queries,), int
        Position of the relevant item, -1 for none.
    """

    def __init__(self, scores: np.ndarray, relevant: np.ndarray):
        own = scores[np.arange(len(scores)), relevant]
        self.known = (relevant >= 0) & ~np.isnan(own)
        self._above: NDArray[np.int64] = (scores > own[:, None]).sum(axis=1)
        self._tied: NDArray[np.int64] = np.maximum((scores == own[:, None]).sum(axis=1), 1)
        self._n_items = scores.shape[1]

    def recall(self, k: int) -> np.ndarray:
        """Return the fraction of the relevant items among the first k."""
        among: NDArray[np.int64] = np.clip(k - self._above, 0, self._tied)
        return among / self._tied

    def hit(self, k: int) -> np.ndarray:
        """Return the probability that a relevant item is among the first k."""
        return self.recall(k)

    def rank(self) -> np.ndarray:
        """Return the rank of the first relevant item."""
        return self._above + (self._tied + 1) / 2

    def reciprocal_rank(self) -> np.ndarray:
        """Return the reciprocal rank of the first relevant item."""
        return self._mean_over_ties(1 / np.arange(1, self._n_items + 1))

    def average_precision(self) -> np.ndarray:
        """Return the average precision."""
        return self.reciprocal_rank()

    def ndcg(self, k: int | None) -> np.ndarray:
        """Return the normalized discounted cumulative gain of the first k."""
        discounts = _discounts(self._n_items, k)
        value: NDArray[np.float64] = self._mean_over_ties(discounts) / discounts[0]
        return value

    def _mean_over_ties(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(values)])
        of_ties: NDArray[np.float64] = sums[self._above + self._tied] - sums[self._above]
        return of_ties / self._tied


class ManyRelevant:
    """Queries with any number of relevant items.

    Parameters
    ----------
    scores : ndarray of shape (n_queries, n_items)
        Similarities; NaN for an excluded item.
    gains : ndarray of shape (n_queries, n_items), float
        Grades of relevance, not negative, 0 for not relevant.
    """

    def __init__(self, scores: np.ndarray, gains: np.ndarray):
        gains = np.where(np.isnan(scores), 0.0, gains)
        order = np.argsort(-scores, axis=1, kind="stable")  # NaN comes last
        ranked = np.take_along_axis(scores, order, axis=1)
        self._gains: NDArray[np.float64] = np.take_along_axis(gains, order, axis=1)
        self._start, self._end = _tied_with(ranked)
        self._relevant = self._gains > 0
        self._n_relevant: NDArray[np.int64] = self._relevant.sum(axis=1)
        self.known = self._n_relevant > 0

    @cached_property
    def _size(self) -> NDArray[np.int64]:
        """Number of items tied with the one at each position."""
        return self._end - self._start + 1

    @cached_property
    def _counts(self) -> NDArray[np.float64]:
        """Relevant items before each position, (n_queries, n_items + 1)."""
        return _sums_before(self._relevant)

    @cached_property
    def _alike(self) -> NDArray[np.float64]:
        """Number of relevant items tied with the one at each position."""
        return _between(self._counts, self._start, self._end)

    def recall(self, k: int) -> np.ndarray:
        """Return the fraction of the relevant items among the first k."""
        expected = self._alike / self._size  # that the item at this position is relevant
        found: NDArray[np.float64] = expected[:, :k].sum(axis=1)
        return found / np.maximum(self._n_relevant, 1)

    def hit(self, k: int) -> np.ndarray:
        """Return the probability that a relevant item is among the first k."""
        return 1 - self._nothing_until[:, min(k, self._gains.shape[1]) - 1]

    def rank(self) -> np.ndarray:
        """Return the rank of the first relevant item."""
        first = self._relevant.argmax(axis=1)[:, None]
        start, size, alike = (
            np.take_along_axis(values, first, axis=1)[:, 0]
            for values in (self._start, self._size, self._alike)
        )
        return start + (size + 1) / (alike + 1)

    def reciprocal_rank(self) -> np.ndarray:
        """Return the reciprocal rank of the first relevant item."""
        until = np.column_stack([np.ones(len(self._gains)), self._nothing_until])
        value: NDArray[np.float64] = (-np.diff(until, axis=1) / self._positions).sum(axis=1)
        return value

    def average_precision(self) -> np.ndarray:
        """Return the average precision."""
        before = np.take_along_axis(self._counts, self._start, axis=1)
        # Given a relevant item at this position, the others are spread evenly over the tie.
        others = (self._alike - 1) / np.maximum(self._size - 1, 1)
        up_to_here = before + 1 + (self._positions - 1 - self._start) * others
        expected = self._alike / self._size * up_to_here / self._positions
        found: NDArray[np.float64] = expected.sum(axis=1)
        return found / np.maximum(self._n_relevant, 1)

    def ndcg(self, k: int | None) -> np.ndarray:
        """Return the normalized discounted cumulative gain of the first k."""
        discounts = _discounts(self._gains.shape[1], k)
        mean = _between(_sums_before(self._gains), self._start, self._end) / self._size
        best = -np.sort(-self._gains, axis=1) @ discounts
        return mean @ discounts / np.where(best > 0, best, 1.0)

    @property
    def _positions(self) -> NDArray[np.int64]:
        return np.arange(1, self._gains.shape[1] + 1, dtype=np.int64)

    @cached_property
    def _nothing_until(self) -> NDArray[np.float64]:
        """Probability that no relevant item is at or before each position."""
        before = np.take_along_axis(self._counts, self._start, axis=1)
        place = np.arange(self._gains.shape[1]) - self._start
        left = self._size - place  # items of this tie that are not yet placed
        still: NDArray[np.float64] = np.clip((left - self._alike) / left, 0, 1)
        # Zero after the first tie that has a relevant item.
        return np.cumprod(np.where(before > 0, 0.0, still), axis=1, dtype=np.float64)


def _tied_with(ranked: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last position of the tie of each position."""
    n_queries, n_items = ranked.shape
    differs = ranked[:, 1:] != ranked[:, :-1]
    edge = np.ones((n_queries, 1), dtype=bool)
    here = np.arange(n_items)
    start = np.maximum.accumulate(np.where(np.hstack([edge, differs]), here, 0), axis=1)
    last = np.where(np.hstack([differs, edge]), here, n_items - 1)
    end = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    return start, end


def _sums_before(values: np.ndarray) -> NDArray[np.float64]:
    sums = np.cumsum(values, axis=1, dtype=np.int64 if values.dtype == bool else np.float64)
    return np.hstack([np.zeros((len(values), 1), dtype=sums.dtype), sums])


def _between(
    sums: NDArray[np.float64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.float64]:
    return np.take_along_axis(sums, end + 1, axis=1) - np.take_along_axis(sums, start, axis=1)


def _discounts(n_items: int, k: int | None) -> NDArray[np.float64]:
    discounts: NDArray[np.float64] = 1 / np.log2(np.arange(2, n_items + 2))
    if k is not None:
        discounts[k:] = 0.0
    return discounts
