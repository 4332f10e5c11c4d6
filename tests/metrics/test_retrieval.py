"""Metrics of retrieval: against values by hand, all orders of ties, and scikit-learn's nDCG."""

import inspect
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

import skmm.metrics
from skmm.metrics import (
    hit_rate_at_k,
    mean_average_precision,
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    ndcg,
    recall_at_k,
)

METRICS = {name: getattr(skmm.metrics, name) for name in skmm.metrics._retrieval.METRICS}
WITH_K = [name for name, metric in METRICS.items() if "k" in inspect.signature(metric).parameters]


def in_this_order(name, gains, k):
    """Compute the textbook value for one query whose items are ordered without ties."""
    gains = np.asarray(gains, dtype=float)
    k = len(gains) if k is None else k
    relevant = gains > 0
    positions = np.flatnonzero(relevant) + 1
    if name == "recall_at_k":
        return relevant[:k].sum() / relevant.sum()
    if name == "hit_rate_at_k":
        return float(relevant[:k].any())
    if name in ("mean_rank", "median_rank"):
        return positions[0]
    if name == "mean_reciprocal_rank":
        return 1 / positions[0]
    if name == "mean_average_precision":
        return np.mean([relevant[:p].sum() / p for p in positions])
    discounts = np.array([1 / np.log2(i + 2) if i < k else 0.0 for i in range(len(gains))])
    return gains @ discounts / (np.sort(gains)[::-1] @ discounts)


def over_all_orders(name, scores, gains, k):
    """Compute the mean over all orders that sort the scores."""
    values = [
        in_this_order(name, [gains[i] for i in order], k)
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in zip(order, order[1:], strict=False))
    ]
    return np.mean(values)


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(2))
def test_equals_the_mean_over_all_orders_of_ties(name, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, size=(12, 6)).astype(float)  # three values: ties everywhere
    gains = rng.integers(0, 3, size=(12, 6)) * (rng.random((12, 6)) < 0.6)
    gains[:, 0] += gains.sum(axis=1) == 0
    for k in [1, 2, 5, 6, 9] if name in WITH_K else [None]:
        expected = [over_all_orders(name, s, g, k) for s, g in zip(scores, gains, strict=True)]
        summary = np.median if name == "median_rank" else np.mean
        given = {} if k is None else {"k": k}
        found = METRICS[name](scores, gains, **given)
        assert found == pytest.approx(summary(expected), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_one_relevant_item_by_counting_is_the_same_as_by_sorting(name):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, size=(30, 40)).astype(float)
    scores[3], scores[:, 7], scores[5, 5] = np.nan, np.nan, np.nan
    where = rng.integers(0, 40, size=30)
    matrix = np.arange(40) == where[:, None]
    for k in [1, 3, 40, 100] if name in WITH_K else [None]:
        given = {} if k is None else {"k": k}
        by_position = METRICS[name](scores, where, **given)
        assert by_position == pytest.approx(METRICS[name](scores, matrix, **given), abs=1e-12)
    diagonal = METRICS[name](scores, np.eye(30, 40))
    assert METRICS[name](scores) == pytest.approx(diagonal, abs=1e-12)


def test_by_hand_without_ties():
    scores = [[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]]
    relevance = [[0, 1, 0, 1], [1, 0, 0, 1]]
    # First query: relevant at 2 and 4. Second one: at 1 and 4.
    assert recall_at_k(scores, relevance, k=1) == (0 + 1 / 2) / 2
    assert recall_at_k(scores, relevance, k=3) == (1 / 2 + 1 / 2) / 2
    assert hit_rate_at_k(scores, relevance, k=1) == 1 / 2
    assert hit_rate_at_k(scores, relevance, k=2) == 1
    assert mean_rank(scores, relevance) == median_rank(scores, relevance) == 1.5
    assert mean_reciprocal_rank(scores, relevance) == (1 / 2 + 1) / 2
    expected = ((1 / 2 + 2 / 4) / 2 + (1 + 2 / 4) / 2) / 2
    assert mean_average_precision(scores, relevance) == pytest.approx(expected)
    best = 1 + 1 / np.log2(3)
    first, second = (1 / np.log2(3) + 1 / np.log2(5)) / best, (1 + 1 / np.log2(5)) / best
    assert ndcg(scores, relevance) == pytest.approx((first + second) / 2)


