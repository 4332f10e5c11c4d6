"""One network over several columns of a modality, in a joint training."""

from typing import Any

import torch
from torch import nn

from skmm.backbones import Encoded

__all__ = ["SideBySide"]


class SideBySide(nn.Module):
    """Runs one backbone over each column and puts their tokens one after the other.

    Parameters
    ----------
    backbone : Backbone
        Shared by the columns.
    n_columns : int
        How many.

    Attributes
    ----------
    step_size : float or None
        Step size of an optimizer that suits the weights; None leaves it to the trainer.
    """

    def __init__(self, backbone: Any, n_columns: int):
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns
        self.width = backbone.width
        self.step_size: float | None = getattr(backbone, "step_size", None)

    def forward(self, **tensors: torch.Tensor) -> Any:
        """Encode ``{"<column>/<name>": tensor}``; an absent cell's tokens are masked.

        ``pooled`` is the mean over the columns that are present.
        """
        presents, encoded = [], []
        for c in range(self.n_columns):
            own = {
                name.partition("/")[2]: tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{c}/")
            }
            presents.append(own.pop("present"))
            encoded.append(self._encode(own, presents[-1]))
        present = torch.stack(presents, dim=1).to(encoded[0].pooled.dtype)  # (B, n_columns)
        pooled = torch.stack([e.pooled for e in encoded], dim=1)
        return Encoded(
            tokens=torch.cat([e.tokens for e in encoded], dim=1),
            mask=torch.cat([e.mask for e in encoded], dim=1),
            pooled=pooled.sum(1) / present.sum(1, keepdim=True).clamp(min=1.0),
        )

    def _encode(self, tensors: dict[str, torch.Tensor], present: torch.Tensor) -> Encoded:
        """Encode the cells that are there, zeros in place of the others.

        What stands in an absent cell's tensors never enters the network: a module of the
        user's may make NaN of it, or mix the rows of a batch.
        """
        if present.all():
            return self.backbone(**tensors)
        n, rows = len(present), present.nonzero().squeeze(1)
        if not len(rows):
            nothing = torch.zeros(n, 1, self.width, device=present.device)
            mask = torch.zeros(n, 1, dtype=torch.bool, device=present.device)
            return Encoded(nothing, mask, nothing[:, 0])
        part = self.backbone(**{name: tensor[rows] for name, tensor in tensors.items()})
        return Encoded(*(_scattered(values, rows, n) for values in part))


def _scattered(values: torch.Tensor, rows: torch.Tensor, n: int) -> torch.Tensor:
    return values.new_zeros(n, *values.shape[1:]).index_copy(0, rows, values)
