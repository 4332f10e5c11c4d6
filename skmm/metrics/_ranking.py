"""Where the relevant items of each query stand, in expectation over the order of tied items.

Items with equal scores stand in no order, and a sort would make one up. All values here are
means over every order of tied items, in closed form: McSherry and Najork (2008), "Computing
information retrieval performance measures efficiently in the presence of tied scores", ECIR.
Positions are counted from 1 in the formulas and from 0 in the arrays.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["ManyRelevant", "OneRelevant"]


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
