"""Engines of cells that consist of parts: windows of a recording, frames of a video, images.

A model encodes every part like a cell, and the outputs of the parts are pooled. Parts are read
one by one while the model runs, so a recording of an hour takes no more memory than a batch of
its windows.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from skmm.encoders._engines._base import Engine, HasModel, Runtime
from skmm.encoders._engines._prefetch import FittingRunner, prefetched
from skmm.exceptions import MediaDecodeError

__all__ = ["PartsEngine", "WindowsEngine"]

# To be raised with every change of the code that changes how parts are pooled.
_FORMAT = 1


class PartsEngine(Engine):
    """Encode cells that decode to an iterable of parts.

    Parameters
    ----------
    engine : Engine
        Encodes a part.
    pooling : {"mean", "max"}, default="mean"
        How the vectors of the parts are pooled. As a sequence, a cell has one token for each
        part: its vector.
    owner : str
        Class of the encoder, for messages.

    Attributes
    ----------
    keeps_tokens : bool
        Whether a cell has, as a sequence, all tokens of its parts instead.
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

        If an iterable raises ``MediaDecodeError``, that error replaces its array. The caller,
        which has the place of the cell, raises it or counts the cell as absent.
        """
        by_token = sequence and self.keeps_tokens
        run = FittingRunner(self.engine, runtime, sequence=by_token, name=self.owner)
        pools = [self._pool(sequence=sequence) for _ in prepared]
        cells = [pool.measured(cell) for pool, cell in zip(pools, prepared, strict=True)]
        for owners, ready in prefetched(self._batches(cells, pools, runtime)):
            for i, array in zip(owners, run(ready, len(owners)), strict=True):
                pools[i].add(array)
        return [pool.result() for pool in pools]

    def _pool(self, *, sequence: bool) -> Any:
        """Return an object that collects the arrays of one cell's parts."""
        return _Pool(self.pooling, keeps_all=sequence)

    def _batches(
        self, cells: list[Iterable[Any]], pools: list[Any], runtime: Runtime
    ) -> Iterator[tuple[list[int], Any]]:
        """Yield prepared batches of the parts of all cells, each with the cells of its parts."""
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
    """Collects the vectors of a cell's parts."""

    def __init__(self, pooling: str, *, keeps_all: bool):
        self.pooling = pooling
        self.error: MediaDecodeError | None = None
        self._all: list[np.ndarray] | None = [] if keeps_all else None
        self._n = 0
        self._pooled: np.ndarray | None = None

    def measured(self, parts: Iterable[Any]) -> Iterable[Any]:
        return parts  # all have the same weight

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
            return self.error or MediaDecodeError("it is empty")
        if self._all is not None:
            return np.stack(self._all)
        assert self._pooled is not None
        pooled = self._pooled / self._n if self.pooling == "mean" else self._pooled
        return pooled.astype(np.float32)


_WINDOWS_FORMAT = 1


class WindowsEngine(PartsEngine):
    """Encode recordings window by window; the last window may be shorter than the others.

    Windows are weighted by their lengths, so that the mean over the windows is the mean over all
    frames. Means and standard deviations are combined exactly. As a sequence, the tokens of the
    windows are concatenated.

    Parameters
    ----------
    engine : Engine
        Encodes a window. Its ``description`` has the ``pooling`` and whether to ``normalize``.
    owner : str
        Class of the encoder, for messages.
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
    """Collects the vectors of a recording's windows."""

    def __init__(self, pooling: str, normalize: bool, *, sequence: bool):
        self.pooling = pooling
        self.normalize = normalize
        self.error: MediaDecodeError | None = None
        self._tokens: list[np.ndarray] | None = [] if sequence else None
        self._lengths: deque[int] = deque()  # of windows that are still being encoded
        self._n = 0  # samples so far
        self._pooled: np.ndarray = np.zeros(0)

    def measured(self, windows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the windows, and store their lengths until their vectors are added."""
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
    """Return mean and standard deviation of two parts together (Chan, Golub, LeVeque 1983)."""
    (mean, deviation), (other_mean, other_deviation) = np.split(first, 2), np.split(second, 2)
    share = n_second / (n_first + n_second)
    difference = other_mean - mean
    within = (1 - share) * deviation**2 + share * other_deviation**2
    variance = within + share * (1 - share) * difference**2
    return np.concatenate([mean + share * difference, np.sqrt(variance)])
