"""The interface of a model: ``collate`` turns cells into tensors, ``forward`` tensors into tokens.

Encoders call both for frozen models, and joint networks call both for models that they train.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Backbone", "Encoded", "pool_tokens"]


class Encoded(NamedTuple):
    """Output of a backbone for a batch of cells.

    Parameters
    ----------
    tokens : Tensor of shape (n_cells, n_tokens, width)
        One vector per word, patch, frame or column, depending on the backbone. Values where the
        mask is False are undefined.
    mask : BoolTensor of shape (n_cells, n_tokens)
        True for tokens of the cell, False for padding to the longest cell of the batch.
    pooled : Tensor of shape (n_cells, width)
        One vector per cell; finite also for a cell without tokens.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor


class Backbone(ABC, nn.Module):
    """Base class of torch modules that encode decoded cells of one modality as tokens.

    A decoded cell is the output of a reader: a ``str``, a uint8 image ``(height, width, 3)``, a
    row of a table. The output for a cell must not depend on the other cells of its batch, so
    that a batch may have any size and any amount of padding.

    Attributes
    ----------
    width : int
        Length of a token and of the pooled vector.
    separable : bool
        Whether ``collate`` of a batch equals the concatenation of ``collate`` of its cells, so
        that threads can share the work. True for images that are resized to one size, False for
        cells that are padded to the longest of their batch.
    """

    width: int
    separable: bool = False

    @abstractmethod
    def collate(self, cells: Sequence[Any]) -> dict[str, Tensor]:
        """Convert decoded cells to the tensors that ``forward`` takes.

        A joint network calls this method once for a whole column and keeps the tensors on the
        device, so they should be compact, such as uint8 images or int64 ids.

        Parameters
        ----------
        cells : sequence of length n_cells
            Decoded cells, none of them missing.

        Returns
        -------
        tensors : dict of str to Tensor of shape (n_cells, ...)
            Tensors on the CPU, with the cells along the first axis, in their order.
        """

    @abstractmethod
    def forward(self, *args: Any, **tensors: Any) -> Encoded:
        """Encode the output of ``collate``, or some of its rows.

        Parameters
        ----------
        *args : None
            Ignored; a subclass takes tensors by name only.
        **tensors : Tensor of shape (n_cells, ...)
            Tensors under the names of ``collate``, on the device of the module.

        Returns
        -------
        encoded : Encoded
            Tokens, their mask, and one vector per cell.
        """

    def reconstruction_target(self, *args: Any, **tensors: Any) -> Tensor:
        """Return the target that a linear decoder reconstructs from ``pooled`` without y.

        Parameters
        ----------
        *args : None
            Ignored; a subclass takes tensors by name only.
        **tensors : Tensor of shape (n_cells, ...)
            Output of ``collate``.

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
    """Pool the tokens of each cell into one vector.

    Parameters
    ----------
    tokens : Tensor of shape (n_cells, n_tokens, width)
        Floats; values where the mask is False are ignored.
    mask : BoolTensor of shape (n_cells, n_tokens)
        True for tokens of the cell, False for padding.
    pooling : {"mean", "max", "statistics", "cls", "last"}
        The pooled vector: mean, maximum, mean and standard deviation concatenated, first token,
        or last token.

    Returns
    -------
    pooled : Tensor of shape (n_cells, width), twice as wide for "statistics"
        Zeros for a cell without tokens.

    Examples
    --------
    >>> import torch
    >>> from skmm.backbones._base import pool_tokens
    >>> tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool_tokens(tokens, torch.tensor([[True, True, False]]), "mean")
    tensor([[2.]])
    """
    is_token = mask.unsqueeze(-1)  # (n, t, 1)
    if pooling in ("mean", "statistics"):
        count = is_token.sum(1).clamp(min=1)
        pooled = torch.where(is_token, tokens, 0.0).sum(1) / count
        if pooling == "statistics":
            deviation = torch.where(is_token, tokens - pooled.unsqueeze(1), 0.0)
            variance = deviation.square().sum(1) / count
            # The gradient of the root of zero is infinite: equal tokens get no gradient instead.
            root = torch.where(variance > 0, variance, 1.0).sqrt()
            pooled = torch.cat([pooled, torch.where(variance > 0, root, 0.0)], dim=-1)
    elif pooling == "max":
        pooled = torch.where(is_token, tokens, -torch.inf).amax(1)
    elif pooling == "cls":
        pooled = tokens[:, 0]
    else:
        last = (mask.sum(1) - 1).clamp(min=0)
        pooled = tokens[torch.arange(len(tokens), device=tokens.device), last]
    return torch.where(mask.any(1, keepdim=True), pooled, 0.0)
