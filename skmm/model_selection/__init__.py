"""Splitters, and checks for leakage between training and test rows."""

from skmm.model_selection._few_shot import FewShotSplit
from skmm.model_selection._group_leakage import check_group_leakage, group_by_content

__all__ = ["FewShotSplit", "check_group_leakage", "group_by_content"]
