"""Shared parts of the displays: axes, colors, shortened names, legends next to the data."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import is_classifier, is_regressor

from skmm._environment._optional import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "COLORS",
    "DASHES",
    "GRAY",
    "INK",
    "MARKERS",
    "VERMILION",
    "axes_for",
    "check_option",
    "fit_name",
    "horizontal_rows",
    "height_of_legend",
    "legend_above",
    "legend_beside",
    "score_name_of",
    "tidy",
]

# Okabe and Ito (2008), which color-blind readers can distinguish; without yellow, which is too
# faint on white.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#404040")
BLUE, VERMILION = COLORS[0], COLORS[3]
INK, GRAY = "#262626", "#8C8C8C"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")  # the second one is used from the eighth line on

_NAME_WIDTH = 20  # characters per line


def axes_for(owner: str, ax: "Axes | None", *, size: tuple[float, float] = (6.0, 4.0)) -> "Axes":
    """Return the given axes, or those of a new figure.

    Parameters
    ----------
    owner : str
        Class of the display, for errors.
    ax : matplotlib Axes or None
        Axes of the user.
    size : tuple of float, default=(6.0, 4.0)
        Width and height of a new figure in inches.

    Returns
    -------
    ax : matplotlib Axes
        Axes to plot on.
    """
    if ax is None:
        pyplot = import_optional("matplotlib.pyplot", needed_by=f"{owner}.plot")
        drawn: Axes = pyplot.subplots(figsize=size, layout="constrained")[1]
        return drawn
    if not (hasattr(ax, "plot") and hasattr(ax, "figure") and hasattr(ax, "transAxes")):
        raise TypeError(
            f"{owner}.plot: ax must be one matplotlib Axes or None, got a {type(ax).__name__}. Of"
            " an array of axes pass one element."
        )
    return ax


def tidy(ax: "Axes", *, grid: Literal["", "x", "y"] = "") -> None:
    """Hide two sides of the frame, and show the grid lines of one axis or none."""
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)


def fit_name(name: object, *, width: int = _NAME_WIDTH, n_lines: int = 2) -> str:
    """Break a name into few short lines at the ends of words; cut a long one with "…"."""
    lines, rest = [""], re.findall(r"\S[^\s_\-/.]*[_\-/.]*|\s+", str(name))
    for piece in rest:
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        piece = piece.lstrip() if not lines[-1] else piece
        while len(piece) > width:  # one word longer than a line
            lines[-1:] = [piece[:width], ""]
            piece = piece[width:]
        lines[-1] += piece
    lines = [line.rstrip() for line in lines if line.strip()] or [""]
    if len(lines) > n_lines:
        lines = lines[:n_lines]
        lines[-1] = lines[-1][: width - 1].rstrip() + "…"
    return "\n".join(lines)


def horizontal_rows(ax: "Axes", names: Sequence[Any], *, width: int = _NAME_WIDTH) -> np.ndarray:
    """Label the rows of a horizontal plot, the first one on top; return their positions."""
    heights = np.arange(len(names), dtype=float)
    labels = [fit_name(name, width=width) for name in names]
    n_lines = max(label.count("\n") + 1 for label in labels)
    row = 72 * ax.get_window_extent().height / ax.figure.dpi / len(names)  # in points
    size = float(np.clip(row / (1.25 * n_lines), 5, 10))
    # A name may hold a "$", which would begin a formula.
    ax.set_yticks(heights, labels, parse_math=False, fontsize=size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    return heights


def legend_beside(ax: "Axes", handles: Sequence[Any], names: Sequence[Any], **kwargs: Any) -> Any:
    """Add a legend to the right of the axes, outside the data."""
    labels = [fit_name(name) for name in names]
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
    return _legend(ax, handles, labels, **place, **kwargs)


def height_of_legend(names: Sequence[Any]) -> float:
    """Return the height in inches of a figure for such a legend, at least 4."""
    points = sum(5 + 12.5 * (1 + fit_name(name).count("\n")) for name in names)
    return max(4.0, 0.4 + points / 72)


def legend_above(ax: "Axes", handles: Sequence[Any], labels: Sequence[str]) -> Any:
    """Add a legend of one line above the axes."""
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": len(labels)}
    return _legend(ax, handles, labels, **place)


def _legend(ax: "Axes", handles: Sequence[Any], labels: Sequence[str], **kwargs: Any) -> Any:
    # matplotlib leaves out labels that begin with an underscore.
    labels = [f" {label}" if label.startswith("_") else label for label in labels]
    legend = ax.legend(list(handles), labels, frameon=False, **kwargs)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def score_name_of(estimator: object, scoring: object) -> str:
    """Return the label of the axis of a score."""
    if isinstance(scoring, str):
        name = scoring.replace("_", " ")
        return "negative " + name.removeprefix("neg ") if name.startswith("neg ") else name
    if scoring is None and hasattr(estimator, "__sklearn_tags__"):
        if is_classifier(estimator):
            return "accuracy"
        if is_regressor(estimator):
            return "R²"
    return "score"


def check_option(owner: str, name: str, value: object, options: Sequence[Any]) -> None:
    """Raise ``ValueError`` if a parameter of ``plot`` is none of the options."""
    if not any(value is option or value == option for option in options):
        known = ", ".join(map(repr, options))
        raise ValueError(f"{owner}.plot: {name} must be one of {known}, got {value!r}.")
