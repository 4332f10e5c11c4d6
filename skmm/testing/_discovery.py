"""The public estimators."""

import inspect
from typing import Literal

from sklearn.base import BaseEstimator

from skmm import alignment, encoders, fusion, generation, retrieval

__all__ = ["all_estimators"]

_FOLDERS = {
    "alignment": alignment,
    "encoder": encoders,
    "fusion": fusion,
    "generation": generation,
    "retrieval": retrieval,
}


def all_estimators(
    kind: Literal["alignment", "encoder", "fusion", "generation", "retrieval"] | None = None,
) -> list[tuple[str, type]]:
    """List the public estimators of skmm.

    Parameters
    ----------
    kind : {"alignment", "encoder", "fusion", "generation", "retrieval"}, default=None
        Kind of estimators; None for all.

    Returns
    -------
    estimators : list of (str, class)
        Name and class of each estimator, in alphabetical order.

    Raises
    ------
    ValueError
        If ``kind`` is unknown.

    Examples
    --------
    >>> from skmm.testing import all_estimators
    >>> [name for name, _ in all_estimators("encoder")][:3]
    ['AudioEncoder', 'ImageEncoder', 'ModuleEncoder']
    """
    if kind is not None and kind not in _FOLDERS:
        raise ValueError(f"kind must be one of {sorted(_FOLDERS)} or None, got {kind!r}.")
    folders = _FOLDERS.values() if kind is None else [_FOLDERS[kind]]
    found = {}
    for folder in folders:
        for name in folder.__all__:
            value = getattr(folder, name)
            if inspect.isclass(value) and issubclass(value, BaseEstimator) and _learns(value):
                found[name] = value
    return sorted(found.items())


def _learns(kind: type) -> bool:
    """Return whether a class has a ``fit`` that takes ``X``, unlike options such as a trainer."""
    fit = getattr(kind, "fit", None)
    return fit is not None and "X" in inspect.signature(fit).parameters
