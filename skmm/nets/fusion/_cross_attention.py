"""Fusion by attention between the tokens of each two modalities."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_mean, masked_softmax
from skmm.nets.fusion._attention import TokenFlowFusionModule

__all__ = ["CrossAttentionFusionModule"]


class CrossAttentionFusionModule(TokenFlowFusionModule):
    """Co-attention: in every ordered pair, tokens of one modality attend to those of the other.

    Every token is projected to ``n_components``. For each ordered pair, a stack of layers lets the
    tokens of the first modality attend to those of the second [1]_, which do not change from layer
    to layer [2]_; each layer ends with a network of one hidden layer. The tokens of a pair are
    averaged, the pairs are concatenated, and a hidden layer mixes them. The second stack of [2]_,
    self-attention over the result, is omitted.

    No positions are added: encoders include them in their tokens. If a modality has a single
    token, all attention goes to it. Attention to an absent modality adds nothing; in the pairs
    where an absent modality would attend, a learned vector replaces it. A single modality attends
    to itself. ``token_weights`` is an attention rollout [3]_. Its sums over modalities cannot be
    compared, because each modality is attended to as often as it attends.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the layers and length of the fused vector, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of attention weights and hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=1
        Number of layers of each ordered pair.

    References
    ----------
    .. [1] Lu, Batra, Parikh, Lee, "ViLBERT: pretraining task-agnostic visiolinguistic
       representations for vision-and-language tasks", NeurIPS 2019.
    .. [2] Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov, "Multimodal transformer for
       unaligned multimodal language sequences", ACL 2019.
    .. [3] Abnar, Zuidema, "Quantifying attention flow in transformers", ACL 2020.

    Examples
    --------
    An image of nine patches and a text of five words, of which the row has three:

    >>> import torch
    >>> from skmm.nets import CrossAttentionFusionModule
    >>> fusion = CrossAttentionFusionModule({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(1, 9, 8), "text": torch.ones(1, 5, 4)}
    >>> masks = {"image": torch.ones(1, 9).bool(), "text": torch.arange(5)[None] < 3}
    >>> fusion(tokens, masks).shape
    torch.Size([1, 16])
    """

    def __init__(
        self,
        n_features: Mapping[str, int],
        n_components: int,
        *,
        dropout: float = 0.0,
        n_heads: int = 4,
        n_layers: int = 1,
    ):
        super().__init__(n_features, n_components)
        self._check_heads(n_heads)
        if n_layers < 1:
            raise ValueError(f"{type(self).__name__}: n_layers must be at least 1, got {n_layers}.")
        n_modalities = len(self.modalities)
        # (attending, attended to)
        self.pairs = list(itertools.permutations(range(n_modalities), 2)) or [(0, 0)]
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, activation=nn.Identity())
            for name in self.modalities
        )
        self.stacks = nn.ModuleList(
            nn.ModuleList(_CrossLayer(n_components, n_heads, dropout) for _ in range(n_layers))
            for _ in self.pairs
        )
        self.absent = nn.Parameter(torch.zeros(len(self.pairs), n_components))
        self.mix = Projection(len(self.pairs) * n_components, n_components, dropout=dropout)

    def _flows(self, tokens: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        # Half of a token flows by the residual path, half by attention; all pairs weigh the same.
        blocks = [p(block) for p, block in zip(self.projections, tokens, strict=True)]
        totals = [torch.zeros_like(block[..., 0]) for block in blocks]
        for i, (reading, read) in enumerate(self.pairs):
            x, attentions = blocks[reading], []
            for layer in cast(Iterable[_CrossLayer], self.stacks[i]):
                attentions.append(layer.weights(x, blocks[read], masks[read]))
                x = layer(x, blocks[read], masks[read])
            mask = masks[reading]
            flow = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
            something = masks[read].any(dim=1, keepdim=True)
            for attention in reversed(attentions):
                totals[read] = totals[read] + 0.5 * torch.einsum("bi,bij->bj", flow, attention)
                flow = torch.where(something, 0.5 * flow, flow)
            totals[reading] = totals[reading] + flow
        return totals

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        blocks = [p(block) for p, block in zip(self.projections, tokens, strict=True)]
        parts = []
        for i, (reading, read) in enumerate(self.pairs):
            x = blocks[reading]
            for layer in cast(Iterable[nn.Module], self.stacks[i]):
                x = layer(x, blocks[read], masks[read])
            exists = masks[reading].any(dim=1, keepdim=True)
            parts.append(torch.where(exists, masked_mean(x, masks[reading]), self.absent[i]))
        fused: Tensor = self.mix(torch.cat(parts, dim=1))
        return fused


class _CrossLayer(nn.Module):
    """Attention to another sequence and a hidden layer, each normalized before and added."""

    def __init__(self, n_components: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.norm_query = nn.LayerNorm(n_components)
        self.norm_source = nn.LayerNorm(n_components)
        self.query = nn.Linear(n_components, n_components)
        self.key_value = nn.Linear(n_components, 2 * n_components)
        # No bias: attention to an absent modality must add nothing.
        self.out = nn.Linear(n_components, n_components, bias=False)
        self.norm_hidden = nn.LayerNorm(n_components)
        self.hidden = nn.Sequential(
            nn.Linear(n_components, 2 * n_components),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * n_components, n_components),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Let ``x`` (n_rows, n_queries, n_components) attend to ``source``, where ``mask``."""
        weights, values = self._weights_and_values(x, source, mask)
        read = (self.dropout(weights) @ values).transpose(1, 2).flatten(start_dim=2)
        x = x + self.dropout(self.out(read))
        x = x + self.dropout(self.hidden(self.norm_hidden(x)))
        return x

    def weights(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Return the attention (n_rows, n_queries, n_tokens), mean of the heads."""
        return self._weights_and_values(x, source, mask)[0].mean(dim=1)

    def _weights_and_values(self, x: Tensor, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(self.norm_source(source)).chunk(2, dim=-1)
        queries, keys, values = map(
            self._split, (self.query(self.norm_query(x)), keys, values)
        )  # (n_rows, n_heads, n_tokens, n_components / n_heads) each
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
        # Zeros where no token exists; torch's own attention returns NaN.
        return masked_softmax(scores, mask[:, None, None, :], dim=-1), values

    def _split(self, x: Tensor) -> Tensor:
        """Split into heads, (n_rows, n_heads, n_tokens, width of a head)."""
        return torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2)
