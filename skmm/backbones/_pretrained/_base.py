"""Base class of pretrained models: frozen weights, pooling, and splitting into trunk and head."""

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
    """A pretrained model with a pooling.

    The weights may be shared with other instances, so they stay frozen, in eval mode and on their
    device.

    Parameters
    ----------
    tower : Module
        The model.
    pooling : {"mean", "max", "statistics", "cls", "last", "pooler"}
        How the tokens of a cell are pooled; "pooler" is the model's own pooled vector.
    normalize : bool
        Whether pooled vectors are scaled to length 1.
    width : int
        Length of the vectors.

    Attributes
    ----------
    needs_cells : bool
        Whether ``head_inputs`` needs the cells in addition to the outputs of the trunk.

    Notes
    -----
    For fine-tuning, copies of this module get another tower (``with_tower``): ``Trunk`` or
    ``LastBlocks`` of ``_splitting``. Subclasses override the methods of splitting that depend on
    the modality: ``trial_cells``, ``trunk_arrays``, ``head_part``, ``head_inputs``, ``trim``.
    """

    needs_cells: ClassVar[bool] = False

    def __init__(self, tower: nn.Module, *, pooling: str, normalize: bool, width: int):
        super().__init__()
        self.tower = tower
        self.pooling = pooling
        self.normalize = normalize
        self.width = width

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the weights are frozen and shared."""
        return super().train(False)

    def pooled(self, tokens: Tensor, mask: Tensor, summary: Tensor | None) -> Tensor:
        """Pool the tokens of each cell, without normalization.

        Parameters
        ----------
        tokens : Tensor of shape (n_cells, n_tokens, width)
            Tokens in float32.
        mask : BoolTensor of shape (n_cells, n_tokens)
            True for tokens of the cell, False for padding.
        summary : Tensor of shape (n_cells, width) or None
            The model's own pooled vector, if it has one.

        Returns
        -------
        pooled : Tensor of shape (n_cells, width), twice as wide for "statistics"
            Vectors in float32; zeros for a cell without tokens.
        """
        if self.pooling != "pooler":
            return pool_tokens(tokens, mask, self.pooling)
        assert summary is not None  # the recipe has checked it
        return torch.where(mask.any(1, keepdim=True), summary.float(), 0.0)

    def scaled(self, pooled: Tensor) -> Tensor:
        """Scale vectors of shape (n_cells, width) to length 1 if ``normalize``."""
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def with_tower(self, tower: nn.Module) -> Self:
        """Return a copy with another model."""
        new = copy.copy(self)
        new._modules = {**self._modules, "tower": tower}
        return new

    # --- splitting into trunk and head ----------------------------------------------------

    def trial_cells(self) -> list[Any]:
        """Return two small cells on which a split is tried."""
        raise NotImplementedError

    def trunk_arrays(self, **tensors: Tensor) -> list[np.ndarray]:
        """Return the output of the trunk for each cell; the tower must be a ``Trunk``.

        Parameters
        ----------
        **tensors : Tensor of shape (n_cells, ...)
            Output of ``collate``.

        Returns
        -------
        arrays : list of ndarray, float32
            Input of the first of the ``LastBlocks``, which can be stored.
        """
        return list(_to_numpy(self.tower(**tensors)[0]))

    def head_part(self, tower: nn.Module) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """Return the part of a model from which ``LastBlocks`` is made.

        Parameters
        ----------
        tower : nn.Module
            A model with the structure of this module's tower.

        Returns
        -------
        part : nn.Module
            The model, or a part of it that has all of its blocks.
        blank : mapping of str to Tensor
            Inputs of that part for one cell which its last blocks do not use.
        """
        known = getattr(self.tower, "blank", None)
        return tower, known or self.collate(self.trial_cells()[:1])

    def head_inputs(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> dict[str, Tensor]:
        """Return the arguments of ``forward``; the tower must be ``LastBlocks``.

        Parameters
        ----------
        arrays : sequence of ndarray
            Output of ``trunk_arrays``.
        cells : sequence
            The cells; ignored unless ``needs_cells``.

        Returns
        -------
        tensors : dict of str to Tensor of shape (n_cells, ...)
            Tensors, one of them named ``hidden``.
        """
        return {"hidden": torch.from_numpy(np.stack(arrays))}

    def trim(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remove padding that no cell of the batch needs, such as that of a whole column."""
        return tensors


def _to_numpy(hidden: Tensor) -> np.ndarray:
    return hidden.float().cpu().numpy()
