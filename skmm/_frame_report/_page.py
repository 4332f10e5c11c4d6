"""From facts to HTML. Whatever a user wrote goes through :func:`_e`, here or in ``_drawing``."""

import hashlib
import html
from collections.abc import Sequence

from skmm._frame_report._facts import ColumnFacts, Sample

__all__ = [
    "STYLE",
    "fragment",
    "page",
]

# --- How the page looks, in light and in dark ---

# All rules begin with the class: a notebook shows the report inside its own page.
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

# Should a mark-up ever slip through, the browser runs and fetches nothing all the same.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_N_NAMED = 20  # unreadable cells


def page(title: str, body: str) -> str:
    """Wrap a fragment into a document of its own."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_e(title)}</title>\n<style>body {{ margin: 0; }}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def fragment(title: str, columns: Sequence[ColumnFacts], n_rows: int) -> str:
    """Give the report as one element, to be shown inside another page.

    Parameters
    ----------
    title : str
        Heading.
    columns : sequence of ColumnFacts
        What was found.
    n_rows : int
        Rows of the frame.

    Returns
    -------
    markup : str
        With its style.
    """
    # Two reports in one notebook must not share their anchors.
    spelled = repr([(c.name, c.modality, c.n_missing) for c in columns]).encode()
    key = hashlib.blake2b(spelled, digest_size=4).hexdigest()
    sections = "\n".join(
        _section(column, f"skmm-{key}-{i}") for i, column in enumerate(columns) if column.is_shown
    )
    n_left_out = sum(not column.is_shown for column in columns)
    more = f"<p>{n_left_out:,} more columns are in the table alone.</p>" if n_left_out else ""
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
            ("column", ""), ("holds", ""), ("dtype", ""), ("missing", ' class="n"'),
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
    told = "".join(f"<p><bdi>{_e(fact)}.</bdi></p>" for fact in [count, *column.facts])
    bad = "".join(
        f'<p class="bad">Row <bdi>{_e(row)}</bdi>: <bdi>{_e(why)}</bdi></p>'
        for row, why in list(column.unreadable.values())[:_N_NAMED]
    )
    if len(column.unreadable) > _N_NAMED:
        bad += f'<p class="bad">{len(column.unreadable) - _N_NAMED:,} more like these.</p>'
    picture = column.picture.markup if column.picture else ""
    samples = "\n".join(map(_sample, column.samples))
    samples = f"<ul>\n{samples}\n</ul>" if samples else ""
    return (
        f'<section id="{anchor}"><h2><bdi>{_e(column.name) or "(no name)"}</bdi>'
        f'<span class="kind">{_e(column.modality)}</span></h2>\n{told}{bad}{picture}{samples}'
        "</section>"
    )


def _sample(sample: Sample) -> str:
    pictures = "".join(picture.markup for picture in sample.pictures)
    text = f'<p class="text" dir="auto">{_e(sample.text)}</p>' if sample.text else ""
    note = f": <bdi>{_e(sample.note)}</bdi>" if sample.note else ""
    kind = ' class="bad"' if sample.unreadable else ""
    return f"<li>{pictures}{text}<p{kind}>Row <bdi>{_e(sample.row)}</bdi>{note}</p></li>"


def _n(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _e(text: str) -> str:
    return html.escape(text, quote=True)
