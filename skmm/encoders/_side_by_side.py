"""One network over several columns of a modality, in a joint training."""

from typing import Any

import torch
from torch import nn

__all__ = ["SideBySide"]


class SideBySide(nn.Module):
    """Runs one backbone over each column and puts their tokens one after the other.

    Parameters
    ----------
    backbone : Backbone
        Shared by the columns.
    n_columns : int
        How many.
    """

    def __init__(self, backbone: Any, n_columns: int):
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns
        self.width = backbone.width

    def forward(self, **tensors: torch.Tensor) -> Any:
        """Encode ``{"<column>/<name>": tensor}``; an absent cell's tokens are masked.

        ``pooled`` is the mean over the columns that are present.
        """
        encoded, presents = [], []
        for c in range(self.n_columns):
            own = {
                name.partition("/")[2]: tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{c}/")
            }
            presents.append(own.pop("present"))
            encoded.append(self.backbone(**own))
        masks = [e.mask & p[:, None] for e, p in zip(encoded, presents, strict=True)]
        present = torch.stack(presents, dim=1).to(encoded[0].pooled.dtype)  # (B, n_columns)
        pooled = torch.stack([e.pooled for e in encoded], dim=1) * present[:, :, None]
        return type(encoded[0])(
            tokens=torch.cat([e.tokens for e in encoded], dim=1),
            mask=torch.cat(masks, dim=1),
            pooled=pooled.sum(1) / present.sum(1, keepdim=True).clamp(min=1.0),
        )
