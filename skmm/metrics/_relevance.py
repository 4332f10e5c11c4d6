"""Scores and relevance of a query set: checked, and given in parts of bounded size."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from skmm.metrics._ranking import ManyRelevant, OneRelevant

__all__ = ["orders"]

# Scores looked at in one go; the arrays of a part take some ten times as many bytes.
_PART = 1 << 20


def orders(scores: Any, relevance: Any, owner: str) -> Iterator[OneRelevant | ManyRelevant]:
    """Check the input and yield where relevant items stand, a part of the queries at a time."""
    scores = _check_scores(scores, owner)
    relevance = _check_relevance(relevance, scores.shape, owner)
    step = max(1, _PART // scores.shape[1])
    for begin in range(0, len(scores), step):
        part = slice(begin, begin + step)
        if relevance.ndim == 1:
            yield OneRelevant(scores[part], relevance[part])
        else:
            yield ManyRelevant(scores[part], relevance[part])


def _check_scores(scores: Any, owner: str) -> np.ndarray:
    array = np.asarray(scores)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: scores must be numbers, got an array of {array.dtype}.")
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{owner}: scores must have shape (n_queries, n_items) with at least one of each, got"
            f" {array.shape}."
        )
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _check_relevance(relevance: Any, shape: tuple[int, ...], owner: str) -> np.ndarray:
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
