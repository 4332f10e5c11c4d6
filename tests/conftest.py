"""Fixtures that several folders of tests share: tiny random checkpoints."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

# What worker processes have to import: they take over this path.
sys.path.insert(0, str(Path(__file__).with_name("helpers")))

_KINDS = (
    *("bert", "roberta", "gpt2", "t5", "bart"),
    *("vit", "dinov2", "convnext", "resnet", "swin"),
    *("videomae", "timesformer"),
    *("clip", "siglip"),
    *("wav2vec2", "hubert", "whisper", "ast", "clap", "clap_fusion"),
)


def _builders():
    # By its path: with tests/ on sys.path, tests/datasets would pass for the package datasets.
    path = Path(__file__).with_name("checkpoints.py")
    spec = importlib.util.spec_from_file_location("skmm_test_checkpoints", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BUILDERS


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """``tiny_checkpoint("bert")`` is a folder with such a model, built once; never write to it."""
    pytest.importorskip("transformers", reason="tiny checkpoints need the extra 'hub'")
    built = {}

    def get(kind):
        if kind not in built:
            folder = tmp_path_factory.mktemp("checkpoints") / kind
            folder.mkdir()
            _builders()[kind](folder)
            built[kind] = folder
        return built[kind]

    return get


@pytest.fixture
def copied_checkpoint(tiny_checkpoint, tmp_path):
    """``copied_checkpoint("bert")`` is a copy in the test's own folder, to be damaged."""

    def copy(kind, name=None):
        return Path(shutil.copytree(tiny_checkpoint(kind), tmp_path / (name or kind)))

    return copy


def _tiny(kind):
    @pytest.fixture(scope="session", name=f"tiny_{kind}")
    def folder(tiny_checkpoint):
        return tiny_checkpoint(kind)

    return folder


for _kind in _KINDS:
    globals()[f"tiny_{_kind}"] = _tiny(_kind)


def pytest_runtest_setup(item):
    """Skip tests of adapters, which say so in their names, where there is no library for them."""
    if "lora" in item.name:
        pytest.importorskip("peft", reason="adapters need the extra 'lora'")
