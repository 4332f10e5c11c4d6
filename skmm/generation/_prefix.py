"""A column of texts that stand in front of what is written: checked, set apart, as ids."""

from collections.abc import Callable
from typing import Any

import numpy as np

from skmm._frame._column import column_names, columns_of, take_columns
from skmm.exceptions import CellTypeError
from skmm.fusion._modalities import Modality
from skmm.generation._tokenizer import TextTokenizer

__all__ = ["prefix_ids", "prefixes_of_rows", "resolve_others"]


def prefixes_of_rows(X: Any, column: str | int, owner: str) -> list[str | None]:
    """Check the texts of a column and return them, None where the cell is missing.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_columns)
        Cells.
    column : str or int
        Name or position.
    owner : str
        Class that asks, for messages.

    Returns
    -------
    prefixes : list of str or None
        One for each row.
    """
    (cells,) = columns_of(X, column)
    prefixes: list[str | None] = []
    for cell, absent, label in zip(cells.values, cells.missing, cells.labels, strict=True):
        if not absent and not isinstance(cell, str):
            raise CellTypeError(
                f"{owner}: column {column!r}, row {label!r}: got {type(cell).__name__} where a"
                " text is read. Give a text, or None."
            )
        prefixes.append(None if absent else str(cell))
    return prefixes


def prefix_ids(prefixes: list[str | None], tokenizer: TextTokenizer) -> np.ndarray:
    """Return what a decoder reads in front of texts, (n_rows, n_steps) int64, -1 behind the end.

    A token that the tokenizer does not know is left out: no training said what it stands for.
    """
    known: dict[str, list[int]] = {}  # a question is asked of many pictures
    for prefix in prefixes:
        if prefix and prefix not in known:
            ids = tokenizer.encode(prefix)
            known[prefix] = [i for i in ids if i != TextTokenizer.UNKNOWN]
    rows = [known[prefix] if prefix else [] for prefix in prefixes]
    read = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for row, ids in zip(read, rows, strict=True):
        row[: len(ids)] = ids
    return read


def resolve_others(
    X: Any, column: str | int, owner: str, resolve: Callable[[Any], list[Modality]]
) -> list[Modality]:
    """Infer the modalities of all columns but one.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_columns)
        Training frame.
    column : str or int
        Name or position of what is no modality.
    owner : str
        Class that asks, for messages.
    resolve : callable
        From a frame to modalities whose columns are positions in it.

    Returns
    -------
    resolved : list of Modality
        Their columns are positions in ``X``.
    """
    names = column_names(X)
    position = names.index(column) if isinstance(column, str) else column
    others = np.delete(np.arange(len(names)), position)
    if not len(others):
        raise ValueError(
            f"{owner}: X has no column beside {column!r}, which is read as text. Give at least one"
            " modality."
        )
    found = resolve(take_columns(X, others))
    return [own._replace(columns=others[own.columns].tolist()) for own in found]
