"""Store of embeddings by (fingerprint of the encoder, digest of the cell's content).

A store is one SQLite file. Every value has a checksum, so that a damaged value is a miss and never
a wrong vector. A problem with the file (damage, a full disk, a read-only folder) never stops an
encoder: the store warns once, and the encoder works without it.
"""

import contextlib
import os
import socket
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast

import numpy as np

from skmm.encoders._store import _session
from skmm.encoders._store._connection import (
    USE_RESOLUTION,
    Connection,
    checksum,
    connect,
    pack,
    set_aside,
    unpack,
)
from skmm.exceptions import StoreWarning

__all__ = [
    "Claims",
    "EmbeddingStore",
    "NullStore",
    "StoreLike",
    "StoreProtocol",
    "resolve_store",
]

Result = TypeVar("Result")
COUNTERS = ("rows", "looked_up", "found", "encoded")
# Seconds after which another worker may take a claim although its owner lives. A batch of a large
# model on a CPU can take minutes. On the same machine a dead owner is noticed at once. Taking a
# claim too early means that work is done twice; values are never wrong.
LEASE = 300.0
_CHUNK = 500  # keys per query; SQLite's oldest limit on variables is 999


class EmbeddingStore:
    """Embeddings on disk, shared by encoders, folds, candidates and worker processes.

    Encoders use a store automatically. Use this class to inspect or empty a store, or to keep one
    in a folder of your choice, as ``store=`` of an encoder or of :func:`skmm.set_config`.

    Parameters
    ----------
    folder : path, default=None
        Folder of the store. It is created if it does not exist, readable by the current user
        only. None is the store that encoders use by default: that of :func:`skmm.set_config`,
        else a private one of the running process, which is removed at its exit.
    max_size : int, default=None
        Size in bytes above which the least recently used embeddings are deleted. None keeps all
        of them.

    Notes
    -----
    The file is an SQLite database in write-ahead mode; in a network folder, where machines cannot
    share memory, it has a rollback journal, which is slower. It contains no pickles.

    Examples
    --------
    >>> import numpy as np
    >>> import tempfile
    >>> from skmm.encoders import EmbeddingStore
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = EmbeddingStore(folder)
    ...     store.put_many({b"key": np.array([1.0, 2.0], dtype=np.float32)})
    ...     store.get_many([b"key", b"other"])
    ...     store.close()
    {b'key': array([1., 2.], dtype=float32)}
    """

    def __init__(
        self, folder: "str | os.PathLike[str] | None" = None, *, max_size: int | None = None
    ):
        self._folder = None if folder is None else Path(folder).expanduser().absolute()
        self.max_size = max_size
        self._claims = Claims()

    @property
    def folder(self) -> Path:
        """Folder that holds the store."""
        if self._folder is not None:
            return self._folder
        setting = _session.configured_store()
        if isinstance(setting, str | os.PathLike):
            return Path(setting).expanduser().absolute()
        if isinstance(setting, _session.StoreLocation) and setting.folder is not None:
            return Path(setting.folder)
        if isinstance(setting, EmbeddingStore) and setting._folder is not None:
            return setting._folder
        return _session.session_folder()

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self._folder) if self._folder else ''!r})"

    def __getstate__(self) -> dict[str, Any]:
        token = None if self._folder is not None else _session.token_for_workers()
        return {"folder": self._folder, "max_size": self.max_size, "session": token}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["session"] is not None:
            _session.adopt(state["session"])
        self.__init__(state["folder"], max_size=state["max_size"])  # type: ignore[misc]

    # --- vectors -----------------------------------------------------------------------

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the stored arrays of some keys.

        Parameters
        ----------
        keys : sequence of bytes
            Keys to look up.

        Returns
        -------
        found : dict of bytes to ndarray
            A float32 array for each key with an undamaged array.
        """

        def look_up(connection: Connection) -> dict[bytes, np.ndarray]:
            recent = connection.recent.get_many(keys)
            asked = [key for key in keys if key not in recent]
            found, damaged, used = {}, [], []
            now = int(time.time())
            for start in range(0, len(asked), _CHUNK):
                chunk = asked[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT k, v, c, t FROM e WHERE k IN ({marks})"
                for key, value, expected, last_used in connection.execute(query, chunk):
                    array = unpack(value) if checksum(key, value) == expected else None
                    if array is not None:
                        found[key] = array
                        if now - last_used > USE_RESOLUTION:
                            used.append((now, key))
                    else:
                        damaged.append((key,))
            if damaged:
                self._warn(f"{len(damaged)} damaged embeddings were deleted and are computed again")
            with contextlib.suppress(sqlite3.OperationalError):  # a read-only store still reads
                if damaged or used:
                    with connection.transaction():
                        connection.executemany("DELETE FROM e WHERE k = ?", damaged)
                        connection.executemany("UPDATE e SET t = ? WHERE k = ?", used)
            connection.recent.remember(found)
            return {**recent, **found}

        return self._attempt(look_up, {}) if len(keys) else {}

    def put_many(self, items: Mapping[bytes, np.ndarray]) -> None:
        """Store arrays. A key that is already stored keeps its first array.

        Parameters
        ----------
        items : mapping of bytes to ndarray
            Arrays of any shape; they are stored as float32.
        """

        def write(connection: Connection) -> None:
            now = int(time.time())
            rows = []
            for key, array in items.items():
                value = pack(array)
                rows.append((key, value, checksum(key, value), now))
            with connection.transaction():
                connection.executemany("INSERT OR IGNORE INTO e VALUES (?, ?, ?, ?)", rows)
                connection.executemany("DELETE FROM claim WHERE k = ?", [(key,) for key in items])
                limit = self._limit()
                if limit is not None and connection.used_bytes() > limit:
                    _evict(connection, int(0.9 * limit))

        self._attempt(write, None)

    # --- division of work among workers --------------------------------------------------

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Reserve keys that are neither stored nor being encoded by another worker.

        Parameters
        ----------
        keys : sequence of bytes
            Keys to encode.

        Returns
        -------
        granted : list of bytes
            Keys that the caller must encode now. The others are stored, or another living
            worker is encoding them.

        Notes
        -----
        A claim holds for five minutes, or until its owner dies. Claiming a key again renews the
        claim, unless another worker has claimed the key meanwhile.
        """
        return self._attempt(lambda c: self._claims.take(c, keys), list(keys))

    def release(self, keys: Sequence[bytes]) -> None:
        """Release claimed keys, e.g. when encoding them failed.

        Parameters
        ----------
        keys : sequence of bytes
            Keys that :meth:`claim` granted.
        """
        self._attempt(lambda c: self._claims.release(c, keys), None)

    # --- maintenance -------------------------------------------------------------------

    def count(self, **increments: int) -> None:
        """Add to the counters of :meth:`stats`.

        Parameters
        ----------
        **increments : int
            Increments by the names of the counters.
        """

        def add(connection: Connection) -> None:
            with connection.transaction():
                connection.executemany(
                    "INSERT INTO stat VALUES (?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET n = n + excluded.n",
                    list(increments.items()),
                )

        self._attempt(add, None)

    def stats(self) -> dict[str, int]:
        """Return the counters of look-ups and the size of the store, over all processes.

        Returns
        -------
        stats : dict
            ``rows``: number of cells that encoders received; ``looked_up``: number of distinct
            cells per call; ``found``: number of these that were stored or came from another
            worker; ``encoded``: number of cells that a model encoded; ``n_embeddings`` and
            ``n_bytes``: current number and size of the embeddings.
        """

        def read(connection: Connection) -> dict[str, int]:
            counted = dict(connection.execute("SELECT name, n FROM stat"))
            n, size = connection.execute("SELECT COUNT(*), SUM(LENGTH(v)) FROM e").fetchone()
            return {name: counted.get(name, 0) for name in COUNTERS} | {
                "n_embeddings": n,
                "n_bytes": size or 0,
            }

        nothing = dict.fromkeys((*COUNTERS, "n_embeddings", "n_bytes"), 0)
        return self._attempt(read, nothing)

    def clear(self) -> None:
        """Delete all embeddings and set the counters to zero."""

        def empty(connection: Connection) -> None:
            with connection.transaction():
                for table in ("e", "claim", "stat"):
                    connection.execute(f"DELETE FROM {table}")
            connection.recent.clear()
            connection.compact()

        self._attempt(empty, None)

    def prune(self, max_size: int | None = None) -> None:
        """Delete the least recently used embeddings and shrink the file.

        Embeddings are deleted in steps of about 5 %, until the store is small enough. If the file
        cannot be used, e.g. because it is locked, the method warns and deletes nothing.

        Parameters
        ----------
        max_size : int, default=None
            Largest size of the store in bytes afterwards; 0 deletes all embeddings. None is the
            ``max_size`` of the store; if that is None too, no embedding is deleted, and the file
            gives back the space that deleted embeddings took.

        Warns
        -----
        StoreWarning
            If the file cannot be used.
        """
        limit = self._limit() if max_size is None else max_size

        def shrink(connection: Connection) -> None:
            with connection.transaction():
                connection.execute("DELETE FROM claim WHERE until < ?", (time.time(),))
                if limit is not None:
                    _evict(connection, limit)
            connection.recent.clear()
            connection.compact()

        self._attempt(shrink, None)

    def close(self) -> None:
        """Close the file. The next call of another method opens it again."""
        Connection.close_all(self.folder)

    def _limit(self) -> int | None:
        """Return the largest size in bytes; without a folder, that of the configured store."""
        if self.max_size is None and self._folder is None:
            return getattr(_session.configured_store(), "max_size", None)
        return self.max_size

    def _attempt(self, action: Callable[[Connection], Result], fallback: Result) -> Result:
        """Run an action on the file; on an error of the file warn and return ``fallback``."""
        folder = self.folder
        for _ in range(2):
            try:
                connection = connect(folder)
                with connection.lock:
                    return action(connection)
            except sqlite3.OperationalError as error:  # locked, full, read-only, no folder
                self._warn(f"it cannot be used now ({error})")
                return fallback
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:
                    raise  # a bug, not damage
                kept = set_aside(folder)
                self._warn(f"its file was damaged ({error}) and is renamed to {kept}")
            except OSError as error:
                self._warn(f"it cannot be used now ({error})")
                return fallback
        return fallback

    def _warn(self, what: str) -> None:
        message = f"Embedding store {self.folder}: {what}. Results are right, work may be repeated."
        if message not in _said:
            _said.add(message)
            warnings.warn(message, StoreWarning, stacklevel=2)