def test_by_hand_with_ties():
    # Two of three tied items are relevant, after one that is not: positions 2, 3 and 4.
    scores, relevance = [[9.0, 1.0, 1.0, 1.0]], [[0, 1, 1, 0]]
    assert recall_at_k(scores, relevance, k=2) == pytest.approx(1 / 3)
    assert hit_rate_at_k(scores, relevance, k=2) == pytest.approx(2 / 3)
    # The first relevant one is at 2 in two of three orders, else at 3.
    assert mean_rank(scores, relevance) == pytest.approx(2 + 1 / 3)
    assert mean_reciprocal_rank(scores, relevance) == pytest.approx(2 / 3 / 2 + 1 / 3 / 3)
    # Pairs of positions: (2, 3), (2, 4), (3, 4).
    pairs = [(1 / 2 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2, (1 / 3 + 2 / 4) / 2]
    assert mean_average_precision(scores, relevance) == pytest.approx(np.mean(pairs))


def test_a_constant_score_gains_nothing():
    scores = np.zeros((50, 50))
    assert recall_at_k(scores, k=5) == pytest.approx(5 / 50)
    assert median_rank(scores) == mean_rank(scores) == 25.5
    relevance = np.eye(50) + np.eye(50, k=1)
    assert recall_at_k(scores, relevance, k=5) == pytest.approx(5 / 50)


@pytest.mark.parametrize("k", [None, 1, 4])
def test_ndcg_is_scikit_learns(k):
    rng = np.random.default_rng(1)
    relevance = rng.integers(0, 5, size=(20, 15))
    for scores in (rng.random((20, 15)), rng.integers(0, 4, size=(20, 15))):
        assert ndcg(scores, relevance, k=k) == pytest.approx(ndcg_score(relevance, scores, k=k))


def test_average_precision_is_scikit_learns_without_ties():
    rng = np.random.default_rng(2)
    relevance = rng.random((20, 15)) < 0.3
    relevance[:, 0] = True
    scores = rng.random((20, 15))
    expected = label_ranking_average_precision_score(relevance, scores)
    assert mean_average_precision(scores, relevance) == pytest.approx(expected)


@pytest.mark.parametrize("name", METRICS)
def test_parts_of_the_queries_change_nothing(name, monkeypatch):
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 5, size=(23, 17)).astype(float)
    for relevance in (rng.random((23, 17)) < 0.4, rng.integers(-1, 17, size=23)):
        whole = METRICS[name](scores, relevance)
        with monkeypatch.context() as context:
            context.setattr("skmm.metrics._retrieval._PART", 40)
            assert METRICS[name](scores, relevance) == whole


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("form", ["matrix", "position"])
def test_missing_queries_and_items_are_left_out(name, form):
    rng = np.random.default_rng(4)
    scores = rng.random((6, 9))
    relevance = np.eye(6, 9) if form == "matrix" else np.arange(6)
    there = METRICS[name](scores, relevance)
    # A missing query, a query without a relevant item, and an item that is never found.
    wide = np.column_stack(
        [np.vstack([scores, np.full(9, np.nan), np.ones(9)]), np.full(8, np.nan)]
    )
    if form == "matrix":
        relevance = np.pad(relevance, ((0, 2), (0, 1)))
        relevance[6, 0] = 1
        relevance[0, 9] = 1  # relevant, but never found
    else:
        relevance = np.append(relevance, [0, -1])
    assert METRICS[name](wide, relevance) == pytest.approx(there)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_to_score_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: no query has a relevant item"):
        METRICS[name]([[np.nan, np.nan], [0.1, np.nan]], [[1, 0], [0, 1]])


def test_infinite_scores_have_an_order():
    assert recall_at_k([[np.inf, 1.0], [-np.inf, 0.0]], k=1) == 1.0


@pytest.mark.parametrize(
    ("scores", "relevance", "message"),
    [
        ([0.1, 0.2], None, r"shape \(n_queries, n_items\).*got \(2,\)"),
        (np.empty((0, 3)), None, "at least one of each"),
        ([[0.1], [0.2]], None, "more queries than items"),
        ([[0.1, 0.2]], [2], "relevance names item 2.*from 0 to 1"),
        ([[0.1, 0.2]], [0.5], r"relevance must be.*\(1, 2\).*got float64 of shape \(1,\)"),
        ([[0.1, 0.2]], [[1, 0, 0]], r"relevance must be.*got int64 of shape \(1, 3\)"),
        ([[0.1, 0.2]], [[1, -1]], "finite and not negative"),
        ([[0.1, 0.2]], [[1, np.nan]], "finite and not negative"),
    ],
)
def test_bad_input_is_refused(scores, relevance, message):
    with pytest.raises(ValueError, match=f"recall_at_k: .*{message}"):
        recall_at_k(scores, relevance)


def test_scores_that_are_no_numbers():
    with pytest.raises(TypeError, match="scores must be numbers"):
        recall_at_k([["a", "b"]])


@pytest.mark.parametrize("name", WITH_K)
@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_wrong_k(name, k):
    with pytest.raises(ValueError, match=f"{name}: k must be an int of at least 1"):
        METRICS[name]([[0.1, 0.2]], k=k)
