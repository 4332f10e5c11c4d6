"""Checks of the contracts of encoders and fusions, of skmm and of users."""

from skmm.testing._discovery import all_estimators
from skmm.testing._encoder_checks import check_encoder
from skmm.testing._fusion_checks import check_fusion

__all__ = ["all_estimators", "check_encoder", "check_fusion"]
