"""Which estimators there are."""

import inspect

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


def all_estimators(kind: str | None = None) -> list[tuple[str, type]]:
    """List the public estimators of skmm.

    Parameters
    ----------
    kind : {"alignment", "encoder", "fusion", "generation", "retrieval"}, default=None
        Which ones; None for all.

    Returns
    -------
    estimators : list of (str, class)
        Name and class, in alphabetical order.

    Raises
    ------
    ValueError
        If there is no such kind.

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
            # The object of a method, such as a decoding, has parameters and nothing to fit.
            if (
                inspect.isclass(value)
                and issubclass(value, BaseEstimator)
                and hasattr(value, "fit")
            ):
                found[name] = value
    return sorted(found.items())
