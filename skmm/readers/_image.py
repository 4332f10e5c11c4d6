"""Image cells: path, bytes, PIL image or array, all to 8-bit RGB.

Two things are never done: guessing at values (a float image outside [0, 1] is refused, not
clipped) and dropping content unseen (transparency is composited, 16 bits are scaled, the EXIF
rotation is applied).
"""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import numpy as np

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers._source import (
    array_of,
    digest_array,
    digest_bytes,
    hasher,
    is_source,
    shorten,
    source_bytes,
)

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ImageList",
    "digest_image",
    "digest_image_list",
    "is_image_list",
    "load_image",
    "load_image_list",
    "read_image",
]

Color = tuple[int, int, int]
_Result = TypeVar("_Result")

_ORIENTATION = 0x0112  # EXIF tag
_WHITE = (255, 255, 255)
# Interpolation and float32 leave values a little outside [0, 1].
_SLACK = 1e-4


def read_image(cell: object, *, background: Color = _WHITE, draft: int | None = None) -> np.ndarray:
    """Decode an image.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, PIL image or array
        A path, the content of an image file, or the image itself. Files: the first frame, in
        any format that pillow reads. Arrays: ``(height, width)``, or with a last axis of 1, 3 or
        4 channels; ``(1, height, width)`` and ``(3, height, width)`` are taken where the last
        axis cannot be the channels. They hold uint8, uint16 (0 to 65535), bool, or float in
        [0, 1]. Anything with ``__array__`` (a torch tensor on the CPU) counts as an array.
    background : tuple of 3 int, default=(255, 255, 255)
        Color, 0 to 255, that shows through where the image is transparent.
    draft : int, default=None
        Let a JPEG file be decoded at a fraction of its size (1/2, 1/4 or 1/8) that leaves both
        sides at least this long, in pixels. About twice as fast, with slightly other pixels.
        None decodes in full. No effect on other cells.

    Returns
    -------
    image : ndarray of shape (height, width, 3), uint8
        RGB, rotated as the EXIF orientation asks. It shares no memory with the cell.

    Raises
    ------
    CellTypeError
        If the cell is no image, or an array whose shape, dtype or range is none of the above.
    MediaDecodeError
        If a file is missing, truncated, no image, or has more pixels than
        ``PIL.Image.MAX_IMAGE_PIXELS`` allows.

    Notes
    -----
    16-bit values are divided by 257, so that 65535 becomes 255. A file of 32-bit values (modes
    ``"I"`` and ``"F"`` of pillow) does not say what its white is: the smallest of 1 (``"F"``
    only), 255 and 65535 that no value exceeds is taken; beyond that, or below 0, it is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.readers import read_image
    >>> read_image(np.array([[0.0, 1.0]])).tolist()
    [[[0, 0, 0], [255, 255, 255]]]

    What is transparent shows the background:

    >>> clear = np.zeros((1, 1, 4), dtype=np.uint8)
    >>> read_image(clear, background=(0, 128, 0)).tolist()
    [[[0, 128, 0]]]
    """
    return _decode(_taken(cell), cell, background, draft)


def digest_image(cell: object) -> bytes:
    """Name the content of an image cell.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, PIL image or array
        As :func:`read_image` takes it.

    Returns
    -------
    digest : bytes
        16 bytes. A file has the digest of its bytes, under whatever path or none. A PIL image has
        that of its mode, size, pixels, palette, transparency and orientation; an array that of
        its dtype, shape and values.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As :func:`read_image` does, save that the bytes of a file are not decoded.
    """
    return _digest(_taken(cell))


