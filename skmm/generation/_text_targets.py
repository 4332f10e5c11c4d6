"""The texts of a target: checked, and as arrays of ids."""

from typing import Any

import numpy as np

from skmm._frame._column import is_missing
from skmm.generation._tokenizer import TextTokenizer

__all__ = ["padded_ids", "texts_of_rows"]


def texts_of_rows(y: Any, n_rows: int, owner: str, *, several: bool) -> list[list[str]]:
    """Check a target and return the texts of each row; none where it is missing.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Texts; with ``several`` also lists of texts.
    n_rows : int
        Of ``X``.
    owner : str
        Class or method that asks, for messages.
    several : bool
        Whether a cell may hold a list.

    Returns
    -------
    texts : list of list of str
        One list for each row.
    """
    wanted = "a text or a list of texts" if several else "a text"
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None. Give {wanted} for each"
            " row."
        )
    if isinstance(y, str) or not hasattr(y, "__len__"):
        raise TypeError(
            f"{owner}: y must hold {wanted} for each row, got {type(y).__name__}. For one row give"
            " a list of one."
        )
    cells = _cells(y, owner)
    if len(cells) != n_rows:
        raise ValueError(
            f"{owner}: X has {n_rows} rows and y has {len(cells)}. Give {wanted} for each row."
        )
    missing = is_missing(np.fromiter(cells, dtype=object, count=len(cells)))
    texts: list[list[str]] = []
    for position, (cell, absent) in enumerate(zip(cells, missing, strict=True)):
        if absent:
            texts.append([])
        elif isinstance(cell, str):
            texts.append([str(cell)])
        elif several and isinstance(cell, list | tuple | np.ndarray):
            own = np.fromiter(cell, dtype=object, count=len(cell))
            known = own[~is_missing(own)]
            if not all(isinstance(text, str) for text in known):
                raise _not_text(owner, wanted, cell, position)
            texts.append([str(text) for text in known])
        else:
            raise _not_text(owner, wanted, cell, position)
    return texts


def _cells(y: Any, owner: str) -> list[Any]:
    shape: tuple[int, ...] = tuple(getattr(y, "shape", (len(y),)))
    if len(shape) == 2 and shape[1] == 1:
        y = y.iloc[:, 0] if hasattr(y, "iloc") else np.asarray(y, dtype=object)[:, 0]
    elif len(shape) != 1:
        raise ValueError(
            f"{owner}: y must have one dimension, got shape {shape}. Several texts of a row"
            " go as a list into its cell."
        )
    return list(y)


def _not_text(owner: str, wanted: str, cell: Any, position: int) -> TypeError:
    return TypeError(
        f"{owner}: a cell of y must be {wanted}, or None, got {type(cell).__name__} in row"
        f" {position} (by position)."
    )


def padded_ids(
    texts: list[list[int]], begin: int, nothing: int, max_length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a decoder reads and what it should write, (n_texts, n_steps) int64 each.

    Parameters
    ----------
    texts : list of list of int
        Ids, without that of the end.
    begin : int
        Id in front of each text.
    nothing : int
        What stands in the target behind the end of a text.
    max_length : int, default=None
        What is longer is cut, and then has no end.

    Returns
    -------
    ids, target : ndarray
        The target is the ids one step later.
    """
    whole = [[*ids, TextTokenizer.END][:max_length] for ids in texts]
    longest = max((len(ids) for ids in whole), default=1)
    target = np.full((len(whole), longest), nothing, dtype=np.int64)
    read = np.full((len(whole), longest), TextTokenizer.END, dtype=np.int64)
    for row, ids in enumerate(whole):
        target[row, : len(ids)] = ids
        read[row, 1 : len(ids)] = ids[:-1]
    read[:, 0] = begin
    return read, target
