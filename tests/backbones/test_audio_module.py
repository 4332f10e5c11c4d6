"""A user's module over samples."""

import numpy as np
import torch
from torch import nn

from skmm.backbones import SoundModule


def test_every_sound_is_of_one_length():
    model = SoundModule(nn.Identity(), n_samples=4)
    cells = [np.ones(2, np.float32), np.arange(6, dtype=np.float32)]
    samples = model.collate(cells)["samples"]
    assert samples.tolist() == [[1, 1, 0, 0], [0, 1, 2, 3]]
    assert model.separable
    for i, cell in enumerate(cells):
        assert torch.equal(model.collate([cell])["samples"][0], samples[i])
    assert torch.equal(model(samples=samples).pooled, samples)


def test_tokens():
    class Frames(nn.Module):
        def forward(self, samples):
            return samples.unflatten(1, (-1, 2))

    model = SoundModule(Frames(), n_samples=6)
    model.measure(np.ones(6, np.float32))
    encoded = model(**model.collate([np.arange(6, dtype=np.float32)]))
    assert model.width == 2 and encoded.tokens.shape == (1, 3, 2)
    np.testing.assert_allclose(encoded.pooled, [[2, 3]])


def test_reconstruction_target_is_small():
    model = SoundModule(nn.Linear(3_000, 4), n_samples=3_000)
    rng = np.random.default_rng(0)
    tensors = model.collate([rng.normal(size=3_000).astype(np.float32)])
    target = model.reconstruction_target(**tensors)
    assert target.shape == (1, 64) and torch.isfinite(target).all()
