"""Points are chosen, placed and padded by what they are, never by their order."""

import numpy as np
import pytest
import torch

from skmm.backbones import CloudInputs
from skmm.backbones._point_clouds import pad_clouds, place, repeated, some_points


@pytest.fixture
def cloud():
    return np.random.default_rng(0).normal(size=(500, 5))


class TestSomePoints:
    @pytest.mark.parametrize("n_points", [1, 77, 500, 900])
    def test_order_does_not_matter(self, cloud, n_points):
        chosen = some_points(cloud, n_points)
        assert len(chosen) == min(n_points, 500)
        shuffled = cloud[np.random.default_rng(1).permutation(500)]
        np.testing.assert_array_equal(some_points(shuffled, n_points), chosen)
        assert {tuple(row) for row in chosen} <= {tuple(row) for row in cloud}

    def test_as_good_as_drawn(self):
        # On a regular grid a poor hash would choose planes or corners.
        axis = np.arange(20.0)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        chosen = some_points(grid, 1000)
        for column in chosen.T:
            counts = np.bincount(column.astype(int), minlength=20)
            assert 25 <= counts.min() and counts.max() <= 80  # 50, and three deviations or so
        np.testing.assert_allclose(np.cov(chosen.T), np.cov(grid.T), atol=4)

    def test_zeros_of_either_sign_are_one(self):
        cloud = np.array([[0.0, 1.0, 2.0], [3.0, -0.0, 5.0], [4.0, 4.0, 4.0]])
        other = np.where(cloud == 0, -cloud, cloud)
        for n in (1, 2):
            np.testing.assert_array_equal(some_points(cloud, n), some_points(other, n))

    def test_repeats(self, cloud):
        assert repeated(cloud[:3], 7).tolist() == [*cloud[:3].tolist() * 2, cloud[0].tolist()]
        np.testing.assert_array_equal(repeated(cloud, 10), cloud[:10])


class TestPlace:
    def test_what_is_taken_out_can_be_put_back(self, cloud):
        points, center, size = place(cloud)
        np.testing.assert_allclose(points[:, :3] * size + center, cloud[:, :3])
        np.testing.assert_array_equal(points[:, 3:], cloud[:, 3:])
        np.testing.assert_allclose(points[:, :3].mean(axis=0), 0, atol=1e-12)
        assert np.mean((points[:, :3] ** 2).sum(axis=1)) == pytest.approx(1)

    @pytest.mark.parametrize("n", [1, 4])
    def test_one_place(self, n):
        points, center, size = place(np.tile([[0.1, 1e6, 0.3, 7.0]], (n, 1)))
        assert size == 0 and not points[:, :3].any()
        np.testing.assert_allclose(center, [0.1, 1e6, 0.3])

    def test_far_from_the_origin(self, cloud):
        # Metres on a map of the earth: float32 would leave steps of half a metre.
        far = cloud.copy()
        far[:, :3] += [4e6, 5e6, 100]
        np.testing.assert_allclose(place(far).points, place(cloud).points, atol=1e-7)


def test_padding(cloud):
    points, mask = pad_clouds([cloud[:2], cloud[:4]], 5)
    assert points.shape == (2, 4, 5) and points.dtype == torch.float32
    assert mask.tolist() == [[True, True, False, False], [True] * 4]
    assert not points[~mask].any()
    assert [tuple(part.shape) for part in pad_clouds([], 5)] == [(0, 1, 5), (0, 1)]


def inputs(cells, **options):
    options = {
        "n_points": 64, "rotation_invariant": False, "center": True, "scale": True, **options
    }  # fmt: skip
    return CloudInputs(**options).fit(cells)


class TestInputs:
    @pytest.fixture
    def cells(self, cloud):
        return [size * cloud[i : i + 50] + i for i, size in ((0, 1.0), (100, 3.0), (200, 8.0))]

    def test_place_and_size_are_out(self, cells):
        taught = inputs(cells)
        for cell in cells:
            moved = cell.copy()
            moved[:, :3] = moved[:, :3] * 4 + 100
            # In another order, because the hash of each point is another one.
            a, b = (np.sort(taught.columns(c), axis=0) for c in (cell, moved))
            np.testing.assert_allclose(a, b, atol=1e-5)

    def test_or_in(self, cells):
        taught = inputs(cells, center=False, scale=False)
        columns = [taught.columns(cell) for cell in cells]
        together = np.concatenate(columns)[:, :3]
        assert np.abs(together.mean(axis=0)).max() < 1e-5  # over clouds of one length
        sizes = [place(c.astype(float)).size for c in columns]
        np.testing.assert_allclose(np.divide(sizes, sizes[0]), [1, 3, 8], rtol=0.2)
        assert np.mean(sizes) == pytest.approx(1)

    def test_features_are_standardised(self, cells):
        columns = np.concatenate([inputs(cells).columns(cell) for cell in cells])[:, 3:]
        np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(columns.std(axis=0), 1, atol=1e-6)
        constant = [np.column_stack([cell, np.full(50, 9.0)]) for cell in cells]
        assert not inputs(constant).columns(constant[0])[:, -1].any()

    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("scale", [True, False])
    def test_invariants_do_not_turn(self, cells, center, scale):
        taught = inputs(cells, rotation_invariant=True, center=center, scale=scale)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        for cell in cells:
            turned = cell.copy()
            turned[:, :3] = cell[:, :3] @ turn.T
            a, b = (taught.columns(c) for c in (cell, turned))
            assert a.shape == (50, taught.n_columns) and taught.n_columns == taught.n_geometry + 2
            a, b = (c[np.argsort(c[:, 0])] for c in (a, b))
            np.testing.assert_allclose(a, b, atol=2e-3)

    def test_target_tells_where_points_are(self):
        rng = np.random.default_rng(0)
        cell = rng.normal(size=(41, 4))
        taught = inputs([cell])
        points = torch.from_numpy(taught.columns(cell))[None]
        target = taught.reconstruction_target(points, torch.ones(1, 41, dtype=torch.bool))
        medians = target.view(5, 14)[2]  # of five quantiles; thirteen directions and a feature
        xyz = points[0, :, :3].numpy()
        for direction in ([0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 1], [1, -1, 0]):
            along = np.median(xyz @ direction) / np.linalg.norm(direction)
            assert np.abs(medians[:13].numpy() - along).min() < 1e-6
        assert medians[13] == pytest.approx(np.median(points[0, :, 3]))

    @pytest.mark.parametrize("rotation_invariant", [True, False])
    def test_target_ignores_padding(self, cells, rotation_invariant):
        taught = inputs(cells, rotation_invariant=rotation_invariant)
        short = [cell[: 10 * (i + 1)] for i, cell in enumerate(cells)]
        points, mask = pad_clouds([taught.columns(cell) for cell in short], taught.n_columns)
        together = taught.reconstruction_target(points + 9 * ~mask[..., None], mask)
        for i, cell in enumerate(short):
            alone = taught.reconstruction_target(
                points[i : i + 1, : len(cell)], mask[i : i + 1, : len(cell)]
            )
            torch.testing.assert_close(alone[0], together[i])
        assert torch.isfinite(together).all() and together.std(0).any()
