"""What an encoder and a joint net ask of a model: cells to tensors, tensors to tokens.

Leaf of its folder: imports torch alone. An encoder reads cells with ``collate`` and calls the
module with what came back; a joint net that trains the model does the same with its batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

__all__ = ["Backbone", "Encoded"]


class Encoded(NamedTuple):
    """What a backbone makes of a batch of cells.

    Parameters
    ----------
    tokens : Tensor of shape (n_cells, n_tokens, width)
        One vector per word, patch, frame, column, ...; their meaning is the backbone's. What
        stands where the mask is False carries no meaning.
    mask : BoolTensor of shape (n_cells, n_tokens)
        True where the token exists, False where it pads the cell to the longest of its batch.
    pooled : Tensor of shape (n_cells, width)
        One vector per cell; finite also for a cell without any token.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor


class Backbone(ABC, nn.Module):
    """A torch module that turns decoded cells of one modality into tokens.

    A decoded cell is what a reader gives: a ``str``, a uint8 picture ``(height, width, 3)``, a
    row of a table. Output for a cell never depends on the other cells of its batch, so batches
    may be of any size, one included, and be padded to any length.

    Attributes
    ----------
    width : int
        Length of a token and of the pooled vector.
    separable : bool
        Whether ``collate`` of a batch is the concatenation of ``collate`` of its cells, so that
        threads may share the work: True for pictures that are all brought to one size, False
        for cells that are padded to the longest of their batch.
    """

    width: int
    separable: bool = False

    @abstractmethod
    def collate(self, cells: Sequence[Any]) -> dict[str, Tensor]:
        """Turn decoded cells into tensors that ``forward`` takes.

        Called once with a whole column by a joint net, whose tensors then live on the device,
        so they are compact: uint8 pictures, int64 ids.

        Parameters
        ----------
        cells : sequence of length n_cells
            Decoded cells, none of them missing.

        Returns
        -------
        tensors : dict of str to Tensor of shape (n_cells, ...)
            On the CPU; the first axis runs over the cells, in their order.
        """

    @abstractmethod
    def forward(self, **tensors: Tensor) -> Encoded:
        """Encode what ``collate`` gave, or any rows of it, moved to the module's device.

        Parameters
        ----------
        **tensors : Tensor of shape (n_cells, ...)
            By the names that ``collate`` gave them.

        Returns
        -------
        encoded : Encoded
            Tokens, their mask, and one vector per cell.
        """

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        """Give what a linear decoder has to reproduce from ``pooled`` when there is no y.

        Parameters
        ----------
        **tensors : Tensor of shape (n_cells, ...)
            What ``collate`` gave.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            Floats on the device of the tensors.
        """
        raise NotImplementedError(
            f"{type(self).__name__} is not trained from scratch, so it has no reconstruction"
            " target. Use it with its pretrained weights, or train it with y."
        )
