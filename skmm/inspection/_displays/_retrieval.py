"""Queries and the rows that a retriever finds for them, side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skmm._frame._column import take_rows
from skmm._frame._types import Frame
from skmm.inspection._displays._drawing import COLORS, GRAY, INK, axes_for, fit_name
from skmm.inspection._displays._thumbnails import cells_of, columns_in, draw_view, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skmm.retrieval import CrossModalRetriever

__all__ = ["RetrievalDisplay"]

_RIGHT = COLORS[2]
_INCHES = 1.1  # side of a cell in a new figure
_GAP = 0.25  # between the query and its answers, in cells
_SIDE = 0.86  # share of a cell that its content fills


class RetrievalDisplay:
    """Plot of queries and the rows that a retriever finds for them.

    A row of the grid shows a query, on the left, and its answers, the nearest first, each with its
    score. Images and one frame of a video are shown as images, audio and series as lines, point
    clouds along their two widest axes, and other cells as words. Correct answers have a thick
    green frame.

    Parameters
    ----------
    queries : list of cells
        A raw cell for each query; a dict of column to cell if the modality has several columns.
    answers : list of list of cells
        The cells found for each query, the nearest first; lists may differ in length.
    scores : list of list of float, default=None
        Score shown below each answer; None for no scores.
    correct : list of list of bool, default=None
        Which answers are correct; None marks none.
    source, target : str, default=None
        Names of the modalities, shown above the columns.

    Attributes
    ----------
    queries_ : list of artists
        AxesImage, Text or list of Line2D of each query.
    answers_ : list of list of artists
        The same for the answers.
    frames_ : list of list of matplotlib Line2D
        Frame around each answer.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    skmm.retrieval.CrossModalRetriever : Find the answers.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.inspection import RetrievalDisplay
    >>> dark, light = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    >>> display = RetrievalDisplay(
    ...     ["night"], [[dark, light]], scores=[[0.9, 0.1]], correct=[[True, False]]
    ... ).plot()
    >>> len(display.answers_[0])
    2
    """

    def __init__(
        self,
        queries: Sequence[Any],
        answers: Sequence[Sequence[Any]],
        *,
        scores: Sequence[Sequence[float]] | None = None,
        correct: Sequence[Sequence[bool]] | None = None,
        source: str | None = None,
        target: str | None = None,
    ):
        self.queries = queries
        self.answers = answers
        self.scores = scores
        self.correct = correct
        self.source = source
        self.target = target

    @classmethod
    def from_estimator(
        cls,
        retriever: "CrossModalRetriever",
        X_query: Frame,
        n_neighbors: int = 5,
        *,
        source: str | None = None,
        target: str | None = None,
        correct: str | Callable[[Any, Any], bool] | None = None,
        columns: Mapping[str, Any] | None = None,
        ax: "Axes | None" = None,
    ) -> "RetrievalDisplay":
        """Query a retriever and plot what it finds.

        Parameters
        ----------
        retriever : CrossModalRetriever
            Fitted.
        X_query : DataFrame of shape (n_queries, n_columns)
            Cells of the queries; each is a row of the grid.
        n_neighbors : int, default=5
            Number of answers for each query.
        source, target : str, default=None
            Modality of the queries and modality that is searched, as in ``kneighbors``.
        correct : "index", callable or None, default=None
            Which answers are correct: those with the same index label as the query, or those for
            which ``correct(query, answer)``, called with both rows as Series, is true. None marks
            none.
        columns : dict of str to columns, default=None
            Columns of the modalities, for an alignment whose ``modalities_`` has none.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : RetrievalDisplay
            The display, plotted.
        """
        names = [name for name, _, _ in retriever.modalities_]
        if len(names) == 2:  # the same defaults as kneighbors
            if source is None and target is None:
                source, target = names
            source = source or next(name for name in names if name != target)
            target = target or next(name for name in names if name != source)
        distances, numbers = retriever.kneighbors(X_query, n_neighbors, source, target)
        places = np.searchsorted(retriever.numbers_, numbers.ravel())
        kept = numbers.ravel() >= 0
        found = take_rows(retriever.rows_, places[kept])
        owner, alignment = cls.__name__, retriever.alignment_
        source, target = str(source), str(target)
        own = columns_in(alignment, X_query, [source], columns, owner=owner)[source]
        theirs = columns_in(alignment, found, [target], columns, owner=owner)[target]
        cells = iter(cells_of(found, theirs))
        answers = [[next(cells) for number in row if number >= 0] for row in numbers]
        scores = [list(1 - row[n >= 0]) for row, n in zip(distances, numbers, strict=True)]
        right = None
        if correct is not None:
            rated = iter(_rate(X_query, numbers, found, correct, owner))
            right = [[next(rated) for number in row if number >= 0] for row in numbers]
        return cls(
            cells_of(X_query, own),
            answers,
            scores=scores,
            correct=right,
            source=source,
            target=target,
        ).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        queries: pd.DataFrame,
        found: pd.DataFrame,
        *,
        source: str,
        target: str,
        correct: str | None = None,
        ax: "Axes | None" = None,
    ) -> "RetrievalDisplay":
        """Plot the result of ``search`` of a retriever.

        Parameters
        ----------
        queries : pandas.DataFrame
            The queries; the labels of its index are unique.
        found : pandas.DataFrame
            Returned by ``search``.
        source : str
            Column of ``queries`` that is shown.
        target : str
            Column of ``found`` that is shown.
        correct : "index" or None, default=None
            Whether answers with the same index label as the query are marked as correct.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : RetrievalDisplay
            The display, plotted.
        """
        for frame, column in ((queries, source), (found, target), (found, "query")):
            if column not in frame.columns:
                raise ValueError(
                    f"{cls.__name__}.from_predictions: there is no column {column!r}. Columns are"
                    f" {', '.join(map(repr, frame.columns))}."
                )
        if not queries.index.is_unique:
            raise ValueError(
                f"{cls.__name__}.from_predictions: the index of queries holds a label twice, so"
                " that its answers cannot be distinguished. Give queries.reset_index() to search."
            )
        own = [
            found[(found["query"] == label).to_numpy()].sort_values("rank")
            for label in queries.index
        ]
        right = None
        if correct is not None:
            pairs = zip(queries.index, own, strict=True)
            right = [list(rows.index == label) for label, rows in pairs]
        return cls(
            list(queries[source]),
            [list(rows[target]) for rows in own],
            scores=[list(rows["score"]) for rows in own],
            correct=right,
            source=source,
            target=target,
        ).plot(ax=ax)

    def plot(self, *, ax: "Axes | None" = None) -> "RetrievalDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure whose size fits the grid.

        Returns
        -------
        display : RetrievalDisplay
            The display itself.
        """
        self._check()
        n_queries, n_answers = len(self.queries), max(map(len, self.answers))
        width = n_answers + 1 + _GAP
        line = 1.05 if self.scores is None else 1.2  # room for the scores
        height = line * n_queries + 0.3
        ax = axes_for(type(self).__name__, ax, size=(_INCHES * width, _INCHES * height))
        unit = _unit(ax, width, height)
        font_size = float(np.clip(unit / 9, 4.5, 9))
        self.queries_: list[Any] = []
        self.answers_: list[list[Any]] = []
        self.frames_: list[list[Any]] = []
        for row, query in enumerate(self.queries):
            y = row * line
            box = _box(0.0, y)
            self.queries_.append(
                draw_view(ax, view_of(query), box, unit=unit, font_size=font_size, bold=True)
            )
            self.answers_.append([])
            self.frames_.append([])
            for rank, answer in enumerate(self.answers[row]):
                box = _box(1 + _GAP + rank, y)
                artist = draw_view(ax, view_of(answer), box, unit=unit, font_size=font_size)
                self.answers_[-1].append(artist)
                right = self.correct is not None and bool(self.correct[row][rank])
                self.frames_[-1].append(_frame(ax, box, right, unit))
                if self.scores is not None:
                    ax.text(
                        (box[0] + box[1]) / 2, y + 1.06, f"{self.scores[row][rank]:.2f}",
                        ha="center", va="center", fontsize=0.9 * font_size, color="0.35",
                    )  # fmt: skip
        self._name_columns(ax, n_answers, font_size)
        ax.set(xlim=(0, width), ylim=(height - 0.3, -0.3), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _check(self) -> None:
        owner, n = type(self).__name__, len(self.queries)
        if not n or not any(len(row) for row in self.answers):
            raise ValueError(f"{owner}: no query has an answer, so there is nothing to plot.")
        for name in ("answers", "scores", "correct"):
            value = getattr(self, name)
            if value is None:
                continue
            lengths = [len(row) for row in value]
            if len(value) != n or (lengths != [len(row) for row in self.answers]):
                raise ValueError(
                    f"{owner}: {name} must hold a list for each of the {n} queries with an entry"
                    f" for each answer, got lists of lengths {lengths}."
                )

    def _name_columns(self, ax: "Axes", n_answers: int, font_size: float) -> None:
        found = "found" if self.target is None else fit_name(self.target, width=24, n_lines=1)
        heads = {
            0.5: "query" if self.source is None else fit_name(self.source, width=14, n_lines=1),
            1 + _GAP + n_answers / 2: f"{found}, the nearest first" if n_answers > 1 else found,
        }
        for x, head in heads.items():
            ax.text(
                x,
                -0.12,
                head,
                ha="center",
                va="center",
                fontsize=font_size,
                color=INK,
                parse_math=False,
            )


def _rate(X_query: Any, numbers: np.ndarray, found: Any, correct: Any, owner: str) -> list[bool]:
    """Return whether each row that was found is correct."""
    if not (isinstance(X_query, pd.DataFrame) and isinstance(found, pd.DataFrame)):
        raise TypeError(
            f"{owner}: correct needs pandas DataFrames of queries and rows, got a"
            f" {type(X_query).__name__}. Leave correct out, or convert them."
        )
    rows = np.nonzero(numbers >= 0)[0]
    if isinstance(correct, str) and correct == "index":
        return [bool(same) for same in X_query.index[rows] == found.index]
    if not callable(correct):
        raise ValueError(f"{owner}: correct must be 'index', a callable or None, got {correct!r}.")
    return [bool(correct(X_query.iloc[r], found.iloc[i])) for i, r in enumerate(rows)]


def _unit(ax: "Axes", width: float, height: float) -> float:
    """Return the width of a cell of the grid in points."""
    area = ax.get_window_extent()
    return 72 / ax.figure.dpi * float(min(area.width / width, area.height / height))


def _box(left: float, top: float) -> tuple[float, float, float, float]:
    edge = (1 - _SIDE) / 2
    return left + edge, left + 1 - edge, top + 1 - edge, top + edge


def _frame(ax: "Axes", box: tuple[float, float, float, float], right: bool, unit: float) -> Any:
    grow = 0.035
    left, end, bottom, top = box[0] - grow, box[1] + grow, box[2] + grow, box[3] - grow
    (line,) = ax.plot(
        [left, end, end, left, left],
        [bottom, bottom, top, top, bottom],
        color=_RIGHT if right else GRAY,
        linewidth=max(1.5, unit / 25) if right else 0.5,
        solid_joinstyle="miter",
    )
    return line
