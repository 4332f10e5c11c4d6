"""Fusion by gates: gates that compete, and gates that depend on the other modalities."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_mean, masked_softmax, to_shares
from skmm.nets.fusion._base import FusionModule

__all__ = [
    "CrossGatedFusionModule",
    "GatedFusionModule",
]


class GatedFusionModule(FusionModule):
    r"""Gated multimodal unit: each row weights the modalities, unit by unit.

    With :math:`u_m` the normalized projection of modality :math:`m` and :math:`u` the
    concatenation of all of them, the fused vector is :math:`\sum_m z_m \odot \tanh(u_m)`, where
    the gates :math:`z_m` are the softmax of :math:`W_m u + b_m` over the modalities that the row
    has. With two modalities this is the bimodal unit of the paper [1]_, whose gates are a sigmoid
    and one minus it. The output of a row without any modality is zero.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of the fused vector that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Arevalo, Solorio, Montes-y-Gomez, Gonzalez, "Gated multimodal units for information
       fusion", ICLR 2017 workshop.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import GatedFusionModule
    >>> fusion = GatedFusionModule({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])

    Where only the image is present, it gets all the weight:

    >>> fusion.weights(tokens, masks)[0].tolist()
    [1.0, 0.0]
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__(n_features, n_components)
        n_modalities = len(self.modalities)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, activation=nn.Identity())
            for name in self.modalities
        )
        self.gates = nn.Linear(n_modalities * n_components, n_modalities * n_components)
        self.dropout = nn.Dropout(dropout)

    def weights(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return the weight of each modality in each row.

        The weight of a modality is its gate, averaged over the ``n_components`` units.

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
        _, gates = self._parts_and_gates(*self._in_order(tokens, masks))
        return gates.mean(dim=-1)

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        parts, gates = self._parts_and_gates(tokens, masks)
        fused: Tensor = self.dropout((gates * torch.tanh(parts)).sum(dim=1))
        return fused

    def _parts_and_gates(self, tokens: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return projections and gates, both (n_rows, n_modalities, n_components)."""
        pooled, present = self._pool(tokens, masks)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        # An absent modality must not reach the gates through the bias of its projection.
        parts = torch.where(present.unsqueeze(-1), parts, 0.0)
        scores = self.gates(parts.flatten(start_dim=1)).view_as(parts)
        return parts, masked_softmax(scores, present.unsqueeze(-1), dim=1)


class CrossGatedFusionModule(FusionModule):
    r"""Gates of each modality that depend on the other modalities.

    With :math:`u_m` the normalized projection of modality :math:`m`, the fused vector is the
    mean of :math:`\sigma(b_m + \sum_{j \neq m} G_{mj} u_j) \odot \tanh(u_m)` over the
    modalities that the row has. With two modalities it is the gate of one over the other [1]_ in
    both directions at once, like the gated messages between parts of an image in [2]_. Unlike
    those of the gated multimodal unit [3]_, the gates do not compete, and none depends on the
    modality that it gates. An absent modality adds nothing to the gates of the others. The output
    of a row without any modality is zero.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of the fused vector that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Kiela, Grave, Joulin, Mikolov, "Efficient large-scale multi-modal classification",
       AAAI 2018.
    .. [2] Zeng, Ouyang, Yang, Yan, Wang, "Gated bi-directional CNN for object detection",
       ECCV 2016.
    .. [3] Arevalo, Solorio, Montes-y-Gomez, Gonzalez, "Gated multimodal units for information
       fusion", ICLR 2017 workshop.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import CrossGatedFusionModule
    >>> fusion = CrossGatedFusionModule({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__(n_features, n_components)
        n_modalities = len(self.modalities)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, activation=nn.Identity())
            for name in self.modalities
        )
        # (gated, gating), in the order of ``gates``
        self.pairs = list(itertools.permutations(range(n_modalities), 2))
        self.gates = nn.ModuleList(
            nn.Linear(n_components, n_components, bias=False) for _ in self.pairs
        )
        # One per gated modality, not per pair: an absent gating modality must add no bias.
        self.bias = nn.Parameter(torch.zeros(n_modalities, n_components))
        self.dropout = nn.Dropout(dropout)

    def weights(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return the weight of each modality in each row.

        The weight of a modality is its gate, averaged over the ``n_components`` units and divided
        by the sum over all modalities.

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
        _, gates, present = self._parts_and_gates(*self._in_order(tokens, masks))
        return to_shares(torch.where(present, gates.mean(dim=-1), 0.0))

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        parts, gates, present = self._parts_and_gates(tokens, masks)
        fused: Tensor = self.dropout(masked_mean(gates * torch.tanh(parts), present))
        return fused

    def _parts_and_gates(
        self, tokens: list[Tensor], masks: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return projections, gates (n_rows, n_modalities, n_components), and present ones."""
        pooled, present = self._pool(tokens, masks)
        # (n_rows, n_modalities, n_components)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        parts = torch.where(present.unsqueeze(-1), parts, 0.0)
        scores = list(self.bias)
        for (gated, gating), gate in zip(self.pairs, self.gates, strict=True):
            scores[gated] = scores[gated] + gate(parts[:, gating])
        if len(scores) == 1:  # a single modality, which no other one gates
            scores = [scores[0].expand_as(parts[:, 0])]
        return parts, torch.sigmoid(torch.stack(scores, dim=1)), present
