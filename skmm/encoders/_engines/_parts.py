"""Cells that are made of parts: windows of a recording, frames of a video, several photos.

A part goes through a model as a cell of its own, and what the model gives for the parts is
pooled. Parts are read one after the other while the model runs, so a recording of an hour takes
no more memory than a batch of its windows.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from skmm.encoders._engines._base import Engine, HasModel, Runtime
from skmm.encoders._engines._prefetch import FittingRunner, iterated_ahead
from skmm.exceptions import MediaDecodeError

__all__ = ["PartsEngine", "WindowsEngine"]

# Raised when code of ours changes how parts are pooled.
_FORMAT = 1


class PartsEngine(Engine):
    """Encodes cells that decode to an iterable of parts.

    Parameters
    ----------
    engine : Engine
        Encodes a part.
    pooling : {"mean", "max"}, default="mean"
        How the vectors of the parts become the cell's. As a sequence, a cell has one token for
        each part: its vector.
    owner : str
        The encoder's class, for messages.

    Attributes
    ----------
    keeps_tokens : bool
        Whether a cell has, as a sequence, every token of its parts instead.
    """

    keeps_tokens: ClassVar[bool] = False

    def __init__(self, engine: Engine, pooling: str = "mean", *, owner: str):
        self.engine = engine
        self.pooling = pooling
        self.owner = owner
        self.n_outputs = engine.n_outputs
        self.identity = engine.identity

    def fingerprint(self, runtime: Runtime) -> str | None:
        inner = self.engine.fingerprint(runtime)
        if inner is None:
            return None
        return json.dumps({"format": _FORMAT, "parts": self.pooling, "engine": inner})

    def follow(self, encoder: HasModel) -> None:
        self.engine.follow(encoder)

    def run(self, prepared: list[Iterable[Any]], runtime: Runtime, *, sequence: bool) -> list[Any]:
        """Encode cells, each an iterable of decoded parts.

        An iterable that raises MediaDecodeError has that error in place of its array: who knows
        the cell's place in the frame raises it there, or counts the cell as absent.
        """
        by_token = sequence and self.keeps_tokens
        run = FittingRunner(self.engine, runtime, sequence=by_token, name=self.owner)
        pools = [self._pool(sequence=sequence) for _ in prepared]
        cells = [pool.measured(cell) for pool, cell in zip(pools, prepared, strict=True)]
        for owners, ready in iterated_ahead(self._batches(cells, pools, runtime)):
            for i, array in zip(owners, run(ready, len(owners)), strict=True):
                pools[i].add(array)
        return [pool.result() for pool in pools]

    def _pool(self, *, sequence: bool) -> Any:
        """Start what takes one cell's parts (``measured``), then their arrays, to the result."""
        return _Pool(self.pooling, keeps_all=sequence)

    def _batches(
        self, cells: list[Iterable[Any]], pools: list[Any], runtime: Runtime
    ) -> Iterator[tuple[list[int], Any]]:
        """Cut all parts of all cells into prepared batches, each with the cells they are of."""
        owners: list[int] = []
        parts: list[Any] = []
        for i, cell in enumerate(cells):
            try:
                for part in cell:
                    owners.append(i)
                    parts.append(part)
                    if len(parts) == runtime.batch_size:
                        yield owners, self._prepared(parts, runtime)
                        owners, parts = [], []
            except MediaDecodeError as error:
                pools[i].error = error
        if parts:
            yield owners, self._prepared(parts, runtime)

    def _prepared(self, parts: list[Any], runtime: Runtime) -> Any:
        return self.engine.pin(self.engine.prepare(parts, runtime), runtime)


