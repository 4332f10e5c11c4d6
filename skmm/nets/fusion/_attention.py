"""Fusion by a transformer over the tokens of all modalities, and its parts shared with others.

First attention rollout and the layers of a transformer, then the network.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, to_shares
from skmm.nets.fusion._base import FusionModule

__all__ = [
    "AttentionFusionModule",
    "RolloutFusionModule",
    "TokenFlowFusionModule",
    "attention_of",
    "flow_through",
    "transformer_layer",
]


class TokenFlowFusionModule(FusionModule):
    """Base class of networks whose output depends on tokens by attention.

    A subclass computes the flow of attention in ``_flows``. If its shares can be compared between
    modalities, the subclass derives from ``RolloutFusionModule``.
    """

    def token_weights(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the weight of each token in each row, by attention rollout.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where a token exists; all False where the modality is absent.

        Returns
        -------
        weights : dict of str to Tensor of shape (n_rows, n_tokens)
            Weights of the tokens of each modality, zero where there is no token. The weights of a
            row sum to one over the tokens of all modalities, or are all zero if the row has none.
        """
        flows = self._flows(*self._in_order(tokens, masks))
        n_tokens = [flow.shape[1] for flow in flows]
        shares = torch.split(to_shares(torch.cat(flows, dim=1)), n_tokens, dim=1)
        return dict(zip(self.modalities, shares, strict=True))

    @abstractmethod
    def _flows(self, tokens: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Return the flow from each token, (n_rows, n_tokens) per modality, not normalized."""


class RolloutFusionModule(TokenFlowFusionModule):
    """Base class of networks in which tokens of all modalities compete for attention."""

    def weights(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return the weight of each modality in each row.

        The weight of a modality is the sum of the weights of its tokens. These are computed by
        attention rollout (Abnar and Zuidema, 2020): the attention of the layers, averaged over
        heads and with the identity added for the residual path, is multiplied. Learned tokens are
        not counted.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where a token exists; all False where the modality is absent.

        Returns
        -------
        weights : Tensor of shape (n_rows, n_modalities)
            Weights of the modalities, in the order of ``modalities``. An absent modality has
            weight zero. The weights of a row sum to one, or are all zero if the row has no
            modality.
        """
        shares = self.token_weights(tokens, masks)
        return torch.stack([shares[name].sum(dim=1) for name in self.modalities], dim=1)


def transformer_layer(
    n_components: int, n_heads: int, dropout: float
) -> nn.TransformerEncoderLayer:
    """Build a pre-norm transformer layer whose hidden layer has twice the width."""
    return nn.TransformerEncoderLayer(
        n_components,
        n_heads,
        dim_feedforward=2 * n_components,
        dropout=dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )


def attention_of(layer: nn.TransformerEncoderLayer, x: Tensor, absent: Tensor) -> Tensor:
    """Return the attention between tokens in a transformer layer, mean of the heads.

    Parameters
    ----------
    layer : TransformerEncoderLayer
        From :func:`transformer_layer`.
    x : Tensor of shape (n_rows, n_tokens, n_components)
        Input of the layer.
    absent : BoolTensor of shape (n_rows, n_tokens)
        True where there is no token.

    Returns
    -------
    attention : Tensor of shape (n_rows, n_tokens, n_tokens)
        A row of each matrix sums to one.
    """
    normed = layer.norm1(x)
    attention: Tensor = layer.self_attn(normed, normed, normed, key_padding_mask=absent)[1]
    return attention


def flow_through(flow: Tensor, attention: Tensor) -> Tensor:
    """Propagate a flow back through a layer: half by the residual path, half by attention.

    Parameters
    ----------
    flow : Tensor of shape (n_rows, n_tokens)
        Flow after the layer.
    attention : Tensor of shape (n_rows, n_tokens, n_tokens)
        From :func:`attention_of`.

    Returns
    -------
    flow : Tensor of shape (n_rows, n_tokens)
        Flow before the layer.
    """
    return 0.5 * flow + 0.5 * torch.einsum("bi,bij->bj", flow, attention)


class AttentionFusionModule(RolloutFusionModule):
    """Transformer over the tokens of all modalities; the output is that of a learned first token.

    Every token is projected to ``n_components``, a learned vector of its modality is added, and it
    attends to all other tokens that exist [1]_, as in one-stream vision and language models [2]_.
    Words, patches and columns can attend to each other. No positions are added: encoders include
    them in their tokens. In a row without any modality only the first token exists. ``weights``
    and ``token_weights`` return the attention rollout from the first token [3]_.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
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
    >>> from skmm.nets import AttentionFusionModule
    >>> fusion = AttentionFusionModule({"image": 8, "text": 4}, 16)

    An image of one token and a text of five, of which the row has three:

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
        flow[:, 0] = 1.0  # the output is the first token
        for attention in reversed(attentions):
            flow = flow_through(flow, attention)
        return list(torch.split(flow[:, 1:], [mask.shape[1] for mask in masks], dim=1))

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        x, absent = self._sequence(tokens, masks)
        for layer in self.layers if len(x) else ():  # torch's attention needs a row
            x = layer(x, src_key_padding_mask=absent)
        fused: Tensor = self.norm(x[:, 0])
        return fused

    def _sequence(self, tokens: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the sequence of all tokens, the learned one first, and which are absent."""
        parts = [
            p(block) + kind
            for p, block, kind in zip(self.projections, tokens, self.types, strict=True)
        ]
        first = self.first.expand(len(parts[0]), 1, -1)
        # The first token always exists, so no row of the attention is empty.
        exists = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
        return torch.cat([first, *parts], dim=1), ~torch.cat([exists, *masks], dim=1)
