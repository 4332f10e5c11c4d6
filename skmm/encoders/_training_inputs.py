"""Inputs and network of an encoder that is trained together with a head."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skmm.backbones import Backbone, Encoded

__all__ = [
    "CellTensors",
    "SideBySide",
    "TrainingInputs",
]


@dataclass(frozen=True)
class CellTensors:
    """The cells of one column as inputs of a network.

    Parameters
    ----------
    present : BoolTensor of shape (n_rows,)
        True where there is a readable cell.
    inputs : mapping of str to Tensor of shape (n_rows, ...)
        Inputs of the backbone by name; zeros where no cell is present. Empty if the column has
        no cell.
    """

    present: Tensor
    inputs: Mapping[str, Tensor]

    def rows(self, index: "Tensor | slice") -> "CellTensors":
        """Return some rows, by their positions or as a slice."""
        inputs = {name: _taken(tensor, index) for name, tensor in self.inputs.items()}
        return CellTensors(_taken(self.present, index), inputs)

    def to(self, device: "torch.device | str") -> "CellTensors":
        """Return a copy on a device; tensors that are already there are shared."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return CellTensors(self.present.to(device), inputs)


@dataclass(frozen=True)
class TrainingInputs:
    """The columns of an encoder as inputs of its network, one row per row of the frame.

    Parameters
    ----------
    columns : tuple of CellTensors
        One for each column.
    """

    columns: tuple[CellTensors, ...]

    @property
    def present(self) -> Tensor:
        """Whether any column of a row has a readable cell, of shape (n_rows,)."""
        return torch.stack([column.present for column in self.columns]).any(dim=0)

    def __len__(self) -> int:
        return len(self.columns[0].present)

    def rows(self, index: "Tensor | slice") -> "TrainingInputs":
        """Return some rows, by their positions or as a slice."""
        return TrainingInputs(tuple(column.rows(index) for column in self.columns))

    def to(self, device: "torch.device | str") -> "TrainingInputs":
        """Return a copy on a device; tensors that are already there are shared."""
        return TrainingInputs(tuple(column.to(device) for column in self.columns))


def _taken(tensor: Tensor, index: "Tensor | slice") -> Tensor:
    return tensor[index] if isinstance(index, slice) else tensor.index_select(0, index)


class SideBySide(nn.Module):
    """Run one backbone on each column and concatenate the tokens.

    Parameters
    ----------
    backbone : Backbone
        Backbone that the columns share.
    n_columns : int
        Number of columns.

    Attributes
    ----------
    width : int
        Length of a token and of the pooled vector.
    step_size : float or None
        Step size for pretrained weights; None leaves it to the trainer.
    """

    def __init__(self, backbone: Backbone, n_columns: int):
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns
        self.width = backbone.width
        self.step_size: float | None = getattr(backbone, "step_size", None)

    def forward(self, inputs: TrainingInputs) -> Encoded:
        """Encode every column; the tokens of absent cells are masked.

        ``pooled`` is the mean over the columns that are present.
        """
        encoded = [self._encode(column) for column in inputs.columns]
        present = torch.stack([column.present for column in inputs.columns], dim=1)
        present = present.to(encoded[0].pooled.dtype)  # (n_rows, n_columns)
        pooled = torch.stack([e.pooled for e in encoded], dim=1)
        return Encoded(
            tokens=torch.cat([e.tokens for e in encoded], dim=1),
            mask=torch.cat([e.mask for e in encoded], dim=1),
            pooled=pooled.sum(1) / present.sum(1, keepdim=True).clamp(min=1.0),
        )

    def _encode(self, column: CellTensors) -> Encoded:
        """Encode the cells that are present; the others have zeros.

        Rows of absent cells never enter the network, because a user's module could turn them
        into NaN or mix the rows of a batch.
        """
        present = column.present
        if present.all():
            encoded: Encoded = self.backbone(**column.inputs)
            return encoded
        n, rows = len(present), present.nonzero().squeeze(1)
        if not len(rows):
            nothing = torch.zeros(n, 1, self.width, device=present.device)
            mask = torch.zeros(n, 1, dtype=torch.bool, device=present.device)
            return Encoded(nothing, mask, nothing[:, 0])
        part = self.backbone(**column.rows(rows).inputs)
        return Encoded(*(_scattered(values, rows, n) for values in part))


def _scattered(values: Tensor, rows: Tensor, n: int) -> Tensor:
    return values.new_zeros(n, *values.shape[1:]).index_copy(0, rows, values)
