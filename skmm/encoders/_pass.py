"""The way of cells through a frozen model: digests, portions, batches, arrays.

``CellPass`` knows how cells become keys and batches, ``CellReader`` how a cell is read with its
place in every error, and ``encode_once`` nothing but keys: what is stored is looked up, what
another worker is at is left to it, what is left is encoded.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from skmm._frame._column import Column
from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._prefetch import FittingRunner, prepared_batches
from skmm.encoders._store._store import NullStore, StoreLike, StoreProtocol, resolve_store
from skmm.exceptions import CellTypeError, MediaDecodeError, ModalityWarning
from skmm.readers._source import with_position

__all__ = [
    "CellPass",
    "CellReader",
    "Place",
    "Places",
    "encode_once",
    "first_readable",
    "places_of",
]

Place = tuple[int, int]  # (column, row)
Places = list[Place]  # where one content stands; the first one is read
Answer = tuple[Places, np.ndarray | None]  # None: the content is unreadable
Batch = list[bytes]  # keys of contents that go through the model at once
# What a model gives for each content of a batch, None where it is unreadable.
EncodedBatches = Iterator[tuple[Batch, list[np.ndarray | None]]]

# Seconds after which claims are renewed: well below a store's lease.
_RENEWAL = 60.0
# Seconds between two looks at what another worker is encoding.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.25


class CellPass:
    """One call of an encoder on some columns.

    Parameters
    ----------
    engine : Engine
        What the cells go through.
    reader : CellReader
        Reads the cells; gets to know those that have no digest.
    runtime : Runtime
        How the pass runs.
    sequence : bool
        Whether tokens are asked for.
    store : path, EmbeddingStore, False or None
        As the encoders take it.
    reading : dict
        What changes how a cell is decoded, as JSON types.
    portion : int
        Cells that are looked up together.
    reads_ahead : bool
        Whether the cells of a portion are read before they are cut into batches.
    n_readers : callable
        How many threads read cells ahead of the model, asked for each portion.
    """

    def __init__(
        self,
        engine: Engine,
        reader: "CellReader",
        runtime: Runtime,
        *,
        sequence: bool,
        store: StoreLike,
        reading: dict[str, Any],
        portion: int,
        reads_ahead: bool,
        n_readers: Callable[[], int],
    ):
        self.engine = engine
        self.reader = reader
        self.runtime = runtime
        self.portion = portion
        self.reads_ahead = reads_ahead
        self.n_readers = n_readers
        self.store: StoreProtocol = NullStore()
        self._base: bytes | None = None  # None: nothing of this model is kept
        fingerprint = engine.fingerprint(runtime)
        if fingerprint is not None:
            self.store = resolve_store(store)
            facts = json.dumps(reading, sort_keys=True)
            told = f"{fingerprint}|reading={facts}|sequence={sequence}"
            self._base = hashlib.blake2b(told.encode(), digest_size=16).digest()
        self._run = FittingRunner(engine, runtime, sequence=sequence, name=reader.owner)
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
            if n == self.portion:
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

    def _plan(self, missing: dict[bytes, Places]) -> Iterator[Batch]:
        keys = list(missing)
        cells: list[Any] = [None] * len(keys)
        if self.reads_ahead:
            cells = [self.reader.read(places[0]) for places in missing.values()]
            self._read_ahead = dict(zip(keys, cells, strict=True))
        for batch in self.engine.batches(cells, self.runtime):
            yield [keys[i] for i in batch]

    def _encode(self, batches: Iterable[Batch], missing: dict[bytes, Places]) -> EncodedBatches:
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
            n_threads=self.n_readers(),
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


class CellReader:
    """Applies an encoder's readers to cells, given by their place.

    Several threads may use it at once.

    Parameters
    ----------
    columns : list of Column
        Where the cells stand.
    read : callable
        From a cell to what is decoded of it.
    digest : callable
        From a cell to the digest of its content.
    read_with_digest : callable
        From a cell to both, of the very same content.
    owner : str
        The encoder's class, for messages.
    on_error : {"raise", "missing"}
        What to do with an unreadable cell.

    Attributes
    ----------
    unreadable : list of (column, row)
        Cells that were found to be unreadable, where that is to be survived.
    """

    def __init__(
        self,
        columns: list[Column],
        *,
        read: Callable[[Any], Any],
        digest: Callable[[Any], bytes],
        read_with_digest: Callable[[Any], tuple[bytes, Any]],
        owner: str,
        on_error: str,
    ):
        self.columns = columns
        self.owner = owner
        self.on_error = on_error
        self.unreadable: list[Place] = []
        self._read = read
        self._digest = digest
        self._read_with_digest = read_with_digest

    def read(self, place: Place) -> Any:
        """Decode a cell; None if it is unreadable."""
        return self._try(place, self._read)

    def digest(self, place: Place) -> bytes | None:
        """Digest of a cell's content; None if there is none, e.g. no such file."""
        digest: bytes | None = self._try(place, self._digest)
        return digest

    def read_as(self, place: Place, is_expected: Callable[[bytes], bool]) -> Any:
        """Decode a cell, None if unreadable; what is decoded must be what was looked up."""
        read = self._try(place, self._read_with_digest)
        if read is None:
            return None
        digest, decoded = read
        if not is_expected(digest):
            raise self._located(place, MediaDecodeError("changed while being encoded"))
        return decoded

    def _try(self, place: Place, verb: Callable[[Any], Any]) -> Any:
        try:
            return verb(self.columns[place[0]].values[place[1]])
        except CellTypeError as error:
            raise self._located(place, error) from error
        except MediaDecodeError as error:
            self.survive(place, error)
            return None

    def survive(self, place: Place, error: MediaDecodeError) -> None:
        """Count a cell as absent, or raise its error where that is not wanted."""
        if self.on_error != "missing":
            raise self._located(place, error) from error

    def _located(self, place: Place, error: CellTypeError | MediaDecodeError) -> Exception:
        """Return the error with column and row in front, and the way out behind."""
        column = self.columns[place[0]]
        told = with_position(error, column=column.name, row=column.labels[place[1]])
        told.args = (f"{self.owner}: {told}",)
        if isinstance(error, MediaDecodeError):
            told.args = (f'{told} Use on_error="missing" to count such cells as absent.',)
        return told

    def warn(self) -> None:
        """Tell of the unreadable cells, if there are any."""
        if not self.unreadable:
            return
        shown = ", ".join(
            f"row {self.columns[c].labels[r]!r} of {self.columns[c].name!r}"
            for c, r in sorted(self.unreadable)[:5]
        )
        n = len(self.unreadable)
        warnings.warn(
            f"{self.owner} counts {n} unreadable {'cell' if n == 1 else 'cells'}"
            f" as absent: {shown}{', ...' if n > 5 else ''}.",
            ModalityWarning,
            stacklevel=2,
        )


