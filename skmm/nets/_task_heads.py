"""Heads side by side, where one linear map for all tasks will not do."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["TaskHeads"]


class TaskHeads(nn.Module):
    """Outputs of several heads over one fused vector, side by side.

    Parameters
    ----------
    heads : iterable of nn.Module
        From (n_rows, n_components) to (n_rows, n_outputs of the task).

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import Head, TaskHeads
    >>> TaskHeads([Head(32, 3), Head(32, 1)])(torch.ones(5, 32)).shape
    torch.Size([5, 4])
    """

    def __init__(self, heads: Iterable[nn.Module]):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, fused: Tensor) -> Tensor:
        """Return the outputs, (n_rows, sum of n_outputs)."""
        return torch.cat([head(fused) for head in self.heads], dim=1)
