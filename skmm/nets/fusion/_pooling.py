"""Fusion by the mean, maximum, sum or concatenation of projected modalities."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_max, masked_mean
from skmm.nets.fusion._base import FusionModule

__all__ = [
    "ConcatFusionModule",
    "MaxFusionModule",
    "MeanFusionModule",
    "SumFusionModule",
]


class MeanFusionModule(FusionModule):
    """Mean of the projections of the modalities that a row has.

    The mean token of each modality is projected to ``n_components`` numbers, and the projections
    are averaged over the modalities that are present, whichever these are [1]_. With a linear
    layer on the output this is an additive model: the effect of a modality does not depend on the
    values of the others. The output of a row without any modality is zero.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of each projection that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Havaei, Guizard, Chapados, Bengio, "HeMIS: hetero-modal image segmentation",
       MICCAI 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import MeanFusionModule
    >>> fusion = MeanFusionModule({"image": 8, "text": 4}, 16)
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


class MaxFusionModule(FusionModule):
    """Elementwise maximum of the projections of the modalities that a row has.

    The mean token of each modality is projected to ``n_components`` numbers, and each number of
    the output is the largest over the modalities that are present [1]_. The output of a row
    without any modality is zero.

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
    .. [1] Feichtenhofer, Pinz, Zisserman, "Convolutional two-stream network fusion for video
       action recognition", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import MaxFusionModule
    >>> fusion = MaxFusionModule({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__(n_features, n_components)
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components) for name in self.modalities
        )
        # After the maximum: a unit zeroed before it would be replaced by that of another modality.
        self.dropout = nn.Dropout(dropout)

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        pooled, present = self._pool(tokens, masks)
        # (n_rows, n_modalities, n_components)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        fused: Tensor = self.dropout(masked_max(parts, present))
        return fused


class SumFusionModule(FusionModule):
    """Sum of the projections of the modalities that a row has.

    The mean token of each modality is projected to ``n_components`` numbers, and the projections
    are added [1]_. With a linear layer on the output this is an additive model: the effect of a
    modality does not depend on the values of the others. Unlike with the mean, evidence
    accumulates: a second modality that supports the same class makes the prediction more certain.
    An absent modality adds nothing. The output of a row without any modality is zero.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of each projection that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Feichtenhofer, Pinz, Zisserman, "Convolutional two-stream network fusion for video
       action recognition", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import SumFusionModule
    >>> fusion = SumFusionModule({"image": 8, "text": 4}, 16)
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
        return torch.where(present.unsqueeze(-1), parts, 0.0).sum(dim=1)


class ConcatFusionModule(FusionModule):
    """Concatenation of the projected modalities, followed by a hidden layer.

    The common baseline of multimodal learning [1]_: every modality is projected to
    ``n_components`` numbers, the projections are concatenated, and a hidden layer mixes them. A
    learned vector replaces an absent modality, so the network can distinguish it from a present
    one.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of each projection and of the fused vector.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Ngiam, Khosla, Kim, Nam, Lee, Ng, "Multimodal deep learning", ICML 2011.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import ConcatFusionModule
    >>> fusion = ConcatFusionModule({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(3, 1, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 1).bool(), "text": torch.zeros(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__(n_features, n_components)
        # A list, not a dictionary: torch refuses names such as "type" or "a.b" as keys.
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, dropout=dropout)
            for name in self.modalities
        )
        self.absent = nn.Parameter(torch.zeros(len(self.modalities), n_components))
        self.mix = Projection(len(self.modalities) * n_components, n_components, dropout=dropout)

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        pooled, present = self._pool(tokens, masks)
        # (n_rows, n_modalities, n_components)
        parts = torch.stack([p(x) for p, x in zip(self.projections, pooled, strict=True)], dim=1)
        parts = torch.where(present.unsqueeze(-1), parts, self.absent)
        fused: Tensor = self.mix(parts.flatten(start_dim=1))
        return fused
