"""Small pictures for a page: SVG written by hand, thumbnails as PNG inside the page.

Every function gives markup. The words that it is given for blind readers are escaped here.
"""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from skmm._frame_report._facts import Picture

__all__ = ["bars", "envelope", "lines", "scatter", "steps", "thumbnail"]

_WIDTH, _HEIGHT = 240, 72
_SIDE = 112  # pixels of a thumbnail's longer side
_MOST_CHANNELS = 6
_MOST_POINTS = 400


def thumbnail(pixels: np.ndarray, words: str) -> Picture:
    """Draw an array ``(height, width, 3)`` of uint8, made small."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    width, height = image.size
    return Picture(
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}"'
        f' alt="{html.escape(words)}">'
    )


def steps(counts: np.ndarray, words: str) -> Picture:
    """Draw a histogram: a bar for each count."""
    top = max(int(counts.max()), 1)
    width = _WIDTH / len(counts)
    # A count of one stays visible beside one of a million.
    heights = [0 if not n else max(1.5, n / top * (_HEIGHT - 4)) for n in counts]
    rects = "".join(
        f'<rect x="{i * width + 0.5:.1f}" y="{_HEIGHT - h:.1f}" width="{max(width - 1, 0.5):.1f}"'
        f' height="{h:.1f}"/>'
        for i, h in enumerate(heights)
        if h
    )
    return _svg(rects, words, "fill")


def bars(shares: Sequence[tuple[str, int]], n: int) -> Picture:
    """Draw how often values are there as a table with a bar in each row."""
    rows = "".join(
        f'<tr><th scope="row"><bdi>{html.escape(name)}</bdi></th><td>{count:,}</td>'
        f'<td><span class="bar" style="width:{max(count / n * 9, 0.1):.2f}em"></span></td></tr>'
        for name, count in shares
    )
    return Picture(f'<table class="bars"><tbody>{rows}</tbody></table>')


def envelope(low: np.ndarray, high: np.ndarray, words: str) -> Picture:
    """Draw a sound: the lowest and highest value of each stretch of it."""
    top = max(float(np.abs([low, high]).max()), 1e-9)
    x = np.linspace(0, _WIDTH, len(low))
    middle, scale = _HEIGHT / 2, (_HEIGHT / 2 - 2) / top
    # Half a pixel more on either side, so that silence is a line.
    upper = _path(x, middle - high * scale - 0.5)
    lower = _path(x[::-1], (middle - low * scale + 0.5)[::-1])
    return _svg(f'<path d="M{upper}L{lower}Z"/>', words, "fill")


def lines(series: np.ndarray, words: str) -> Picture:
    """Draw an array ``(n_timestamps, n_channels)``, a line a channel; NaN is a gap."""
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


def scatter(points: np.ndarray, words: str, rng: np.random.Generator) -> Picture:
    """Draw points ``(n_points, 3)``, looked at along the axis in which they spread least."""
    if len(points) > _MOST_POINTS:
        points = points[np.sort(rng.choice(len(points), _MOST_POINTS, replace=False))]
    with np.errstate(over="ignore"):
        low, spread = points.min(axis=0), np.ptp(points, axis=0)
    axes = np.sort(np.argsort(spread, kind="stable")[1:])
    scale = min((_WIDTH - 8) / (spread[axes[0]] or 1), (_HEIGHT * 1.5 - 8) / (spread[axes[1]] or 1))
    x = 4 + (points[:, axes[0]] - low[axes[0]]) * scale
    y = _HEIGHT * 1.5 - 4 - (points[:, axes[1]] - low[axes[1]]) * scale
    x += (_WIDTH - 8 - spread[axes[0]] * scale) / 2
    # A line of no length and a round end is a dot, and the shortest way to write one.
    d = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    return _svg(f'<path class="dots" d="{d}"/>', words, "stroke", height=_HEIGHT * 1.5)


def _thinned(series: np.ndarray) -> np.ndarray:
    """At most two values a pixel: of each stretch the lowest and the highest."""
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


def _svg(inside: str, words: str, kind: str, height: float = _HEIGHT) -> Picture:
    words = html.escape(words)
    return Picture(
        f'<svg class="{kind}" role="img" aria-label="{words}" width="{_WIDTH}"'
        f' height="{height:g}" viewBox="0 0 {_WIDTH} {height:g}"><title>{words}</title>'
        f"{inside}</svg>"
    )
