"""What the training for classes and labels asks for: targets and weights of rows."""

from typing import Any

import numpy as np

from skmm.fusion._joint import BaseJointFusion
from skmm.fusion._label_code import LabelCode, is_indicator
from skmm.fusion._targets import ClassCode

__all__ = ["BaseClassFusion", "has_margins", "has_probabilities"]


def has_probabilities(fusion: Any) -> bool:
    """Whether the loss makes probabilities of the outputs; raises where it does not."""
    if has_margins(fusion):
        raise AttributeError(
            f"{type(fusion).__name__} gives no probabilities with loss='max_margin': its margins"
            " are none. Wrap it in sklearn.calibration.CalibratedClassifierCV, or use another loss."
        )
    return True


def has_margins(fusion: Any) -> bool:
    """Whether the outputs are margins."""
    return isinstance(fusion.loss, str) and fusion.loss == "max_margin"


class BaseClassFusion(BaseJointFusion):
    """A joint fusion whose target is a class or any number of labels."""

    loss: Any
    loss_params: dict[str, Any] | None
    class_weight: Any
    classes_: np.ndarray

    def _encode_target(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        code = (
            self._code
            if not anew
            else (LabelCode if is_indicator(y) else ClassCode)(type(self).__name__)
        )
        code.set_loss(self.loss, self.loss_params)
        target = code.encode(X, y, anew=anew, classes=classes)
        self._code, self.classes_ = code, code.classes
        return target

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        if isinstance(self._code, LabelCode):
            self._code.set_class_weight(target, self.class_weight)
            return sample_weight
        if self.class_weight is None:
            return sample_weight
        weights = self._code.class_weights(target, self.class_weight)[target]
        return weights if sample_weight is None else weights * sample_weight
