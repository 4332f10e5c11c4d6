"""Contracts that encoders and fusions hold, for those of skmm and for your own."""

from skmm.testing._discovery import all_estimators
from skmm.testing._encoder_checks import check_encoder
from skmm.testing._fusion_checks import check_fusion

__all__ = ["all_estimators", "check_encoder", "check_fusion"]
