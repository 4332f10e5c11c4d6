"""Image cells: path, bytes, PIL image or array, all decoded to 8-bit RGB.

Values are never guessed (a float image outside [0, 1] is refused, not clipped), and no content is
dropped silently (transparency is composited, 16 bits are scaled, the EXIF rotation is applied).
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
        A path, the content of an image file, or the image itself. Of a file, the first frame is
        read, in any format that pillow supports. An array has shape ``(height, width)``, or a last
        axis of 1, 3 or 4 channels; the shapes ``(1, height, width)`` and ``(3, height, width)``
        are accepted where the last axis cannot be the channels. Its dtype is uint8, uint16 (0 to
        65535), bool, or float with values in [0, 1]. Any object with ``__array__`` (e.g. a torch
        tensor on the CPU) counts as an array.
    background : tuple of 3 int, default=(255, 255, 255)
        RGB color, 0 to 255, that transparent pixels show.
    draft : int, default=None
        Smallest side, in pixels, to which a JPEG file may be reduced while it is decoded: its size
        is divided by 2, 4 or 8 as long as both sides stay at least this long. This is about twice
        as fast, and pixel values differ slightly. By default the full size is decoded. It has no
        effect on other cells.

    Returns
    -------
    image : ndarray of shape (height, width, 3), uint8
        RGB, rotated by the EXIF orientation. It shares no memory with the cell.

    Raises
    ------
    CellTypeError
        If the cell is not an image, or an array of another shape, dtype or range.
    MediaDecodeError
        If a file is missing, truncated or not an image, or has more pixels than
        ``PIL.Image.MAX_IMAGE_PIXELS`` allows.

    Notes
    -----
    16-bit values are divided by 257, so that 65535 becomes 255. A file of 32-bit values (modes
    ``"I"`` and ``"F"`` of pillow) does not state which value is white: the smallest of 1 (``"F"``
    only), 255 and 65535 that no value exceeds is used. A file with larger or negative values is
    refused.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.readers import read_image
    >>> read_image(np.array([[0.0, 1.0]])).tolist()
    [[[0, 0, 0], [255, 255, 255]]]

    Transparent pixels show the background:

    >>> clear = np.zeros((1, 1, 4), dtype=np.uint8)
    >>> read_image(clear, background=(0, 128, 0)).tolist()
    [[[0, 128, 0]]]
    """
    return _decode(_content_of(cell), cell, background, draft)


def digest_image(cell: object) -> bytes:
    """Compute the digest of an image cell.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, PIL image or array
        As for :func:`read_image`.

    Returns
    -------
    digest : bytes
        16 bytes. That of a file depends on its bytes and not on its path; that of a PIL image on
        mode, size, pixels, palette, transparency and orientation; that of an array on dtype, shape
        and values.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As for :func:`read_image`, but the bytes of a file are not decoded.
    """
    return _digest(_content_of(cell))


def load_image(
    cell: object, *, background: Color = _WHITE, draft: int | None = None
) -> tuple[bytes, np.ndarray]:
    """Digest and decode an image while reading the cell once.

    If a file were read twice, and changed in between, its new pixels would be stored under the
    digest of the old ones.

    Parameters
    ----------
    cell : str, path-like, bytes, bytearray, memoryview, PIL image or array
        As for :func:`read_image`.
    background : tuple of 3 int, default=(255, 255, 255)
        As in :func:`read_image`. It does not enter the digest.
    draft : int, default=None
        As in :func:`read_image`. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_image(cell)``.
    image : ndarray of shape (height, width, 3), uint8
        Equal to ``read_image(cell)`` with the same options.
    """
    content = _content_of(cell)
    return _digest(content), _decode(content, cell, background, draft)


