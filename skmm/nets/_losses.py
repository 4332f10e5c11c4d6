"""Losses of joint networks, one value per row, and the head for ordered classes.

A loss is called with outputs and target and does no reduction. The target is

- classes: int64 of shape (n_rows,), for outputs (n_rows, n_classes);
- labels: float of shape (n_rows, n_labels), 0 or 1, for outputs of the same shape;
- values: float of shape (n_rows, n_targets), for outputs of the same shape.
"""

import copy
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "FocalLoss",
    "LOSSES",
    "MarginLoss",
    "OrdinalHead",
    "OrdinalLoss",
    "RowLoss",
    "SmoothedLoss",
    "make_loss",
]

_SMALLEST_GAP = 1e-3  # between ordinal thresholds, so that no class has probability zero


class FocalLoss(nn.Module):
    """Focal loss: cross-entropy with a low weight for rows that are predicted well.

    With the predicted probability ``p`` of the target it is ``-(1 - p) ** gamma * log(p)`` [1]_,
    by a softmax for classes and a sigmoid for labels.

    Parameters
    ----------
    gamma : float, default=2.0
        Exponent of the weight; 0 is cross-entropy.

    References
    ----------
    .. [1] Lin, Goyal, Girshick, He, Dollár (2017), "Focal loss for dense object detection", ICCV.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._losses import FocalLoss
    >>> FocalLoss(gamma=2.0)(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))  # log(2) / 4
    tensor([0.1733])
    """

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma of the focal loss must be at least 0, got {gamma!r}.")
        self.gamma = gamma

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return losses of the shape of ``target``."""
        if target.is_floating_point():
            log_truth = functional.logsigmoid(outputs * (2 * target - 1))
        else:
            log_truth = -functional.cross_entropy(outputs, target, reduction="none")
        # At 0 the power has an infinite slope if gamma is below 1.
        wrong = (-torch.expm1(log_truth)).clamp(min=1e-12)
        return -(wrong**self.gamma) * log_truth


class SmoothedLoss(nn.Module):
    """Cross-entropy with label smoothing [1]_.

    Parameters
    ----------
    smoothing : float, default=0.1
        Share of the target that is spread over all classes, or over both values of a label.

    References
    ----------
    .. [1] Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), "Rethinking the Inception architecture
       for computer vision", CVPR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._losses import SmoothedLoss
    >>> SmoothedLoss(smoothing=0.2)(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    tensor([0.3486])
    """

    def __init__(self, smoothing: float = 0.1):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, got {smoothing!r}.")
        self.smoothing = smoothing

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return losses of the shape of ``target``."""
        if target.is_floating_point():
            soft = target * (1 - self.smoothing) + self.smoothing / 2
            return functional.binary_cross_entropy_with_logits(outputs, soft, reduction="none")
        return functional.cross_entropy(
            outputs, target, reduction="none", label_smoothing=self.smoothing
        )


class MarginLoss(nn.Module):
    """Hinge loss of the margin between the target class and the best other class [1]_.

    For labels it is the hinge loss of the score, with the sign of the label.

    Parameters
    ----------
    margin : float, default=1.0
        Difference of scores from which on the loss is 0.

    References
    ----------
    .. [1] Crammer, Singer (2001), "On the algorithmic implementation of multiclass kernel-based
       vector machines", JMLR 2.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._losses import MarginLoss
    >>> MarginLoss()(torch.tensor([[0.5, 0.2, 0.0]]), torch.tensor([0]))
    tensor([0.7000])
    """

    def __init__(self, margin: float = 1.0):
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin!r}.")
        self.margin = margin

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return losses of the shape of ``target``."""
        if target.is_floating_point():
            return functional.relu(self.margin - outputs * (2 * target - 1))
        truth = target[:, None]
        rival = outputs.scatter(1, truth, -torch.inf).amax(dim=1)
        return functional.relu(self.margin - outputs.gather(1, truth)[:, 0] + rival)


class OrdinalHead(nn.Module):
    """Head for ordered classes: log-odds of being above each class but the last.

    The cumulative link model with a logistic link [1]_: a class above the k-th has probability
    ``sigmoid(score - threshold[k])``. The thresholds increase by construction, so no class has a
    negative probability.

    Parameters
    ----------
    n_components : int
        Width of the fused vector.
    thresholds : Tensor of shape (n_classes - 1,)
        Increasing initial thresholds.
    dropout : float, default=0.0
        Share of the inputs that is zeroed in training.

    References
    ----------
    .. [1] McCullagh (1980), "Regression models for ordinal data", JRSS B 42.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._losses import OrdinalHead
    >>> OrdinalHead(32, torch.tensor([-1.0, 0.0, 1.0]))(torch.ones(5, 32)).shape
    torch.Size([5, 3])
    """

    def __init__(self, n_components: int, thresholds: Tensor, *, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(n_components, 1, bias=False)  # the first threshold is its bias
        thresholds = thresholds.float()
        gaps = (thresholds.diff() - _SMALLEST_GAP).clamp(min=1e-3)
        self.first = nn.Parameter(thresholds[:1].clone())
        self.gaps = nn.Parameter(gaps + torch.log(-torch.expm1(-gaps)))  # inverse of softplus

    @property
    def thresholds(self) -> Tensor:
        """Increasing thresholds of the score, one between each two neighboring classes."""
        gaps = functional.softplus(self.gaps) + _SMALLEST_GAP
        return torch.cat([self.first, self.first + gaps.cumsum(0)])

    def forward(self, fused: Tensor) -> Tensor:
        """Return log-odds (n_rows, n_classes - 1), which decrease along a row."""
        score: Tensor = self.score(self.dropout(fused))
        return score - self.thresholds


class OrdinalLoss(nn.Module):
    """Negative log-likelihood of the cumulative link model, see :class:`OrdinalHead`.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._losses import OrdinalLoss
    >>> OrdinalLoss()(torch.tensor([[1.0, -1.0]]), torch.tensor([1]))  # -log(.731 - .269)
    tensor([0.7719])
    """

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return losses (n_rows,) for log-odds (n_rows, n_classes - 1) and classes (n_rows,)."""
        edge = outputs.new_full((len(outputs), 1), torch.inf)
        odds = torch.cat([edge, outputs, -edge], dim=1)
        above_lower = odds.gather(1, target[:, None])[:, 0]  # log-odds of not being below
        above_upper = odds.gather(1, target[:, None] + 1)[:, 0]
        # log(sigmoid(a) - sigmoid(b)) for a > b, as a product to avoid cancellation.
        inside = torch.isfinite(above_lower) & torch.isfinite(above_upper)
        gap = torch.where(inside, above_lower, 1.0) - torch.where(inside, above_upper, 0.0)
        overlap = torch.where(inside, torch.log(-torch.expm1(-gap.clamp(min=1e-6))), 0.0)
        return -(_log_sigmoid(above_lower) + _log_sigmoid(-above_upper) + overlap)


