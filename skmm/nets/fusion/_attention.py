"""Fusion by a transformer over the tokens of all modalities."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection
from skmm.nets._rollout import RolloutFusion, attention_of, flow_through, transformer_layer

__all__ = ["AttentionFusion"]


class AttentionFusion(RolloutFusion):
    """Transformer over the tokens of all modalities, read at a learned first token.

    Every token is projected to ``n_components``, gets the learned vector of its modality, and
    attends to all others that exist [1]_, as in one-stream vision and language models [2]_.
    Modalities keep all their tokens: words, patches and columns can attend to each other. The
    order of the tokens inside a modality is not used: their makers have put it into them.
    A row that lacks every modality gives what the first token alone leads to. ``weights`` and
    ``token_weights`` follow the attention back from the first token [3]_.

    Parameters
    ----------
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Width of the transformer and length of the fused vector, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of attention weights and hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=2
        Number of transformer layers.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", NeurIPS 2017.
    .. [2] Chen et al., "UNITER: universal image-text representation learning", ECCV 2020.
    .. [3] Abnar, Zuidema, "Quantifying attention flow in transformers", ACL 2020.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import AttentionFusion
    >>> fusion = AttentionFusion({"image": 8, "text": 4}, 16)

    A picture of one token and a text of five, of which the row has three:

    >>> tokens = {"image": torch.ones(1, 1, 8), "text": torch.ones(1, 5, 4)}
    >>> masks = {"image": torch.ones(1, 1).bool(), "text": torch.arange(5)[None] < 3}
    >>> fusion(tokens, masks).shape
    torch.Size([1, 16])
    >>> fusion.weights(tokens, masks).sum().detach().round(decimals=3).item()
    1.0
    """

    def __init__(
        self,
        n_features: Mapping[str, int],
        n_components: int,
        *,
        dropout: float = 0.0,
        n_heads: int = 4,
        n_layers: int = 2,
    ):
        super().__init__(n_features, n_components)
        self._check_heads(n_heads)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, activation=nn.Identity())
            for name in self.modalities
        )
        self.first = nn.Parameter(0.02 * torch.randn(n_components))
        self.types = nn.Parameter(0.02 * torch.randn(len(self.modalities), n_components))
        self.layers = nn.ModuleList(
            transformer_layer(n_components, n_heads, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(n_components)

    def _flows(self, tokens: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        x, absent = self._sequence(tokens, masks)
        attentions = []
        for layer in cast(Iterable[nn.TransformerEncoderLayer], self.layers):
            attentions.append(attention_of(layer, x, absent))
            x = layer(x, src_key_padding_mask=absent)
        flow = torch.zeros_like(x[..., 0])
        flow[:, 0] = 1.0  # all that is read is the first token; followed back layer by layer
        for attention in reversed(attentions):
            flow = flow_through(flow, attention)
        return list(flow[:, 1:].split([mask.shape[1] for mask in masks], dim=1))

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        x, absent = self._sequence(tokens, masks)
        for layer in self.layers if len(x) else ():  # torch's attention needs a row
            x = layer(x, src_key_padding_mask=absent)
        return self.norm(x[:, 0])

    def _sequence(self, tokens: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """All tokens of a row one after the other, the learned one first, and which to skip."""
        parts = [
            p(block) + kind
            for p, block, kind in zip(self.projections, tokens, self.types, strict=True)
        ]
        first = self.first.expand(len(parts[0]), 1, -1)
        # The first token always exists, so no row of the attention is empty.
        exists = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
        return torch.cat([first, *parts], dim=1), ~torch.cat([exists, *masks], dim=1)
