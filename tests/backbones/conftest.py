"""Fixtures that open pretrained models."""

import numpy as np
import pytest
import torch

from skmm.backbones._pretrained import _loading
from skmm.backbones._pretrained._checkpoint import resolve_checkpoint
from skmm.backbones._pretrained._loading import describe, load_backbone


@pytest.fixture
def open_backbone():
    """``open_backbone(folder, "text", **options)`` on the CPU, by default in float32."""

    def open_it(model, modality, *, dtype=torch.float32, **options):
        checkpoint = resolve_checkpoint(model, modality=modality, needed_by="Encoder")
        device = torch.device("cpu")
        return load_backbone(checkpoint, modality=modality, device=device, dtype=dtype, **options)

    return open_it


@pytest.fixture
def describe_model():
    """``describe_model(folder, "text", **options)``."""

    def describe_it(model, modality, **options):
        checkpoint = resolve_checkpoint(model, modality=modality, needed_by="Encoder")
        return describe(checkpoint, modality, **options)

    return describe_it


@pytest.fixture
def encode():
    """``encode(backbone, cells)`` without gradients."""

    def encode_them(backbone, cells):
        with torch.no_grad():
            return backbone(**backbone.collate(cells))

    return encode_them


@pytest.fixture
def images():
    """Images of several sizes, one of 3 rows, one read-only."""
    rng = np.random.default_rng(0)
    shapes = [(40, 30, 3), (32, 32, 3), (3, 50, 3), (1, 1, 3)]
    made = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    made[0].setflags(write=False)
    return made


@pytest.fixture
def fresh(monkeypatch):
    """Empty caches of models and recipes."""
    monkeypatch.setattr(_loading, "_TOWERS", _loading.LRUCache(4))
    monkeypatch.setattr(_loading, "_RECIPES", _loading.LRUCache(16))