def _log_sigmoid(odds: Tensor) -> Tensor:
    """Compute the log of the sigmoid, 0 at infinity, with a finite gradient."""
    finite = torch.isfinite(odds)
    return torch.where(finite, functional.logsigmoid(torch.where(finite, odds, 0.0)), 0.0)


class RowLoss(nn.Module):
    """Copy of a user's loss, with a check that it returns one value per row or output.

    Parameters
    ----------
    loss : nn.Module
        Called with outputs and target; returns a Tensor of shape (n_rows,) or of the target's.
    """

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = copy.deepcopy(loss)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return losses of shape (n_rows,) or (n_rows, n_outputs)."""
        losses: Tensor = self.loss(outputs, target)
        if losses.ndim not in (1, 2) or len(losses) != len(outputs):
            raise ValueError(
                f"loss {type(self.loss).__name__} returned a tensor of shape {tuple(losses.shape)}"
                f" for {len(outputs)} rows, but must return a value for each row. Build it with"
                " reduction='none'."
            )
        return losses


def _plain(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: kind(reduction="none")


def _huber(delta: float = 1.0) -> nn.Module:
    if not delta > 0:
        raise ValueError(f"delta of the Huber loss must be positive, got {delta!r}.")
    return nn.HuberLoss(delta=delta, reduction="none")


# Kind of target -> name -> function that builds the loss from its parameters.
LOSSES: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "classes": {
        "cross_entropy": _plain(nn.CrossEntropyLoss),
        "focal": FocalLoss,
        "label_smoothing": SmoothedLoss,
        "max_margin": MarginLoss,
        "ordinal": OrdinalLoss,
    },
    "labels": {
        "cross_entropy": _plain(nn.BCEWithLogitsLoss),
        "focal": FocalLoss,
        "label_smoothing": SmoothedLoss,
        "max_margin": MarginLoss,
    },
    "values": {
        "squared_error": _plain(nn.MSELoss),
        "huber": _huber,
        "absolute_error": _plain(nn.L1Loss),
    },
}


def make_loss(loss: str | nn.Module, kind: str, **params: object) -> nn.Module:
    """Build a loss that returns one value per row.

    Parameters
    ----------
    loss : str or nn.Module
        A name in ``LOSSES[kind]``, or a loss of which a copy is used.
    kind : {"classes", "labels", "values"}
        Kind of target.
    **params : object
        Parameters of a named loss, such as ``gamma``.

    Returns
    -------
    loss : nn.Module
        From outputs and target to losses of shape (n_rows,) or (n_rows, n_outputs).

    Examples
    --------
    >>> from skmm.nets._losses import make_loss
    >>> make_loss("focal", "classes", gamma=1.0).gamma
    1.0
    >>> make_loss("huber", "values", gamma=1.0)
    Traceback (most recent call last):
    ...
    ValueError: loss 'huber' takes no parameter 'gamma'. It takes delta.
    """
    if isinstance(loss, nn.Module):
        if params:
            raise ValueError(
                f"loss is a ready-made {type(loss).__name__}, which takes no loss_params, got"
                f" {sorted(params)}. Build it with them."
            )
        return RowLoss(loss)
    if loss not in LOSSES[kind]:
        raise ValueError(
            f"loss {loss!r} is not available for {kind}. Use one of {sorted(LOSSES[kind])}, or an"
            " nn.Module."
        )
    factory = LOSSES[kind][loss]
    known = list(inspect.signature(factory).parameters)
    for name in params:
        if name not in known:
            raise ValueError(
                f"loss {loss!r} takes no parameter {name!r}."
                f" It takes {', '.join(known) if known else 'none'}."
            )
    return factory(**params)
