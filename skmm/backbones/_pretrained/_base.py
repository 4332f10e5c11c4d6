"""What the pretrained models of all media share: weights at rest, and one vector a cell."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skmm.backbones._base import Backbone, pool_tokens

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

    Attributes
    ----------
    looks_again : bool
        Whether what goes on from the middle of the model needs the cells once more.

    Notes
    -----
    To train some of the weights, other towers go into copies of this module (``with_tower``):
    ``Lower`` and ``Upper`` of ``_splitting``. What differs between media is asked of these verbs:
    ``trial``, ``below``, ``remainder``, ``above`` and ``trimmed``.
    """

    looks_again: ClassVar[bool] = False

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
        """Summarize the tokens of each cell, at whatever length.

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

    def with_tower(self, tower: nn.Module) -> Self:
        """Return a copy around another model; this one is untouched."""
        new = copy.copy(self)
        new._modules = {**self._modules, "tower": tower}
        return new

    # --- where the model is cut in two ----------------------------------------------------

    def trial(self) -> list[Any]:
        """Give two small cells, on which a cut can be tried."""
        raise NotImplementedError

    def below(self, **tensors: Tensor) -> list[np.ndarray]:
        """Give what is stored of each cell, if the tower is the ``Lower`` part of the model.

        Parameters
        ----------
        **tensors : Tensor of shape (n_cells, ...)
            What ``collate`` gave.

        Returns
        -------
        arrays : list of ndarray, float32
            What goes into the first block of the ``Upper`` part.
        """
        return list(_to_numpy(self.tower(**tensors)[0]))

    def remainder(self, tower: nn.Module) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """Say what of a model has to be run to go on from its middle.

        Parameters
        ----------
        tower : nn.Module
            With the structure of the tower of this module.

        Returns
        -------
        part : nn.Module
            Of it, with all of its blocks.
        blank : mapping of str to Tensor
            Input of that part for one cell, so far as its last blocks do not look at it.
        """
        known = getattr(self.tower, "blank", None)
        return tower, known or self.collate(self.trial()[:1])

    def above(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> dict[str, Tensor]:
        """Give what ``forward`` takes, if the tower is the ``Upper`` part of the model.

        Parameters
        ----------
        arrays : sequence of ndarray
            What ``below`` gave.
        cells : sequence
            The cells, if this backbone ``looks_again``.

        Returns
        -------
        tensors : dict of str to Tensor of shape (n_cells, ...)
            With ``hidden`` among them.
        """
        return {"hidden": torch.from_numpy(np.stack(arrays))}

    def trimmed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take off padding that no cell of a batch needs: that of a whole column, say."""
        return tensors


def _to_numpy(hidden: Tensor) -> np.ndarray:
    return hidden.float().cpu().numpy()
