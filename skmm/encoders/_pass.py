"""One pass over cells: look up, encode what nobody else does, come back for the rest."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["Places", "encode_once"]

Place = tuple[int, int]  # (column, row)
Places = list[Place]  # where one content stands; the first one is read
Answer = tuple[Places, np.ndarray | None]  # None: the content is unreadable

# Seconds between two looks at what another worker is encoding.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.25


def encode_once(
    store: Any,
    portions: Iterable[dict[bytes, Places]],
    plan: Callable[[dict[bytes, Places]], Iterable[list[bytes]]],
    encode: Callable[
        [Iterable[list[bytes]], dict[bytes, Places]],
        Iterator[tuple[list[bytes], list[np.ndarray | None]]],
    ],
    *,
    counted: bool,
) -> Iterator[Answer]:
    """Yield the array of every content, each computed at most once by all workers together.

    Portions bound the memory: nothing is kept of one when the next begins, save the keys that
    another worker is encoding. Those are looked at again after the last portion, so that nobody
    waits while there is work.

    Parameters
    ----------
    store : EmbeddingStore or NullStore
        Where arrays are looked up and kept.
    portions : iterable of dict
        Keys of distinct contents, with their places.
    plan : callable
        Cuts the keys of a portion that have to be encoded into batches.
    encode : callable
        From batches of keys, which it may take ahead of its work, and their places to
        (batch, arrays), in any order; None for a content that is unreadable.
    counted : bool
        Whether the store's counters are to tell of the look-ups, not only of the work.

    Yields
    ------
    places : list of (column, row)
        Where the content stands.
    array : ndarray or None
        None if it is unreadable.
    """
    run = _Pass(store, plan, encode)
    try:
        for portion in portions:
            run.n_rows += sum(map(len, portion.values()))
            run.n_looked_up += len(portion)
            yield from run.through(portion)
        pause = _SHORTEST_WAIT
        while run.elsewhere:
            waiting, run.elsewhere = run.elsewhere, {}
            yield from run.through(waiting)
            # Whatever is left is being encoded elsewhere. If its owner dies, a later claim
            # is granted.
            progress = len(run.elsewhere) < len(waiting)
            pause = _SHORTEST_WAIT if progress else min(2 * pause, _LONGEST_WAIT)
            if run.elsewhere:
                time.sleep(pause)
    finally:
        run.end(counted)


class _Pass:
    """State of one pass.

    Attributes
    ----------
    elsewhere : dict of bytes to list of (column, row)
        What another worker has claimed.
    """

    def __init__(self, store: Any, plan: Any, encode: Any):
        self.store = store
        self.plan = plan
        self.encode = encode
        self.elsewhere: dict[bytes, Places] = {}
        self.n_rows = self.n_looked_up = self.n_encoded = self.n_unreadable = 0
        self._claimed: set[bytes] = set()

    def through(self, portion: dict[bytes, Places]) -> Iterator[Answer]:
        """Look up or encode the contents of a portion, as far as nobody else is at them."""
        found = self.store.get_many(list(portion))
        for key, array in found.items():
            yield portion[key], array
        missing = {key: places for key, places in portion.items() if key not in found}
        if not missing:
            return
        for keys, arrays in self.encode(self._granted(missing), missing):
            yield from self._kept(missing, keys, arrays)

    def _granted(self, missing: dict[bytes, Places]) -> Iterator[list[bytes]]:
        for keys in self.plan(missing):
            granted = set(self.store.claim(keys))
            self._claimed |= granted
            for key in keys:
                if key not in granted:
                    # The same content may stand in several portions.
                    self.elsewhere.setdefault(key, []).extend(missing[key])
            mine = [key for key in keys if key in granted]
            if mine:
                yield mine

    def _kept(
        self, missing: dict[bytes, Places], keys: list[bytes], arrays: list[np.ndarray | None]
    ) -> Iterator[Answer]:
        # Rounded to what the store gives back, so that the first answer and all later ones
        # are the same to the last bit.
        fresh = {
            key: np.ascontiguousarray(array, dtype=np.float32)
            for key, array in zip(keys, arrays, strict=True)
            if array is not None
        }
        self.store.put_many(fresh)
        unreadable = [key for key in keys if key not in fresh]
        if unreadable:
            self.store.release(unreadable)
        self._claimed.difference_update(keys)
        self.n_encoded += len(fresh)
        self.n_unreadable += len(unreadable)
        for key in keys:
            yield missing[key], fresh.get(key)

    def end(self, counted: bool) -> None:
        """Give back what was not stored, and add to the store's counters."""
        if self._claimed:
            self.store.release(list(self._claimed))
        if counted:
            n_found = self.n_looked_up - self.n_encoded - self.n_unreadable
            self.store.count(
                rows=self.n_rows,
                looked_up=self.n_looked_up,
                found=max(n_found, 0),
                encoded=self.n_encoded,
            )
        else:
            self.store.count(encoded=self.n_encoded)
