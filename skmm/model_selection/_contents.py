"""Which rows hold the same content: the same file, the same bytes, the same text or array."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skmm._frame._column import Column, column_names, columns_of, take_columns
from skmm._frame._modality import MODALITIES, infer_modalities
from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import (
    digest_audio,
    digest_image,
    digest_points,
    digest_series,
    digest_text,
    digest_video,
    is_pictures,
    with_position,
)

__all__ = ["Content", "shared_contents"]

_DIGESTS: dict[str, Callable[[Any], bytes]] = {
    "text": digest_text,
    "image": digest_image,
    "audio": digest_audio,
    "video": digest_video,
    "pointcloud": digest_points,
    "timeseries": digest_series,
    "vector": digest_series,
}


@dataclass
class Content:
    """One content and where it stands.

    Attributes
    ----------
    modality : str
        Of its columns.
    digest : str
        Hexadecimal; empty for a file that cannot be read.
    rows : list of int
        Positions, one for each cell that holds it.
    columns : list of str
        Their columns.
    files : list of str or None
        Their files, None where a cell is no path.
    example : str
        The first of them in words.
    """

    modality: str
    digest: str
    example: str
    rows: list[int] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    files: list[str | None] = field(default_factory=list)


def shared_contents(
    X: Any,
    *,
    columns: Any,
    modalities: Mapping[str, str] | None,
    read_files: bool,
    min_length: int,
) -> list[Content]:
    """Find contents that stand in more than one row.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Data.
    columns : str, int, list, slice, mask or callable, or None
        Columns to look at, whatever they hold; None for all but numbers and categories.
    modalities : dict of str to str, or None
        What columns hold, for those that are not to be inferred.
    read_files : bool
        Whether files are compared by their bytes, beside by their path.
    min_length : int
        Characters that a text needs to be compared.

    Returns
    -------
    contents : list of Content
        In the order in which they first occur.
    """
    looked_at = X if columns is None else take_columns(X, columns)
    names = column_names(X, slice(None) if columns is None else columns)
    kinds = _kinds(looked_at, names, modalities, whatever=columns is not None)
    found: dict[Hashable, Content] = {}
    digests: dict[str, str] = {}  # of files, each read once
    for name, column in zip(names, columns_of(looked_at, slice(None)), strict=True):
        modality = kinds[name]
        if modality not in _DIGESTS:
            continue
        for row, cell in _parts(column, modality):
            if modality == "text" and (len(str(cell)) < min_length or not str(cell).strip()):
                continue  # an empty text is no content
            file = _file(cell, modality)
            try:
                digest = _digest(cell, modality, file if read_files else None, digests)
            except CellTypeError as error:
                label = column.labels[row]
                raise with_position(error, column=column.name, row=label) from error
            except MediaDecodeError:  # a file that cannot be read is still the same file
                digest = ""
            if file is not None and not (read_files and digest):
                digest, key = "", (modality, file)
            elif digest:
                key = (modality, digest)
            else:
                continue
            content = found.setdefault(key, Content(modality, digest, _words(cell, file)))
            content.rows.append(row)
            content.columns.append(name)
            content.files.append(file)
    return [content for content in found.values() if len(set(content.rows)) > 1]


def _kinds(
    X: Any, names: list[str], modalities: Mapping[str, str] | None, *, whatever: bool
) -> dict[str, str]:
    """Modality of each column that is looked at."""
    given = dict(modalities or {})
    for name, modality in given.items():
        if name not in names or modality not in MODALITIES:
            raise ValueError(
                f"modalities gives column {name!r} the modality {modality!r}. Columns looked at"
                f" are {names}, modalities are {list(MODALITIES)}."
            )
    left = [i for i, name in enumerate(names) if name not in given]
    # An empty frame of columns has no modality to be inferred, and needs none.
    inferred = infer_modalities(take_columns(X, left)) if left else {}
    if whatever:
        plain = ("tabular", "drop")
        inferred = {name: "text" if m in plain else m for name, m in inferred.items()}
    return {**dict(zip([names[i] for i in left], inferred.values(), strict=True)), **given}


def _parts(column: Column, modality: str) -> Iterator[tuple[int, Any]]:
    """Cells that are there; of a list of pictures each picture."""
    for row in np.flatnonzero(~column.missing):
        cell = column.values[row]
        if modality == "image" and is_pictures(cell):
            for part in cell:
                yield int(row), part
        else:
            yield int(row), cell


def _file(cell: Any, modality: str) -> str | None:
    """Where the file of a cell really lies: links and ``..`` lead to one place."""
    if modality == "text" or not isinstance(cell, str | os.PathLike):
        return None
    path = os.fsdecode(cell)
    if "://" in path or path.startswith("data:"):
        return path
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a null byte
        return path


def _digest(cell: Any, modality: str, file: str | None, digests: dict[str, str]) -> str:
    if file is None and modality != "text" and isinstance(cell, str | os.PathLike):
        return ""  # files are not to be read
    if file in digests:
        return digests[file]
    digest = _plain_digest(cell, modality).hex()
    if file is not None:
        digests[file] = digest
    return digest


def _plain_digest(cell: Any, modality: str) -> bytes:
    if modality == "text":
        try:
            return digest_text(cell)
        except CellTypeError:  # dates, decimals: of a column that was asked for by name
            return digest_text(str(cell))
    return _DIGESTS[modality](cell)


def _words(cell: Any, file: str | None) -> str:
    if file is not None:
        return os.fsdecode(cell)[-80:]
    if isinstance(cell, bytes | bytearray | memoryview):
        return f"{memoryview(cell).nbytes:,} bytes"
    shape = getattr(cell, "shape", None)
    if shape is not None and not isinstance(cell, str):
        return f"{type(cell).__name__} of shape {tuple(shape)}"
    return " ".join(str(cell).split())[:80]
