"""A line for each modality: the score while it is removed from more and more rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skmm._constraints import Estimator, RandomState, Scoring, Splits
from skmm._frame._types import ColumnKey, Frame
from skmm.inspection._curve import missing_modality_curve
from skmm.inspection._displays._drawing import (
    COLORS,
    DASHES,
    MARKERS,
    axes_for,
    check_option,
    height_of_legend,
    legend_beside,
    score_name_of,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MissingModalityCurveDisplay"]

_NEEDED = ("modality", "fraction", "split", "repeat", "missing", "score")


class MissingModalityCurveDisplay:
    """Plot of the score of an estimator while one modality at a time is removed.

    A line is the mean over splits and repeats. The band around it is one standard deviation to
    either side.

    Parameters
    ----------
    curve : DataFrame
        Returned by :func:`missing_modality_curve`.
    score_name : str, default="score"
        Name of the metric.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        A line for each modality, in the order of the curve.
    bands_ : list of matplotlib PolyCollection
        Bands of the lines that have one; empty if no score varies.
    legend_ : matplotlib Legend
        Names of the modalities.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    missing_modality_curve : Compute the scores.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.inspection import MissingModalityCurveDisplay
    >>> curve = pd.DataFrame({
    ...     "modality": ["photo"] * 4, "fraction": [0.0, 0.0, 1.0, 1.0], "split": 0,
    ...     "repeat": [0, 1, 0, 1], "missing": [0.0, 0.0, 1.0, 1.0],
    ...     "score": [0.9, 0.9, 0.5, 0.7],
    ... })
    >>> display = MissingModalityCurveDisplay(curve, score_name="accuracy").plot()
    >>> display.lines_[0].get_xydata().round(3).tolist()
    [[0.0, 0.9], [100.0, 0.6]]
    """

    def __init__(self, curve: pd.DataFrame, *, score_name: str = "score"):
        self.curve = curve
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Frame,
        y: ArrayLike,
        *,
        modalities: Sequence[str] | Mapping[str, ColumnKey] | None = None,
        fractions: Iterable[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        removal: Any = "random",
        when: Literal["test", "both"] = "test",
        cv: Splits = None,
        groups: ArrayLike | None = None,
        scoring: Scoring = None,
        n_repeats: int = 5,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        score_name: str | None = None,
        x: Literal["missing", "fraction"] = "missing",
        ax: "Axes | None" = None,
    ) -> "MissingModalityCurveDisplay":
        """Remove the modalities one at a time and plot the score.

        Parameters
        ----------
        estimator : estimator
            As in :func:`missing_modality_curve`.
        X : DataFrame of shape (n_samples, n_columns)
            Cells of the rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target.
        modalities : list of str or dict of str to columns, default=None
            As in :func:`missing_modality_curve`; likewise the parameters below.
        fractions : iterable of float, default=(0.0, 0.25, 0.5, 0.75, 1.0)
            Shares of the rows from which the modality is removed.
        removal : "random" or callable, default="random"
            Which rows lose it first.
        when : {"test", "both"}, default="test"
            Whether it is removed from the training rows too.
        cv : int, splitter or iterable, default=None
            Folds.
        groups : array-like of shape (n_samples,), default=None
            Groups of the rows.
        scoring : str or callable, default=None
            One metric.
        n_repeats : int, default=5
            Number of times that the rows are sampled.
        n_jobs : int, default=None
            Number of evaluations that run in parallel.
        random_state : int, RandomState instance or None, default=None
            Samples the rows.
        score_name : str, default=None
            Name of the metric; None derives it from ``scoring``.
        x : {"missing", "fraction"}, default="missing"
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : MissingModalityCurveDisplay
            The display, plotted.
        """
        curve = missing_modality_curve(
            estimator,
            X,
            y,
            modalities=modalities,
            fractions=fractions,
            removal=removal,
            when=when,
            cv=cv,
            groups=groups,
            scoring=scoring,
            n_repeats=n_repeats,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        name = score_name_of(estimator, scoring) if score_name is None else score_name
        return cls(curve, score_name=name).plot(x=x, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        curve: pd.DataFrame,
        *,
        score_name: str = "score",
        x: Literal["missing", "fraction"] = "missing",
        ax: "Axes | None" = None,
    ) -> "MissingModalityCurveDisplay":
        """Plot the result of :func:`missing_modality_curve`.

        Parameters
        ----------
        curve : DataFrame
            The result.
        score_name : str, default="score"
            Name of the metric.
        x : {"missing", "fraction"}, default="missing"
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : MissingModalityCurveDisplay
            The display, plotted.
        """
        return cls(curve, score_name=score_name).plot(x=x, ax=ax)

    def plot(
        self, *, ax: "Axes | None" = None, x: Literal["missing", "fraction"] = "missing"
    ) -> "MissingModalityCurveDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure.
        x : {"missing", "fraction"}, default="missing"
            Quantity on the x-axis: the share of all scored rows without the modality, including
            those that never had it, or the share of the rows with it from which it is removed.

        Returns
        -------
        display : MissingModalityCurveDisplay
            The display itself.
        """
        owner = type(self).__name__
        check_option(owner, "x", x, ("missing", "fraction"))
        absent = [name for name in _NEEDED if name not in getattr(self.curve, "columns", ())]
        if absent or not len(self.curve):
            raise ValueError(
                f"{owner}: curve must be the DataFrame that missing_modality_curve returns, got a"
                f" {type(self.curve).__name__} without {', '.join(absent) or 'rows'}."
            )
        names = list(pd.unique(self.curve["modality"]))
        ax = axes_for(owner, ax, size=(6.0, height_of_legend(["without", *names])))
        self.lines_: list[Any] = []
        self.bands_: list[Any] = []
        for i, name in enumerate(names):
            points = self.curve[self.curve["modality"] == name].groupby("fraction", sort=True)
            share = 100 * points[x].mean().to_numpy()
            mean = points["score"].mean().to_numpy()
            # The standard deviation of one score is NaN.
            spread = np.nan_to_num(points["score"].std().to_numpy())
            color = COLORS[i % len(COLORS)]
            dash = DASHES[i // len(COLORS) % len(DASHES)]
            marker = MARKERS[i % len(MARKERS)]
            self.lines_ += ax.plot(share, mean, dash, color=color, marker=marker, markersize=5)
            if spread.any():
                self.bands_.append(
                    ax.fill_between(
                        share, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0
                    )
                )
        what = "without the modality" if x == "missing" else "that lose it, of those with it"
        ax.set_xlabel(f"rows {what} (%)")
        ax.set_ylabel(self.score_name)
        self.legend_ = legend_beside(ax, self.lines_, names, title="without")
        tidy(ax, grid="y")
        self.ax_, self.figure_ = ax, ax.figure
        return self
