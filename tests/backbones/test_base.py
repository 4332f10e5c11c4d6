"""The interface of all backbones."""

import inspect

import pytest
import torch

from skmm import backbones
from skmm.backbones import Backbone, Encoded


def test_collate_and_forward_are_required():
    class Half(Backbone):
        def forward(self, **tensors):
            return Encoded(torch.zeros(1, 1, 2), torch.ones(1, 1).bool(), torch.zeros(1, 2))

    with pytest.raises(TypeError, match="collate"):
        Half()


def test_reconstruction_target_is_optional():
    class Frozen(Backbone):
        width = 2

        def collate(self, cells):
            return {"x": torch.tensor(cells)}

        def forward(self, *, x):
            return Encoded(x[:, None], torch.ones(len(x), 1).bool(), x)

    model = Frozen()
    tensors = model.collate([[1.0, 2.0]])
    tokens, mask, pooled = model(**tensors)
    assert tokens.shape == (1, 1, 2) and mask.all() and pooled.shape == (1, 2)
    with pytest.raises(NotImplementedError, match="Frozen is not trained from scratch"):
        model.reconstruction_target(**tensors)


def test_parameters_are_keyword_only_after_the_first():
    for name in ("ImageCNN", "WordGRU", "FeatureTokens", "EfficientNetLite0"):
        parameters = list(inspect.signature(getattr(backbones, name)).parameters.values())
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:]), name


def test_public_names_exist():
    assert len(backbones.__all__) == len(set(backbones.__all__))
    for name in backbones.__all__:
        assert hasattr(backbones, name)
