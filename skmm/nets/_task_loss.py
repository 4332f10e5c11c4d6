"""Multi-task learning: weights of the tasks, their common loss, and their heads."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "FixedWeights",
    "GradNormWeights",
    "TaskHeads",
    "TaskLoss",
    "UncertaintyWeights",
]

# The optimizer changes each parameter by about its learning rate per step, and a log-variance must
# change more than a weight.
_PACE = 10.0
_GRADNORM_RATE = 0.025  # as in the paper


class FixedWeights(nn.Module):
    """Given weights of the tasks.

    Parameters
    ----------
    weights : Tensor of shape (n_tasks,)
        Nonnegative weights.
    """

    weights: Tensor

    def __init__(self, weights: Tensor):
        super().__init__()
        self.register_buffer("weights", weights.float())

    def current(self) -> Tensor:
        """Return the weights (n_tasks,)."""
        return self.weights

    def for_evaluation(self) -> Tensor:
        """Return the weights (n_tasks,) of the loss that early stopping monitors."""
        return self.weights

    def forward(self, losses: Tensor, known: Tensor) -> Tensor:
        """Return (n_rows,) from losses and what is known, both (n_rows, n_tasks)."""
        return losses @ self.weights


class UncertaintyWeights(nn.Module):
    """Weights of the tasks by their noise, which is learned [1]_.

    With a log-variance ``s`` of each task, the term of its loss ``L`` is ``exp(-s) * L + s / 2``
    for classes and ``exp(-s) * L / 2 + s / 2`` for values.

    Parameters
    ----------
    is_value : sequence of bool
        Which tasks are regressions.

    References
    ----------
    .. [1] Kendall, Gal, Cipolla (2018), "Multi-task learning using uncertainty to weigh losses for
       scene geometry and semantics", CVPR.
    """

    factor: Tensor

    def __init__(self, is_value: Sequence[bool]):
        super().__init__()
        factor = torch.where(torch.tensor(list(is_value)), 0.5, 1.0)
        self.register_buffer("factor", factor)
        self.scaled = nn.Parameter(torch.zeros(len(factor)))

    @property
    def log_variances(self) -> Tensor:
        """Logarithms of the noise variances (n_tasks,)."""
        return _PACE * self.scaled

    def current(self) -> Tensor:
        """Return the weights (n_tasks,)."""
        return self.factor * torch.exp(-self.log_variances.detach())

    def for_evaluation(self) -> Tensor:
        """Return ones: losses of two epochs are compared by the same weights."""
        return torch.ones_like(self.factor)

    def forward(self, losses: Tensor, known: Tensor) -> Tensor:
        """Return (n_rows,) from losses and what is known, both (n_rows, n_tasks)."""
        weighted = self.factor * torch.exp(-self.log_variances) * losses
        return (weighted + self.log_variances / 2).sum(dim=1)


class GradNormWeights(nn.Module):
    """Weights of the tasks by gradient normalization (GradNorm) [1]_.

    After each batch the task weights ``w`` take a gradient step that reduces the sum over tasks of
    ``abs(G - mean(G) * r ** alpha)``, where ``G`` is the norm of the gradient of ``w * L`` with
    respect to the shared weights, and ``r`` the ratio of the loss to its initial value, relative to
    the mean of the tasks. The step is in ``log(w)`` and divided by ``mean(G)``, so weights stay
    positive and the unit of a loss has no effect. The weights sum to the number of tasks.

    Parameters
    ----------
    initial : Tensor of shape (n_tasks,)
        Loss of each task before training.
    alpha : float, default=1.5
        How much larger the gradients of tasks with a slowly decreasing loss are.

    References
    ----------
    .. [1] Chen, Badrinarayanan, Lee, Rabinovich (2018), "GradNorm: gradient normalization for
       adaptive loss balancing in deep multitask networks", ICML.
    """

    initial: Tensor
    weights: Tensor

    def __init__(self, initial: Tensor, alpha: float = 1.5):
        super().__init__()
        self.alpha = alpha
        self.register_buffer("initial", initial.float().clamp(min=1e-12))
        self.register_buffer("weights", torch.ones(len(initial)))
        self._shared: tuple[Tensor, ...] = ()

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """Set the weights that the tasks share; without any, the tasks keep weight 1."""
        self._shared = tuple(p for p in parameters if p.requires_grad)

    def current(self) -> Tensor:
        """Return the weights (n_tasks,)."""
        return self.weights

    def for_evaluation(self) -> Tensor:
        """Return ones: losses of two epochs are compared by the same weights."""
        return torch.ones_like(self.weights)

    def forward(self, losses: Tensor, known: Tensor) -> Tensor:
        """Return (n_rows,) from losses and what is known, both (n_rows, n_tasks)."""
        total = losses @ self.weights  # with the weights before the step, as in the paper
        there = torch.nonzero(known.any(dim=0))[:, 0]
        if self._shared and losses.requires_grad and len(there) > 1:
            self._step(losses[:, there].sum(dim=0) / known[:, there].sum(dim=0), there)
        return total

    def _step(self, losses: Tensor, there: Tensor) -> None:
        """Update the weights of the tasks that have targets in this batch."""
        norms = torch.stack([self._norm(loss) for loss in losses])
        weights = self.weights[there]
        pulls = weights * norms
        if not torch.isfinite(pulls).all() or not pulls.any():
            return
        ratios = losses.detach() / self.initial[there]
        goals = pulls.mean() * (ratios / ratios.mean().clamp(min=1e-12)) ** self.alpha
        slope = torch.sign(pulls - goals) * pulls / pulls.mean()
        moved = self.weights.clone()
        moved[there] = weights * torch.exp(-_GRADNORM_RATE * slope)
        self.weights = moved * (len(moved) / moved.sum())

    def _norm(self, loss: Tensor) -> Tensor:
        slopes = torch.autograd.grad(loss, self._shared, retain_graph=True, allow_unused=True)
        squares = [slope.square().sum() for slope in slopes if slope is not None]
        return torch.stack(squares).sum().sqrt() if squares else loss.new_zeros(())


class TaskLoss(nn.Module):
    """Weighted sum of the losses of several tasks.

    The losses of a task are divided by the share of the rows that have its target, so that the
    number of known targets does not change the weight of a task.

    Parameters
    ----------
    losses : sequence of nn.Module
        One per task, from outputs and target to losses of the rows.
    widths : sequence of int
        Number of outputs of each task.
    is_value : sequence of bool
        Whether the target of a task is a value; otherwise it is a class.
    shares : Tensor of shape (n_tasks,)
        Share of the training rows that have the target of each task.
    class_weights : sequence of Tensor or None
        Weights of the classes of each task.
    balance : FixedWeights, UncertaintyWeights or GradNormWeights
        Weights of the tasks.
    """

    shares: Tensor

    def __init__(
        self,
        losses: Sequence[nn.Module],
        widths: Sequence[int],
        is_value: Sequence[bool],
        shares: Tensor,
        class_weights: Sequence[Tensor | None],
        balance: FixedWeights | UncertaintyWeights | GradNormWeights,
    ):
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.widths = list(widths)
        self.is_value = list(is_value)
        self.register_buffer("shares", shares.float())
        for k, weights in enumerate(class_weights):
            self.register_buffer(f"class_weights_{k}", weights)
        self.balance = balance

    def rows(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses, 0 where the target is unknown, and which are known; (n_rows, n_tasks)."""
        known = ~target.isnan()
        columns = []
        for k, own in enumerate(torch.split(outputs, self.widths, dim=1)):
            truth = torch.where(known[:, k], target[:, k], 0.0)
            column = self._column(k, own, truth)
            columns.append(torch.where(known[:, k], column, 0.0))
        return torch.stack(columns, dim=1), known

    def alone(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and score (n_rows,) of other outputs, without an update of task weights.

        The score is the mean over known targets of the exponential of the negative loss.
        """
        losses, known = self.rows(outputs, target)
        scores = torch.where(known, torch.exp(-losses.detach()), 0.0).sum(dim=1)
        weighted = (losses / self.shares) @ self.balance.current()
        return weighted, scores / known.sum(dim=1).clamp(min=1)

    def _column(self, k: int, outputs: Tensor, truth: Tensor) -> Tensor:
        losses: Tensor
        if self.is_value[k]:
            losses = self.losses[k](outputs, truth[:, None])
            return losses.mean(dim=1) if losses.ndim > 1 else losses
        classes = truth.long()
        losses = self.losses[k](outputs, classes)
        weights: Tensor | None = getattr(self, f"class_weights_{k}")
        return losses if weights is None else losses * weights[classes]

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, (n_rows,), from a target (n_rows, n_tasks) with NaN."""
        losses, known = self.rows(outputs, target)
        if self.training:
            total: Tensor = self.balance(losses / self.shares, known)
            return total
        return (losses / self.shares) @ self.balance.for_evaluation()


class TaskHeads(nn.Module):
    """Several heads over one fused vector, whose outputs are concatenated.

    Parameters
    ----------
    heads : iterable of nn.Module
        One per task, from (n_rows, n_components) to (n_rows, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import Head
    >>> from skmm.nets._task_loss import TaskHeads
    >>> TaskHeads([Head(32, 3), Head(32, 1)])(torch.ones(5, 32)).shape
    torch.Size([5, 4])
    """

    def __init__(self, heads: Iterable[nn.Module]):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, fused: Tensor) -> Tensor:
        """Return the outputs, (n_rows, sum of n_outputs)."""
        return torch.cat([head(fused) for head in self.heads], dim=1)
