"""A bar for each modality: the decrease of the score when it is shuffled."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from skmm._constraints import Estimator, RandomState, Scoring
from skmm._frame._types import ColumnKey, Frame
from skmm.inspection._displays._drawing import (
    BLUE,
    INK,
    axes_for,
    horizontal_rows,
    score_name_of,
    tidy,
)
from skmm.inspection._importance import modality_importance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ModalityImportanceDisplay"]

_MANY = 30  # repeats, above which dots would hide each other


class ModalityImportanceDisplay:
    """Plot of the decrease of the score of an estimator when a modality is shuffled.

    A bar is the mean over the repeats, each dot one repeat.

    Parameters
    ----------
    importances : array-like of shape (n_modalities, n_repeats)
        Score minus the score with the modality shuffled.
    modalities : list of str
        Names, in the same order.
    score : float, default=None
        Score with nothing shuffled; None if unknown.
    score_name : str, default="score"
        Name of the metric.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        A bar for each modality, from the top.
    points_ : list of matplotlib Line2D
        The repeats of each modality, from the top; empty for one repeat, and for more than 30.
    errors_ : matplotlib ErrorbarContainer or None
        Lines of one standard deviation to either side, for more than 30 repeats.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    modality_importance : Compute the importances.
    ModalityShapleyDisplay : Plot of shares that add up.

    Examples
    --------
    >>> from skmm.inspection import ModalityImportanceDisplay
    >>> display = ModalityImportanceDisplay(
    ...     [[0.20, 0.24], [0.02, -0.01]], ["photo", "text"], score=0.9, score_name="accuracy"
    ... ).plot()
    >>> [round(float(bar.get_width()), 3) for bar in display.bars_]
    [0.22, 0.005]
    """

    def __init__(
        self,
        importances: ArrayLike,
        modalities: Sequence[str],
        *,
        score: float | None = None,
        score_name: str = "score",
    ):
        self.importances = importances
        self.modalities = modalities
        self.score = score
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Frame,
        y: ArrayLike,
        *,
        scoring: Scoring = None,
        modalities: Sequence[str] | Mapping[str, ColumnKey] | None = None,
        n_repeats: int = 5,
        sample_weight: ArrayLike | None = None,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        score_name: str | None = None,
        sort: bool = True,
        ax: "Axes | None" = None,
    ) -> "ModalityImportanceDisplay":
        """Shuffle the modalities of a fitted estimator and plot the decrease of the score.

        Parameters
        ----------
        estimator : estimator
            Fitted, as in :func:`modality_importance`.
        X : DataFrame of shape (n_samples, n_columns)
            Cells of the rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target.
        scoring : str or callable, default=None
            One metric, as in :func:`modality_importance`.
        modalities : list of str or dict of str to columns, default=None
            As in :func:`modality_importance`.
        n_repeats : int, default=5
            Number of times that each modality is shuffled.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the score.
        n_jobs : int, default=None
            Number of evaluations that run in parallel.
        random_state : int, RandomState instance or None, default=None
            Samples the permutations.
        score_name : str, default=None
            Name of the metric; None derives it from ``scoring``.
        sort : bool, default=True
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : ModalityImportanceDisplay
            The display, plotted.
        """
        result = modality_importance(
            estimator,
            X,
            y,
            scoring=scoring,
            modalities=modalities,
            n_repeats=n_repeats,
            sample_weight=sample_weight,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        name = score_name_of(estimator, scoring) if score_name is None else score_name
        return cls.from_predictions(result, score_name=name, sort=sort, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        result: Mapping[str, Any],
        *,
        score_name: str = "score",
        sort: bool = True,
        ax: "Axes | None" = None,
    ) -> "ModalityImportanceDisplay":
        """Plot the result of :func:`modality_importance`.

        Parameters
        ----------
        result : Bunch
            The result for one metric.
        score_name : str, default="score"
            Name of the metric.
        sort : bool, default=True
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : ModalityImportanceDisplay
            The display, plotted.
        """
        if not isinstance(result, Mapping) or "importances" not in result:
            metrics = list(result) if isinstance(result, Mapping) else []
            hint = (
                f" Several metrics were computed: pass result[{metrics[0]!r}]." if metrics else ""
            )
            raise ValueError(
                f"{cls.__name__}.from_predictions: result must be what modality_importance returns"
                f" for one metric, got a {type(result).__name__}.{hint}"
            )
        display = cls(
            result["importances"],
            result["modalities"],
            score=result.get("score"),
            score_name=score_name,
        )
        return display.plot(sort=sort, ax=ax)

    def plot(self, *, ax: "Axes | None" = None, sort: bool = True) -> "ModalityImportanceDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure.
        sort : bool, default=True
            Whether the most important modality comes first; otherwise the order of
            ``modalities`` is kept.

        Returns
        -------
        display : ModalityImportanceDisplay
            The display itself.
        """
        owner = type(self).__name__
        values = np.asarray(self.importances, dtype=float)
        if values.ndim != 2 or len(values) != len(self.modalities) or not values.size:
            raise ValueError(
                f"{owner}: importances must have the shape (n_modalities, n_repeats) for"
                f" {len(self.modalities)} modalities, got {values.shape}."
            )
        order = np.arange(len(values))
        if sort:
            order = np.argsort(-values.mean(axis=1), kind="stable")
        values = values[order]
        ax = axes_for(owner, ax, size=(6.0, float(np.clip(1.4 + 0.6 * len(values), 2.4, 6))))
        heights = horizontal_rows(ax, [self.modalities[int(i)] for i in order])
        self._draw(ax, heights, values)
        ax.axvline(0, color=INK, linewidth=0.8)
        known = "" if self.score is None else f"\n({self.score:.3g} as it is)"
        ax.set_xlabel(f"{self.score_name} lost when the modality is shuffled{known}")
        tidy(ax, grid="x")
        ax.spines["left"].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw(self, ax: "Axes", heights: np.ndarray, values: np.ndarray) -> None:
        means, n_repeats = values.mean(axis=1), values.shape[1]
        self.bars_ = ax.barh(heights, means, height=0.62, color=BLUE, alpha=0.55)
        self.errors_: Any = None
        self.points_: list[Any] = []
        if n_repeats > _MANY:
            self.errors_ = ax.errorbar(
                means, heights, xerr=values.std(axis=1), fmt="none", ecolor=INK, capsize=3
            )
        elif n_repeats > 1:
            # Spread vertically, so that repeats of equal score do not hide each other.
            spread = np.linspace(-0.17, 0.17, n_repeats)
            style: dict[str, Any] = {"color": INK, "markersize": 3.5, "alpha": 0.8}
            for height, own in zip(heights, values, strict=True):
                self.points_ += ax.plot(own, height + spread, "o", **style)
