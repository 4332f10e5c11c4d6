"""From one vector a token to one vector a cell."""

import torch
from torch import Tensor

__all__ = ["pool_tokens"]


def pool_tokens(tokens: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Summarise the tokens of each cell.

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
    >>> from skmm.backbones._pooling import pool_tokens
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
