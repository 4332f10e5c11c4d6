"""Content that is in both the training and the test rows of a split."""

import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import check_cv

from skmm._frame._column import Column, column_names, columns_of, n_rows, take_columns
from skmm._frame._modality import MODALITIES, infer_modalities
from skmm._frame._types import CellColumn, ColumnKey
from skmm.exceptions import CellTypeError, LeakageError, LeakageWarning, MediaDecodeError
from skmm.readers._audio import digest_audio
from skmm.readers._image import digest_image, is_image_list
from skmm.readers._points import digest_points
from skmm.readers._series import digest_series
from skmm.readers._source import with_position
from skmm.readers._text import digest_text
from skmm.readers._video import digest_video

if TYPE_CHECKING:
    from skmm._constraints import Splits

__all__ = [
    "Content",
    "check_group_leakage",
    "group_by_content",
    "shared_contents",
]


_COLUMNS = ["column", "modality", "same", "example", "digest"]


def check_group_leakage(
    X: CellColumn,
    *,
    cv: "Splits" = None,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    columns: ColumnKey | None = None,
    modalities: Mapping[str, str] | None = None,
    read_files: bool = True,
    min_length: int = 1,
    on_leak: Literal["warn", "raise", "ignore"] = "warn",
) -> pd.DataFrame:
    """Find content that is in both the training and the test rows of a split.

    Examples are the same photo under two file names, a recording listed twice, or a review copied
    to another product. If one of the two is trained on and the other tested on, the score measures
    memorization. Content is compared as in the embedding store: by a digest of the bytes of a
    file, the values of an array, or the characters of a text.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Raw data; a row is a sample.
    cv : int, splitter or iterable of (train, test), default=None
        The splits to check, as everywhere in scikit-learn. None checks instead whether the same
        content is in several ``groups``.
    y : array-like of shape (n_samples,), default=None
        Target, for splitters that need one.
    groups : array-like of shape (n_samples,), default=None
        Group of each row. With ``cv`` it is passed to the splitter.
    columns : str, int, list, slice, mask or callable, default=None
        Columns to compare; numbers and categories among them are compared as texts. None compares
        all columns whose modality from :func:`~skmm.infer_modalities` is neither ``"tabular"``
        nor ``"drop"``.
    modalities : dict of str to str, default=None
        Modality of columns by name; that of other columns is inferred.
    read_files : bool, default=True
        Whether files are compared by content. False compares only their paths, which reads no
        file but misses copies.
    min_length : int, default=1
        Minimum number of characters of a text to be compared, e.g. 20 to leave out ``"ok"`` and
        ``"Thanks!"``. Empty texts are never compared.
    on_leak : {"warn", "raise", "ignore"}, default="warn"
        What to do with findings in addition to returning them.

    Returns
    -------
    findings : DataFrame
        A row for each content and split; empty if there is none. With ``cv``: ``fold``,
        ``train_rows`` and ``test_rows`` (tuples of positions); without: ``groups`` and ``rows``.
        Always: ``column`` (several are joined by ``" + "``), ``modality``, ``same`` (``"file"``
        if all cells are one path after links are resolved, else ``"content"``), ``example`` (its
        first cell as text) and ``digest`` (hexadecimal; empty for a file that was not read).
        ``findings.attrs["message"]`` summarizes the findings.

    Raises
    ------
    LeakageError
        If there are findings and ``on_leak="raise"``.
    CellTypeError
        If a cell does not belong to the modality of its column.
    ValueError
        If neither ``cv`` nor ``groups`` is given, or a parameter is out of range.

    Warns
    -----
    LeakageWarning
        If there are findings and ``on_leak="warn"``.

    See Also
    --------
    group_by_content : Groups that keep such rows together.
    sklearn.model_selection.GroupKFold : A splitter that keeps groups together.

    Notes
    -----
    All columns of one modality are compared with each other. Of a list of images, each image is
    compared. A file and the array of its pixels, or an image saved twice with different settings,
    are different contents. A file that cannot be read is compared by its path.

    References
    ----------
    Kaufman et al. (2012), "Leakage in data mining: formulation, detection, and avoidance", ACM
    Transactions on Knowledge Discovery from Data 6(4).

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.model_selection import check_group_leakage
    >>> X = pd.DataFrame({"review": ["warm and soft", "fell apart", "too small", "warm and soft"]})
    >>> found = check_group_leakage(X, cv=2, on_leak="ignore")
    >>> found[["fold", "column", "example", "train_rows", "test_rows"]]
       fold  column        example train_rows test_rows
    0     0  review  warm and soft       (3,)      (0,)
    1     1  review  warm and soft       (0,)      (3,)
    >>> print(found.attrs["message"])
    1 content is on both sides of a split (1 in column 'review'), which touches 50% of the \
test rows. Split by groups that keep such rows together: \
skmm.model_selection.group_by_content returns them.
    """
    _check(cv, groups, min_length, on_leak)
    contents = shared_contents(
        X, columns=columns, modalities=modalities, read_files=read_files, min_length=min_length
    )
    if cv is not None:
        splits = [
            (np.asarray(train), np.asarray(test))
            for train, test in check_cv(cv, y, classifier=y is not None).split(X, y, groups)
        ]
        findings = _across_splits(contents, splits, n_rows(X))
        share = _touched(findings, sum(len(test) for _, test in splits))
        message = _message(findings, "on both sides of a split", f"{share:.0%} of the test rows")
    else:
        findings = _across_groups(contents, *_group_labels(groups, n_rows(X)))
        n = len({row for rows in findings["rows"] for row in rows})
        message = _message(findings, "in several groups", f"{n:,} rows")
    findings.attrs["message"] = message
    if len(findings) and on_leak == "raise":
        raise LeakageError(f"check_group_leakage: {message}")
    if len(findings) and on_leak == "warn":
        warnings.warn(f"check_group_leakage: {message}", LeakageWarning, stacklevel=2)
    return findings