def load_image(
    cell: object, *, background: Color = _WHITE, draft: int | None = None
) -> tuple[bytes, np.ndarray]:
    """Digest and decode an image from one look at the cell.

    A file is read once. Reading it for the digest and again for the pixels would let a file that
    changes in between be stored under the name of the other.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, PIL image or array
        As :func:`read_image` takes it.
    background : tuple of 3 int, default=(255, 255, 255)
        As in :func:`read_image`. It does not enter the digest.
    draft : int, default=None
        As in :func:`read_image`. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_image(cell)``.
    image : ndarray of shape (height, width, 3), uint8
        Equal to ``read_image(cell)`` under the same options.
    """
    taken = _taken(cell)
    return _digest(taken), _decode(taken, cell, background, draft)


def _taken(cell: object) -> "bytes | Image.Image | np.ndarray":
    """Reduce a cell to file bytes, a loaded PIL image, or a numeric array."""
    if is_source(cell):
        return source_bytes(cell, kind="image")
    if _is_pil(cell):
        # A lazily opened image may yet meet a truncated file, and a TIFF turns only here.
        _guarded(cell.load, cell)
        return cell
    # numpy scalars have __array__ too, and no image is one number.
    if hasattr(type(cell), "__array__") and not isinstance(cell, np.generic):
        return _array(cell)
    if hasattr(cell, "read"):
        source_bytes(cell, kind="image")  # words the refusal of open files
    way = "Give a path, bytes, a PIL image or an array."
    if isinstance(cell, list | tuple):
        way = "Convert it first: numpy.asarray(cell, dtype=numpy.uint8)."
    raise CellTypeError(f"Cannot read an image from a cell of type {type(cell).__name__}. {way}")


def _is_pil(cell: object) -> "TypeGuard[Image.Image]":
    # A PIL image cannot exist before its module does, so pillow is not imported to ask.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(cell, module.Image)


def _array(cell: object) -> np.ndarray:
    array = array_of(cell, "image")
    if array.dtype.kind not in "biuf":
        raise CellTypeError(
            f"Cannot read an image from an array of dtype {array.dtype}."
            " Use uint8, uint16, bool, or float in [0, 1]."
        )
    return array


def _digest(taken: "bytes | Image.Image | np.ndarray") -> bytes:
    if isinstance(taken, bytes):
        return digest_bytes(taken)
    if isinstance(taken, np.ndarray):
        return digest_array(taken)
    h = hasher("pil")
    palette = None
    if taken.palette is not None:
        palette = (taken.palette.mode, taken.getpalette(None))
    transparency = taken.info.get("transparency")
    header = (taken.mode, taken.size, _orientation(taken), palette, transparency)
    # repr escapes control characters: the null byte surely ends the header.
    h.update(f"{header!r}\0".encode())
    h.update(taken.tobytes())
    return h.digest()


def _decode(
    taken: "bytes | Image.Image | np.ndarray", cell: object, background: Color, draft: int | None
) -> np.ndarray:
    if isinstance(taken, np.ndarray):
        return _opaque(_eight_bit(_channels_last(taken)), background)
    if isinstance(taken, bytes):
        return _guarded(lambda: _file_pixels(taken, background, draft), cell)
    return _guarded(lambda: _pixels(taken, background), cell)


def _guarded(step: Callable[[], _Result], cell: object) -> _Result:
    """Run a step of pillow; whatever it raises over foreign bytes becomes one error."""
    from PIL import Image, UnidentifiedImageError

    try:
        return step()
    except MemoryError:
        raise  # says nothing about the image
    except UnidentifiedImageError as error:
        reason = "it is in no format that pillow reads"
        cause: Exception = error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = (
            "it has more pixels than PIL.Image.MAX_IMAGE_PIXELS allows (raise that limit if you"
            " trust the file)"
        )
        cause = error
    except Exception as error:
        # Pillow's parsers let through what they stumble over: OSError, SyntaxError,
        # struct.error, IndexError, ... No list of them stays complete.
        reason = str(error).rstrip(".") or type(error).__name__
        cause = error
    raise MediaDecodeError(f"Cannot decode the image {_named(cell)}: {reason}.") from cause


