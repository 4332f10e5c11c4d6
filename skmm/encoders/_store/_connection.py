"""One SQLite connection per process and store, opened at first use.

A connection is never carried through a pickle or a fork: it is found by (pid, folder).
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
# Seconds by which the time of last use may lag behind: a store that is only read is then
# hardly written to.
USE_RESOLUTION = 3600
_PATIENCE = 60.0  # seconds to wait for another process that writes
_PATIENCE_TO_OPEN = 20.0  # seconds, because many processes may come at once
_REFUSAL = 600.0  # seconds for which a store that was locked all that time is left alone
_open: "dict[tuple[int, str], Connection]" = {}
# Stores that are left alone: until when, and why.
_refused: dict[tuple[int, str], tuple[float, str]] = {}
_registry_lock = threading.Lock()


class Connection:
    """A connection with the lock that makes it safe for the threads of a process.

    Write-ahead logging (WAL) needs memory that all processes share, which a network folder
    does not have: two machines would damage the file. There SQLite's older rollback journal is
    used. Which of the two is a property of the file. It is settled when the file is made and
    is never turned to WAL later, because whoever works with a rollback journal would follow
    without knowing. A file in WAL that has come to a network folder is turned back, which
    SQLite does only while nobody else has it open.
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
            # SQLite wants to write even where it only reads, unless it is told that there is
            # nothing to agree on with anybody.
            self._open(path.as_uri() + "?immutable=1")

    def _open(self, name: str) -> None:
        # isolation_level=None: transactions are written out where they begin and end.
        self._raw = sqlite3.connect(
            name,
            timeout=_PATIENCE_TO_OPEN / 10,
            isolation_level=None,
            check_same_thread=False,
            uri=name.startswith("file:"),
        )
        try:
            self._prepare_patiently()
            self._raw.execute(f"PRAGMA busy_timeout = {int(1000 * _PATIENCE)}")
        except BaseException:
            self._raw.close()
            raise

    def _prepare_patiently(self) -> None:
        # Whoever fails lets go before he tries again, or two that both wait for the other to
        # let go would wait for good.
        deadline = time.monotonic() + _PATIENCE_TO_OPEN
        while True:
            try:
                self._prepare()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.005, 0.02))  # not in step with whoever waits too

    def _prepare(self) -> None:
        if self._in_wal():
            self._raw.execute("PRAGMA synchronous = NORMAL")
            self._raw.execute(f"PRAGMA mmap_size = {1 << 30}")
        else:
            # Without WAL a power cut can damage the file unless every step is waited for, and
            # a mapped file of a network shows what was there before.
            self._raw.execute("PRAGMA synchronous = FULL")
            self._raw.execute("PRAGMA mmap_size = 0")
        version = self._raw.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"version {version} of the format is not known")
        if version == 0:
            _make_tables(self._raw)

    def _in_wal(self) -> bool:
        """Whether the file is in WAL, after turning it back where that must not be."""
        if self._shared_memory:
            try:
                return _journal(self._raw) == "wal"
            except sqlite3.OperationalError as error:
                if "unable to open" not in str(error):
                    raise
                # The file is in WAL, and SQLite finds that there is no shared memory.
        # In this mode SQLite keeps to itself what would be in shared memory, and is refused
        # if anybody else has the file open in WAL.
        self._raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            if _journal(self._raw, "DELETE") == "wal":
                raise sqlite3.OperationalError("database is locked in write-ahead mode")
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("PRAGMA locking_mode = NORMAL")
                self._raw.execute("SELECT COUNT(*) FROM sqlite_master")  # lets go of the lock
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
    """Put an empty store where none is.

    It gets its name when it is complete, so that nobody meets one without its journal mode.
    """
    # Readable by this user alone; SQLite's own files follow it.
    handle, partial = tempfile.mkstemp(prefix=f"{_FILE}.new-", dir=path.parent)
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as raw:
            raw.execute("PRAGMA page_size = 8192")
            if wal:
                _journal(raw, "WAL")  # SQLite keeps to DELETE where it cannot
            _make_tables(raw)
        try:
            os.link(partial, path)
        except FileExistsError:  # another process was faster
            pass
        except OSError:  # a file system without links; an empty file is in no WAL
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                os.unlink(partial + suffix)


