"""How batches reach a model: read and prepared ahead, halved to fit its memory, and reported.

Threads read and prepare batches while the model is busy with the ones before.
"""

import gc
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from skmm._environment._device import keep_to_one_thread
from skmm.encoders._engines._base import Engine, Runtime

__all__ = [
    "FittingRunner",
    "Ready",
    "iterated_ahead",
    "prepared_batches",
]

Item = TypeVar("Item")
# One batch is being read while another waits, prepared, for the model.
_AHEAD = 2


class Ready(NamedTuple, Generic[Item]):
    """A batch that can be run.

    Attributes
    ----------
    items : list
        What the batch was asked for.
    readable : list of bool
        For which of them there is a cell.
    prepared : object
        What the engine runs: a row for each readable item. None if there is none.
    """

    items: list[Item]
    readable: list[bool]
    prepared: Any


def prepared_batches(
    batches: Iterable[list[Item]],
    read: Callable[[Item], Any],
    engine: Engine,
    runtime: Runtime,
    *,
    n_threads: int,
) -> Iterator[Ready[Item]]:
    """Read and prepare batches ahead of whoever runs them.

    Memory is bounded by a few batches, whatever the number of cells.

    Parameters
    ----------
    batches : iterable of list
        Asked for two batches ahead.
    read : callable
        From an item to its decoded cell, or None if it is unreadable.
    engine : Engine
        What prepares decoded cells.
    runtime : Runtime
        For the engine.
    n_threads : int
        Threads that read; 0 reads a batch when it is asked for, without any thread.

    Yields
    ------
    ready : Ready
        In the order of ``batches``.
    """
    if not n_threads:
        for items in batches:
            yield _together(items, [read(item) for item in items], engine, runtime)
        return
    queue: deque[Future[Ready[Item]]] = deque()
    # Torch would start a crew of its own in every thread that touches a tensor.
    readers = ThreadPoolExecutor(n_threads, "skmm-read", initializer=keep_to_one_thread)
    # A thread of its own: readers that wait for each other would wait for ever.
    preparer = ThreadPoolExecutor(1, "skmm-prepare", initializer=keep_to_one_thread)
    submit = _submit_each if engine.separable(runtime) else _submit_whole
    try:
        for items in batches:
            finish = submit(readers, items, read, engine, runtime)
            queue.append(preparer.submit(finish))
            if len(queue) > _AHEAD:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        # Also when the pass ends early: by an error, or because nobody asks for the rest.
        readers.shutdown(wait=False, cancel_futures=True)
        preparer.shutdown(wait=False, cancel_futures=True)


def _submit_each(
    readers: ThreadPoolExecutor,
    items: list[Item],
    read: Callable[[Item], Any],
    engine: Engine,
    runtime: Runtime,
) -> Callable[[], Ready[Item]]:
    """Read and prepare cell by cell: all threads work at one batch."""

    def work(item: Item) -> Any:
        cell = read(item)
        return None if cell is None else engine.prepare([cell], runtime)

    futures = [readers.submit(work, item) for item in items]

    def finish() -> Ready[Item]:
        parts = [future.result() for future in futures]
        there = [part for part in parts if part is not None]
        prepared = engine.pin(engine.join(there), runtime) if there else None
        return Ready(items, [part is not None for part in parts], prepared)

    return finish


def _submit_whole(
    readers: ThreadPoolExecutor,
    items: list[Item],
    read: Callable[[Item], Any],
    engine: Engine,
    runtime: Runtime,
) -> Callable[[], Ready[Item]]:
    """Read cell by cell, and prepare the batch when it is whole."""
    futures = [readers.submit(read, item) for item in items]
    return lambda: _together(items, [future.result() for future in futures], engine, runtime)


def _together(items: list[Item], cells: list[Any], engine: Engine, runtime: Runtime) -> Ready[Item]:
    there = [cell for cell in cells if cell is not None]
    prepared = engine.pin(engine.prepare(there, runtime), runtime) if there else None
    return Ready(items, [cell is not None for cell in cells], prepared)


def iterated_ahead(things: Iterator[Item]) -> Iterator[Item]:
    """Yield from an iterator that runs in a thread of its own, one thing ahead.

    Parameters
    ----------
    things : iterator
        Used by that thread alone.

    Yields
    ------
    thing : object
        In their order. An error of the iterator comes where its next thing would.
    """
    thread = ThreadPoolExecutor(1, "skmm-iterate", initializer=keep_to_one_thread)
    end: Any = object()
    try:
        queue = deque(thread.submit(next, things, end) for _ in range(2))
        while (thing := queue.popleft().result()) is not end:
            queue.append(thread.submit(next, things, end))
            yield thing
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


class FittingRunner:
    """Runs prepared batches of one pass, halving them as often as memory asks for it.

    Parameters
    ----------
    engine : Engine
        What runs a batch.
    runtime : Runtime
        How.
    sequence : bool
        Whether tokens are asked for.
    name : str
        The encoder's class, for messages.
    """

    def __init__(self, engine: Engine, runtime: Runtime, *, sequence: bool, name: str):
        self.engine = engine
        self.runtime = runtime
        self.sequence = sequence
        self.name = name
        self._most: int | None = None  # cells that are known not to be too many

    def __call__(self, prepared: Any, n_cells: int) -> list[Any]:
        """Encode a prepared batch of ``n_cells`` cells."""
        if self._most is not None and n_cells > self._most:
            return self._in_parts(prepared, n_cells, self._most)
        try:
            return self.engine.run(prepared, self.runtime, sequence=self.sequence)
        except RuntimeError as error:
            if isinstance(error, _CellTooLarge) or not _is_out_of_memory(error):
                raise
            if n_cells == 1:
                raise _CellTooLarge(
                    f"{self.name}: the memory of {self.runtime.device} does not hold the model"
                    " with a single cell. Use a smaller model, shorter or smaller cells, or"
                    " device='cpu'."
                ) from error
        # Here the error is gone, and with its traceback the tensors of the failed batch.
        gc.collect()
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (n_cells + 1) // 2
        if self._most is None:
            warnings.warn(
                f"{self.name}: a batch of {n_cells} does not fit into the memory of"
                f" {self.runtime.device} and is halved. Set batch_size={half} or less to spare the"
                " attempt.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._most = half
        return self._in_parts(prepared, n_cells, half)

    def _in_parts(self, prepared: Any, n_cells: int, size: int) -> list[Any]:
        arrays: list[Any] = []
        for start in range(0, n_cells, size):
            end = min(start + size, n_cells)
            arrays += self(self.engine.part(prepared, slice(start, end)), end - start)
        return arrays


class _CellTooLarge(torch.OutOfMemoryError):
    """No smaller batch can be tried."""


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the CPU's allocator, had too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        "out of memory" in str(error) or "can't allocate memory" in str(error)
    )
