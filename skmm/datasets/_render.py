"""Rendering and measuring of the characters of a font, and the cache of the rendered arrays."""

import contextlib
import hashlib
import os
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skmm._environment._optional import import_optional

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

__all__ = [
    "MEASURES",
    "cached_arrays",
    "data_folder",
    "render_font",
    "rendering_key",
    "find_font",
    "is_rendering",
]

# Part of the cache key. Raise it with every change of a pixel or a measure.
VERSION = 1
MEASURES = ("advance_width", "ink_left", "ink_top", "ink_width", "ink_height", "ink_share")

# Shares of the image's height. They center the usual ink, which reaches from 0.93 em above the
# baseline to 0.24 em below. Larger characters are shrunk.
_EM = 0.72
_BASELINE = 0.748
# Rendered larger and reduced: hinting differs among versions of FreeType, and this hides it.
_OVERSAMPLING = 4
_MEASURED_EM = 128  # pixels per em


def find_font(needed_by: str) -> Path:
    """Return the path of the font DejaVu Sans that matplotlib ships."""
    matplotlib = import_optional("matplotlib", needed_by=needed_by)
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def rendering_key(path: Path, image_size: int, *, needed_by: str) -> str:
    """Return a file name that identifies all that the rendered arrays depend on."""
    features = import_optional("PIL.features", needed_by=needed_by)
    font = hashlib.sha256(path.read_bytes()).hexdigest()
    freetype = features.version("freetype2") or "unknown"
    # Python's Unicode version decides which characters have a name.
    text = f"{font} {freetype} {unicodedata.unidata_version} {VERSION}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    return f"glyphs-{image_size}-{digest}"


def render_font(path: Path, image_size: int, *, needed_by: str) -> dict[str, np.ndarray]:
    """Render and measure every named character of a font that leaves ink.

    Parameters
    ----------
    path : Path
        A TrueType font.
    image_size : int
        Height and width of the images, in pixels.
    needed_by : str
        Name of the calling function, for errors about missing packages.

    Returns
    -------
    arrays : dict of str to ndarray
        - ``code_points`` (n,) int32, ascending;
        - ``images`` (n, image_size, image_size) uint8, black (0) on white (255);
        - ``measures`` (n, 6) float32, the columns of `MEASURES`: five in em, then a share;
        - ``shapes`` (n,) int32, equal for characters that look the same.
    """
    image_font = import_optional("PIL.ImageFont", needed_by=needed_by)
    ft2font = import_optional("matplotlib.ft2font", needed_by=needed_by)
    candidates = [code for code in sorted(ft2font.FT2Font(str(path)).get_charmap()) if _named(code)]
    # Every build of Pillow has the basic layout. It renders the isolated form of Arabic letters.
    font = image_font.truetype(str(path), _MEASURED_EM, layout_engine=image_font.Layout.BASIC)
    renderer = _Renderer(font, image_size)
    codes, images, measures, shapes = [], [], [], []
    seen: dict[bytes, int] = {}
    for code in candidates:
        measured = _measure(chr(code), font)
        if measured is None:  # no ink
            continue
        codes.append(code)
        measures.append(measured[0])
        shapes.append(seen.setdefault(measured[1], len(seen)))
        images.append(renderer.render(chr(code), measured[0]))
    return {
        "code_points": np.array(codes, dtype=np.int32),
        "images": np.stack(images),
        "measures": np.array(measures, dtype=np.float32),
        "shapes": np.array(shapes, dtype=np.int32),
    }


def is_rendering(arrays: dict[str, np.ndarray], image_size: int) -> bool:
    """Return whether arrays have the names, shapes and dtypes of those of `render_font`."""
    if set(arrays) != {"code_points", "images", "measures", "shapes"}:
        return False
    n_characters = len(arrays["code_points"])
    forms = {
        "code_points": ((n_characters,), np.int32),
        "images": ((n_characters, image_size, image_size), np.uint8),
        "measures": ((n_characters, len(MEASURES)), np.float32),
        "shapes": ((n_characters,), np.int32),
    }
    return n_characters > 0 and all(
        arrays[name].shape == shape and arrays[name].dtype == dtype
        for name, (shape, dtype) in forms.items()
    )


def _named(code: int) -> bool:
    """Return whether a character has a name and is neither a control nor a space."""
    character = chr(code)
    return bool(unicodedata.name(character, "")) and unicodedata.category(character)[0] not in "CZ"


