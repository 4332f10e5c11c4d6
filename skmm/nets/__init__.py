"""Networks that fuse modalities: a dictionary of tokens in, one vector a row out.

Plain ``torch.nn``: nothing here knows of frames, estimators or the rest of skmm.
"""

from skmm.nets._attention import AttentionFusion
from skmm.nets._base import FusionModule
from skmm.nets._bilinear import BilinearFusion
from skmm.nets._bottleneck import BottleneckFusion
from skmm.nets._concat import ConcatFusion
from skmm.nets._cross_attention import CrossAttentionFusion
from skmm.nets._cross_gated import CrossGatedFusion
from skmm.nets._dropout import ModalityDropout
from skmm.nets._film import FilmFusion
from skmm.nets._gated import GatedFusion
from skmm.nets._losses import LOSSES, FocalLoss, MarginLoss, SmoothedLoss, make_loss
from skmm.nets._low_rank import LowRankFusion
from skmm.nets._max import MaxFusion
from skmm.nets._mean import MeanFusion
from skmm.nets._ordinal import OrdinalHead, OrdinalLoss
from skmm.nets._parts import Head, Projection, masked_max, masked_mean, masked_softmax
from skmm.nets._registry import STRATEGIES, make_fusion
from skmm.nets._sum import SumFusion
from skmm.nets._task_heads import TaskHeads
from skmm.nets._task_loss import FixedWeights, GradNormWeights, TaskLoss, UncertaintyWeights

__all__ = [
    "LOSSES",
    "STRATEGIES",
    "AttentionFusion",
    "BilinearFusion",
    "BottleneckFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "CrossGatedFusion",
    "FilmFusion",
    "FixedWeights",
    "FocalLoss",
    "FusionModule",
    "GatedFusion",
    "GradNormWeights",
    "Head",
    "LowRankFusion",
    "MarginLoss",
    "MaxFusion",
    "MeanFusion",
    "ModalityDropout",
    "OrdinalHead",
    "OrdinalLoss",
    "Projection",
    "SmoothedLoss",
    "SumFusion",
    "TaskHeads",
    "TaskLoss",
    "UncertaintyWeights",
    "make_fusion",
    "make_loss",
    "masked_max",
    "masked_mean",
    "masked_softmax",
]
