"""Rows as points beside each other, a swarm for each modality."""

from typing import Any

import numpy as np

from skmm.inspection._displays._drawing import BLUE

__all__ = ["draw_swarms"]

_N_BINS = 60  # of a swarm, across the axis
_CMAP = "cividis"  # even in lightness, and for every eye


def draw_swarms(
    ax: Any,
    heights: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
    colors: np.ndarray | None,
) -> tuple[list[Any], list[Any]]:
    """Draw a swarm at each height.

    Parameters
    ----------
    ax : matplotlib Axes
        Where.
    heights : ndarray of shape (n_swarms,)
        Their middles.
    values : ndarray of shape (n_points, n_swarms)
        Where the points lie.
    present : ndarray of shape (n_points, n_swarms), bool
        Which points are filled.
    colors : ndarray of shape (n_points,) or None
        Numbers that colour the filled points.

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
    hollow = {"facecolors": "none", "edgecolors": "0.7", "linewidths": 0.8}
    drawn: tuple[list[Any], list[Any]] = ([], [])
    for height, x, has in zip(heights, values.T, present.T, strict=True):
        own = style if colors is None else {**style, "c": colors[has]}
        y = height + _swarm(x[has], step)
        drawn[0].append(ax.scatter(x[has], y, s=size, linewidths=0, **own))
        # Near the middle: most of them lie at zero, all on one place.
        y = height + _swarm(x[~has], step, reach=0.12)
        drawn[1].append(ax.scatter(x[~has], y, s=size, zorder=0.5, **hollow))
    return drawn


def _swarm(x: np.ndarray, step: float, *, reach: float = 0.38) -> np.ndarray:
    """Place points of one row above and below each other where they would cover each other.

    Parameters
    ----------
    x : ndarray of shape (n_points,)
        Where they lie along the row.
    step : float
        How near two points cover each other.
    reach : float, default=0.38
        Largest distance from the middle of the row.

    Returns
    -------
    heights : ndarray of shape (n_points,)
        Distances from the middle.
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
        # 0, 1, -1, 2, -2: the middle first.
        heights[members] = between * ((ranks + 1) // 2) * np.where(ranks % 2, 1, -1)
    return heights