def _make_tables(raw: sqlite3.Connection) -> None:
    raw.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")


def _is_sealed(path: Path) -> bool:
    """Whether a store lies in a folder where we may not write, and nobody has it open to write."""
    log = path.with_name(path.name + "-wal")
    return path.exists() and not log.exists() and not os.access(path.parent, os.W_OK)


def _journal(raw: sqlite3.Connection, wanted: str | None = None) -> str:
    """Ask for a journal mode, or for the one there is; the answer is the one there is."""
    query = "PRAGMA journal_mode" + (f" = {wanted}" if wanted else "")
    return str(raw.execute(query).fetchone()[0])


def set_aside(folder: Path) -> str:
    """Rename a damaged file, so that it can be looked at but is never read again."""
    Connection.close_all(folder)
    kept = f"{_FILE}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(OSError):
            (folder / (_FILE + suffix)).rename(folder / (kept + suffix))
    return kept


atexit.register(Connection.close_all)


class RecentVectors:
    """The arrays that this process read last, so that fold after fold need not ask the file.

    A key stands for one array for ever, so nothing here can be out of date; what is forgotten
    in the file may be remembered here a while.

    Parameters
    ----------
    max_bytes : int, default=64 MiB
        Of arrays that are held.
    max_age : float
        Seconds after which the file is asked again, and so learns that an array is in use.
    """

    def __init__(self, *, max_bytes: int = 1 << 26, max_age: float):
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._arrays: OrderedDict[bytes, tuple[np.ndarray, float]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the arrays that are remembered."""
        oldest = time.monotonic() - self.max_age
        found = {}
        with self._lock:
            for key in keys:
                known = self._arrays.get(key)
                if known is not None and known[1] > oldest:
                    found[key] = known[0]
        return found

    def remember(self, arrays: dict[bytes, np.ndarray]) -> None:
        """Take over arrays that were read, in place of the ones read longest ago."""
        now = time.monotonic()
        with self._lock:
            for key, array in arrays.items():
                self._forget(key)
                self._arrays[key] = (array, now)
                self._n_bytes += array.nbytes
            while self._n_bytes > self.max_bytes:
                self._forget(next(iter(self._arrays)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._arrays.clear()
            self._n_bytes = 0

    def _forget(self, key: bytes) -> None:
        known = self._arrays.pop(key, None)
        if known is not None:
            self._n_bytes -= known[0].nbytes


def pack(array: np.ndarray) -> bytes:
    """Shape and values as bytes: number of axes, their lengths, little-endian float32."""
    array = np.asarray(array, dtype="<f4")
    header = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return header + array.tobytes()


def unpack(value: bytes) -> np.ndarray | None:
    """Turn bytes back into an array, None if they are not what :func:`pack` made."""
    try:
        n_axes = value[0]
        shape = struct.unpack_from(f"<{n_axes}I", value, 1)
        return np.frombuffer(value, dtype="<f4", offset=1 + 4 * n_axes).reshape(shape)
    except (IndexError, ValueError, struct.error):
        return None


def checksum(key: bytes, value: bytes) -> int:
    """Of both, so that a value never passes for that of another key."""
    return zlib.crc32(value, zlib.crc32(key))


# Folders on a network: there processes cannot share memory through a file.
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("9p", "afs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "gfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
    # Folders of the host that several virtual machines may see.
    *("prl_fs", "vboxsf", "virtiofs", "vmhgfs", "beegfs", "quobyte"),
}
# Most file systems in user space are remote. Of an unknown one the worst is assumed: a store
# without shared memory is slower and never wrong.
_LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.ntfs-3g"}


def is_on_network(folder: Path) -> bool:
    """Whether ``folder``, which exists, may be seen by another machine too.

    Linux and Windows are asked; elsewhere the answer is False.
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
    """Type of the file system that holds ``path``: that of the longest mount point above it."""
    found, longest = "", -1
    for line in mounts.splitlines():
        # number parent device root POINT options [tags] - TYPE source options
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after:
            continue
        # A blank in the name is written as \040.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two at one point the later one is seen
            found, longest = after.split()[0], len(point)
    return found


def _is_remote_drive(folder: Path) -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    drive = folder.resolve().drive
    remote = 4  # DRIVE_REMOTE
    return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == remote
