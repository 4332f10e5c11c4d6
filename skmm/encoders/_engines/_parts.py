"""Cells that are made of parts: windows of a recording, frames of a video, several photos.

A part goes through a model as a cell of its own, and what the model gives for the parts is
pooled. Parts are read one after the other while the model runs, so a recording of an hour takes
no more memory than a batch of its windows.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._prefetch import iterated_ahead
from skmm.encoders._memory import FittingRunner
from skmm.exceptions import MediaDecodeError

__all__ = ["PartsEngine"]

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
        self.trainable = engine.trainable
        self.identity = getattr(engine, "identity", None)

    def fingerprint(self, runtime: Runtime) -> str | None:
        inner = self.engine.fingerprint(runtime)
        if inner is None:
            return None
        return json.dumps({"format": _FORMAT, "parts": self.pooling, "engine": inner})

    def follow(self, encoder: Any) -> None:
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
