"""Fusion by low-rank products of every two modalities, or of all."""

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_mean
from skmm.nets.fusion._base import FusionModule

__all__ = [
    "BilinearFusionModule",
    "LowRankFusionModule",
]


class BilinearFusionModule(FusionModule):
    r"""Factorized bilinear pooling of every two modalities, averaged over the pairs.

    With :math:`z_m` the projection of modality :math:`m` with a 1 appended, a pair yields
    weighted sums of all products of an entry of :math:`z_i` and one of :math:`z_j`, whose weight
    matrices have rank ``rank`` [1]_:

    .. math:: s_{ij} = \sum_{r=1}^{R} U_{ij}^{(r)} z_i \odot V_{ij}^{(r)} z_j, \qquad
        h_{ij} = s_{ij} / \sqrt{1 + |s_{ij}|}

    The root compresses large products as the signed root of the paper does, but has a finite
    slope at zero; the paper's scaling of :math:`h` to length one is omitted. The appended 1 keeps
    terms of a single modality [2]_, and is all that remains of an absent one. The fused vector is
    the mean over the pairs with at least one present modality; the output of a row without any
    modality is zero. A single modality is paired with itself. With three or more modalities there
    are no products of more than two, unlike in ``LowRankFusionModule``.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of the products that is zeroed in training, in [0, 1].
    rank : int, default=4
        Rank of the weight matrix of each output and pair.

    References
    ----------
    .. [1] Yu, Yu, Fan, Tao, "Multi-modal factorized bilinear pooling with co-attention learning
       for visual question answering", ICCV 2017.
    .. [2] Zadeh, Chen, Poria, Cambria, Morency, "Tensor fusion network for multimodal sentiment
       analysis", EMNLP 2017.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import BilinearFusionModule
    >>> fusion = BilinearFusionModule({"image": 8, "text": 4}, 16, rank=2)
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
        self.rank = rank
        n_modalities = len(self.modalities)
        self.pairs = list(itertools.combinations(range(n_modalities), 2)) or [(0, 0)]
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components) for name in self.modalities
        )
        # The last row of a factor multiplies the 1. The scale keeps the sums of a pair, of ``rank``
        # products of two factors each, near 1 for any rank.
        factors = torch.randn(len(self.pairs), 2, rank, n_components + 1, n_components)
        factors[:, :, :, :-1] /= math.sqrt(n_components)
        factors *= rank**-0.25
        self.factors = nn.Parameter(factors)
        self.dropout = nn.Dropout(dropout)

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        pooled, present = self._pool(tokens, masks)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        parts = torch.where(present.unsqueeze(-1), parts, 0.0)
        firsts, seconds = zip(*self.pairs, strict=True)
        products = self._mapped(parts[:, firsts], 0) * self._mapped(parts[:, seconds], 1)
        sums = self.dropout(products).sum(dim=2)
        # (n_rows, n_pairs, n_components)
        tamed = sums * torch.rsqrt(1.0 + sums.abs())
        return masked_mean(tamed, present[:, firsts] | present[:, seconds])

    def _mapped(self, parts: Tensor, side: int) -> Tensor:
        """Map one side of the pairs by its factors, (n_rows, n_pairs, rank, n_components)."""
        factors = self.factors[:, side]
        return torch.einsum("bpi,prio->bpro", parts, factors[:, :, :-1]) + factors[:, :, -1]


class LowRankFusionModule(FusionModule):
    r"""Low-rank multimodal fusion: a linear map of the outer product of all modalities.

    With :math:`z_m` the projection of modality :math:`m` with a 1 appended, every output
    is a weighted sum over all products of one entry from each :math:`z_m`: single modalities,
    pairs, triples, ... The weight tensor is a sum of ``rank`` products of vectors, so neither
    it nor the outer product is ever built [1]_:

    .. math:: h = b + \sum_{r=1}^{R} \bigodot_m W_m^{(r)} z_m

    Of an absent modality only the 1 remains, and so the products without it.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
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
    >>> from skmm.nets import LowRankFusionModule
    >>> fusion = LowRankFusionModule({"image": 8, "text": 4}, 16, rank=2)
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
        # The last row of a factor multiplies the 1. It starts at R^(-1/M) and the rest around
        # zero, so the product starts near a constant for any number of modalities.
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
