"""What the training of several tasks asks for: targets, weights of rows and of tasks."""

from numbers import Real
from typing import Any

import numpy as np
from torch import nn

from skmm._training._net import TensorDataset
from skmm.fusion._joint import BaseJointFusion
from skmm.fusion._multitask_targets import TaskCodes, resolve_tasks, task_columns

__all__ = ["BaseTaskFusion"]


class BaseTaskFusion(BaseJointFusion):
    """A joint fusion whose target is a frame with a column for each task."""

    tasks: Any
    loss: dict[Any, Any] | None
    loss_params: dict[Any, Any] | None
    loss_weights: Any
    gradnorm_alpha: float
    class_weight: Any
    tasks_: dict[Any, str]
    classes_: dict[Any, np.ndarray]

    def _encode_target(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        owner = type(self).__name__
        columns = task_columns(X, y, self.tasks if anew else self.tasks_, owner)
        tasks = resolve_tasks(self.tasks, columns, owner) if anew else self.tasks_
        for parameter in ("loss", "loss_params", "loss_weights", "class_weight"):
            given = getattr(self, parameter)
            strange = (
                [name for name in given if name not in tasks] if isinstance(given, dict) else []
            )
            if strange:
                raise ValueError(
                    f"{owner}: {parameter} names {strange[0]!r}, which is no task. The tasks are"
                    f" {list(tasks)}."
                )
        self._check_loss_weights(owner)
        code = TaskCodes(owner, tasks) if anew else self._code
        code.set_losses(self.loss or {}, self.loss_params or {})
        target = code.encode(columns, anew=anew, classes=classes or {})
        self._code, self.tasks_ = code, tasks
        self.classes_ = {name: c.classes for name, c in code.codes.items() if not c.is_value}
        return target

    def _check_loss_weights(self, owner: str) -> None:
        if not isinstance(self.loss_weights, dict):
            return
        for name, weight in self.loss_weights.items():
            number = float(weight) if isinstance(weight, Real) else np.nan
            if not 0 <= number < np.inf:
                raise ValueError(
                    f"{owner}: the weight of task {name!r} in loss_weights is {weight!r}. Give a"
                    " number that is at least 0."
                )

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        self._code.set_class_weight(target, self.class_weight)
        known = ~np.isnan(target).all(axis=1)
        if known.all():
            return sample_weight
        # A row without any target has nothing to teach.
        return known * (1.0 if sample_weight is None else sample_weight)

    def _criterion(self) -> nn.Module:
        criterion = self._code.criterion(self.loss_weights, self.gradnorm_alpha)
        if self.loss_weights == "gradnorm":
            shared = list(self.module_.fusion.parameters())
            criterion.balance.watch(shared or self.module_.encoders.parameters())
        return criterion

    def _train(self, train: TensorDataset) -> None:
        super()._train(train)
        balance = self.net_.criterion_.balance
        state = balance.state_dict()
        self._code.balance_state = {key: value.detach().cpu() for key, value in state.items()}
        weights = balance.current().cpu().tolist()
        self.loss_weights_ = dict(zip(self.tasks_, weights, strict=True))
