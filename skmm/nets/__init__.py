"""Networks, losses and layers: fusion of modalities, heads, decoders, generators.

Plain ``torch.nn``: nothing here knows of frames, estimators or the rest of skmm.
"""

from skmm.nets._adversary import Discriminator, OrthogonalMap
from skmm.nets._autoencoder import GivenLoss, SharedAutoencoder
from skmm.nets._contrastive import (
    CONTRASTIVE_LOSSES,
    ContrastiveLoss,
    InfoNCELoss,
    MaxMarginLoss,
    PairwiseContrast,
    SigLIPLoss,
    TripletLoss,
)
from skmm.nets._correlation import CorrelationLoss, CorrelationNet
from skmm.nets._image_networks import GANImageGenerator, ImageDiscriminator, ImageUNet
from skmm.nets._layers import (
    Head,
    ModalityDropout,
    Perceptron,
    Projection,
    TokenMemory,
    masked_max,
    masked_mean,
    masked_softmax,
)
from skmm.nets._losses import (
    LOSSES,
    FocalLoss,
    MarginLoss,
    OrdinalHead,
    OrdinalLoss,
    SmoothedLoss,
    make_loss,
)
from skmm.nets._series_decoders import (
    GRUSeriesDecoder,
    SeriesDecoder,
    SeriesLoss,
    TransformerSeriesDecoder,
)
from skmm.nets._task_loss import (
    FixedWeights,
    GradNormWeights,
    TaskHeads,
    TaskLoss,
    UncertaintyWeights,
)
from skmm.nets._text_decoders import (
    DecoderState,
    GRUDecoder,
    TextDecoder,
    TokenLoss,
    TransformerDecoder,
)
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
from skmm.nets.fusion._unimodal import UnimodalHeads

__all__ = [
    "CONTRASTIVE_LOSSES",
    "LOSSES",
    "AttentionFusionModule",
    "BilinearFusionModule",
    "BottleneckFusionModule",
    "ConcatFusionModule",
    "ContrastiveLoss",
    "CorrelationLoss",
    "CorrelationNet",
    "CrossAttentionFusionModule",
    "CrossGatedFusionModule",
    "DecoderState",
    "Discriminator",
    "FilmFusionModule",
    "FixedWeights",
    "FocalLoss",
    "FusionModule",
    "GANImageGenerator",
    "GRUDecoder",
    "GRUSeriesDecoder",
    "GatedFusionModule",
    "GivenLoss",
    "GradNormWeights",
    "Head",
    "ImageDiscriminator",
    "ImageUNet",
    "InfoNCELoss",
    "LowRankFusionModule",
    "MarginLoss",
    "MaxFusionModule",
    "MaxMarginLoss",
    "MeanFusionModule",
    "ModalityDropout",
    "OrdinalHead",
    "OrdinalLoss",
    "OrthogonalMap",
    "PairwiseContrast",
    "Perceptron",
    "Projection",
    "SeriesDecoder",
    "SeriesLoss",
    "SharedAutoencoder",
    "SigLIPLoss",
    "SmoothedLoss",
    "SumFusionModule",
    "TaskHeads",
    "TaskLoss",
    "TextDecoder",
    "TokenLoss",
    "TokenMemory",
    "TransformerDecoder",
    "TransformerSeriesDecoder",
    "TripletLoss",
    "UncertaintyWeights",
    "UnimodalHeads",
    "make_loss",
    "masked_max",
    "masked_mean",
    "masked_softmax",
]
