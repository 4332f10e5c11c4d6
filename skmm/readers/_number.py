"""Numbers of Python as floats."""

from typing import Any

import numpy as np

__all__ = ["as_float"]


def as_float(number: Any) -> float:
    """Return a number as a float; an int that is too large for one is infinite.

    Parameters
    ----------
    number : object
        Anything that ``float`` takes; else its error is raised.

    Returns
    -------
    value : float
        The number.
    """
    try:
        return float(number)
    except OverflowError:  # Python's integers have no end
        return np.inf if number > 0 else -np.inf
