"""Pretrained video models equal transformers, for clips of any length."""

import json

import numpy as np
import pytest
import torch

from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

KINDS = {"videomae": 4, "timesformer": 3}  # frames


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, 40, 50, 3), dtype=np.uint8) for n in (4, 3, 1, 9)]


def frames_of(clip, n):
    return [clip[int((k + 0.5) * len(clip) / n)] for k in range(n)]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_equal_transformers(open_backbone, encode, tiny_checkpoint, clips, kind):
    from transformers import AutoImageProcessor, AutoModel

    folder, n = tiny_checkpoint(kind), KINDS[kind]
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModel.from_pretrained(folder).eval()
    tokens, mask, pooled = encode(open_backbone(folder, "video"), clips)
    for i, clip in enumerate(clips):
        inputs = processor(frames_of(clip, n), return_tensors="pt")
        assert inputs["pixel_values"].shape == (1, n, 3, 32, 32)
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state[0]
        torch.testing.assert_close(tokens[i], expected, atol=1e-5, rtol=1e-4)
        summary = expected[0] if kind == "timesformer" else expected.mean(0)
        torch.testing.assert_close(pooled[i], summary, atol=1e-5, rtol=1e-4)
    assert mask.all()


@pytest.mark.parametrize("kind", KINDS)
def test_description(open_backbone, describe_model, tiny_checkpoint, kind):
    described = describe_model(tiny_checkpoint(kind), "video")
    assert json.loads(json.dumps(described)) == described
    assert described["n_frames"] == KINDS[kind] and described["width"] == 16
    assert described["processor"] == "VideoMAEImageProcessorPil"
    assert described["pooling"] == {"videomae": "mean", "timesformer": "cls"}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_clip_does_not_depend_on_its_batch(open_backbone, encode, tiny_checkpoint, clips, kind):
    backbone = open_backbone(tiny_checkpoint(kind), "video")
    assert backbone.separable
    together = encode(backbone, clips).pooled
    alone = torch.cat([encode(backbone, [clip]).pooled for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_poolings(open_backbone, encode, tiny_checkpoint, clips):
    for folder in (tiny_checkpoint("videomae"), tiny_checkpoint("timesformer")):
        tokens, _, pooled = encode(open_backbone(folder, "video", pooling="max"), clips)
        torch.testing.assert_close(pooled, tokens.amax(1))
        unit = encode(open_backbone(folder, "video", normalize=True), clips).pooled
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(4))
    for folder, pooling in (
        (tiny_checkpoint("videomae"), "cls"),
        (tiny_checkpoint("timesformer"), "pooler"),
    ):
        with pytest.raises(
            ValueError, match=f"pooling='{pooling}' does not suit.*Use pooling='mean'"
        ):
            open_backbone(folder, "video", pooling=pooling)


def test_image_model_is_used_for_frames(describe_model, tiny_checkpoint):
    for folder in (tiny_checkpoint("vit"), tiny_checkpoint("clip")):
        assert "n_frames" not in describe_model(folder, "video")


@pytest.mark.parametrize("modality", ["image", "text"])
def test_video_model_encodes_neither_images_nor_texts(describe_model, tiny_checkpoint, modality):
    with pytest.raises(
        CheckpointError, match=f"'videomae' model, which encodes video, not {modality}"
    ):
        describe_model(tiny_checkpoint("videomae"), modality)


def test_text_model_is_no_video_model(describe_model, tiny_checkpoint):
    with pytest.raises(
        CheckpointError, match="which encodes text, not video. Give .* a video model"
    ):
        describe_model(tiny_checkpoint("bert"), "video")
