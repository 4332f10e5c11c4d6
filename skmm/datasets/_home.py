"""The folder in which drawn data sets are kept, and files in it that can be trusted."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["cached_arrays", "data_folder"]

Arrays = dict[str, np.ndarray]


def data_folder(data_home: str | os.PathLike | None = None) -> Path:
    """Folder of the cached data sets; it need not exist.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder. With None it is the environment variable ``SKMM_DATA_HOME``, or
        else the folder that the platform has for caches.

    Returns
    -------
    folder : Path
        The folder, its ``~`` expanded.
    """
    chosen = data_home if data_home is not None else os.environ.get("SKMM_DATA_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "skmm"


def cached_arrays(
    path: Path, make: Callable[[], Arrays], is_valid: Callable[[Arrays], bool], *, needed_by: str
) -> Arrays:
    """Read arrays from a file, or make them and write the file.

    A file that is damaged or holds something else is made anew. A folder that cannot
    be written costs a warning and nothing else.

    Parameters
    ----------
    path : Path
        The ``.npz`` file. Its name must tell all that the arrays depend on.
    make : callable
        Gives the arrays, a dictionary of name to array without object dtypes.
    is_valid : callable
        Whether the arrays that were read have the names, shapes and dtypes they must have.
    needed_by : str
        The function that asks, for the warning.

    Returns
    -------
    arrays : dict of str to ndarray
        The arrays, the caller's own.
    """
    arrays = _read(path)
    if arrays is not None and is_valid(arrays):
        return arrays
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"{needed_by} cannot keep its pictures in {path.parent}: {error}. Pass data_home= or"
            " set SKMM_DATA_HOME to a folder that can be written.",
            UserWarning,
            stacklevel=3,
        )
    return arrays


def _read(path: Path) -> Arrays | None:
    """Arrays of a file, or None where it is absent or damaged."""
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            # zipfile checks a CRC of every array that is read to its end.
            return {name: file[name] for name in file.files}
    except Exception:
        # A damaged archive raises nearly anything: BadZipFile, zlib.error, struct.error,
        # NotImplementedError for a method that does not exist, AttributeError for a plain .npy.
        return None


def _write(path: Path, arrays: Arrays) -> None:
    """Write the file under another name and rename it, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