def _ink(
    character: str, font: "FreeTypeFont", side: int, origin: tuple[int, int]
) -> tuple[Any, Any]:
    """Render a character in white on a black square; return it and its bounding box or None."""
    # Imported here: the caller has checked that Pillow is installed.
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (side, side), 0)
    ImageDraw.Draw(canvas).text(origin, character, fill=255, font=font, anchor="ls")
    return canvas, canvas.getbbox()


def _measure(character: str, font: "FreeTypeFont") -> tuple[list[float], bytes] | None:
    """Return measures in em and a digest of the shape, or None without ink."""
    # The widest glyphs reach 1.7 em to the right and 1.1 em to the left.
    origin = (2 * _MEASURED_EM, 2 * _MEASURED_EM)
    canvas, box = _ink(character, font, 4 * _MEASURED_EM, origin)
    if box is None:
        return None
    left, top, right, bottom = box
    pixels = np.asarray(canvas.crop(box))
    measures = [
        font.getlength(character),
        left - origin[0],
        origin[1] - top,
        right - left,
        bottom - top,
    ]
    share = pixels.mean(dtype=np.float64) / 255
    digest = hashlib.sha256(f"{left} {top} {right} {bottom}".encode() + pixels.tobytes()).digest()
    return [value / _MEASURED_EM for value in measures] + [share], digest


class _Renderer:
    """Render characters on squares of one size, with a common baseline."""

    def __init__(self, font: "FreeTypeFont", image_size: int):
        self.side = image_size * _OVERSAMPLING
        self.em = round(self.side * _EM)
        self.font = font.font_variant(size=self.em)

    def render(self, character: str, measures: list[float]) -> np.ndarray:
        """Return the image of a character, (image_size, image_size) uint8."""
        from PIL import ImageChops

        _, left, top, width, height, _ = (round(value * self.em) for value in measures)
        baseline = round(self.side * _BASELINE)
        if width <= self.side and top <= baseline and baseline + height - top <= self.side:
            x = self.side // 2 - left - width // 2
            canvas, _ = _ink(character, self.font, self.side, (x, baseline))
        else:
            # Larger than the image: render on a larger canvas, crop and shrink.
            wide = 3 * self.side
            origin = (wide // 2 - left - width // 2, wide // 2)
            canvas, box = _ink(character, self.font, wide, origin)
            canvas = _squared(canvas, box).resize((self.side, self.side))
        return np.asarray(ImageChops.invert(canvas.reduce(_OVERSAMPLING)))


def _squared(canvas: "Image", box: tuple[int, int, int, int]) -> Any:
    """Crop the smallest square that has the ink in its center."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return canvas.crop((x, y, x + side, y + side))


# --- The cache of rendered data sets: its folder, checked reads, atomic writes ---

Arrays = dict[str, np.ndarray]


def data_folder(data_home: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the cached data sets; it need not exist.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder. If None, it is the environment variable ``SKMM_DATA_HOME``, or without it the
        folder ``skmm`` in the platform's folder for caches.

    Returns
    -------
    folder : Path
        The folder, its ``~`` expanded.
    """
    chosen = data_home if data_home is not None else os.environ.get("SKMM_DATA_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "skmm"


def cached_arrays(
    path: Path, make: Callable[[], Arrays], is_valid: Callable[[Arrays], bool], *, needed_by: str
) -> Arrays:
    """Read arrays from a file, or compute them and write the file.

    A damaged or invalid file is written again. If the folder cannot be written, the arrays are
    returned with a warning.

    Parameters
    ----------
    path : Path
        The ``.npz`` file. Its name must identify all that the arrays depend on.
    make : callable
        Returns the arrays, a dict of name to array without object dtypes.
    is_valid : callable
        Returns whether the arrays of a file have the expected names, shapes and dtypes.
    needed_by : str
        Name of the calling function, for the warning.

    Returns
    -------
    arrays : dict of str to ndarray
        New arrays that the caller may change.
    """
    arrays = _read(path)
    if arrays is not None and is_valid(arrays):
        return arrays
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"{needed_by} cannot keep its images in {path.parent}: {error}. Pass data_home= or"
            " set SKMM_DATA_HOME to a folder that can be written.",
            UserWarning,
            stacklevel=3,
        )
    return arrays


def _read(path: Path) -> Arrays | None:
    """Return the arrays of a file, or None if it is absent or damaged."""
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            # zipfile checks a CRC of every array that is read to its end.
            return {name: file[name] for name in file.files}
    except Exception:
        # A damaged archive raises many errors: BadZipFile, zlib.error, struct.error,
        # NotImplementedError for an unknown compression, AttributeError for a plain .npy.
        return None


def _write(path: Path, arrays: Arrays) -> None:
    """Write a temporary file and rename it, so that no process reads a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
