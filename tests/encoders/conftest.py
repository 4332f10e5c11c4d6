"""Fixtures of the encoders' tests."""

import pytest

from skmm import config_context
from skmm.encoders import EmbeddingStore


@pytest.fixture(autouse=True)
def _on_the_cpu():
    """A GPU computes in half precision by default, and these tests compare digits."""
    with config_context(device="cpu"):
        yield


@pytest.fixture
def store(tmp_path):
    """A store of the test's own, so that its counters are too."""
    store = EmbeddingStore(tmp_path / "store")
    with config_context(store=store.folder):
        yield store
    store.close()
