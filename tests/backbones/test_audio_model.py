"""Pretrained models of audio equal transformers, and do not depend on batches."""

import numpy as np
import pytest
import torch

from skmm.backbones._pretrained._checkpoint import resolve_checkpoint
from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

KINDS = ["wav2vec2", "hubert", "whisper", "ast", "clap", "clap_fusion"]
RATE = 16_000


@pytest.fixture
def audio_clips():
    """Clips of several lengths, from one sample to one second."""
    rng = np.random.default_rng(0)
    lengths = [RATE // 2, RATE, 4001, 1, 4001, 600]
    return [(0.1 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def model_and_extractor(folder):
    from transformers import AutoFeatureExtractor, AutoModel

    return AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["auto", "mean", "max", "statistics"])
def test_clip_does_not_depend_on_its_batch(
    kind, pooling, audio_clips, tiny_checkpoint, open_backbone, encode
):
    backbone = open_backbone(tiny_checkpoint(kind), "audio", pooling=pooling)
    together = encode(backbone, audio_clips)
    assert together.pooled.shape == (len(audio_clips), backbone.width)
    assert together.tokens.shape == (*together.mask.shape, backbone.width)
    assert together.mask.any(dim=1).all() and torch.isfinite(together.pooled).all()
    for i, audio in enumerate(audio_clips):
        alone = encode(backbone, [audio])
        np.testing.assert_allclose(alone.pooled[0], together.pooled[i], atol=2e-5)
        n = int(alone.mask.sum())
        assert int(together.mask[i].sum()) == n
        np.testing.assert_allclose(
            alone.tokens[0][alone.mask[0]], together.tokens[i][together.mask[i]], atol=2e-5
        )
    assert not np.allclose(together.pooled[0], together.pooled[1], atol=1e-4)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_raw_waves_equal_transformers(kind, audio_clips, tiny_checkpoint, open_backbone, encode):
    model, extractor = model_and_extractor(tiny_checkpoint(kind))
    encoded = encode(open_backbone(tiny_checkpoint(kind), "audio"), audio_clips[:2])
    for i, audio in enumerate(audio_clips[:2]):
        values = extractor(audio, sampling_rate=RATE, return_tensors="pt").input_values
        with torch.no_grad():
            frames = model(values).last_hidden_state[0]
        np.testing.assert_allclose(encoded.tokens[i][encoded.mask[i]], frames, atol=1e-5)
        np.testing.assert_allclose(encoded.pooled[i], frames.mean(0), atol=1e-5)


def test_whisper_equals_transformers(audio_clips, tiny_checkpoint, open_backbone, encode):
    model, extractor = model_and_extractor(tiny_checkpoint("whisper"))
    features = extractor(audio_clips, sampling_rate=RATE, return_tensors="pt").input_features
    with torch.no_grad():
        frames = model.encoder(features).last_hidden_state
    encoded = encode(open_backbone(tiny_checkpoint("whisper"), "audio"), audio_clips)
    np.testing.assert_allclose(encoded.tokens, frames, atol=1e-5)
    # 50 frames per second; padding to two seconds is masked.
    assert encoded.mask.sum(1).tolist() == [25, 50, 13, 2, 13, 2]
    np.testing.assert_allclose(encoded.pooled[0], frames[0, :25].mean(0), atol=1e-5)


def test_ast_equals_transformers(audio_clips, tiny_checkpoint, open_backbone, encode):
    model, extractor = model_and_extractor(tiny_checkpoint("ast"))
    values = extractor(audio_clips[:3], sampling_rate=RATE, return_tensors="pt").input_values
    with torch.no_grad():
        output = model(values)
    encoded = encode(open_backbone(tiny_checkpoint("ast"), "audio"), audio_clips[:3])
    np.testing.assert_allclose(encoded.pooled, output.pooler_output, atol=1e-5)
    np.testing.assert_allclose(encoded.tokens, output.last_hidden_state[:, 2:], atol=1e-5)
    # Patches start every 100 ms, in two bands; the last of half a second starts at 400 ms.
    assert encoded.mask.sum(1).tolist() == [2 * 5, 2 * 10, 2 * 3]
    mean = open_backbone(tiny_checkpoint("ast"), "audio", pooling="mean")
    first = encoded.tokens[0][encoded.mask[0]].mean(0)
    np.testing.assert_allclose(encode(mean, audio_clips[:1]).pooled[0], first, atol=1e-5)


@pytest.mark.parametrize("kind", ["clap", "clap_fusion"])
def test_clap_equals_transformers(kind, audio_clips, tiny_checkpoint, open_backbone, encode):
    model, extractor = model_and_extractor(tiny_checkpoint(kind))
    before = np.random.get_state()[1].copy()
    encoded = encode(open_backbone(tiny_checkpoint(kind), "audio"), audio_clips[:2])
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    inputs = extractor(audio_clips[:2], sampling_rate=RATE, return_tensors="pt")
    inputs["is_longer"] = torch.zeros(2, 1, dtype=torch.bool)
    with torch.no_grad():
        output = model.get_audio_features(**inputs)
    np.testing.assert_allclose(encoded.pooled, output.pooler_output, atol=1e-5)
    assert encoded.pooled.shape == (2, 12) and encoded.mask.all()


def test_clap_encodes_texts_and_audio(tiny_checkpoint, audio_clips, open_backbone, encode):
    from transformers import AutoModel, AutoTokenizer

    texts = encode(open_backbone(tiny_checkpoint("clap"), "text"), ["a dog"]).pooled
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tiny_checkpoint("clap")).get_text_features(
            **AutoTokenizer.from_pretrained(tiny_checkpoint("clap"))(["a dog"], return_tensors="pt")
        )
    np.testing.assert_allclose(texts, expected.pooler_output, atol=1e-5)
    assert (
        encode(open_backbone(tiny_checkpoint("clap"), "audio"), audio_clips[:1]).pooled.shape
        == texts.shape
    )


def test_statistics_are_mean_and_deviation(audio_clips, tiny_checkpoint, open_backbone, encode):
    frames = encode(open_backbone(tiny_checkpoint("hubert"), "audio"), audio_clips[:1]).tokens[0]
    backbone = open_backbone(tiny_checkpoint("hubert"), "audio", pooling="statistics")
    assert backbone.width == 32
    pooled = encode(backbone, audio_clips[:1]).pooled[0]
    expected = torch.cat([frames.mean(0), frames.std(0, unbiased=False)])
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_normalize(audio_clips, tiny_checkpoint, open_backbone, encode):
    pooled = encode(
        open_backbone(tiny_checkpoint("wav2vec2"), "audio", normalize=True), audio_clips
    ).pooled
    np.testing.assert_allclose(pooled.norm(dim=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "window", "expected"),
    [
        ("wav2vec2", None, None),
        ("wav2vec2", 5.0, 5.0),
        ("whisper", 30.0, 2.0),
        ("whisper", 1.0, 1.0),
        ("ast", 30.0, 2.015),
        ("clap", 30.0, 1.0),
    ],
)
def test_description(kind, window, expected, tiny_checkpoint, describe_model):
    described = describe_model(tiny_checkpoint(kind), "audio", max_length=window)
    assert described["window"] == (None if expected is None else pytest.approx(expected))
    assert described["rate"] == RATE
    assert described["pooling"] == ("pooler" if kind in ("ast", "clap") else "mean")
    assert described["normalize"] is False


def test_unavailable_pooling(tiny_checkpoint, describe_model):
    with pytest.raises(ValueError, match="pooling='pooler' does not suit .*'mean', 'max' or 'stat"):
        describe_model(tiny_checkpoint("hubert"), "audio", pooling="pooler")


def test_wrong_modality(tiny_checkpoint):
    with pytest.raises(CheckpointError, match="'whisper' model, which encodes audio, not text"):
        resolve_checkpoint(tiny_checkpoint("whisper"), modality="text", needed_by="TextEncoder")
    with pytest.raises(CheckpointError, match="Give AudioEncoder an audio model"):
        resolve_checkpoint(tiny_checkpoint("bert"), modality="audio", needed_by="AudioEncoder")
    with pytest.raises(CheckpointError, match="encodes audio and text, not image"):
        resolve_checkpoint(tiny_checkpoint("clap"), modality="image", needed_by="ImageEncoder")


def test_model_with_an_adapter(copied_checkpoint, describe_model):
    folder = copied_checkpoint("wav2vec2")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"add_adapter": false', '"add_adapter": true'))
    with pytest.raises(CheckpointError, match="has an adapter"):
        describe_model(folder, "audio")


def test_mask_embedding_may_be_missing(copied_checkpoint, open_backbone):
    """The embedding of masked frames is missing in many published checkpoints."""
    from safetensors.torch import load_file, save_file

    folder = copied_checkpoint("wav2vec2")
    weights = load_file(folder / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    open_backbone(folder, "audio")
    weights.pop("encoder.layer_norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"incomplete, without encoder\.layer_norm"):
        open_backbone(folder, "audio")


def test_frozen(tiny_checkpoint, open_backbone):
    backbone = open_backbone(tiny_checkpoint("wav2vec2"), "audio").train()
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "whisper", "ast"])
def test_trunk_arrays_and_head_equal_the_whole_model(
    kind, audio_clips, tiny_checkpoint, open_backbone, encode
):
    """The last column of stored tokens is their mask; raw waves have unmasked tokens only."""
    from skmm.backbones._pretrained._splitting import LastBlocks, Trunk, structure_of

    backbone = open_backbone(tiny_checkpoint(kind), "audio", pooling="mean")
    with torch.no_grad():
        trunk = backbone.with_tower(Trunk(backbone.tower, 1).eval())
        arrays = trunk.trunk_arrays(**backbone.collate(audio_clips))
        whole = encode(backbone, audio_clips)
        n_leading = 2 if kind == "ast" else 0
        for array, mask in zip(arrays, whole.mask, strict=True):
            assert array.dtype == np.float32 and array.shape[1] == 17
            assert array[:, -1].sum() == mask.sum() + n_leading
            is_cropped = kind in ("wav2vec2", "hubert")
            assert len(array) == (mask.sum() if is_cropped else len(mask) + n_leading)
        part, blank = backbone.head_part(structure_of(backbone.tower))
        head = backbone.with_tower(LastBlocks(part, 1, blank).eval())
        again = head(**head.head_inputs(arrays, []))
    np.testing.assert_allclose(again.pooled, whole.pooled, atol=2e-5)
    np.testing.assert_array_equal(again.mask, whole.mask)
    for i in (1, 3):  # in a batch and alone
        with torch.no_grad():
            alone = head(**head.head_inputs(arrays[i : i + 1], []))
        np.testing.assert_allclose(alone.pooled[0], whole.pooled[i], atol=2e-5)


def test_statistics_of_one_token_have_finite_gradients(tiny_checkpoint, open_backbone):
    # The gradient of the root of a zero variance is infinite.
    backbone = open_backbone(tiny_checkpoint("wav2vec2"), "audio", pooling="statistics")
    tokens = torch.ones(1, 1, 16, requires_grad=True)
    pooled = backbone.pooled(tokens, torch.ones(1, 1, dtype=torch.bool), None)
    pooled.sum().backward()
    assert torch.equal(pooled[0, 16:], torch.zeros(16)) and torch.isfinite(tokens.grad).all()
