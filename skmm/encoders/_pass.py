"""One pass of cells through an engine: from digests over chunks and batches to arrays.

``CellPass`` turns cells into keys and batches. ``CellReader`` reads cells and adds their place to
every error. ``encode_once`` works on keys only: stored arrays are looked up, those that another
worker encodes are left to it, and the others are encoded.
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
Places = list[Place]  # all cells with one content; the first one is read
Answer = tuple[Places, np.ndarray | None]  # None if the content is unreadable
Batch = list[bytes]  # keys of one batch
# The array of each content of a batch, None if it is unreadable.
EncodedBatches = Iterator[tuple[Batch, list[np.ndarray | None]]]

# Seconds after which claims are renewed: well below the lease of a store.
_RENEWAL = 60.0
# Seconds between two look-ups of arrays that another worker is encoding.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.25


class CellPass:
    """One call of an encoder on some columns.

    Parameters
    ----------
    engine : Engine
        Encodes the cells.
    reader : CellReader
        Reads the cells; unreadable ones are added to its ``unreadable``.
    runtime : Runtime
        Device, precision and batch size.
    sequence : bool
        Whether to return tokens instead of vectors.
    store : path, EmbeddingStore, False or None
        Parameter of the encoder.
    reading : dict
        Parameters that change how a cell is decoded, as JSON types.
    chunk_size : int
        Number of cells that are looked up together.
    reads_chunks : bool
        Whether to read the cells of a chunk before cutting it into batches.
    n_readers : callable
        Returns the number of threads that prefetch cells; called for each chunk.
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
        chunk_size: int,
        reads_chunks: bool,
        n_readers: Callable[[], int],
    ):
        self.engine = engine
        self.reader = reader
        self.runtime = runtime
        self.chunk_size = chunk_size
        self.reads_chunks = reads_chunks
        self.n_readers = n_readers
        self.store: StoreProtocol = NullStore()
        self._base: bytes | None = None  # None if arrays of this model are not stored
        fingerprint = engine.fingerprint(runtime)
        if fingerprint is not None:
            self.store = resolve_store(store)
            facts = json.dumps(reading, sort_keys=True)
            described = f"{fingerprint}|reading={facts}|sequence={sequence}"
            self._base = hashlib.blake2b(described.encode(), digest_size=16).digest()
        self._run = FittingRunner(engine, runtime, sequence=sequence, name=reader.owner)
        self._decoded: dict[bytes, Any] = {}

    def answers(
        self, *, counted: bool, before_batch: Callable[[], None] = lambda: None
    ) -> Iterator[Answer]:
        """Yield the places of every content and its array, or None if it is unreadable."""
        self._before_batch = before_batch
        return encode_once(self.store, self._chunks(), self._plan, self._encode, counted=counted)

    def _chunks(self) -> Iterator[dict[bytes, Places]]:
        chunk: dict[bytes, Places] = {}
        n = 0
        for place in places_of(self.reader.columns):
            key = self._key(place)
            if key is None:
                self.reader.unreadable.append(place)
                continue
            chunk.setdefault(key, []).append(place)
            n += 1
            if n == self.chunk_size:
                yield chunk
                chunk, n = {}, 0
        if chunk:
            yield chunk

    def _key(self, place: Place) -> bytes | None:
        if self._base is None:  # without a store, the key is the place
            return f"{place[0]}|{place[1]}".encode()
        digest = self.reader.digest(place)
        return None if digest is None else self._keyed(digest)

    def _keyed(self, digest: bytes) -> bytes:
        assert self._base is not None
        return self._base + digest  # of the encoder and of the content

    def _plan(self, missing: dict[bytes, Places]) -> Iterator[Batch]:
        keys = list(missing)
        cells: list[Any] = [None] * len(keys)
        if self.reads_chunks:
            cells = [self.reader.read(places[0]) for places in missing.values()]
            self._decoded = dict(zip(keys, cells, strict=True))
        for batch in self.engine.batches(cells, self.runtime):
            yield [keys[i] for i in batch]

    def _encode(self, batches: Iterable[Batch], missing: dict[bytes, Places]) -> EncodedBatches:
        def read(key: bytes) -> Any:
            if key in self._decoded:
                return self._decoded[key]
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
                self.store.claim(ready.items)  # the model is slow, the worker is alive
                renewed = time.monotonic()
            n_cells = sum(ready.readable)
            results = iter(self._run(ready.prepared, n_cells) if n_cells else [])
            arrays = [next(results) if readable else None for readable in ready.readable]
            for i, result in enumerate(arrays):
                if isinstance(result, MediaDecodeError):
                    self.reader.handle(missing[ready.items[i]][0], result)
                    arrays[i] = None
            yield ready.items, arrays


