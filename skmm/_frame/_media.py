"""The modality of one cell: a path, bytes or an array.

It is derived from the suffix, the first bytes, or the shape and dtype; no file is opened. This
file imports nothing from skmm.
"""

import datetime
import decimal
import os
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

__all__ = [
    "SCALARS",
    "array_kind",
    "bytes_kind",
    "cell_kind",
    "describe",
    "path_kind",
    "shape_and_dtype",
]

# Without ".au", ".ts" and ".mid": usually a domain, a program, or not decodable.
_SUFFIXES = {
    f".{suffix}": modality
    for modality, suffixes in {
        "image": "jpg jpeg jpe jfif png gif bmp dib tif tiff webp avif heic heif jp2 ppm pgm pbm"
        " pnm tga ico",
        "audio": "wav wave mp3 flac ogg oga opus m4a aac wma aif aiff amr",
        "video": "mp4 m4v mov avi mkv webm mpg mpeg wmv flv 3gp ogv",
        "pointcloud": "ply pcd las laz obj off stl xyz",
    }.items()
    for suffix in suffixes.split()
}

_MAGIC = [
    (re.compile(pattern, re.DOTALL), modality)
    for pattern, modality in [
        (rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|\0\0\0\x0cjP", "image"),
        (rb"BM.{4}\0\0\0\0|P[1-6]\s|....ftyp(avi[fs]|hei[cfmsx]|hev[cmsx]|mif1|msf1)", "image"),
        (rb"RIFF....WAVE|fLaC|ID3|FORM....AIF[FC]|#!AMR|....ftypM4[ABP]", "audio"),
        (rb"RIFF....AVI |\x1aE\xdf\xa3|FLV\x01|\0\0\x01[\xb3\xba]|\x30\x26\xb2\x75", "video"),
        (rb"OggS.{,60}theora|....ftyp", "video"),
        (rb"OggS", "audio"),
        (rb"ply\r?\n|# \.PCD|LASF|OFF\s", "pointcloud"),
        # A frame of MPEG layer 2 or 3, or of AAC. Layer 1 would match the mark of UTF-16.
        (rb"\xff[\xe2-\xe5\xf0-\xf5\xf8-\xfd]", "audio"),
    ]
]

# Numbers, booleans and dates: always tabular.
SCALARS = (
    bool | int | float | complex | decimal.Decimal,
    np.number | np.bool_ | np.datetime64,
    datetime.date | datetime.time | datetime.timedelta,
)


def cell_kind(cell: object) -> str | None:
    """Return the modality of one cell that is not missing.

    Parameters
    ----------
    cell : object
        Raw cell.

    Returns
    -------
    kind : str or None
        A modality; or ``"string"``, ``"1-D array"``, ``"2-D array"``, whose modality depends on
        the whole column; or None if the cell belongs to no modality.

    Examples
    --------
    >>> from skmm._frame._media import cell_kind
    >>> cell_kind("a/b.jpg"), cell_kind(b"RIFF....WAVE"), cell_kind([0.1, 0.2]), cell_kind({})
    ('image', 'audio', '1-D array', None)
    """
    if isinstance(cell, str):
        return path_kind(cell) or "string"
    if isinstance(cell, SCALARS):
        return "tabular"
    if isinstance(cell, os.PathLike):
        return path_kind(os.fspath(cell))
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes_kind(bytes(cell[:80]))
    # By name, so that pillow is not imported.
    if any(t.__module__ == "PIL.Image" and t.__name__ == "Image" for t in type(cell).__mro__):
        return "image"
    if _are_images(cell):
        return "image"
    if hasattr(type(cell), "__array__") or isinstance(cell, list | tuple):
        return array_kind(*shape_and_dtype(cell))
    return None


def _are_images(cell: object) -> bool:
    """Return whether a cell is a list of images, none of which is a list of numbers."""
    if isinstance(cell, np.ndarray):
        if cell.dtype != object or cell.ndim != 1:
            return False
    elif not isinstance(cell, list | tuple):
        return False
    if not len(cell):
        return False
    return all(not isinstance(item, list | tuple) and cell_kind(item) == "image" for item in cell)


def bytes_kind(head: bytes) -> str | None:
    """Return the modality of a media file by its first 80 bytes."""
    return next((modality for magic, modality in _MAGIC if magic.match(head)), None)


def describe(cell: object) -> str:
    """Describe a cell that belongs to no modality, for a message."""
    if isinstance(cell, os.PathLike):
        suffix = PurePosixPath(cell).suffix
        return f"a path with the suffix {suffix!r}, which is not of a known medium"
    if isinstance(cell, bytes | bytearray | memoryview):
        return f"bytes that begin with {bytes(cell[:8])!r}, which is no known format"
    if hasattr(type(cell), "__array__") or isinstance(cell, list | tuple):
        shape, dtype = shape_and_dtype(cell)
        return f"{type(cell).__name__} of shape {shape} and dtype {dtype}"
    return type(cell).__name__


def path_kind(text: "str | bytes") -> str | None:
    """Return the modality of a path, URL or ``data:`` URL; None for other text."""
    text = os.fsdecode(text)
    if text.startswith("data:"):
        kind = text[5:20].partition("/")[0]
        return kind if kind in ("image", "audio", "video") else None
    if len(text) > 4096 or "\n" in text:
        return None
    if "://" in text:
        try:
            text = urlsplit(text).path  # without ?width=300
        except ValueError:
            return None
    return _SUFFIXES.get(PurePosixPath(text).suffix.lower())


def shape_and_dtype(cell: object) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype name of an array, torch tensor or nested list."""
    array: Any = cell
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        try:
            array = np.asarray(cell)
        except ValueError:  # lists of unequal length
            return (len(array),), "object"
    dtype = getattr(array.dtype, "name", None) or str(array.dtype).rpartition(".")[2]
    return tuple(array.shape), dtype


def array_kind(shape: tuple[int, ...], dtype: str) -> str | None:
    """Return the modality of an array by the rules in ``infer_modalities``."""
    if not dtype.startswith(("int", "uint", "float", "bfloat", "bool")):
        return None
    if len(shape) == 1:
        return "1-D array"
    if len(shape) == 2:
        return "image" if dtype in ("uint8", "uint16", "bool") else "2-D array"
    if len(shape) == 3 and (shape[2] in (1, 3, 4) or shape[0] in (1, 3)):
        return "image"
    return "video" if len(shape) == 4 else None
