"""The losses during training of the trained parts of an estimator."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skmm._constraints import Estimator
from skmm.inspection._displays._drawing import (
    BLUE,
    COLORS,
    DASHES,
    INK,
    VERMILION,
    axes_for,
    height_of_legend,
    legend_beside,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TrainingHistoryDisplay"]

_KINDS = {"train_loss": "training", "valid_loss": "validation"}
_UNITS = {"step": "training step", "epoch": "epoch"}
_FEW = 30  # epochs, up to which each has a dot
_RING: dict[str, Any] = {
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgewidth": 1.5,
    "linestyle": "none",
}
_INNER = ("net_", "module_")  # these keep the losses of history_ again


class TrainingHistoryDisplay:
    """Plot of the training and validation loss by epoch or training step.

    Parameters
    ----------
    histories : dict of str to dict of str to array-like of shape (n_epochs,)
        Losses of each trained part by its name: ``"train_loss"``, and ``"valid_loss"`` if rows were
        held out. ``"epoch"`` or ``"step"``, if given, is the position of each loss; otherwise
        losses are numbered from 1.

    Attributes
    ----------
    lines_ : dict of (str, str) to matplotlib Line2D
        A line for each name and ``"train_loss"`` or ``"valid_loss"``.
    best_ : dict of str to matplotlib Line2D
        A ring at the lowest validation loss of each part with validation losses.
    legend_ : matplotlib Legend or None
        Names of the lines; None for one line.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    Examples
    --------
    >>> from skmm.inspection import TrainingHistoryDisplay
    >>> display = TrainingHistoryDisplay(
    ...     {"fusion": {"train_loss": [0.9, 0.5, 0.3], "valid_loss": [0.8, 0.6, 0.7]}}
    ... ).plot()
    >>> display.best_["fusion"].get_xydata().tolist()
    [[2.0, 0.6]]
    """

    def __init__(self, histories: Mapping[str, Mapping[str, Any]]):
        self.histories = histories

    @classmethod
    def from_estimator(
        cls, estimator: Estimator, *, names: Sequence[str] | None = None, ax: "Axes | None" = None
    ) -> "TrainingHistoryDisplay":
        """Plot the losses that a fitted estimator keeps.

        Parameters
        ----------
        estimator : estimator
            Fitted, with an attribute ``history_``, as joint fusions, alignments, generators and
            trained encoders have; or an estimator that contains such parts, for example a
            pipeline, a search, or an early or late fusion. The modalities of an
            ``AdversarialAlignment`` are separate parts.
        names : list of str, default=None
            Names of the parts to plot, as in the legend of all of them; None for all.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, plotted.
        """
        found: dict[str, Mapping[str, Any]] = {}
        for path, history in _histories(estimator, (), set()):
            name = ", ".join(path) or type(estimator).__name__
            while name in found:
                name += "'"
            found[name] = history
        if not found:
            raise ValueError(
                f"{cls.__name__}.from_estimator: nothing in {type(estimator).__name__} has a"
                " history_. Fit it first; frozen encoders are not trained."
            )
        unknown = [name for name in names or () if name not in found]
        if unknown:
            raise ValueError(
                f"{cls.__name__}.from_estimator: no part is named {unknown[0]!r}. The trained parts"
                f" are {', '.join(map(repr, found))}."
            )
        chosen = found if names is None else {name: found[name] for name in names}
        return cls(chosen).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, histories: Mapping[str, Mapping[str, Any]] | Sequence[Any], *, ax: "Axes | None" = None
    ) -> "TrainingHistoryDisplay":
        """Plot given losses.

        Parameters
        ----------
        histories : dict of str to dict of str to array-like, list of dict, or list of float
            As in the class; or the ``history_`` of one estimator, or its losses.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, plotted.
        """
        if not isinstance(histories, Mapping):
            histories = _by_modality(histories)
        return cls(histories).plot(ax=ax)

    def plot(self, *, ax: "Axes | None" = None) -> "TrainingHistoryDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display itself.
        """
        owner = type(self).__name__
        if not self.histories:
            raise ValueError(f"{owner}: histories is empty. Give at least one.")
        for name, history in self.histories.items():
            if not isinstance(history, Mapping) or not any(k in history for k in _KINDS):
                raise ValueError(
                    f"{owner}: histories[{name!r}] must be a dict with 'train_loss' or"
                    f" 'valid_loss', got {history!r:.60}."
                )
        kinds = [k for k in _KINDS if any(k in history for history in self.histories.values())]
        labels = self._labels(kinds)
        ax = axes_for(owner, ax, size=(6.0, height_of_legend(labels)))
        self.lines_: dict[tuple[str, str], Any] = {}
        self.best_: dict[str, Any] = {}
        for i, (name, history) in enumerate(self.histories.items()):
            self._draw(ax, name, history, i)
        units = {_unit(history) for history in self.histories.values()}
        ax.set_xlabel(" or ".join(name for unit, name in _UNITS.items() if unit in units))
        ax.set_ylabel("loss" if len(kinds) > 1 else f"{_KINDS[kinds[0]]} loss")
        locator: Any = ax.xaxis.get_major_locator()
        locator.set_params(integer=True)
        self.legend_: Any = None
        if labels:
            legend_beside(ax, self._handles(ax, kinds), labels)
            self.legend_ = ax.get_legend()
        tidy(ax, grid="y")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _labels(self, kinds: list[str]) -> list[str]:
        """Return the names in the legend: of the parts, of the kinds of loss, of the ring."""
        labels = list(self.histories) if len(self.histories) > 1 else []
        labels += [_KINDS[kind] for kind in kinds] if len(kinds) > 1 else []
        return labels + ["lowest validation loss"] * ("valid_loss" in kinds)

    def _handles(self, ax: "Axes", kinds: list[str]) -> list[Any]:
        """Return the lines of the legend: colors of the parts, dashes of the kinds, the ring."""
        several = len(self.histories) > 1
        handles: list[Any] = []
        if several:
            handles += [ax.plot([], [], color=_color(i))[0] for i in range(len(self.histories))]
        for j, kind in enumerate(kinds if len(kinds) > 1 else []):
            if several:
                handles += ax.plot([], [], DASHES[j], color=INK)
            else:
                handles.append(next(line for (_, k), line in self.lines_.items() if k == kind))
        if "valid_loss" in kinds:
            handles += ax.plot([], [], "o", color=INK, **_RING)
        return handles

    def _draw(self, ax: "Axes", name: str, history: Mapping[str, Any], i: int) -> None:
        several = len(self.histories) > 1
        for kind, losses in history.items():
            if kind not in _KINDS:
                continue
            j = list(_KINDS).index(kind)
            values = np.asarray(losses, dtype=float)
            places = np.asarray(history.get(_unit(history), np.arange(1, len(values) + 1)))
            color = _color(i) if several else (BLUE, VERMILION)[j]
            (self.lines_[name, kind],) = ax.plot(
                places, values, DASHES[j] if several else "-", color=color,
                marker="." if len(values) <= _FEW else "",
            )  # fmt: skip
            if kind == "valid_loss" and np.isfinite(values).any():
                best = int(np.nanargmin(values))
                (self.best_[name],) = ax.plot(places[best], values[best], "o", color=color, **_RING)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _unit(history: Mapping[str, Any]) -> str:
    """Return what the losses are counted in, a key of ``_UNITS``."""
    return next((unit for unit in _UNITS if unit in history), "epoch")


