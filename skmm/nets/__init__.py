"""Networks that fuse modalities: a dictionary of tokens in, one vector a row out.

Plain ``torch.nn``: nothing here knows of frames, estimators or the rest of skmm.
"""

from skmm.nets._attention import AttentionFusion
from skmm.nets._base import FusionModule
from skmm.nets._concat import ConcatFusion
from skmm.nets._dropout import ModalityDropout
from skmm.nets._gated import GatedFusion
from skmm.nets._low_rank import LowRankFusion
from skmm.nets._max import MaxFusion
from skmm.nets._mean import MeanFusion
from skmm.nets._parts import Head, Projection, masked_max, masked_mean, masked_softmax
from skmm.nets._registry import STRATEGIES, make_fusion

__all__ = [
    "STRATEGIES",
    "AttentionFusion",
    "ConcatFusion",
    "FusionModule",
    "GatedFusion",
    "Head",
    "LowRankFusion",
    "MaxFusion",
    "MeanFusion",
    "ModalityDropout",
    "Projection",
    "make_fusion",
    "masked_max",
    "masked_mean",
    "masked_softmax",
]
