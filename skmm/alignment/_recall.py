"""Recall of the partners of rows, the score of an alignment."""

import hashlib
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
from scipy.special import gammaln
from torch import Tensor

from skmm._training._batches import FeatureInputs, ModalityInputs

__all__ = ["encode_contents", "recall"]

_BLOCK = 1024  # queries whose similarities to all candidates are in memory at once


class _CellColumn(Protocol):
    """Cells of one column, as an encoder prepares them for a network."""

    @property
    def present(self) -> Tensor: ...

    @property
    def inputs(self) -> Mapping[str, Tensor]: ...


class _CellColumns(Protocol):
    """Inputs of an encoder that is trained."""

    @property
    def columns(self) -> tuple[_CellColumn, ...]: ...


def encode_contents(values: np.ndarray | ModalityInputs) -> np.ndarray:
    """Number the rows so that rows of equal content have equal numbers.

    Parameters
    ----------
    values : ndarray of shape (n, n_features), FeatureInputs or EncoderInputs
        Representation of the rows.

    Returns
    -------
    contents : ndarray of shape (n,), int64
        Numbers from 0 on.
    """
    # -0.0 and 0.0 are equal.
    arrays = [a + 0 if a.dtype.kind == "f" else a for a in _arrays(values)]
    known: dict[bytes, int] = {}
    contents = np.empty(len(arrays[0]), dtype=np.int64)
    for row in range(len(contents)):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array[row]).tobytes())
        contents[row] = known.setdefault(digest.digest(), len(known))
    return contents


def _arrays(values: np.ndarray | ModalityInputs) -> list[np.ndarray]:
    """Return arrays of n rows each, which together are the content of the rows."""
    if isinstance(values, np.ndarray):
        return [values]
    if isinstance(values, FeatureInputs):
        return [np.asarray(values.values)]
    columns = cast(_CellColumns, values.inputs).columns
    # One of several columns may be missing, which differs from a cell of zeros.
    tensors = [t for column in columns for t in (column.present, *column.inputs.values())]
    return [np.asarray(tensor) for tensor in tensors]


def recall(queries: np.ndarray, targets: np.ndarray, contents: np.ndarray, k: int) -> float:
    """Compute the fraction of queries whose target is among the ``k`` most similar ones.

    Any target of the same content as the query's own is correct. If wrong targets are exactly as
    similar as the correct one, a query counts with the probability of finding a correct one in
    random order, so that a space that is collapsed to one point gets the score of chance.

    Parameters
    ----------
    queries, targets : ndarray of shape (n, n_components)
        Vectors of unit length; the rows are partners.
    contents : ndarray of shape (n,)
        Number of each target's content, as :func:`encode_contents` returns it.
    k : int
        Number of most similar targets that are considered.

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
        right = contents[own][:, None] == contents[None, :]
        n_above = ((similarity > truth) & ~right).sum(axis=1)
        n_tied = ((similarity == truth) & ~right).sum(axis=1)
        total += _found(k - n_above, n_tied, right.sum(axis=1)).sum()
    return float(total / len(queries))


def _found(places: np.ndarray, n_wrong: np.ndarray, n_right: np.ndarray) -> np.ndarray:
    """Compute the probability that a correct one is in the first places of a random order."""
    n_drawn = np.clip(places, 0, n_wrong)
    # All that are drawn are wrong: C(n_wrong, n_drawn) / C(n_wrong + n_right, n_drawn).
    logarithm = (
        gammaln(n_wrong + 1)
        - gammaln(n_wrong - n_drawn + 1)
        - gammaln(n_wrong + n_right + 1)
        + gammaln(n_wrong + n_right - n_drawn + 1)
    )
    missed = np.where(places > n_wrong, 0.0, np.exp(logarithm))
    return np.where(places <= 0, 0.0, 1.0 - missed)
