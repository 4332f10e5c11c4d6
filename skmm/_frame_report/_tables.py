"""What is told about numbers, dates, categories and texts: figures over all cells."""

import datetime
import decimal
from collections import Counter

import numpy as np
import pandas as pd

from skmm._frame_report._drawing import bars, steps
from skmm._frame_report._facts import ColumnFacts, spell
from skmm.readers import as_float

__all__ = ["tell_table", "tell_text"]

_N_BINS = 30
_N_TOP = 8
_NUMBERS = (int, float, decimal.Decimal, np.integer, np.floating)
_DATES = (datetime.date, np.datetime64)


def tell_table(told: ColumnFacts, cells: np.ndarray) -> None:
    """Tell of a column of numbers, dates or categories.

    Parameters
    ----------
    told : ColumnFacts
        Is added to.
    cells : ndarray of shape (n_present,), object
        Its cells that are not missing.
    """
    if not len(cells):
        return
    if not any(isinstance(cell, bool | np.bool_) for cell in cells):
        if all(isinstance(cell, _NUMBERS) for cell in cells):
            return _tell_numbers(told, np.array([as_float(cell) for cell in cells]))
        if all(isinstance(cell, _DATES) for cell in cells):
            return _tell_dates(told, cells)
        if all(isinstance(cell, str) for cell in cells):
            numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
            if numbers.notna().all():
                told.facts.append("Numbers that are spelled as text")
                return _tell_numbers(told, numbers.to_numpy(dtype=float))
    _tell_categories(told, cells)


def tell_text(told: ColumnFacts, cells: np.ndarray) -> None:
    """Tell how long the texts of a column are, with a histogram of their words.

    Parameters
    ----------
    told : ColumnFacts
        Is added to.
    cells : ndarray of shape (n_present,), object
        Its cells that are not missing.
    """
    texts = [str(cell) for cell in cells]
    n_words = np.array([len(text.split()) for text in texts])
    low, middle, high = n_words.min(), np.median(n_words), n_words.max()
    span = f"{low:,} to {high:,} words, in the middle {middle:,.4g}"
    told.facts.append(span if high > low else f"Each of {low:,} words")
    n_empty = sum(not text.strip() for text in texts)
    if n_empty:
        told.facts.append(f"{n_empty:,} empty, which is not missing")
    if high > low:
        counts, _ = np.histogram(n_words, bins=min(_N_BINS, int(high - low) + 1))
        told.picture = steps(counts, f"Histogram of words a cell, from {low:,} to {high:,}")


def _tell_numbers(told: ColumnFacts, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) < len(values):
        told.facts.append(f"{len(values) - len(finite):,} infinite")
    if not len(finite):
        return
    low, middle, high = finite.min(), np.median(finite), finite.max()
    told.facts.append(f"From {low:,.5g} to {high:,.5g}, in the middle {middle:,.5g}")
    if high > low:
        # A quarter, since high - low may be beyond the largest float.
        counts, _ = np.histogram(finite / 4, bins=_N_BINS)
        words = f"Histogram of the numbers from {low:,.5g} to {high:,.5g}"
        told.picture = steps(counts, words)


def _tell_dates(told: ColumnFacts, cells: np.ndarray) -> None:
    try:
        low, high = min(cells), max(cells)
    except TypeError:  # with and without a time zone, or days beside moments
        return _tell_categories(told, cells)
    told.facts.append(f"From {spell(low)} to {spell(high)}")
    try:
        moments = pd.to_datetime(pd.Series(cells, dtype=object), utc=True).astype("int64")
    except (ValueError, OverflowError, TypeError):  # years that pandas has no room for
        return None
    if moments.max() > moments.min():
        counts, _ = np.histogram(moments, bins=_N_BINS)
        told.picture = steps(counts, f"Histogram of the dates from {spell(low)} to {spell(high)}")


def _tell_categories(told: ColumnFacts, cells: np.ndarray) -> None:
    counts = Counter(spell(cell, 60) for cell in cells)
    top = counts.most_common(_N_TOP)
    if len(counts) > _N_TOP:
        rest = len(cells) - sum(count for _, count in top)
        told.facts.append(f"{len(counts) - _N_TOP:,} other values in {rest:,} cells")
    told.picture = bars(top, len(cells))
