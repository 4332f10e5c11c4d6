"""The mean cosine of paired vectors."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import paired_cosine_distances

from skmm.metrics import paired_cosine


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_is_the_mean_cosine(scale):
    left, right = np.random.default_rng(0).standard_normal((2, 30, 6))
    wanted = 1 - paired_cosine_distances(left, right).mean()
    assert paired_cosine(left * scale, right) == pytest.approx(wanted, abs=1e-12)
    assert paired_cosine(left, left * 3) == pytest.approx(1)
    assert paired_cosine(left, -left * scale) == pytest.approx(-1)


def test_the_order_of_the_rows_counts():
    left = np.random.default_rng(0).standard_normal((50, 6))
    right = left + 0.1 * np.random.default_rng(1).standard_normal((50, 6))
    assert paired_cosine(left, right) > 0.95
    assert abs(paired_cosine(left, np.roll(right, 1, axis=0))) < 0.4


def test_missing_vectors_and_zeros():
    nan = [np.nan, np.nan]
    assert paired_cosine([[1, 0], nan, [0, 1]], [[2, 0], [1, 1], nan]) == 1
    assert paired_cosine([[1, 0], [0, 0]], [[2, 0], [1, 1]]) == 0.5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"vectors_true has shape \(1, 2\) and vectors_pred \(2,"):
        paired_cosine([[1, 0]], [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="none of the 1 rows has both vectors"):
        paired_cosine([[np.nan, 1]], [[1, 1]])
    with pytest.raises(ValueError, match="vectors_pred must be a matrix.*without infinity"):
        paired_cosine([[1, 0]], [[1, np.inf]])
    with pytest.raises(ValueError, match="vectors_true must be a matrix.*got list of shape"):
        paired_cosine([1, 0], [[1, 0]])
