"""Rules against slow reference computations, row by row, absent votes included."""

import numpy as np
import pytest

from skmm.fusion._rules import combine, learn_weights, stack_features

N_CLASSES = 3
PRIOR = np.array([0.5, 0.3, 0.2])


@pytest.fixture
def votes():
    """Probabilities of 4 modalities for 40 rows; a third are absent, one row has none."""
    rng = np.random.default_rng(0)
    votes = rng.dirichlet(np.ones(N_CLASSES), size=(40, 4))
    votes[rng.random((40, 4)) < 0.33] = np.nan
    votes[7] = np.nan
    votes[8] = rng.dirichlet(np.ones(N_CLASSES), size=4)
    return votes


def slow(rule, row, weights):
    """One row of votes, as the textbook has it."""
    present = [m for m in range(len(row)) if not np.isnan(row[m, 0])]
    if not present:
        return PRIOR
    if rule == "mean":
        out = sum(row[m] for m in present)
    elif rule == "weighted":
        out = sum(weights[m] * row[m] for m in present)
        if not any(weights[m] for m in present):
            out = sum(row[m] for m in present)
    elif rule == "vote":
        out = np.zeros(row.shape[1])
        for m in present:
            out[list(row[m]).index(max(row[m]))] += 1
    elif rule == "max":
        out = np.array([max(row[m, c] for m in present) for c in range(row.shape[1])])
    else:
        out = np.array([np.prod([row[m, c] for m in present]) for c in range(row.shape[1])])
    return out / out.sum()


@pytest.mark.parametrize("rule", ["mean", "weighted", "vote", "max", "product"])
def test_rules_equal_the_textbook(votes, rule):
    weights = np.array([0.0, 0.1, 0.6, 0.3])
    expected = [slow(rule, row, weights) for row in votes]
    got = combine(votes, rule, PRIOR, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(got.sum(axis=1), 1.0)


@pytest.mark.parametrize("rule", ["mean", "weighted"])
def test_values_are_averaged_and_keep_their_unit(rule):
    nan = np.nan
    votes = np.array([[1.0, 5.0], [2.0, nan], [nan, 7.0], [nan, nan]])[:, :, None]
    got = combine(votes, rule, np.array([-4.0]), np.array([0.75, 0.25]))
    first = {"mean": 3.0, "weighted": 2.0}[rule]
    assert got[:, 0].tolist() == [first, 2.0, 7.0, -4.0]


def test_a_row_with_modalities_of_weight_zero_only_has_nothing_better():
    votes = np.array([[[0.9, 0.1], [np.nan, np.nan]]])
    got = combine(votes, "weighted", np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert got.tolist() == [[0.9, 0.1]]


def test_product_survives_certainty_and_many_modalities():
    sure = np.tile([1.0, 0.0], (1, 1000, 1)).astype(float)
    sure[0, 500:] = [0.0, 1.0]
    sure[0, 0] = [0.6, 0.4]
    got = combine(sure, "product", np.array([0.5, 0.5]))
    assert np.isfinite(got).all() and got[0, 1] > got[0, 0]


@pytest.mark.parametrize("rule", ["mean", "weighted", "vote", "max", "product"])
def test_order_of_modalities_does_not_matter(votes, rule):
    weights = np.array([0.4, 0.1, 0.2, 0.3])
    shuffled = [2, 0, 3, 1]
    np.testing.assert_allclose(
        combine(votes, rule, PRIOR, weights),
        combine(votes[:, shuffled], rule, PRIOR, weights[shuffled]),
    )


# --- learned weights ---------------------------------------------------------------------------


def planted_votes(n=2000, seed=0):
    """Two modalities that know the class with different noise, and one that knows nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    logits = np.column_stack(
        [
            2.0 * (2 * y - 1) + rng.normal(size=n),
            0.7 * (2 * y - 1) + rng.normal(size=n),
            3.0 * rng.normal(size=n),
        ]
    )
    positive = 1 / (1 + np.exp(-logits))
    return np.stack([1 - positive, positive], axis=2), y


def test_weights_follow_reliability_and_noise_gets_none():
    votes, y = planted_votes()
    weights = learn_weights(votes, y, None, classes=True)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > weights[1] > weights[2]
    assert weights[2] < 0.02


def test_weights_are_those_of_the_least_log_loss():
    votes, y = planted_votes(n=500)
    votes[::3, 0] = np.nan
    votes[1::5, 1] = np.nan

    def loss(weights):
        prior = np.array([0.5, 0.5])
        mixed = combine(votes, "weighted", prior, np.asarray(weights))
        return -np.log(mixed[np.arange(len(y)), y]).mean()

    best = loss(learn_weights(votes, y, None, classes=True))
    steps = np.linspace(0, 1, 21)
    grid = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9]
    assert best <= min(loss(np.clip(w, 0, 1)) for w in grid) + 2e-3


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_weights_of_values_are_inverse_to_the_noise_in_any_unit(unit):
    rng = np.random.default_rng(0)
    y = rng.normal(size=5000)
    noise = np.array([0.2, 0.4, 10.0])
    votes = (y[:, None] + noise * rng.normal(size=(5000, 3))) * unit
    weights = learn_weights(votes[:, :, None], y * unit, None, classes=False)
    expected = noise**-2.0 / (noise**-2.0).sum()
    np.testing.assert_allclose(weights, expected, atol=0.02)


def test_row_weights_decide_which_rows_are_learned_from():
    votes, y = planted_votes()
    votes[1000:, [0, 2]] = votes[1000:, [2, 0]]  # in the second half the roles are swapped
    first = np.r_[np.ones(1000), np.zeros(1000)]
    np.testing.assert_allclose(
        learn_weights(votes, y, first, classes=True),
        learn_weights(votes[:1000], y[:1000], None, classes=True),
        atol=1e-4,
    )
    assert learn_weights(votes, y, 1 - first, classes=True)[2] > 0.5


# --- features for stacking ---------------------------------------------------------------------


def test_stacked_probabilities_are_log_odds_and_markers():
    votes = np.array([[[0.2, 0.8], [np.nan, np.nan]], [[0.5, 0.5], [1.0, 0.0]]])
    got = stack_features(votes, np.array([0.75, 0.25]), classes=True)
    expected = [
        [np.log(4), np.log(1 / 3), 0, 1],
        [0.0, np.log(1e-4), 0, 0],  # certainty is cut
    ]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_stacked_probabilities_of_many_classes_are_centered(votes):
    got = stack_features(votes, PRIOR, classes=True)
    assert got.shape == (40, 4 * N_CLASSES + 4)
    np.testing.assert_allclose(got[:, :12].reshape(40, 4, 3).sum(axis=2), 0.0, atol=1e-12)
    np.testing.assert_array_equal(got[:, 12:], np.isnan(votes[:, :, 0]))


def test_stacked_values_are_in_units_of_the_target():
    votes = np.array([[3.0, np.nan], [5.0, 1.0]])[:, :, None]
    got = stack_features(votes, np.array([1.0]), classes=False, spread=2.0)
    assert got.tolist() == [[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0]]
