"""How often the partner of a row is found: the score of an alignment."""

import hashlib
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
from scipy.special import gammaln
from torch import Tensor

from skmm._training._batches import FeatureInputs, ModalityInputs

__all__ = ["content_codes", "recall"]

_BLOCK = 1024  # queries whose similarities to all candidates are there at once


class _CellColumn(Protocol):
    """The cells of one column as the encoders give them."""

    @property
    def present(self) -> Tensor: ...

    @property
    def inputs(self) -> Mapping[str, Tensor]: ...


class _CellColumns(Protocol):
    """What an encoder that is trained reads."""

    @property
    def columns(self) -> tuple[_CellColumn, ...]: ...


def content_codes(values: np.ndarray | ModalityInputs) -> np.ndarray:
    """Number the rows so that rows of equal content have equal numbers.

    Parameters
    ----------
    values : ndarray of shape (n, n_features), FeatureInputs or EncoderInputs
        What the rows hold.

    Returns
    -------
    codes : ndarray of shape (n,), int64
        From 0 on.
    """
    # What is zero is the same, with whichever sign.
    arrays = [a + 0 if a.dtype.kind == "f" else a for a in _arrays(values)]
    known: dict[bytes, int] = {}
    codes = np.empty(len(arrays[0]), dtype=np.int64)
    for row in range(len(codes)):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array[row]).tobytes())
        codes[row] = known.setdefault(digest.digest(), len(known))
    return codes


def _arrays(values: np.ndarray | ModalityInputs) -> list[np.ndarray]:
    """Arrays with a row for each row, which together are its content."""
    if isinstance(values, np.ndarray):
        return [values]
    if isinstance(values, FeatureInputs):
        return [np.asarray(values.values)]
    columns = cast(_CellColumns, values.inputs).columns
    # Of several columns one may be absent, which is not the same as a cell of zeros.
    tensors = [t for column in columns for t in (column.present, *column.inputs.values())]
    return [np.asarray(tensor) for tensor in tensors]


def recall(queries: np.ndarray, targets: np.ndarray, codes: np.ndarray, k: int) -> float:
    """Share of queries that find their target among the ``k`` most similar ones.

    Targets of equal content are one as good as the other. Where others are exactly as similar
    as the truth, it is the probability of finding it if they stand in random order: a space in
    which everything lies in one point is not rewarded.

    Parameters
    ----------
    queries, targets : ndarray of shape (n, n_components)
        Vectors of unit length; row by row partners.
    codes : ndarray of shape (n,)
        Which targets hold the same.
    k : int
        How many may be looked at.

    Returns
    -------
    recall : float
        Between 0 and 1.
    """
    total = 0.0
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, start + _BLOCK)
        similarity = queries[rows] @ targets.T  # (n_queries, n)
        own = np.arange(start, start + len(similarity))
        truth = similarity[np.arange(len(own)), own][:, None]
        right = codes[own][:, None] == codes[None, :]
        n_above = ((similarity > truth) & ~right).sum(axis=1)
        n_tied = ((similarity == truth) & ~right).sum(axis=1)
        total += _found(k - n_above, n_tied, right.sum(axis=1)).sum()
    return float(total / len(queries))


def _found(places: np.ndarray, n_wrong: np.ndarray, n_right: np.ndarray) -> np.ndarray:
    """Probability that one of the right is in the first places of a random order."""
    n_drawn = np.clip(places, 0, n_wrong)
    # Only wrong ones are drawn: C(n_wrong, n_drawn) / C(n_wrong + n_right, n_drawn).
    logarithm = (
        gammaln(n_wrong + 1)
        - gammaln(n_wrong - n_drawn + 1)
        - gammaln(n_wrong + n_right + 1)
        + gammaln(n_wrong + n_right - n_drawn + 1)
    )
    missed = np.where(places > n_wrong, 0.0, np.exp(logarithm))
    return np.where(places <= 0, 0.0, 1.0 - missed)
