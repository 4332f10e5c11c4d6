"""A point for each estimator of a report, and the interval of its difference to the fusion."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skmm._constraints import Estimator, RandomState, Scoring, Splits
from skmm._frame._types import Frame
from skmm.inspection._comparison import FusionReport
from skmm.inspection._displays._drawing import (
    BLUE,
    COLORS,
    GRAY,
    INK,
    VERMILION,
    axes_for,
    horizontal_rows,
    tidy,
)
from skmm.inspection._fusion_report import fusion_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FusionReportDisplay"]

_STYLES = {
    "fused": ("D", VERMILION),
    "best single": ("s", INK),
    "single": ("o", BLUE),
    "subset": ("o", COLORS[5]),
}


class FusionReportDisplay:
    """Plot of the scores of a fusion, of each modality alone and of subsets.

    A point is the mean score over the splits. The line through it is the interval of the difference
    to the fusion. If it does not reach the vertical line, which is the score of the fusion, the two
    differ. The second row, ``best single``, is the modality chosen inside the training parts.

    Parameters
    ----------
    report : FusionReport
        Returned by :func:`fusion_report`.

    Attributes
    ----------
    points_ : list of matplotlib Line2D
        A point for each row, from the top; the first one is the fusion.
    intervals_ : list of matplotlib LineCollection
        A line for each row except the first.
    fused_line_ : matplotlib Line2D
        Vertical line at the score of the fusion.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    fusion_report : Compute the report; its notes describe the intervals.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.inspection import FusionReport, FusionReportDisplay
    >>> kinds = {"single": ["a", "b"], "best single": ["a"], "fused": ["a + b"]}
    >>> scores = pd.DataFrame([
    ...     (kind, name, name.count("+") + 1, split, 0.5 + 0.3 * (kind == "fused") + split / 50)
    ...     for kind, names in kinds.items() for name in names for split in range(3)
    ... ], columns=["kind", "modalities", "n_modalities", "split", "score"])
    >>> scores[["fit_seconds", "score_seconds"]] = 0.1
    >>> report = FusionReport(scores, test_per_train=0.5, score_name="accuracy")
    >>> display = FusionReportDisplay.from_predictions(report)
    >>> [round(float(point.get_xdata()[0]), 2) for point in display.points_]
    [0.82, 0.52, 0.52, 0.52]
    """

    def __init__(self, report: FusionReport):
        self.report = report

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Frame,
        y: ArrayLike,
        *,
        cv: Splits = 5,
        groups: ArrayLike | None = None,
        scoring: Scoring = None,
        max_subsets: int = 31,
        inner_cv: Splits = 3,
        confidence_level: float = 0.95,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        n_shown: int | None = 8,
        ax: "Axes | None" = None,
    ) -> "FusionReportDisplay":
        """Compare a fusion with its modalities and plot the report.

        Parameters
        ----------
        estimator : estimator
            As in :func:`fusion_report`.
        X : DataFrame of shape (n_samples, n_columns)
            Cells of the rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target.
        cv : int, splitter or iterable, default=5
            As in :func:`fusion_report`; likewise the parameters below.
        groups : array-like of shape (n_samples,), default=None
            Groups of the rows.
        scoring : str or callable, default=None
            One metric.
        max_subsets : int, default=31
            Maximum number of sets of modalities that are compared.
        inner_cv : int, splitter or iterable of splits of a training part, default=3
            Folds on which the best single modality is chosen.
        confidence_level : float, default=0.95
            Confidence level of the intervals.
        n_jobs : int, default=None
            Number of evaluations that run in parallel.
        random_state : int, RandomState instance or None, default=None
            Samples the subsets where there are too many.
        n_shown : int or None, default=8
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : FusionReportDisplay
            The display, plotted.
        """
        report = fusion_report(
            estimator,
            X,
            y,
            cv=cv,
            groups=groups,
            scoring=scoring,
            max_subsets=max_subsets,
            inner_cv=inner_cv,
            confidence_level=confidence_level,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        return cls(report).plot(n_shown=n_shown, ax=ax)

    @classmethod
    def from_predictions(
        cls, report: FusionReport, *, n_shown: int | None = 8, ax: "Axes | None" = None
    ) -> "FusionReportDisplay":
        """Plot a report.

        Parameters
        ----------
        report : FusionReport
            Returned by :func:`fusion_report`.
        n_shown : int or None, default=8
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : FusionReportDisplay
            The display, plotted.
        """
        return cls(report).plot(n_shown=n_shown, ax=ax)

    def plot(self, *, ax: "Axes | None" = None, n_shown: int | None = 8) -> "FusionReportDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure whose height fits the number of rows.
        n_shown : int or None, default=8
            Maximum number of subsets of two or more modalities that are shown, those with the
            highest scores; None for all.

        Returns
        -------
        display : FusionReportDisplay
            The display itself.
        """
        owner = type(self).__name__
        if not isinstance(self.report, FusionReport):
            raise TypeError(
                f"{owner}: report must be a FusionReport, got a {type(self.report).__name__}. Pass"
                " what fusion_report returns."
            )
        if n_shown is not None and (isinstance(n_shown, bool) or n_shown < 0):
            raise ValueError(f"{owner}.plot: n_shown must be None or at least 0, got {n_shown!r}.")
        table = self._rows(n_shown)
        ax = axes_for(owner, ax, size=(6.0, max(2.6, 1.3 + 0.34 * len(table))))
        heights = horizontal_rows(ax, self._names(table), width=26)
        fused = float(table["score"].iloc[0])
        self.fused_line_ = ax.axvline(fused, color=VERMILION, linewidth=1, linestyle="--", zorder=1)
        self.points_: list[Any] = []
        self.intervals_: list[Any] = []
        for height, (_, row) in zip(heights, table.iterrows(), strict=True):
            marker, color = _STYLES[row["kind"]]
            if row["kind"] != "fused":
                ends = fused - row["upper"], fused - row["lower"]
                self.intervals_.append(ax.hlines(height, *ends, color=color, linewidth=2.2))
            self.points_ += ax.plot(
                row["score"], height, marker, color=color, markersize=7, linestyle="none"
            )
        if "subset" in set(table["kind"]) or "single" in set(table["kind"]):
            ax.axhline(float((table["kind"].isin(["fused", "best single"])).sum()) - 0.5,
                       color=GRAY, linewidth=0.6)  # fmt: skip
        level = f"{self.report.confidence_level:.0%}"
        ax.set_xlabel(
            f"{self.report.score_name.replace('_', ' ')}\n"
            f"(lines: {level} interval of the difference to fused)"
        )
        ax.set_title(self._headline(), loc="left", fontsize="medium", parse_math=False)
        tidy(ax, grid="x")
        ax.spines["left"].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _rows(self, n_shown: int | None) -> Any:
        """Return the rows: fused, best single, single modalities and subsets, sorted by score."""
        report = self.report
        table = report.summary_.merge(report.differences_, on=["kind", "modalities"], how="left")
        rank = table["kind"].map({kind: i for i, kind in enumerate(_STYLES)})
        table = table.iloc[np.lexsort((-table["score"], rank))]
        subsets = np.cumsum(table["kind"] == "subset")
        if n_shown is not None:
            table = table[(table["kind"] != "subset") | (subsets <= n_shown)]
        return table.reset_index(drop=True)

    def _names(self, table: pd.DataFrame) -> list[str]:
        """Return names of rows; a set of most modalities is named by those that it leaves out."""
        scores = self.report.scores_
        alone = list(pd.unique(scores.loc[scores["kind"] == "single", "modalities"]))
        names = []
        for kind, own in zip(table["kind"], table["modalities"], strict=True):
            parts = own.split(" + ")
            left_out = [name for name in alone if name not in parts]
            readable = len(left_out) + len(parts) == len(alone)  # no name holds a " + "
            if kind == "subset" and readable and len(left_out) < len(parts):
                names.append(f"all but {', '.join(left_out)}")
            else:
                names.append(kind if kind in ("fused", "best single") else own)
        return names

    def _headline(self) -> str:
        best = self.report.against_best_
        opening = self.report.verdict_.partition(":")[0]
        return (
            f"{opening}.\n{best['difference']:+.3f} over the best single"
            f" [{best['lower']:+.3f}, {best['upper']:+.3f}]"
        )