def _by_modality(history: Sequence[Any]) -> dict[str, dict[str, list[float]]]:
    """Return the losses of each modality that is trained on its own, else all under ""."""
    parts: dict[str, list[Any]] = {}
    for row in history:
        name = row.get("modality", "") if isinstance(row, Mapping) else ""
        parts.setdefault(str(name), []).append(row)
    return {name: _columns(rows) for name, rows in parts.items()} or {"": {}}


def _columns(history: Sequence[Any]) -> dict[str, list[float]]:
    """Return losses by kind, and their epochs or steps, from a list of dicts or of floats."""
    rows = [row if isinstance(row, Mapping) else {"train_loss": row} for row in history]
    kinds = [kind for kind in _KINDS if any(kind in row for row in rows)]
    units = [unit for unit in _UNITS if rows and all(unit in row for row in rows)]
    return {key: [float(row.get(key, np.nan)) for row in rows] for key in [*units, *kinds]}


def _histories(
    part: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, list[float]]]]:
    """Find the losses of an estimator and its parts, with the names of these parts."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from _histories(value, (*path, str(name)), seen)
    elif isinstance(part, list | tuple):
        named = len(part) > 1 and isinstance(part, tuple) and isinstance(part[0], str)
        inner = (*path, part[0]) if named else path
        for value in part[1:] if named else part:
            yield from _histories(value, inner, seen)
    elif hasattr(part, "get_params") and not isinstance(part, type):
        kept = getattr(part, "history_", None)
        if kept:
            for name, losses in _by_modality(kept).items():
                yield (*path, name) if name else path, losses
        for attribute, value in vars(part).items():
            if attribute == "steps":  # generated names, such as "earlyfusion"
                yield from _histories([step for _, step in value], path, seen)
            elif attribute.endswith("_") and attribute[0] != "_" and attribute not in _INNER:
                yield from _histories(value, path, seen)
