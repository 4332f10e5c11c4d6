"""Fréchet distance against its definition by a root of a matrix, and where that root fails."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from skmm.metrics import frechet_distance


def by_definition(true, pred):
    """Heusel et al. (2017), equation 6, with the root of the product of the covariances."""
    c, d = np.cov(true, rowvar=False), np.cov(pred, rowvar=False)
    shift = true.mean(axis=0) - pred.mean(axis=0)
    return shift @ shift + np.trace(c + d - 2 * sqrtm(c @ d).real)


def sample(seed, n, width, *, mean=0.0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) / np.sqrt(width) + np.eye(width)
    return rng.standard_normal((n, width)) @ mixing + mean * rng.standard_normal(width)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n_true", "n_pred"), [(300, 300), (80, 500)])
def test_equals_the_paper(seed, n_true, n_pred):
    true, pred = sample(seed, n_true, 20), sample(100 + seed, n_pred, 20, mean=3.0)
    assert frechet_distance(true, pred) == pytest.approx(by_definition(true, pred), rel=1e-7)
    assert frechet_distance(pred, true) == pytest.approx(frechet_distance(true, pred), rel=1e-10)


def test_of_two_known_gaussians():
    """Diagonal covariances: the squared distances of the means and of the deviations."""
    base = np.random.default_rng(0).standard_normal((400, 3))
    base = np.linalg.qr(base - base.mean(axis=0))[0] * np.sqrt(399)  # covariance exactly 1
    found = frechet_distance(base * [1, 2, 5], base * [3, 2, 1] + [0, 7, 0])
    assert found == pytest.approx(2**2 + 0 + 4**2 + 7**2, rel=1e-12)


def test_with_fewer_rows_than_features():
    """The sets lie in a subspace; there the distance is that of their coordinates in it."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((500, 8)))[0].T
    true, pred = sample(1, 30, 8), sample(2, 40, 8, mean=1.0)
    found = frechet_distance(true @ basis, pred @ basis)
    assert found == pytest.approx(by_definition(true, pred), rel=1e-7)
    # Sets of which no direction is shared: only the two traces count.
    left, right = np.zeros((5, 20)), np.zeros((5, 20))
    left[:, :4], right[:, 10:14] = rng.standard_normal((2, 5, 4))
    left -= left.mean(axis=0)
    right -= right.mean(axis=0)
    traces = left.var(axis=0, ddof=1).sum() + right.var(axis=0, ddof=1).sum()
    assert frechet_distance(left, right) == pytest.approx(traces, rel=1e-12)


@pytest.mark.parametrize("shape", [(10, 300), (300, 10), (40, 40)])
@pytest.mark.parametrize("scale", [1.0, 1e-180, 1e120])
def test_distance_of_a_set_to_itself_is_zero(shape, scale):
    features = np.random.default_rng(0).standard_normal(shape) * scale
    # scipy's root of a singular matrix is off by far more, or complex.
    assert 0 <= frechet_distance(features, features[::-1]) <= 1e-11 * scale * scale
    apart = frechet_distance(features, features + scale)
    assert apart == pytest.approx(shape[1] * scale * scale, rel=1e-9)


def test_grows_as_images_get_worse():
    real, other = sample(0, 200, 30), sample(0, 400, 30)[200:]
    noise = np.random.default_rng(2).standard_normal((200, 30))
    worse = [frechet_distance(real, other + amount * noise) for amount in (0.0, 0.5, 1.0, 2.0)]
    assert worse == sorted(worse)
    collapsed = np.tile(other[:1], (200, 1)) + 1e-3 * noise
    assert frechet_distance(real, collapsed) > 10 * worse[0]


def test_constant_features():
    assert frechet_distance(np.zeros((3, 2)), np.zeros((4, 2))) == 0
    assert frechet_distance(np.zeros((3, 2)), np.ones((4, 2))) == 2
    assert isinstance(frechet_distance(np.zeros((3, 2)), np.ones((4, 2))), float)


def test_bad_input_is_refused():
    good = np.eye(4)
    with pytest.raises(ValueError, match="features_true has 4 columns and features_pred has 3"):
        frechet_distance(good, good[:, :3])
    with pytest.raises(ValueError, match="features_pred has 1 rows, and a covariance needs two"):
        frechet_distance(good, good[:1])
    bad = good.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"features_true holds NaN or infinity in row 2 .*1 of 4"):
        frechet_distance(bad, good)
    with pytest.raises(ValueError, match=r"features_pred must have shape \(n, n_features\)"):
        frechet_distance(good, good[0])
    for odd in (["a", "b"], [[1, 2], [3]]):
        with pytest.raises(ValueError, match="features_true must be a matrix of numbers.*got list"):
            frechet_distance(odd, good)
