"""Loading of weights: complete, once per process, silent, unchanged afterwards."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from skmm.backbones._pretrained import _loading
from skmm.backbones._pretrained._checkpoint import resolve_checkpoint
from skmm.backbones._pretrained._loading import describe, load_backbone, load_count
from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")

CPU = torch.device("cpu")
TEXTS = ["a", "some words", "many more words than fit into the other two 123"]


class TestRefused:
    def rewrite(self, folder, change):
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    def test_missing_weights(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("bert")
        self.rewrite(folder, lambda state: {k: v for k, v in state.items() if "query" not in k})
        with pytest.raises(CheckpointError, match=r"incomplete, without .*query\.bias, .*query"):
            open_backbone(folder, "text")

    def test_missing_pooler_is_refused_for_its_pooling_only(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("vit")
        self.rewrite(folder, lambda state: {k: v for k, v in state.items() if "pooler" not in k})
        assert open_backbone(folder, "image").pooling == "cls"
        with pytest.raises(
            CheckpointError, match=r"pooling='pooler' needs the weights of the pooler"
        ):
            open_backbone(folder, "image", pooling="pooler")

    def test_unexpected_weights_are_fine(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("bert")
        self.rewrite(folder, lambda state: {**state, "classifier.weight": torch.zeros(2, 2)})
        assert open_backbone(folder, "text").width == 16

    def test_weights_of_another_shape(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("bert")
        key = "embeddings.position_embeddings.weight"
        self.rewrite(folder, lambda state: {**state, key: torch.zeros(8, 16)})
        with pytest.raises(CheckpointError, match=r"The weights of .* cannot be read"):
            open_backbone(folder, "text")

    def test_truncated_weights(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("bert")
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match=r"The weights of .* cannot be read \(Safetensor"):
            open_backbone(folder, "text")

    def test_no_tokenizer(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("bert")
        (folder / "tokenizer.json").unlink()
        with pytest.raises(CheckpointError, match=r"The files of the tokenizer of .* are missing"):
            open_backbone(folder, "text")

    def test_no_image_processor(self, open_backbone, copied_checkpoint):
        folder = copied_checkpoint("vit")
        (folder / "preprocessor_config.json").unlink()
        with pytest.raises(CheckpointError, match=r"The image processor of .* cannot be read"):
            open_backbone(folder, "image")

    def test_code_of_a_folder_is_not_run(self, open_backbone, copied_checkpoint, tmp_path):
        folder, trace = copied_checkpoint("bert"), tmp_path / "it-ran"
        code = f"open({str(trace)!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
        (folder / "modeling_odd.py").write_text(code)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "odd", "auto_map": {"AutoConfig": "modeling_odd.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"The config\.json of .* cannot be read"):
            open_backbone(folder, "text")
        assert not trace.exists()

    def test_masked_autoencoder_is_refused(self, open_backbone, tmp_path):
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
    def test_once_across_threads_and_poolings(
        self, open_backbone, encode, tiny_checkpoint, tmp_path, fresh
    ):
        copies = [
            tiny_checkpoint("bert"),
            shutil.copytree(tiny_checkpoint("bert"), tmp_path / "copy"),
        ]

        def use(i):
            pooling = ("mean", "max", "cls")[i % 3]
            backbone = open_backbone(copies[i % 2], "text", pooling=pooling)
            return encode(backbone, TEXTS).pooled

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(use, range(24)))
        assert load_count() == 1
        torch.testing.assert_close(results[0], results[6])

    def test_other_weights_dtype_or_modality_are_loaded_separately(
        self, open_backbone, tiny_checkpoint, fresh
    ):
        open_backbone(tiny_checkpoint("clip"), "text")
        open_backbone(tiny_checkpoint("clip"), "image")
        open_backbone(tiny_checkpoint("bert"), "text")
        open_backbone(tiny_checkpoint("bert"), "text", dtype=torch.bfloat16)
        assert load_count() == 4

    def test_number_of_cached_models_is_limited(self, open_backbone, tiny_checkpoint, fresh):
        for kind in ("bert", "gpt2", "t5", "roberta", "bart", "bert"):
            open_backbone(tiny_checkpoint(kind), "text")
        assert load_count() == 6 and len(_loading._TOWERS._values) == 4

    def test_describe_loads_no_weights(
        self, describe_model, tiny_checkpoint, fresh, copied_checkpoint
    ):
        folder = copied_checkpoint("resnet")
        (folder / "model.safetensors").write_bytes(b"never read")
        assert describe_model(folder, "image")["width"] == 16
        assert load_count() == 0

    def test_silent(self, open_backbone, encode, copied_checkpoint, capfd, caplog, fresh):
        from transformers.utils import logging

        folders = [(copied_checkpoint("bert"), "text"), (copied_checkpoint("vit"), "image")]
        rewrite = TestRefused().rewrite
        for folder, _ in folders:  # the library would report a missing pooler and other keys
            rewrite(folder, lambda s: {k: v for k, v in s.items() if "pooler" not in k})
            rewrite(folder, lambda s: {**s, "odd": torch.zeros(1)})
        logging.enable_progress_bar()
        before = logging.get_verbosity()
        capfd.readouterr()
        caplog.clear()
        for folder, modality in folders:
            backbone = open_backbone(folder, modality)
            cells = TEXTS if modality == "text" else [np.zeros((8, 8, 3), np.uint8)]
            encode(backbone, cells)
        assert capfd.readouterr() == ("", "") and not caplog.records
        assert logging.get_verbosity() == before and logging.is_progress_bar_enabled()

    def test_global_random_state_is_unchanged(
        self, open_backbone, describe_model, copied_checkpoint, fresh
    ):
        folder = copied_checkpoint("bert")
        rewrite = TestRefused().rewrite
        rewrite(folder, lambda s: {k: v for k, v in s.items() if "pooler" not in k})
        state = torch.get_rng_state()
        open_backbone(folder, "text")
        describe_model(folder, "text")
        assert torch.equal(torch.get_rng_state(), state)

    def test_frozen_in_eval_mode(self, open_backbone, tiny_checkpoint):
        backbone = open_backbone(tiny_checkpoint("bert"), "text").train()
        assert not any(module.training for module in backbone.modules())
        assert not any(p.requires_grad for p in backbone.parameters())
        with pytest.raises(NotImplementedError):
            backbone.reconstruction_target()

    def test_overwriting_the_file_does_not_change_a_loaded_model(
        self, open_backbone, encode, copied_checkpoint, fresh
    ):
        folder = copied_checkpoint("bert")
        backbone = open_backbone(folder, "text")
        before = encode(backbone, TEXTS).pooled
        with (folder / "model.safetensors").open("r+b") as file:  # in place: safetensors maps it
            size = file.seek(0, 2)
            file.seek(4000)
            file.write(bytes(size - 4000))
        assert torch.equal(encode(backbone, TEXTS).pooled, before)

    def test_weights_are_read_from_the_given_folder(
        self, open_backbone, encode, copied_checkpoint, fresh, monkeypatch
    ):
        """A cached recipe of equal weights elsewhere is not used: that folder may have changed."""
        first, second = (copied_checkpoint("bert", name) for name in ("first", "second"))
        before = encode(open_backbone(first, "text"), TEXTS).pooled
        file = first / "model.safetensors"
        kept = file.read_bytes()[:4000]
        file.write_bytes(kept + bytes(file.stat().st_size - len(kept)))
        monkeypatch.setattr(_loading, "_TOWERS", _loading.LRUCache(4))  # no weights are cached
        assert torch.equal(encode(open_backbone(second, "text"), TEXTS).pooled, before)

    def test_files_that_change_before_loading_are_refused(self, copied_checkpoint, fresh):
        folder = copied_checkpoint("bert")
        checkpoint = resolve_checkpoint(folder, modality="text", needed_by="TextEncoder")
        describe(checkpoint, "text")
        config = folder / "config.json"
        config.write_text(config.read_text() + " ")
        with pytest.raises(CheckpointError, match=r"TextEncoder: the files of .* have changed"):
            load_backbone(checkpoint, modality="text", device=CPU, dtype=torch.float32)

    def test_collate_after_counting_returns_the_same_tensors(self, open_backbone, tiny_checkpoint):
        backbone = open_backbone(tiny_checkpoint("bert"), "text")
        fresh = backbone.collate(TEXTS)
        other = open_backbone(tiny_checkpoint("bert"), "text", max_length=5)
        assert backbone.lengths([*TEXTS, TEXTS[0]])[0] == 3
        assert other.collate(TEXTS)["input_ids"].shape == (3, 5)
        counted = backbone.collate([*TEXTS, TEXTS[0]])
        for key, value in fresh.items():
            assert torch.equal(counted[key][:3], value)
            assert torch.equal(counted[key][3], value[0])

    def test_threads_share_a_tokenizer(self, open_backbone, tiny_checkpoint):
        backbones = [open_backbone(tiny_checkpoint("bert"), "text", max_length=n) for n in (5, 9)]
        expected = [b.collate(TEXTS)["input_ids"] for b in backbones]

        def use(i):
            backbones[i % 2].lengths(TEXTS)
            return backbones[i % 2].collate(TEXTS)["input_ids"]

        with ThreadPoolExecutor(8) as pool:
            for i, ids in enumerate(pool.map(use, range(200))):
                assert torch.equal(ids, expected[i % 2])
