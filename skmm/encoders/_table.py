"""A table's columns as numbers and categories."""

import datetime
import decimal
import enum
import uuid
from typing import Any

import numpy as np
import pandas as pd

from skmm._frame._column import Column
from skmm.exceptions import CellTypeError
from skmm.readers import as_float, read_text

__all__ = ["TableReader"]


class TableReader:
    """Decides once which columns are numbers and which are categories, and reads them.

    Parameters
    ----------
    max_categories : int
        Most frequent values of a column that are told apart; the others count as one.
    """

    def __init__(self, max_categories: int):
        self.max_categories = max_categories

    def fit(self, columns: list[Column]) -> "TableReader":
        """Learn the kind of each column, and the categories."""
        self.is_number = [_is_number(column) for column in columns]
        self.categories: list[list[str]] = []
        for column, number in zip(columns, self.is_number, strict=True):
            if not number:
                texts = _categories(column)[~column.missing]
                # As objects: pandas' own strings cannot hold half a surrogate pair.
                counts = pd.Series(texts, dtype=object).value_counts(sort=False)
                # By frequency, then by name: ties must not depend on the order of rows.
                ranked = sorted(counts.index, key=lambda c: (-counts[c], c))
                self.categories.append(sorted(ranked[: self.max_categories]))
        return self

    def numbers(self, columns: list[Column]) -> np.ndarray:
        """Return float64 (n_samples, n_numbers), NaN where missing."""
        chosen = [c for c, number in zip(columns, self.is_number, strict=True) if number]
        values = [_numbers(column) for column in chosen]
        return np.column_stack(values) if values else np.empty((len(columns[0].values), 0))

    def codes(self, columns: list[Column]) -> np.ndarray:
        """Return int64 (n_samples, n_categories): 0 missing, 1 unknown or rare, then 2, 3, ..."""
        chosen = [c for c, number in zip(columns, self.is_number, strict=True) if not number]
        codes = np.zeros((len(columns[0].values), len(chosen)), dtype=np.int64)
        for j, (column, categories) in enumerate(zip(chosen, self.categories, strict=True)):
            known = pd.Index(categories, dtype=object).get_indexer(
                pd.Index(_categories(column), dtype=object)
            )
            codes[:, j] = np.where(column.missing, 0, np.where(known < 0, 1, known + 2))
        return codes

    @property
    def n_categories(self) -> list[int]:
        """Number of known categories of each category column."""
        return [len(categories) for categories in self.categories]


def _is_number(column: Column) -> bool:
    present = column.values[~column.missing]
    return all(isinstance(cell, _NUMBERS) for cell in present)


_MOMENTS = (np.datetime64, datetime.date)  # datetime and pd.Timestamp are dates
_SPANS = (np.timedelta64, datetime.timedelta)
_NUMBERS = (int, float, decimal.Decimal, np.number, np.bool_, *_MOMENTS, *_SPANS)
# What says the same in every process as text; the text of other objects may hold an address.
_NAMES = (str, complex, datetime.time, enum.Enum, pd.Interval, pd.Period, uuid.UUID)
_DAY = pd.Timedelta(days=1)
_LARGEST = float(np.finfo(np.float32).max)


def _numbers(column: Column) -> np.ndarray:
    """Numbers as they are; points in time as days since 1970."""
    present = ~column.missing
    values = np.full(len(column.values), np.nan)
    cells = column.values[present]
    if len(cells) and isinstance(cells[0], _MOMENTS):
        moments = pd.to_datetime(pd.Series(list(cells)), utc=True)
        values[present] = ((moments - pd.Timestamp(0, tz="UTC")) / _DAY).to_numpy()
    elif len(cells) and isinstance(cells[0], _SPANS):
        values[present] = (pd.to_timedelta(pd.Series(list(cells))) / _DAY).to_numpy()
    else:
        try:
            values[present] = _floats(cells)
        except (TypeError, ValueError) as error:
            row = next(int(i) for i in np.flatnonzero(present) if not _is_float(column.values[i]))
            raise ValueError(
                f"TabularEncoder, column {column.name!r}, row {column.labels[row]!r}: got"
                f" {column.values[row]!r} in a column that held numbers in fit. Convert the"
                " column to numbers, or to str before fit."
            ) from error
    beyond = np.abs(values) > _LARGEST  # NaN is not
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        what = "infinity" if np.isinf(values[row]) else f"{values[row]:g}, beyond float32"
        raise ValueError(
            f"TabularEncoder, column {column.name!r}, row {column.labels[row]!r}: got {what}."
            " Replace it by a number or by NaN."
        )
    return values


def _floats(cells: np.ndarray) -> np.ndarray:
    try:
        return cells.astype(np.float64)
    except OverflowError:  # Python's integers have no end
        return np.array([as_float(cell) for cell in cells])


def _is_float(cell: Any) -> bool:
    try:
        as_float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _categories(column: Column) -> np.ndarray:
    """Categories by their text, so that 1, 1.0 and "1" are the same in fit and in predict."""
    texts = np.full(len(column.values), "", dtype=object)
    for row in np.flatnonzero(~column.missing):
        cell = column.values[row]
        if isinstance(cell, (str, int, float, np.number, np.bool_)):
            texts[row] = read_text(cell)
        elif isinstance(cell, (*_NAMES, *_NUMBERS)):
            texts[row] = str(cell)
        else:
            raise CellTypeError(
                f"TabularEncoder, column {column.name!r}, row {column.labels[row]!r}: argument"
                f" must be a string or a number, got {type(cell).__name__}."
                " Give such a column to an encoder of its modality."
            )
    return texts
