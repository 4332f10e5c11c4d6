"""Small views of raw cells: an image, a line, a cloud of points, or words."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skmm._frame._column import column_names, columns_of, is_missing
from skmm._frame._media import cell_kind
from skmm._frame._types import CellColumn
from skmm.exceptions import CellTypeError, MediaDecodeError, MissingExtraError
from skmm.inspection._cell_edits import column_positions, has_cells
from skmm.inspection._displays._drawing import BLUE, COLORS, fit_name
from skmm.readers import read_audio, read_points, read_series, read_video
from skmm.readers._image import is_image_list, read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CellView",
    "cells_of",
    "columns_in",
    "draw_view",
    "line_of",
    "image_of_view",
    "present_in",
    "view_of",
]

_SIDE = 256  # pixels of a side, above which an image is reduced
_RATE = 8000  # samples per second of an audio clip from a file
_SECONDS = 10.0  # of audio that are shown
_MOST_CHANNELS = 4
_MOST_POINTS = 500  # of a line or a cloud
_UNREADABLE = (CellTypeError, MediaDecodeError, MissingExtraError)


class CellView(NamedTuple):
    """Small view of a cell.

    Attributes
    ----------
    kind : {"image", "line", "cloud", "words", "absent"}
        How it is drawn.
    content : ndarray or str
        Image (height, width, 3) of uint8; line (n_points, n_channels); cloud (n_points, 2);
        words.
    """

    kind: str
    content: Any


def cells_of(X: CellColumn, positions: list[int]) -> list[Any]:
    """Return the cell of each row of a modality; a dict by column if it has several columns."""
    columns = columns_of(X, positions)
    if len(columns) == 1:
        return [
            None if gone else cell
            for cell, gone in zip(columns[0].values, columns[0].missing, strict=True)
        ]
    names = [str(column_names(X)[position]) for position in positions]
    rows = zip(*(column.values for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def view_of(cell: object) -> CellView:
    """Return a small view of a cell of any modality.

    Parameters
    ----------
    cell : object
        Raw cell; or a dict of str to cells, of which the first media cell is shown, else all as
        words.

    Returns
    -------
    view : CellView
        A cell that cannot be read is shown as words.
    """
    if isinstance(cell, Mapping):
        present = {name: own for name, own in cell.items() if not _is_absent(own)}
        views = {name: view_of(own) for name, own in present.items()}
        media = [view for view in views.values() if view.kind != "words"]
        if media or not views:
            return media[0] if media else CellView("absent", "")
        return CellView("words", "\n".join(f"{name}: {v.content}" for name, v in views.items()))
    if _is_absent(cell):
        return CellView("absent", "")
    try:
        make_view: Callable[[object], CellView] = _VIEWS.get(cell_kind(cell) or "", _words)
        return make_view(cell)
    except _UNREADABLE:
        return _words(cell)


def _is_absent(cell: object) -> bool:
    values = np.empty(1, dtype=object)
    values[0] = cell
    return bool(is_missing(values)[0])


def _words(cell: object) -> CellView:
    if isinstance(cell, float | np.floating):
        return CellView("words", f"{cell:.4g}")
    if isinstance(cell, str | bool | int | np.generic):
        return CellView("words", str(cell))
    if isinstance(cell, os.PathLike):
        return CellView("words", os.path.basename(os.fspath(cell)))
    return CellView("words", f"({type(cell).__name__})")


def _image(cell: Any) -> CellView:
    pixels = read_image(cell[0] if is_image_list(cell) else cell, draft=_SIDE)
    return CellView("image", _reduced(pixels))


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Average blocks of pixels, so that a figure does not keep a photo of 12 megapixels."""
    block = max(pixels.shape[:2]) // _SIDE
    if block < 2 or min(pixels.shape[:2]) < block:
        return pixels
    height, width = (n // block for n in pixels.shape[:2])
    cut = pixels[: height * block, : width * block].reshape(height, block, width, block, 3)
    means: np.ndarray = cut.mean(axis=(1, 3))
    return means.round().astype(np.uint8)


def _frame(cell: object) -> CellView:
    frames = iter(read_video(cell, n_frames=1))
    return CellView("image", _reduced(next(frames)))


def _audio(cell: object) -> CellView:
    windows = read_audio(cell, rate=_RATE, window=1.0)
    samples = np.concatenate(list(itertools.islice(windows, int(_SECONDS))))
    return CellView("line", _thinned(samples[:, None]))


def _series(cell: object) -> CellView:
    return CellView("line", _thinned(read_series(cell)[:, :_MOST_CHANNELS]))


def _cloud(cell: object) -> CellView:
    points = read_points(cell)[:, :3]
    points = points[:: max(1, len(points) // _MOST_POINTS)]
    widest = np.sort(np.argsort(np.ptp(points, axis=0), kind="stable")[1:])
    return CellView("cloud", points[:, widest])


def _thinned(series: np.ndarray) -> np.ndarray:
    """Reduce a long line to the lowest and highest value of each segment."""
    series = np.asarray(series, dtype=float)
    if len(series) <= 2 * _MOST_POINTS:
        return series
    edges = np.unique(np.linspace(0, len(series), _MOST_POINTS + 1).astype(int))[:-1]
    low, high = (f.reduceat(series, edges, axis=0) for f in (np.fmin, np.fmax))
    return np.stack([low, high], axis=1).reshape(-1, series.shape[1])


def line_of(cell: object) -> np.ndarray | None:
    """Return whole audio or a series, (n_points, n_channels); None for a cell of another kind."""
    kind = cell_kind(cell)
    if kind == "audio":
        return _thinned(np.concatenate(list(read_audio(cell, rate=_RATE, window=30.0)))[:, None])
    if kind in ("1-D array", "2-D array"):
        return _thinned(read_series(cell)[:, :_MOST_CHANNELS])
    return None


_VIEWS: dict[str, Callable[[object], CellView]] = {
    "image": _image,
    "video": _frame,
    "audio": _audio,
    "pointcloud": _cloud,
    "1-D array": _series,
    "2-D array": _series,
}


def draw_view(
    ax: "Axes",
    view: CellView,
    box: tuple[float, float, float, float],
    *,
    unit: float,
    font_size: float,
    bold: bool = False,
) -> Any:
    """Draw a view into a box of axes with an equal aspect.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes whose limits and aspect the caller sets.
    view : CellView
        View to draw.
    box : tuple of float
        Left, right, bottom and top, in data coordinates.
    unit : float
        Length of 1 in data coordinates, in points (1/72 inch).
    font_size : float
        Font size of words in points.
    bold : bool, default=False
        Whether words are bold.

    Returns
    -------
    artist : matplotlib Artist or list of them
        AxesImage of an image, Text of words, list of Line2D of anything else.
    """
    left, right, bottom, top = box
    center = (left + right) / 2, (bottom + top) / 2
    width, height = right - left, abs(top - bottom)
    up = 1.0 if top > bottom else -1.0
    if view.kind == "image":
        n_rows, n_columns = view.content.shape[:2]
        scale = min(width / n_columns, height / n_rows) / 2
        half = n_columns * scale, n_rows * scale * up
        return ax.imshow(
            view.content,
            extent=(center[0] - half[0], center[0] + half[0], center[1] - half[1],
                    center[1] + half[1]),
            origin="upper",
            aspect="equal",
        )  # fmt: skip
    if view.kind in ("line", "cloud"):
        return _draw_numbers(ax, view, center, width, height * up)
    size = width * unit, height * unit
    words = "—" if view.kind == "absent" else _fitted(view.content, *size, font_size)
    return ax.text(
        *center, words, ha="center", va="center", fontsize=font_size, parse_math=False,
        fontweight="bold" if bold else "normal", linespacing=1.1,
    )  # fmt: skip


def _draw_numbers(
    ax: "Axes", view: CellView, center: tuple[float, float], width: float, height: float
) -> list[Any]:
    values = np.asarray(view.content, dtype=float)
    low, spread = np.nanmin(values, axis=0), np.ptp(values[np.isfinite(values).all(axis=1)], axis=0)
    if view.kind == "cloud":
        unit = (values - low - spread / 2) / max(float(spread.max()), 1e-12)
        x, y = center[0] + width * unit[:, 0], center[1] + height * unit[:, 1]
        return ax.plot(x, y, ".", color=BLUE, markersize=1.5)
    largest = max(float(np.nanmax(values) - low.min()), 1e-12)
    x = center[0] + width * (np.linspace(0, 1, len(values)) - 0.5)
    y = center[1] + 0.8 * height * ((values - low.min()) / largest - 0.5)
    drawn: list[Any] = []
    for channel in range(values.shape[1]):
        drawn += ax.plot(x, y[:, channel], color=COLORS[channel % len(COLORS)], linewidth=0.8)
    return drawn


def _fitted(words: str, width: float, height: float, font_size: float) -> str:
    """Break and cut words so that they fit a box; all sizes are in points."""
    n_letters = max(6, int(width / (0.56 * font_size)))
    n_lines = max(1, int(height / (1.2 * font_size)))
    lines: list[str] = []
    for line in words.splitlines():
        lines += fit_name(line, width=n_letters, n_lines=n_lines).split("\n")
    if len(lines) > n_lines:
        lines = [*lines[: n_lines - 1], lines[n_lines - 1][: n_letters - 1] + "…"]
    return "\n".join(lines)


def image_of_view(view: CellView, side: int) -> np.ndarray:
    """Return the pixels of an image, or of a rendered line or cloud.

    Parameters
    ----------
    view : CellView
        View of any kind except words.
    side : int
        Pixels of the longer side of a line or cloud; an image keeps its size.

    Returns
    -------
    pixels : ndarray of shape (height, width, 3), uint8
        The image, or a dark drawing on white.
    """
    if view.kind == "image":
        return np.asarray(view.content)
    values = np.asarray(view.content, dtype=float)
    shape = (side, side) if view.kind == "cloud" else (side // 2, side)
    pixels = np.full((*shape, 3), 255, dtype=np.uint8)
    ink = [int(BLUE[i : i + 2], 16) for i in (1, 3, 5)]
    if view.kind == "cloud":
        low, spread = values.min(axis=0), max(float(np.ptp(values, axis=0).max()), 1e-12)
        places = ((values - low) / spread * (side - 1)).astype(int)
        pixels[side - 1 - places[:, 1], places[:, 0]] = ink
        return pixels
    line = values[:, 0]
    low, spread = np.nanmin(line), max(float(np.nanmax(line) - np.nanmin(line)), 1e-12)
    known = np.isfinite(line)
    x = np.linspace(0, 1, len(line))
    fine = np.interp(np.linspace(0, 1, 16 * side), x[known], (line[known] - low) / spread)
    rows = ((1 - fine) * (shape[0] - 1)).round().astype(int)
    pixels[rows, np.arange(16 * side) // 16] = ink
    return pixels


# --- Columns of the modalities of an alignment in a frame ---


def columns_in(
    alignment: object,
    X: CellColumn,
    names: Sequence[str],
    columns: Mapping[str, Any] | None,
    *,
    owner: str,
) -> dict[str, list[int]]:
    """Find the columns of some modalities.

    Parameters
    ----------
    alignment : estimator
        Fitted.
    X : DataFrame of shape (n_samples, n_columns), Series or list of cells
        Data with the modalities.
    names : sequence of str
        Modalities.
    columns : dict of str to columns, or None
        Columns given by the user.
    owner : str
        Class of the display, for error messages.

    Returns
    -------
    positions : dict of str to list of int
        Columns of ``X`` for each name.
    """
    triples = getattr(alignment, "modalities_", ())
    known = {name: key for name, _, key in triples if key is not None}
    known |= dict(columns or {})
    present = column_names(X)
    found = {}
    for name in names:
        if len(getattr(X, "shape", (0,))) < 2:  # cells of one modality
            found[name] = [0]
        elif name in known:
            found[name] = column_positions(X, known[name])
        elif name in present:
            found[name] = [present.index(name)]
        else:
            raise ValueError(
                f"{owner}: {type(alignment).__name__} has no columns of {name!r}. Give"
                f" them, as in columns={{{name!r}: ['photo']}}."
            )
    return found


def present_in(X: CellColumn, columns: Mapping[str, Any]) -> np.ndarray:
    """Return which rows have which modality, (n_samples, n_modalities) bool."""
    return np.column_stack([has_cells(X, column_positions(X, key)) for key in columns.values()])
