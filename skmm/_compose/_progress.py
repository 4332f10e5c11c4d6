"""Messages of long fits, printed where a user sets ``verbose``."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["timed"]


@contextmanager
def timed(owner: object, message: str, verbose: bool | int) -> Iterator[None]:
    """Print what was done and how long it took.

    Parameters
    ----------
    owner : object
        Estimator whose class starts the line.
    message : str
        What is done inside the block.
    verbose : bool or int
        Nothing is printed if it is 0.
    """
    start = time.perf_counter()
    yield
    if verbose:
        print(f"[{type(owner).__name__}] {message}: {time.perf_counter() - start:.1f} s")
