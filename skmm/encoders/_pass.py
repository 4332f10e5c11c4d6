"""One pass over distinct cells: look up, encode what nobody else does, wait for the rest."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["encode_once"]

# Seconds between two looks at what another worker is encoding.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.25


def encode_once(
    store: Any,
    keys: Sequence[bytes],
    plan: Callable[[list[int]], Iterable[list[int]]],
    encode: Callable[[list[int]], list[np.ndarray | None]],
    *,
    n_rows: int | None,
    report: Callable[[int, int], None],
) -> list[np.ndarray | None]:
    """Return one array per key, each computed at most once by all workers together.

    Parameters
    ----------
    store : EmbeddingStore or NullStore
        Where arrays are looked up and kept.
    keys : sequence of bytes
        Distinct keys.
    plan : callable
        Cuts the indices of keys that have to be encoded into batches.
    encode : callable
        Encodes the cells of a batch, given by index; None for a cell that is unreadable.
    n_rows : int or None
        Rows that the caller was given, for the store's counters; None counts nothing but
        what is encoded.
    report : callable
        Called with (cells done, cells to encode) after every batch.

    Returns
    -------
    arrays : list of (ndarray or None)
        In the order of ``keys``.
    """
    arrays: list[np.ndarray | None] = [None] * len(keys)
    waiting = _take_stored(store, keys, range(len(keys)), arrays)
    n_encoded, n_wanted = 0, len(waiting)
    pause = _SHORTEST_WAIT
    try:
        while waiting:
            left, progress = [], False
            for batch in plan(waiting):
                granted = set(store.claim([keys[i] for i in batch]))
                mine = [i for i in batch if keys[i] in granted]
                left += [i for i in batch if keys[i] not in granted]
                if mine:
                    n_encoded += _encode_batch(store, keys, mine, encode, arrays)
                    progress = True
                    report(n_encoded, n_wanted)
            waiting = _take_stored(store, keys, left, arrays)
            progress = progress or len(waiting) < len(left)
            # Whatever is left is being encoded elsewhere. If its owner dies, a later
            # claim is granted.
            pause = _SHORTEST_WAIT if progress else min(2 * pause, _LONGEST_WAIT)
            if waiting:
                time.sleep(pause)
    finally:
        if n_rows is None:
            store.count(encoded=n_encoded)
        else:
            n_found = sum(array is not None for array in arrays) - n_encoded
            store.count(rows=n_rows, looked_up=len(keys), found=n_found, encoded=n_encoded)
    return arrays


def _take_stored(
    store: Any, keys: Sequence[bytes], indices: Iterable[int], arrays: list[np.ndarray | None]
) -> list[int]:
    """Fill in what the store has and return the indices that it has not."""
    indices = list(indices)
    found = store.get_many([keys[i] for i in indices])
    for i in indices:
        if keys[i] in found:
            arrays[i] = found[keys[i]]
    return [i for i in indices if keys[i] not in found]


def _encode_batch(
    store: Any,
    keys: Sequence[bytes],
    mine: list[int],
    encode: Callable[[list[int]], list[np.ndarray | None]],
    arrays: list[np.ndarray | None],
) -> int:
    """Encode and store one batch; whatever is not stored is given back."""
    fresh: dict[bytes, np.ndarray] = {}
    try:
        for i, array in zip(mine, encode(mine), strict=True):
            if array is not None:
                # Kept as what the store gives back, so that the first answer and all
                # later ones are the same to the last bit.
                arrays[i] = fresh[keys[i]] = np.ascontiguousarray(array, dtype=np.float32)
        store.put_many(fresh)
    finally:
        rest = [keys[i] for i in mine if keys[i] not in fresh]
        if rest:
            store.release(rest)
    return len(fresh)