def places_of(columns: list[Column]) -> Iterator[Place]:
    """Places of the cells that are not missing, column by column."""
    for c, column in enumerate(columns):
        for row in np.flatnonzero(~column.missing):
            yield c, int(row)


def first_readable(columns: list[Column], read: Callable[[Any], Any]) -> Any:
    """Decode the first cell that can be; None if there is none.

    Of the others nothing is said: they are told when all cells are read, or survived.
    """
    for c, row in places_of(columns):
        try:
            return read(columns[c].values[row])
        except (CellTypeError, MediaDecodeError):
            continue
    return None


def encode_once(
    store: StoreProtocol,
    portions: Iterable[dict[bytes, Places]],
    plan: Callable[[dict[bytes, Places]], Iterable[Batch]],
    encode: Callable[[Iterable[Batch], dict[bytes, Places]], EncodedBatches],
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

    def __init__(
        self,
        store: StoreProtocol,
        plan: Callable[[dict[bytes, Places]], Iterable[Batch]],
        encode: Callable[[Iterable[Batch], dict[bytes, Places]], EncodedBatches],
    ):
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

    def _granted(self, missing: dict[bytes, Places]) -> Iterator[Batch]:
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
        self, missing: dict[bytes, Places], keys: Batch, arrays: list[np.ndarray | None]
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
