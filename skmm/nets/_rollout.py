"""What networks of transformers share: their layers, and how attention flows through them."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import to_shares
from skmm.nets.fusion._base import FusionModule

__all__ = ["RolloutFusion", "TokenFlowFusion", "attention_of", "flow_through", "transformer_layer"]


class TokenFlowFusion(FusionModule):
    """A network that tells how much of each token flows to its output.

    A subclass follows the flow, in ``_flows``. How it is divided between modalities may say
    nothing; where it does, the subclass is a ``RolloutFusion``.
    """

    def token_weights(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Weight of each token in each row, by attention rollout.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists.

        Returns
        -------
        weights : dict of str to Tensor of shape (n_rows, n_tokens)
            Zero where there is no token. A row sums to one over all its tokens of all
            modalities.
        """
        flows = self._flows(*self._in_order(tokens, masks))
        shares = to_shares(torch.cat(flows, dim=1)).split([flow.shape[1] for flow in flows], dim=1)
        return dict(zip(self.modalities, shares, strict=True))

    @abstractmethod
    def _flows(self, tokens: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """What flows from each token, (n_rows, n_tokens) for each modality; of any sum."""


class RolloutFusion(TokenFlowFusion):
    """A network whose tokens of all modalities compete: the flow tells of modalities, too."""

    def weights(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Weight of each modality in each row: how much of its tokens flows to the output.

        Attention rollout (Abnar and Zuidema): the attention of the layers, averaged over heads and
        with the identity for the residual path, multiplied. The shares of learned tokens
        are left out.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists.

        Returns
        -------
        weights : Tensor of shape (n_rows, n_modalities)
            In the order of ``modalities``. A row sums to one over the modalities that it has;
            the weight of an absent one is zero.
        """
        shares = self.token_weights(tokens, masks)
        return torch.stack([shares[name].sum(dim=1) for name in self.modalities], dim=1)


def transformer_layer(
    n_components: int, n_heads: int, dropout: float
) -> nn.TransformerEncoderLayer:
    """Make a layer of attention and a hidden layer of twice the width, normalised before."""
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
    """How much each token attends to each in such a layer, mean of the heads.

    Parameters
    ----------
    layer : TransformerEncoderLayer
        From :func:`transformer_layer`.
    x : Tensor of shape (n_rows, n_tokens, n_components)
        What goes into it.
    absent : BoolTensor of shape (n_rows, n_tokens)
        True where there is no token.

    Returns
    -------
    attention : Tensor of shape (n_rows, n_tokens, n_tokens)
        A row of each matrix sums to one.
    """
    normed = layer.norm1(x)
    return layer.self_attn(normed, normed, normed, key_padding_mask=absent)[1]


def flow_through(flow: Tensor, attention: Tensor) -> Tensor:
    """Follow a flow back through a layer: half stays at its token, half comes from what it reads.

    Parameters
    ----------
    flow : Tensor of shape (n_rows, n_tokens)
        Behind the layer.
    attention : Tensor of shape (n_rows, n_tokens, n_tokens)
        From :func:`attention_of`.

    Returns
    -------
    flow : Tensor of shape (n_rows, n_tokens)
        Before it.
    """
    return 0.5 * flow + 0.5 * torch.einsum("bi,bij->bj", flow, attention)
