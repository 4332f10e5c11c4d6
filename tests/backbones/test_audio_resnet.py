"""The network over spectrograms: independent of the batch, and able to learn."""

import numpy as np
import pytest
import torch
from torch import nn

from skmm.backbones._audio_resnet import AudioCNN, _MaskedNorm

RATE = 16_000


@pytest.fixture
def audio_clips():
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) for n in (8_000, 16_000, 1, 8_159, 2_400)]


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AudioCNN(32).eval()


def test_clip_does_not_depend_on_its_batch(model, audio_clips):
    with torch.no_grad():
        together = model(**model.collate(audio_clips))
        assert together.tokens.shape == (*together.mask.shape, 32)
        # A token has 16 frames; a second has 101.
        assert together.mask.sum(1).tolist() == [4, 7, 1, 4, 1]
        for i, audio in enumerate(audio_clips):
            alone = model(**model.collate([audio]))
            np.testing.assert_allclose(together.pooled[i], alone.pooled[0], atol=1e-4)
            np.testing.assert_allclose(
                together.tokens[i][together.mask[i]], alone.tokens[0], atol=1e-4
            )
        # Rows of a tensor with more padding, as in a joint network.
        tensors = model.collate(audio_clips)
        rows = model(**{name: tensor[[0, 4]] for name, tensor in tensors.items()})
        np.testing.assert_allclose(rows.pooled, together.pooled[[0, 4]], atol=1e-4)


def test_norm_without_mask_equals_torch():
    x = torch.randn(3, 16, 5, 7)
    mine, torchs = _MaskedNorm(16), nn.GroupNorm(2, 16)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(mine, name).normal_()
            getattr(torchs, name).copy_(getattr(mine, name).flatten())
    mask = torch.ones(3, 7, dtype=torch.bool)
    np.testing.assert_allclose(mine(x, mask).detach(), torchs(x).detach(), atol=1e-5)
    mask[1, 4:] = False
    expected = torchs(x[1:2, ..., :4]).detach()
    np.testing.assert_allclose(mine(x, mask)[1:2, ..., :4].detach(), expected, atol=1e-5)
    assert not mine(x, mask)[1, ..., 4:].any()


def test_invariant_to_loudness(model, audio_clips):
    tensors = [model.collate([gain * audio_clips[0]])["frames"] for gain in (1.0, 0.01)]
    assert tensors[0].dtype == torch.int8
    assert (tensors[0] - tensors[1]).abs().max() <= 1


def test_absent_rows_are_finite(model, audio_clips):
    # A joint fusion passes zeros for a missing cell, and ignores the output.
    tensors = {
        name: torch.cat([t, torch.zeros_like(t[:1])])
        for name, t in model.collate(audio_clips).items()
    }
    with torch.no_grad():
        encoded = model(**tensors)
        assert torch.isfinite(encoded.pooled).all()
        empty = model(**{name: t[-1:] for name, t in tensors.items()})
        assert torch.isfinite(empty.pooled).all()


def test_every_parameter_has_a_gradient(model, audio_clips):
    model.train()
    model(**model.collate(audio_clips)).pooled.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_masking_in_training_only(model, audio_clips):
    tensors = model.collate(audio_clips[:1])
    with torch.no_grad():
        assert torch.equal(model(**tensors).pooled, model(**tensors).pooled)
        model.train()
        assert not torch.equal(model(**tensors).pooled, model(**tensors).pooled)
        model.hidden_share = 0.0
        assert torch.equal(model(**tensors).pooled, model.eval()(**tensors).pooled)


def test_reconstruction_target_is_a_coarse_spectrogram(model):
    """The loudest band of a frequency sweep rises with time, for clips of any length."""
    for n in (8_000, 30_000):
        t = np.linspace(0, 1, n)
        sweep = np.sin(2 * np.pi * np.cumsum(100 * 70**t) / RATE).astype(np.float32)
        padded = model.collate([sweep, np.ones(40_000, np.float32)])
        target = model.reconstruction_target(**padded)
        assert target.shape == (2, 64) and target.abs().max() <= 1
        loudest = target[0].reshape(8, 8).argmax(dim=1)  # (stretches, bands)
        assert (loudest.diff() >= 0).all() and loudest[0] == 0 and loudest[-1] >= 6
        alone = model.reconstruction_target(**model.collate([sweep]))
        np.testing.assert_allclose(alone[0], target[0], atol=1e-5)


@pytest.mark.parametrize("options", [{"n_components": 0}, {"n_mels": 40}])
def test_unusable_sizes(options):
    with pytest.raises(ValueError, match="AudioCNN: n_components must be positive and n_mels"):
        AudioCNN(**options)
