"""The way of cells through a frozen model: digests, portions, batches, arrays.

Sits between an encoder, which knows how a cell is read, and ``encode_once``, which knows
nothing but keys.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._prefetch import prepared_batches
from skmm.encoders._memory import FittingRunner
from skmm.encoders._pass import Answer, Places, encode_once
from skmm.encoders._reading import CellReader, Place, places_of
from skmm.encoders._store._store import NullStore, resolve_store
from skmm.exceptions import MediaDecodeError

__all__ = ["CellPass"]

# Seconds after which claims are renewed: well below a store's lease.
_RENEWAL = 60.0


class CellPass:
    """One call of an encoder on some columns.

    Parameters
    ----------
    encoder : CellEncoder
        Fitted.
    reader : CellReader
        Reads its cells; is told of those that have no digest.
    runtime : Runtime
        How the pass runs.
    sequence : bool
        Whether tokens are asked for.
    engine : Engine or None, default=None
        What the cells go through; None is all of the encoder's.
    """

    def __init__(
        self,
        encoder: Any,
        reader: CellReader,
        runtime: Runtime,
        *,
        sequence: bool,
        engine: Engine | None = None,
    ):
        self.encoder = encoder
        self.engine = encoder._engine if engine is None else engine
        self.reader = reader
        self.runtime = runtime
        self.sequence = sequence
        self.store: Any = NullStore()
        self._base: bytes | None = None  # None: nothing of this model is kept
        fingerprint = self.engine.fingerprint(runtime)
        if fingerprint is not None:
            self.store = resolve_store(encoder.store)
            facts = json.dumps(encoder._reading(), sort_keys=True)
            told = f"{fingerprint}|reading={facts}|sequence={sequence}"
            self._base = hashlib.blake2b(told.encode(), digest_size=16).digest()
        self._run = FittingRunner(
            self.engine, runtime, sequence=sequence, name=type(encoder).__name__
        )
        self._read_ahead: dict[bytes, Any] = {}

    def answers(
        self, *, counted: bool, before_batch: Callable[[], None] = lambda: None
    ) -> Iterator[Answer]:
        """Yield the places of every content and its array, None where it is unreadable."""
        self._before_batch = before_batch
        return encode_once(self.store, self._portions(), self._plan, self._encode, counted=counted)

    def _portions(self) -> Iterator[dict[bytes, Places]]:
        portion: dict[bytes, Places] = {}
        n = 0
        for place in places_of(self.reader.columns):
            key = self._key(place)
            if key is None:
                self.reader.unreadable.append(place)
                continue
            portion.setdefault(key, []).append(place)
            n += 1
            if n == self.encoder.portion:
                yield portion
                portion, n = {}, 0
        if portion:
            yield portion

    def _key(self, place: Place) -> bytes | None:
        if self._base is None:  # nothing is looked up: a cell is known by its place
            return f"{place[0]}|{place[1]}".encode()
        digest = self.reader.digest(place)
        return None if digest is None else self._keyed(digest)

    def _keyed(self, digest: bytes) -> bytes:
        assert self._base is not None
        return self._base + digest  # who encoded, and what

    def _plan(self, missing: dict[bytes, Places]) -> Iterator[list[bytes]]:
        keys = list(missing)
        cells: list[Any] = [None] * len(keys)
        if self.encoder.reads_ahead:
            cells = [self.reader.read(places[0]) for places in missing.values()]
            self._read_ahead = dict(zip(keys, cells, strict=True))
        for batch in self.engine.batches(cells, self.runtime):
            yield [keys[i] for i in batch]

    def _encode(
        self, batches: Iterable[list[bytes]], missing: dict[bytes, Places]
    ) -> Iterator[tuple[list[bytes], list[np.ndarray | None]]]:
        def read(key: bytes) -> Any:
            if key in self._read_ahead:
                return self._read_ahead[key]
            place = missing[key][0]
            if self._base is None:
                return self.reader.read(place)
            return self.reader.read_as(place, lambda digest: self._keyed(digest) == key)

        renewed = time.monotonic()
        for ready in prepared_batches(
            batches,
            read,
            self.engine,
            self.runtime,
            n_threads=self.encoder._n_readers(self.runtime),
        ):
            self._before_batch()
            if time.monotonic() - renewed > _RENEWAL:
                self.store.claim(ready.items)  # it is a slow model, not a dead worker
                renewed = time.monotonic()
            n_cells = sum(ready.readable)
            results = iter(self._run(ready.prepared, n_cells) if n_cells else [])
            arrays = [next(results) if there else None for there in ready.readable]
            for i, result in enumerate(arrays):
                if isinstance(result, MediaDecodeError):
                    self.reader.survive(missing[ready.items[i]][0], result)
                    arrays[i] = None
            yield ready.items, arrays
