"""The report on a frame: the function, its result, and the page."""

import hashlib
import html
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
from skmm._frame_report._facts import ColumnFacts, Sample, spell
from skmm._frame_report._look import look_at

__all__ = [
    "FrameReport",
    "STYLE",
    "fragment",
    "frame_report",
    "page",
]


_N_NAMED = 10  # unreadable cells listed in the text form


class FrameReport:
    """Report on the content of a frame, returned by :func:`skmm.frame_report`.

    Parameters
    ----------
    columns : sequence of ColumnFacts
        Facts about each column.
    n_rows : int
        Number of rows of the frame.
    title : str, default="Frame"
        Heading of the page.

    Attributes
    ----------
    summary_ : DataFrame
        A row for each column of the frame: ``column``, ``modality``, ``dtype``, ``missing``
        (share), ``distinct`` (number of distinct cells, missing if they cannot be compared) and
        ``unreadable`` (number of inspected cells that cannot be read).
    unreadable_ : DataFrame
        A row for each inspected cell that cannot be read: ``column``, ``row`` (its label) and
        ``reason``.
    html : str
        The page: one document without scripts and external resources.
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
        """Write the page to a file.

        Parameters
        ----------
        path : str or path-like
            Path of the file; an existing file is replaced.
        """
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.html)

    def open(self) -> str:
        """Open the page in the browser.

        Returns
        -------
        path : str
            Temporary file with the page. It contains samples of the data and is not removed
            automatically.
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
            head += f"\n\n{len(self.unreadable_):,} inspected cells cannot be read"
        for column, row, why in named.itertuples(index=False):
            head += f"\n  column {column!r}, row {row}: {why}"
        return head + ("\n  ..." if len(self.unreadable_) > _N_NAMED else "")

    def _repr_html_(self) -> str:
        return self._fragment


# --- The function that describes a frame, column by column ---

_MOST_COLUMNS = 100  # with a section; later ones are only in the table


