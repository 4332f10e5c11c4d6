"""Torch modules that turn decoded cells into tokens: pretrained ones and ones to train.

A module reads cells with ``collate`` and gives tokens, a mask and a pooled vector.
"""

from skmm.backbones._cnn import PictureCNN
from skmm.backbones._efficientnet_lite import EfficientNetLite0
from skmm.backbones._gru import WordGRU
from skmm.backbones._module import ModuleBackbone, PictureModule, stack_cells
from skmm.backbones._protocol import Backbone, Encoded
from skmm.backbones._tokens import FeatureTokens
from skmm.backbones._vocabulary import Vocabulary
from skmm.backbones._weights import load_weights

__all__ = [
    "Backbone",
    "EfficientNetLite0",
    "Encoded",
    "FeatureTokens",
    "ModuleBackbone",
    "PictureCNN",
    "PictureModule",
    "Vocabulary",
    "WordGRU",
    "load_weights",
    "stack_cells",
]
