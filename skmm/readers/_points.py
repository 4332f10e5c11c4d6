"""Point cloud cells: array, path or bytes, all decoded to rows of x, y, z and point features.

Sensors write NaN or infinity where there is no return; such points are dropped. A cloud without a
finite point is refused.
"""

import io
import re
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from skmm._environment._optional import import_optional
from skmm.exceptions import CellTypeError, MediaDecodeError, MissingExtraError
from skmm.readers._source import array_of, digest_bytes, hasher, is_source, shorten, source_bytes

__all__ = ["digest_points", "load_points", "read_points"]

_NEEDED_BY = "A point cloud of this format"
_FORMATS = "PLY, PCD, OBJ, OFF, STL, NPY or text with a point a line"
_OBJ_VERTEX = re.compile(r"^v\s+[-+.\d]", re.MULTILINE)
_COLORS = ("red", "green", "blue")
_PADDING = "skmm_padding_"


def read_points(cell: object, *, n_surface: int = 1024) -> np.ndarray:
    """Decode a point cloud.

    Parameters
    ----------
    cell : array-like of shape (n_points, 3 + n_features), str, path-like or bytes
        Points, or a file of points. Arrays and lists of lists hold x, y, z and any further
        features of each point (intensity, color, time); a structured array has them by name.
        Supported files are NPY, text with one point per line (``.xyz``, ``.csv``), and with the
        extra ``points`` PLY, PCD, OBJ, OFF and STL. The format is detected from the content. Each
        scalar field of PLY and PCD becomes a column, in the file's order; a packed ``rgb`` becomes
        three, from 0 to 255.
    n_surface : int, default=1024
        Number of points that are sampled on the surface of a mesh (a file with faces). The same
        file always has the same points; features are interpolated between the corners.

    Returns
    -------
    points : ndarray of shape (n_points, 3 + n_features), float64
        At least one row, all values finite: a point with a NaN or an infinite value is dropped.
        It shares no memory with the cell.

    Raises
    ------
    CellTypeError
        If the cell is neither an array of numbers with at least three columns nor a path nor
        bytes.
    MediaDecodeError
        If a file is missing, damaged or in an unsupported format, or has no finite point.
    MissingExtraError
        If the format needs a package that is not installed.

    Examples
    --------
    >>> from skmm.readers import read_points
    >>> read_points([[0, 0, 1], [0, float("nan"), 2], [5, 6, 7]]).tolist()
    [[0.0, 0.0, 1.0], [5.0, 6.0, 7.0]]
    """
    return _decode(_content_of(cell), cell, n_surface)


def digest_points(cell: object) -> bytes:
    """Compute the digest of a point cloud cell.

    Parameters
    ----------
    cell : array-like, str, path-like or bytes
        As for :func:`read_points`.

    Returns
    -------
    digest : bytes
        16 bytes. That of a file depends on its bytes and not on its path; that of an array on
        dtype, shape and values.

    Raises
    ------
    CellTypeError, MediaDecodeError
        As for :func:`read_points`, but the bytes of a file are not decoded.
    """
    return _digest(_content_of(cell))


def load_points(cell: object, *, n_surface: int = 1024) -> tuple[bytes, np.ndarray]:
    """Digest and decode a point cloud while reading the cell once.

    Parameters
    ----------
    cell : array-like, str, path-like or bytes
        As for :func:`read_points`.
    n_surface : int, default=1024
        As in :func:`read_points`. It does not enter the digest.

    Returns
    -------
    digest : bytes
        16 bytes, equal to ``digest_points(cell)``.
    points : ndarray of shape (n_points, 3 + n_features), float64
        Equal to ``read_points(cell)`` with the same options.
    """
    content = _content_of(cell)
    return _digest(content), _decode(content, cell, n_surface)


def _content_of(cell: object) -> "bytes | np.ndarray":
    """Reduce a cell to file bytes or an array of numbers."""
    if is_source(cell) or hasattr(cell, "read"):  # raises for open files
        return source_bytes(cell, kind="point cloud")
    is_array = hasattr(type(cell), "__array__") and not isinstance(cell, np.generic)
    if not is_array and not isinstance(cell, list | tuple):
        raise CellTypeError(
            f"Cannot read a point cloud from a cell of type {type(cell).__name__}. Give an array"
            " (n_points, 3 + n_features), a path or bytes."
        )
    way = "Give an array (n_points, 3 + n_features)."
    return _checked(array_of(cell, "point cloud", way=way))


