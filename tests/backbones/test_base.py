"""The interface of all backbones."""

import inspect

import pytest
import torch

from skmm.backbones import Backbone, Encoded
from skmm.backbones._column_tokens import FeatureTokens
from skmm.backbones._image_cnn import ImageCNN
from skmm.backbones._pretrained._efficientnet import EfficientNetLite0
from skmm.backbones._word_gru import WordGRU


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
    for cls in (ImageCNN, WordGRU, FeatureTokens, EfficientNetLite0):
        parameters = list(inspect.signature(cls).parameters.values())
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:]), cls
