"""Scores of the parts of a cell, shown on the cell."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from sklearn.utils import Bunch

from skmm._constraints import Estimator
from skmm._environment._optional import import_optional
from skmm._frame._column import n_rows, take_rows
from skmm._frame._types import Frame
from skmm.inspection._displays._drawing import GRAY, INK, axes_for, tidy
from skmm.inspection._displays._thumbnails import cells_of, line_of
from skmm.inspection._modalities import columns_of_modality
from skmm.inspection._parts import kind_of_cell
from skmm.inspection._token_attribution import token_attribution
from skmm.readers import read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = ["TokenAttributionDisplay"]

_LABELS = {
    "occlusion": "lost without the part",
    "gradient": "attribution",
    "rollout": "attention flow",
}
_SIGNED, _POSITIVE = "RdBu_r", "Oranges"
_DARK = 0.55  # words on a color darker than this are white
_FONT_SIZES = (11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0)
_FOOT = 30.0  # points below the words, for the colorbar
_HEAT = 0.75  # opacity of the strongest part of an image


class TokenAttributionDisplay:
    """Plot of a cell whose parts are colored by their attribution to a prediction.

    Patches are colored over the image in gray; words, and segments of audio or a series, have a
    colored background. Red parts support the prediction and blue ones oppose it. Scores without
    negative values, such as attention, range from white to orange.

    Parameters
    ----------
    attribution : Bunch, NamedTuple or dict
        An entry of the result of :func:`token_attribution`, with ``scores`` of shape (n_tokens,),
        or (n_rows, n_columns) over an image, and ``tokens``, words or pairs of start and end, or
        None for an image. Optional are ``method``, ``kind``, ``target`` and ``prediction``.
    cell : object, default=None
        The raw cell. Required for an image; audio or a series is plotted as a line if given.

    Attributes
    ----------
    image_ : matplotlib AxesImage or None
        The image.
    heat_ : matplotlib AxesImage or None
        The scores over the image.
    words_ : list of matplotlib Annotation
        The words.
    spans_ : list of matplotlib Rectangle
        Segments of time.
    lines_ : list of matplotlib Line2D
        The audio or series.
    colorbar_ : matplotlib Colorbar
        Scale of the colors.
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    token_attribution : Compute the scores.

    Examples
    --------
    >>> from skmm.inspection import TokenAttributionDisplay
    >>> display = TokenAttributionDisplay(
    ...     {"scores": [0.0, -0.1, 0.4], "tokens": ["not", "so", "good"], "method": "occlusion"}
    ... ).plot()
    >>> [word.get_text() for word in display.words_]
    ['not', 'so', 'good']
    """

    def __init__(self, attribution: Bunch, cell: object = None):
        self.attribution = attribution
        self.cell = cell

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Frame,
        modality: str,
        *,
        row: int = 0,
        method: Literal["occlusion", "gradient", "rollout"] = "occlusion",
        target: object = None,
        limit: float | None = None,
        ax: "Axes | None" = None,
        **options: Any,
    ) -> "TokenAttributionDisplay":
        """Attribute a prediction to the parts of a cell and plot the scores.

        Parameters
        ----------
        estimator : estimator
            Fitted, as in :func:`token_attribution`.
        X : DataFrame of shape (n_samples, n_columns)
            Cells of the rows.
        modality : str
            Modality whose cell is explained.
        row : int, default=0
            Position of the row in ``X``.
        method : {"occlusion", "gradient", "rollout"}, default="occlusion"
            As in :func:`token_attribution`.
        target : object, default=None
            As in :func:`token_attribution`.
        limit : float, default=None
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        **options : dict
            Further parameters of :func:`token_attribution`, such as ``n_parts``.

        Returns
        -------
        display : TokenAttributionDisplay
            The display, plotted.
        """
        n = n_rows(X)
        if not -n <= row < n:
            raise ValueError(f"{cls.__name__}: row must be a position in {n} rows, got {row!r}.")
        X = take_rows(X, [row % n])
        (attribution,) = token_attribution(
            estimator, X, modality, method=method, target=target, **options
        )
        positions = columns_of_modality(estimator, X, modality, function=cls.__name__)
        return cls(attribution, cells_of(X, positions)[0]).plot(limit=limit, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        attribution: Bunch,
        cell: object = None,
        *,
        limit: float | None = None,
        ax: "Axes | None" = None,
    ) -> "TokenAttributionDisplay":
        """Plot the result of :func:`token_attribution` for one row.

        Parameters
        ----------
        attribution : Bunch, NamedTuple or dict
            An entry of the result.
        cell : object, default=None
            The raw cell; not needed for words.
        limit : float, default=None
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        display : TokenAttributionDisplay
            The display, plotted.
        """
        return cls(attribution, cell).plot(limit=limit, ax=ax)

    def plot(
        self, *, ax: "Axes | None" = None, limit: float | None = None
    ) -> "TokenAttributionDisplay":
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None creates a figure.
        limit : float, default=None
            Score with the strongest color, to give several plots the same scale; None uses the
            largest absolute score.

        Returns
        -------
        display : TokenAttributionDisplay
            The display itself.
        """
        owner = type(self).__name__
        found = _found(self.attribution, owner)
        if limit is not None and not limit > 0:
            raise ValueError(f"{owner}.plot: limit must be above 0, got {limit!r}.")
        top = float(np.nanmax(np.abs(found.scores))) if limit is None else float(limit)
        signed = bool((found.scores < 0).any())
        cm = import_optional("matplotlib.cm", needed_by=f"{owner}.plot")
        colors_of = import_optional("matplotlib.colors", needed_by=f"{owner}.plot")
        norm = colors_of.Normalize(-(top or 1.0) if signed else 0.0, top or 1.0)
        mappable = cm.ScalarMappable(norm, _lighter(_SIGNED if signed else _POSITIVE))
        self.image_: Any = None
        self.heat_: Any = None
        self.words_: list[Any] = []
        self.spans_: list[Any] = []
        self.lines_: list[Any] = []
        if found.scores.ndim == 2:
            ax = self._draw_image(ax, found, mappable)
        elif found.timed:
            ax = self._draw_times(ax, found, mappable)
        else:
            ax = self._draw_words(ax, found, mappable)
        if found.title:
            ax.set_title(found.title, loc="left", fontsize="medium", parse_math=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _bar(self, ax: "Axes", mappable: "ScalarMappable", found: "_Found") -> None:
        label = _LABELS.get(found.method, found.method)
        # As high as the axes next to it.
        place = ax.inset_axes((1.02, 0, 0.03, 1))
        self.colorbar_ = ax.figure.colorbar(mappable, cax=place, label=label)
        self.colorbar_.outline.set_visible(False)

    def _bar_below(
        self, ax: "Axes", mappable: "ScalarMappable", found: "_Found", height: float
    ) -> None:
        """Add a colorbar at the bottom of axes of a height in points."""
        place = ax.inset_axes((0.0, (_FOOT - 16) / height, 0.4, 7 / height))
        self.colorbar_ = ax.figure.colorbar(mappable, cax=place, orientation="horizontal")
        self.colorbar_.outline.set_visible(False)
        place.tick_params(labelsize=8)
        place.text(
            1.03, 0.5, _LABELS.get(found.method, found.method), transform=place.transAxes,
            va="center", fontsize=8,
        )  # fmt: skip

    def _draw_image(self, ax: "Axes | None", found: "_Found", mappable: "ScalarMappable") -> "Axes":
        owner = type(self).__name__
        if self.cell is None or kind_of_cell(self.cell) != "image":
            raise ValueError(
                f"{owner}: scores of shape {found.scores.shape} need an image, and cell is a"
                f" {type(self.cell).__name__}. Pass the image as cell."
            )
        pixels = read_image(self.cell)
        height, width = pixels.shape[:2]
        ax = axes_for(owner, ax, size=(5.0, float(np.clip(4 * height / width, 2, 6))))
        # Gray, so that every color is one of the scores.
        gray = pixels @ np.array([0.299, 0.587, 0.114])
        self.image_ = ax.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
        strength = np.clip(np.abs(found.scores) / mappable.norm.vmax, 0, 1)
        self.heat_ = ax.imshow(
            found.scores, cmap=mappable.cmap, norm=cast("Normalize", mappable.norm),
            alpha=_HEAT * strength, interpolation="nearest",
            extent=_reach(found.scores.shape, (height, width)),
        )  # fmt: skip
        self._bar(ax, mappable, found)
        ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
        ax.spines[:].set_visible(False)
        return ax

    def _draw_times(self, ax: "Axes | None", found: "_Found", mappable: "ScalarMappable") -> "Axes":
        ax = axes_for(type(self).__name__, ax, size=(6.0, 2.6))
        line = None if self.cell is None else line_of(self.cell)
        edges = np.asarray(found.tokens, dtype=float)
        for (start, end), score in zip(edges, found.scores, strict=True):
            if line is None:  # without a line, the scores are bars
                color = mappable.to_rgba(score)
                self.spans_ += ax.bar(
                    start, score, end - start, align="edge", color=color, edgecolor=GRAY,
                    linewidth=0.5,
                )  # fmt: skip
            else:
                self.spans_.append(
                    ax.axvspan(start, end, color=mappable.to_rgba(score), linewidth=0)
                )
        if line is None:
            ax.axhline(0, color=INK, linewidth=0.8)
            ax.set_ylabel(_LABELS.get(found.method, found.method))
        else:
            times = np.linspace(edges.min(), edges.max(), len(line))
            self.lines_ = ax.plot(times, line, color=INK, linewidth=0.7)
            ax.set_yticks([])
        self._bar(ax, mappable, found)
        ax.set_xlabel(_time_name(found, self.cell))
        ax.set_xlim(edges.min(), edges.max())
        tidy(ax)
        return ax

    def _draw_words(self, ax: "Axes | None", found: "_Found", mappable: "ScalarMappable") -> "Axes":
        owner = type(self).__name__
        words = [str(token) for token in found.tokens]
        paper = import_optional("matplotlib.textpath", needed_by=f"{owner}.plot").TextPath
        given = ax is not None
        n_lines = _lines_of(words, 415.0, _FONT_SIZES[0], paper)[-1][1] + 1
        ax = axes_for(owner, ax, size=(6.0, 0.75 + 0.3 * n_lines))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if found.title:
            ax.set_title(found.title, loc="left", fontsize="medium", parse_math=False)
        if not given:
            # The layout moves the axes, whose final size is needed to place the words.
            cast("Figure", ax.figure).draw_without_rendering()
        area = ax.get_window_extent()
        width, height = (72 * side / ax.figure.dpi for side in (area.width, area.height))
        self._bar_below(ax, mappable, found, height)
        height -= _FOOT
        for size in _FONT_SIZES:
            places = _lines_of(words, width - 0.4 * size, size, paper)
            step = 1.9 * size
            if (places[-1][1] + 1) * step <= height:
                break
        for word, score, (x, line) in zip(words, found.scores, places, strict=True):
            ground = mappable.to_rgba(score)
            light = float(np.dot(ground[:3], [0.299, 0.587, 0.114]))
            self.words_.append(
                ax.annotate(
                    word,
                    (0, 1),
                    xycoords="axes fraction",
                    xytext=(x, -line * step - 0.3 * size),
                    textcoords="offset points",
                    ha="left",
                    va="top",
                    fontsize=size,
                    color="white" if light < _DARK else INK,
                    parse_math=False,
                    bbox={"boxstyle": "square,pad=0.18", "facecolor": ground, "linewidth": 0},
                    annotation_clip=False,
                )  # fmt: skip
            )
        return ax


def _lighter(name: str) -> Any:
    """Return a colormap without its darkest colors, on which text is illegible."""
    matplotlib = import_optional("matplotlib", needed_by="TokenAttributionDisplay.plot")
    colors_of = import_optional("matplotlib.colors", needed_by="TokenAttributionDisplay.plot")
    low = 0.14 if name == _SIGNED else 0.0
    colors = matplotlib.colormaps[name](np.linspace(low, 0.86, 256))
    return colors_of.ListedColormap(colors, name=f"lighter {name}")


def _reach(grid: tuple[int, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the extent of a grid of squares over an image, or stretched if it fits no squares."""
    side = -(-max(size) // max(grid))
    if grid == tuple(-(-length // side) for length in size):  # may exceed the image
        return 0, grid[1] * side, grid[0] * side, 0
    return 0, size[1], size[0], 0


def _time_name(found: "_Found", cell: object) -> str:
    """Return the label of the time axis."""
    if found.kind == "video":
        return "frame"
    counted = isinstance(cell, np.ndarray | list | tuple) and found.tokens[-1][1] == len(cell)
    return "sample" if counted else "time (s)"


class _Found(NamedTuple):
    """A validated attribution."""

    scores: np.ndarray
    tokens: Any
    method: str
    kind: str
    title: str

    @property
    def timed(self) -> bool:
        return not isinstance(self.tokens[0], str) and np.size(self.tokens[0]) == 2


def _found(attribution: Bunch, owner: str) -> _Found:
    if isinstance(attribution, Mapping):
        given = dict(attribution)
    else:
        names = ("scores", "tokens", "method", "kind", "target", "prediction")
        given = {name: getattr(attribution, name, None) for name in names}
    if given.get("scores") is None:
        raise ValueError(
            f"{owner}: attribution must be an entry of what token_attribution returns, got a"
            f" {type(attribution).__name__} without scores."
        )
    scores, tokens = np.asarray(given["scores"], dtype=float), given.get("tokens")
    n_tokens = 0 if tokens is None else len(tokens)
    if not scores.size:
        raise ValueError(f"{owner}: there are no scores: the row does not have the modality.")
    if scores.ndim not in (1, 2):
        raise ValueError(
            f"{owner}: scores must have the shape (n_tokens,) or (n_rows, n_columns), got"
            f" {scores.shape}."
        )
    if scores.ndim == 1 and n_tokens != len(scores):
        raise ValueError(f"{owner}: there are {len(scores)} scores and {n_tokens} tokens.")
    method = str(given.get("method") or "attribution")
    target, prediction = given.get("target"), given.get("prediction")
    title = "" if target is None else f"prediction of {target}"
    if title and prediction is not None and np.isfinite(prediction):
        title += f": {prediction:.3g}"
    return _Found(scores, tokens, method, str(given.get("kind") or ""), title)


def _lines_of(
    words: Sequence[str], width: float, size: float, paper: Any
) -> list[tuple[float, int]]:
    """Return the left end in points and the line of each word, for lines of a width."""
    x, line, places = 0.3 * size, 0, []
    for word in words:
        text = word.replace("$", r"\$")
        vertices = paper((0, 0), text, size=size).vertices
        length = float(np.ptp(vertices[:, 0])) if len(vertices) else 0.3 * size
        if x + length > width and x > 0.3 * size:
            x, line = 0.3 * size, line + 1
        places.append((x, line))
        x += length + 0.85 * size
    return places
