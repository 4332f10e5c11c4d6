"""The common space of an alignment on a sheet, with small views of its cells."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.decomposition import PCA

from skmm._environment._optional import import_optional
from skmm._frame._types import Frame
from skmm.inspection._displays._drawing import (
    COLORS,
    GRAY,
    INK,
    MARKERS,
    axes_for,
    fit_name,
    legend_beside,
)
from skmm.inspection._displays._thumbnails import cells_of, columns_in, image_of_view, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from skmm.metrics._scorers import Alignment


__all__ = ["AlignmentMapDisplay"]

_SIDE = 30  # points (1/72 inch) of the longer side of an image in the plot
_WORDS = 18  # characters per line of text


class AlignmentMapDisplay:
    """Map of the shared space of an alignment in two dimensions.

    A point is one modality of one row. A line joins the modalities of a row: the shorter the lines,
    the better the modalities are aligned. Some points are shown as images or as the first words of
    a text, as far as these do not overlap.

    Parameters
    ----------
    coordinates : dict of str to array-like of shape (n_samples, 2)
        Position of each row for each modality; NaN for rows without it.
    cells : dict of str to list of cells, default=None
        Raw cells of the same rows, for the small views; None shows only points.
    axis_names : tuple of str, default=("", "")
        Labels of the two axes.

    Attributes
    ----------
    points_ : dict of str to matplotlib Line2D
        The points of each modality.
    partners_ : matplotlib LineCollection or None
        Lines between the modalities of a row; None if no row has two.
    views_ : list of matplotlib AnnotationBbox
        Small views of cells.
    legend_ : matplotlib Legend
        Names of the modalities.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    Notes
    -----
    Two dimensions show only part of the variance of a space. After contrastive training the
    modalities often lie in separate clouds [1]_. This gap does not affect retrieval, which depends
    on the order of the distances and not on their size.

    References
    ----------
    .. [1] Liang et al. (2022), "Mind the gap: understanding the modality gap in multi-modal
       contrastive representation learning", NeurIPS.

    Examples
    --------
    >>> from skmm.inspection import AlignmentMapDisplay
    >>> display = AlignmentMapDisplay(
    ...     {"photo": [[0, 0], [1, 1]], "text": [[0, 0.1], [1, 0.8]]},
    ...     cells={"text": ["a red coat", "a hat"]},
    ... ).plot()
    >>> display.points_["photo"].get_xydata().tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        coordinates: Mapping[str, Any],
        *,
        cells: Mapping[str, Sequence[Any]] | None = None,
        axis_names: tuple[str, str] = ("", ""),
    ):
        self.coordinates = coordinates
        self.cells = cells
        self.axis_names = axis_names

    @classmethod
    def from_estimator(
        cls,
        alignment: "Alignment",
        X: Frame,
        *,
        modalities: Sequence[str] | None = None,
        projection: TransformerMixin | None = None,
        columns: Mapping[str, Any] | None = None,
        n_views: int = 40,
        ax: "Axes | None" = None,
    ) -> "AlignmentMapDisplay":
        """Bring rows into the common space, and draw where they lie.

        Parameters
        ----------
        alignment : estimator
            Fitted, with ``modalities_`` and ``transform_modality``.
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any modality may be missing in any row. About a hundred rows give a readable
            map.
        modalities : list of str, default=None
            Modalities that are shown; None for all.
        projection : transformer, default=None
            From the common space to two dimensions, fitted here to the vectors of all
            modalities together, such as ``TSNE()``; None for ``PCA(2)``.
        columns : dict of str to columns, default=None
            Columns of the modalities, for an alignment whose ``modalities_`` has none.
        n_views : int, default=40
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : AlignmentMapDisplay
            The display, plotted.
        """
        names = [n for n, _, _ in alignment.modalities_] if modalities is None else list(modalities)
        positions = columns_in(alignment, X, names, columns, owner=cls.__name__)
        vectors = {name: alignment.transform_modality(X, name) for name in names}
        cells = {name: cells_of(X, positions[name]) for name in names}
        return cls.from_predictions(
            vectors, cells=cells, projection=projection, n_views=n_views, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        vectors: Mapping[str, Any],
        *,
        cells: Mapping[str, Sequence[Any]] | None = None,
        projection: TransformerMixin | None = None,
        n_views: int = 40,
        ax: "Axes | None" = None,
    ) -> "AlignmentMapDisplay":
        """Plot a map of vectors of one space.

        Parameters
        ----------
        vectors : dict of str to array-like of shape (n_samples, n_components)
            Vectors of each modality, as ``transform_modality`` returns them; NaN for rows without
            the modality.
        cells : dict of str to list of cells, default=None
            Raw cells of the same rows.
        projection : transformer, default=None
            As in :meth:`from_estimator`.
        n_views : int, default=40
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : AlignmentMapDisplay
            The display, plotted.
        """
        arrays = {name: np.asarray(own, dtype=float) for name, own in vectors.items()}
        if not arrays or len({own.shape for own in arrays.values()}) > 1:
            shapes = {name: own.shape for name, own in arrays.items()}
            raise ValueError(
                f"{cls.__name__}: vectors must hold an array of one shape for each modality, got"
                f" {shapes}."
            )
        present = {name: ~np.isnan(own).any(axis=1) for name, own in arrays.items()}
        together = np.concatenate([own[present[name]] for name, own in arrays.items()])
        if len(together) < 2:
            raise ValueError(f"{cls.__name__}: a map needs two vectors, got {len(together)}.")
        projector = PCA(2) if projection is None else projection
        placed = np.asarray(projector.fit_transform(together), dtype=np.float64)
        if placed.shape != (len(together), 2):
            raise ValueError(
                f"{cls.__name__}: projection must give two numbers for each vector, got"
                f" the shape {placed.shape}."
            )
        coordinates, start = {}, 0
        for name, own in present.items():
            coordinates[name] = np.full((len(own), 2), np.nan)
            coordinates[name][own] = placed[start : start + own.sum()]
            start += int(own.sum())
        return cls(coordinates, cells=cells, axis_names=_axis_names(projector)).plot(
            n_views=n_views, ax=ax
        )

    def plot(self, *, ax: "Axes | None" = None, n_views: int = 40) -> "AlignmentMapDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure.
        n_views : int, default=40
            Maximum number of cells that are shown as images or words; 0 shows only points. Cells
            that would overlap at the present size of the axes are left out.

        Returns
        -------
        display : AlignmentMapDisplay
            The display itself.
        """
        places = self._places()
        given, ax = ax is not None, axes_for(type(self).__name__, ax, size=(7.0, 5.0))
        self.points_: dict[str, Any] = {}
        for i, (name, own) in enumerate(places.items()):
            (self.points_[name],) = ax.plot(
                own[:, 0], own[:, 1], MARKERS[i % len(MARKERS)], color=COLORS[i % len(COLORS)],
                markersize=4, alpha=0.85, zorder=2,
            )  # fmt: skip
        paths = [row[~np.isnan(row).any(axis=1)] for row in np.stack(list(places.values()), axis=1)]
        self.partners_: Any = None
        if any(len(path) > 1 for path in paths):
            collections = import_optional("matplotlib.collections", needed_by=type(self).__name__)
            lines = collections.LineCollection(
                [path for path in paths if len(path) > 1], colors=GRAY, linewidths=0.6, alpha=0.6,
                zorder=1,
            )  # fmt: skip
            self.partners_ = ax.add_collection(lines)
        ax.margins(0.08)
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(self.axis_names[0])
        ax.set_ylabel(self.axis_names[1])
        self.legend_ = legend_beside(ax, list(self.points_.values()), list(self.points_))
        if not given:
            # The layout moves the axes, whose final size is needed to place the views.
            cast("Figure", ax.figure).draw_without_rendering()
        self.views_ = self._draw_views(ax, places, n_views) if self.cells and n_views else []
        ax.spines[:].set_color("0.85")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _places(self) -> dict[str, np.ndarray]:
        owner = type(self).__name__
        places = {name: np.asarray(own, dtype=float) for name, own in self.coordinates.items()}
        shapes = {own.shape for own in places.values()}
        if len(shapes) != 1 or next(iter(shapes))[1:] != (2,):
            raise ValueError(
                f"{owner}: coordinates must be arrays of one shape (n_samples, 2), got"
                f" {', '.join(map(str, sorted(shapes))) or 'none'}."
            )
        n = len(next(iter(places.values())))
        for name, own in (self.cells or {}).items():
            if name not in places or len(own) != n:
                raise ValueError(
                    f"{owner}: cells[{name!r}] must hold a cell for each of the {n} rows of"
                    f" coordinates[{name!r}], got {len(own)}."
                )
        return places

    def _draw_views(self, ax: "Axes", places: dict[str, np.ndarray], n_views: int) -> list[Any]:
        """Add small views, row by row over the modalities, where they do not overlap."""
        boxes = import_optional("matplotlib.offsetbox", needed_by=type(self).__name__)
        drawn: list[Any] = []
        taken: list[np.ndarray] = []
        frame = ax.get_window_extent()
        area = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]])
        dots = ax.figure.dpi / 72  # pixels per point
        n = len(next(iter(places.values())))
        for row in range(n):
            for i, name in enumerate(places):
                if len(drawn) >= n_views:
                    return drawn
                place = places[name][row]
                if name not in (self.cells or {}) or np.isnan(place).any():
                    continue
                view = view_of((self.cells or {})[name][row])
                if view.kind == "absent":
                    continue
                box, size = _small(boxes, view)
                center, half = ax.transData.transform(place), np.array(size) * dots / 2 + 2
                corners = np.array([center - half, center + half])
                outside = (corners[0] < area[0]).any() or (corners[1] > area[1]).any()
                if outside or any(_overlap(corners, other) for other in taken):
                    continue
                taken.append(corners)
                color = COLORS[i % len(COLORS)]
                props = {"edgecolor": color, "linewidth": 0.9, "facecolor": "white"}
                drawn.append(
                    ax.add_artist(
                        boxes.AnnotationBbox(
                            box, place, pad=0.12, frameon=True, bboxprops=props, zorder=3
                        )
                    )
                )
        return drawn


def _small(boxes: Any, view: Any) -> tuple[Any, tuple[float, float]]:
    """Return a box of a view, and its approximate width and height in points."""
    if view.kind == "words":
        words = fit_name(view.content.replace("\n", " "), width=_WORDS, n_lines=2)
        lines = words.split("\n")
        props = {"fontsize": 6.5, "color": INK, "parse_math": False, "linespacing": 1.0}
        return boxes.TextArea(words, textprops=props), (
            max(map(len, lines)) * 3.9 + 4,
            len(lines) * 8.0 + 4,
        )
    pixels = image_of_view(view, 4 * _SIDE)
    zoom = _SIDE / max(pixels.shape[:2])
    size = pixels.shape[1] * zoom + 3, pixels.shape[0] * zoom + 3
    return boxes.OffsetImage(pixels, zoom=zoom, resample=True), size


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one[0] < other[1]).all() and (other[0] < one[1]).all())


def _axis_names(projector: object) -> tuple[str, str]:
    """Return axis labels with the explained variance of a PCA; empty for other projections."""
    shares = getattr(projector, "explained_variance_ratio_", None)
    if shares is None:
        return "", ""
    first, second = (f"component {i + 1} ({share:.0%} of the variance)" for i, share in
                     enumerate(shares[:2]))  # fmt: skip
    return first, second
