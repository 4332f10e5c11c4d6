"""Cepstral coefficients: against the textbook, and one cell at a time."""

import numpy as np
import pytest
import scipy.fft
import torch

from skmm.backbones import MFCC
from skmm.backbones._spectrogram import log_mel, mel_spectrogram

RATE = 16_000


@pytest.fixture
def sounds():
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) for n in (8_000, 3_333, 1, 8_000)]


def test_against_scipy(sounds):
    encoded = MFCC("mean")(**MFCC("mean").collate(sounds[:1]))
    power = mel_spectrogram(torch.from_numpy(sounds[0]), n_mels=40, pad_mode="reflect")
    level = 10 * log_mel(power).numpy()
    cepstrum = scipy.fft.dct(level, axis=0, norm="ortho")[:20]
    np.testing.assert_allclose(encoded.tokens[0, :, :20], cepstrum.T, atol=1e-3)
    padded = np.pad(cepstrum, ((0, 0), (2, 2)), mode="edge")
    slopes = sum(k * padded[:, 2 + k : 2 + k + cepstrum.shape[1]] for k in (-2, -1, 1, 2)) / 10
    np.testing.assert_allclose(encoded.tokens[0, :, 20:40], slopes.T, atol=1e-3)
    np.testing.assert_allclose(encoded.pooled[0], encoded.tokens[0].mean(0), atol=1e-4)


@pytest.mark.parametrize("pooling", ["statistics", "mean", "max"])
def test_a_batch_never_changes_a_cell(pooling, sounds):
    model = MFCC(pooling)
    together = model(**model.collate(sounds))
    assert together.mask.sum(dim=1).tolist() == [51, 21, 2, 51]
    assert together.pooled.shape == (4, model.width)
    for i, sound in enumerate(sounds):
        alone = model(**model.collate([sound]))
        np.testing.assert_allclose(together.pooled[i], alone.pooled[0], atol=1e-4)
        np.testing.assert_allclose(together.tokens[i][together.mask[i]], alone.tokens[0], atol=1e-4)


def test_statistics_and_tokens(sounds):
    frames = MFCC("mean")(**MFCC("mean").collate(sounds[:1])).tokens[0]
    encoded = MFCC()(**MFCC().collate(sounds[:1]))
    expected = torch.cat([frames.mean(0), frames.std(0, unbiased=False)])
    np.testing.assert_allclose(encoded.pooled[0], expected, atol=1e-3)
    apart = (frames - frames.mean(0)).abs()
    np.testing.assert_allclose(encoded.tokens[0], torch.cat([frames, apart], 1), atol=1e-3)


def test_loudness_is_in_one_coefficient_alone(sounds):
    model = MFCC("mean")
    loud, soft = model(**model.collate([sounds[0], 0.01 * sounds[0]])).pooled
    np.testing.assert_allclose(loud[0] - soft[0], 40 * 40**0.5, rtol=1e-3)  # 40 dB in 40 bands
    np.testing.assert_allclose(loud[1:], soft[1:], atol=1e-2)


def test_silence_is_finite():
    model = MFCC()
    assert torch.isfinite(model(**model.collate([np.zeros(5_000, np.float32)])).pooled).all()


def test_unknown_pooling():
    with pytest.raises(ValueError, match="MFCC: pooling must be"):
        MFCC("last")
