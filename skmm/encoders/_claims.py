"""Who is encoding what: claims in the store, so that workers do not do the same work.

A claim ends when its vectors are stored, when it is given back, when its owner is dead, or
when its time is over.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence

from skmm.encoders._connection import Connection

__all__ = ["Claims"]

# Seconds after which a claim may be taken over although its owner lives. A batch takes
# milliseconds to seconds; taking over too early costs work done twice, never a wrong value.
LEASE = 60.0


class Claims:
    """Claims of the running thread in a store's ``claim`` table."""

    def take(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        """Claim the keys that are neither stored nor claimed by somebody alive."""
        host, pid, owner = _whoami()
        now = time.time()
        marks = ",".join("?" * len(keys))
        with connection.transaction():
            held = connection.execute(
                f"SELECT k, owner, host, pid, until FROM claim WHERE k IN ({marks})", list(keys)
            ).fetchall()
            busy = {
                key
                for key, other, other_host, other_pid, until in held
                if other != owner and until > now and _may_live(other_host, other_pid, host)
            }
            stored = {
                key
                for (key,) in connection.execute(
                    f"SELECT k FROM e WHERE k IN ({marks})", list(keys)
                )
            }
            granted = [key for key in keys if key not in busy and key not in stored]
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


def _may_live(host: str, pid: int, here: str) -> bool:
    """Whether a claim's owner may be alive; where we cannot ask, the lease alone tells."""
    if host != here or os.name == "nt":  # on Windows signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # e.g. no permission: it exists
        return True
    return True
