"""Fusion: meta-estimators over (name, transformer, columns) triples."""

from skmm.fusion._early import EarlyFusion
from skmm.fusion._joint_classifier import JointFusionClassifier
from skmm.fusion._joint_regressor import JointFusionRegressor
from skmm.fusion._late_classifier import LateFusionClassifier
from skmm.fusion._late_regressor import LateFusionRegressor
from skmm.fusion._multitask import JointFusionMultiTask

__all__ = [
    "EarlyFusion",
    "JointFusionClassifier",
    "JointFusionMultiTask",
    "JointFusionRegressor",
    "LateFusionClassifier",
    "LateFusionRegressor",
]
