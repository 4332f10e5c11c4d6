"""Fusion by a modality that modulates the others."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, masked_mean
from skmm.nets.fusion._base import FusionModule

__all__ = ["FilmFusionModule"]


class FilmFusionModule(FusionModule):
    r"""Feature-wise linear modulation: one modality scales and shifts the units of the others.

    The projection :math:`c` of the modulating modality determines a scale and a shift for every
    other modality :math:`m`. They are applied to each of its tokens, between normalization and
    activation, as in the paper [1]_:

    .. math:: h_{mt} = \mathrm{GELU}\left((1 + \Gamma_m c) \odot u_{mt} + B_m c\right)

    where :math:`u_{mt}` is the normalized projection of token :math:`t`. The fused vector is
    the mean of :math:`c` and the :math:`h_m` (each the mean over its tokens) over the
    modalities that the row has. Unlike in the paper, :math:`c` is part of the mean, for rows
    without other modalities. Where the modulating modality is absent, the others are not
    modulated. The output of a row without any modality is zero.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections and of the fused vector.
    dropout : float, default=0.0
        Share of the projection of the modulating modality and of the modulated units that is
        zeroed in training, in [0, 1].
    condition : str or None, default=None
        Name of the modality that modulates. By default the first in alphabetical order.

    References
    ----------
    .. [1] Perez, Strub, de Vries, Dumoulin, Courville, "FiLM: visual reasoning with a general
       conditioning layer", AAAI 2018.

    Examples
    --------
    A text, e.g. a question, modulates an image of seven patches:

    >>> import torch
    >>> from skmm.nets import FilmFusionModule
    >>> fusion = FilmFusionModule({"image": 8, "text": 4}, 16, condition="text")
    >>> tokens = {"image": torch.ones(3, 7, 8), "text": torch.ones(3, 1, 4)}
    >>> masks = {"image": torch.ones(3, 7).bool(), "text": torch.ones(3, 1).bool()}
    >>> fusion(tokens, masks).shape
    torch.Size([3, 16])
    """

    def __init__(
        self,
        n_features: Mapping[str, int],
        n_components: int,
        *,
        dropout: float = 0.0,
        condition: str | None = None,
    ):
        super().__init__(n_features, n_components)
        if condition is not None and condition not in self.modalities:
            raise ValueError(
                f"{type(self).__name__}: condition={condition!r} is none of the modalities"
                f" {list(self.modalities)}. Name the one that modulates the others."
            )
        self.condition = self.modalities[0] if condition is None else condition
        self.modulated = [name for name in self.modalities if name != self.condition]
        self.project_condition = Projection(
            self.n_features[self.condition], n_components, dropout=dropout
        )
        self.projections = nn.ModuleList(
            Projection(self.n_features[name], n_components, activation=nn.Identity())
            for name in self.modulated
        )
        # A scale and a shift for each unit. No bias: without a condition nothing is modulated,
        # and the projections have biases of their own.
        self.modulators = nn.ModuleList(
            nn.Linear(n_components, 2 * n_components, bias=False) for _ in self.modulated
        )
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)

    def own_layers(self) -> dict[str, nn.Module]:
        """Return, for each modality, the layer that processes only this modality.

        Returns
        -------
        layers : dict of str to nn.Module
            Projection of each modality, by its name. That of the modulating modality includes its
            activation. Those of the other modalities end with the layer normalization, since the
            modulation comes before the activation.
        """
        own = dict(zip(self.modulated, self.projections, strict=True))
        return {**own, self.condition: self.project_condition}

    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        own = self.modalities.index(self.condition)
        exists = masks[own].any(dim=1, keepdim=True)
        condition = self.project_condition(masked_mean(tokens[own], masks[own]))
        condition = torch.where(exists, condition, 0.0)
        parts, present = [condition], [exists]
        for name, project, modulate in zip(
            self.modulated, self.projections, self.modulators, strict=True
        ):
            place = self.modalities.index(name)
            scale, shift = modulate(condition).unsqueeze(1).chunk(2, dim=-1)
            units = self.activation((1.0 + scale) * project(tokens[place]) + shift)
            parts.append(masked_mean(self.dropout(units), masks[place]))
            present.append(masks[place].any(dim=1, keepdim=True))
        # (n_rows, n_modalities, n_components)
        return masked_mean(torch.stack(parts, dim=1), torch.cat(present, dim=1))
