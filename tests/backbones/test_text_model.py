"""Settings of sentence-transformers folders are followed or refused."""

import json

import pytest
import torch

from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

TEXTS = ["a", "some words", "many more words than fit into the other two 123"]


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
    def test_auto_follows_the_folder(
        self, open_backbone, describe_model, encode, folder, pooling, expected, normalize
    ):
        self.write(folder, pooling, normalize=normalize)
        described = describe_model(folder, "text")
        assert (described["pooling"], described["normalize"]) == (expected, normalize)
        explicit = open_backbone(folder, "text", pooling=expected, normalize=normalize)
        pooled = encode(open_backbone(folder, "text"), TEXTS).pooled
        torch.testing.assert_close(pooled, encode(explicit, TEXTS).pooled)
        assert describe_model(folder, "text", pooling="max", normalize=False)["pooling"] == "max"

    def test_limit_prompt_and_case_of_the_folder(
        self, open_backbone, describe_model, encode, folder, tiny_checkpoint
    ):
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
        plain = encode(open_backbone(tiny_checkpoint("bert"), "text"), ["abc def"]).pooled
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
    def test_unsupported_settings_are_refused(self, open_backbone, folder, pooling, more):
        self.write(folder, pooling, more=more)
        with pytest.raises(CheckpointError, match=r"pooling='auto' cannot follow .* Use"):
            open_backbone(folder, "text")
        assert open_backbone(folder, "text", pooling="mean").width == 16

    def test_model_in_a_subfolder(self, open_backbone, encode, folder, tiny_checkpoint):
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
        plain = encode(open_backbone(tiny_checkpoint("bert"), "text", pooling="max"), TEXTS).pooled
        torch.testing.assert_close(pooled, plain)

    @pytest.mark.parametrize("path", ["../other", "/etc"])
    def test_module_outside_the_folder(self, describe_model, folder, path):
        rows = [{"idx": 0, "path": path, "type": "x.Transformer"}]
        (folder / "modules.json").write_text(json.dumps(rows))
        with pytest.raises(CheckpointError, match=r"modules\.json is not a list of modules"):
            describe_model(folder, "text")

    @pytest.mark.parametrize("content", ["{}", "[1]", '[{"path": ""}]', "null"])
    def test_invalid_list_of_modules(self, describe_model, folder, content):
        (folder / "modules.json").write_text(content)
        if content == "{}":
            assert describe_model(folder, "text")["pooling"] == "mean"
        else:
            with pytest.raises(CheckpointError, match=r"modules\.json is not a list of modules"):
                describe_model(folder, "text")
