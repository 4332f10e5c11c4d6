"""Vectors of one modality: of the rows that have it, under the rows' numbers."""

import numpy as np

__all__ = ["VectorSet", "unit_vectors"]


class VectorSet:
    """Unit vectors under numbers that rise.

    Parameters
    ----------
    width : int
        Length of a vector.
    """

    def __init__(self, width: int):
        self._n = 0
        self._numbers = np.empty(0, dtype=np.int64)
        self._vectors = np.empty((0, width), dtype=np.float32)

    def __len__(self) -> int:
        return self._n

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the rows, (n,) int64, rising."""
        return self._numbers[: self._n]

    @property
    def vectors(self) -> np.ndarray:
        """Vectors, (n, width) float32."""
        return self._vectors[: self._n]

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors, which nobody else writes to, under numbers higher than all before."""
        if not self._n:  # new memory: no copy is needed
            self._n, self._numbers, self._vectors = len(numbers), numbers, vectors
            return
        n = self._n + len(numbers)
        if n > len(self._numbers):
            # Some room beyond what is needed: rows added one by one are not copied each time.
            room = max(n, self._n + self._n // 4)
            self._numbers = _resized(self._numbers, self._n, room)
            self._vectors = _resized(self._vectors, self._n, room)
        self._numbers[self._n : n] = numbers
        self._vectors[self._n : n] = vectors
        self._n = n

    def remove(self, numbers: np.ndarray) -> None:
        """Take out the vectors under these numbers, where there are any."""
        kept = ~np.isin(self.numbers, numbers)
        self._numbers, self._vectors = self.numbers[kept], self.vectors[kept]
        self._n = len(self._numbers)

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Where numbers that are there stand."""
        return np.searchsorted(self.numbers, numbers)

    def spread(self, numbers: np.ndarray) -> np.ndarray:
        """Vectors under these numbers, NaN where there is none."""
        vectors = np.full((len(numbers), self._vectors.shape[1]), np.nan, dtype=np.float32)
        there = np.isin(numbers, self.numbers)
        vectors[there] = self.vectors[self.positions(numbers[there])]
        return vectors

    def __getstate__(self) -> dict[str, object]:
        return {"_n": self._n, "_numbers": self.numbers, "_vectors": self.vectors}


def _resized(array: np.ndarray, n: int, room: int) -> np.ndarray:
    larger = np.empty((room, *array.shape[1:]), dtype=array.dtype)
    larger[:n] = array[:n]
    return larger


def unit_vectors(values: object, rows_at_once: int = 65_536) -> np.ndarray:
    """Vectors as float32 of unit length; zeros stay zero and NaN stays NaN.

    Parameters
    ----------
    values : array-like of shape (n, width)
        Vectors; a row of NaN is missing.
    rows_at_once : int, default=65536
        Rows that are there in float64 at once.

    Returns
    -------
    units : ndarray of shape (n, width), float32
        New memory.
    """
    array = np.asarray(values)
    units = np.empty(array.shape, dtype=np.float32)
    for begin in range(0, len(array), rows_at_once):
        part = slice(begin, begin + rows_at_once)
        exact = array[part].astype(np.float64)
        # Relative to the largest, for the square of 1e-200 is no number.
        largest = np.abs(exact).max(axis=1, keepdims=True, initial=0.0)
        exact /= np.where(largest > 0, largest, 1.0)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        units[part] = exact / np.where(lengths > 0, lengths, 1.0)
    return units
