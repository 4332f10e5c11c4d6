"""Spectrograms and cepstral coefficients equal independent computations of single cells."""

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch

from skmm.backbones._spectrogram import (
    MFCC,
    dct_matrix,
    delta,
    log_mel,
    mel_filters,
    mel_spectrogram,
)

RATE = 16_000


def hertz_of(mel):
    """Convert a number on Slaney's mel scale to Hz by the definition."""
    if mel < 15:
        return mel * 200 / 3
    return 1000 * 6.4 ** ((mel - 15) / 27)


def triangles(n_mels, n_fft, rate):
    low, high = 0.0, 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    corners = [hertz_of(m) for m in np.linspace(low, high, n_mels + 2)]
    filters = np.zeros((n_mels, n_fft // 2 + 1))
    for i, (left, top, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        for j in range(n_fft // 2 + 1):
            f = j * rate / n_fft
            height = min((f - left) / (top - left), (right - f) / (right - top))
            filters[i, j] = max(0.0, height) * 2 / (right - left)
    return filters


@pytest.mark.parametrize(
    ("n_mels", "n_fft", "rate"), [(40, 400, RATE), (80, 400, RATE), (64, 960, 48_000)]
)
def test_filters_equal_their_definition(n_mels, n_fft, rate):
    filters = mel_filters(n_mels, n_fft, rate)
    np.testing.assert_allclose(filters, triangles(n_mels, n_fft, rate), atol=1e-6)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
def test_spectrogram_equals_scipy(pad_mode):
    audio = np.random.default_rng(0).normal(size=5_003).astype(np.float32)
    power = mel_spectrogram(torch.from_numpy(audio), n_mels=40, pad_mode=pad_mode)
    padded = np.pad(audio, 200, mode=pad_mode)
    window = scipy.signal.get_window("hann", 400)
    frames = np.stack([padded[i : i + 400] * window for i in range(0, len(padded) - 399, 160)])
    expected = triangles(40, 400, RATE) @ np.abs(scipy.fft.rfft(frames)).T ** 2
    assert power.shape == (40, 1 + 5_003 // 160)
    np.testing.assert_allclose(power, expected, rtol=1e-3, atol=1e-5)


def test_log_mel_is_clipped_below_the_loudest():
    power = torch.tensor([[1.0, 1e-3], [1e-9, 0.0]])
    np.testing.assert_allclose(log_mel(power), [[0, -3], [-8, -8]], atol=1e-5)
    np.testing.assert_allclose(log_mel(power, span=2.0), [[0, -2], [-2, -2]], atol=1e-5)
    np.testing.assert_allclose(log_mel(torch.zeros(2, 2)), -10, atol=1e-5)


def test_cosine_transform_equals_scipy():
    x = np.random.default_rng(0).normal(size=(40, 7))
    expected = scipy.fft.dct(x, axis=0, norm="ortho")[:20]
    np.testing.assert_allclose(dct_matrix(20, 40).numpy() @ x, expected, atol=1e-6)


def test_delta_is_the_slope():
    frames = torch.arange(10.0)[None] * 3 + 1
    np.testing.assert_allclose(delta(frames)[0, 2:-2], 3.0, atol=1e-5)
    x = np.random.default_rng(0).normal(size=20)
    expected = [np.polyfit(np.arange(-2, 3), x[i - 2 : i + 3], 1)[0] for i in range(2, 18)]
    np.testing.assert_allclose(delta(torch.from_numpy(x)[None])[0, 2:-2], expected, atol=1e-8)
    np.testing.assert_allclose(delta(torch.ones(3, 1)), 0.0, atol=1e-6)


@pytest.fixture
def audio_clips():
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) for n in (8_000, 3_333, 1, 8_000)]


def test_mfcc_equals_scipy(audio_clips):
    encoded = MFCC("mean")(**MFCC("mean").collate(audio_clips[:1]))
    power = mel_spectrogram(torch.from_numpy(audio_clips[0]), n_mels=40, pad_mode="reflect")
    level = 10 * log_mel(power).numpy()
    cepstrum = scipy.fft.dct(level, axis=0, norm="ortho")[:20]
    np.testing.assert_allclose(encoded.tokens[0, :, :20], cepstrum.T, atol=1e-3)
    padded = np.pad(cepstrum, ((0, 0), (2, 2)), mode="edge")
    slopes = sum(k * padded[:, 2 + k : 2 + k + cepstrum.shape[1]] for k in (-2, -1, 1, 2)) / 10
    np.testing.assert_allclose(encoded.tokens[0, :, 20:40], slopes.T, atol=1e-3)
    np.testing.assert_allclose(encoded.pooled[0], encoded.tokens[0].mean(0), atol=1e-4)


@pytest.mark.parametrize("pooling", ["statistics", "mean", "max"])
def test_clip_does_not_depend_on_its_batch(pooling, audio_clips):
    model = MFCC(pooling)
    together = model(**model.collate(audio_clips))
    assert together.mask.sum(dim=1).tolist() == [51, 21, 2, 51]
    assert together.pooled.shape == (4, model.width)
    for i, audio in enumerate(audio_clips):
        alone = model(**model.collate([audio]))
        np.testing.assert_allclose(together.pooled[i], alone.pooled[0], atol=1e-4)
        np.testing.assert_allclose(together.tokens[i][together.mask[i]], alone.tokens[0], atol=1e-4)


def test_statistics_and_tokens(audio_clips):
    frames = MFCC("mean")(**MFCC("mean").collate(audio_clips[:1])).tokens[0]
    encoded = MFCC()(**MFCC().collate(audio_clips[:1]))
    expected = torch.cat([frames.mean(0), frames.std(0, unbiased=False)])
    np.testing.assert_allclose(encoded.pooled[0], expected, atol=1e-3)
    deviation = (frames - frames.mean(0)).abs()
    np.testing.assert_allclose(encoded.tokens[0], torch.cat([frames, deviation], 1), atol=1e-3)


def test_loudness_changes_one_coefficient_only(audio_clips):
    model = MFCC("mean")
    loud, soft = model(**model.collate([audio_clips[0], 0.01 * audio_clips[0]])).pooled
    np.testing.assert_allclose(loud[0] - soft[0], 40 * 40**0.5, rtol=1e-3)  # 40 dB in 40 bands
    np.testing.assert_allclose(loud[1:], soft[1:], atol=1e-2)


def test_silence_is_finite():
    model = MFCC()
    assert torch.isfinite(model(**model.collate([np.zeros(5_000, np.float32)])).pooled).all()


def test_unknown_pooling():
    with pytest.raises(ValueError, match="MFCC: pooling must be"):
        MFCC("last")
