"""Sequences of tokens: as a block's features, scaled, and cut to a number of them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skmm._compose._block import BlockValues

__all__ = ["TokenValues", "thinned"]

_PIECE = 1024  # rows that are worked on at once, in double precision


class TokenValues(BlockValues):
    """Tokens of one modality for a frame.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_tokens, n_features), float32
        Zero where there is no token.
    mask : ndarray of shape (n_samples, n_tokens)
        True where a token exists.
    present : ndarray of shape (n_samples,)
        Whether the row has a token.
    """

    def __init__(self, values: np.ndarray, mask: np.ndarray):
        super().__init__(values, np.asarray(mask.any(axis=1)))
        self.mask = mask

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature over the tokens that exist.

        In pieces: all tokens in double precision may be more than the memory holds.
        """
        count = max(int(self.mask.sum()), 1)
        width = self.values.shape[2]
        mean = sum((t.sum(axis=0) for t in self._pieces()), np.zeros(width)) / count
        squares = (((t - mean) ** 2).sum(axis=0) for t in self._pieces())
        deviation = np.sqrt(sum(squares, np.zeros(width)) / count)
        constant = deviation <= 10 * np.finfo(np.float32).eps * np.abs(mean)
        return mean, np.where(constant, 1.0, deviation)

    def _pieces(self) -> Iterator[np.ndarray]:
        """Tokens that exist, of some rows at a time, (n, n_features) float64."""
        for start in range(0, len(self.values), _PIECE):
            rows = slice(start, start + _PIECE)
            yield self.values[rows][self.mask[rows]].astype(np.float64)

    def standardise(self, mean: np.ndarray, deviation: np.ndarray, farthest: float) -> None:
        """Scale the tokens in place, to at most ``farthest`` deviations from the mean."""
        for start in range(0, len(self.values), _PIECE):
            rows = slice(start, start + _PIECE)
            scaled = np.clip((self.values[rows] - mean) / deviation, -farthest, farthest)
            self.values[rows] = np.where(self.mask[rows, :, None], scaled, 0.0)


def thinned(tokens: Tensor, mask: Tensor, max_tokens: int | None) -> tuple[Tensor, Tensor]:
    """Keep at most ``max_tokens`` of each row, evenly spaced over those that exist.

    The first is kept, which in many models stands for the whole, and the last.

    Parameters
    ----------
    tokens : Tensor of shape (n_rows, n_tokens, n_features)
        Tokens.
    mask : BoolTensor of shape (n_rows, n_tokens)
        True where a token exists.
    max_tokens : int or None
        None keeps all.

    Returns
    -------
    tokens, mask : Tensor
        As they came where ``n_tokens`` is not above ``max_tokens``.
    """
    if max_tokens is None or tokens.shape[1] <= max_tokens:
        return tokens, mask
    counts = mask.sum(dim=1, keepdim=True)  # (n_rows, 1)
    kept = counts.clamp(max=max_tokens)
    steps = torch.arange(max_tokens, device=mask.device)[None]
    # The nearest whole number to step * (counts - 1) / (kept - 1): two never share one.
    last, gaps = (counts - 1).clamp(min=0), (kept - 1).clamp(min=1)
    place = ((2 * steps * last + gaps) // (2 * gaps)).minimum(last)
    # Tokens of several columns stand one after the other: what exists need not come first.
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    chosen = order.gather(1, place)[..., None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, chosen), steps < kept