def group_by_content(
    X: CellColumn,
    *,
    groups: ArrayLike | None = None,
    columns: ColumnKey | None = None,
    modalities: Mapping[str, str] | None = None,
    read_files: bool = True,
    min_length: int = 1,
) -> np.ndarray:
    """Return groups that keep rows with the same content together.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Raw data; a row is a sample.
    groups : array-like of shape (n_samples,), default=None
        Groups that must be kept together as well. Groups that share content are merged.
    columns, modalities, read_files, min_length : object
        As in :func:`check_group_leakage`.

    Returns
    -------
    labels : ndarray of shape (n_samples,), int
        Group of each row, numbered in the order of the rows, to be passed as ``groups`` to
        :class:`~sklearn.model_selection.GroupKFold` and similar splitters. Sharing is transitive:
        if a row shares a photo with a second row, which shares a text with a third, all three are
        one group.

    Raises
    ------
    CellTypeError, ValueError
        As in :func:`check_group_leakage`.

    See Also
    --------
    check_group_leakage : Find content that is on both sides of a split.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.model_selection import group_by_content
    >>> X = pd.DataFrame({"review": ["warm and soft", "fell apart", "too small", "warm and soft"]})
    >>> group_by_content(X).tolist()
    [0, 1, 2, 0]
    """
    _check_length(min_length)
    contents = shared_contents(
        X, columns=columns, modalities=modalities, read_files=read_files, min_length=min_length
    )
    n = n_rows(X)
    # Link each row to the first one with the same content, and to the first one of its group.
    ends = [np.unique(content.rows) for content in contents]
    starts = [np.full(len(rows), rows[0]) for rows in ends]
    if groups is not None:
        labels, _ = _group_labels(groups, n)
        starts.append(np.unique(labels, return_index=True)[1][labels])
        ends.append(np.arange(n))
    links = tuple(np.concatenate([np.arange(0), *own]) for own in (starts, ends))
    graph = coo_array((np.ones(len(links[0])), links), shape=(n, n))
    _, found = connected_components(graph, directed=False)
    _, first, labels = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def _check(cv: object, groups: object, min_length: object, on_leak: str) -> None:
    if cv is None and groups is None:
        raise ValueError(
            "check_group_leakage needs cv, the splits to check, or groups. Got neither."
        )
    _check_length(min_length)
    if on_leak not in ("warn", "raise", "ignore"):
        raise ValueError(f"on_leak must be 'warn', 'raise' or 'ignore', got {on_leak!r}.")