def _content_of(cell: object) -> "bytes | Image.Image | np.ndarray":
    """Reduce a cell to file bytes, a loaded PIL image, or a numeric array."""
    if is_source(cell):
        return source_bytes(cell, kind="image")
    if _is_pil(cell):
        # Only here is it found that the file of a lazily opened image is truncated, and is a TIFF
        # rotated.
        _guarded(cell.load, cell)
        return cell
    # numpy scalars have __array__ too, and no image is one number.
    if hasattr(type(cell), "__array__") and not isinstance(cell, np.generic):
        return _array(cell)
    if hasattr(cell, "read"):
        source_bytes(cell, kind="image")  # raises the error for open files
    way = "Give a path, bytes, a PIL image or an array."
    if isinstance(cell, list | tuple):
        way = "Convert it first: numpy.asarray(cell, dtype=numpy.uint8)."
    raise CellTypeError(f"Cannot read an image from a cell of type {type(cell).__name__}. {way}")


def _is_pil(cell: object) -> "TypeGuard[Image.Image]":
    # A PIL image cannot exist before its module is imported, so this does not import pillow.
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


def _digest(content: "bytes | Image.Image | np.ndarray") -> bytes:
    if isinstance(content, bytes):
        return digest_bytes(content)
    if isinstance(content, np.ndarray):
        return digest_array(content)
    h = hasher("pil")
    palette = None
    if content.palette is not None:
        palette = (content.palette.mode, content.getpalette(None))
    transparency = content.info.get("transparency")
    header = (content.mode, content.size, _orientation(content), palette, transparency)
    # repr escapes control characters, so the null byte can only be the end of the header.
    h.update(f"{header!r}\0".encode())
    h.update(content.tobytes())
    return h.digest()


def _decode(
    content: "bytes | Image.Image | np.ndarray", cell: object, background: Color, draft: int | None
) -> np.ndarray:
    if isinstance(content, np.ndarray):
        return _opaque(_eight_bit(_channels_last(content)), background)
    if isinstance(content, bytes):
        return _guarded(lambda: _file_pixels(content, background, draft), cell)
    return _guarded(lambda: _pixels(content, background), cell)


def _guarded(step: Callable[[], _Result], cell: object) -> _Result:
    """Run a step of pillow and turn any error over invalid bytes into a ``MediaDecodeError``."""
    from PIL import Image, UnidentifiedImageError

    try:
        return step()
    except MemoryError:
        raise  # not an error of the image
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
        # Pillow's parsers raise many classes: OSError, SyntaxError, struct.error, IndexError, ...
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
        # Broken metadata is common and no reason to refuse an intact image.
        return 1


def _pixels(image: "Image.Image", background: Color) -> np.ndarray:
    """Return a loaded image, which is not changed, as 8-bit RGB."""
    from PIL import ImageOps

    if 0 in image.size:
        raise ValueError("it has no pixels")
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _deep_gray(image, background)
    if image.mode == "La":
        image = image.convert("LA")  # pillow cannot convert "La" to RGB directly
    if image.has_transparency_data:
        return _opaque(np.asarray(image.convert("RGBA")), background)
    return np.array(image.convert("RGB"))


def _deep_gray(image: "Image.Image", background: Color) -> np.ndarray:
    """Return an image of more than 8 bits as RGB; pillow would clip its values at 255."""
    gray = np.asarray(image)
    tops = (65535,) if image.mode.startswith("I;16") else (255, 65535)
    if image.mode == "F":
        tops = (1, *tops)
    low, high = gray.min(), gray.max()
    top = next((top for top in tops if high <= top), None)
    if top is None or low < 0:  # NaN compares as False, so top is None
        raise ValueError(
            f"its values range from {low:g} to {high:g}, whose scale is unknown; give an array of"
            " floats in [0, 1]"
        )
    rgb = _opaque(np.rint(gray * (255.0 / top)).astype(np.uint8), background)
    clear = image.info.get("transparency")  # one gray value, in the units of the file
    if isinstance(clear, int):
        rgb[gray == clear] = background
    return rgb


