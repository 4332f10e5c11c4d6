"""Inspection: what each modality is worth to an estimator, and what its loss costs."""

from skmm.inspection._curve import missing_modality_curve
from skmm.inspection._fusion_report import fusion_report
from skmm.inspection._report import FusionReport

__all__ = ["FusionReport", "fusion_report", "missing_modality_curve"]
