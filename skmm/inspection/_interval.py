"""Statistics of scores that share folds: a corrected interval, many comparisons."""

from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Comparison", "compare", "holm"]

_NOTHING = 1e-12  # what the subtraction of equal scores may leave


class Comparison(NamedTuple):
    """Mean of paired differences, its interval and the p-value of the difference zero."""

    difference: float
    lower: float
    upper: float
    p_value: float


def compare(
    differences: np.ndarray, test_per_train: float, *, confidence_level: float = 0.95
) -> Comparison:
    """Corrected resampled t-test of Nadeau and Bengio.

    The training sets of the splits overlap, so their scores vary less than those of samples
    drawn anew would: the variance of the mean is taken as ``1 / n_splits + n_test / n_train``
    times that of the differences, in place of ``1 / n_splits``.

    Parameters
    ----------
    differences : ndarray of shape (n_splits,)
        Score of one estimator less that of another, on the same split.
    test_per_train : float
        Rows in a test part per row in a training part; 0 is the uncorrected test.
    confidence_level : float, default=0.95
        Of the interval.

    Returns
    -------
    comparison : Comparison
        Its p-value is two-sided.

    References
    ----------
    Nadeau and Bengio (2003), "Inference for the generalization error", Machine Learning 52.
    """
    n = len(differences)
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if deviation < _NOTHING:
        equal = abs(mean) < _NOTHING
        return Comparison(mean, mean, mean, 1.0 if equal else 0.0)
    error = deviation * np.sqrt(1 / n + test_per_train)
    reach = float(stats.t.ppf((1 + confidence_level) / 2, n - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Comparison(mean, mean - reach, mean + reach, p_value)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values so that the chance of any false finding among them is held.

    Parameters
    ----------
    p_values : ndarray of shape (n_comparisons,)
        Each for itself.

    Returns
    -------
    adjusted : ndarray of shape (n_comparisons,)
        In the same order.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
