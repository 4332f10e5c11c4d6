"""Images and plots of the cells of media; few cells are decoded, one at a time."""

import base64
import html
import io
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from skmm._frame_report._facts import Drawing, Sample, spell
from skmm.readers import read_audio, read_image, read_points, read_series, read_video
from skmm.readers._image import is_image_list
from skmm.readers._source import is_source, open_file

__all__ = [
    "SHOW",
    "bars",
    "envelope",
    "glance",
    "lines",
    "scatter",
    "size_of",
    "steps",
    "thumbnail",
]

# --- Drawings for a page: plots as SVG, thumbnails as PNG inside the page ---
# Each function returns markup. ``words`` is the alternative text, which is escaped here.

_WIDTH, _HEIGHT = 240, 72
_SIDE = 112  # pixels of a thumbnail's longer side
_MOST_CHANNELS = 6
_MOST_POINTS = 400


def thumbnail(pixels: np.ndarray, words: str) -> Drawing:
    """Draw a thumbnail of an array ``(height, width, 3)`` of uint8."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    width, height = image.size
    return Drawing(
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}"'
        f' alt="{html.escape(words)}">'
    )


def steps(counts: np.ndarray, words: str) -> Drawing:
    """Draw a histogram: a bar for each count."""
    top = max(int(counts.max()), 1)
    width = _WIDTH / len(counts)
    # A count of one stays visible next to one of a million.
    heights = [0 if not n else max(1.5, n / top * (_HEIGHT - 4)) for n in counts]
    rects = "".join(
        f'<rect x="{i * width + 0.5:.1f}" y="{_HEIGHT - h:.1f}" width="{max(width - 1, 0.5):.1f}"'
        f' height="{h:.1f}"/>'
        for i, h in enumerate(heights)
        if h
    )
    return _svg(rects, words, "fill")


def bars(shares: Sequence[tuple[str, int]], n: int) -> Drawing:
    """Draw the counts of values as a table with a bar in each row."""
    rows = "".join(
        f'<tr><th scope="row"><bdi>{html.escape(name)}</bdi></th><td>{count:,}</td>'
        f'<td><span class="bar" style="width:{max(count / n * 9, 0.1):.2f}em"></span></td></tr>'
        for name, count in shares
    )
    return Drawing(f'<table class="bars"><tbody>{rows}</tbody></table>')


def envelope(low: np.ndarray, high: np.ndarray, words: str) -> Drawing:
    """Draw a waveform from the lowest and highest value of each segment."""
    top = max(float(np.abs([low, high]).max()), 1e-9)
    x = np.linspace(0, _WIDTH, len(low))
    center, scale = _HEIGHT / 2, (_HEIGHT / 2 - 2) / top
    # Half a pixel more on either side, so that silence is a visible line.
    upper = _path(x, center - high * scale - 0.5)
    lower = _path(x[::-1], (center - low * scale + 0.5)[::-1])
    return _svg(f'<path d="M{upper}L{lower}Z"/>', words, "fill")


def lines(series: np.ndarray, words: str) -> Drawing:
    """Draw an array ``(n_timestamps, n_channels)``, one line per channel; NaN is a gap."""
    series = _thinned(np.asarray(series, dtype=float)[:, :_MOST_CHANNELS])
    finite = series[np.isfinite(series)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    spread = float(high - low) or 1.0
    x = np.linspace(0, _WIDTH, len(series)) if len(series) > 1 else np.array([_WIDTH / 2])
    y = _HEIGHT - 3 - (series - low) / spread * (_HEIGHT - 6)
    drawn = []
    for channel in range(series.shape[1]):
        known = np.isfinite(y[:, channel])
        runs = np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1)
        d = "".join(f"M{_path(x[run], y[run, channel])}h0" for run in runs if known[run[0]])
        drawn.append(f'<path class="line{channel}" d="{d}"/>')
    return _svg("".join(drawn), words, "stroke")


def scatter(points: np.ndarray, words: str, rng: np.random.Generator) -> Drawing:
    """Draw points ``(n_points, 3)`` projected along the axis of their smallest range."""
    if len(points) > _MOST_POINTS:
        points = points[np.sort(rng.choice(len(points), _MOST_POINTS, replace=False))]
    with np.errstate(over="ignore"):
        low, spread = points.min(axis=0), np.ptp(points, axis=0)
    axes = np.sort(np.argsort(spread, kind="stable")[1:])
    scale = min((_WIDTH - 8) / (spread[axes[0]] or 1), (_HEIGHT * 1.5 - 8) / (spread[axes[1]] or 1))
    x = 4 + (points[:, axes[0]] - low[axes[0]]) * scale
    y = _HEIGHT * 1.5 - 4 - (points[:, axes[1]] - low[axes[1]]) * scale
    x += (_WIDTH - 8 - spread[axes[0]] * scale) / 2
    # A line of length zero with round ends is the shortest markup of a dot.
    d = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    return _svg(f'<path class="dots" d="{d}"/>', words, "stroke", height=_HEIGHT * 1.5)


def _thinned(series: np.ndarray) -> np.ndarray:
    """Reduce a series to the lowest and highest value of each pixel."""
    if len(series) <= 2 * _WIDTH:
        return series
    edges = np.linspace(0, len(series), _WIDTH + 1).astype(int)
    kept = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        piece = series[start:stop]
        filled = np.where(np.isnan(piece), np.inf, piece).min(axis=0)
        kept.append(np.where(np.isinf(filled), np.nan, filled))
        filled = np.where(np.isnan(piece), -np.inf, piece).max(axis=0)
        kept.append(np.where(np.isinf(filled), np.nan, filled))
    return np.array(kept)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _svg(inside: str, words: str, kind: str, height: float = _HEIGHT) -> Drawing:
    words = html.escape(words)
    return Drawing(
        f'<svg class="{kind}" role="img" aria-label="{words}" width="{_WIDTH}"'
        f' height="{height:g}" viewBox="0 0 {_WIDTH} {height:g}"><title>{words}</title>'
        f"{inside}</svg>"
    )


_N_FRAMES = 4
_N_LISTED = 4  # images that are shown of a list
_SECONDS = 30  # of an audio clip that are decoded
_RATE = 8000
_LARGEST = 1 << 26  # bytes of a video or point cloud that is decoded


def glance(cell: Any, modality: str) -> tuple[int | None, tuple[int, ...] | None]:
    """Inspect a cell without decoding: its size in bytes, and the header of an image.

    Parameters
    ----------
    cell : object
        A cell that is not missing.
    modality : str
        Modality of its column.

    Returns
    -------
    n_bytes : int or None
        Size of a file or of bytes.
    shape : tuple of int or None
        Width and height of an image, the shape of an array.
    """
    if is_source(cell):
        kind = {"audio": "audio", "image": "image", "pointcloud": "point cloud"}
        opened: Any
        if isinstance(cell, str | os.PathLike):
            opened = open_file(cell, kind=kind.get(modality, modality))
            n_bytes = os.fstat(opened.fileno()).st_size
        else:
            opened = io.BytesIO(bytes(cell))
            n_bytes = memoryview(cell).nbytes
        with opened as file:
            return n_bytes, _image_size(file) if modality == "image" else None
    if modality == "image" and hasattr(cell, "size") and isinstance(cell.size, tuple):
        return None, cell.size
    if is_image_list(cell):
        return None, None
    shape = np.shape(cell)
    if modality == "image" and len(shape) >= 2:
        channels_first = len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3, 4)
        height, width = shape[1:] if channels_first else shape[:2]
        return None, (width, height)
    return None, shape


def size_of(n_bytes: int) -> str:
    """Return a number of bytes as text with a unit."""
    value, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def _image_size(file: BinaryIO) -> tuple[int, int]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large images, which are not decoded here
        with Image.open(file) as image:
            return image.size


def _show_image(cell: Any, sample: Sample, rng: np.random.Generator) -> None:
    if is_image_list(cell):
        sample.note = f"{len(cell)} images"
        for i, item in enumerate(cell[:_N_LISTED]):
            words = f"Image {i + 1} of row {sample.row}"
            sample.drawings.append(thumbnail(read_image(item, draft=256), words))
        return
    _, size = glance(cell, "image")
    width, height = size or (0, 0)
    sample.note = f"{width} × {height}"
    words = f"Image of row {sample.row}, {width} by {height} pixels"
    sample.drawings = [thumbnail(read_image(cell, draft=256), words)]


def _show_audio(cell: Any, sample: Sample, rng: np.random.Generator) -> None:
    is_file = is_source(cell)
    rate = _RATE if is_file else 1
    # The rate of an array is unknown: it is not resampled, and its length is in samples.
    length = 1.0 if is_file else float(_RATE)
    windows: Any = read_audio(cell, rate=rate, array_rate=None if is_file else 1, window=length)
    with closing(windows) if hasattr(windows, "close") else nullcontext():
        decoded = list(islice(windows, _SECONDS + 1))
    cut = len(decoded) > _SECONDS
    samples = np.concatenate(decoded[:_SECONDS])
    n = len(samples) if is_file else len(np.asarray(cell))
    sample.note = f"{n / _RATE:.3g} s" if is_file else f"{n:,} samples"
    if cut:
        sample.note = f"the first {_SECONDS} s" if is_file else f"{n:,} samples, the first ones"
    edges = np.unique(np.linspace(0, len(samples), 241).astype(int))[:-1]
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    sample.drawings = [envelope(low, high, f"Waveform of row {sample.row}, {sample.note}")]


def _show_video(cell: object, sample: Sample, rng: np.random.Generator) -> None:
    n_bytes, shape = glance(cell, "video")
    if n_bytes is not None and n_bytes > _LARGEST:
        sample.note = f"{size_of(n_bytes)}, too large to be decoded for a report"
        return
    if shape:
        sample.note = f"{shape[0]} frames"
    for i, frame in enumerate(read_video(cell, n_frames=_N_FRAMES)):
        words = f"Frame {i + 1} of {_N_FRAMES} taken from row {sample.row}"
        sample.drawings.append(thumbnail(frame, words))
        if i == 0:
            size = f"{frame.shape[1]} × {frame.shape[0]}"
            sample.note = f"{sample.note}, {size}" if sample.note else size


def _show_cloud(cell: object, sample: Sample, rng: np.random.Generator) -> None:
    n_bytes, _ = glance(cell, "pointcloud")
    if n_bytes is not None and n_bytes > _LARGEST:
        sample.note = f"{size_of(n_bytes)}, too large to be decoded for a report"
        return
    points = read_points(cell)
    sample.note = f"{len(points):,} points"
    words = f"Points of row {sample.row}, along the axis of their smallest range"
    sample.drawings = [scatter(points[:, :3], words, rng)]


def _show_series(cell: object, sample: Sample, rng: np.random.Generator) -> None:
    series = read_series(cell)
    n_timestamps, n_channels = series.shape
    sample.note = f"{n_timestamps:,} timestamps, {n_channels:,} channels"
    if n_channels == 1:
        sample.note = f"{n_timestamps:,} timestamps"
    sample.drawings = [lines(series, f"Series of row {sample.row}, {sample.note}")]


def _show_vector(cell: object, sample: Sample, rng: np.random.Generator) -> None:
    vector = read_series(cell)
    sample.note = f"{len(vector):,} numbers"
    words = f"Vector of row {sample.row}, {sample.note}"
    sample.drawings = [_vector_line(vector, words)]


def _vector_line(vector: np.ndarray, words: str) -> Drawing:
    return lines(vector[:, :1], words)


def _show_text(cell: object, sample: Sample, rng: np.random.Generator) -> None:
    sample.text = spell(cell)
    sample.note = f"{len(str(cell).split()):,} words"


# Modality -> how a cell of it is shown.
SHOW: dict[str, Callable[[Any, Sample, np.random.Generator], None]] = {
    "text": _show_text,
    "image": _show_image,
    "audio": _show_audio,
    "video": _show_video,
    "pointcloud": _show_cloud,
    "timeseries": _show_series,
    "vector": _show_vector,
}