class CellReader:
    """Read the cells of an encoder by their place; several threads may use it at once.

    Parameters
    ----------
    columns : list of Column
        Columns with the cells.
    read : callable
        From a cell to the decoded cell.
    digest : callable
        From a cell to the digest of its content.
    read_with_digest : callable
        From a cell to both, of the same content.
    owner : str
        Class of the encoder, for messages.
    on_error : {"raise", "missing"}
        What to do with an unreadable cell.

    Attributes
    ----------
    unreadable : list of (column, row)
        Unreadable cells that count as absent.
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
        """Decode a cell; return None if it is unreadable."""
        return self._try(place, self._read)

    def digest(self, place: Place) -> bytes | None:
        """Return the digest of a cell's content; None if it is unreadable, e.g. without a file."""
        digest: bytes | None = self._try(place, self._digest)
        return digest

    def read_as(self, place: Place, is_expected: Callable[[bytes], bool]) -> Any:
        """Decode a cell, None if unreadable; raise if its content has changed."""
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
            self.handle(place, error)
            return None

    def handle(self, place: Place, error: MediaDecodeError) -> None:
        """Raise the error of an unreadable cell, unless ``on_error`` counts it as absent."""
        if self.on_error != "missing":
            raise self._located(place, error) from error

    def _located(self, place: Place, error: CellTypeError | MediaDecodeError) -> Exception:
        """Return the error with class, column and row, and with the way out."""
        column = self.columns[place[0]]
        located = with_position(error, column=column.name, row=column.labels[place[1]])
        located.args = (f"{self.owner}: {located}",)
        if isinstance(error, MediaDecodeError):
            located.args = (f'{located} Use on_error="missing" to count such cells as absent.',)
        return located

    def warn(self) -> None:
        """Warn about the unreadable cells, if there are any."""
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
    """Yield the places of the cells that are not missing, column by column."""
    for c, column in enumerate(columns):
        for row in np.flatnonzero(~column.missing):
            yield c, int(row)


def first_readable(columns: list[Column], read: Callable[[Any], Any]) -> Any:
    """Decode the first readable cell; return None if there is none.

    Unreadable cells before it are skipped: they are reported when all cells are read.
    """
    for c, row in places_of(columns):
        try:
            return read(columns[c].values[row])
        except (CellTypeError, MediaDecodeError):
            continue
    return None


def encode_once(
    store: StoreProtocol,
    chunks: Iterable[dict[bytes, Places]],
    plan: Callable[[dict[bytes, Places]], Iterable[Batch]],
    encode: Callable[[Iterable[Batch], dict[bytes, Places]], EncodedBatches],
    *,
    counted: bool,
) -> Iterator[Answer]:
    """Yield the array of every content; all workers together compute it at most once.

    Chunks bound the memory: only the keys that another worker is encoding are kept from one chunk
    to the next. They are looked up again after the last chunk, so that no worker waits while
    there is work.

    Parameters
    ----------
    store : EmbeddingStore or NullStore
        Store in which arrays are looked up and stored.
    chunks : iterable of dict
        Keys of distinct contents, with their places.
    plan : callable
        Cuts the keys of a chunk that must be encoded into batches.
    encode : callable
        From batches of keys, which it may prefetch, and their places to (batch, arrays), in any
        order; None for a content that is unreadable.
    counted : bool
        Whether to count the look-ups in the store, in addition to the encoded contents.

    Yields
    ------
    places : list of (column, row)
        Cells with the content.
    array : ndarray or None
        None if it is unreadable.
    """
    run = _Pass(store, plan, encode)
    try:
        for chunk in chunks:
            run.n_rows += sum(map(len, chunk.values()))
            run.n_looked_up += len(chunk)
            yield from run.answers(chunk)
        pause = _SHORTEST_WAIT
        while run.elsewhere:
            waiting, run.elsewhere = run.elsewhere, {}
            yield from run.answers(waiting)
            # The keys that are left are being encoded elsewhere. If their owner dies, a later
            # claim is granted.
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
        Keys that another worker has claimed.
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

    def answers(self, chunk: dict[bytes, Places]) -> Iterator[Answer]:
        """Look up or encode the contents of a chunk, except those that another worker encodes."""
        found = self.store.get_many(list(chunk))
        for key, array in found.items():
            yield chunk[key], array
        missing = {key: places for key, places in chunk.items() if key not in found}
        if not missing:
            return
        for keys, arrays in self.encode(self._granted(missing), missing):
            yield from self._stored(missing, keys, arrays)

    def _granted(self, missing: dict[bytes, Places]) -> Iterator[Batch]:
        for keys in self.plan(missing):
            granted = set(self.store.claim(keys))
            self._claimed |= granted
            for key in keys:
                if key not in granted:
                    # Several chunks may have the same content.
                    self.elsewhere.setdefault(key, []).extend(missing[key])
            mine = [key for key in keys if key in granted]
            if mine:
                yield mine

    def _stored(
        self, missing: dict[bytes, Places], keys: Batch, arrays: list[np.ndarray | None]
    ) -> Iterator[Answer]:
        # Converted to the precision of the store, so that the first answer and all later ones
        # are equal to the last bit.
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
        """Release the claims that are left, and add to the counters of the store."""
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
