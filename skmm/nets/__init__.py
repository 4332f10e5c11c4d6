"""Networks that fuse modalities: a dictionary of tokens in, one vector a row out.

Plain ``torch.nn``: nothing here knows of frames, estimators or the rest of skmm.
"""

from skmm.nets._adversary import Discriminator, OrthogonalMap
from skmm.nets._autoencoder import GivenLoss, SharedAutoencoder
from skmm.nets._concat import ConcatFusion
from skmm.nets._contrastive import (
    CONTRASTIVE_LOSSES,
    ContrastiveLoss,
    InfoNCELoss,
    MaxMarginLoss,
    SigLIPLoss,
    TripletLoss,
)
from skmm.nets._contrastive_pairs import PairwiseContrast
from skmm.nets._correlation import CorrelationLoss, CorrelationNet
from skmm.nets._cross_gated import CrossGatedFusion
from skmm.nets._dropout import ModalityDropout
from skmm.nets._gru_decoder import GRUDecoder
from skmm.nets._image_networks import PictureUNet
from skmm.nets._layers import Head, Projection, masked_max, masked_mean, masked_softmax
from skmm.nets._losses import LOSSES, FocalLoss, MarginLoss, SmoothedLoss, make_loss
from skmm.nets._low_rank import LowRankFusion
from skmm.nets._max import MaxFusion
from skmm.nets._ordinal import OrdinalHead, OrdinalLoss
from skmm.nets._perceptron import Perceptron
from skmm.nets._picture_discriminator import PictureDiscriminator
from skmm.nets._picture_generator import PictureGenerator
from skmm.nets._series_decoders import SeriesDecoder
from skmm.nets._series_gru import GRUSeriesDecoder
from skmm.nets._series_loss import SeriesLoss
from skmm.nets._series_transformer import TransformerSeriesDecoder
from skmm.nets._sum import SumFusion
from skmm.nets._task_heads import TaskHeads
from skmm.nets._task_loss import FixedWeights, GradNormWeights, TaskLoss, UncertaintyWeights
from skmm.nets._text_decoders import DecoderState, TextDecoder
from skmm.nets._token_loss import TokenLoss
from skmm.nets._token_memory import TokenMemory
from skmm.nets._transformer_decoder import TransformerDecoder
from skmm.nets.fusion._attention import AttentionFusion
from skmm.nets.fusion._base import FusionModule
from skmm.nets.fusion._bottleneck import BottleneckFusion
from skmm.nets.fusion._cross_attention import CrossAttentionFusion
from skmm.nets.fusion._film import FilmFusion
from skmm.nets.fusion._gated import GatedFusion
from skmm.nets.fusion._pooling import MeanFusion
from skmm.nets.fusion._products import BilinearFusion
from skmm.nets.fusion._registry import STRATEGIES, make_fusion
from skmm.nets.fusion._unimodal import UnimodalHeads

__all__ = [
    "CONTRASTIVE_LOSSES",
    "LOSSES",
    "STRATEGIES",
    "AttentionFusion",
    "BilinearFusion",
    "BottleneckFusion",
    "ConcatFusion",
    "ContrastiveLoss",
    "CorrelationLoss",
    "CorrelationNet",
    "CrossAttentionFusion",
    "CrossGatedFusion",
    "DecoderState",
    "Discriminator",
    "FilmFusion",
    "FixedWeights",
    "FocalLoss",
    "FusionModule",
    "GRUDecoder",
    "GRUSeriesDecoder",
    "GatedFusion",
    "GivenLoss",
    "GradNormWeights",
    "Head",
    "InfoNCELoss",
    "LowRankFusion",
    "MarginLoss",
    "MaxFusion",
    "MaxMarginLoss",
    "MeanFusion",
    "ModalityDropout",
    "OrdinalHead",
    "OrdinalLoss",
    "OrthogonalMap",
    "PairwiseContrast",
    "Perceptron",
    "PictureDiscriminator",
    "PictureGenerator",
    "PictureUNet",
    "Projection",
    "SeriesDecoder",
    "SeriesLoss",
    "SharedAutoencoder",
    "SigLIPLoss",
    "SmoothedLoss",
    "SumFusion",
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
    "make_fusion",
    "make_loss",
    "masked_max",
    "masked_mean",
    "masked_softmax",
]
