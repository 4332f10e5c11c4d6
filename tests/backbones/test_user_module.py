"""A user's module over audio and over point clouds."""

import numpy as np
import pytest
import torch
from torch import nn
from training import accuracy_when_trained

from skmm.backbones._pointnet import PointCloudInputs
from skmm.backbones._user_module import AudioModule, PointCloudModule
from skmm.datasets import make_point_clouds


def test_audio_clips_are_padded_or_cut():
    model = AudioModule(nn.Identity(), n_samples=4)
    cells = [np.ones(2, np.float32), np.arange(6, dtype=np.float32)]
    samples = model.collate(cells)["samples"]
    assert samples.tolist() == [[1, 1, 0, 0], [0, 1, 2, 3]]
    assert model.separable
    for i, cell in enumerate(cells):
        assert torch.equal(model.collate([cell])["samples"][0], samples[i])
    assert torch.equal(model(samples=samples).pooled, samples)


def test_module_returning_tokens():
    class Frames(nn.Module):
        def forward(self, samples):
            return samples.unflatten(1, (-1, 2))

    model = AudioModule(Frames(), n_samples=6)
    model.measure(np.ones(6, np.float32))
    encoded = model(**model.collate([np.arange(6, dtype=np.float32)]))
    assert model.width == 2 and encoded.tokens.shape == (1, 3, 2)
    np.testing.assert_allclose(encoded.pooled, [[2, 3]])


def test_reconstruction_target_of_audio():
    model = AudioModule(nn.Linear(3_000, 4), n_samples=3_000)
    rng = np.random.default_rng(0)
    tensors = model.collate([rng.normal(size=3_000).astype(np.float32)])
    target = model.reconstruction_target(**tensors)
    assert target.shape == (1, 64) and torch.isfinite(target).all()


def clouds(n, seed=0, **options):
    options = {"n_points": (30, 60), "rotation": "none", "shapes": ["cube", "cone"], **options}
    X, y = make_point_clouds(n, random_state=seed, **options)
    cells = [cell.astype(np.float64) for cell in X["points"]]
    return cells, torch.from_numpy((y == "cone").astype(np.int64))


class TestPoints:
    class Flat(nn.Module):
        """Maximum over the points of a linear layer."""

        def __init__(self, n_columns):
            super().__init__()
            self.linear = nn.Linear(n_columns, 4)

        def forward(self, points):
            return torch.relu(self.linear(points)).amax(1)

    def module(self, cells, **options):
        options = {"rotation_invariant": False, "center": True, "scale": True, **options}
        inputs = PointCloudInputs(n_points=40, **options).fit(cells)
        model = PointCloudModule(self.Flat(inputs.n_columns), inputs)
        model.measure(cells[0])
        return model

    def test_clouds_have_one_size(self):
        cells = clouds(5)[0] + [np.ones((1, 3))]
        model = self.module(cells)
        (points,) = model.collate(cells).values()
        assert points.shape == (6, 40, 3) and model.width == 4
        for cell, given in zip(cells, points, strict=True):
            assert len(np.unique(given.numpy(), axis=0)) == min(len(cell), 40)
        order = [cell[::-1] for cell in cells]
        torch.testing.assert_close(model.collate(order)["0"], points)

    @pytest.mark.parametrize("rotation_invariant", [True, False])
    def test_reconstruction_target(self, rotation_invariant):
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
            > 0.85  # with a trained head only: 0.8
        )