def _named(cell: object) -> str:
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
        return f"in {len(data)} bytes that begin with {data[:8]!r}"
    if is_source(cell):
        return shorten(cell)
    filename = getattr(cell, "filename", "")  # of a PIL image
    return shorten(filename) if filename else f"in a {type(cell).__name__} object"


def _file_pixels(data: bytes, background: Color, draft: int | None) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if draft is not None:
            image.draft(None, (draft, draft))
        image.load()
        return _pixels(image, background)


def _orientation(image: "Image.Image") -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Broken metadata is common in the wild, and no reason to refuse an audio clip image.
        return 1


def _pixels(image: "Image.Image", background: Color) -> np.ndarray:
    """8-bit RGB from a loaded image, which is left as it is."""
    from PIL import ImageOps

    if 0 in image.size:
        raise ValueError("it has no pixels")
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _deep_gray(image, background)
    if image.mode == "La":
        image = image.convert("LA")  # pillow knows no direct way from here to RGB
    if image.has_transparency_data:
        return _opaque(np.asarray(image.convert("RGBA")), background)
    return np.array(image.convert("RGB"))


def _deep_gray(image: "Image.Image", background: Color) -> np.ndarray:
    """Pillow itself would clip these modes at 255, which whitens a 16-bit image."""
    gray = np.asarray(image)
    tops = (65535,) if image.mode.startswith("I;16") else (255, 65535)
    if image.mode == "F":
        tops = (1, *tops)
    low, high = gray.min(), gray.max()
    top = next((top for top in tops if high <= top), None)
    if top is None or low < 0:  # NaN is at most nothing, so top is None
        raise ValueError(
            f"its values go from {low:g} to {high:g}, and no scale is known for that; an array of"
            " floats in [0, 1] is"
        )
    rgb = _opaque(np.rint(gray * (255.0 / top)).astype(np.uint8), background)
    clear = image.info.get("transparency")  # one gray value, in the units of the file
    if isinstance(clear, int):
        rgb[gray == clear] = background
    return rgb


def _channels_last(array: np.ndarray) -> np.ndarray:
    """``(height, width)`` or ``(height, width, channels)``."""
    shape = array.shape
    if 0 in shape:
        raise CellTypeError(f"Cannot read an image from an empty array of shape {shape}.")
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
        return array
    if len(shape) == 3 and shape[0] in (1, 3):
        return np.moveaxis(array, 0, -1)
    way = "Use (height, width) or (height, width, channels) with 1, 3 or 4 channels."
    if len(shape) == 3 and shape[0] == 4:
        # Four gray frames look the same: not to be guessed at.
        way = "If its channels come first, use numpy.moveaxis(cell, 0, -1)."
    elif len(shape) == 4:
        way = "If it is a batch or a clip, put one image into each cell."
    raise CellTypeError(f"Cannot read an image from an array of shape {shape}. {way}")


def _eight_bit(array: np.ndarray) -> np.ndarray:
    kind, name = array.dtype.kind, array.dtype.name
    if name == "uint8":
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if name == "uint16":
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind != "f":
        raise CellTypeError(
            f"Cannot read an image from an array of dtype {name}, whose white is unknown."
            " Use cell.astype(numpy.uint8) if its values go from 0 to 255."
        )
    low, high = array.min(), array.max()
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN fails both
        raise CellTypeError(
            f"Cannot read an image from a float array with values from {low:g} to {high:g}."
            " Scale it to [0, 1], e.g. by cell / 255."
        )
    scaled: np.ndarray = np.rint(np.clip(array, 0, 1) * np.float64(255))
    return scaled.astype(np.uint8)


