"""Pretrained models: one interface for all architectures, poolings of each."""

import json

import pytest
import torch

from skmm.backbones._base import pool_tokens
from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

TEXT = ["bert", "roberta", "gpt2", "t5", "bart", "clip", "siglip"]
IMAGES = ["vit", "dinov2", "convnext", "resnet", "swin", "clip", "siglip"]
WIDTHS = {"clip": 12}  # its projection; every other tiny model is 16 wide
TEXTS = ["a", "some words", "many more words than fit into the other two 123"]


class TestEveryArchitecture:
    @pytest.mark.parametrize("kind", TEXT)
    def test_text_has_declared_width(
        self, open_backbone, describe_model, encode, tiny_checkpoint, kind
    ):
        folder = tiny_checkpoint(kind)
        backbone = open_backbone(folder, "text")
        described = describe_model(folder, "text")
        tokens, mask, pooled = encode(backbone, TEXTS)
        assert described["width"] == backbone.width == WIDTHS.get(kind, 16)
        assert pooled.shape == (3, backbone.width)
        assert tokens.shape == (*mask.shape, backbone.width)
        assert mask.dtype == torch.bool and mask.sum(1).tolist() == backbone.lengths(TEXTS)
        assert pooled.dtype == tokens.dtype == torch.float32
        assert tokens.isfinite().all() and pooled.isfinite().all()
        assert not torch.allclose(pooled[0], pooled[1], atol=1e-4)
        assert json.loads(json.dumps(described)) == described

    @pytest.mark.parametrize("kind", IMAGES)
    def test_images_have_declared_width(
        self, open_backbone, describe_model, encode, tiny_checkpoint, images, kind
    ):
        folder = tiny_checkpoint(kind)
        backbone = open_backbone(folder, "image")
        described = describe_model(folder, "image")
        tokens, mask, pooled = encode(backbone, images)
        assert described["width"] == backbone.width == WIDTHS.get(kind, 16)
        assert pooled.shape == (4, backbone.width)
        assert tokens.shape == (*mask.shape, backbone.width) and mask.all()
        assert pooled.dtype == tokens.dtype == torch.float32
        assert tokens.isfinite().all() and pooled.isfinite().all()
        assert described["processor"].endswith("Pil") and described["max_length"] is None
        assert json.loads(json.dumps(described)) == described

    def test_image_processor_has_a_fixed_backend(
        self, describe_model, copied_checkpoint, monkeypatch
    ):
        from transformers import AutoImageProcessor

        folder, passed = copied_checkpoint("vit"), {}
        (folder / "vocab.txt").write_text("makes it another checkpoint")
        original = AutoImageProcessor.from_pretrained

        def spy(path, **options):
            passed.update(options)
            return original(path, **options)

        monkeypatch.setattr(AutoImageProcessor, "from_pretrained", spy)
        describe_model(folder, "image")
        # By default the library uses torchvision if installed, which resizes differently.
        assert passed["backend"] == "pil" and passed["trust_remote_code"] is False

    @pytest.mark.parametrize("kind", TEXT)
    @pytest.mark.parametrize("pooling", ["auto", "mean", "max", "cls", "last"])
    def test_text_does_not_depend_on_its_batch(
        self, open_backbone, encode, tiny_checkpoint, kind, pooling
    ):
        backbone = open_backbone(tiny_checkpoint(kind), "text", pooling=pooling)
        together = encode(backbone, TEXTS).pooled
        alone = torch.cat([encode(backbone, [text]).pooled for text in TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", IMAGES)
    def test_image_does_not_depend_on_its_batch(
        self, open_backbone, encode, tiny_checkpoint, images, kind
    ):
        backbone = open_backbone(tiny_checkpoint(kind), "image")
        together = encode(backbone, images).pooled
        alone = torch.cat([encode(backbone, [image]).pooled for image in images])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", TEXT)
    @pytest.mark.parametrize("texts", [["", ""], ["", "abc"]])
    def test_empty_texts(self, open_backbone, encode, tiny_checkpoint, kind, texts):
        tokens, mask, pooled = encode(open_backbone(tiny_checkpoint(kind), "text"), texts)
        assert tokens.shape[:2] == mask.shape and pooled.isfinite().all()
        if kind == "gpt2":  # no special tokens, so no token to pool
            assert not mask[0].any() and not pooled[0].any()

    @pytest.mark.parametrize("kind", TEXT)
    def test_long_texts_are_cut(self, open_backbone, describe_model, encode, tiny_checkpoint, kind):
        folder = tiny_checkpoint(kind)
        limit = describe_model(folder, "text")["max_length"]
        backbone = open_backbone(folder, "text")
        long = "abc " * 100
        if limit is None:
            assert kind == "t5"  # relative positions
            assert backbone.lengths([long])[0] > 300
        else:
            assert limit == {"clip": 24, "siglip": 24}.get(kind, 64)
            assert backbone.lengths([long]) == [limit]
        assert encode(backbone, [long]).pooled.isfinite().all()

    def test_half_precision_gives_float32(self, open_backbone, encode, tiny_checkpoint, images):
        for folder, modality, cells in (
            (tiny_checkpoint("bert"), "text", TEXTS),
            (tiny_checkpoint("resnet"), "image", images),
        ):
            half = encode(open_backbone(folder, modality, dtype=torch.bfloat16), cells)
            full = encode(open_backbone(folder, modality), cells)
            assert half.pooled.dtype == half.tokens.dtype == torch.float32
            torch.testing.assert_close(half.pooled, full.pooled, atol=0.1, rtol=0.1)
            assert not torch.equal(half.pooled, full.pooled)

    def test_half_precision_checkpoint_is_loaded_as_float32(
        self, open_backbone, tmp_path, tiny_checkpoint
    ):
        from transformers import AutoModel, AutoTokenizer

        AutoModel.from_pretrained(tiny_checkpoint("bert"), dtype=torch.float16).save_pretrained(
            tmp_path
        )
        AutoTokenizer.from_pretrained(tiny_checkpoint("bert")).save_pretrained(tmp_path)
        backbone = open_backbone(tmp_path, "text")
        assert {p.dtype for p in backbone.parameters()} == {torch.float32}


class TestPooling:
    def test_pooling_equals_loops(self):
        tokens = torch.randn(3, 4, 5)
        mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
        tokens[0, 2:] = torch.nan  # padding must be ignored
        for pooling, expected in {
            "mean": [tokens[0, :2].mean(0), tokens[1].mean(0)],
            "max": [tokens[0, :2].amax(0), tokens[1].amax(0)],
            "cls": [tokens[0, 0], tokens[1, 0]],
            "last": [tokens[0, 1], tokens[1, 3]],
        }.items():
            pooled = pool_tokens(tokens, mask, pooling)
            torch.testing.assert_close(pooled[:2], torch.stack(expected))
            assert not pooled[2].any()

    def test_text_poolings_equal_the_model(self, open_backbone, encode, tiny_checkpoint):
        from transformers import AutoModel, AutoTokenizer

        inputs = AutoTokenizer.from_pretrained(tiny_checkpoint("bert"))(
            TEXTS, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            output = AutoModel.from_pretrained(tiny_checkpoint("bert"))(**inputs)
        weights = inputs["attention_mask"].unsqueeze(-1)
        mean = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
        expected = {
            "auto": mean,
            "mean": mean,
            "cls": output.last_hidden_state[:, 0],
            "pooler": output.pooler_output,
        }
        for pooling, value in expected.items():
            pooled = encode(
                open_backbone(tiny_checkpoint("bert"), "text", pooling=pooling), TEXTS
            ).pooled
            torch.testing.assert_close(pooled, value)

    @pytest.mark.parametrize(
        ("kind", "auto"),
        [("vit", "cls"), ("dinov2", "cls"), ("convnext", "pooler"), ("resnet", "pooler")],
    )
    def test_image_poolings_equal_the_model(
        self, open_backbone, describe_model, encode, tiny_checkpoint, images, kind, auto
    ):
        from transformers import AutoImageProcessor, AutoModel

        folder = tiny_checkpoint(kind)
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        inputs = processor(images[:2], return_tensors="pt")
        with torch.no_grad():
            output = AutoModel.from_pretrained(folder)(**inputs)
        last = output.last_hidden_state
        summary = last[:, 0] if auto == "cls" else output.pooler_output.flatten(1)
        grid = last if last.ndim == 3 else last.reshape(2, 16, -1).transpose(1, 2)
        assert describe_model(folder, "image")["pooling"] == auto
        encoded = encode(open_backbone(folder, "image"), images[:2])
        torch.testing.assert_close(encoded.pooled, summary)
        torch.testing.assert_close(encoded.tokens, grid)
        mean = encode(open_backbone(folder, "image", pooling="mean"), images[:2]).pooled
        torch.testing.assert_close(mean, grid.mean(1))

    def test_normalize(self, open_backbone, encode, tiny_checkpoint, images):
        for folder, modality, cells in (
            (tiny_checkpoint("bert"), "text", TEXTS),
            (tiny_checkpoint("vit"), "image", images),
        ):
            plain = encode(open_backbone(folder, modality), cells).pooled
            unit = encode(open_backbone(folder, modality, normalize=True), cells).pooled
            torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))

    @pytest.mark.parametrize("kind", ["convnext", "swin", "resnet"])
    def test_no_class_token(self, open_backbone, tiny_checkpoint, kind):
        with pytest.raises(ValueError, match=r"pooling='cls' does not suit .* Use pooling='mean'"):
            open_backbone(tiny_checkpoint(kind), "image", pooling="cls")

    def test_no_pooler(self, open_backbone, tiny_checkpoint):
        with pytest.raises(
            CheckpointError, match=r"pooling='pooler' needs the weights of the pooler"
        ):
            open_backbone(tiny_checkpoint("gpt2"), "text", pooling="pooler")

    @pytest.mark.parametrize(("kind", "modality"), [("bert", "text"), ("vit", "image")])
    def test_unknown_pooling(self, open_backbone, tiny_checkpoint, kind, modality):
        with pytest.raises(ValueError, match=r"pooling='median' is none of 'auto', "):
            open_backbone(tiny_checkpoint(kind), modality, pooling="median")

    @pytest.mark.parametrize("max_length", [2, 65])
    def test_max_length_out_of_range(self, open_backbone, tiny_checkpoint, max_length):
        with pytest.raises(ValueError, match=r"which reads 3 to 64 tokens"):
            open_backbone(tiny_checkpoint("bert"), "text", max_length=max_length)

    def test_max_length(self, open_backbone, encode, tiny_checkpoint):
        backbone = open_backbone(tiny_checkpoint("bert"), "text", max_length=5)
        assert backbone.lengths(["abcdefgh", "a"]) == [5, 3]
        cut = encode(backbone, ["abcdefgh"]).pooled
        torch.testing.assert_close(
            cut, encode(open_backbone(tiny_checkpoint("bert"), "text"), ["abc"]).pooled
        )


class TestDualTowers:
    @pytest.mark.parametrize("normalize", ["auto", True])
    def test_clip_text(self, open_backbone, encode, tiny_checkpoint, normalize):
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        model = CLIPTextModelWithProjection.from_pretrained(tiny_checkpoint("clip")).eval()
        inputs = AutoTokenizer.from_pretrained(tiny_checkpoint("clip"))(
            TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt"
        )
        with torch.no_grad():
            expected = model(**inputs).text_embeds
        encoded = encode(open_backbone(tiny_checkpoint("clip"), "text", normalize=normalize), TEXTS)
        if normalize is True:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        else:
            # The pooled vector is the projected last token, so tokens are in the same space.
            last = encoded.mask.sum(1) - 1
            torch.testing.assert_close(encoded.tokens[torch.arange(3), last], expected)
        torch.testing.assert_close(encoded.pooled, expected)

    def test_clip_image(self, open_backbone, encode, tiny_checkpoint, images):
        from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

        model = CLIPVisionModelWithProjection.from_pretrained(tiny_checkpoint("clip")).eval()
        processor = AutoImageProcessor.from_pretrained(tiny_checkpoint("clip"), backend="pil")
        with torch.no_grad():
            expected = model(**processor(images[:2], return_tensors="pt")).image_embeds
        encoded = encode(open_backbone(tiny_checkpoint("clip"), "image"), images[:2])
        torch.testing.assert_close(encoded.pooled, expected)
        torch.testing.assert_close(encoded.tokens[:, 0], expected)

    def test_siglip_texts_are_padded_as_in_training(self, open_backbone, encode, tiny_checkpoint):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("siglip"))
        ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24)["input_ids"]
        model = AutoModel.from_pretrained(tiny_checkpoint("siglip")).eval()
        with torch.no_grad():
            expected = model.get_text_features(input_ids=torch.tensor(ids)).pooler_output
        encoded = encode(open_backbone(tiny_checkpoint("siglip"), "text"), TEXTS)
        torch.testing.assert_close(encoded.pooled, expected)

    @pytest.mark.parametrize("modality", ["text", "image"])
    def test_other_tower_is_dropped(self, open_backbone, tiny_checkpoint, modality):
        other = "vision_model" if modality == "text" else "text_model"
        names = [
            name for name, _ in open_backbone(tiny_checkpoint("clip"), modality).named_parameters()
        ]
        assert names and not any(other in name for name in names)

    def test_description_of_the_projection(self, describe_model, tiny_checkpoint):
        for modality in ("text", "image"):
            described = describe_model(tiny_checkpoint("clip"), modality)
            assert (described["pooling"], described["width"]) == ("pooler", 12)
            assert described["normalize"] is False
