"""What an encoder and a joint net ask of a model: cells to tensors, tensors to tokens.

Leaf of its folder: imports torch alone. An encoder reads cells with ``collate`` and calls the
module with what came back; a joint net that trains the model does the same with its batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Backbone", "Encoded", "pool_tokens"]


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

    A decoded cell is what a reader gives: a ``str``, a uint8 image ``(height, width, 3)``, a
    row of a table. Output for a cell never depends on the other cells of its batch, so batches
    may be of any size, one included, and be padded to any length.

    Attributes
    ----------
    width : int
        Length of a token and of the pooled vector.
    separable : bool
        Whether ``collate`` of a batch is the concatenation of ``collate`` of its cells, so that
        threads may share the work: True for images that are all brought to one size, False
        for cells that are padded to the longest of their batch.
    """

    width: int
    separable: bool = False

    @abstractmethod
    def collate(self, cells: Sequence[Any]) -> dict[str, Tensor]:
        """Turn decoded cells into tensors that ``forward`` takes.

        Called once with a whole column by a joint net, whose tensors then live on the device,
        so they are compact: uint8 images, int64 ids.

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
    def forward(self, *args: Any, **tensors: Any) -> Encoded:
        """Encode what ``collate`` gave, or any rows of it, moved to the module's device.

        Parameters
        ----------
        *args : None
            Not used: a subclass takes tensors by name alone.
        **tensors : Tensor of shape (n_cells, ...)
            By the names that ``collate`` gave them.

        Returns
        -------
        encoded : Encoded
            Tokens, their mask, and one vector per cell.
        """

    def reconstruction_target(self, *args: Any, **tensors: Any) -> Tensor:
        """Give what a linear decoder has to reproduce from ``pooled`` when there is no y.

        Parameters
        ----------
        *args : None
            Not used: a subclass takes tensors by name alone.
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


def pool_tokens(tokens: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Summarize the tokens of each cell.

    Parameters
    ----------
    tokens : Tensor of shape (n_cells, n_tokens, width)
        Floats; values where the mask is False do not matter.
    mask : BoolTensor of shape (n_cells, n_tokens)
        True where the token exists.
    pooling : {"mean", "max", "statistics", "cls", "last"}
        How. ``"statistics"`` are the mean and the standard deviation side by side.

    Returns
    -------
    pooled : Tensor of shape (n_cells, width), twice as wide for "statistics"
        Zeros for a cell without any token.

    Examples
    --------
    >>> import torch
    >>> from skmm.backbones._base import pool_tokens
    >>> tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool_tokens(tokens, torch.tensor([[True, True, False]]), "mean")
    tensor([[2.]])
    """
    seen = mask.unsqueeze(-1)  # (n, t, 1)
    if pooling in ("mean", "statistics"):
        count = seen.sum(1).clamp(min=1)
        pooled = torch.where(seen, tokens, 0.0).sum(1) / count
        if pooling == "statistics":
            apart = torch.where(seen, tokens - pooled.unsqueeze(1), 0.0)
            variance = apart.square().sum(1) / count
            # Where all tokens are alike, the root has no gradient, and training must go on.
            root = torch.where(variance > 0, variance, 1.0).sqrt()
            pooled = torch.cat([pooled, torch.where(variance > 0, root, 0.0)], dim=-1)
    elif pooling == "max":
        pooled = torch.where(seen, tokens, -torch.inf).amax(1)
    elif pooling == "cls":
        pooled = tokens[:, 0]
    else:
        last = (mask.sum(1) - 1).clamp(min=0)
        pooled = tokens[torch.arange(len(tokens), device=tokens.device), last]
    return torch.where(mask.any(1, keepdim=True), pooled, 0.0)
