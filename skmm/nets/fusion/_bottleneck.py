"""Fusion by transformers that exchange a few tokens only."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_mean
from skmm.nets.fusion._attention import (
    RolloutFusionModule,
    attention_of,
    flow_through,
    transformer_layer,
)

__all__ = ["BottleneckFusionModule"]


class BottleneckFusionModule(RolloutFusionModule):
    """Attention bottlenecks: one transformer per modality, and a few tokens that all share.

    The tokens of a modality attend to each other, to a learned first token of the modality, and to
    ``n_bottlenecks`` shared tokens. Each modality has its own copy of the shared tokens after a
    layer; the mean of the copies, over the modalities that the row has, is the input of the next
    layer. All information between modalities passes through them [1]_. The fused vector is the
    mean of the normalized first tokens over the modalities that the row has; the output of a row
    without any modality is zero.

    The cost grows with the square of the length of each sequence, that of
    ``AttentionFusionModule`` with the square of their sum. No positions are added. ``weights`` and
    ``token_weights`` return the attention rollout from the first tokens [2]_.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the transformers and length of the fused vector, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of attention weights and hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=2
        Number of layers of each transformer, at least 2: information that one layer puts into the
        shared tokens reaches the other modalities in the next.
    n_bottlenecks : int, default=4
        Number of tokens that the modalities share.

    References
    ----------
    .. [1] Nagrani, Yang, Arnab, Jansen, Schmid, Sun, "Attention bottlenecks for multimodal
       fusion", NeurIPS 2021.
    .. [2] Abnar, Zuidema, "Quantifying attention flow in transformers", ACL 2020.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import BottleneckFusionModule
    >>> fusion = BottleneckFusionModule({"image": 8, "text": 4}, 16)
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
        n_layers: int = 2,
        n_bottlenecks: int = 4,
    ):
        super().__init__(n_features, n_components)
        self._check_heads(n_heads)
        if n_layers < 2:
            raise ValueError(
                f"{type(self).__name__}: n_layers must be at least 2, got {n_layers}. Modalities"
                " exchange information between two layers."
            )
        if n_bottlenecks < 1:
            raise ValueError(
                f"{type(self).__name__}: n_bottlenecks must be at least 1, got {n_bottlenecks}."
            )
        n_modalities = len(self.modalities)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, activation=nn.Identity())
            for name in self.modalities
        )
        self.firsts = nn.Parameter(0.02 * torch.randn(n_modalities, n_components))
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(n_bottlenecks, n_components))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                transformer_layer(n_components, n_heads, dropout) for _ in range(n_modalities)
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(n_components)

    def _flows(self, tokens: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        attentions: list[list[Tensor]] = []
        blocks, present = self._through_layers(tokens, masks, attentions)
        n_shared = len(self.bottlenecks)
        # The output is the mean of the first tokens.
        each = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        shared = each.new_zeros(len(each), n_shared)
        flows = [torch.zeros_like(block[..., 0]) for block in blocks]
        for i, flow in enumerate(flows):
            flow[:, 0] = each[:, i]
        for layer in reversed(attentions):
            before = torch.zeros_like(shared)
            for i, attention in enumerate(layer):
                flow = flow_through(torch.cat([shared * each[:, [i]], flows[i]], dim=1), attention)
                before = before + flow[:, :n_shared]
                flows[i] = flow[:, n_shared:]
            shared = before
        return [flow[:, 1:] for flow in flows]

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        blocks, present = self._through_layers(tokens, masks)
        firsts = torch.stack([block[:, 0] for block in blocks], dim=1)
        return masked_mean(self.norm(firsts), present)

    def _through_layers(
        self,
        tokens: list[Tensor],
        masks: list[Tensor],
        attentions: list[list[Tensor]] | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the tokens of each modality, the first one included, and the present modalities.

        The attention of every modality in every layer is appended to ``attentions``, if given.
        """
        present = torch.stack([mask.any(dim=1) for mask in masks], dim=1)
        n_rows, n_shared = len(present), len(self.bottlenecks)
        shared = self.bottlenecks.expand(n_rows, -1, -1)
        # The first token and the bottleneck always exist, so no row of the attention is empty.
        exists = present.new_ones(n_rows, 1 + n_shared)
        absent = [~torch.cat([exists, mask], dim=1) for mask in masks]
        blocks = [
            torch.cat([first.expand(n_rows, 1, -1), project(block)], dim=1)
            for first, project, block in zip(self.firsts, self.projections, tokens, strict=True)
        ]
        for layers in self.layers if n_rows else ():  # torch's attention needs a row
            copies = []
            if attentions is not None:
                attentions.append([])
            for i, layer in enumerate(cast(Iterable[nn.TransformerEncoderLayer], layers)):
                x = torch.cat([shared, blocks[i]], dim=1)
                if attentions is not None:
                    attentions[-1].append(attention_of(layer, x, absent[i]))
                x = layer(x, src_key_padding_mask=absent[i])
                copies.append(x[:, :n_shared].flatten(start_dim=1))
                blocks[i] = x[:, n_shared:]
            shared = masked_mean(torch.stack(copies, dim=1), present).view(n_rows, n_shared, -1)
        return blocks, present
