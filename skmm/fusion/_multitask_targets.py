"""Targets and outputs of a joint net with several tasks, whose targets may be missing."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_consistent_length
from torch import Tensor, nn

from skmm._frame._column import Column, to_columns
from skmm._frame._types import Frame
from skmm.fusion._targets import ClassTarget, ClassWeight, JointTarget, ValueTarget
from skmm.nets._task_loss import (
    FixedWeights,
    GradNormWeights,
    TaskHeads,
    TaskLoss,
    UncertaintyWeights,
)

__all__ = [
    "LossWeights",
    "MultiTaskTarget",
    "TaskKind",
    "resolve_tasks",
    "score_task",
    "task_columns",
]

TaskKind: TypeAlias = Literal["classification", "regression"]
LossWeights: TypeAlias = Literal["equal", "uncertainty", "gradnorm"] | Mapping[Any, float]

_DEFAULT_LOSS = {"classification": "cross_entropy", "regression": "squared_error"}


class MultiTaskTarget(JointTarget):
    """Target of several tasks, whose outputs are concatenated.

    Parameters
    ----------
    owner : str
        Class of the estimator, for messages.
    kinds : dict of name to {"classification", "regression"}
        Tasks.
    """

    def __init__(self, owner: str, kinds: Mapping[Any, TaskKind]):
        self.owner = owner
        self.kinds = dict(kinds)
        self.targets: dict[Any, ClassTarget | ValueTarget] = {
            name: (ClassTarget if kind == "classification" else ValueTarget)(
                f"{owner}, task {name!r}"
            )
            for name, kind in kinds.items()
        }
        self.balance_state: dict[str, Tensor] | None = None
        self.initial: np.ndarray | None = None

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return sum(task.n_outputs for task in self.targets.values())

    def set_losses(self, losses: Mapping[Any, Any], params: Mapping[Any, Any]) -> None:
        """Set the losses of the next training."""
        for name, task in self.targets.items():
            task.set_loss(losses.get(name) or _DEFAULT_LOSS[self.kinds[name]], params.get(name))

    def encode(
        self, columns: Mapping[Any, Column], *, first: bool, classes: Mapping[Any, ArrayLike]
    ) -> np.ndarray:
        """Check the targets and return (n_samples, n_tasks), NaN where they are missing."""
        n = len(next(iter(columns.values())).values)
        target = np.full((n, len(self.targets)), np.nan)
        for k, (name, task) in enumerate(self.targets.items()):
            column = columns[name]
            rows = np.flatnonzero(~column.missing)
            if not len(rows) and not first:
                continue  # a batch of partial_fit without this task
            if not len(rows) and classes.get(name) is None:
                raise ValueError(
                    f"{task.owner}: no row has a target. Give some, or leave the task out."
                )
            cells = known_cells(column)
            if isinstance(task, ValueTarget):
                self._refuse_no_number(task.owner, cells, rows)
                target[rows, k] = task.encode(cells, cells, first=first)[:, 0]
            else:
                given = classes.get(name)
                known = None if given is None else np.asarray(given)
                target[rows, k] = task.encode(cells, cells, first=first, classes=known)
        return target

    @staticmethod
    def _refuse_no_number(owner: str, cells: np.ndarray, rows: np.ndarray) -> None:
        if cells.dtype.kind not in "biuf":
            strange = next((i for i, c in enumerate(cells) if isinstance(c, str)), 0)
            raise ValueError(
                f"{owner}: a regression, but y holds {cells[strange]!r} in row {rows[strange]} (by"
                " position). Give numbers, or make the task a 'classification'."
            )
        infinite = np.isinf(cells.astype(float))
        if infinite.any():
            raise ValueError(
                f"{owner}: Input y contains infinity, first in row"
                f" {rows[np.flatnonzero(infinite)[0]]} (by position). Make it a number, or missing."
            )

    def _each(
        self, target: np.ndarray
    ) -> Iterator[tuple[int, ClassTarget | ValueTarget, np.ndarray, np.ndarray]]:
        """Yield (position, task, which rows are known, their values)."""
        for k, task in enumerate(self.targets.values()):
            known = ~np.isnan(target[:, k])
            own = target[known, k]
            is_value = isinstance(task, ValueTarget)
            yield k, task, known, own[:, None] if is_value else own.astype(np.int64)

    def learn(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn priors, scales, and the fraction of rows that have each target."""
        weights = np.ones(len(target)) if sample_weight is None else sample_weight
        self.shares = np.ones(len(self.targets))
        total = weights[~np.isnan(target).all(axis=1)].sum()
        for k, task, known, own in self._each(target):
            if len(own) and not weights[known].any():
                raise ValueError(
                    f"{task.owner}: no row that has a target has a positive weight. Give one, or"
                    " leave the task out."
                )
            if isinstance(task, ClassTarget) and not len(own):
                # partial_fit was given the classes, and there is no row of any yet.
                task.prior = np.full(len(task.classes), 1 / len(task.classes))
                continue
            task.learn(own, None if sample_weight is None else sample_weight[known])
            self.shares[k] = weights[known].sum() / total

    def set_class_weight(
        self,
        target: np.ndarray,
        class_weight: Mapping[Any, ClassWeight | None] | Literal["balanced"] | None,
    ) -> None:
        """Set the weights of the classes in the order of the network, and the initial losses."""
        self.class_weights: list[Tensor | None] = []
        initial = []
        for name, (_, task, _, own) in zip(self.targets, self._each(target), strict=True):
            wanted = class_weight.get(name) if isinstance(class_weight, Mapping) else class_weight
            if wanted is None or isinstance(task, ValueTarget):
                self.class_weights.append(None)
            else:
                weights = task.in_net_order(task.class_weights(own, wanted))
                self.class_weights.append(torch.as_tensor(weights, dtype=torch.float32))
            initial.append(self._first_loss(task, own, self.class_weights[-1]))
        if self.initial is None:
            self.initial = np.array(initial)

    @staticmethod
    def _first_loss(
        task: ClassTarget | ValueTarget, own: np.ndarray, class_weights: Tensor | None
    ) -> float:
        """Return the mean loss of an untrained network."""
        if not len(own):
            return 1.0
        outputs = torch.as_tensor(np.tile(task.first_outputs(), (len(own), 1))).float()
        truth = task.tensor(own)
        with torch.no_grad():
            losses = task.criterion()(outputs, truth)
        if class_weights is not None:
            losses = losses * class_weights[truth]
        return float(losses.mean())

    def as_given(self, target: np.ndarray) -> None:
        """Return nothing: a transformer takes one target, and all rows must have it."""

    def tensor(self, target: np.ndarray) -> Tensor:
        """Return the targets as the loss takes them, (n_samples, n_tasks), NaN where missing."""
        columns = torch.full(target.shape, torch.nan)
        for k, task, known, own in self._each(target):
            truth = task.tensor(own).float()
            columns[torch.as_tensor(known), k] = truth[:, 0] if truth.ndim > 1 else truth
        return columns

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Return groups by which targets are known and, if large enough, by a class."""
        pattern = np.unique(~np.isnan(target), axis=0, return_inverse=True)[1].ravel()
        for k, task in enumerate(self.targets.values()):
            if isinstance(task, ClassTarget):
                finer = np.stack([pattern, np.nan_to_num(target[:, k], nan=-1)])
                _, groups, counts = np.unique(
                    finer, axis=1, return_inverse=True, return_counts=True
                )
                return groups.ravel() if counts.min() >= 2 else pattern
        return pattern if len(np.unique(pattern)) > 1 else None

    def head(self, n_components: int, dropout: float) -> nn.Module:
        """Return untrained heads side by side, or one linear map where that will do."""
        if not any(task.is_ordinal for task in self.targets.values()):
            return super().head(n_components, dropout)
        return TaskHeads(task.head(n_components, dropout) for task in self.targets.values())

    def criterion(self, weights: LossWeights = "equal", alpha: float = 1.5) -> TaskLoss:
        """Return the loss of each row, the weighted sum of the losses of the tasks."""
        balance: FixedWeights | UncertaintyWeights | GradNormWeights
        is_value = [isinstance(task, ValueTarget) for task in self.targets.values()]
        if weights == "uncertainty":
            balance = UncertaintyWeights(is_value)
        elif weights == "gradnorm":
            balance = GradNormWeights(torch.as_tensor(self.initial), alpha)
        else:
            given = weights if isinstance(weights, Mapping) else {}
            balance = FixedWeights(
                torch.tensor([float(given.get(name, 1)) for name in self.targets])
            )
        if self.balance_state is not None and not isinstance(balance, FixedWeights):
            balance.load_state_dict(self.balance_state, strict=False)
        return TaskLoss(
            [task.criterion() for task in self.targets.values()],
            [task.n_outputs for task in self.targets.values()],
            is_value,
            torch.as_tensor(self.shares),
            self.class_weights,
            balance,
        )

    def answers(self, outputs: Tensor) -> Tensor:
        """Raise TypeError: the answers of several tasks are not one array."""
        raise TypeError("A joint fusion of several tasks has no single answer to explain.")

    def split(self, outputs: np.ndarray) -> dict[Any, np.ndarray]:
        """Return a copy of the outputs of each task."""
        ends = np.cumsum([task.n_outputs for task in self.targets.values()])[:-1]
        return dict(zip(self.targets, map(np.array, np.split(outputs, ends, axis=1)), strict=True))


def task_columns(
    X: Frame | None, y: ArrayLike | None, tasks: Iterable[Hashable], owner: str
) -> dict[Any, Column]:
    """Return the columns of ``y`` that are targets of ``tasks``, by name.

    Parameters
    ----------
    X : DataFrame or ndarray
        Frame of as many rows; None to leave that out.
    y : DataFrame, Series or array-like
        Targets; columns without names are taken in the order of the tasks.
    tasks : iterable of names, or "auto"
        "auto" takes all columns, by number where they have no names.
    owner : str
        Class of the estimator, for messages.
    """
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None. Give a DataFrame with a"
            " column for each task."
        )
    if isinstance(y, dict):
        raise TypeError(f"{owner}: y is a dict. Give a DataFrame with a column for each task.")
    columns = to_columns(cast("Frame", y))  # what else an array-like may be is refused there
    check_consistent_length(*[c.values for c in columns[:1]], *([] if X is None else [X]))
    automatic = isinstance(tasks, str)
    names = list(range(len(columns))) if automatic else list(tasks)
    if all(column.name is None for column in columns):
        if len(columns) != len(names):
            raise ValueError(
                f"{owner}: y has {len(columns)} columns without names, but there are {len(names)}"
                " tasks. Give a DataFrame with a column for each task."
            )
        return dict(zip(names, columns, strict=True))
    by_name = {column.name: column for column in columns}
    if len(by_name) < len(columns):
        raise ValueError(
            f"{owner}: two columns of y have one name; there are {[c.name for c in columns]}. Give"
            " each its own."
        )
    for name in [] if automatic else names:
        if name not in by_name:
            raise ValueError(
                f"{owner}: y has no column for task {name!r}; it has {list(by_name)}. Add it, all"
                " missing if need be, or leave the task out."
            )
    return by_name if automatic else {name: by_name[name] for name in names}


def resolve_tasks(
    tasks: Mapping[Any, TaskKind] | Literal["auto"], columns: Mapping[Any, Column], owner: str
) -> dict[Any, TaskKind]:
    """Return the kind of each task; ``"auto"`` makes numbers regressions, others classes."""
    if isinstance(tasks, str):
        return {
            name: "regression" if known_cells(column).dtype.kind in "iuf" else "classification"
            for name, column in columns.items()
        }
    if not tasks:
        raise ValueError(f"{owner}: tasks is empty. Name at least one column of y.")
    for name, kind in tasks.items():
        if kind not in _DEFAULT_LOSS:
            raise ValueError(
                f"{owner}: task {name!r} is {kind!r}. It must be 'classification' or 'regression'."
            )
    return dict(tasks)


def known_cells(column: Column) -> np.ndarray:
    """Return the targets that are not missing, in their inferred dtype."""
    known = column.values[~column.missing]
    return pd.Series(known, dtype=object).infer_objects().to_numpy()


def score_task(
    kind: str, column: Column, predicted: np.ndarray, sample_weight: np.ndarray | None
) -> float | None:
    """Return accuracy or R2 on the rows that have the target, None if they are too few."""
    known = ~column.missing
    weights = None if sample_weight is None else sample_weight[known]
    if known.sum() < 1 + (kind == "regression") or (weights is not None and not weights.any()):
        return None
    metric = accuracy_score if kind == "classification" else r2_score
    return float(metric(known_cells(column), predicted[known], sample_weight=weights))
