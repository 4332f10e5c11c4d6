"""Look at a frame, column by column."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np

from skmm._frame._column import column_names, iter_series, n_rows
from skmm._frame._modality import MODALITIES
from skmm._frame_report._facts import spell
from skmm._frame_report._look import look_at
from skmm._frame_report._report import FrameReport

__all__ = ["frame_report"]

_MOST_COLUMNS = 100  # of those behind them only the table tells


def frame_report(
    X: Any,
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
