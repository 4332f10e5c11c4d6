"""Fusion by averaging the modalities in one space."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_mean
from skmm.nets.fusion._base import FusionModule

__all__ = ["MeanFusion"]


class MeanFusion(FusionModule):
    """Mean of the projections of the modalities that a row has.

    Pooling over whatever is there treats any pattern of missing modalities alike [1]_. Under a
    linear head it is an additive model: each modality has its say, none changes the meaning of
    another. A row that lacks every modality gives zeros.

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
    .. [1] Havaei, Guizard, Chapados, Bengio, "HeMIS: hetero-modal image segmentation",
       MICCAI 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import MeanFusion
    >>> fusion = MeanFusion({"image": 8, "text": 4}, 16)
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
        return masked_mean(parts, present)
