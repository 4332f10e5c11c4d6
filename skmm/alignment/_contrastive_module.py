"""The torch module of a contrastive alignment: an encoder or features, then a projection, each."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm._training._module import modality_tensors
from skmm.nets import Perceptron

__all__ = ["AlignmentModule"]


class AlignmentModule(nn.Module):
    """From tensors of all modalities to unit vectors in one space.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    n_components : int
        Length of the vectors.
    projection : {"linear", "mlp"}
        What is between features and vectors.
    dropout : float
        Share of the features, or of the hidden units, that is zeroed in training.
    """

    rows_at_once = 4096

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        n_components: int,
        *,
        projection: str,
        dropout: float,
    ):
        super().__init__()
        self.modalities = list(widths)
        self.n_components = n_components
        self.encoder_names = list(encoders)
        # Lists, for a name may hold a dot, which nn.ModuleDict refuses.
        self.encoders = nn.ModuleList(encoders.values())
        make = _mlp if projection == "mlp" else _linear
        self.projections = nn.ModuleList(
            make(width, n_components, dropout) for width in widths.values()
        )

    def project(self, name: str, **own: Tensor) -> Tensor:
        """Return unit vectors (n_rows, n_components) of one modality.

        Parameters
        ----------
        name : str
            Modality.
        **own : Tensor
            ``values`` (n_rows, n_features), or the tensors of its encoder.
        """
        if name in self.encoder_names:
            values = self.encoder_of(name)(**own).pooled
        else:
            values = own["values"]
        projected = self.projections[self.modalities.index(name)](values)
        return functional.normalize(projected.float(), dim=1)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return unit vectors, (n_rows, n_modalities, n_components)."""
        return torch.stack(
            [self.project(name, **modality_tensors(inputs, name)) for name in self.modalities],
            dim=1,
        )

    def encoder_of(self, name: str) -> Any:
        """Return the trained network of a modality."""
        return self.encoders[self.encoder_names.index(name)]


def _linear(width: int, n_components: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_components))


def _mlp(width: int, n_components: int, dropout: float) -> nn.Module:
    return Perceptron(width, n_components, hidden_sizes=(2 * n_components,), dropout=dropout)
