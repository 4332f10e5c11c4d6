"""One SQLite connection per process and store, opened at first use.

Connections are looked up by (pid, folder), so that none passes through a pickle or a fork.
"""

import atexit
import contextlib
import os
import random
import re
import sqlite3
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Connection",
    "RecentVectors",
    "USE_RESOLUTION",
    "checksum",
    "connect",
    "is_on_network",
    "pack",
    "set_aside",
    "unpack",
]

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
# Seconds by which the stored time of last use may be too old, so that reading rarely writes.
USE_RESOLUTION = 3600
_WRITE_TIMEOUT = 60.0  # seconds to wait for another process that writes
_OPEN_TIMEOUT = 20.0  # seconds, because many processes may open the file at once
_REFUSAL = 600.0  # seconds for which a store that was locked at opening is not used
_open: "dict[tuple[int, str], Connection]" = {}
# Stores that are not used: until when, and why.
_refused: dict[tuple[int, str], tuple[float, str]] = {}
_registry_lock = threading.Lock()


class Connection:
    """Connection with a lock that makes it safe for the threads of a process.

    Write-ahead logging (WAL) needs memory that all processes share. A network folder has none,
    and two machines would damage the file, so SQLite's rollback journal is used there. The mode
    is a property of the file. It is chosen when the file is created and never changed to WAL
    later, because processes with the file open would change to it unnoticed. A file in WAL that
    was moved to a network folder is changed to a rollback journal, which SQLite only does while
    no other process has it open.
    """

    def __init__(self, path: Path, *, shared_memory: bool):
        self.lock = threading.RLock()
        self.recent = RecentVectors(max_age=USE_RESOLUTION)
        self._shared_memory = shared_memory
        try:
            self._open(str(path))
        except sqlite3.OperationalError:
            if not _is_sealed(path):
                raise
            # SQLite writes even to read, unless the file is declared immutable.
            self._open(path.as_uri() + "?immutable=1")

    def _open(self, name: str) -> None:
        # isolation_level=None: transactions begin and end explicitly.
        self._raw = sqlite3.connect(
            name,
            timeout=_OPEN_TIMEOUT / 10,
            isolation_level=None,
            check_same_thread=False,
            uri=name.startswith("file:"),
        )
        try:
            self._prepare_with_retries()
            self._raw.execute(f"PRAGMA busy_timeout = {int(1000 * _WRITE_TIMEOUT)}")
        except BaseException:
            self._raw.close()
            raise

    def _prepare_with_retries(self) -> None:
        # A failed attempt releases its locks before the next one, or two processes that wait for
        # each other would be deadlocked.
        deadline = time.monotonic() + _OPEN_TIMEOUT
        while True:
            try:
                self._prepare()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(
                random.uniform(0.005, 0.02)
            )  # random, so that processes do not retry in step

    def _prepare(self) -> None:
        if self._in_wal():
            self._raw.execute("PRAGMA synchronous = NORMAL")
            self._raw.execute(f"PRAGMA mmap_size = {1 << 30}")
        else:
            # Without WAL a power cut can damage the file unless every write is synchronized, and
            # a mapped network file may show old content.
            self._raw.execute("PRAGMA synchronous = FULL")
            self._raw.execute("PRAGMA mmap_size = 0")
        version = self._raw.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"version {version} of the format is unknown")
        if version == 0:
            _make_tables(self._raw)

    def _in_wal(self) -> bool:
        """Whether the file is in WAL, after changing it back where WAL is not safe."""
        if self._shared_memory:
            try:
                return _journal(self._raw) == "wal"
            except sqlite3.OperationalError as error:
                if "unable to open" not in str(error):
                    raise
                # The file is in WAL, and there is no shared memory.
        # In exclusive mode SQLite needs no shared memory, and fails if another process has the
        # file open in WAL.
        self._raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            if _journal(self._raw, "DELETE") == "wal":
                raise sqlite3.OperationalError("database is locked in write-ahead mode")
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("PRAGMA locking_mode = NORMAL")
                self._raw.execute("SELECT COUNT(*) FROM sqlite_master")  # releases the lock
        return False

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
        """Free the disk space of deleted rows."""
        self._raw.execute("VACUUM")
        self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock at once, so that no two processes claim the same key."""
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
            # The folder was removed: everything written there would be lost.
            _open.pop(key).close()
        if key not in _open:
            until, reason = _refused.get(key, (0.0, ""))
            if time.monotonic() < until:
                raise sqlite3.OperationalError(reason)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shared_memory = not is_on_network(folder)
            if not path.exists():
                _make(path, wal=shared_memory)
            try:
                _open[key] = Connection(path, shared_memory=shared_memory)
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    _refused[key] = (time.monotonic() + _REFUSAL, str(error))
                raise
        return _open[key]


def _make(path: Path, *, wal: bool) -> None:
    """Create an empty store.

    It gets its name when it is complete, so that no process opens one without its journal mode.
    """
    # Readable by this user only; the other files of SQLite inherit the mode.
    handle, partial = tempfile.mkstemp(prefix=f"{_FILE}.new-", dir=path.parent)
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as raw:
            raw.execute("PRAGMA page_size = 8192")
            if wal:
                _journal(raw, "WAL")  # where WAL is not possible, SQLite uses DELETE
            _make_tables(raw)
        try:
            os.link(partial, path)
        except FileExistsError:  # another process was faster
            pass
        except OSError:  # a file system without links; an empty file is not in WAL
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                os.unlink(partial + suffix)


def _make_tables(raw: sqlite3.Connection) -> None:
    raw.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")


def _is_sealed(path: Path) -> bool:
    """Whether a store is in a read-only folder, and no process has it open to write."""
    log = path.with_name(path.name + "-wal")
    return path.exists() and not log.exists() and not os.access(path.parent, os.W_OK)


def _journal(raw: sqlite3.Connection, wanted: str | None = None) -> str:
    """Set a journal mode, if given, and return the current one."""
    query = "PRAGMA journal_mode" + (f" = {wanted}" if wanted else "")
    return str(raw.execute(query).fetchone()[0])


def set_aside(folder: Path) -> str:
    """Rename a damaged file, so that it can be inspected but is not read again."""
    Connection.close_all(folder)
    kept = f"{_FILE}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(OSError):
            (folder / (_FILE + suffix)).rename(folder / (kept + suffix))
    return kept


atexit.register(Connection.close_all)


class RecentVectors:
    """Cache of the arrays that this process read last, so that folds need not read the file.

    The array of a key never changes, so the cache is never out of date; an array that was deleted
    from the file may stay here for some time.

    Parameters
    ----------
    max_bytes : int, default=64 MiB
        Largest size of the arrays.
    max_age : float
        Seconds after which an array is read from the file again, which renews its time of use.
    """

    def __init__(self, *, max_bytes: int = 1 << 26, max_age: float):
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._arrays: OrderedDict[bytes, tuple[np.ndarray, float]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the cached arrays of some keys."""
        oldest = time.monotonic() - self.max_age
        found = {}
        with self._lock:
            for key in keys:
                known = self._arrays.get(key)
                if known is not None and known[1] > oldest:
                    found[key] = known[0]
        return found

    def remember(self, arrays: dict[bytes, np.ndarray]) -> None:
        """Cache arrays, and drop those read longest ago."""
        now = time.monotonic()
        with self._lock:
            for key, array in arrays.items():
                self._forget(key)
                self._arrays[key] = (array, now)
                self._n_bytes += array.nbytes
            while self._n_bytes > self.max_bytes:
                self._forget(next(iter(self._arrays)))

    def clear(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._arrays.clear()
            self._n_bytes = 0

    def _forget(self, key: bytes) -> None:
        known = self._arrays.pop(key, None)
        if known is not None:
            self._n_bytes -= known[0].nbytes


def pack(array: np.ndarray) -> bytes:
    """Return an array as bytes: number of axes, their lengths, little-endian float32 values."""
    array = np.asarray(array, dtype="<f4")
    header = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return header + array.tobytes()


def unpack(value: bytes) -> np.ndarray | None:
    """Return the array of bytes from :func:`pack`; None if they are malformed."""
    try:
        n_axes = value[0]
        shape = struct.unpack_from(f"<{n_axes}I", value, 1)
        return np.frombuffer(value, dtype="<f4", offset=1 + 4 * n_axes).reshape(shape)
    except (IndexError, ValueError, struct.error):
        return None


def checksum(key: bytes, value: bytes) -> int:
    """Return the checksum of key and value, so that no value is read for another key."""
    return zlib.crc32(value, zlib.crc32(key))


# File systems on which processes cannot share memory through a file.
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("9p", "afs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "gfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
    # Folders of the host that several virtual machines may share.
    *("prl_fs", "vboxsf", "virtiofs", "vmhgfs", "beegfs", "quobyte"),
}
# Most file systems in user space are remote, so an unknown one counts as remote: a store without
# shared memory is slower and never wrong.
_LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.ntfs-3g"}


def is_on_network(folder: Path) -> bool:
    """Whether another machine may use the existing ``folder``, too.

    It is checked on Linux and Windows; elsewhere the answer is False.
    """
    if sys.platform == "win32":
        return _is_remote_drive(folder)
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return False
    kind = _kind_of(os.path.realpath(folder), mounts)
    if kind.startswith("fuse."):
        return kind not in _LOCAL_FUSE
    return kind in _NETWORK


def _kind_of(path: str, mounts: str) -> str:
    """Return the type of the file system of ``path``: that of its longest mount point."""
    found, longest = "", -1
    for line in mounts.splitlines():
        # number parent device root POINT options [tags] - TYPE source options
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after:
            continue
        # A blank in the name is written as \040.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # the later of two at one point hides the other
            found, longest = after.split()[0], len(point)
    return found


def _is_remote_drive(folder: Path) -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    drive = folder.resolve().drive
    remote = 4  # DRIVE_REMOTE
    return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == remote
