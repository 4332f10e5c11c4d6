"""Fusion by the product of all modalities, kept small by a low rank."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection
from skmm.nets.fusion._base import FusionModule

__all__ = ["LowRankFusion"]


class LowRankFusion(FusionModule):
    r"""Low-rank multimodal fusion: a linear map of the outer product of all modalities.

    With :math:`z_m` the projection of modality :math:`m` and a 1 appended to it, every output
    is a weighted sum over all products of one entry from each :math:`z_m`: single modalities,
    pairs, triples, ... The weight tensor is a sum of ``rank`` products of vectors, so neither
    it nor the outer product is ever built [1]_:

    .. math:: h = b + \sum_{r=1}^{R} \bigodot_m W_m^{(r)} z_m

    An absent modality keeps only its 1: the products without it are left.

    Parameters
    ----------
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Length of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of each projection that is zeroed in training, in [0, 1].
    rank : int, default=4
        Rank of the weight tensor.

    References
    ----------
    .. [1] Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency, "Efficient low-rank multimodal
       fusion with modality-specific factors", ACL 2018.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import LowRankFusion
    >>> fusion = LowRankFusion({"image": 8, "text": 4}, 16, rank=2)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(
        self,
        n_features: Mapping[str, int],
        n_components: int,
        *,
        dropout: float = 0.0,
        rank: int = 4,
    ):
        super().__init__(n_features, n_components)
        if rank < 1:
            raise ValueError(f"{type(self).__name__}: rank must be at least 1, got {rank}.")
        n_modalities = len(self.modalities)
        self.rank = rank
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, dropout=dropout)
            for name in self.modalities
        )
        # The last row of a factor multiplies the 1. It starts at R^(-1/M), the rest around
        # zero, so the product starts near a constant whatever the number of modalities.
        scale = rank ** (-1.0 / n_modalities)
        factors = torch.randn(n_modalities, rank, n_components + 1, n_components)
        factors *= scale / math.sqrt(n_components)
        factors[:, :, -1] = scale
        self.factors = nn.Parameter(factors)
        self.bias = nn.Parameter(torch.zeros(n_components))

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        pooled, present = self._pool(tokens, masks)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        parts = torch.where(present.unsqueeze(-1), parts, 0.0)
        # (n_rows, n_modalities, rank, n_components)
        mapped = torch.einsum("bmi,mrio->bmro", parts, self.factors[:, :, :-1])
        mapped = mapped + self.factors[:, :, -1]
        return mapped.prod(dim=1).sum(dim=1) + self.bias
