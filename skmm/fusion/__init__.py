"""Fusion: meta-estimators over (name, transformer, columns) triples."""

from skmm._training import Trainer
from skmm.fusion._early import EarlyFusion
from skmm.fusion._joint_classifier import JointFusionClassifier
from skmm.fusion._joint_multitask import JointFusionMultiTask
from skmm.fusion._joint_regressor import JointFusionRegressor
from skmm.fusion._late_classifier import LateFusionClassifier
from skmm.fusion._late_regressor import LateFusionRegressor
from skmm.fusion._strategies import (
    AttentionFusion,
    BilinearFusion,
    BottleneckFusion,
    ConcatFusion,
    CrossAttentionFusion,
    CrossGatedFusion,
    FilmFusion,
    FusionStrategy,
    GatedFusion,
    LowRankFusion,
    MaxFusion,
    MeanFusion,
    SumFusion,
    make_strategy,
)

__all__ = [
    "AttentionFusion",
    "BilinearFusion",
    "BottleneckFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "CrossGatedFusion",
    "EarlyFusion",
    "FilmFusion",
    "FusionStrategy",
    "GatedFusion",
    "JointFusionClassifier",
    "JointFusionMultiTask",
    "JointFusionRegressor",
    "LateFusionClassifier",
    "LateFusionRegressor",
    "LowRankFusion",
    "MaxFusion",
    "MeanFusion",
    "SumFusion",
    "Trainer",
    "make_strategy",
]
