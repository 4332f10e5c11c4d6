"""PointNet learns shapes, and knows no order of points, no padding and no neighbours in a batch."""

import pickle

import numpy as np
import pytest
import torch
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones import CloudInputs, PointModule, PointNet
from skmm.backbones._pointnet import AlignmentNet, _from_orthogonal
from skmm.datasets import make_point_clouds


def clouds(n, seed=0, **options):
    options = {"n_points": (30, 60), "rotation": "none", "shapes": ["cube", "cone"], **options}
    X, y = make_point_clouds(n, random_state=seed, **options)
    cells = [cell.astype(np.float64) for cell in X["points"]]
    return cells, torch.from_numpy((y == "cone").astype(np.int64))


def network(cells, *, n_components=16, n_points=40, **options):
    options = {"rotation_invariant": False, "center": True, "scale": True, **options}
    inputs = CloudInputs(n_points=n_points, **options).fit(cells)
    return PointNet(inputs, n_components=n_components)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return moved(network(clouds(20)[0]))


def moved(model):
    """Weights at which nothing is the identity or zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def test_learns_shapes():
    torch.manual_seed(0)
    train, test = clouds(160), clouds(100, seed=1)
    model = network(train[0])
    assert accuracy_when_trained(model, train, test, steps=30, learning_rate=1e-3) > 0.9


def test_learns_shapes_that_are_turned():
    torch.manual_seed(0)
    options = {"rotation": "any", "shapes": ["sphere", "cone"]}
    train, test = clouds(160, **options), clouds(100, seed=1, **options)
    model = network(train[0], rotation_invariant=True)
    assert accuracy_when_trained(model, train, test, steps=50, learning_rate=1e-3) > 0.75


def test_learns_to_reconstruct():
    torch.manual_seed(0)
    cells = clouds(250, stretch=1.5, shapes=["cube", "cone", "torus"])[0]
    model = network(cells, n_components=32, n_points=24)
    unexplained = unexplained_when_trained(
        model, cells[:200], cells[200:], steps=70, learning_rate=2e-3
    )
    assert unexplained < 0.65  # under a decoder alone: 0.9


@pytest.mark.parametrize("rotation_invariant", [True, False])
def test_order_and_padding_do_not_matter(rotation_invariant):
    torch.manual_seed(0)
    cells = clouds(6)[0] + [np.zeros((1, 3))]
    model = moved(network(cells, rotation_invariant=rotation_invariant))
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


def test_a_cloud_does_not_depend_on_its_batch_in_training(model):
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


def test_many_clouds_at_once(model):
    tensors = model.collate([cell[:5] for cell in clouds(150)[0]])
    expected = model(**tensors)  # with gradients, so in one piece
    with torch.inference_mode():
        for part, whole in zip(model(**tensors), expected, strict=True):
            torch.testing.assert_close(part, whole)


def test_nothing(model):
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
        for net, points in ((model.align_points, tensors["points"]),):
            transform = net(points, tensors["mask"])
            torch.testing.assert_close(transform, torch.eye(3).expand(4, 3, 3))

    def test_is_applied_to_the_coordinates(self, model):
        # A network that is told to turn sees what one sees that is given the turned cloud.
        torch.manual_seed(0)
        tensors = model.collate(clouds(3)[0])
        turn = torch.linalg.qr(torch.randn(3, 3)).Q
        with torch.no_grad():
            model.align_points.transform.weight.zero_()
            model.align_points.transform.bias.copy_(turn.flatten())
            told = model(**tensors).pooled
            model.align_points.transform.bias.copy_(torch.eye(3).flatten())
            given = model(points=tensors["points"] @ turn, mask=tensors["mask"]).pooled
        torch.testing.assert_close(told, given, atol=1e-5, rtol=1e-4)

    def test_penalty_is_the_distance_from_orthogonal(self):
        torch.manual_seed(0)
        turn = torch.linalg.qr(torch.randn(5, 5)).Q
        assert _from_orthogonal(turn[None]) < 1e-9
        assert _from_orthogonal(torch.stack([turn, 2 * turn])) == pytest.approx(0.5 * 9 * 5)

    def test_penalty_enters_with_the_gradient(self, model):
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
        assert _from_orthogonal(net(points, mask)) < 0.3  # it began at 27

    def test_invariants_need_none(self):
        cells = clouds(3)[0]
        assert network(cells, rotation_invariant=True).align_points is None


def model_points(model, tensors):
    points = tensors["points"]
    return points @ model.align_points(points, tensors["mask"])


def test_features_count(model):
    torch.manual_seed(0)
    cells = clouds(6, features=["intensity"])[0]
    model = moved(network(cells))
    darker = [cell * [1, 1, 1, 0.5] for cell in cells]
    # The same points are chosen where there are few enough.
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


class TestModule:
    class Flat(torch.nn.Module):
        """Mean over points of a linear map."""

        def __init__(self, n_columns):
            super().__init__()
            self.linear = torch.nn.Linear(n_columns, 4)

        def forward(self, points):
            return torch.relu(self.linear(points)).amax(1)

    def module(self, cells, **options):
        options = {"rotation_invariant": False, "center": True, "scale": True, **options}
        inputs = CloudInputs(n_points=40, **options).fit(cells)
        model = PointModule(self.Flat(inputs.n_columns), inputs)
        model.measure(cells[0])
        return model

    def test_sees_clouds_of_one_size(self):
        cells = clouds(5)[0] + [np.ones((1, 3))]
        model = self.module(cells)
        (points,) = model.collate(cells).values()
        assert points.shape == (6, 40, 3) and model.width == 4
        for cell, given in zip(cells, points, strict=True):
            assert len(np.unique(given.numpy(), axis=0)) == min(len(cell), 40)
        order = [cell[::-1] for cell in cells]
        torch.testing.assert_close(model.collate(order)["0"], points)

    @pytest.mark.parametrize("rotation_invariant", [True, False])
    def test_target(self, rotation_invariant):
        cells = clouds(5)[0]
        model = self.module(cells, rotation_invariant=rotation_invariant)
        target = model.reconstruction_target(**model.collate(cells))
        assert len(target) == 5 and torch.isfinite(target).all() and target.std(0).any()

    def test_learns(self):
        torch.manual_seed(0)
        shapes = ["sphere", "cone"]
        train, test = clouds(200, shapes=shapes), clouds(100, seed=1, shapes=shapes)
        assert (
            accuracy_when_trained(self.module(train[0]), train, test, steps=300, learning_rate=0.03)
            > 0.85  # under a head alone: 0.8
        )
