"""Columns of cells of any kind; pandas would turn cells that are lists or arrays into a table."""

import numpy as np
import pandas as pd


def objects(cells, index=None):
    """Return a Series with the cells unchanged."""
    values = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        values[row] = cell
    return pd.Series(values, dtype=object, index=index)


def column_of(name, *cells, index=None):
    """Return a frame with the cells in a column of that name."""
    return pd.DataFrame({name: objects(cells, index)})
