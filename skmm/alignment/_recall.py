"""How often the partner of a row is found: the score of an alignment."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

__all__ = ["content_codes", "recall"]

_BLOCK = 1024  # queries whose similarities to all candidates are there at once


def content_codes(values: np.ndarray | Mapping[str, ArrayLike]) -> np.ndarray:
    """Number the rows so that rows of equal content have equal numbers.

    Parameters
    ----------
    values : ndarray of shape (n, n_features), or mapping of str to Tensor
        What the rows hold; of tensors the first axis is the row.

    Returns
    -------
    codes : ndarray of shape (n,), int64
        From 0 on.
    """
    given = values.values() if isinstance(values, Mapping) else [values]
    arrays = [np.asarray(array) for array in given]
    # What is zero is the same, with whichever sign.
    arrays = [a + 0 if a.dtype.kind == "f" else a for a in arrays]
    known: dict[bytes, int] = {}
    codes = np.empty(len(arrays[0]), dtype=np.int64)
    for row in range(len(codes)):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array[row]).tobytes())
        codes[row] = known.setdefault(digest.digest(), len(known))
    return codes


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