class _Pool:
    """Vectors of a cell's parts, as far as they are known."""

    def __init__(self, pooling: str, *, keeps_all: bool):
        self.pooling = pooling
        self.error: MediaDecodeError | None = None
        self._all: list[np.ndarray] | None = [] if keeps_all else None
        self._n = 0
        self._pooled: np.ndarray | None = None

    def measured(self, parts: Iterable[Any]) -> Iterable[Any]:
        return parts  # each weighs the same

    def add(self, vector: np.ndarray) -> None:
        self._n += 1
        if self._all is not None:
            self._all.append(vector)
        elif self._pooled is None:
            self._pooled = vector.astype(np.float64)
        elif self.pooling == "max":
            self._pooled = np.maximum(self._pooled, vector)
        else:
            self._pooled += vector

    def result(self) -> np.ndarray | MediaDecodeError:
        if self.error is not None or not self._n:
            return self.error or MediaDecodeError("there is nothing in it")
        if self._all is not None:
            return np.stack(self._all)
        assert self._pooled is not None
        pooled = self._pooled / self._n if self.pooling == "mean" else self._pooled
        return pooled.astype(np.float32)


_WINDOWS_FORMAT = 1


class WindowsEngine(PartsEngine):
    """Encodes recordings that come as windows, the last one shorter than the others.

    Each window weighs as much as it is long, so that the mean over the windows is the mean over
    all frames. Means and standard deviations are combined exactly. As a sequence, the tokens of
    the windows stand one behind the other.

    Parameters
    ----------
    engine : Engine
        Encodes a window. Its ``description`` says the ``pooling``, and whether to ``normalize``.
    owner : str
        The encoder's class, for messages.
    """

    keeps_tokens: ClassVar[bool] = True

    def __init__(self, engine: Any, *, owner: str):
        super().__init__(engine, engine.description["pooling"], owner=owner)
        self.description = engine.description
        self.normalize = engine.description["normalize"]

    def fingerprint(self, runtime: Runtime) -> str | None:
        parts = super().fingerprint(runtime)
        if parts is None:
            return None
        return json.dumps(
            {"format": _WINDOWS_FORMAT, "windows": parts, "normalize": self.normalize}
        )

    def _pool(self, *, sequence: bool) -> "_Windows":
        return _Windows(self.pooling, self.normalize, sequence=sequence)


class _Windows:
    """Vectors of a recording's windows, as far as they are known."""

    def __init__(self, pooling: str, normalize: bool, *, sequence: bool):
        self.pooling = pooling
        self.normalize = normalize
        self.error: MediaDecodeError | None = None
        self._tokens: list[np.ndarray] | None = [] if sequence else None
        self._lengths: deque[int] = deque()  # of windows that are still being encoded
        self._n = 0  # samples so far
        self._pooled: np.ndarray = np.zeros(0)

    def measured(self, windows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass the windows on, and keep their lengths until their vectors come."""
        for window in windows:
            self._lengths.append(len(window))
            yield window

    def add(self, array: np.ndarray) -> None:
        if self._tokens is not None:
            self._tokens.append(array)
            return
        n_new = self._lengths.popleft()
        vector = array.astype(np.float64)
        if not self._n:
            self._pooled = vector
        elif self.pooling == "max":
            self._pooled = np.maximum(self._pooled, vector)
        elif self.pooling == "statistics" and not self.normalize:
            self._pooled = _combined(self._pooled, self._n, vector, n_new)
        else:
            self._pooled += (vector - self._pooled) * (n_new / (self._n + n_new))
        self._n += n_new

    def result(self) -> np.ndarray | MediaDecodeError:
        if self.error is not None:
            return self.error
        if self._tokens is not None:
            return np.concatenate(self._tokens)
        if self.normalize:
            self._pooled /= max(float(np.linalg.norm(self._pooled)), 1e-12)
        return self._pooled.astype(np.float32)


def _combined(first: np.ndarray, n_first: int, second: np.ndarray, n_second: int) -> np.ndarray:
    """Mean and standard deviation of two stretches together (Chan, Golub, LeVeque 1983)."""
    (mean, deviation), (other_mean, other_deviation) = np.split(first, 2), np.split(second, 2)
    share = n_second / (n_first + n_second)
    apart = other_mean - mean
    variance = (
        (1 - share) * deviation**2 + share * other_deviation**2 + share * (1 - share) * apart**2
    )
    return np.concatenate([mean + share * apart, np.sqrt(variance)])
