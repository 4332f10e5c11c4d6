"""The GE2E voice encoder against the same network written in numpy, and the published weights."""

from importlib import metadata

import numpy as np
import pytest
import torch
from real_data import load_real

from skmm.backbones._pretrained._speech import VoiceEncoder
from skmm.backbones._spectrogram import mel_spectrogram
from skmm.readers import read_audio

RATE = 16_000


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VoiceEncoder().eval()


def by_hand(model, samples):
    """The published procedure: loudness, parts, three LSTM layers step by step."""
    weights = {name: w.detach().numpy().astype(float) for name, w in model.state_dict().items()}
    level = np.sqrt(np.mean(samples.astype(float) ** 2))
    samples = samples * max(1.0, 10 ** (-30 / 20) / level)
    n_frames = int(np.ceil((len(samples) + 1) / 160))
    begins = list(range(0, max(1, n_frames - 160 + 77 + 1), 77))
    if (len(samples) - begins[-1] * 160) / 25_600 < 0.75 and len(begins) > 1:
        begins.pop()
    padded = np.pad(samples, (0, max(0, begins[-1] * 160 + 25_600 - len(samples))))
    mel = mel_spectrogram(
        torch.from_numpy(padded.astype(np.float32)), n_mels=40, pad_mode="reflect"
    ).numpy()
    vectors = []
    for begin in begins:
        x = mel[:, begin : begin + 160].T.astype(float)
        for layer in range(3):
            w, u = weights[f"lstm.weight_ih_l{layer}"], weights[f"lstm.weight_hh_l{layer}"]
            b = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
            h, c, out = np.zeros(256), np.zeros(256), []
            for frame in x:
                i, f, g, o = np.split(w @ frame + u @ h + b, 4)
                i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
                c = f * c + i * np.tanh(g)
                h = o * np.tanh(c)
                out.append(h)
            x = np.array(out)
        raw = np.maximum(weights["linear.weight"] @ h + weights["linear.bias"], 0)
        vectors.append(raw / np.linalg.norm(raw))
    return np.array(vectors)


@pytest.mark.parametrize("n_samples", [400, 25_600, 32_000, 60_000])
@pytest.mark.parametrize("scale", [0.001, 0.5])
def test_equals_the_procedure_in_numpy(n_samples, scale, model):
    rng = np.random.default_rng(n_samples)
    samples = (scale * rng.normal(size=n_samples)).astype(np.float32)
    expected = by_hand(model, samples)
    with torch.no_grad():
        tokens, mask = model(**model.collate([samples]))
    assert mask.all() and tokens.shape == (1, len(expected), 256)
    np.testing.assert_allclose(tokens[0], expected, atol=1e-4)


def test_a_batch_never_changes_a_cell(model):
    rng = np.random.default_rng(0)
    sounds = [rng.normal(size=n).astype(np.float32) for n in (100_000, 1, 30_000)]
    with torch.no_grad():
        tokens, mask = model(**model.collate(sounds))
        assert mask.sum(1).tolist() == [7, 1, 1]
        for i, sound in enumerate(sounds):
            alone, _ = model(**model.collate([sound]))
            np.testing.assert_allclose(tokens[i][mask[i]], alone[0], atol=1e-6)


def test_silence_is_finite(model):
    with torch.no_grad():
        tokens, _ = model(**model.collate([np.zeros(9_000, np.float32)]))
    assert torch.isfinite(tokens).all()


@pytest.mark.data
def test_published_weights_tell_speakers_apart(open_backbone, encode):
    try:
        metadata.distribution("Resemblyzer")
    except metadata.PackageNotFoundError:
        pytest.skip("Resemblyzer==0.1.4, whose weights these are, is not installed")
    frame = load_real("avdigits")
    frame = frame.groupby(["speaker", "label"]).head(1)
    backbone = open_backbone("ge2e", "audio")
    vectors = encode(backbone, [next(read_audio(path)) for path in frame["audio"]]).pooled.numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    likeness = vectors @ vectors.T - 2 * np.eye(len(vectors))
    speakers = frame["speaker"].to_numpy()
    # The most similar other recording, of another word, is by the same of six speakers.
    assert (speakers[likeness.argmax(1)] == speakers).mean() > 0.8
