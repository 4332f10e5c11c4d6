"""Description of one column. No error of a cell stops the report."""

import datetime
import decimal
import os
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from skmm._frame._column import Column, to_column
from skmm._frame._media import SCALARS
from skmm._frame._modality import infer_modalities
from skmm._frame._types import CellColumn
from skmm._frame_report._cells import SHOW, bars, glance, size_of, steps
from skmm._frame_report._facts import ColumnFacts, Sample, spell
from skmm.exceptions import MissingExtraError
from skmm.readers._source import digest_array, digest_bytes
from skmm.readers._text import as_float

__all__ = [
    "look_at",
    "describe_table",
    "describe_text",
]


_N_CHECKED = 200  # cells of a medium that are inspected without decoding
_N_COMPARED = 1000  # arrays whose contents are compared
_MEDIA = ("image", "audio", "video", "pointcloud", "timeseries", "vector")


def look_at(
    name: object,
    series: CellColumn,
    *,
    modality: str | None,
    n_samples: int,
    rng: np.random.Generator,
    is_shown: bool,
) -> ColumnFacts:
    """Describe the content of a column.

    Parameters
    ----------
    name : object
        Name of the column in messages.
    series : Series, ndarray or list
        The column, as ``iter_series`` yields it.
    modality : str or None
        Modality of the column, None to infer it.
    n_samples : int
        Number of cells to show.
    rng : numpy Generator
        Samples the cells.
    is_shown : bool
        Whether cells are inspected at all.

    Returns
    -------
    found : ColumnFacts
        The facts, with samples in the order of the rows.
    """
    column = to_column(name, series)
    missing = np.asarray(column.missing)
    found = ColumnFacts(
        name=spell(name),
        modality="empty",
        dtype=spell(getattr(series, "dtype", "object"), 60),
        n_rows=len(missing),
        n_missing=int(missing.sum()),
        is_shown=is_shown,
    )
    if not found.n_rows:
        return found
    present = np.flatnonzero(~missing)
    found.modality = modality or _modality(series, found)
    _count_distinct(found, column.values[present], rng)
    if not len(present) or not is_shown:
        return found
    if found.modality in ("tabular", "drop", "unclear"):
        if found.modality == "drop" and found.n_missing < found.n_rows:
            found.facts.append("The same value in every row")
        describe_table(found, column.values[present])
        return found
    if found.modality == "text":
        describe_text(found, column.values[present])
    _check_cells(found, column, present, rng)
    _show_cells(found, column, present, n_samples, rng)
    return found


def _modality(series: CellColumn, found: ColumnFacts) -> str:
    try:
        return next(iter(infer_modalities(series).values()))
    except Exception as error:  # an unknown or mixed cell, or an error of a user's class
        found.facts.append(spell(error, 400).rstrip("."))
        return "unclear"


def _count_distinct(found: ColumnFacts, cells: np.ndarray, rng: np.random.Generator) -> None:
    """Count distinct cells, by content where that is cheap."""
    try:
        found.n_distinct = len({(type(cell) is bool, _plain(cell)) for cell in cells})
        return
    except TypeError:
        pass
    n_cells = len(cells)
    if n_cells > _N_COMPARED:
        cells = cells[np.sort(rng.choice(n_cells, _N_COMPARED, replace=False))]
    try:
        found.n_distinct = len({_content(cell) for cell in cells})
    except Exception:  # images, which would be decoded, and lists of objects
        return
    if n_cells > _N_COMPARED:
        found.facts.append(f"Distinct cells were counted among {_N_COMPARED:,} of {n_cells:,}")


def _plain(cell: object) -> Any:
    if isinstance(cell, bytes | bytearray | memoryview):
        return digest_bytes(bytes(cell))
    if not isinstance(cell, (str, os.PathLike, *SCALARS, pd.Timedelta, pd.Period, pd.Interval)):
        raise TypeError("compares by place, or not at all")
    return cell


def _content(cell: object) -> Any:
    if isinstance(cell, bytes | bytearray | memoryview | str | os.PathLike):
        return _plain(cell)
    if isinstance(cell, list | tuple) or hasattr(type(cell), "__array__"):
        if "PIL" in type(cell).__module__:
            raise TypeError("would have to be decoded")
        array = np.asarray(cell)
        if array.dtype.kind in "biufc":
            return digest_array(array)
    raise TypeError("compares by place")


def _check_cells(
    found: ColumnFacts, column: Column, present: np.ndarray, rng: np.random.Generator
) -> None:
    """Inspect cells of a medium without decoding; list those that cannot be read."""
    if found.modality not in _MEDIA:
        return
    rows = present
    if len(rows) > _N_CHECKED:
        rows = np.sort(rng.choice(rows, _N_CHECKED, replace=False))
    n_bytes, shapes, n_bad = [], set(), 0
    for row in rows:
        try:
            size, shape = glance(column.values[row], found.modality)
        except Exception as error:  # PIL raises many kinds of errors for unknown bytes
            n_bad += 1
            _name(found, column, row, error)
            continue
        n_bytes += [size] if size is not None else []
        shapes |= {shape} if shape is not None else set()
    if n_bytes:
        span = " to ".join(dict.fromkeys(size_of(n) for n in (min(n_bytes), max(n_bytes))))
        found.facts.append(f"Files of {span}" if len(n_bytes) > 1 else f"A file of {span}")
    if shapes:
        joined = [" × ".join(map(str, shape)) for shape in sorted(shapes)]
        word = "Sizes" if found.modality == "image" else "Shapes"
        several = f"{word} from {joined[0]} to {joined[-1]}"
        found.facts.append(several if len(joined) > 1 else f"{word} {joined[0]}")
    if len(rows) < len(present):
        found.facts.append(f"{len(rows):,} of {len(present):,} cells were inspected")
    if n_bad:
        found.facts.append(f"{n_bad:,} of {len(rows):,} inspected cells cannot be read")