def _channels_last(array: np.ndarray) -> np.ndarray:
    """Return the array as ``(height, width)`` or ``(height, width, channels)``."""
    shape = array.shape
    if 0 in shape:
        raise CellTypeError(f"Cannot read an image from an empty array of shape {shape}.")
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
        return array
    if len(shape) == 3 and shape[0] in (1, 3):
        return np.moveaxis(array, 0, -1)
    way = "Use (height, width) or (height, width, channels) with 1, 3 or 4 channels."
    if len(shape) == 3 and shape[0] == 4:
        # Four gray frames have the same shape.
        way = "If its channels come first, use numpy.moveaxis(cell, 0, -1)."
    elif len(shape) == 4:
        way = "If it is a batch or a video, put one image into each cell."
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
            " Use cell.astype(numpy.uint8) if its values range from 0 to 255."
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
    """Return a new RGB array from uint8 without a channel axis, or with 1, 3 or 4 channels."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        shown = np.asarray(background, dtype=np.uint16) * (255 - alpha)
        # At most 255 * 255 + 127: fits 16 bits.
        return ((array[:, :, :3] * alpha + shown + 127) // 255).astype(np.uint8)
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")


# --- cells that hold several images: a list of paths, bytes, PIL images or arrays ---------


class ImageList:
    """The images of one cell, decoded lazily; it can be iterated over repeatedly.

    Parameters
    ----------
    cells : sequence of cells
        Each as for ``read_image``.
    digests : list of bytes
        Digest of each; a file whose digest differs when it is decoded is refused.
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
                    f"Image {i + 1} of {len(self)} changed while it was read. Encode files that"
                    " no process writes to."
                )
            yield image

    def __getitem__(self, picked: list[int]) -> "ImageList":
        cells = [self._cells[i] for i in picked]
        return ImageList(cells, [self._digests[i] for i in picked], self._draft)


def is_image_list(cell: object) -> TypeGuard[Sequence[object]]:
    """Return whether a cell is a list of images rather than one image.

    Parameters
    ----------
    cell : object
        A cell that is not missing.

    Returns
    -------
    bool
        True for a list, a tuple or a one-dimensional object array, except nested lists of numbers.
    """
    if isinstance(cell, np.ndarray):
        return cell.dtype == object and cell.ndim == 1
    if not isinstance(cell, list | tuple):
        return False
    return not cell or not isinstance(cell[0], list | tuple | int | float | np.generic)


def digest_image_list(cell: Sequence[object]) -> bytes:
    """Compute the digest of a list of images, from theirs in their order.

    Parameters
    ----------
    cell : list, tuple or ndarray of cells
        Cell for which :func:`is_image_list` returns True.

    Returns
    -------
    digest : bytes
        16 bytes. It differs from the digests of the images, also if there is only one.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As for ``digest_image``, with the number of the image; the latter also if the list is
        empty.
    """
    return _digest_of_all(_digests(cell))


def load_image_list(cell: Sequence[object], *, draft: int | None = None) -> tuple[bytes, ImageList]:
    """Digest a list of images, and return an iterable that decodes them one after the other.

    Parameters
    ----------
    cell : list, tuple or ndarray of cells
        Cell for which :func:`is_image_list` returns True.
    draft : int, default=None
        As in ``read_image``. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_image_list(cell)``.
    images : ImageList
        Images of exactly this content.
    """
    digests = _digests(cell)
    for i, item in enumerate(cell):
        if hasattr(type(item), "__array__") and not hasattr(item, "filename"):
            # An array of a wrong shape or range is refused here, where the cell is known.
            _with_number(read_image, item, i, len(cell))
    return _digest_of_all(digests), ImageList(cell, digests, draft)


def _digests(cell: Sequence[object]) -> list[bytes]:
    if not len(cell):
        raise MediaDecodeError(
            "Cannot read an image from an empty list. Put None into a cell without images."
        )
    return [_with_number(digest_image, item, i, len(cell)) for i, item in enumerate(cell)]


def _digest_of_all(digests: list[bytes]) -> bytes:
    h = hasher("images")
    for digest in digests:
        h.update(digest)
    return h.digest()


def _with_number(verb: Callable[[object], _Result], cell: object, i: int, n: int) -> _Result:
    """Apply a reader to one of several images, and add its number to an error."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        raise CellTypeError(f"Image {i + 1} of {n} is missing. Leave it out of the list.")
    try:
        return verb(cell)
    except (CellTypeError, MediaDecodeError) as error:
        raise type(error)(f"Image {i + 1} of {n}: {error}") from error
