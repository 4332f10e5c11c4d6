"""PointNet learns shapes and is invariant to order, padding and batch; its inputs and alignment."""

import pickle

import numpy as np
import pytest
import torch
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones._point_clouds import pad_clouds, place
from skmm.backbones._pointnet import AlignmentNet, PointCloudInputs, PointNet, _from_orthogonal
from skmm.datasets import make_point_clouds


def clouds(n, seed=0, **options):
    options = {"n_points": (30, 60), "rotation": "none", "shapes": ["cube", "cone"], **options}
    X, y = make_point_clouds(n, random_state=seed, **options)
    cells = [cell.astype(np.float64) for cell in X["points"]]
    return cells, torch.from_numpy((y == "cone").astype(np.int64))


def network(cells, *, n_components=16, n_points=40, **options):
    options = {"rotation_invariant": False, "center": True, "scale": True, **options}
    inputs = PointCloudInputs(n_points=n_points, **options).fit(cells)
    return PointNet(inputs, n_components=n_components)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return perturbed(network(clouds(20)[0]))


def perturbed(model):
    """Add noise to all weights, so that none is the identity or zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.slow
def test_learns_shapes():
    torch.manual_seed(0)
    train, test = clouds(160), clouds(100, seed=1)
    model = network(train[0])
    assert accuracy_when_trained(model, train, test, steps=30, learning_rate=1e-3) > 0.9


@pytest.mark.slow
def test_learns_rotated_shapes():
    torch.manual_seed(0)
    options = {"rotation": "any", "shapes": ["sphere", "cone"]}
    train, test = clouds(160, **options), clouds(100, seed=1, **options)
    model = network(train[0], rotation_invariant=True)
    assert accuracy_when_trained(model, train, test, steps=50, learning_rate=1e-3) > 0.75


@pytest.mark.slow
def test_learns_to_reconstruct():
    torch.manual_seed(0)
    cells = clouds(250, stretch=1.5, shapes=["cube", "cone", "torus"])[0]
    model = network(cells, n_components=32, n_points=24)
    unexplained = unexplained_when_trained(
        model, cells[:200], cells[200:], steps=70, learning_rate=2e-3
    )
    assert unexplained < 0.65  # with a trained decoder only: 0.9


@pytest.mark.parametrize("rotation_invariant", [True, False])
def test_invariant_to_order_and_padding(rotation_invariant):
    torch.manual_seed(0)
    cells = clouds(6)[0] + [np.zeros((1, 3))]
    model = perturbed(network(cells, rotation_invariant=rotation_invariant))
    tensors = model.collate(cells)
    tokens, mask, pooled = model(**tensors)
    points, n = tensors["points"], tensors["mask"].sum(1)
    longer = torch.cat([points, torch.full_like(points, 1e6)], dim=1)
    longer[:, : points.shape[1]][~mask] = torch.nan
    its_mask = torch.cat([mask, torch.zeros_like(mask)], dim=1)
    torch.testing.assert_close(model(points=longer, mask=its_mask).pooled, pooled)
    order = torch.randperm(points.shape[1])
    torch.testing.assert_close(model(points=points[:, order], mask=mask[:, order]).pooled, pooled)
    for i, cell in enumerate(cells):
        alone = model(**model.collate([cell[::-1]]))
        torch.testing.assert_close(alone.pooled[0], pooled[i], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.tokens[0], tokens[i, : n[i]], atol=1e-5, rtol=1e-4)


def test_cloud_does_not_depend_on_its_batch_in_training(model):
    tensors = model.train().collate(clouds(4)[0])
    together = model(**tensors).pooled
    alone = [model(**{k: t[i : i + 1] for k, t in tensors.items()}).pooled for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_tokens_are_points(model):
    cells = clouds(3)[0]
    tokens, mask, pooled = model(**model.collate(cells))
    assert tokens.shape == (3, 40, 16)
    assert mask.sum(1).tolist() == [min(len(cell), 40) for cell in cells]
    torch.testing.assert_close(pooled[0], tokens[0][mask[0]].amax(0))


def test_many_clouds_are_encoded_in_chunks(model):
    tensors = model.collate([cell[:5] for cell in clouds(150)[0]])
    expected = model(**tensors)  # with gradients, so in one chunk
    with torch.inference_mode():
        for part, whole in zip(model(**tensors), expected, strict=True):
            torch.testing.assert_close(part, whole)


def test_no_clouds_and_no_points(model):
    encoded = model(**model.collate([]))
    assert encoded.pooled.shape == (0, 16)
    empty = model(points=torch.zeros(2, 3, 3), mask=torch.zeros(2, 3, dtype=torch.bool))
    assert not empty.pooled.any()


class TestAlignment:
    def test_starts_as_the_identity(self):
        torch.manual_seed(0)
        cells = clouds(4)[0]
        model = network(cells)
        tensors = model.collate(cells)
        transform = model.align_points(tensors["points"], tensors["mask"])
        torch.testing.assert_close(transform, torch.eye(3).expand(4, 3, 3))

    def test_transform_is_applied_to_coordinates(self, model):
        # A network whose transform is a rotation equals the identity on rotated clouds.
        torch.manual_seed(0)
        tensors = model.collate(clouds(3)[0])
        turn = torch.linalg.qr(torch.randn(3, 3)).Q
        with torch.no_grad():
            model.align_points.transform.weight.zero_()
            model.align_points.transform.bias.copy_(turn.flatten())
            aligned = model(**tensors).pooled
            model.align_points.transform.bias.copy_(torch.eye(3).flatten())
            given = model(points=tensors["points"] @ turn, mask=tensors["mask"]).pooled
        torch.testing.assert_close(aligned, given, atol=1e-5, rtol=1e-4)

    def test_penalty_is_the_distance_from_orthogonal(self):
        torch.manual_seed(0)
        turn = torch.linalg.qr(torch.randn(5, 5)).Q
        assert _from_orthogonal(turn[None]) < 1e-9
        assert _from_orthogonal(torch.stack([turn, 2 * turn])) == pytest.approx(0.5 * 9 * 5)

    def test_penalty_is_added_to_the_gradient(self, model):
        tensors = model.collate(clouds(3)[0])
        x = model.first(model_points(model, tensors))
        penalty = 1e-3 * _from_orthogonal(model.align_features(x, tensors["mask"]))
        weight = model.align_features.transform.weight
        (expected,) = torch.autograd.grad(penalty, weight)
        gradients = {}
        for training in (True, False):
            pooled = model.train(training)(**tensors).pooled
            (gradients[training],) = torch.autograd.grad(pooled.square().mean(), weight)
        torch.testing.assert_close(
            gradients[True] - gradients[False], expected, atol=1e-6, rtol=1e-3
        )
        assert expected.abs().max() > 1e-4

    def test_training_keeps_the_transform_orthogonal(self):
        torch.manual_seed(0)
        net = AlignmentNet(3, 8)
        with torch.no_grad():
            net.transform.bias.mul_(2.0)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        points, mask = torch.randn(4, 10, 3), torch.ones(4, 10, dtype=torch.bool)
        for _ in range(100):
            optimizer.zero_grad()
            _from_orthogonal(net(points, mask)).backward()
            optimizer.step()
        assert _from_orthogonal(net(points, mask)) < 0.3  # 27 before training

    def test_rotation_invariant_inputs_have_none(self):
        cells = clouds(3)[0]
        assert network(cells, rotation_invariant=True).align_points is None


def model_points(model, tensors):
    points = tensors["points"]
    return points @ model.align_points(points, tensors["mask"])


def test_features_change_the_vector(model):
    torch.manual_seed(0)
    cells = clouds(6, features=["intensity"])[0]
    model = perturbed(network(cells))
    darker = [cell * [1, 1, 1, 0.5] for cell in cells]
    # Few points, so that none is left out.
    cells, darker = ([cell[:20] for cell in part] for part in (cells, darker))
    a, b = (model(**model.collate(part)).pooled for part in (cells, darker))
    assert not torch.allclose(a, b, atol=1e-2)


def test_seed_state_dict_and_pickle():
    cells = clouds(5)[0]
    torch.manual_seed(0)
    model = network(cells).eval()
    torch.manual_seed(0)
    again = network(cells)
    copied = network(cells)
    copied.load_state_dict(model.state_dict())
    tensors = model.collate(cells)
    expected = model(**tensors).pooled
    for other in (again, copied, pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.eval()(**tensors).pooled, expected)


def inputs(cells, **options):
    options = {
        "n_points": 64, "rotation_invariant": False, "center": True, "scale": True, **options
    }  # fmt: skip
    return PointCloudInputs(**options).fit(cells)


class TestInputs:
    @pytest.fixture
    def cells(self):
        cloud = np.random.default_rng(0).normal(size=(500, 5))
        return [size * cloud[i : i + 50] + i for i, size in ((0, 1.0), (100, 3.0), (200, 8.0))]

    def test_position_and_size_are_removed(self, cells):
        fitted = inputs(cells)
        for cell in cells:
            moved = cell.copy()
            moved[:, :3] = moved[:, :3] * 4 + 100
            # Sorted, because the order of the points depends on their hashes.
            a, b = (np.sort(fitted.columns(c), axis=0) for c in (cell, moved))
            np.testing.assert_allclose(a, b, atol=1e-5)

    def test_position_and_size_are_kept(self, cells):
        fitted = inputs(cells, center=False, scale=False)
        columns = [fitted.columns(cell) for cell in cells]
        together = np.concatenate(columns)[:, :3]
        assert np.abs(together.mean(axis=0)).max() < 1e-5  # over clouds of one length
        sizes = [place(c.astype(float)).size for c in columns]
        np.testing.assert_allclose(np.divide(sizes, sizes[0]), [1, 3, 8], rtol=0.2)
        assert np.mean(sizes) == pytest.approx(1)

    def test_features_are_standardized(self, cells):
        columns = np.concatenate([inputs(cells).columns(cell) for cell in cells])[:, 3:]
        np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(columns.std(axis=0), 1, atol=1e-6)
        constant = [np.column_stack([cell, np.full(50, 9.0)]) for cell in cells]
        assert not inputs(constant).columns(constant[0])[:, -1].any()

    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("scale", [True, False])
    def test_invariant_to_rotation(self, cells, center, scale):
        fitted = inputs(cells, rotation_invariant=True, center=center, scale=scale)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        for cell in cells:
            turned = cell.copy()
            turned[:, :3] = cell[:, :3] @ turn.T
            a, b = (fitted.columns(c) for c in (cell, turned))
            assert a.shape == (50, fitted.n_columns) and fitted.n_columns == fitted.n_geometry + 2
            a, b = (c[np.argsort(c[:, 0])] for c in (a, b))
            np.testing.assert_allclose(a, b, atol=2e-3)

    def test_target_has_quantiles_along_directions(self):
        rng = np.random.default_rng(0)
        cell = rng.normal(size=(41, 4))
        fitted = inputs([cell])
        points = torch.from_numpy(fitted.columns(cell))[None]
        target = fitted.reconstruction_target(points, torch.ones(1, 41, dtype=torch.bool))
        medians = target.view(5, 14)[2]  # of five quantiles; thirteen directions and a feature
        xyz = points[0, :, :3].numpy()
        for direction in ([0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 1], [1, -1, 0]):
            along = np.median(xyz @ direction) / np.linalg.norm(direction)
            assert np.abs(medians[:13].numpy() - along).min() < 1e-6
        assert medians[13] == pytest.approx(np.median(points[0, :, 3]))

    @pytest.mark.parametrize("rotation_invariant", [True, False])
    def test_target_ignores_padding(self, cells, rotation_invariant):
        fitted = inputs(cells, rotation_invariant=rotation_invariant)
        short = [cell[: 10 * (i + 1)] for i, cell in enumerate(cells)]
        points, mask = pad_clouds([fitted.columns(cell) for cell in short], fitted.n_columns)
        together = fitted.reconstruction_target(points + 9 * ~mask[..., None], mask)
        for i, cell in enumerate(short):
            alone = fitted.reconstruction_target(
                points[i : i + 1, : len(cell)], mask[i : i + 1, : len(cell)]
            )
            torch.testing.assert_close(alone[0], together[i])
        assert torch.isfinite(together).all() and together.std(0).any()
