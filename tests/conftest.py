"""Fixtures that several folders of tests use: tiny random checkpoints."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

# Worker processes import modules from this path too.
sys.path.insert(0, str(Path(__file__).with_name("helpers")))


def _checkpoints():
    # Loaded by its path: with tests/ on sys.path, tests/datasets would hide the package datasets.
    path = Path(__file__).with_name("checkpoints.py")
    spec = importlib.util.spec_from_file_location("skmm_test_checkpoints", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """``tiny_checkpoint("bert")`` is a folder with such a model, built once; never write to it.

    The kinds are the keys of ``BUILDERS`` in checkpoints.py.
    """
    pytest.importorskip("transformers", reason="tiny checkpoints need the extra 'hub'")
    checkpoints = _checkpoints()
    built = {}

    def get(kind):
        if kind not in built:
            folder = tmp_path_factory.mktemp("checkpoints") / kind
            folder.mkdir()
            checkpoints.build(kind, folder)
            built[kind] = folder
        return built[kind]

    return get


@pytest.fixture
def copied_checkpoint(tiny_checkpoint, tmp_path):
    """``copied_checkpoint("bert")`` is a copy in the test's own folder, which it may change."""

    def copy(kind, name=None):
        return Path(shutil.copytree(tiny_checkpoint(kind), tmp_path / (name or kind)))

    return copy


@pytest.fixture(scope="session")
def tiny_bert(tiny_checkpoint):
    return tiny_checkpoint("bert")


@pytest.fixture(scope="session")
def tiny_roberta(tiny_checkpoint):
    return tiny_checkpoint("roberta")


@pytest.fixture(scope="session")
def tiny_vit(tiny_checkpoint):
    return tiny_checkpoint("vit")


@pytest.fixture(scope="session")
def tiny_dinov2(tiny_checkpoint):
    return tiny_checkpoint("dinov2")


@pytest.fixture(scope="session")
def tiny_resnet(tiny_checkpoint):
    return tiny_checkpoint("resnet")


@pytest.fixture(scope="session")
def tiny_videomae(tiny_checkpoint):
    return tiny_checkpoint("videomae")


@pytest.fixture(scope="session")
def tiny_clip(tiny_checkpoint):
    return tiny_checkpoint("clip")


@pytest.fixture(scope="session")
def tiny_hubert(tiny_checkpoint):
    return tiny_checkpoint("hubert")


@pytest.fixture(scope="session")
def tiny_clap(tiny_checkpoint):
    return tiny_checkpoint("clap")
