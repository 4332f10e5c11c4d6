"""One modality on its way into a fusion, as a sequence of tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from skmm._compose._block import Block, BlockValues, Noted, params_of_rows
from skmm._frame._column import column_names, columns_of, n_rows, take_rows
from skmm.fusion._clone import seeded_clone
from skmm.fusion._modalities import Modality, presence
from skmm.fusion._tokens import TokenValues, thinned

__all__ = ["SequenceBlock", "block_of"]

# Rows whose tokens are all there before they are cut.
_PIECE = 1024


class SequenceBlock(Block):
    """A modality whose transformer is asked for tokens, if it gives any.

    A transformer without ``transform_sequence``, and cells that are passed through, give one
    vector a row, as in :class:`Block`.

    Parameters
    ----------
    modality : Modality
        Name, unfitted transformer and columns.
    seed : int or None, default=None
        For what in the transformer has no ``random_state`` of its own.
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
        return hasattr(self.middle, "transform_sequence")

    def fit_transform(
        self, X: Any, y: np.ndarray | None = None, params: Mapping[str, Any] | None = None
    ) -> BlockValues:
        """Fit on the rows that have the modality, and give everybody's tokens."""
        if not self._gives_tokens:
            return super().fit_transform(X, y, params)
        present = presence(columns_of(X, self.columns))
        self.input_names = column_names(X, self.columns)
        rows = np.flatnonzero(present)
        if not len(rows):
            return BlockValues(np.empty((len(present), 0), dtype=np.float32), present)
        own = self._rows(X, rows, len(present))
        self.transformer = seeded_clone(self.middle, self.seed)
        with Noted(self.name, "fit"):
            target = None if y is None else y[rows]
            self.transformer.fit(own, target, **params_of_rows(params or {}, rows, len(present)))
        value = self._tokens(own, rows, len(present))
        self.n_features = value.values.shape[2]
        self.mean, self.deviation = value.scale()
        return value

    def transform(self, X: Any) -> BlockValues:
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

    def _tokens(self, own: Any, rows: np.ndarray, n: int) -> TokenValues:
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

    def _parts(self, own: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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

    def _checked(self, tokens: Any, mask: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
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


def block_of(modality: Modality, seed: int, *, granularity: str, max_tokens: int | None) -> Block:
    """Make the block of a modality whose vectors (``"pooled"``) or tokens are fused."""
    if granularity == "sequence":
        return SequenceBlock(modality, seed, max_tokens=max_tokens)
    return Block(modality, seed)
