"""Device, precision, seed and threads of torch.

This file imports torch, so nothing that ``import skmm`` loads may import it.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from joblib import cpu_count

from skmm._environment._config import get_config

__all__ = [
    "keep_to_one_thread",
    "lies_on",
    "n_decoding_threads",
    "on_device",
    "one_thread",
    "resolve_device",
    "resolve_dtype",
    "seeded",
    "shared_threads",
]

# Torch's default generator belongs to the process. Threads that train at the same time (joblib's
# threading backend) would use it in an order that cannot be reproduced.
_generator_lock = threading.RLock()


def resolve_device(device: str) -> torch.device:
    """Return the torch device of a ``device`` parameter.

    Parameters
    ----------
    device : str
        ``"auto"`` is the configured device, else CUDA if there is a GPU, else the CPU.

    Returns
    -------
    device : torch.device
        The device.

    Raises
    ------
    ValueError
        If the name is not a device of torch, or the device is not available.
    """
    if device == "auto":
        device = get_config()["device"]
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device of torch. Use 'auto', 'cpu' or 'cuda'."
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available()
        and (resolved.index is None or resolved.index < torch.cuda.device_count()),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(resolved.type, True):
        raise ValueError(
            f"device={device!r} is not available on this machine. Use device='auto' for an"
            " available one."
        )
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the precision of a frozen model on ``device`` for a ``dtype`` parameter."""
    if dtype != "auto":
        named: torch.dtype = getattr(torch, dtype)
        return named
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def lies_on(tensor: torch.Tensor, device: torch.device) -> bool:
    """Return whether a tensor is on a device; ``cuda`` without an index means any GPU."""
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def on_device(module: torch.nn.Module, device: torch.device) -> Any:
    """Move a module to a device, unless it is there already.

    A module that is on the device is not changed: threads that prepare batches call this while it
    runs, and ``Module.to`` copies the flattened weights of a recurrent network even then.

    Parameters
    ----------
    module : Module
        Module whose parameters and buffers are checked.
    device : torch.device
        Target device; ``cuda`` without an index means any GPU.

    Returns
    -------
    module : Module
        The module itself.
    """
    if all(lies_on(tensor, device) for tensor in (*module.parameters(), *module.buffers())):
        return module
    return module.to(device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generators inside the block and restore them after it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with _generator_lock, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _Threads:
    """Division of torch's threads among the Python threads of this process that compute.

    Torch keeps a number of threads per Python thread, and a new Python thread starts with the
    number that any thread set last. Therefore a thread gets back the number from before all
    blocks after its block, not the number that it started with.
    """

    def __init__(self) -> None:
        # Reentrant: an unfinished pass is closed when it is garbage collected, at any time.
        self._lock = threading.RLock()
        self._blocks: dict[int, list[bool]] = {}  # Python thread -> its blocks: on one thread?
        self._usual: int | None = None  # torch's number outside all blocks
        self._total = 1  # threads of all blocks together
        self._cores = 1
        self._forked = False

    @contextmanager
    def block(self, *, single: bool) -> Iterator[Callable[[], None]]:
        me = threading.get_ident()
        with self._lock:
            if not self._blocks:
                self._update()
            self._blocks.setdefault(me, []).append(single)
        try:
            self.adjust()
            yield self.adjust
        finally:
            with self._lock:
                self._blocks[me].pop()
                if not self._blocks[me]:
                    del self._blocks[me]
                    torch.set_num_threads(self._usual or 1)
                self.adjust()

    def adjust(self) -> None:
        """Set the number of threads of the running thread to its share, if it is in a block."""
        with self._lock:
            if threading.get_ident() in self._blocks:
                n = self._share(self._total)
                # Read first: a thread that never read its number gets the last one of any thread.
                if torch.get_num_threads() != n:
                    torch.set_num_threads(n)

    def keep_to_one(self) -> None:
        with self._lock:
            if not self._blocks:
                self._update()
            torch.get_num_threads()  # see adjust
            torch.set_num_threads(1)
            # Only for this thread: later threads start with the usual number.
            _in_new_thread(torch.set_num_threads, self._usual)

    def n_decoding(self) -> int:
        with self._lock:
            if not self._blocks:
                self._update()
            # A worker process has a part of the cores, given by its number of threads.
            part = self._forked or multiprocessing.parent_process() is not None
            return self._share(self._total if part else self._cores)

    def after_fork(self) -> None:
        """Reset the state in a child process, which has only the thread that forked."""
        me = threading.get_ident()
        self._lock = threading.RLock()
        self._blocks = {me: self._blocks[me]} if me in self._blocks else {}
        # The threads of OpenMP do not exist in the child either, and it would wait for them.
        self._forked, self._usual, self._total = True, 1, 1

    def _update(self) -> None:
        """Read the usual number of threads and what the blocks may use, before the first block."""
        if self._forked:
            return
        n = torch.get_num_threads()
        if n == self._usual:
            return  # counting the cores takes longer than a small network
        if self._usual is not None:
            # Either it was set since, or this thread started while another was in a block.
            n = _in_new_thread(torch.get_num_threads)
        self._usual = n
        # Beyond the number of cores, threads wait for each other.
        self._cores = cpu_count()
        self._total = min(n, self._cores)
        if multiprocessing.current_process().daemon:
            # A pool either limits the threads of its workers or leaves all of them to torch.
            self._total = min(self._total, _threads_in_environment() or 1)

    def _share(self, total: int) -> int:
        """Return the number of threads of the running thread, of ``total`` for all."""
        me = threading.get_ident()
        n_single = sum(any(blocks) for blocks in self._blocks.values())
        if any(self._blocks.get(me, ())):
            return 1
        n_sharing = len(self._blocks.keys() | {me}) - n_single
        return max(1, (total - n_single) // n_sharing)


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.after_fork)


def one_thread() -> AbstractContextManager[Callable[[], None]]:
    """Return a context in which torch computes on one thread.

    For small networks a second thread saves little time on an idle machine, and multiplies the
    time on a busy one, where the threads wait for each other at every operation.

    Returns
    -------
    context : context manager
        Restores the number of threads at its end. Blocks may be nested, also in those of
        :func:`shared_threads`, and overlap with those of other threads.
    """
    return _threads.block(single=True)


def shared_threads() -> AbstractContextManager[Callable[[], None]]:
    """Return a context in which torch computes on this thread's share of torch's threads.

    The passes that run at the same time in this process (joblib's threading backend) share
    torch's threads, at most one per core, after one for each thread in :func:`one_thread`. A
    worker process uses the number that its pool sets, as loky and dask do. In a worker of
    ``multiprocessing``, whose pool sets none, and in every forked process it is one thread.

    Returns
    -------
    context : context manager
        Gives a function without parameters, ``adjust``, to call before each batch: it updates
        the share to the number of passes that run now. The number is restored at the end. Inside
        :func:`one_thread` it stays one.

    Examples
    --------
    >>> from skmm._environment._device import shared_threads
    >>> with shared_threads() as adjust:
    ...     for batch in range(3):
    ...         adjust()
    """
    return _threads.block(single=False)


def keep_to_one_thread() -> None:
    """Let the running thread use one torch thread until it ends.

    Used as ``initializer`` of a pool whose threads prepare batches. Without it, each of them
    would start with the number of threads of the model.
    """
    _threads.keep_to_one()


def n_decoding_threads() -> int:
    """Return the number of threads that may prefetch media for a model in the running pass.

    Returns
    -------
    n_threads : int
        Share of this pass in the cores of the process, 1 to 16. The other passes are those
        inside :func:`shared_threads` now.
    """
    return min(16, _threads.n_decoding())


def _threads_in_environment() -> int | None:
    """Return OMP_NUM_THREADS if it is set to a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _in_new_thread(function: Callable[..., Any], *args: object) -> Any:
    """Call a function in a new thread and return its result."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function(*args)))
    thread.start()
    thread.join()
    return result[0]
