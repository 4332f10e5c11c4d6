"""Shares of the modalities: bars of the score, or swarms of the predictions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from skmm._constraints import Estimator, RandomState, Scoring
from skmm._frame._types import ColumnKey, Frame
from skmm.inspection._displays._drawing import (
    BLUE,
    GRAY,
    INK,
    VERMILION,
    axes_for,
    check_option,
    horizontal_rows,
    legend_above,
    score_name_of,
    tidy,
)
from skmm.inspection._displays._thumbnails import present_in
from skmm.inspection._modalities import check_modalities
from skmm.inspection._shapley import modality_shapley

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ModalityShapleyDisplay",
    "draw_swarms",
]

# --- Swarms: rows as points, side by side where they would overlap ---

_N_BINS = 60  # of a swarm, along the axis
_CMAP = "cividis"  # perceptually uniform, also for color-blind readers


def draw_swarms(
    ax: "Axes",
    heights: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
    colors: np.ndarray | None,
) -> tuple[list[Any], list[Any]]:
    """Draw a swarm at each height.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes to draw on.
    heights : ndarray of shape (n_swarms,)
        Centers of the swarms.
    values : ndarray of shape (n_points, n_swarms)
        Positions of the points along the axis.
    present : ndarray of shape (n_points, n_swarms), bool
        Which points are filled.
    colors : ndarray of shape (n_points,) or None
        Numbers that color the filled points.

    Returns
    -------
    filled, hollow : list of matplotlib PathCollection
        One of each for each swarm.
    """
    step = max(float(np.ptp(values)), 1e-12) / _N_BINS
    size = float(np.clip(1200 / max(len(values), 1), 8, 30))
    style: dict[str, Any] = {"color": BLUE}
    if colors is not None:
        low, high = float(colors.min()), float(colors.max())
        style = {"cmap": _CMAP, "vmin": low, "vmax": high if high > low else low + 1}
    hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": "0.7", "linewidths": 0.8}
    drawn: tuple[list[Any], list[Any]] = ([], [])
    for height, x, has in zip(heights, values.T, present.T, strict=True):
        own = style if colors is None else {**style, "c": colors[has]}
        y = height + _swarm(x[has], step)
        drawn[0].append(ax.scatter(x[has], y, s=size, linewidths=0, **own))
        # Closer together, because most of them lie at zero.
        y = height + _swarm(x[~has], step, reach=0.12)
        drawn[1].append(ax.scatter(x[~has], y, s=size, zorder=0.5, **hollow))
    return drawn


def _swarm(x: np.ndarray, step: float, *, reach: float = 0.38) -> np.ndarray:
    """Shift the points of one swarm up and down where they would overlap.

    Parameters
    ----------
    x : ndarray of shape (n_points,)
        Positions along the axis.
    step : float
        Distance below which two points overlap.
    reach : float, default=0.38
        Largest distance from the center.

    Returns
    -------
    heights : ndarray of shape (n_points,)
        Distances from the center.
    """
    heights = np.zeros(len(x))
    if not len(x):
        return heights
    bins = np.floor((x - x.min()) / step).astype(int)
    most = int(np.bincount(bins).max())
    between = min(0.07, 2 * reach / max(most, 1))
    for place in np.unique(bins):
        members = np.flatnonzero(bins == place)
        members = members[np.argsort(x[members], kind="stable")]
        ranks = np.arange(len(members))
        # 0, 1, -1, 2, -2: from the center outward.
        heights[members] = between * ((ranks + 1) // 2) * np.where(ranks % 2, 1, -1)
    return heights


class ModalityShapleyDisplay:
    """Plot of the shares of the modalities in the score, or in each prediction.

    The bars lead from the score without any modality to the score with all of them. In a swarm,
    each row is a point at the share of the modality in its prediction, colored by the prediction.
    Rows without the modality are hollow.

    Parameters
    ----------
    modalities : list of str
        Names of the modalities.
    score_values : array-like of shape (n_modalities,), default=None
        Shares of the score; None if no score was divided.
    base_score, score : float, default=None
        Score without any modality, and with all of them.
    row_values : array-like of shape (n_samples, n_modalities, n_outputs), default=None
        Shares of the predictions; None if only the score was divided.
    predictions : array-like of shape (n_samples, n_outputs), default=None
        Predictions, for the colors.
    classes : array-like of shape (n_outputs,), default=None
        Classes whose probabilities the outputs are; None for other outputs.
    present : array-like of shape (n_samples, n_modalities), default=None
        Which rows have which modality; None if no modality is missing.
    score_name : str, default="score"
        Name of the metric.

    Attributes
    ----------
    bars_ : matplotlib BarContainer or None
        A bar for each modality, from the top; None for swarms.
    points_ : list of matplotlib PathCollection
        A swarm of rows with the modality for each modality, from the top; empty for bars.
    absent_points_ : list of matplotlib PathCollection
        The same for rows without the modality.
    colorbar_ : matplotlib Colorbar or None
        Scale of the colors of the points; None for bars.
    order_ : list of str
        Names of the modalities from the top.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    modality_shapley : Compute the shares.
    ModalityImportanceDisplay : Plot of the score lost when one modality is shuffled.

    Examples
    --------
    >>> from skmm.inspection import ModalityShapleyDisplay
    >>> display = ModalityShapleyDisplay(
    ...     ["photo", "text"], score_values=[0.1, 0.3], base_score=0.5, score=0.9
    ... ).plot()
    >>> [(float(bar.get_x()), round(float(bar.get_width()), 1)) for bar in display.bars_]
    [(0.5, 0.3), (0.8, 0.1)]
    """

    def __init__(
        self,
        modalities: Sequence[str],
        *,
        score_values: ArrayLike | None = None,
        base_score: float | None = None,
        score: float | None = None,
        row_values: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        classes: Sequence[Any] | np.ndarray | None = None,
        present: ArrayLike | None = None,
        score_name: str = "score",
    ):
        self.modalities = modalities
        self.score_values = score_values
        self.base_score = base_score
        self.score = score
        self.row_values = row_values
        self.predictions = predictions
        self.classes = classes
        self.present = present
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Frame,
        y: ArrayLike | None = None,
        *,
        scoring: Scoring = None,
        modalities: Sequence[str] | Mapping[str, ColumnKey] | None = None,
        removal: Literal["auto", "missing", "permute"] = "auto",
        background: Frame | None = None,
        max_coalitions: int = 256,
        n_repeats: int = 5,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        score_name: str | None = None,
        kind: Literal["bar", "beeswarm"] | None = None,
        target: object = None,
        sort: bool = True,
        ax: "Axes | None" = None,
    ) -> "ModalityShapleyDisplay":
        """Divide the score and the predictions of a fitted estimator and plot the shares.

        Parameters
        ----------
        estimator : estimator
            Fitted, as in :func:`modality_shapley`.
        X : DataFrame of shape (n_samples, n_columns)
            Cells of the rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Target; without it only the predictions are divided.
        scoring : str or callable, default=None
            As in :func:`modality_shapley`; likewise the parameters below.
        modalities : list of str or dict of str to columns, default=None
            Modalities among which score and predictions are divided.
        removal : {"auto", "missing", "permute"}, default="auto"
            How a modality is removed.
        background : DataFrame of shape (n_rows, n_columns), default=None
            Rows whose cells replace those of removed modalities.
        max_coalitions : int, default=256
            Maximum number of coalitions that are evaluated.
        n_repeats : int, default=5
            Number of samples of replacing rows.
        n_jobs : int, default=None
            Number of evaluations that run in parallel.
        random_state : int, RandomState instance or None, default=None
            Samples the replacing rows and the coalitions.
        score_name : str, default=None
            Name of the metric; None derives it from ``scoring``.
        kind : {"bar", "beeswarm"} or None, default=None
            As in :meth:`plot`.
        target : object, default=None
            As in :meth:`plot`.
        sort : bool, default=True
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : ModalityShapleyDisplay
            The display, plotted.
        """
        columns = check_modalities(modalities, estimator, X, y, function=cls.__name__)
        result = modality_shapley(
            estimator,
            X,
            y,
            scoring=scoring,
            modalities=columns,
            removal=removal,
            background=background,
            max_coalitions=max_coalitions,
            n_repeats=n_repeats,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        name = score_name_of(estimator, scoring) if score_name is None else score_name
        return cls.from_predictions(
            result, X=X, modalities=columns, score_name=name, kind=kind, target=target, sort=sort,
            ax=ax,
        )  # fmt: skip

    @classmethod
    def from_predictions(
        cls,
        result: Mapping[str, Any],
        *,
        X: Frame | None = None,
        modalities: Mapping[str, Any] | None = None,
        score_name: str = "score",
        kind: Literal["bar", "beeswarm"] | None = None,
        target: object = None,
        sort: bool = True,
        ax: "Axes | None" = None,
    ) -> "ModalityShapleyDisplay":
        """Plot the result of :func:`modality_shapley`.

        Parameters
        ----------
        result : Bunch
            The result.
        X : DataFrame of shape (n_samples, n_columns), default=None
            The rows that were explained, to mark those without a modality.
        modalities : dict of str to columns, default=None
            Columns of the modalities in ``X``; None if each is the column of that name.
        score_name : str, default="score"
            Name of the metric.
        kind : {"bar", "beeswarm"} or None, default=None
            As in :meth:`plot`.
        target : object, default=None
            As in :meth:`plot`.
        sort : bool, default=True
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : ModalityShapleyDisplay
            The display, plotted.
        """
        if not isinstance(result, Mapping) or "row_values" not in result:
            raise ValueError(
                f"{cls.__name__}.from_predictions: result must be what modality_shapley returns,"
                f" got a {type(result).__name__}."
            )
        names = list(result["modalities"])
        columns = {name: [name] for name in names} if modalities is None else modalities
        unknown = [name for name in names if name not in columns]
        if unknown:
            raise ValueError(
                f"{cls.__name__}.from_predictions: modalities has no columns of"
                f" {unknown[0]!r}. Give the columns of {', '.join(map(repr, names))}."
            )
        present = None if X is None else present_in(X, {name: columns[name] for name in names})
        display = cls(
            names,
            present=present,
            score_name=score_name,
            **{
                key: result.get(key)
                for key in (
                    "score_values", "base_score", "score", "row_values", "predictions", "classes"
                )
            },
        )  # fmt: skip
        return display.plot(kind=kind, target=target, sort=sort, ax=ax)

    def plot(
        self,
        *,
        ax: "Axes | None" = None,
        kind: Literal["bar", "beeswarm"] | None = None,
        target: object = None,
        sort: bool = True,
    ) -> "ModalityShapleyDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure.
        kind : {"bar", "beeswarm"} or None, default=None
            Shares of the score, or of each prediction; None shows the score if it was divided.
        target : object, default=None
            Class whose probability a beeswarm shows, or number of an output. None shows the second
            of two classes, or of several classes the predicted one of each row.
        sort : bool, default=True
            Whether the modality with the largest share, in a beeswarm the largest mean absolute
            share, comes first; otherwise the order of ``modalities`` is kept.

        Returns
        -------
        display : ModalityShapleyDisplay
            The display itself.
        """
        owner = type(self).__name__
        check_option(owner, "kind", kind, (None, "bar", "beeswarm"))
        kind = kind or ("beeswarm" if self.score_values is None else "bar")
        needed = "score_values" if kind == "bar" else "row_values"
        if getattr(self, needed) is None:
            way = "Give y to modality_shapley." if kind == "bar" else "Use kind='bar'."
            raise ValueError(f"{owner}.plot: kind={kind!r} needs {needed}, which is None. {way}")
        values = np.asarray(getattr(self, needed), dtype=float)
        n_dims, axis = (1, 0) if kind == "bar" else (3, 1)
        if values.ndim != n_dims or values.shape[axis] != len(self.modalities):
            raise ValueError(
                f"{owner}: {needed} must have {n_dims} dimensions and {len(self.modalities)}"
                f" modalities, got the shape {values.shape}."
            )
        self.bars_: Any = None
        self.colorbar_: Any = None
        self.points_: list[Any] = []
        self.absent_points_: list[Any] = []
        if kind == "bar":
            ax = axes_for(owner, ax, size=(6.0, float(np.clip(1.2 + 0.6 * len(values), 2.2, 6))))
            self._draw_bars(ax, values, sort)
        else:
            chosen, words = self._output(values.shape[2], target)
            height = float(np.clip(1.3 + 0.8 * values.shape[1], 2.4, 7))
            ax = axes_for(owner, ax, size=(6.0, height))
            self._draw_swarms(ax, values, chosen, words, sort)
        tidy(ax, grid="x")
        ax.spines["left"].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _rows(self, ax: "Axes", sizes: np.ndarray, sort: bool) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-sizes, kind="stable") if sort else np.arange(len(sizes))
        self.order_ = [self.modalities[int(i)] for i in order]
        return order, horizontal_rows(ax, self.order_)

    def _draw_bars(self, ax: "Axes", values: np.ndarray, sort: bool) -> None:
        order, heights = self._rows(ax, values, sort)
        base = 0.0 if self.base_score is None else float(self.base_score)
        shares = values[order]
        starts = base + np.concatenate([[0.0], np.cumsum(shares)[:-1]])
        colors = [BLUE if share >= 0 else VERMILION for share in shares]
        self.bars_ = ax.barh(heights, shares, left=starts, height=0.55, color=colors, alpha=0.75)
        # A thin line joins the end of each bar with the start of the next one.
        ends = starts + shares
        for i, end in enumerate(ends[:-1]):
            ax.plot([end, end], [i - 0.28, i + 1.28], color=GRAY, linewidth=0.8, zorder=0)
        for height, start, share in zip(heights, starts, shares, strict=True):
            ax.annotate(
                f"{share:+.3f}".replace("-", "−"), (max(start, start + share), height),
                xytext=(4, 0), textcoords="offset points", va="center", fontsize="small",
                color=INK,
            )  # fmt: skip
        for end in (base, ends[-1]):
            ax.axvline(end, color=INK, linewidth=0.8, zorder=0)
        ax.use_sticky_edges = False
        ax.margins(x=0.16)  # for the numbers next to the bars
        ax.set_xlabel(
            f"{self.score_name}: {base:.3f} without any modality, {ends[-1]:.3f} with all"
        )

    def _output(self, n_outputs: int, target: object) -> tuple[Any, str]:
        """Return the number of the output, None for the predicted class per row, and a label."""
        owner = type(self).__name__
        classes = [] if self.classes is None else list(self.classes)
        named = self.classes is not None and len(classes) == n_outputs
        if target is not None:
            known = classes if named else list(range(n_outputs))
            if target not in known:
                raise ValueError(
                    f"{owner}.plot: target must be one of {', '.join(map(repr, known))}, got"
                    f" {target!r}."
                )
            column = known.index(target)
            return column, f"probability of class {target}" if named else "prediction"
        if not named:
            return 0, "prediction"
        if n_outputs == 2:
            return 1, f"probability of class {classes[1]}"
        if self.predictions is None:
            raise ValueError(
                f"{owner}.plot: without predictions the class of a row is not known. Give target."
            )
        return None, "probability of the predicted class"

    def _draw_swarms(
        self, ax: "Axes", values: np.ndarray, column: int | None, words: str, sort: bool
    ) -> None:
        predictions = None if self.predictions is None else np.asarray(self.predictions, float)
        rows = np.arange(len(values))
        columns = np.full(len(rows), column)
        if column is None and predictions is not None:
            columns = predictions.argmax(axis=1)
        shares = values[rows, :, columns]
        present = np.ones(shares.shape, dtype=bool)
        if self.present is not None:
            present = np.asarray(self.present, dtype=bool)
        colors = None if predictions is None else predictions[rows, columns]
        order, heights = self._rows(ax, np.abs(shares).mean(axis=0), sort)
        ax.axvline(0, color=INK, linewidth=0.8, zorder=0)
        self.points_, self.absent_points_ = draw_swarms(
            ax, heights, shares[:, order], present[:, order], colors
        )
        if colors is not None:
            self.colorbar_ = ax.figure.colorbar(self.points_[0], ax=ax, label=words, pad=0.02)
            self.colorbar_.outline.set_visible(False)
        if not present.all():
            legend_above(ax, [self.absent_points_[0]], ["modality missing in the row"])
        ax.set_xlabel(f"share of the modality in the {words}")
