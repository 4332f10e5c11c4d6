"""Splitters beyond those of scikit-learn, and checks of what a split leaks."""

from skmm.model_selection._few_shot import FewShotSplit
from skmm.model_selection._group_leakage import check_group_leakage, group_by_content

__all__ = ["FewShotSplit", "check_group_leakage", "group_by_content"]
