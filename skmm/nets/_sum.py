"""Fusion by adding the modalities up in one space."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection
from skmm.nets.fusion._base import FusionModule

__all__ = ["SumFusion"]


class SumFusion(FusionModule):
    """Sum of the projections of the modalities that a row has.

    Under a linear head it is an additive model, as the mean is, but evidence adds up: a second
    modality that says the same makes the answer surer, and an absent one adds nothing
    [1]_. A row that lacks every modality gives zeros.

    Parameters
    ----------
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Length of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of each projection that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Feichtenhofer, Pinz, Zisserman, "Convolutional two-stream network fusion for video
       action recognition", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import SumFusion
    >>> fusion = SumFusion({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__(n_features, n_components)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, dropout=dropout)
            for name in self.modalities
        )

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        pooled, present = self._pool(tokens, masks)
        # (n_rows, n_modalities, n_components)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        return torch.where(present.unsqueeze(-1), parts, 0.0).sum(dim=1)
