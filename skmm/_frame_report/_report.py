"""The report as an object: to show, to save, to read as a table."""

import os
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from skmm._frame._column import column_names, iter_series, n_rows
from skmm._frame._modality import MODALITIES
from skmm._frame._types import CellColumn
from skmm._frame_report._facts import ColumnFacts, spell
from skmm._frame_report._look import look_at
from skmm._frame_report._page import fragment, page

__all__ = [
    "FrameReport",
    "frame_report",
]

_N_NAMED = 10  # unreadable cells, in a console


class FrameReport:
    """What a frame holds; made by :func:`skmm.frame_report`.

    Parameters
    ----------
    columns : sequence of ColumnFacts
        What was found.
    n_rows : int
        Rows of the frame.
    title : str, default="Frame"
        Heading of the page.

    Attributes
    ----------
    summary_ : DataFrame
        A row for each column, in their order: ``column``, ``modality``, ``dtype``, ``missing``
        (share), ``distinct`` (number of distinct cells, missing where they cannot be compared)
        and ``unreadable`` (number of cells found so).
    unreadable_ : DataFrame
        A row for each cell that was looked at and cannot be read: ``column``, ``row`` (its label)
        and ``reason``.
    html : str
        The page: one document without a script, which fetches nothing.
    """

    def __init__(self, columns: Sequence[ColumnFacts], *, n_rows: int, title: str = "Frame"):
        self.summary_ = pd.DataFrame(
            {
                "column": [c.name for c in columns],
                "modality": [c.modality for c in columns],
                "dtype": [c.dtype for c in columns],
                "missing": [c.missing_share for c in columns],
                "distinct": pd.array([c.n_distinct for c in columns], dtype="Int64"),
                "unreadable": [len(c.unreadable) for c in columns],
            }
        )
        bad = [(c.name, row, why) for c in columns for row, why in c.unreadable.values()]
        self.unreadable_ = pd.DataFrame(bad, columns=["column", "row", "reason"])
        self._n_rows = n_rows
        self._fragment = fragment(title, columns, n_rows)
        self.html = page(title, self._fragment)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the page into a file.

        Parameters
        ----------
        path : str or path-like
            Where; a file of this name is replaced.
        """
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.html)

    def open(self) -> str:
        """Show the page in the browser.

        Returns
        -------
        path : str
            The file that it was written to, among the temporary ones. It holds samples of the
            data, and is yours to remove.
        """
        with tempfile.NamedTemporaryFile(
            "w", prefix="skmm-frame-", suffix=".html", encoding="utf-8", delete=False
        ) as file:
            file.write(self.html)
        webbrowser.open(Path(file.name).as_uri())
        return file.name

    def __repr__(self) -> str:
        table = self.summary_.assign(missing=self.summary_["missing"].map("{:.1%}".format))
        head = f"Frame of {self._n_rows:,} rows and {len(table):,} columns"
        if len(table):
            head += f"\n\n{table.to_string(index=False)}"
        named = self.unreadable_.head(_N_NAMED)
        if len(named):
            head += f"\n\n{len(self.unreadable_):,} cells that were looked at cannot be read"
        for column, row, why in named.itertuples(index=False):
            head += f"\n  column {column!r}, row {row}: {why}"
        return head + ("\n  ..." if len(self.unreadable_) > _N_NAMED else "")

    def _repr_html_(self) -> str:
        return self._fragment


# --- Look at a frame, column by column ---

_MOST_COLUMNS = 100  # of those behind them only the table tells


def frame_report(
    X: CellColumn,
    *,
    modalities: Mapping[str, str] | None = None,
    n_samples: int = 5,
    title: str = "Frame",
    random_state: int = 0,
) -> FrameReport:
    """Show what a frame holds: a page to open in a browser or in a notebook.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Raw data; a row is a sample. It may lack rows, repeat column names and hold anything.
    modalities : dict of str to str, default=None
        Modality of columns for which :func:`~skmm.infer_modalities` should not be asked, by
        their names.
    n_samples : int, default=5
        Cells of each column of texts, media, series or vectors that are decoded and shown.
    title : str, default="Frame"
        Heading of the page.
    random_state : int, default=0
        Draws the cells that are shown. The same frame gives the same page.

    Returns
    -------
    report : FrameReport
        Shown by a notebook as it is, and in a console as a table. ``report.save("frame.html")``
        writes the page, ``report.open()`` shows it in the browser, ``report.html`` is its text.
        ``report.summary_`` is the table and ``report.unreadable_`` names the cells that were
        looked at and cannot be read, both as DataFrames.

    Raises
    ------
    ValueError
        If ``modalities`` names no column or no modality, or ``n_samples`` is no number from 0 to
        100.
    TypeError
        If X is no container of rows.

    See Also
    --------
    infer_modalities : The modalities alone.
    make_multimodal_pipeline : A first model for such a frame.

    Notes
    -----
    A column is told by the share of its cells that are missing, by its distinct cells (files by
    their path, bytes and arrays by content, of more than 1,000 arrays a sample), and by what
    belongs to its modality: thumbnails, waveforms, frames, points, lines, first words, histograms
    and frequent values. Of media at most 200 cells are looked at from outside (is the file there,
    how large, and of a picture the header), and ``n_samples`` are decoded. A cell that cannot be
    read is named on the page and raises nothing. Columns behind the first hundred are in the table
    alone.

    The page is one file: pictures are inside it, it holds no script and fetches nothing, and
    what stands in the frame is escaped. It shows cells of your data, so share it as you would
    share them.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import frame_report
    >>> frame = pd.DataFrame(
    ...     {
    ...         "photo": [np.zeros((8, 8, 3), "uint8"), None, "gone.jpg", None],
    ...         "review": ["Warm and soft", "Fell apart", None, "Bought it twice"],
    ...         "price": [89.0, 12.5, None, 20.0],
    ...     }
    ... )
    >>> report = frame_report(frame)
    >>> report.summary_[["column", "modality", "missing", "unreadable"]]
       column modality  missing  unreadable
    0   photo    image     0.50           1
    1  review     text     0.25           0
    2   price  tabular     0.25           0
    >>> print(report.unreadable_.loc[0, "reason"])
    Cannot read a picture from 'gone.jpg': there is no such file. Relative paths start at the \
working directory.
    >>> report.save("frame.html")  # doctest: +SKIP
    """
    if not isinstance(n_samples, Integral) or not 0 <= n_samples <= 100:
        raise ValueError(
            f"frame_report: n_samples must be a number from 0 to 100, got {n_samples}."
        )
    names = column_names(X)
    modalities = dict(modalities or {})
    _check(modalities, names)
    columns = [
        look_at(
            name,
            series,
            modality=modalities.get(name),
            n_samples=int(n_samples),
            # Of its own for each column: what one shows does not depend on its neighbours.
            rng=np.random.default_rng([random_state, i]),
            is_shown=i < _MOST_COLUMNS,
        )
        for i, (name, (_, series)) in enumerate(zip(names, iter_series(X), strict=True))
    ]
    return FrameReport(columns, n_rows=n_rows(X), title=spell(title))


def _check(modalities: dict[str, str], names: list[str]) -> None:
    for name, modality in modalities.items():
        if name not in names:
            known = ", ".join(map(repr, names[:20]))
            raise ValueError(
                f"frame_report: modalities names a column {name!r} that X does not have. Its"
                f" columns are {known}."
            )
        if modality not in MODALITIES:
            known = ", ".join(map(repr, MODALITIES))
            raise ValueError(
                f"frame_report: modalities gives column {name!r} the modality {modality!r}. Known"
                f" are {known}."
            )
