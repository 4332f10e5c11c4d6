"""Torch modules that turn decoded cells into tokens: pretrained ones and ones to train.

A module reads cells with ``collate`` and gives tokens, a mask and a pooled vector.
"""

from skmm.backbones._audio_resnet import AudioCNN
from skmm.backbones._base import Backbone, Encoded
from skmm.backbones._column_tokens import FeatureTokens
from skmm.backbones._frames import FrameEncoder
from skmm.backbones._image_cnn import ImageCNN
from skmm.backbones._minirocket import MiniRocket
from skmm.backbones._point_descriptor import PointDescriptor
from skmm.backbones._pointnet import PointCloudInputs, PointNet
from skmm.backbones._pretrained._efficientnet import EfficientNetLite0, load_weights
from skmm.backbones._series_networks import InceptionTime, SeriesGRU
from skmm.backbones._spectrogram import MFCC
from skmm.backbones._user_module import (
    AudioModule,
    ImageModule,
    ModuleBackbone,
    PointCloudModule,
    SeriesModule,
    stack_cells,
)
from skmm.backbones._word_gru import Vocabulary, WordGRU

__all__ = [
    "MFCC",
    "Backbone",
    "PointCloudInputs",
    "EfficientNetLite0",
    "Encoded",
    "FeatureTokens",
    "FrameEncoder",
    "InceptionTime",
    "MiniRocket",
    "ModuleBackbone",
    "ImageCNN",
    "ImageModule",
    "PointDescriptor",
    "PointCloudModule",
    "PointNet",
    "SeriesGRU",
    "SeriesModule",
    "AudioCNN",
    "AudioModule",
    "Vocabulary",
    "WordGRU",
    "load_weights",
    "stack_cells",
]
