"""A modality of a fusion as sequences of tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skmm._compose._base import Modality, presence
from skmm._compose._block import Block, BlockValues, Noted, params_of_rows, seeded_clone
from skmm._frame._column import column_names, columns_of, n_rows, take_rows
from skmm._frame._types import CellColumn, Frame

__all__ = [
    "SequenceBlock",
    "TokenValues",
    "thinned",
]

# Number of rows processed together: in double precision, or before tokens are cut.
_PIECE = 1024


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

    def standardize(self, mean: np.ndarray, deviation: np.ndarray, farthest: float) -> None:
        """Scale the tokens in place, to at most ``farthest`` deviations from the mean."""
        for start in range(0, len(self.values), _PIECE):
            rows = slice(start, start + _PIECE)
            scaled = np.clip((self.values[rows] - mean) / deviation, -farthest, farthest)
            self.values[rows] = np.where(self.mask[rows, :, None], scaled, 0.0)


class SequenceBlock(Block):
    """A modality of a fusion, as sequences of tokens if its transformer returns them.

    A transformer without ``transform_sequence``, and cells that are passed through, give one
    vector a row, as in :class:`Block`.

    Parameters
    ----------
    modality : Modality
        Name, unfitted transformer and columns.
    seed : int or None, default=None
        Seed of every part of the transformer whose ``random_state`` is None.
    max_tokens : int or None, default=None
        Most tokens of a row that are kept.
    """

    def __init__(
        self, modality: Modality, seed: int | None = None, *, max_tokens: int | None = None
    ):
        super().__init__(modality, seed)
        self.max_tokens = max_tokens

    @property
    def _gives_tokens(self) -> bool:
        return hasattr(self.unfitted, "transform_sequence")

    def fit_transform(
        self, X: Frame, y: np.ndarray | None = None, params: Mapping[str, Any] | None = None
    ) -> BlockValues:
        """Fit on the rows that have the modality, and give the tokens of all rows."""
        if not self._gives_tokens:
            return super().fit_transform(X, y, params)
        present = presence(columns_of(X, self.columns))
        self.input_names = column_names(X, self.columns)
        rows = np.flatnonzero(present)
        if not len(rows):
            return BlockValues(np.empty((len(present), 0), dtype=np.float32), present)
        own = self._rows(X, rows, len(present))
        self.transformer = seeded_clone(self.unfitted, self.seed)
        with Noted(self.name, "fit"):
            target = None if y is None else y[rows]
            self.transformer.fit(own, target, **params_of_rows(params or {}, rows, len(present)))
        value = self._tokens(own, rows, len(present))
        self.n_features = value.values.shape[2]
        self.mean, self.deviation = value.scale()
        return value

    def transform(self, X: Frame) -> BlockValues:
        """Tokens of a new frame, padded to the longest of its rows."""
        if not self._gives_tokens:
            return super().transform(X)
        present = presence(columns_of(X, self.columns))
        rows = np.flatnonzero(present)
        if not len(rows):
            nothing = np.zeros((len(present), 1, self.n_features), dtype=np.float32)
            return TokenValues(nothing, np.zeros((len(present), 1), dtype=bool))
        value = self._tokens(self._rows(X, rows, len(present)), rows, len(present))
        if value.values.shape[2] != self.n_features:
            raise ValueError(
                f"Modality {self.name!r} had tokens of {self.n_features} features in fit and has"
                f" tokens of {value.values.shape[2]} now. They must be of the same length."
            )
        return value

    def _tokens(self, own: CellColumn, rows: np.ndarray, n: int) -> TokenValues:
        parts = list(self._parts(own))
        longest = max(1, *(mask.shape[1] for _, mask in parts))
        values = np.zeros((n, longest, parts[0][0].shape[2]), dtype=np.float32)
        mask = np.zeros((n, longest), dtype=bool)
        start = 0
        for tokens, exists in parts:
            at = rows[start : start + len(exists)]
            values[at, : exists.shape[1]] = np.where(exists[:, :, None], tokens, 0.0)
            mask[at, : exists.shape[1]] = exists
            start += len(exists)
        return TokenValues(values, mask)

    def _parts(self, own: CellColumn) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield tokens and mask of some rows at a time, of all at once if nothing is cut."""
        n = n_rows(own)
        step = n if self.max_tokens is None else _PIECE
        for start in range(0, n, step):
            some = own if step >= n else take_rows(own, slice(start, start + step))
            with Noted(self.name, "transform"):
                tokens, mask = self.transformer.transform_sequence(some)
            tokens, mask = self._checked(tokens, mask, n_rows(some))
            if self.max_tokens is not None:
                cut = thinned(torch.from_numpy(tokens), torch.from_numpy(mask), self.max_tokens)
                tokens, mask = (part.numpy() for part in cut)
            yield tokens, mask

    def _checked(self, tokens: ArrayLike, mask: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.asarray(tokens, dtype=np.float32)
        mask = np.asarray(mask, dtype=bool)
        if tokens.ndim != 3 or len(tokens) != n or mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"transform_sequence of modality {self.name!r} gave tokens of shape"
                f" {tokens.shape} and a mask of shape {mask.shape} for {n} rows. A fusion needs"
                " (n_samples, n_tokens, n_features) and (n_samples, n_tokens)."
            )
        if not np.isfinite(tokens).all(axis=2, where=mask[:, :, None]).all():
            raise ValueError(
                f"transform_sequence of modality {self.name!r} gave NaN or an infinite value in a"
                " token that its mask says is there. Mask such a token, or give it numbers."
            )
        return tokens, mask


def thinned(tokens: Tensor, mask: Tensor, max_tokens: int | None) -> tuple[Tensor, Tensor]:
    """Keep at most ``max_tokens`` of each row, evenly spaced over those that exist.

    The first token, which in many models represents the whole input, and the last are kept.

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
    # Tokens of several columns are concatenated, so existing tokens need not come first.
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    chosen = order.gather(1, place)[..., None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, chosen), steps < kept
