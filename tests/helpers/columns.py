"""Columns of cells of any kind; pandas would make a table of cells that are lists or arrays."""

import numpy as np
import pandas as pd


def objects(cells, index=None):
    """A Series with the cells as they are."""
    values = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        values[row] = cell
    return pd.Series(values, dtype=object, index=index)


def column_of(name, *cells, index=None):
    """A frame with the cells in a column of that name."""
    return pd.DataFrame({name: objects(cells, index)})
