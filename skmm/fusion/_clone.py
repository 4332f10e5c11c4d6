"""Clones whose open random states are closed."""

from typing import Any

import numpy as np
from sklearn.base import clone

__all__ = ["seeded_clone"]


def seeded_clone(estimator: Any, seed: int | None) -> Any:
    """Clone an estimator and give a seed to whatever in it has none.

    So one ``random_state`` at a fusion repeats all that is drawn in it, as in scikit-learn's
    ensembles. What has a ``random_state`` of its own keeps it.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    seed : int or None
        None leaves everything as it is.

    Returns
    -------
    clone : estimator
        Unfitted.
    """
    cloned = clone(estimator)
    if seed is None:
        return cloned
    parameters = cloned.get_params(deep=True)
    open_states = sorted(
        name
        for name, value in parameters.items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    )
    if open_states:
        # A number each, or two alike parts of a pipeline would draw the same.
        draws = np.random.RandomState(seed).randint(2**31 - 1, size=len(open_states))
        cloned.set_params(**{n: int(d) for n, d in zip(open_states, draws, strict=True)})
    return cloned