def _opaque(array: np.ndarray, background: Color) -> np.ndarray:
    """Own RGB memory from uint8 with no, 1, 3 or 4 channels."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        behind = np.asarray(background, dtype=np.uint16) * (255 - alpha)
        # At most 255 * 255 + 127: fits 16 bits.
        return ((array[:, :, :3] * alpha + behind + 127) // 255).astype(np.uint8)
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")


# --- cells that hold several images: a list of paths, bytes, PIL images or arrays ---------


class ImageList:
    """The images of one cell, decoded as they are asked for, any number of times.

    Parameters
    ----------
    cells : sequence of cells
        Each as ``read_image`` takes it.
    digests : list of bytes
        Their contents; a file that has another by the time it is decoded is refused.
    draft : int, default=None
        As in ``read_image``.
    """

    def __init__(self, cells: Sequence[object], digests: list[bytes], draft: int | None = None):
        self._cells = cells
        self._digests = digests
        self._draft = draft

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[np.ndarray]:
        for i, (cell, expected) in enumerate(zip(self._cells, self._digests, strict=True)):
            digest, image = _with_number(partial(load_image, draft=self._draft), cell, i, len(self))
            if digest != expected:
                raise MediaDecodeError(
                    f"Image {i + 1} of {len(self)} changed while being read. Encode files that"
                    " nobody writes to."
                )
            yield image

    def __getitem__(self, picked: list[int]) -> "ImageList":
        cells = [self._cells[i] for i in picked]
        return ImageList(cells, [self._digests[i] for i in picked], self._draft)


def is_image_list(cell: object) -> TypeGuard[Sequence[object]]:
    """Whether a cell is a list of images, as against one image.

    Parameters
    ----------
    cell : object
        A cell that is not missing.

    Returns
    -------
    bool
        True for a list, a tuple or a one-dimensional object array, save nested lists of numbers.
    """
    if isinstance(cell, np.ndarray):
        return cell.dtype == object and cell.ndim == 1
    if not isinstance(cell, list | tuple):
        return False
    return not cell or not isinstance(cell[0], list | tuple | int | float | np.generic)


def digest_image_list(cell: Sequence[object]) -> bytes:
    """Name the content of a list of images: theirs, in their order.

    Parameters
    ----------
    cell : list, tuple or ndarray of cells
        What :func:`is_image_list` says yes to.

    Returns
    -------
    digest : bytes
        16 bytes, other than those of the images, one alone included.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As ``digest_image`` does, naming the image; the latter also if the list is empty.
    """
    return _digest_of_all(_digests(cell))


def load_image_list(cell: Sequence[object], *, draft: int | None = None) -> tuple[bytes, ImageList]:
    """Digest a list of images, and give them to be decoded one after the other.

    Parameters
    ----------
    cell : list, tuple or ndarray of cells
        What :func:`is_image_list` says yes to.
    draft : int, default=None
        As in ``read_image``. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_image_list(cell)``.
    images : ImageList
        Of that very content.
    """
    digests = _digests(cell)
    for i, item in enumerate(cell):
        if hasattr(type(item), "__array__") and not hasattr(item, "filename"):
            # An array of the wrong shape or range is told here, where the cell is known.
            _with_number(read_image, item, i, len(cell))
    return _digest_of_all(digests), ImageList(cell, digests, draft)


def _digests(cell: Sequence[object]) -> list[bytes]:
    if not len(cell):
        raise MediaDecodeError(
            "Cannot read an image from an empty list. Put None into the cell where there is none."
        )
    return [_with_number(digest_image, item, i, len(cell)) for i, item in enumerate(cell)]


def _digest_of_all(digests: list[bytes]) -> bytes:
    h = hasher("images")
    for digest in digests:
        h.update(digest)
    return h.digest()


def _with_number(verb: Callable[[object], _Result], cell: object, i: int, n: int) -> _Result:
    """Apply a reader to one of several images, and say which one it does not take."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        raise CellTypeError(f"Image {i + 1} of {n} is missing. Leave it out of the list.")
    try:
        return verb(cell)
    except (CellTypeError, MediaDecodeError) as error:
        raise type(error)(f"Image {i + 1} of {n}: {error}") from error