def _check_length(min_length: object) -> None:
    if not isinstance(min_length, Integral) or min_length < 0:
        raise ValueError(f"min_length must be a number of characters, got {min_length!r}.")


def _group_labels(groups: ArrayLike | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the group of each row, and the groups by their numbers."""
    # Groups may be of any and of mixed types; missing values form a group.
    each = pd.Series(list(cast(Iterable[object], groups)), dtype=object)
    labels, names = pd.factorize(each, use_na_sentinel=False)
    if len(labels) != n:
        raise ValueError(f"groups has {len(labels)} entries, and X has {n} rows.")
    return labels, np.asarray(names, dtype=object)


# --- Rows with the same content: the same file, bytes, text or array ---

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
    """A content and the rows that contain it.

    Attributes
    ----------
    modality : str
        Modality of its columns.
    digest : str
        Hexadecimal digest; empty for a file that cannot be read.
    rows : list of int
        Position of the row of each cell that contains it.
    columns : list of str
        Columns of these cells.
    files : list of str or None
        Files of these cells, None for a cell that is not a path.
    example : str
        The first of these cells as text.
    """

    modality: str
    digest: str
    example: str
    rows: list[int] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    files: list[str | None] = field(default_factory=list)


def shared_contents(
    X: CellColumn,
    *,
    columns: ColumnKey | None,
    modalities: Mapping[str, str] | None,
    read_files: bool,
    min_length: int,
) -> list[Content]:
    """Find contents that are in more than one row.

    Parameters
    ----------
    X : pandas or polars DataFrame or Series, ndarray, or list of cells
        Data.
    columns : str, int, list, slice, mask or callable, or None
        Columns to compare; None for all except numbers and categories.
    modalities : dict of str to str, or None
        Modality of columns by name; that of other columns is inferred.
    read_files : bool
        Whether files are compared by their bytes, and not only by their path.
    min_length : int
        Minimum number of characters of a text to be compared.

    Returns
    -------
    contents : list of Content
        Contents in the order of their first cell.
    """
    compared = X if columns is None else take_columns(X, columns)
    names = column_names(X, slice(None) if columns is None else columns)
    kinds = _kinds(compared, names, modalities, include_tabular=columns is not None)
    found: dict[Hashable, Content] = {}
    digests: dict[str, str] = {}  # by file; each file is read once
    for name, column in zip(names, columns_of(compared, slice(None)), strict=True):
        modality = kinds[name]
        if modality not in _DIGESTS:
            continue
        for row, cell in _parts(column, modality):
            if modality == "text" and (len(str(cell)) < min_length or not str(cell).strip()):
                continue
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
    X: CellColumn, names: list[str], modalities: Mapping[str, str] | None, *, include_tabular: bool
) -> dict[str, str]:
    """Return the modality of each compared column."""
    given = dict(modalities or {})
    for name, modality in given.items():
        if name not in names or modality not in MODALITIES:
            raise ValueError(
                f"modalities gives column {name!r} the modality {modality!r}. Compared columns"
                f" are {names}, modalities are {list(MODALITIES)}."
            )
    left = [i for i, name in enumerate(names) if name not in given]
    # infer_modalities refuses a frame without columns.
    inferred = infer_modalities(take_columns(X, left)) if left else {}
    if include_tabular:
        plain = ("tabular", "drop")
        inferred = {name: "text" if m in plain else m for name, m in inferred.items()}
    return {**dict(zip([names[i] for i in left], inferred.values(), strict=True)), **given}


def _parts(column: Column, modality: str) -> Iterator[tuple[int, Any]]:
    """Yield row and cell of the present cells; of a list of images, each image."""
    for row in np.flatnonzero(~column.missing):
        cell = column.values[row]
        if modality == "image" and is_image_list(cell):
            for part in cell:
                yield int(row), part
        else:
            yield int(row), cell


def _file(cell: object, modality: str) -> str | None:
    """Return the path of the file of a cell, with links and ``..`` resolved."""
    if modality == "text" or not isinstance(cell, str | os.PathLike):
        return None
    path = os.fsdecode(cell)
    if "://" in path or path.startswith("data:"):
        return path
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a null byte
        return path


def _digest(cell: object, modality: str, file: str | None, digests: dict[str, str]) -> str:
    if file is None and modality != "text" and isinstance(cell, str | os.PathLike):
        return ""  # files are not read
    if file in digests:
        return digests[file]
    digest = _plain_digest(cell, modality).hex()
    if file is not None:
        digests[file] = digest
    return digest


def _plain_digest(cell: object, modality: str) -> bytes:
    if modality == "text":
        try:
            return digest_text(cell)
        except CellTypeError:  # dates, decimals: in a column given by name
            return digest_text(str(cell))
    return _DIGESTS[modality](cell)


def _words(cell: object, file: str | None) -> str:
    if file is not None:
        return os.fsdecode(cast(str, cell))[-80:]
    if isinstance(cell, bytes | bytearray | memoryview):
        return f"{memoryview(cell).nbytes:,} bytes"
    shape = getattr(cell, "shape", None)
    if shape is not None and not isinstance(cell, str):
        return f"{type(cell).__name__} of shape {tuple(shape)}"
    return " ".join(str(cell).split())[:80]


# --- The findings as a table and as a message ---


def _across_splits(
    contents: list[Content], splits: list[tuple[np.ndarray, np.ndarray]], n: int
) -> pd.DataFrame:
    rows = []
    for fold, (train, test) in enumerate(splits):
        in_train, in_test = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        in_train[train], in_test[test] = True, True
        for content in contents:
            held = np.unique(content.rows)
            sides = [tuple(held[side[held]].tolist()) for side in (in_train, in_test)]
            if all(sides):
                involved = (in_train | in_test)[content.rows]
                rows.append((fold, *_described(content, involved), *sides))
    return pd.DataFrame(rows, columns=["fold", *_COLUMNS, "train_rows", "test_rows"])


def _across_groups(contents: list[Content], labels: np.ndarray, names: np.ndarray) -> pd.DataFrame:
    rows = []
    for content in contents:
        held = np.unique(content.rows)
        several = np.unique(labels[held])
        if len(several) > 1:
            described = _described(content, np.ones(len(content.rows), dtype=bool))
            rows.append((*described, tuple(names[several]), tuple(held.tolist())))
    return pd.DataFrame(rows, columns=[*_COLUMNS, "groups", "rows"])


def _described(content: Content, involved: np.ndarray) -> tuple[str, str, str, str, str]:
    picked = np.flatnonzero(involved)
    files = {content.files[i] for i in picked}
    same = "file" if len(files) == 1 and None not in files else "content"
    columns = " + ".join(dict.fromkeys(content.columns[i] for i in picked))
    return columns, content.modality, same, content.example, content.digest


def _touched(findings: pd.DataFrame, n_tested: int) -> float:
    touched = {
        (fold, row)
        for fold, rows in zip(findings["fold"], findings["test_rows"], strict=True)
        for row in rows
    }
    return len(touched) / max(n_tested, 1)


def _message(findings: pd.DataFrame, where: str, touched: str) -> str:
    if not len(findings):
        return f"No content is {where}."
    by_content = findings.drop_duplicates(["modality", "example", "digest"])
    counts = by_content["column"].value_counts(sort=False)
    columns = ", ".join(f"{count:,} in column {name!r}" for name, count in counts.items())
    n = len(by_content)
    found = "1 content is" if n == 1 else f"{n:,} contents are"
    return (
        f"{found} {where} ({columns}), which touches {touched}. Split by groups that keep such"
        " rows together: skmm.model_selection.group_by_content returns them."
    )
