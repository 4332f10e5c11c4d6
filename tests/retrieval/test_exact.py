"""Exact search equals brute force in float64, for any size of blocks."""

import numpy as np
import pytest
import torch
from spaces import brute_force, units

from skmm.retrieval import _search
from skmm.retrieval._search import ExactSearch, best_of, similarities

BLOCKS = [(3, 7), (16, 64), (1000, 1000)]


def search(queries, vectors, k, batch_size=16, block_size=64):
    return ExactSearch(batch_size, block_size, "cpu")(queries, vectors, k)


@pytest.mark.parametrize(("batch_size", "block_size"), BLOCKS)
@pytest.mark.parametrize("k", [1, 5, 199, 200])
def test_equals_brute_force(batch_size, block_size, k):
    rng = np.random.default_rng(0)
    queries = units(rng.standard_normal((20, 12)))
    vectors = units(rng.standard_normal((200, 12)))
    positions, near = search(queries, vectors, k, batch_size, block_size)
    expected, cosines = brute_force(queries, vectors, k)
    assert np.array_equal(positions, expected)
    assert np.array_equal(near, cosines)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "block_size"), BLOCKS)
@pytest.mark.parametrize("seed", range(3))
def test_ties_in_the_order_of_the_rows(batch_size, block_size, seed):
    """There are more equal rows than candidates that float32 proposes."""
    rng = np.random.default_rng(seed)
    distinct = units(rng.standard_normal((4, 12)))
    vectors = distinct[rng.integers(0, 4, size=300)]
    queries = units(rng.standard_normal((10, 12)))
    for k in (1, 10, 90):
        positions, near = search(queries, vectors, k, batch_size, block_size)
        expected, cosines = brute_force(queries, vectors, k)
        assert np.array_equal(positions, expected)
        assert np.array_equal(near, cosines)


def test_rows_that_differ_by_less_than_the_rounding_of_float32():
    rng = np.random.default_rng(1)
    center = rng.standard_normal(64)
    vectors = units(center + 3e-7 * rng.standard_normal((400, 64)))
    queries = units(center + 0.3 * rng.standard_normal((15, 64)))
    in_float32 = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :5]
    positions, _ = search(queries, vectors, 5)
    expected, _ = brute_force(queries, vectors, 5)
    assert np.array_equal(positions, expected)
    assert not np.array_equal(in_float32, expected)  # so the second pass was needed


def test_no_second_pass_without_need(monkeypatch):
    """The second pass reads all rows again, and should be an exception."""
    calls = []
    monkeypatch.setattr(
        ExactSearch, "_compare_again", lambda self, on_device, *rest: calls.append(len(on_device))
    )
    rng = np.random.default_rng(2)
    search(units(rng.standard_normal((50, 64))), units(rng.standard_normal((5000, 64))), 10)
    assert calls == []


def test_zero_vectors_have_similarity_zero():
    vectors = np.array([[-1, 0], [0, 0], [1, 0]], dtype=np.float32)
    positions, near = search(vectors[2:], vectors, 3)
    assert positions.tolist() == [[2, 1, 0]]
    assert near.tolist() == [[1, 0, -1]]


def test_scores_are_computed_in_blocks(monkeypatch):
    """Both passes compute blocks of scores, never the whole matrix."""
    shapes = []
    scores = ExactSearch._scores

    def spied(self, *args):
        result = scores(self, *args)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(ExactSearch, "_scores", spied)
    vectors = np.tile(units(np.eye(8)), (100, 1))
    search(vectors[:40], vectors, 5, batch_size=16, block_size=64)
    assert max(n for n, _ in shapes) == 16 and max(n for _, n in shapes) == 64
    assert len(shapes) == 3 * 13 * 2


def test_similarities_do_not_depend_on_the_parts(monkeypatch):
    rng = np.random.default_rng(3)
    queries, vectors = units(rng.standard_normal((9, 16))), units(rng.standard_normal((30, 16)))
    own, rows = rng.integers(0, 9, size=100), rng.integers(0, 30, size=100)
    whole = similarities(queries, vectors, own, rows)
    monkeypatch.setattr(_search, "_PAIRS", 100)
    assert np.array_equal(similarities(queries, vectors, own, rows), whole)
    assert whole == pytest.approx((queries @ vectors.T)[own, rows], abs=1e-6)


def test_best_of_the_proposed_rows():
    vectors = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    positions, near = best_of(vectors[:1], vectors, np.array([[-1, 2, 1, 0]]), 3)
    assert positions.tolist() == [[0, 2, 1]]
    assert near.tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_result_does_not_depend_on_the_precision_of_the_device(precision, monkeypatch):
    """Products rounded to bfloat16 propose candidates only; the result is the same."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    if precision != "highest":
        scores = ExactSearch._scores

        def coarse(self, queries, vectors, begin):
            rounded = vectors[begin : begin + self.block_size]
            rounded = torch.from_numpy(rounded).bfloat16().float().numpy()
            return scores(self, queries.bfloat16().float(), rounded, 0)

        monkeypatch.setattr(ExactSearch, "_scores", coarse)
    rng = np.random.default_rng(4)
    queries = units(rng.standard_normal((20, 32)))
    vectors = units(rng.standard_normal((2000, 32)))
    positions, near = search(queries, vectors, 7)
    expected, cosines = brute_force(queries, vectors, 7)
    assert np.array_equal(positions, expected)
    assert np.array_equal(near, cosines)


def test_number_of_threads_is_restored():
    before = torch.get_num_threads()
    search(units(np.eye(4)), units(np.eye(4)), 2)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    rng = np.random.default_rng(5)
    distinct = units(rng.standard_normal((3000, 64)))
    vectors = distinct[rng.integers(0, 3000, size=9000)]
    queries = units(rng.standard_normal((50, 64)))
    on_gpu = ExactSearch(16, 1024, "cuda")(queries, vectors, 10)
    on_cpu = ExactSearch(16, 1024, "cpu")(queries, vectors, 10)
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        assert np.array_equal(found, expected)