def frame_report(
    X: CellColumn,
    *,
    modalities: Mapping[str, str] | None = None,
    n_samples: int = 5,
    title: str = "Frame",
    random_state: int = 0,
) -> FrameReport:
    """Report on the content of a frame as a page for a browser or a notebook.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Raw data; a row is a sample. It may have no rows, repeated column names and any cells.
    modalities : dict of str to str, default=None
        Modality of columns by name; that of other columns is inferred by
        :func:`~skmm.infer_modalities`.
    n_samples : int, default=5
        Number of cells that are decoded and shown for each column of texts, media, series or
        vectors.
    title : str, default="Frame"
        Heading of the page.
    random_state : int, default=0
        Samples the cells that are shown. The same frame gives the same page.

    Returns
    -------
    report : FrameReport
        Displayed as the page in a notebook and as a table in a console.
        ``report.save("frame.html")`` writes the page, ``report.open()`` opens it in the browser,
        and ``report.html`` is its source. ``report.summary_`` is the table and
        ``report.unreadable_`` lists the inspected cells that cannot be read, both as DataFrames.

    Raises
    ------
    ValueError
        If ``modalities`` has an unknown column or modality, or ``n_samples`` is not an int from 0
        to 100.
    TypeError
        If X is not a container of rows.

    See Also
    --------
    infer_modalities : Infer only the modalities.
    make_multimodal_pipeline : Build a first model for such a frame.

    Notes
    -----
    A column is described by the share of missing cells, the number of distinct cells (files by
    path, bytes and arrays by content; of more than 1,000 arrays a sample is compared), and plots
    or samples that depend on its modality: thumbnails, waveforms, frames, points, lines, first
    words, histograms and frequent values. For media, at most 200 cells are inspected without
    decoding (existence and size of the file, header of an image), and ``n_samples`` cells are
    decoded. A cell that cannot be read is listed on the page and raises no error. Columns after
    the first hundred are only in the table.

    The page is one file: it contains its images, has no scripts and fetches nothing, and the
    content of the frame is escaped. It shows cells of your data: share it only with those who may
    see them.

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
    Cannot read an image from 'gone.jpg': there is no such file. Relative paths start at the \
working directory.
    >>> report.save("frame.html")  # doctest: +SKIP
    """
    if not isinstance(n_samples, Integral) or not 0 <= n_samples <= 100:
        raise ValueError(f"frame_report: n_samples must be an int from 0 to 100, got {n_samples}.")
    names = column_names(X)
    modalities = dict(modalities or {})
    _check(modalities, names)
    columns = [
        look_at(
            name,
            series,
            modality=modalities.get(name),
            n_samples=int(n_samples),
            # One generator per column, so that its samples do not depend on other columns.
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
                f"frame_report: modalities has a column {name!r} that X does not have. Its"
                f" columns are {known}."
            )
        if modality not in MODALITIES:
            known = ", ".join(map(repr, MODALITIES))
            raise ValueError(
                f"frame_report: modalities gives column {name!r} the modality {modality!r}. Known"
                f" are {known}."
            )


# --- The page: from facts to HTML; all texts of the user are escaped by ``_e`` ---

# All rules begin with the class, because a notebook shows the report inside its own page.
STYLE = """
.skmm-frame { --ink: #1c2024; --soft: #5c6570; --paper: #fff; --line: #d5dae0; --mark: #1f6feb;
  --bad: #b42318; --c1: #c2410c; --c2: #15803d; --c3: #7e22ce; --c4: #a16207; --c5: #0e7490;
  color: var(--ink); background: var(--paper); font: 15px/1.45 system-ui, sans-serif;
  padding: 1.2em; overflow-wrap: anywhere; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { .skmm-frame { --ink: #e6e9ed; --soft: #a0a8b2;
  --paper: #15181c; --line: #363c44; --mark: #6ea8fe; --bad: #ff8a7a; --c1: #fb923c;
  --c2: #4ade80; --c3: #d8b4fe; --c4: #facc15; --c5: #67e8f9; } }
.skmm-frame h1 { font-size: 1.4em; margin: 0 0 .2em; }
.skmm-frame h2 { font-size: 1.1em; margin: 0; }
.skmm-frame p { margin: .2em 0; color: var(--soft); }
.skmm-frame .bad { color: var(--bad); }
.skmm-frame .wide { overflow-x: auto; }
.skmm-frame table { border-collapse: collapse; margin: .8em 0; font-size: .95em; }
.skmm-frame caption { text-align: left; color: var(--soft); padding-bottom: .3em; }
.skmm-frame th, .skmm-frame td { text-align: left; vertical-align: top;
  padding: .25em .9em .25em 0; border: 0; background: none; color: inherit;
  font-variant-numeric: tabular-nums; }
.skmm-frame th { font-weight: 600; }
.skmm-frame .all tr { border-bottom: 1px solid var(--line); }
.skmm-frame .all .n { text-align: right; white-space: nowrap; }
.skmm-frame .bars th { font-weight: 400; max-width: 22em; }
.skmm-frame .bar { display: inline-block; height: .7em; background: var(--mark); }
.skmm-frame a { color: var(--mark); }
.skmm-frame section { border-top: 1px solid var(--line); margin-top: 1.1em; padding-top: .9em; }
.skmm-frame .kind { display: inline-block; border: 1px solid var(--line); border-radius: 1em;
  padding: 0 .7em; margin-left: .5em; font-size: .85em; font-weight: 400; }
.skmm-frame ul { list-style: none; display: flex; flex-wrap: wrap; gap: .9em; padding: 0;
  margin: .7em 0 0; }
.skmm-frame li { border: 1px solid var(--line); border-radius: 6px; padding: .6em;
  max-width: 30em; margin: 0; }
.skmm-frame li p { font-size: .85em; }
.skmm-frame li .text { color: var(--ink); font-size: .95em; }
.skmm-frame img, .skmm-frame svg { margin: 2px; max-width: 100%; vertical-align: top; }
.skmm-frame svg.fill { fill: var(--mark); stroke: none; }
.skmm-frame svg.stroke { fill: none; stroke: var(--mark); stroke-width: 1.3; }
.skmm-frame svg.stroke path { stroke-linecap: round; stroke-linejoin: round; }
.skmm-frame .dots { stroke-width: 2.4; }
.skmm-frame .line1 { stroke: var(--c1); } .skmm-frame .line2 { stroke: var(--c2); }
.skmm-frame .line3 { stroke: var(--c3); } .skmm-frame .line4 { stroke: var(--c4); }
.skmm-frame .line5 { stroke: var(--c5); }
"""

# Even if markup of a user were not escaped, the browser would run and fetch nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_N_SHOWN = 20  # unreadable cells per column


def page(title: str, body: str) -> str:
    """Return a complete document with a fragment."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_e(title)}</title>\n<style>body {{ margin: 0; }}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def fragment(title: str, columns: Sequence[ColumnFacts], n_rows: int) -> str:
    """Return the report as one element, to be shown inside another page.

    Parameters
    ----------
    title : str
        Heading.
    columns : sequence of ColumnFacts
        Facts about each column.
    n_rows : int
        Number of rows of the frame.

    Returns
    -------
    markup : str
        The element and its style.
    """
    # Two reports in one notebook must not share their anchors.
    spelled = repr([(c.name, c.modality, c.n_missing) for c in columns]).encode()
    key = hashlib.blake2b(spelled, digest_size=4).hexdigest()
    sections = "\n".join(
        _section(column, f"skmm-{key}-{i}") for i, column in enumerate(columns) if column.is_shown
    )
    n_left_out = sum(not column.is_shown for column in columns)
    more = f"<p>{n_left_out:,} more columns are only in the table.</p>" if n_left_out else ""
    size = f"{_n(n_rows, 'row')} and {_n(len(columns), 'column')}"
    return (
        f'<style>{STYLE}</style>\n<div class="skmm-frame">\n<h1>{_e(title)}</h1>\n<p>{size}</p>\n'
        f"{_overview(columns, key)}\n{more}{sections}\n</div>"
    )


def _overview(columns: Sequence[ColumnFacts], key: str) -> str:
    rows = "\n".join(_overview_row(column, f"skmm-{key}-{i}") for i, column in enumerate(columns))
    heads = "".join(
        f'<th scope="col"{kind}>{head}</th>'
        for head, kind in [
            ("column", ""), ("modality", ""), ("dtype", ""), ("missing", ' class="n"'),
            ("distinct", ' class="n"'), ("unreadable", ' class="n"'),
        ]
    )  # fmt: skip
    return (
        f'<div class="wide"><table class="all"><caption>Columns of the frame</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )


def _overview_row(column: ColumnFacts, anchor: str) -> str:
    name = f"<bdi>{_e(column.name) or '(no name)'}</bdi>"
    if column.is_shown:
        name = f'<a href="#{anchor}">{name}</a>'
    distinct = "" if column.n_distinct is None else f"{column.n_distinct:,}"
    bad = f'<span class="bad">{len(column.unreadable):,}</span>' if column.unreadable else ""
    return (
        f'<tr><th scope="row">{name}</th><td>{_e(column.modality)}</td><td>{_e(column.dtype)}</td>'
        f'<td class="n">{column.missing_share:.1%}</td><td class="n">{distinct}</td>'
        f'<td class="n">{bad}</td></tr>'
    )


def _section(column: ColumnFacts, anchor: str) -> str:
    count = f"{column.n_missing:,} of {_n(column.n_rows, 'cell')} missing"
    if column.n_distinct is not None:
        count += f", {column.n_distinct:,} distinct"
    facts = "".join(f"<p><bdi>{_e(fact)}.</bdi></p>" for fact in [count, *column.facts])
    bad = "".join(
        f'<p class="bad">Row <bdi>{_e(row)}</bdi>: <bdi>{_e(why)}</bdi></p>'
        for row, why in list(column.unreadable.values())[:_N_SHOWN]
    )
    if len(column.unreadable) > _N_SHOWN:
        bad += f'<p class="bad">{len(column.unreadable) - _N_SHOWN:,} more unreadable cells.</p>'
    plot = column.plot.markup if column.plot else ""
    samples = "\n".join(map(_sample, column.samples))
    samples = f"<ul>\n{samples}\n</ul>" if samples else ""
    return (
        f'<section id="{anchor}"><h2><bdi>{_e(column.name) or "(no name)"}</bdi>'
        f'<span class="kind">{_e(column.modality)}</span></h2>\n{facts}{bad}{plot}{samples}'
        "</section>"
    )


def _sample(sample: Sample) -> str:
    drawings = "".join(drawing.markup for drawing in sample.drawings)
    text = f'<p class="text" dir="auto">{_e(sample.text)}</p>' if sample.text else ""
    note = f": <bdi>{_e(sample.note)}</bdi>" if sample.note else ""
    kind = ' class="bad"' if sample.unreadable else ""
    return f"<li>{drawings}{text}<p{kind}>Row <bdi>{_e(sample.row)}</bdi>{note}</p></li>"


def _n(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _e(text: str) -> str:
    return html.escape(text, quote=True)
