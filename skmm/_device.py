"""Where torch computes, with which seed and on how many threads.

Imports torch, so nothing that ``import skmm`` loads may import this file.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from skmm._config import get_config

__all__ = ["one_thread", "resolve_device", "resolve_dtype", "seeded"]

# Torch's default generator belongs to the process. Threads that train at the same time
# (joblib's threading backend) would draw from it in an order that nobody can repeat.
_generator_lock = threading.RLock()

_threads_lock = threading.Lock()
_threads = {"inside": 0, "before": 0}  # threads in a one_thread block; torch's number before
_own = threading.local()


def resolve_device(device: str) -> torch.device:
    """Turn a ``device`` parameter into a device that exists.

    Parameters
    ----------
    device : str
        ``"auto"`` is the configured device, else CUDA where there is a GPU, else the CPU.

    Returns
    -------
    device : torch.device
        The device.

    Raises
    ------
    ValueError
        If torch does not know the device or this machine lacks it.
    """
    if device == "auto":
        device = get_config()["device"]
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows. Use 'auto', 'cpu' or 'cuda'."
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available()
        and (resolved.index is None or resolved.index < torch.cuda.device_count()),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(resolved.type, True):
        raise ValueError(
            f"device={device!r} is not available on this machine. Use device='auto' to take what"
            " is."
        )
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn a ``dtype`` parameter into the precision of a frozen model on ``device``."""
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generators inside the block and restore them after it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with _generator_lock, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block.

    A second thread buys small nets little on a quiet machine and costs a multiple of their
    time on a busy one, where the threads wait for each other at every operation.

    Torch keeps the number per Python thread, and a new thread starts with the number that was
    set last, by whichever thread. So what is restored is the number from before anybody's block.
    """
    depth = getattr(_own, "depth", 0)
    if depth == 0:
        with _threads_lock:
            if not _threads["inside"]:
                _threads["before"] = torch.get_num_threads()
            _threads["inside"] += 1
            torch.set_num_threads(1)
    _own.depth = depth + 1
    try:
        yield
    finally:
        _own.depth = depth
        if depth == 0:
            with _threads_lock:
                _threads["inside"] -= 1
                torch.set_num_threads(_threads["before"])