def _show_cells(
    found: ColumnFacts,
    column: Column,
    present: np.ndarray,
    n_samples: int,
    rng: np.random.Generator,
) -> None:
    show = SHOW.get(found.modality)
    if show is None:
        return
    # Cells that are known to be unreadable are already listed.
    good = [row for row in present if int(row) not in found.unreadable]
    rows = np.asarray(good or present)
    if len(rows) > n_samples:
        rows = np.sort(rng.choice(rows, n_samples, replace=False))
    for row in rows:
        sample = Sample(row=spell(column.labels[row], 60))
        try:
            show(column.values[row], sample, rng)
        except MissingExtraError as error:
            sample.note = spell(error, 300)
        except Exception as error:  # MediaDecodeError, CellTypeError, or an error of a user's class
            sample.note, sample.unreadable = spell(error, 300), True
            _name(found, column, row, error)
        found.samples.append(sample)


def _name(found: ColumnFacts, column: Column, row: int, error: Exception) -> None:
    why = spell(error, 300) or type(error).__name__
    found.unreadable.setdefault(int(row), (spell(column.labels[row], 60), why))


# --- Statistics of numbers, dates, categories and texts over all cells ---

_N_BINS = 30
_N_TOP = 8
_NUMBERS = (int, float, decimal.Decimal, np.integer, np.floating)
_DATES = (datetime.date, np.datetime64)


def describe_table(found: ColumnFacts, cells: np.ndarray) -> None:
    """Describe a column of numbers, dates or categories.

    Parameters
    ----------
    found : ColumnFacts
        Facts to which the description is added.
    cells : ndarray of shape (n_present,), object
        The present cells.
    """
    if not len(cells):
        return
    if not any(isinstance(cell, bool | np.bool_) for cell in cells):
        if all(isinstance(cell, _NUMBERS) for cell in cells):
            return _describe_numbers(found, np.array([as_float(cell) for cell in cells]))
        if all(isinstance(cell, _DATES) for cell in cells):
            return _describe_dates(found, cells)
        if all(isinstance(cell, str) for cell in cells):
            numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
            if numbers.notna().all():
                found.facts.append("Numbers stored as text")
                return _describe_numbers(found, numbers.to_numpy(dtype=float))
    _describe_categories(found, cells)


def describe_text(found: ColumnFacts, cells: np.ndarray) -> None:
    """Describe the lengths of the texts of a column, with a histogram of their words.

    Parameters
    ----------
    found : ColumnFacts
        Facts to which the description is added.
    cells : ndarray of shape (n_present,), object
        The present cells.
    """
    texts = [str(cell) for cell in cells]
    n_words = np.array([len(text.split()) for text in texts])
    low, median, high = n_words.min(), np.median(n_words), n_words.max()
    span = f"{low:,} to {high:,} words, median {median:,.4g}"
    found.facts.append(span if high > low else f"Each of {low:,} words")
    n_empty = sum(not text.strip() for text in texts)
    if n_empty:
        found.facts.append(f"{n_empty:,} empty texts, which are not missing")
    if high > low:
        counts, _ = np.histogram(n_words, bins=min(_N_BINS, int(high - low) + 1))
        found.plot = steps(counts, f"Histogram of the words per cell, from {low:,} to {high:,}")


def _describe_numbers(found: ColumnFacts, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) < len(values):
        found.facts.append(f"{len(values) - len(finite):,} infinite numbers")
    if not len(finite):
        return
    low, median, high = finite.min(), np.median(finite), finite.max()
    found.facts.append(f"From {low:,.5g} to {high:,.5g}, median {median:,.5g}")
    if high > low:
        # Divided by 4, because high - low may exceed the largest float.
        counts, _ = np.histogram(finite / 4, bins=_N_BINS)
        words = f"Histogram of the numbers from {low:,.5g} to {high:,.5g}"
        found.plot = steps(counts, words)


def _describe_dates(found: ColumnFacts, cells: np.ndarray) -> None:
    try:
        low, high = min(cells), max(cells)
    except TypeError:  # with and without a time zone, or dates and datetimes
        return _describe_categories(found, cells)
    found.facts.append(f"From {spell(low)} to {spell(high)}")
    try:
        times = pd.to_datetime(pd.Series(cells, dtype=object), utc=True).astype("int64")
    except (ValueError, OverflowError, TypeError):  # years outside the range of pandas
        return None
    if times.max() > times.min():
        counts, _ = np.histogram(times, bins=_N_BINS)
        found.plot = steps(counts, f"Histogram of the dates from {spell(low)} to {spell(high)}")


def _describe_categories(found: ColumnFacts, cells: np.ndarray) -> None:
    counts = Counter(spell(cell, 60) for cell in cells)
    top = counts.most_common(_N_TOP)
    if len(counts) > _N_TOP:
        rest = len(cells) - sum(count for _, count in top)
        found.facts.append(f"{len(counts) - _N_TOP:,} other values in {rest:,} cells")
    found.plot = bars(top, len(cells))
