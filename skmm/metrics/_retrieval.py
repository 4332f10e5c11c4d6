"""How well queries find what is relevant for them, as numbers."""

from typing import Any

from skmm.metrics._measure import check_params, measure

__all__ = [
    "hit_rate_at_k",
    "mean_average_precision",
    "mean_rank",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg",
    "recall_at_k",
]


def recall_at_k(scores: Any, relevance: Any = None, *, k: int = 1) -> float:
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
    hit_rate_at_k : Whether at least one relevant item is there, which benchmarks of pictures with
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


def hit_rate_at_k(scores: Any, relevance: Any = None, *, k: int = 1) -> float:
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


def median_rank(scores: Any, relevance: Any = None) -> float:
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


def mean_rank(scores: Any, relevance: Any = None) -> float:
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


def mean_reciprocal_rank(scores: Any, relevance: Any = None) -> float:
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


def mean_average_precision(scores: Any, relevance: Any = None) -> float:
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


def ndcg(scores: Any, relevance: Any = None, *, k: int | None = None) -> float:
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


def _measure(name: str, scores: Any, relevance: Any, **params: Any) -> float:
    value = measure(name, [(scores, relevance)], check_params(name, params))
    if value != value:
        raise ValueError(
            f"{name}: no query has a relevant item that it could find. Each is missing, or what is"
            " relevant for it is."
        )
    return value
