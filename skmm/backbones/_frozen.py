"""What the pretrained models of all media share: weights at rest, and one vector a cell."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skmm.backbones._pooling import pool_tokens
from skmm.backbones._protocol import Backbone

__all__ = ["FrozenBackbone"]


class FrozenBackbone(Backbone):
    """A pretrained model with a way to pool.

    The weights may be shared with other instances, so they stay frozen, in eval mode and where
    they are.

    Parameters
    ----------
    tower : Module
        The model.
    pooling : {"mean", "max", "statistics", "cls", "last", "pooler"}
        How the tokens of a cell become one vector; "pooler" is the model's own summary.
    normalize : bool
        Whether that vector gets length 1.
    width : int
        Length of the vectors.
    """

    def __init__(self, tower: nn.Module, *, pooling: str, normalize: bool, width: int):
        super().__init__()
        self.tower = tower
        self.pooling = pooling
        self.normalize = normalize
        self.width = width

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the weights are frozen, and shared."""
        return super().train(False)

    def pooled(self, tokens: Tensor, mask: Tensor, summary: Tensor | None) -> Tensor:
        """Summarise the tokens of each cell, at whatever length.

        Parameters
        ----------
        tokens : Tensor of shape (n_cells, n_tokens, width)
            In float32.
        mask : BoolTensor of shape (n_cells, n_tokens)
            True where the token exists.
        summary : Tensor of shape (n_cells, width) or None
            The model's own, where it has one.

        Returns
        -------
        pooled : Tensor of shape (n_cells, width), twice as wide for "statistics"
            In float32; zeros for a cell without any token.
        """
        if self.pooling != "pooler":
            return pool_tokens(tokens, mask, self.pooling)
        assert summary is not None  # the recipe has checked it
        return torch.where(mask.any(1, keepdim=True), summary.float(), 0.0)

    def scaled(self, pooled: Tensor) -> Tensor:
        """Bring vectors of shape (n_cells, width) to length 1, if that is wanted."""
        return F.normalize(pooled, dim=-1) if self.normalize else pooled
