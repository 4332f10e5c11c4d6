"""Ways to split rows that scikit-learn lacks."""

from skmm.model_selection._few_shot import FewShotSplit

__all__ = ["FewShotSplit"]
