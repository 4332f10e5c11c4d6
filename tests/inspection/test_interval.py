"""The corrected interval has its nominal coverage, and the plain one does not."""

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import KFold, RepeatedKFold, ShuffleSplit

from skmm.inspection._comparison import compare, holm

N = 80
SIGN = np.where(np.arange(N) % 2, 1.0, -1.0)


def cut_between_means(x, train, test):
    """Predict by the nearer mean of the classes, a stable learner."""
    high, low = (x[:, :, train[SIGN[train] == s]].mean(axis=2)[:, :, None] for s in (1, -1))
    return np.sign(x[:, :, test] - (high + low) / 2) * np.sign(high - low)


def nearest_row(x, train, test):
    """Predict by one nearest neighbor, an unstable learner."""
    distances = np.abs(x[:, :, test, None] - x[:, :, None, train])
    return SIGN[train][distances.argmin(axis=3)]


def differences_of_equals(predict, splitter, *, n_simulations=600):
    """Return score differences of two equally good learners, (n_simulations, n_splits).

    Each sees one feature, and both features tell as much: the expected difference is zero.
    """
    rng = np.random.default_rng(0)
    x = 0.5 * SIGN + rng.normal(size=(n_simulations, 2, N))  # (simulation, learner, row)
    found = []
    for train, test in splitter.split(np.zeros(N)):
        score = (predict(x, train, test) == SIGN[test]).mean(axis=2)
        found.append(score[:, 0] - score[:, 1])
    return np.stack(found, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "predict, splitter, plain_errs_in",
    [
        (cut_between_means, ShuffleSplit(30, test_size=0.2, random_state=0), 0.4),
        (cut_between_means, RepeatedKFold(n_splits=5, n_repeats=6, random_state=0), 0.4),
        (nearest_row, KFold(5, shuffle=True, random_state=0), 0.1),
    ],
    ids=["random splits", "repeated folds", "five folds"],
)
def test_coverage_at_difference_zero(predict, splitter, plain_errs_in):
    differences = differences_of_equals(predict, splitter)
    corrected = [compare(row, 0.25) for row in differences]
    plain = [compare(row, 0.0) for row in differences]
    wrong = np.mean([not c.lower <= 0 <= c.upper for c in corrected])
    wrong_plain = np.mean([not c.lower <= 0 <= c.upper for c in plain])
    assert 0.02 <= wrong <= 0.08  # nominal: 0.05
    assert wrong_plain > plain_errs_in
    # The p-value agrees with the interval.
    assert wrong == np.mean([c.p_value < 0.05 for c in corrected])


def test_formula():
    differences = np.array([0.1, 0.3, 0.2, 0.05])
    got = compare(differences, 0.25, confidence_level=0.9)
    error = np.sqrt((1 / 4 + 0.25) * differences.var(ddof=1))
    reach = stats.t(3).ppf(0.95) * error
    mean = differences.mean()
    np.testing.assert_allclose(got[:3], [mean, mean - reach, mean + reach])
    # Without the correction it is the paired t-test.
    assert compare(differences, 0.0).p_value == pytest.approx(
        stats.ttest_1samp(differences, 0).pvalue
    )


def test_constant_differences():
    assert compare(np.zeros(5), 0.25) == (0, 0, 0, 1)
    assert compare(np.full(5, 0.1), 0.25)[1:] == (pytest.approx(0.1), pytest.approx(0.1), 0)


def test_holm():
    # Holm (1979): the smallest times 4, then the next times 3, ..., never falling.
    got = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(got, [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).size == 0
