"""Who is encoding what: claims in the store, so that workers do not do the same work.

A claim ends when its vectors are stored, when it is given back, when its owner is dead, or
when its time is over. Who claims again what is his has the time anew, unless somebody has
taken it over.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from skmm.encoders._store._connection import Connection

__all__ = ["Claims"]

# Seconds after which a claim may be taken over although its owner lives. A batch of a large
# model on a CPU can take minutes. On the same machine a dead owner is seen at once; taking over
# too early costs work done twice, never a wrong value.
LEASE = 300.0
_CHUNK = 500  # keys per query; SQLite's oldest limit on variables is 999


class Claims:
    """Claims of the running thread in a store's ``claim`` table."""

    def take(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        """Claim the keys that are neither stored nor claimed by somebody alive."""
        host, pid, owner = _whoami()
        now = time.time()
        may_live = cache(_may_live)  # one question about an owner, not one about each key
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
                    # A time far ahead comes from a clock that was wrong.
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

    def give_back(self, connection: Connection, keys: Sequence[bytes]) -> None:
        """Drop this thread's claims on ``keys``."""
        _, _, owner = _whoami()
        with connection.transaction():
            connection.executemany(
                "DELETE FROM claim WHERE k = ? AND owner = ?", [(key, owner) for key in keys]
            )


def _whoami() -> tuple[str, int, str]:
    host, pid = socket.gethostname(), os.getpid()
    return host, pid, f"{host}:{pid}:{threading.get_ident()}"


def _may_live(owner: str, host: str, pid: int, here: str) -> bool:
    """Whether a claim's owner may be alive; where we cannot ask, the lease alone tells."""
    if host != here:
        return True
    if pid == os.getpid():  # a thread of ours
        return int(owner.rpartition(":")[2]) in sys._current_frames()
    if os.name == "nt":  # on Windows signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # e.g. no permission: it exists
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to ask how."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # not Linux
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]  # the name may hold anything
