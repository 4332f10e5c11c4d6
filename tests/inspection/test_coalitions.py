"""Weights of coalitions agree with the definitions, and samples with all coalitions."""

from itertools import permutations

import numpy as np
import pytest

from skmm.inspection._shapley import all_coalitions, choose_coalitions, sampled_coalitions


def numbers_of(coalitions):
    """Return the position of each coalition in a table of all."""
    return coalitions.members @ 2 ** np.arange(coalitions.members.shape[1])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_shares_are_means_over_all_orders(n):
    value = np.random.default_rng(n).normal(size=2**n)
    expected = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        who = 0
        for i in order:
            expected[i] += (value[who | 1 << i] - value[who]) / len(orders)
            who |= 1 << i
    coalitions = all_coalitions(n)
    assert coalitions.exact and len(coalitions.members) == 2**n
    np.testing.assert_allclose(coalitions.shares @ value[numbers_of(coalitions)], expected)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interactions_are_means_over_orders_with_an_adjacent_pair(n):
    value = np.random.default_rng(n).normal(size=2**n)
    expected = np.zeros((n, n))
    for i in range(n):
        for j in set(range(n)) - {i}:
            orders = list(permutations([k for k in range(n) if k != j]))  # i represents both
            for order in orders:
                who = sum(1 << k for k in order[: order.index(i)])
                both = value[who | 1 << i | 1 << j] - value[who | 1 << i] - value[who | 1 << j]
                expected[i, j] += (both + value[who]) / len(orders)
    coalitions = all_coalitions(n)
    got = coalitions.interactions @ value[numbers_of(coalitions)]
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert not all_coalitions(1).interactions.any()


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_samples_are_unbiased(n):
    """All weights are within four standard errors of the mean of 1500 samples."""
    value = np.random.default_rng(n).normal(size=2**n)
    exact = all_coalitions(n)
    shares, interactions = [], []
    for seed in range(1500):
        sample = sampled_coalitions(n, 4, np.random.RandomState(seed))
        own = value[numbers_of(sample)]
        shares.append(sample.shares @ own)
        interactions.append(sample.interactions @ own)
        assert shares[-1].sum() == pytest.approx(value[-1] - value[0])
    for got, weights in ((shares, exact.shares), (interactions, exact.interactions)):
        expected = weights @ value[numbers_of(exact)]
        error = np.std(got, axis=0) / np.sqrt(len(got)) + 1e-9
        assert (np.abs(np.mean(got, axis=0) - expected) < 4 * error).all()


@pytest.mark.parametrize("n", [9, 10, 15])
def test_sample_contains_every_pair_within_the_limit(n):
    sample = choose_coalitions(n, 300, np.random.RandomState(0))
    assert not sample.exact
    assert not sample.members[0].any() and sample.members[-1].all()
    assert len(np.unique(sample.members, axis=0)) == len(sample.members) <= 300
    assert (np.abs(sample.interactions).sum(axis=2) > 0).sum() == n * (n - 1)
    np.testing.assert_array_equal(sample.interactions, sample.interactions.transpose(1, 0, 2))


def test_sample_is_exact_for_sums_and_pairwise_products():
    """Interactions of a sum of terms and pairwise products are exact even in a sample."""
    n = 9
    rng = np.random.default_rng(0)
    part, pair = rng.normal(size=n), np.triu(rng.normal(size=(n, n)), 1)
    sample = choose_coalitions(n, 200, np.random.RandomState(0))
    who = sample.members.astype(float)
    value = who @ part + np.einsum("ci,ij,cj->c", who, pair, who)
    np.testing.assert_allclose(sample.interactions @ value, pair + pair.T, atol=1e-9)
    # The reverse of every order is in the sample, so that the shares are exact too.
    np.testing.assert_allclose(sample.shares @ value, part + (pair + pair.T).sum(axis=1) / 2)
