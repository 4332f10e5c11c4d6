"""Networks that fuse modalities, and the base classes of a network or loss of your own.

Plain ``torch.nn``: nothing in this package depends on frames, estimators or the rest of skmm.
Heads, losses, decoders and generators are private; skmm imports them from their modules.
"""

from skmm.nets._contrastive import ContrastiveLoss
from skmm.nets._layers import ModalityDropout
from skmm.nets.fusion._attention import AttentionFusionModule
from skmm.nets.fusion._base import FusionModule
from skmm.nets.fusion._bottleneck import BottleneckFusionModule
from skmm.nets.fusion._cross_attention import CrossAttentionFusionModule
from skmm.nets.fusion._film import FilmFusionModule
from skmm.nets.fusion._gated import CrossGatedFusionModule, GatedFusionModule
from skmm.nets.fusion._pooling import (
    ConcatFusionModule,
    MaxFusionModule,
    MeanFusionModule,
    SumFusionModule,
)
from skmm.nets.fusion._products import BilinearFusionModule, LowRankFusionModule

__all__ = [
    "AttentionFusionModule",
    "BilinearFusionModule",
    "BottleneckFusionModule",
    "ConcatFusionModule",
    "ContrastiveLoss",
    "CrossAttentionFusionModule",
    "CrossGatedFusionModule",
    "FilmFusionModule",
    "FusionModule",
    "GatedFusionModule",
    "LowRankFusionModule",
    "MaxFusionModule",
    "MeanFusionModule",
    "ModalityDropout",
    "SumFusionModule",
]


def __dir__() -> list[str]:
    return sorted(__all__)
