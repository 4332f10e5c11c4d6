"""Fusion by keeping the strongest answer of each unit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_max
from skmm.nets.fusion._base import FusionModule

__all__ = ["MaxFusion"]


class MaxFusion(FusionModule):
    """Largest value, unit by unit, over the projections of the modalities that a row has.

    A unit fires if any modality makes it fire [1]_. A row that lacks every modality gives
    zeros.

    Parameters
    ----------
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Length of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of the fused vector that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Feichtenhofer, Pinz, Zisserman, "Convolutional two-stream network fusion for video
       action recognition", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import MaxFusion
    >>> fusion = MaxFusion({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__(n_features, n_components)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components) for name in self.modalities
        )
        # After the maximum: a unit zeroed before it would just hand over to another modality.
        self.dropout = nn.Dropout(dropout)

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        pooled, present = self._pool(tokens, masks)
        # (n_rows, n_modalities, n_components)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        return self.dropout(masked_max(parts, present))
