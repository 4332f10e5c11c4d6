"""Inspection: how much each modality contributes to an estimator, and plots of it."""

from skmm.inspection._comparison import FusionReport
from skmm.inspection._curve import missing_modality_curve
from skmm.inspection._displays import (
    AlignmentMapDisplay,
    FusionReportDisplay,
    MissingModalityCurveDisplay,
    ModalityImportanceDisplay,
    ModalityShapleyDisplay,
    RetrievalDisplay,
    TokenAttributionDisplay,
    TrainingHistoryDisplay,
)
from skmm.inspection._fusion_report import fusion_report
from skmm.inspection._importance import modality_importance
from skmm.inspection._shapley import modality_shapley
from skmm.inspection._token_attribution import token_attribution
from skmm.inspection._weights import modality_weights

__all__ = [
    "AlignmentMapDisplay",
    "FusionReport",
    "FusionReportDisplay",
    "MissingModalityCurveDisplay",
    "ModalityImportanceDisplay",
    "ModalityShapleyDisplay",
    "RetrievalDisplay",
    "TokenAttributionDisplay",
    "TrainingHistoryDisplay",
    "fusion_report",
    "missing_modality_curve",
    "modality_importance",
    "modality_shapley",
    "modality_weights",
    "token_attribution",
]
