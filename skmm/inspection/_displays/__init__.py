"""Plots of what inspection finds, as scikit-learn's displays."""

from skmm.inspection._displays._alignment_map import AlignmentMapDisplay
from skmm.inspection._displays._fusion_report import FusionReportDisplay
from skmm.inspection._displays._history import TrainingHistoryDisplay
from skmm.inspection._displays._importance import ModalityImportanceDisplay
from skmm.inspection._displays._missing import MissingModalityCurveDisplay
from skmm.inspection._displays._retrieval import RetrievalDisplay
from skmm.inspection._displays._shapley import ModalityShapleyDisplay
from skmm.inspection._displays._tokens import TokenAttributionDisplay

__all__ = [
    "AlignmentMapDisplay",
    "FusionReportDisplay",
    "MissingModalityCurveDisplay",
    "ModalityImportanceDisplay",
    "ModalityShapleyDisplay",
    "RetrievalDisplay",
    "TokenAttributionDisplay",
    "TrainingHistoryDisplay",
]
