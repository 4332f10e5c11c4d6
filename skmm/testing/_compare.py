"""Assertions whose message is a sentence about the estimator."""

import contextlib
import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

__all__ = ["assert_close", "contents", "global_seeds", "raises", "unchanged_globals"]

# Covers the rounding of float32 in a deep network with batches of different sizes.
_RTOL, _ATOL = 1e-3, 1e-4


def assert_close(actual: ArrayLike, expected: ArrayLike, sentence: str) -> None:
    """Assert that features are equal up to the rounding of float32, including NaN.

    Parameters
    ----------
    actual, expected : array-like of the same shape
        Features.
    sentence : str
        Message if they differ.
    """
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, (
        f"{sentence} The shapes are {actual.shape} and {expected.shape}."
    )
    known = expected[np.isfinite(expected)]
    scale = max(float(np.abs(known).max()) if known.size else 0.0, 1e-6)
    if not np.allclose(actual, expected, rtol=_RTOL, atol=_ATOL * scale, equal_nan=True):
        far = np.abs(actual - expected)
        raise AssertionError(f"{sentence} The largest difference is {np.nanmax(far):.3g}.")


def raises(
    action: Callable[[], Any],
    kinds: type[BaseException] | tuple[type[BaseException], ...],
    sentence: str,
    *,
    naming: tuple[str, ...] = (),
) -> None:
    """Assert that an action raises an error of some kinds that contains all words of ``naming``."""
    try:
        action()
    except kinds as error:
        message = "\n".join([str(error), *getattr(error, "__notes__", [])])
        absent = [name for name in naming if name not in message]
        assert not absent, f"{sentence} The error does not name {absent[0]!r}: {message}"
        return
    except Exception as error:
        raise AssertionError(f"{sentence} It raised {type(error).__name__}: {error}") from error
    raise AssertionError(f"{sentence} It raised nothing.")


def contents(X: pd.DataFrame) -> tuple[Any, ...]:
    """Return the content of a pandas frame, to be compared later."""
    cells = [pickle.dumps(cell) for name in X.columns for cell in X[name]]
    return list(X.columns), list(X.index), list(X.dtypes), cells


@contextlib.contextmanager
def global_seeds(seed: int) -> Iterator[None]:
    """Seed every global generator inside the block and restore the old states after it."""
    numpy_state, state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        np.random.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(state)


@contextlib.contextmanager
def unchanged_globals(who: str) -> Iterator[None]:
    """Assert that the block changes no global state: generators, threads, gradients."""
    # An unusual seed, so that code which seeds with 0 is noticed.
    with global_seeds(193_707_721):
        before = _globals()
        yield
        after = _globals()
    for name, value in after.items():
        assert value == before[name], f"{who} changes {name}, which belongs to the whole process."


def _globals() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "the state of numpy's random generator": pickle.dumps(numpy_state),
        "the state of Python's random generator": random.getstate(),
        "the state of torch's random generator": torch.get_rng_state().tolist(),
        "the number of torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "whether torch keeps gradients": torch.is_grad_enabled(),
        "whether torch is deterministic": torch.are_deterministic_algorithms_enabled(),
    }
