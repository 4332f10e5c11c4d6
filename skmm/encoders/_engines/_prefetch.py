"""Batches for a model: prefetched by threads, halved to fit into memory, and reported.

Threads read and prepare batches while the model runs the previous ones.
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
    "prefetched",
    "prepared_batches",
]

Item = TypeVar("Item")
# One batch is being read while another one is prepared and waits for the model.
_N_PREFETCHED = 2


class Ready(NamedTuple, Generic[Item]):
    """A batch that is ready to run.

    Attributes
    ----------
    items : list
        Items of the batch.
    readable : list of bool
        Whether each of them has a readable cell.
    prepared : object
        Input of the engine: one row for each readable item. None if there is none.
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
    """Prefetch batches: read and prepare them before they are needed.

    Memory is bounded by a few batches, independently of the number of cells.

    Parameters
    ----------
    batches : iterable of list
        Items of each batch. Two batches are prefetched.
    read : callable
        From an item to its decoded cell, or None if it is unreadable.
    engine : Engine
        Prepares decoded cells.
    runtime : Runtime
        Passed to the engine.
    n_threads : int
        Number of threads that read; 0 reads a batch when it is needed, without a thread.

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
    # Otherwise torch would start a thread pool in every thread that uses a tensor.
    readers = ThreadPoolExecutor(n_threads, "skmm-read", initializer=keep_to_one_thread)
    # In another thread: readers that wait for each other would block forever.
    preparer = ThreadPoolExecutor(1, "skmm-prepare", initializer=keep_to_one_thread)
    submit = _submit_each if engine.separable(runtime) else _submit_whole
    try:
        for items in batches:
            finish = submit(readers, items, read, engine, runtime)
            queue.append(preparer.submit(finish))
            if len(queue) > _N_PREFETCHED:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        # Also if the pass ends early: by an error, or because the generator is closed.
        readers.shutdown(wait=False, cancel_futures=True)
        preparer.shutdown(wait=False, cancel_futures=True)


def _submit_each(
    readers: ThreadPoolExecutor,
    items: list[Item],
    read: Callable[[Item], Any],
    engine: Engine,
    runtime: Runtime,
) -> Callable[[], Ready[Item]]:
    """Read and prepare single cells, so that all threads work at one batch."""

    def work(item: Item) -> Any:
        cell = read(item)
        return None if cell is None else engine.prepare([cell], runtime)

    futures = [readers.submit(work, item) for item in items]

    def finish() -> Ready[Item]:
        parts = [future.result() for future in futures]
        readable = [part for part in parts if part is not None]
        prepared = engine.pin(engine.join(readable), runtime) if readable else None
        return Ready(items, [part is not None for part in parts], prepared)

    return finish


def _submit_whole(
    readers: ThreadPoolExecutor,
    items: list[Item],
    read: Callable[[Item], Any],
    engine: Engine,
    runtime: Runtime,
) -> Callable[[], Ready[Item]]:
    """Read single cells, and prepare the batch when it is complete."""
    futures = [readers.submit(read, item) for item in items]
    return lambda: _together(items, [future.result() for future in futures], engine, runtime)


def _together(items: list[Item], cells: list[Any], engine: Engine, runtime: Runtime) -> Ready[Item]:
    readable = [cell for cell in cells if cell is not None]
    prepared = engine.pin(engine.prepare(readable, runtime), runtime) if readable else None
    return Ready(items, [cell is not None for cell in cells], prepared)


def prefetched(items: Iterator[Item]) -> Iterator[Item]:
    """Yield from an iterator that runs in another thread, one item in advance.

    Parameters
    ----------
    items : iterator
        Used by that thread only.

    Yields
    ------
    item : object
        In the same order. An error of the iterator is raised where its next item would be.
    """
    thread = ThreadPoolExecutor(1, "skmm-iterate", initializer=keep_to_one_thread)
    end: Any = object()
    try:
        queue = deque(thread.submit(next, items, end) for _ in range(2))
        while (item := queue.popleft().result()) is not end:
            queue.append(thread.submit(next, items, end))
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


class FittingRunner:
    """Run prepared batches of one pass, and halve those that do not fit into memory.

    Parameters
    ----------
    engine : Engine
        Runs a batch.
    runtime : Runtime
        Device, precision and batch size.
    sequence : bool
        Whether to return tokens instead of vectors.
    name : str
        Class of the encoder, for messages.
    """

    def __init__(self, engine: Engine, runtime: Runtime, *, sequence: bool, name: str):
        self.engine = engine
        self.runtime = runtime
        self.sequence = sequence
        self.name = name
        self._most: int | None = None  # cells that fit, once a batch did not

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
                    f"{self.name}: the model does not fit into the memory of"
                    f" {self.runtime.device} with a single cell. Use a smaller model, shorter or"
                    " smaller cells, or device='cpu'."
                ) from error
        # Outside the handler, the traceback no longer holds the tensors of the failed batch.
        gc.collect()
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (n_cells + 1) // 2
        if self._most is None:
            warnings.warn(
                f"{self.name}: a batch of {n_cells} does not fit into the memory of"
                f" {self.runtime.device} and is halved. Set batch_size={half} or less to avoid the"
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
    """A batch of one cell does not fit into memory."""


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the CPU is out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        "out of memory" in str(error) or "can't allocate memory" in str(error)
    )
