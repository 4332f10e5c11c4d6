"""Pretrained models as the tests open them."""

import numpy as np
import pytest
import torch

from skmm.backbones._pretrained import _loading
from skmm.backbones._pretrained._checkpoint import resolve_checkpoint
from skmm.backbones._pretrained._loading import describe, load_backbone


@pytest.fixture
def open_backbone():
    """``open_backbone(folder, "text", **options)`` on the CPU, in float32 if not told."""

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
    """Of any sizes, one of 3 rows, one read-only."""
    rng = np.random.default_rng(0)
    shapes = [(40, 30, 3), (32, 32, 3), (3, 50, 3), (1, 1, 3)]
    made = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    made[0].setflags(write=False)
    return made


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is kept from other tests."""
    monkeypatch.setattr(_loading, "_TOWERS", _loading.Shelf(4))
    monkeypatch.setattr(_loading, "_RECIPES", _loading.Shelf(16))
