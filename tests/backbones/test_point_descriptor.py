"""The descriptor of known geometries, and its invariances."""

import numpy as np
import pytest
import torch

from skmm.backbones._point_descriptor import (
    SCALES,
    PointDescriptor,
    _distance_histogram,
    _quantiles,
    local_geometry,
    squared_distances,
)


def surface(kind, n=600, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (n, 3))
    if kind == "plane":
        points[:, 2] = 0
    elif kind == "line":
        points[:, 1:] = 0
    elif kind == "sphere":
        points = rng.normal(size=(n, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def geometry(points):
    xyz = torch.tensor(points - points.mean(0), dtype=torch.float32)
    xyz = xyz / xyz.square().sum(1).mean().sqrt().clamp(min=1e-9)
    return local_geometry(xyz, squared_distances(xyz))


def turned(points, seed=1):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turn[:, 0] *= np.linalg.det(turn)
    out = points.copy()
    out[:, :3] = points[:, :3] @ turn.T
    return out


def describe(model, cells):
    return model(**model.collate(cells)).pooled.numpy()


class TestLocalGeometry:
    @pytest.mark.parametrize(
        ("kind", "column"), [("line", "linearity"), ("plane", "planarity"), ("solid", "sphericity")]
    )
    def test_dimension_of_the_neighborhood(self, kind, column):
        features, _ = geometry(surface(kind, 2000))
        linearity, planarity, sphericity = features[:, 1, :3].median(dim=0).values.tolist()
        value = {"linearity": linearity, "planarity": planarity, "sphericity": sphericity}
        if kind == "line":
            assert linearity > 0.9
        elif kind == "plane":
            assert planarity > 0.7 and sphericity < 1e-5
        else:
            assert sphericity > 0.5
        assert max(value, key=value.get) == column

    def test_equals_the_definition(self):
        points = surface("sphere", 40)
        features, covariances = geometry(points)
        points = points - points.mean(0)
        points /= np.sqrt((points**2).sum(1).mean())
        for s, scale in enumerate(SCALES):
            for i in (0, 7):
                offsets = points - points[i]
                weights = np.exp(-0.5 * (offsets**2).sum(1) / scale**2)
                mean = np.average(points, axis=0, weights=weights)
                covariance = np.cov(points.T, aweights=weights, bias=True) / scale**2
                small, middle, large = np.linalg.eigvalsh(covariance)
                inward = (mean - points[i]) @ -points[i] / np.linalg.norm(points[i])
                expected = [
                    (large - middle) / (large + 0.01),
                    (middle - small) / (large + 0.01),
                    small / (large + 0.01),
                    np.linalg.norm(mean - points[i]) / scale,
                    inward / scale,
                    (weights.sum() - 1) / 39,
                ]
                np.testing.assert_allclose(features[i, s], expected, atol=2e-3)
                own = covariance[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] / (
                    np.trace(covariance) + 0.01
                )
                np.testing.assert_allclose(covariances[i, s], own, atol=2e-3)

    def test_neighbors_on_a_sphere_are_inward(self):
        features, _ = geometry(surface("sphere", 2000))
        assert (features[:, 2, 4] > 0).all()

    def test_equal_points(self):
        for n in (1, 3):
            features, covariances = geometry(np.ones((n, 3)))
            assert torch.isfinite(features).all() and not covariances.any()
            assert not features[..., :5].any()


class TestParts:
    def test_quantiles_equal_numpy(self):
        columns = torch.randn(23, 4)
        shares = (0.0, 0.1, 0.5, 0.9, 1.0)
        expected = np.quantile(columns.numpy(), shares, axis=0).ravel()
        np.testing.assert_allclose(_quantiles(columns, shares), expected, atol=1e-6)

    def test_histogram_of_distances(self):
        xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0]])
        histogram = _distance_histogram(squared_distances(xyz))
        assert histogram.sum() == pytest.approx(1)
        assert histogram[0] == pytest.approx(1 / 3)  # of three pairs one is at a distance of 0
        # 1.0 is halfway between the centers 0.9 and 1.1.
        torch.testing.assert_close(histogram[4:6], torch.tensor([1 / 3, 1 / 3]))
        uniform = _distance_histogram(squared_distances(torch.tensor(surface("sphere")).float()))
        centers = (np.arange(10) + 0.5) * 0.2
        # The distance d of two points of a sphere has the density d / 2.
        np.testing.assert_allclose(uniform[:9], 0.1 * centers[:9], atol=0.002)
        # The maximum is 2; the last bin shares its pairs with the next one.
        assert uniform[9:11].sum() == pytest.approx(0.19, abs=0.002) and not uniform[11:].any()

    def test_histogram_is_continuous(self):
        edge = torch.tensor([[0.0, 0, 0], [0.6, 0, 0]])
        low, high = (_distance_histogram(squared_distances(edge * f)) for f in (1 - 1e-6, 1 + 1e-6))
        torch.testing.assert_close(low, high, atol=1e-4, rtol=0)


