"""How well queries find what is relevant for them, as numbers."""

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
    """Share of the relevant items that stand among the first k, averaged over queries.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        Similarities, higher is nearer. NaN: this item cannot be found by this query, and counts
        neither as an item nor as relevant; a query that is missing is a row of NaN.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        What is relevant for each query: a matrix of bool or of grades (0: not at all), or one int
        for each query, the position of its relevant item (-1: none). None: the i-th item answers
        the i-th query.
    k : int, default=1
        How many items are looked at. More than there are is all of them.

    Returns
    -------
    recall : float
        From 0 to 1, over the queries that have a relevant item among those that can be found.

    Raises
    ------
    ValueError
        If shapes do not fit, or no query has a relevant item.

    See Also
    --------
    hit_rate_at_k : Whether at least one relevant item is there, which benchmarks of images with
        several captions report under the name of recall.

    Notes
    -----
    Items with equal scores stand in no order. As in all metrics of this module the value is the
    mean over every order of theirs, so it depends on no sort, and a constant score gains nothing.

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
    """Share of the queries with at least one relevant item among the first k.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.
    k : int, default=1
        How many items are looked at.

    Returns
    -------
    hit_rate : float
        From 0 to 1; with one relevant item a query the same as :func:`recall_at_k`. Tied items:
        the mean over every order of theirs.

    Examples
    --------
    >>> from skmm.metrics import hit_rate_at_k, recall_at_k
    >>> scores, relevance = [[0.9, 0.5, 0.1]], [[1, 0, 1]]
    >>> hit_rate_at_k(scores, relevance, k=1), recall_at_k(scores, relevance, k=1)
    (1.0, 0.5)
    """
    return _measure("hit_rate_at_k", scores, relevance, k=k)


def median_rank(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Median over queries of the position of the first relevant item.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.

    Returns
    -------
    rank : float
        At least 1; lower is better. Tied items: a query's rank is the mean over every order of
        theirs, which for one relevant item is the average rank.

    Examples
    --------
    >>> from skmm.metrics import median_rank
    >>> median_rank([[0.9, 0.1, 0.3], [0.8, 0.5, 0.1], [0.4, 0.3, 0.2]])
    2.0
    """
    return _measure("median_rank", scores, relevance)


