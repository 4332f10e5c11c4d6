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
    """Attention bottlenecks: a transformer per modality, and a few tokens that all of them share.

    The tokens of a modality attend to each other, to a learned first token of the modality, and to
    ``n_bottlenecks`` tokens that every modality sees. Each modality has its own copy of
    these after a layer; the mean of the copies, over the modalities that the row has, goes into
    the next layer. All that modalities tell each other has to pass through them [1]_. The
    fused vector is the mean of the first tokens, normalized, over the modalities that the row
    has; a row that lacks every modality gives zeros.

    The cost grows with the square of each sequence, not of all of them together as that of
    ``AttentionFusionModule`` does. The order of the tokens inside a modality is not used.
    ``weights`` and ``token_weights`` follow the attention back from the first tokens, through the
    bottleneck [2]_.

    Parameters
    ----------
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Width of the transformers and length of the fused vector, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of attention weights and hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=2
        Number of layers of each transformer, at least 2: what one writes into the
        bottleneck is read by the next.
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
                f"{type(self).__name__}: n_layers must be at least 2, got {n_layers}, as what one"
                " layer writes into the bottleneck is read by the next."
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
        # What is read is the mean of the first tokens; followed back layer by layer.
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
        """Return the first and the other tokens of each modality, and which modalities are there.

        The attention of every modality in every layer is put into ``attentions``, if given.
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