CASES = [
    {"rotation_invariant": inv, "center": center, "scale": scale}
    for inv in (True, False)
    for center in (True, False)
    for scale in (True, False)
]


class TestDescriptor:
    @pytest.mark.parametrize("options", CASES)
    def test_width_and_tokens(self, options):
        model = PointDescriptor(2, **options)
        cells = [np.random.default_rng(n).normal(size=(n, 5)) for n in (1, 2, 40)]
        tokens, mask, pooled = model(**model.collate(cells))
        assert pooled.shape == (3, model.width) and torch.isfinite(pooled).all()
        assert tokens.shape == (3, 1, model.width) and mask.all()
        assert torch.equal(tokens[:, 0], pooled)
        assert model(**model.collate([])).pooled.shape == (0, model.width)

    @pytest.mark.parametrize("options", CASES)
    def test_invariant_to_order_and_batch(self, options):
        model = PointDescriptor(1, n_points=100, **options)
        rng = np.random.default_rng(0)
        cells = [rng.normal(size=(n, 4)) for n in (300, 30, 7, 1)]
        together = describe(model, cells)
        for i, cell in enumerate(cells):
            np.testing.assert_array_equal(describe(model, [cell])[0], together[i])
            np.testing.assert_array_equal(describe(model, [rng.permutation(cell)])[0], together[i])

    @pytest.mark.parametrize("options", CASES)
    def test_invariances_to_position_size_and_rotation(self, options):
        model = PointDescriptor(1, **options)
        cell = np.column_stack([surface("solid", 200), np.arange(200.0)])
        cell[:, 2] *= 0.3
        far = cell.copy()
        far[:, :3] += [5, 0, -3]
        for other, is_invariant in [
            (far, model.center),
            (cell * [3, 3, 3, 1], model.scale and model.center),
            (turned(cell), model.rotation_invariant),
        ]:
            a, b = describe(model, [cell, other])
            assert np.allclose(a, b, atol=1e-3 * np.abs(a).max().clip(max=1)) == is_invariant

    def test_features_are_summarized(self):
        model = PointDescriptor(1, rotation_invariant=True)
        cell = np.column_stack([surface("solid", 101), np.arange(101.0)])
        own = describe(model, [cell])[0, -5:]
        np.testing.assert_allclose(own, [50, np.arange(101).std(), 10, 50, 90], rtol=1e-5)

    def test_sample_of_points_represents_the_cloud(self):
        cells = [surface("solid", 4000, seed) for seed in range(6)]
        cells += [surface("sphere", 4000, seed) for seed in range(6)]
        few, many = (describe(PointDescriptor(n_points=n), cells) for n in (250, 1000))
        within = np.linalg.norm(few - many, axis=1).mean()
        between = np.linalg.norm(many[:6].mean(0) - many[6:].mean(0))
        assert within < 0.5 * between

    def test_has_no_parameters(self):
        model = PointDescriptor()
        assert not list(model.parameters()) and not list(model.buffers())
