"""Where the cells of an alignment's modalities stand in a frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skmm._frame._column import column_names
from skmm.inspection._cell_edits import column_positions, has_cells

__all__ = ["columns_in", "present_in"]


def columns_in(
    alignment: Any, X: Any, names: Sequence[str], columns: Mapping[str, Any] | None, *, owner: str
) -> dict[str, list[int]]:
    """Find the columns of some modalities.

    Parameters
    ----------
    alignment : estimator
        Fitted.
    X : DataFrame of shape (n_samples, n_columns), Series or list of cells
        What the modalities are looked for in.
    names : sequence of str
        Modalities.
    columns : dict of str to columns, or None
        What the user says.
    owner : str
        Class of the display, for errors.

    Returns
    -------
    positions : dict of str to list of int
        Columns of ``X`` for each name.
    """
    while not hasattr(alignment, "transformers_") and hasattr(alignment, "estimator"):
        alignment = alignment.estimator  # a FrozenEstimator
    known = {name: key for name, _, key in getattr(alignment, "transformers_", ())}
    known |= dict(columns or {})
    present = column_names(X)
    found = {}
    for name in names:
        if len(getattr(X, "shape", (0,))) < 2:  # cells of one modality
            found[name] = [0]
        elif name in known:
            found[name] = column_positions(X, known[name])
        elif name in present:
            found[name] = [present.index(name)]
        else:
            raise ValueError(
                f"{owner}: {type(alignment).__name__} does not say which columns are {name!r}. Tell"
                f" it, as in columns={{{name!r}: ['photo']}}."
            )
    return found


def present_in(X: Any, columns: Mapping[str, Any]) -> np.ndarray:
    """Which rows have which modality, (n_samples, n_modalities) bool."""
    return np.column_stack([has_cells(X, column_positions(X, key)) for key in columns.values()])
