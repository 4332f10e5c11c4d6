"""One SQLite connection per process and store, opened at first use.

A connection is never carried through a pickle or a fork: it is found by (pid, folder).
"""

import atexit
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Connection", "connect", "set_aside"]

_VERSION = 1
_FILE = f"embeddings-v{_VERSION}.sqlite3"
_TABLES = """
CREATE TABLE IF NOT EXISTS e
    (k BLOB PRIMARY KEY, v BLOB NOT NULL, c INTEGER NOT NULL, t INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS claim
    (k BLOB PRIMARY KEY, owner TEXT NOT NULL, host TEXT NOT NULL,
     pid INTEGER NOT NULL, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS stat (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""
_PATIENCE = 60.0  # seconds to wait for another process that writes
_open: "dict[tuple[int, str], Connection]" = {}
_registry_lock = threading.Lock()


class Connection:
    """A connection with the lock that makes it safe for the threads of a process."""

    def __init__(self, path: Path):
        self.lock = threading.RLock()
        # isolation_level=None: transactions are written out where they begin and end.
        self._raw = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare_patiently()
        except BaseException:
            self._raw.close()
            raise

    def _prepare_patiently(self) -> None:
        # Going over to WAL while another process does the same fails at once, timeout or not.
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._prepare()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _prepare(self) -> None:
        self._raw.execute("PRAGMA page_size = 8192")
        # A network file system has no shared memory; SQLite then stays in its old mode.
        self._raw.execute("PRAGMA journal_mode = WAL")
        self._raw.execute("PRAGMA synchronous = NORMAL")
        self._raw.execute(f"PRAGMA mmap_size = {1 << 30}")
        version = self._raw.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"version {version} of the format is not known")
        if version == 0:
            self._raw.executescript(_TABLES)
            self._raw.execute(f"PRAGMA user_version = {_VERSION}")

    def execute(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._raw.execute(query, values)

    def executemany(self, query: str, rows: Sequence[Any]) -> sqlite3.Cursor:
        return self._raw.executemany(query, rows)

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use."""
        pages, free, size = (
            self._raw.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def compact(self) -> None:
        """Give the space of deleted rows back to the disk."""
        self._raw.execute("VACUUM")
        self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock at once, so that no two processes decide the same thing."""
        self._raw.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")
            raise
        self._raw.execute("COMMIT")

    def close(self) -> None:
        with self.lock, contextlib.suppress(sqlite3.Error):
            self._raw.close()

    @staticmethod
    def close_all(folder: "Path | None" = None) -> None:
        """Close this process' connections, to one folder or to all."""
        with _registry_lock:
            for pid, place in list(_open):
                if pid == os.getpid() and folder in (None, Path(place)):
                    _open.pop((pid, place)).close()


def connect(folder: Path) -> Connection:
    """Return this process' connection to the store in ``folder``."""
    key = (os.getpid(), str(folder))
    with _registry_lock:
        path = folder / _FILE
        if key in _open and not path.exists():
            # The folder was removed under us: what is written there would be lost.
            _open.pop(key).close()
        if key not in _open:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                # Made here so that nobody else can read it; SQLite's own files follow it.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            _open[key] = Connection(path)
        return _open[key]


def set_aside(folder: Path) -> str:
    """Rename a damaged file, so that it can be looked at but is never read again."""
    Connection.close_all(folder)
    kept = f"{_FILE}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            (folder / (_FILE + suffix)).rename(folder / (kept + suffix))
    return kept


atexit.register(Connection.close_all)
