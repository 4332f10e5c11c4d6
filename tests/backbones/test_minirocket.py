"""MiniRocket equals its formula, and separates classes of series."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV

from skmm.backbones import _minirocket as module
from skmm.backbones._minirocket import MiniRocket


def noise(lengths, n_channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, n_channels)).astype(np.float32) for n in lengths]


def fitted(cells, seed=0, **options):
    return MiniRocket(cells[0].shape[1], **options).fit(cells, np.random.RandomState(seed))


def features(model, cells):
    with torch.no_grad():
        return model(**model.collate(cells)).pooled.numpy()


def features_by_formula(model, cell):
    """Compute the features of one series, timestamp by timestamp."""
    x = (cell - model.center.numpy()) / model.spread.numpy()
    n_timestamps = len(x)
    shares = []
    for k, places in enumerate(combinations(range(9), 3)):
        weights = [2 if j in places else -1 for j in range(9)]
        column = 0
        for d, (dilation, count) in enumerate(zip(model.dilations, model.counts, strict=True)):
            used = model.channels[d, k].numpy() == 1
            values = []
            for t in range(n_timestamps):
                taps = [t + (j - 4) * dilation for j in range(9)]
                values.append(
                    sum(
                        w * x[tap, used].sum()
                        for w, tap in zip(weights, taps, strict=True)
                        if 0 <= tap < n_timestamps
                    )
                )
            if (k + d) % 2 == 1 and n_timestamps > 8 * dilation:
                values = values[4 * dilation : -4 * dilation]
            for threshold in model.thresholds[k, column : column + count]:
                shares.append(np.mean(np.array(values) > threshold.item()))
            column += count
    return np.array(shares)


@pytest.mark.slow
def test_features_equal_the_formula():
    cells = noise([40, 35, 33, 9, 8, 1])
    model = fitted(cells, n_kernels=84 * 5)
    assert len(model.dilations) > 1 and sum(model.counts) == 5
    ours = features(model, cells)
    for row, cell in zip(ours, cells, strict=True):
        expected = features_by_formula(model, cell)
        # Rounding errors may move a value across a threshold.
        assert (np.abs(row - expected) < 1e-6).mean() > 0.999
        np.testing.assert_allclose(row, expected, atol=1.01 / len(cell))


def test_thresholds_are_quantiles_of_the_training_cell():
    # With a single training cell, a share of 1 - q of its values exceeds the q-th quantile.
    (cell,) = noise([100], n_channels=1)
    model = fitted([cell], n_kernels=84 * 6)
    quantiles = np.arange(1, model.width + 1) * (5**0.5 + 1) / 2 % 1
    shares = features(model, [cell])[0].reshape(84, 6)
    first = 0
    for d, (dilation, count) in enumerate(zip(model.dilations, model.counts, strict=True)):
        levels = quantiles[84 * first : 84 * (first + count)].reshape(84, count)
        n_values = np.where((np.arange(84) + d) % 2 == 1, 100 - 8 * dilation, 100)[:, None]
        error = np.abs(shares[:, first : first + count] - (1 - levels))
        assert (error <= 1.001 / n_values).all()
        first += count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_kernels", "length", "width", "dilations"),
    [
        (1, 100, 84, [1]),
        (84, 100, 84, [1]),
        (10_000, 100, 9996, list(range(1, 13))),
        (10_000, 1, 9996, [1]),
        (10_000, 9, 9996, [1]),
        (84 * 3, 8 * 16 + 1, 252, [1, 4, 16]),
    ],
)
def test_width_and_dilations(n_kernels, length, width, dilations):
    model = fitted(noise([length], n_channels=1), n_kernels=n_kernels)
    assert model.width == width == features(model, noise([length], 1)).shape[1]
    assert model.dilations == dilations
    assert sum(model.counts) == width // 84 and min(model.counts) >= 1


def test_dilations_depend_on_the_median_length():
    cells = noise([8 * 16 + 1] * 3 + [8000], n_channels=1)
    assert fitted(cells, n_kernels=84 * 3).dilations == [1, 4, 16]


@pytest.mark.slow
def test_each_kernel_uses_a_few_channels():
    model = fitted(noise([60] * 4, n_channels=20), n_kernels=84 * 8)
    n_used = model.channels.sum(dim=2)
    assert n_used.min() == 1 and 4 < n_used.max() <= 9
    assert model.channels.sum(dim=(0, 1)).min() > 0  # every channel is used
    assert fitted(noise([60], n_channels=1), n_kernels=84).channels.all()


@pytest.mark.slow
def test_same_seed_same_features():
    cells = noise([50, 40, 30])
    first = features(fitted(cells, n_kernels=168), cells)
    np.testing.assert_array_equal(features(fitted(cells, n_kernels=168), cells), first)
    assert (features(fitted(cells, seed=1, n_kernels=168), cells) != first).any()


def test_long_series_are_processed_in_parts(monkeypatch):
    cells = noise([300, 77, 5])
    model = fitted(cells, n_kernels=84 * 4)
    whole = features(model, cells)
    monkeypatch.setattr(module, "_AT_ONCE", 84 * 50)
    np.testing.assert_allclose(features(model, cells), whole, atol=1e-6)


def test_constant_series_does_not_exceed_thresholds():
    rng = np.random.default_rng(0)
    cells = [np.full((50, 1), v, np.float32) for v in rng.normal(size=20)]
    model = fitted(cells, n_kernels=84 * 4)
    # Kernels sum to zero, so a constant series gives zeros, and so are the thresholds.
    inside = np.arange(84) % 2 == 1  # of the first dilation
    shares = features(model, cells).reshape(20, 84, 4)[:, inside, : model.counts[0]]
    assert not shares.any()


@pytest.mark.slow
def test_classifies_bursts_by_duration():
    # Bursts of equal energy in noise, of two durations.
    rng = np.random.default_rng(0)
    cells, label = [], rng.integers(0, 2, 120)
    for y in label:
        cell = 0.3 * rng.normal(size=rng.integers(80, 120))
        width = 12 if y else 4
        start = rng.integers(0, len(cell) - width)
        cell[start : start + width] += np.sqrt(12 / width)
        cells.append(cell.astype(np.float32)[:, None])
    model = fitted(cells[:60], n_kernels=2000)
    X = features(model, cells)
    classifier = RidgeClassifierCV(np.logspace(-3, 3, 7)).fit(X[:60], label[:60])
    assert classifier.score(X[60:], label[60:]) > 0.9
