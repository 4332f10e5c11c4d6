"""Sampling, centering, scaling and padding of point clouds do not depend on the points' order."""

import numpy as np
import pytest
import torch

from skmm.backbones._point_clouds import pad_clouds, place, repeat_points, sample_points


@pytest.fixture
def cloud():
    return np.random.default_rng(0).normal(size=(500, 5))


class TestSomePoints:
    @pytest.mark.parametrize("n_points", [1, 77, 500, 900])
    def test_invariant_to_order(self, cloud, n_points):
        chosen = sample_points(cloud, n_points)
        assert len(chosen) == min(n_points, 500)
        shuffled = cloud[np.random.default_rng(1).permutation(500)]
        np.testing.assert_array_equal(sample_points(shuffled, n_points), chosen)
        assert {tuple(row) for row in chosen} <= {tuple(row) for row in cloud}

    def test_sample_is_uniform(self):
        # On a regular grid a poor hash would sample planes or corners.
        axis = np.arange(20.0)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        chosen = sample_points(grid, 1000)
        for column in chosen.T:
            counts = np.bincount(column.astype(int), minlength=20)
            assert 25 <= counts.min() and counts.max() <= 80  # mean 50, deviation about 7
        np.testing.assert_allclose(np.cov(chosen.T), np.cov(grid.T), atol=4)

    def test_zeros_of_both_signs_are_equal(self):
        cloud = np.array([[0.0, 1.0, 2.0], [3.0, -0.0, 5.0], [4.0, 4.0, 4.0]])
        other = np.where(cloud == 0, -cloud, cloud)
        for n in (1, 2):
            np.testing.assert_array_equal(sample_points(cloud, n), sample_points(other, n))

    def test_points_are_repeated(self, cloud):
        assert repeat_points(cloud[:3], 7).tolist() == [*cloud[:3].tolist() * 2, cloud[0].tolist()]
        np.testing.assert_array_equal(repeat_points(cloud, 10), cloud[:10])


class TestPlace:
    def test_placement_is_invertible(self, cloud):
        points, center, size = place(cloud)
        np.testing.assert_allclose(points[:, :3] * size + center, cloud[:, :3])
        np.testing.assert_array_equal(points[:, 3:], cloud[:, 3:])
        np.testing.assert_allclose(points[:, :3].mean(axis=0), 0, atol=1e-12)
        assert np.mean((points[:, :3] ** 2).sum(axis=1)) == pytest.approx(1)

    @pytest.mark.parametrize("n", [1, 4])
    def test_equal_points(self, n):
        points, center, size = place(np.tile([[0.1, 1e6, 0.3, 7.0]], (n, 1)))
        assert size == 0 and not points[:, :3].any()
        np.testing.assert_allclose(center, [0.1, 1e6, 0.3])

    def test_far_from_the_origin(self, cloud):
        # Geocentric coordinates in meters: the resolution of float32 would be half a meter.
        far = cloud.copy()
        far[:, :3] += [4e6, 5e6, 100]
        np.testing.assert_allclose(place(far).points, place(cloud).points, atol=1e-7)


def test_padding(cloud):
    points, mask = pad_clouds([cloud[:2], cloud[:4]], 5)
    assert points.shape == (2, 4, 5) and points.dtype == torch.float32
    assert mask.tolist() == [[True, True, False, False], [True] * 4]
    assert not points[~mask].any()
    assert [tuple(part.shape) for part in pad_clouds([], 5)] == [(0, 1, 5), (0, 1)]