def mean_rank(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Mean over queries of the position of the first relevant item.

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
    """Mean over queries of one over the position of the first relevant item.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.

    Returns
    -------
    mrr : float
        From 0 to 1. Tied items: the mean over every order of theirs.

    Examples
    --------
    >>> from skmm.metrics import mean_reciprocal_rank
    >>> mean_reciprocal_rank([[0.9, 0.1], [0.7, 0.5]])
    0.75
    """
    return _measure("mean_reciprocal_rank", scores, relevance)


def mean_average_precision(scores: ArrayLike, relevance: ArrayLike | None = None) -> float:
    """Precision at each relevant item, averaged over them and then over queries.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`; any grade above 0 is relevant.

    Returns
    -------
    mean_ap : float
        From 0 to 1. Tied items: the mean over every order of theirs.

    Examples
    --------
    >>> from skmm.metrics import mean_average_precision
    >>> mean_average_precision([[0.9, 0.5, 0.1]], [[1, 0, 1]])  # (1/1 + 2/3) / 2
    0.833...
    """
    return _measure("mean_average_precision", scores, relevance)


def ndcg(scores: ArrayLike, relevance: ArrayLike | None = None, *, k: int | None = None) -> float:
    """Discounted cumulative gain, in parts of the best order's, averaged over queries.

    The gain is the grade itself and the discount is logarithmic, as in scikit-learn's
    ``ndcg_score``, whose value this is where no query is left out.

    Parameters
    ----------
    scores : array-like of shape (n_queries, n_items)
        As in :func:`recall_at_k`.
    relevance : array-like of shape (n_queries, n_items) or (n_queries,), default=None
        As in :func:`recall_at_k`.
    k : int, default=None
        How many items are looked at; None for all.

    Returns
    -------
    ndcg : float
        From 0 to 1. Tied items: the mean over every order of theirs.

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
            f"{name}: no query has a relevant item that it could find. Each is missing, or what is"
            " relevant for it is."
        )
    return value


# --- Scores and relevance of a query set: checked, and given in parts of bounded size ---

# Scores looked at in one go; the arrays of a part take some ten times as many bytes.
_PART = 1 << 20


def orders(
    scores: ArrayLike, relevance: ArrayLike | None, owner: str
) -> "Iterator[OneRelevant | ManyRelevant]":
    """Check the input and yield where relevant items stand, a part of the queries at a time."""
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
    """Return the position of the one relevant item of each query, or how relevant each item is."""
    n_queries, n_items = shape
    if relevance is None:
        if n_items < n_queries:
            raise ValueError(
                f"{owner}: without relevance the i-th item answers the i-th query, and scores of"
                f" shape {shape} have more queries than items. Give relevance."
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


# --- The metrics as a table, and how a metric is taken of scores that come in parts ---


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


# --- Where the relevant items of each query stand, in expectation over the order of tied items ---
# Items with equal scores stand in no order, and a sort would make one up. All values here are
# means over every order of tied items, in closed form: McSherry and Najork (2008), "Computing
# information retrieval performance measures efficiently in the presence of tied scores", ECIR.
# Positions are counted from 1 in the formulas and from 0 in the arrays.


class OneRelevant:
    """Queries with one relevant item each: known by counting, without a sort.

    Parameters
    ----------
    scores : ndarray of shape (n_queries, n_items)
        Higher is nearer; NaN for an item that cannot be found.
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
        """Share of the relevant items among the first k."""
        among: NDArray[np.int64] = np.clip(k - self._above, 0, self._tied)
        return among / self._tied

    def hit(self, k: int) -> np.ndarray:
        """Whether a relevant item is among the first k."""
        return self.recall(k)

    def rank(self) -> np.ndarray:
        """Position of the first relevant item."""
        return self._above + (self._tied + 1) / 2

    def reciprocal_rank(self) -> np.ndarray:
        """One over the position of the first relevant item."""
        return self._mean_over_ties(1 / np.arange(1, self._n_items + 1))

    def average_precision(self) -> np.ndarray:
        """Precision at each relevant item, averaged."""
        return self.reciprocal_rank()

    def ndcg(self, k: int | None) -> np.ndarray:
        """Discounted gain of the first k, in parts of the best there can be."""
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
        Higher is nearer; NaN for an item that cannot be found.
    gains : ndarray of shape (n_queries, n_items), float
        How relevant each item is; not negative, 0 for not at all.
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
        """How many items are tied with the one here."""
        return self._end - self._start + 1

    @cached_property
    def _counts(self) -> NDArray[np.float64]:
        """Relevant items before each position, (n_queries, n_items + 1)."""
        return _sums_before(self._relevant)

    @cached_property
    def _alike(self) -> NDArray[np.float64]:
        """How many relevant items are tied with the one here."""
        return _between(self._counts, self._start, self._end)

    def recall(self, k: int) -> np.ndarray:
        """Share of the relevant items among the first k."""
        expected = self._alike / self._size  # that the item at this position is relevant
        found: NDArray[np.float64] = expected[:, :k].sum(axis=1)
        return found / np.maximum(self._n_relevant, 1)

    def hit(self, k: int) -> np.ndarray:
        """Whether a relevant item is among the first k."""
        return 1 - self._nothing_until[:, min(k, self._gains.shape[1]) - 1]

    def rank(self) -> np.ndarray:
        """Position of the first relevant item."""
        first = self._relevant.argmax(axis=1)[:, None]
        start, size, alike = (
            np.take_along_axis(values, first, axis=1)[:, 0]
            for values in (self._start, self._size, self._alike)
        )
        return start + (size + 1) / (alike + 1)

    def reciprocal_rank(self) -> np.ndarray:
        """One over the position of the first relevant item."""
        until = np.column_stack([np.ones(len(self._gains)), self._nothing_until])
        value: NDArray[np.float64] = (-np.diff(until, axis=1) / self._positions).sum(axis=1)
        return value

    def average_precision(self) -> np.ndarray:
        """Precision at each relevant item, averaged."""
        before = np.take_along_axis(self._counts, self._start, axis=1)
        # If this position holds a relevant item, the others are spread over the other places.
        others = (self._alike - 1) / np.maximum(self._size - 1, 1)
        up_to_here = before + 1 + (self._positions - 1 - self._start) * others
        expected = self._alike / self._size * up_to_here / self._positions
        found: NDArray[np.float64] = expected.sum(axis=1)
        return found / np.maximum(self._n_relevant, 1)

    def ndcg(self, k: int | None) -> np.ndarray:
        """Discounted gain of the first k, in parts of the best there can be."""
        discounts = _discounts(self._gains.shape[1], k)
        mean = _between(_sums_before(self._gains), self._start, self._end) / self._size
        best = -np.sort(-self._gains, axis=1) @ discounts
        return mean @ discounts / np.where(best > 0, best, 1.0)

    @property
    def _positions(self) -> NDArray[np.int64]:
        return np.arange(1, self._gains.shape[1] + 1, dtype=np.int64)

    @cached_property
    def _nothing_until(self) -> NDArray[np.float64]:
        """Probability that nothing relevant stands here nor before."""
        before = np.take_along_axis(self._counts, self._start, axis=1)
        place = np.arange(self._gains.shape[1]) - self._start
        left = self._size - place  # items of this tie that are not yet placed
        still: NDArray[np.float64] = np.clip((left - self._alike) / left, 0, 1)
        # What comes after the first tie with a relevant item comes too late.
        return np.cumprod(np.where(before > 0, 0.0, still), axis=1, dtype=np.float64)


def _tied_with(ranked: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last position of the tie in which each position stands."""
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
