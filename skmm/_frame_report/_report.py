"""The report as an object: to show, to save, to read as a table."""

import os
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from skmm._frame_report._facts import ColumnFacts
from skmm._frame_report._page import fragment, page

__all__ = ["FrameReport"]

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
