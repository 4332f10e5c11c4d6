"""Embeddings as a store keeps them: packed with a checksum, and the last ones read in memory."""

import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

__all__ = ["RecentVectors", "checksum", "pack", "unpack"]


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