def _checked(array: np.ndarray) -> np.ndarray:
    kinds = [array.dtype[name] for name in array.dtype.names or ()] or [array.dtype]
    if any(kind.kind not in "biuf" for kind in kinds) and array.size:
        raise CellTypeError(
            f"Cannot read a point cloud from an array of dtype {shorten(str(array.dtype))}. Give"
            " numbers, one row per point."
        )
    if array.dtype.names and array.ndim == 1:
        return array
    if array.size == 0 and array.ndim <= 2:
        return array  # refused later, as a cloud without a point
    if array.ndim != 2 or array.shape[1] < 3:
        way = "Give (n_points, 3 + n_features): x, y and z of each point come first."
        if array.ndim == 3:
            way = "A grid of points is cell.reshape(-1, cell.shape[-1]); put one cloud into a cell."
        raise CellTypeError(
            f"Cannot read a point cloud from an array of shape {array.shape}. {way}"
        )
    if len(array) == 3 and array.shape[1] > 16:
        raise CellTypeError(
            f"Cannot read a point cloud from an array of shape {array.shape}: its points seem to be"
            " columns. Use cell.T."
        )
    return array


def _digest(content: "bytes | np.ndarray") -> bytes:
    if isinstance(content, bytes):
        return digest_bytes(content)
    h = hasher("points")
    h.update(f"{content.dtype.descr!r} {content.shape}\0".encode())
    h.update(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
    return h.digest()


def _decode(content: "bytes | np.ndarray", cell: object, n_surface: int) -> np.ndarray:
    if isinstance(content, bytes):
        points = _file_points(content, cell, n_surface)
    elif content.dtype.names:
        points = _structured(content)
    else:
        points = content.astype(np.float64)
    if points.size:
        # In float32, as models read them: some sensors write 1e300 for an absent return.
        with np.errstate(over="ignore"):
            points = points[np.isfinite(points.astype(np.float32)).all(axis=1)]
    if not points.size:
        raise MediaDecodeError(
            f"Cannot read the point cloud {_named(cell)}: it has no finite point."
        )
    return points


def _structured(array: np.ndarray) -> np.ndarray:
    try:
        return _from_fields({name: array[name] for name in array.dtype.names or ()})
    except ValueError as error:
        raise CellTypeError(f"Cannot read a point cloud from an array: {error}.") from error


def _file_points(data: bytes, cell: object, n_surface: int) -> np.ndarray:
    try:
        points = _decode_file(data, n_surface=n_surface)
        if points.ndim != 2 or points.shape[1] < 3:
            raise ValueError(f"its points have {points.shape[-1]} values, and 3 are needed")
        return points
    except (MemoryError, MissingExtraError):
        raise  # not an error of the file
    except Exception as error:
        # Each parser has its own error classes.
        reason = str(error).rstrip(".") or type(error).__name__
        raise MediaDecodeError(f"Cannot read the point cloud {_named(cell)}: {reason}.") from error


def _named(cell: object) -> str:
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
        return f"in {len(data)} bytes that begin with {data[:8]!r}"
    if is_source(cell):
        return shorten(cell)
    return f"in a {type(cell).__name__} of shape {np.shape(cast(ArrayLike, cell))}"


# --- files: PLY, PCD, OBJ, OFF, STL, NPY, plain text ---------------------------------------
# The format is detected from the bytes, never from the suffix: the store keys vectors by the bytes
# alone, so two paths to the same bytes must give the same points.


def _decode_file(data: bytes, *, n_surface: int) -> np.ndarray:
    """Decode the content of a file.

    Parameters
    ----------
    data : bytes
        The content.
    n_surface : int
        Number of points that are sampled on the surface of a mesh.

    Returns
    -------
    points : ndarray of shape (n_points, 3 + n_features), float64
        As in the file; values may be NaN or infinite.

    Raises
    ------
    Exception
        Of any class, for damaged content.
    """
    if not data:
        raise ValueError("the file is empty")
    head = data[:4096]
    for magic, decode in _MAGIC:
        if magic.match(head):
            return decode(data, n_surface)
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return _stl(data, n_surface)
    if b"\0" in head:
        raise ValueError(f"it is in no format that is read here ({_FORMATS})")
    text = data.decode("utf-8", errors="replace")
    return _obj(text, n_surface) if _OBJ_VERTEX.search(text) else _text(text)


def _from_fields(fields: Mapping[str, ArrayLike]) -> np.ndarray:
    """Put named values of points into columns: x, y and z first, the others in their order.

    Parameters
    ----------
    fields : mapping of str to array-like of shape (n_points,)
        Numbers by name; three of the names are x, y and z, in upper or lower case.

    Returns
    -------
    points : ndarray of shape (n_points, 3 + n_features), float64
        Coordinates and features.
    """
    by_name = {name.lower(): np.asarray(values) for name, values in fields.items()}
    absent = [axis for axis in "xyz" if axis not in by_name]
    if absent:
        raise ValueError(f"its points have no field {absent[0]!r}, only {', '.join(fields)}")
    first = [by_name.pop(axis) for axis in "xyz"]
    return np.column_stack([values.astype(np.float64) for values in (*first, *by_name.values())])


def _ply(data: bytes, n_surface: int) -> np.ndarray:
    ply = import_optional("trimesh.exchange.ply", needed_by=_NEEDED_BY)
    loaded = ply.load_ply(io.BytesIO(data), fix_texture=False, skip_materials=True)
    elements = loaded["metadata"]["_ply_raw"]
    if "vertex" not in elements:
        raise ValueError("it has no vertices")
    for name, element in elements.items():
        # For a truncated text the parser returns a shorter array, and raises no error.
        values = element.get("data")
        names = values.keys() if isinstance(values, dict) else ()
        if any(len(values[key]) != element["length"] for key in names):
            raise ValueError(f"it ends within its elements of kind {name!r}")
    last_name, last = next(reversed(elements.items()))
    if b"format ascii" in data[:100] and last_name == "face" and last["length"]:
        last_line = data.rstrip()[-10_000:].splitlines()[-1]
        if "vertex_ind" in next(iter(last["properties"])) and _is_cut(last_line):
            raise ValueError("it ends within its last face")
    vertices = elements["vertex"]
    values, n_vertices = vertices["data"], vertices["length"]
    if n_vertices == 0:
        return np.empty((0, 3))
    scalars = {
        name: np.asarray(values[name]).reshape(n_vertices)
        for name in vertices["properties"]
        if np.asarray(values[name]).size == n_vertices
    }
    return _surface(_from_fields(scalars), loaded.get("faces"), n_surface)


def _pcd(data: bytes, n_surface: int) -> np.ndarray:
    pypcd4 = import_optional("pypcd4", needed_by=_NEEDED_BY)
    # The package would name padding fields by Python's global random generator.
    data = re.sub(rb"(?m)^FIELDS .*$", _name_padding, data, count=1)
    cloud = pypcd4.PointCloud.from_fileobj(io.BytesIO(data))
    values = np.atleast_1d(cloud.pc_data)
    if len(values) != cloud.metadata.points:
        raise ValueError(f"it holds {len(values)} of the {cloud.metadata.points} points declared")
    fields: dict[str, np.ndarray] = {}
    for name in values.dtype.names or ():
        if name.startswith(_PADDING):
            continue
        if name.lower() in ("rgb", "rgba") and values.dtype[name].itemsize == 4:
            # Three bytes stored as one number, usually with the type of a float.
            packed = np.ascontiguousarray(values[name]).view(np.uint32)
            shifts = zip(_COLORS, (16, 8, 0), strict=True)
            fields |= {color: (packed >> shift) & 255 for color, shift in shifts}
        else:
            fields[name] = values[name]
    return _from_fields(fields)


def _name_padding(line: re.Match[bytes]) -> bytes:
    words = line.group().split()
    named = [
        _PADDING.encode() + b"%d" % i if word == b"_" else word for i, word in enumerate(words)
    ]
    return b" ".join(named)


def _npy(data: bytes, n_surface: int) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names:
        return _from_fields({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"it holds an array of shape {array.shape} and dtype {array.dtype}, not (n_points, 3 or"
            " more) numbers"
        )
    return array.astype(np.float64)


def _off(data: bytes, n_surface: int) -> np.ndarray:
    off = import_optional("trimesh.exchange.off", needed_by=_NEEDED_BY)
    text = re.sub(r"#.*", "", data.decode("utf-8", errors="replace"))
    # For a truncated file the parser returns fewer faces, and raises no error.
    header = re.match(r"\s*(?:ST)?[CN4n]{0,3}OFF\s*(\d+)\s+(\d+)\b.*", text)
    if header is None:
        raise ValueError("its header does not state how many vertices and faces it has")
    lines = [line for line in text[header.end() :].splitlines() if line.strip()]
    n_vertices, n_faces = map(int, header.groups())
    faces = lines[n_vertices : n_vertices + n_faces]
    if len(lines) < n_vertices + n_faces or any(map(_is_cut, faces)):
        raise ValueError("it ends within its vertices or faces")
    loaded = off.load_off(io.StringIO(text))
    return _surface(loaded["vertices"], loaded.get("faces"), n_surface)


def _stl(data: bytes, n_surface: int) -> np.ndarray:
    stl = import_optional("trimesh.exchange.stl", needed_by=_NEEDED_BY)
    loaded = stl.load_stl(io.BytesIO(data))
    if "vertices" not in loaded:
        raise ValueError("it holds no complete facet")
    return _surface(loaded["vertices"], loaded["faces"], n_surface)


def _obj(text: str, n_surface: int) -> np.ndarray:
    obj = import_optional("trimesh.exchange.obj", needed_by=_NEEDED_BY)
    # Without a resolver and without materials, no other file is opened.
    loaded = obj.load_obj(io.StringIO(text), skip_materials=True, maintain_order=True)
    parts = list(loaded["geometry"].values()) if "geometry" in loaded else [loaded]
    if not any(len(part.get("faces", ())) for part in parts):
        return np.concatenate([np.asarray(part["vertices"], np.float64) for part in parts])
    vertices, triangles, n_before = [], [], 0
    for part in parts:
        vertices.append(np.asarray(part["vertices"], np.float64))
        triangles.append(_triangles(part.get("faces", ())) + n_before)
        n_before += len(vertices[-1])
    return _surface(np.concatenate(vertices), np.concatenate(triangles), n_surface)


def _text(text: str) -> np.ndarray:
    lines = [re.sub(r"(#|//).*", "", line).replace(",", " ") for line in text.splitlines()]
    rows = [line.replace(";", " ").split() for line in lines if line.strip()]
    if not rows:
        return np.empty((0, 3))
    if len(rows) > 1 and all(re.match(r"[A-Za-z_]", word) for word in rows[0]):
        rows = rows[1:]  # names of the columns
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    except ValueError as error:
        raise ValueError(f"it is in no format that is read here ({_FORMATS})") from error


def _refuse_las(data: bytes, n_surface: int) -> np.ndarray:
    raise ValueError("LAS and LAZ are not read; put the array laspy.read(path).xyz into the cell")


def _is_cut(face: str | bytes) -> bool:
    """Return whether the line of a face has fewer corners than its first number states."""
    words = face.split()
    return len(words) <= int(words[0])


def _triangles(faces: ArrayLike) -> np.ndarray:
    """Cut faces of k corners into k - 2 triangles each."""
    faces = np.asarray(faces, dtype=np.intp)
    if faces.size == 0:
        return np.empty((0, 3), dtype=np.intp)
    fans = [faces[:, [0, k, k + 1]] for k in range(1, faces.shape[1] - 1)]
    return np.concatenate(fans)


def _surface(vertices: ArrayLike, faces: ArrayLike | None, n_surface: int) -> np.ndarray:
    """Sample points evenly on the surface of a mesh; return its vertices if it has no faces.

    Vertices alone do not describe the surface: a cube has only eight.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    triangles = _triangles(() if faces is None else faces)
    if not len(triangles):
        return vertices
    corners = vertices[triangles]  # (n_triangles, 3, 3 + n_features)
    sides = corners[:, 1:, :3] - corners[:, :1, :3]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    areas = np.where(np.isfinite(areas), areas, 0.0)
    if not areas.sum() > 0:
        return vertices
    rng = np.random.default_rng(0)  # the same file gives the same points
    # Stratified: one point in each n-th of the area, more even than independent points.
    shares = (np.arange(n_surface) + rng.random(n_surface)) / n_surface
    total = np.cumsum(areas)
    chosen = np.searchsorted(total, shares * total[-1], side="right").clip(max=len(areas) - 1)
    u, v = rng.random((2, n_surface, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = corners[chosen].swapaxes(0, 1)
    points: np.ndarray = a + u * (b - a) + v * (c - a)
    return points


_MAGIC: list[tuple[re.Pattern[bytes], Callable[[bytes, int], np.ndarray]]] = [
    (re.compile(rb"ply\r?\n"), _ply),
    (re.compile(rb"\x93NUMPY"), _npy),
    (re.compile(rb"LASF"), _refuse_las),
    (re.compile(rb"(?:#[^\n]*\n|\s+)*(VERSION|FIELDS)\s"), _pcd),
    (re.compile(rb"(?:#[^\n]*\n|\s+)*(ST)?[CN4n]{0,3}OFF"), _off),
    (re.compile(rb"\s*solid\b.*?\bfacet\b", re.DOTALL), _stl),
]