class StoreProtocol(Protocol):
    """Methods of a store that an encoder uses."""

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, np.ndarray]:
        """Return the stored arrays of some keys."""

    def put_many(self, items: Mapping[bytes, np.ndarray], /) -> None:
        """Store arrays."""

    def claim(self, keys: Sequence[bytes], /) -> list[bytes]:
        """Reserve keys that are neither stored nor being encoded by another worker."""

    def release(self, keys: Sequence[bytes], /) -> None:
        """Release claimed keys."""

    def count(self, **increments: int) -> None:
        """Add to the counters."""


# Values of an encoder's ``store`` parameter.
StoreLike: TypeAlias = str | os.PathLike[str] | StoreProtocol | Literal[False] | None


class NullStore:
    """Store of ``store=False``, which stores nothing."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:  # noqa: D102
        return {}

    def put_many(self, items: Mapping[bytes, np.ndarray]) -> None:  # noqa: D102
        pass

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:  # noqa: D102
        return list(keys)

    def release(self, keys: Sequence[bytes]) -> None:  # noqa: D102
        pass

    def count(self, **increments: int) -> None:  # noqa: D102
        pass


_said: set[str] = set()


def resolve_store(store: StoreLike) -> StoreProtocol:
    """Turn an encoder's ``store`` parameter into a store.

    Parameters
    ----------
    store : path, EmbeddingStore, False or None
        Parameter of an encoder.

    Returns
    -------
    store : EmbeddingStore, NullStore or another object with the methods of StoreProtocol
        Store that the encoder uses.
    """
    chosen = _session.configured_store() if store is None else store
    if chosen is False:
        return NullStore()
    if isinstance(chosen, _session.StoreLocation):
        return EmbeddingStore(chosen.folder, max_size=chosen.max_size)
    if chosen is None or isinstance(chosen, str | os.PathLike):
        return EmbeddingStore(chosen)
    return cast(StoreProtocol, chosen)


def _evict(connection: Connection, limit: int) -> None:
    """Delete the least recently used rows until the store has at most ``limit`` bytes."""
    while connection.used_bytes() > limit:
        # Step by step, because the number of rows per page is unknown.
        (n,) = connection.execute("SELECT COUNT(*) FROM e").fetchone()
        if not n:
            break
        connection.execute(
            "DELETE FROM e WHERE rowid IN (SELECT rowid FROM e ORDER BY t, rowid LIMIT ?)",
            (max(1, n // 20),),
        )


class Claims:
    """Claims of the running thread in the ``claim`` table: which worker encodes which key.

    A claim ends when its array is stored, when it is released, when its owner dies, or when its
    time is over. Claiming a key again renews the time, unless another worker has claimed it.
    """

    def take(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        """Claim the keys that are neither stored nor claimed by a living worker."""
        host, pid, owner = _whoami()
        now = time.time()
        may_live = cache(_may_live)  # checked once per owner, not once per key
        taken: set[bytes] = set()
        with connection.transaction():
            for start in range(0, len(keys), _CHUNK):
                chunk = list(keys[start : start + _CHUNK])
                marks = ",".join("?" * len(chunk))
                held = connection.execute(
                    f"SELECT k, owner, host, pid, until FROM claim WHERE k IN ({marks})", chunk
                ).fetchall()
                taken.update(
                    key
                    for key, other, other_host, other_pid, until in held
                    # A time in the far future comes from a wrong clock.
                    if other != owner
                    and now < until <= now + 2 * LEASE
                    and may_live(other, other_host, other_pid, host)
                )
                stored = connection.execute(f"SELECT k FROM e WHERE k IN ({marks})", chunk)
                taken.update(key for (key,) in stored)
            granted = [key for key in keys if key not in taken]
            connection.executemany(
                "INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?)",
                [(key, owner, host, pid, now + LEASE) for key in granted],
            )
        return granted

    def release(self, connection: Connection, keys: Sequence[bytes]) -> None:
        """Delete this thread's claims on ``keys``."""
        _, _, owner = _whoami()
        with connection.transaction():
            connection.executemany(
                "DELETE FROM claim WHERE k = ? AND owner = ?", [(key, owner) for key in keys]
            )


def _whoami() -> tuple[str, int, str]:
    host, pid = socket.gethostname(), os.getpid()
    return host, pid, f"{host}:{pid}:{threading.get_ident()}"


def _may_live(owner: str, host: str, pid: int, here: str) -> bool:
    """Whether the owner of a claim may be alive; True where this cannot be checked."""
    if host != here:
        return True
    if pid == os.getpid():  # a thread of this process
        return int(owner.rpartition(":")[2]) in sys._current_frames()
    if os.name == "nt":  # on Windows signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # e.g. no permission: it exists
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and its parent has not yet read its exit status."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # not Linux
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]  # the name may contain ")"
