"""Classes in an order: one score and the thresholds between neighbours.

The cumulative link model with a logistic link [1]_: a class above the k-th has probability
``sigmoid(score - threshold[k])``. The thresholds rise by construction, so every class has a
probability that is not negative.

.. [1] McCullagh (1980), "Regression models for ordinal data", JRSS B 42.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["OrdinalHead", "OrdinalLoss"]

_SMALLEST_GAP = 1e-3  # between thresholds: a class has a share that is not zero


class OrdinalHead(nn.Module):
    """From the fused vector to the log-odds of being above each class but the last.

    Parameters
    ----------
    n_components : int
        Length of the fused vector.
    thresholds : Tensor of shape (n_classes - 1,)
        Rising; where training starts.
    dropout : float, default=0.0
        Share of the inputs that is zeroed in training.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import OrdinalHead
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
        self.gaps = nn.Parameter(gaps + torch.log(-torch.expm1(-gaps)))  # softplus, undone

    @property
    def thresholds(self) -> Tensor:
        """Rising values of the score, one between each pair of neighbours."""
        gaps = functional.softplus(self.gaps) + _SMALLEST_GAP
        return torch.cat([self.first, self.first + gaps.cumsum(0)])

    def forward(self, fused: Tensor) -> Tensor:
        """Return log-odds (n_rows, n_classes - 1), which fall along a row."""
        return self.score(self.dropout(fused)) - self.thresholds


class OrdinalLoss(nn.Module):
    """Negative log-likelihood of the cumulative link model.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import OrdinalLoss
    >>> OrdinalLoss()(torch.tensor([[1.0, -1.0]]), torch.tensor([1]))  # -log(.731 - .269)
    tensor([0.7719])
    """

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return losses (n_rows,) for log-odds (n_rows, n_classes - 1) and classes (n_rows,)."""
        edge = outputs.new_full((len(outputs), 1), torch.inf)
        odds = torch.cat([edge, outputs, -edge], dim=1)
        above_lower = odds.gather(1, target[:, None])[:, 0]  # log-odds of not being below
        above_upper = odds.gather(1, target[:, None] + 1)[:, 0]
        # log(sigmoid(a) - sigmoid(b)), which cancels, as a product: a > b.
        inside = torch.isfinite(above_lower) & torch.isfinite(above_upper)
        gap = torch.where(inside, above_lower, 1.0) - torch.where(inside, above_upper, 0.0)
        overlap = torch.where(inside, torch.log(-torch.expm1(-gap.clamp(min=1e-6))), 0.0)
        return -(_log_sigmoid(above_lower) + _log_sigmoid(-above_upper) + overlap)


def _log_sigmoid(odds: Tensor) -> Tensor:
    """Log of the sigmoid, 0 at infinity with a gradient that is no NaN."""
    finite = torch.isfinite(odds)
    return torch.where(finite, functional.logsigmoid(torch.where(finite, odds, 0.0)), 0.0)
