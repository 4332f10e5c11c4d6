"""What an encoder hands to whoever trains it under a head: the inputs, and the network."""

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
    """The cells of one column as a network takes them.

    Parameters
    ----------
    present : BoolTensor of shape (n_rows,)
        True where there is a readable cell.
    inputs : mapping of str to Tensor of shape (n_rows, ...)
        What the backbone takes, by its names; zeros where no cell is present. Empty where the
        column has no cell at all.
    """

    present: Tensor
    inputs: Mapping[str, Tensor]

    def rows(self, index: "Tensor | slice") -> "CellTensors":
        """Take some rows, by their positions or as a slice."""
        inputs = {name: _taken(tensor, index) for name, tensor in self.inputs.items()}
        return CellTensors(_taken(self.present, index), inputs)

    def to(self, device: "torch.device | str") -> "CellTensors":
        """Copy to a device what is not there yet."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return CellTensors(self.present.to(device), inputs)


@dataclass(frozen=True)
class TrainingInputs:
    """The columns of an encoder as its network takes them, a row a row of the frame.

    Parameters
    ----------
    columns : tuple of CellTensors
        One for each column.
    """

    columns: tuple[CellTensors, ...]

    @property
    def present(self) -> Tensor:
        """True where any column has a readable cell, of shape (n_rows,)."""
        return torch.stack([column.present for column in self.columns]).any(dim=0)

    def __len__(self) -> int:
        return len(self.columns[0].present)

    def rows(self, index: "Tensor | slice") -> "TrainingInputs":
        """Take some rows, by their positions or as a slice."""
        return TrainingInputs(tuple(column.rows(index) for column in self.columns))

    def to(self, device: "torch.device | str") -> "TrainingInputs":
        """Copy to a device what is not there yet."""
        return TrainingInputs(tuple(column.to(device) for column in self.columns))


def _taken(tensor: Tensor, index: "Tensor | slice") -> Tensor:
    return tensor[index] if isinstance(index, slice) else tensor.index_select(0, index)


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
    width : int
        Length of a token and of the pooled vector.
    step_size : float or None
        Step size of an optimizer that suits the weights; None leaves it to the trainer.
    """

    def __init__(self, backbone: Backbone, n_columns: int):
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns
        self.width = backbone.width
        self.step_size: float | None = getattr(backbone, "step_size", None)

    def forward(self, inputs: TrainingInputs) -> Encoded:
        """Encode every column; an absent cell's tokens are masked.

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
        """Encode the cells that are there, zeros in place of the others.

        What stands in an absent cell's tensors never enters the network: a module of the
        user's may make NaN of it, or mix the rows of a batch.
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
