"""The private folder of a running process, and how its workers find it.

Without a configured store, a process stores its embeddings in a private folder, which only its
user can read and which is removed at exit. Its workers must use the same folder, or they would
encode the same cells again. They find it when they unpickle an encoder: a pickle contains a token,
never a path. The token names a folder in the temporary folder. On another machine, or after the
process has ended, there is no such folder, and the reader opens another session.
"""

import atexit
import contextlib
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

from skmm._environment import _config

try:
    import fcntl
except ImportError:  # Windows: folders of killed processes are left to the system
    fcntl = None  # type: ignore[assignment]

__all__ = ["StoreLocation", "adopt", "configured_store", "session_folder", "token_for_workers"]

_PREFIX = "skmm-"
_LOCATION = "location.json"
_lock = threading.RLock()
_own: "tuple[int, Path] | None" = None  # (pid of the owner, folder)
_adopted: Path | None = None
_held_locks: list[int] = []


class StoreLocation(NamedTuple):
    """Location and largest size of the store of the process that sent the work."""

    folder: str | None  # None is that of the session
    max_size: int | None


def configured_store() -> object:
    """Return the store of encoders with ``store=None``: a setting, or None for the session.

    In a worker it is the setting of the process that sent the work: False, a ``StoreLocation`` or
    None.
    """
    setting = _config.get_config()["store"]
    if setting is None and _adopted is not None and not _owns_session():
        with contextlib.suppress(OSError, ValueError, TypeError):
            location = json.loads((_adopted / _LOCATION).read_text())
            return StoreLocation(**location) if isinstance(location, dict) else location
    return setting


def session_folder() -> Path:
    """Return the folder of the session of this process, or of the process that sent the work."""
    with _lock:
        if _owns_session():
            return _own[1]  # type: ignore[index]
        if _adopted is not None and _is_private(_adopted):
            return _adopted
        return _open_session()


def token_for_workers() -> str:
    """Return the name of the session for a pickle, and write the location for workers."""
    folder = session_folder()
    location = json.dumps(_location(configured_store(), folder))
    target = folder / _LOCATION
    with contextlib.suppress(OSError):  # a full disk must not stop a pickle
        if not target.exists() or target.read_text() != location:
            # Written to another file and moved, so that no worker reads an incomplete file.
            partial = folder / f"{_LOCATION}.{os.getpid()}.{threading.get_ident()}"
            partial.write_text(location)
            partial.replace(target)
    return folder.name.removeprefix(_PREFIX)


def _location(setting: object, session: Path) -> dict[str, Any] | bool | None:
    """Convert a setting to JSON types."""
    if setting is None or setting is False:
        return setting
    if isinstance(setting, str | os.PathLike):
        return StoreLocation(os.path.abspath(Path(setting).expanduser()), None)._asdict()
    used = getattr(setting, "folder", None)
    if used is None:
        return None  # a user-defined store, which workers cannot find
    # A store without a folder uses that of the session, and is removed with it.
    folder = None if Path(used) == session else os.path.abspath(used)
    return StoreLocation(folder, getattr(setting, "max_size", None))._asdict()


def adopt(token: str) -> None:
    """Join the session of ``token``, if it is on this machine and of this user."""
    global _adopted
    with _lock:
        folder = Path(tempfile.gettempdir()) / (_PREFIX + token)
        mine = _owns_session() and _own[1] == folder  # type: ignore[index]
        if os.sep not in token and not mine and _is_private(folder):
            _adopted = folder


def _owns_session() -> bool:
    # A forked child inherits the variable, not the ownership. A folder that was removed (e.g. by
    # a cleaner of temporary files) is not used again.
    return _own is not None and _own[0] == os.getpid() and _own[1].is_dir()


def _is_private(folder: Path) -> bool:
    """Whether only this user can have created and written the folder."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not folder.is_dir() or folder.is_symlink():
        return False
    return not hasattr(os, "getuid") or (
        status.st_uid == os.getuid() and not status.st_mode & 0o077
    )


def _open_session() -> Path:
    global _own
    _remove_dead_sessions()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
    _hold_lock(folder)
    if _own is None or _own[0] != os.getpid():
        atexit.register(_close_session, os.getpid())
    _own = (os.getpid(), folder)
    return folder


def _close_session(owner: int) -> None:
    if _own is not None and _own[0] == owner == os.getpid():
        shutil.rmtree(_own[1], ignore_errors=True)


def _hold_lock(folder: Path) -> None:
    """Lock a file for as long as this process lives; ``kill -9`` releases it too."""
    # Locked before it gets its final name, so that no process finds it unlocked.
    born = folder / "born"
    handle = os.open(born, os.O_CREAT | os.O_RDWR, 0o600)
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    born.rename(folder / "alive")
    _held_locks.append(handle)


def _remove_dead_sessions() -> None:
    """Remove the folders of processes that were killed."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        alive = folder / "alive"
        if not _is_private(folder) or not alive.exists():
            continue
        with contextlib.suppress(OSError):
            handle = os.open(alive, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
