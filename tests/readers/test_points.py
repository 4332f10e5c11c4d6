"""The same cloud from every kind of cell and file; other cells are refused."""

import builtins
import io
import struct

import numpy as np
import pandas as pd
import pytest
import torch

from skmm.exceptions import CellTypeError, MediaDecodeError, MissingExtraError
from skmm.readers import _points as point_files
from skmm.readers import read_points
from skmm.readers._points import digest_points, load_points


@pytest.fixture
def cloud():
    """Numbers that survive being written with six digits."""
    return np.random.default_rng(0).integers(-500, 500, (7, 5)) / 8


def ply(cloud, *, names="x y z intensity nx", binary=False, faces=()):
    names = names.split()
    header = ["ply", f"format {'binary_little_endian' if binary else 'ascii'} 1.0"]
    header += [f"element vertex {len(cloud)}", *(f"property double {name}" for name in names)]
    if len(faces):
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    head = "\n".join([*header, "end_header\n"]).encode()
    if binary:
        body = cloud.astype("<f8").tobytes()
        return head + body + b"".join(struct.pack(f"<B{len(f)}i", len(f), *f) for f in faces)
    lines = [" ".join(f"{value:g}" for value in row) for row in cloud]
    lines += [" ".join(map(str, [len(face), *face])) for face in faces]
    return head + "\n".join(lines).encode() + b"\n"


def pcd(cloud, data="ascii", fields="x y z intensity ring", types="F F F F F"):
    pypcd4 = pytest.importorskip("pypcd4", reason="PCD needs the extra 'points'")
    if data == "ascii":
        head = (
            f"# .PCD v0.7 - Point Cloud Data\nVERSION 0.7\nFIELDS {fields}\nSIZE 4 4 4 4 4\n"
            f"TYPE {types}\nCOUNT 1 1 1 1 1\nWIDTH {len(cloud)}\nHEIGHT 1\n"
            f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(cloud)}\nDATA ascii\n"
        )
        return (head + "\n".join(" ".join(f"{v:g}" for v in row) for row in cloud)).encode()
    made = pypcd4.PointCloud.from_points(
        cloud.astype(np.float32), fields.split(), (np.float32,) * len(fields.split())
    )
    file = io.BytesIO()
    made.save(file, encoding=pypcd4.Encoding(data))
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


CUBE = np.array([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
SQUARES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]


def cube(suffix):
    """The surface of the unit cube, as a file of faces."""
    lines = [" ".join(f"{v:g}" for v in corner) for corner in CUBE]
    if suffix == "ply":
        return ply(CUBE, names="x y z", faces=SQUARES)
    if suffix == "ply.bin":
        return ply(CUBE, names="x y z", faces=SQUARES, binary=True)
    if suffix == "off":
        faces = [" ".join(map(str, [4, *face])) for face in SQUARES]
        return "\n".join(["OFF", "8 6 0", *lines, *faces, ""]).encode()
    if suffix == "obj":
        faces = ["f " + " ".join(str(i + 1) for i in face) for face in SQUARES]
        return "\n".join([*(f"v {line}" for line in lines), *faces, ""]).encode()
    triangles = [[f[0], f[k], f[k + 1]] for f in SQUARES for k in (1, 2)]
    facets = b"".join(
        struct.pack("<12fH", 0, 0, 0, *CUBE[corners].ravel(), 0) for corners in triangles
    )
    return bytes(80) + struct.pack("<I", len(triangles)) + facets


MESHES = ("ply", "ply.bin", "off", "obj", "stl")


class TestArrays:
    def test_every_spelling(self, cloud):
        named = np.rec.fromarrays(cloud.T, names=["x", "y", "z", "a", "b"])
        cells = [
            cloud,
            cloud.astype(np.float32),
            cloud.tolist(),
            tuple(map(tuple, cloud)),
            torch.from_numpy(cloud),
            pd.DataFrame(cloud),
            np.asfortranarray(cloud),
            named,
            np.asarray(named)[["b", "a", "z", "y", "x"]][["x", "y", "z", "a", "b"]],
        ]
        for cell in cells:
            np.testing.assert_array_equal(read_points(cell), cloud)
            digest, points = load_points(cell)
            assert digest == digest_points(cell) and len(digest) == 16
            np.testing.assert_array_equal(points, cloud)

    def test_named_fields_go_by_their_names(self):
        dtype = [("intensity", "<f4"), ("Z", "<f8"), ("X", "<i4"), ("Y", "u1")]
        cell = np.array([(0.5, 3.0, 1, 2)], dtype=dtype)
        assert read_points(cell).tolist() == [[1, 2, 3, 0.5]]
        with pytest.raises(CellTypeError, match="no field 'y', only x, z, w"):
            read_points(np.zeros(2, dtype=[("x", "f4"), ("z", "f4"), ("w", "f4")]))

    def test_shares_no_memory_with_the_cell(self, cloud):
        before = cloud.copy()
        read_points(cloud)[:] = 0
        np.testing.assert_array_equal(cloud, before)

    def test_points_without_a_return_are_left_out(self, cloud):
        holed = cloud.copy()
        holed[[1, 2, 3, 4], [0, 2, 4, 1]] = np.nan, np.inf, -np.inf, 1e300
        np.testing.assert_array_equal(read_points(holed), cloud[[0, 5, 6]])

    def test_one_point(self):
        assert read_points([[1, 2, 3]]).tolist() == [[1, 2, 3]]

    @pytest.mark.parametrize(
        "cell",
        [np.empty((0, 3)), np.empty((0, 0)), [], [[np.nan] * 3] * 4, b"", npy(np.empty((0, 4)))],
        ids=["no row", "nothing", "empty list", "only NaN", "empty file", "empty NPY"],
    )
    def test_no_point_is_no_cloud(self, cell):
        with pytest.raises(MediaDecodeError, match="no finite point|is empty"):
            read_points(cell)

    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            (np.zeros((5, 2)), r"shape \(5, 2\)\. Give \(n_points, 3"),
            (np.zeros(3), r"shape \(3,\)"),
            (np.zeros((4, 5, 3)), r"cell\.reshape\(-1, cell\.shape\[-1\]\)"),
            (np.zeros((3, 100)), r"columns\. Use cell\.T"),
            ([[1, 2, 3], [1, 2]], "list that numpy cannot convert"),
            (np.array([["a", "b", "c"]]), "dtype .<U1"),
            (np.zeros((2, 3), complex), "complex128"),
            (3.5, "type float"),
            (np.float64(3.5), "type float64"),
            ({"x": 1}, "type dict"),
            (io.BytesIO(b"ply"), "open file"),
        ],
    )
    def test_other_cells_are_refused(self, cell, message):
        for read in (read_points, digest_points, load_points):
            with pytest.raises(CellTypeError, match=message):
                read(cell)

    def test_digest_is_of_the_content(self, cloud, tmp_path):
        assert digest_points(cloud) == digest_points(np.asfortranarray(cloud.copy()))
        others = [cloud.astype(np.float32), cloud[::-1], cloud[:, :4], cloud.reshape(5, 7)]
        digests = [digest_points(cell) for cell in (cloud, *others, npy(cloud))]
        assert len(set(digests)) == len(digests)
        for name in ("a.npy", "b.ply"):
            (tmp_path / name).write_bytes(npy(cloud))
            assert digest_points(tmp_path / name) == digests[-1]


class TestFiles:
    def files(self, cloud):
        text = "\n".join(" ".join(f"{v:g}" for v in row) for row in cloud)
        header = "x,y,z,intensity,ring\n" + text.replace(" ", ",")
        named = np.rec.fromarrays(cloud.T, names=["x", "y", "z", "a", "b"])
        return {
            "npy": npy(cloud),
            "npy of names": npy(np.asarray(named)),
            "xyz": text.encode(),
            "commented": f"# made by hand\n\n// twice\n{text}\n".encode(),
            "csv": header.encode(),
            "ply": ply(cloud),
            "ply binary": ply(cloud, binary=True),
            "pcd": pcd(cloud),
            "pcd binary": pcd(cloud, "binary"),
            "pcd compressed": pcd(cloud, "binary_compressed"),
        }

    def test_every_format(self, cloud, tmp_path):
        pytest.importorskip("trimesh", reason="PLY needs the extra 'points'")
        for name, data in self.files(cloud).items():
            # The format is detected from the bytes, which are the key of the store.
            path = tmp_path / "cloud.dat"
            path.write_bytes(data)
            for cell in (data, bytearray(data), memoryview(data), path, str(path)):
                np.testing.assert_allclose(read_points(cell), cloud, rtol=1e-6, err_msg=name)

    def test_a_damaged_file_is_no_shorter_cloud(self, cloud):
        pytest.importorskip("trimesh", reason="PLY needs the extra 'points'")
        text = {"xyz", "commented", "csv"}  # say nowhere how many points they hold
        for name, data in self.files(cloud).items():
            if name in text:
                continue
            # A truncated last number cannot be detected in text.
            end = len(data.rstrip()) - 8
            if name in ("ply", "pcd"):
                end = data.rstrip().rindex(b" ") + 1
            for cut in [*range(3, end, 7), end]:
                with pytest.raises(MediaDecodeError, match="Cannot read the point cloud in"):
                    read_points(data[:cut])

    # An OBJ does not state how many vertices and faces it has.
    @pytest.mark.parametrize("suffix", sorted({*MESHES} - {"obj"}))
    def test_a_damaged_mesh_is_no_smaller_one(self, suffix):
        pytest.importorskip("trimesh", reason="meshes need the extra 'points'")
        data = cube(suffix)
        end = data.rstrip().rindex(b" ") if suffix in ("ply", "off") else len(data) - 1
        for cut in [*range(5, end, 5), end]:
            with pytest.raises(MediaDecodeError, match="Cannot read the point cloud in"):
                read_points(data[:cut])

    def test_color_in_one_number(self):
        packed = np.array([0x112233, 0xFF0001], dtype=np.uint32).view(np.float32)
        points = np.column_stack([np.eye(3, dtype=np.float32)[:2], packed])
        read = read_points(pcd(points, "binary", fields="x y z rgb"))
        np.testing.assert_array_equal(read[:, 3:], [[0x11, 0x22, 0x33], [0xFF, 0, 1]])

    def test_padding_is_no_feature(self, cloud):
        import random

        random.seed(0)
        before = random.getstate()
        read = read_points(pcd(cloud, fields="x y z _ ring"))
        np.testing.assert_allclose(read, cloud[:, [0, 1, 2, 4]])
        assert random.getstate() == before

    def test_no_return_in_a_file(self, cloud):
        cloud[2, 1] = np.nan
        for data in (npy(cloud), pcd(cloud), pcd(cloud, "binary")):
            np.testing.assert_allclose(read_points(data), np.delete(cloud, 2, axis=0))

    @pytest.mark.parametrize("suffix", MESHES)
    def test_points_of_a_mesh_are_on_its_surface(self, suffix):
        pytest.importorskip("trimesh", reason="meshes need the extra 'points'")
        points = read_points(cube(suffix), n_surface=3000)
        assert points.shape == (3000, 3)
        np.testing.assert_array_equal(points, read_points(cube(suffix), n_surface=3000))
        on_face = np.isclose(points, 0, atol=1e-6) | np.isclose(points, 1, atol=1e-6)
        assert on_face.any(axis=1).all() and points.min() > -1e-6 and points.max() < 1 + 1e-6
        # Even over the six faces, and within each.
        for axis in range(3):
            for side in (0, 1):
                own = points[np.isclose(points[:, axis], side, atol=1e-6)]
                assert 495 <= len(own) <= 505
                np.testing.assert_allclose(np.delete(own, axis, 1).mean(axis=0), 0.5, atol=0.05)
                np.testing.assert_allclose(np.delete(own, axis, 1).var(axis=0), 1 / 12, atol=0.02)

    def test_features_of_corners_are_interpolated(self):
        pytest.importorskip("trimesh", reason="meshes need the extra 'points'")
        corners = np.column_stack([CUBE, CUBE @ [1.0, 2.0, 4.0]])
        points = read_points(ply(corners, names="x y z heat", faces=SQUARES), n_surface=50)
        np.testing.assert_allclose(points[:, 3], points[:, :3] @ [1.0, 2.0, 4.0])

    @pytest.mark.parametrize(
        "data",
        [
            b"v 0 0 0\nv 1 0 0\nv 1 1 1\n",
            b"OFF\n3 0 0\n0 0 0\n1 0 0\n1 1 1\n",
            b"v 0 0 0\nv 1 0 0\nv 1 1 1\nf 1 2 2\n",
            ply(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]), names="x y z").replace(
                b"end_header", b"element face 0\nproperty list uchar int vertex_index\nend_header"
            ),
        ],
        ids=["obj", "off", "no area", "ply"],
    )
    def test_without_a_surface_its_vertices(self, data):
        pytest.importorskip("trimesh", reason="meshes need the extra 'points'")
        assert read_points(data).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1]]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"a sheep", "in no format that is read here"),
            (b"\0\1\2\3" * 30, "in no format that is read here"),
            (b"1 2\n3 4\n", "2 values, and 3 are needed"),
            (b"1 2 3\n4 5\n", "in no format"),
            (b"LASF" + bytes(300), "laspy"),
            (npy(np.zeros((2, 2))), r"shape \(2, 2\)"),
            (npy(np.array([{}, {}])), "allow_pickle"),
            (b"ply\nformat ascii 1.0\nelement face 0\nend_header\n", "no vertices|element"),
        ],
    )
    def test_unreadable_content(self, data, message, tmp_path):
        path = tmp_path / "cloud.bin"
        path.write_bytes(data)
        with pytest.raises(MediaDecodeError, match=f"in {len(data)} bytes.*({message})"):
            read_points(data)
        with pytest.raises(MediaDecodeError, match=f"cloud.bin'?: .*({message})"):
            read_points(path)
        assert digest_points(path) == digest_points(data)

    def test_no_such_file(self, tmp_path):
        for cell in (tmp_path / "gone.ply", "https://example.org/bunny.ply"):
            with pytest.raises(MediaDecodeError, match="read a point cloud from .*(such|fetched)"):
                read_points(cell)

    def test_an_obj_opens_no_other_file(self, monkeypatch):
        pytest.importorskip("trimesh", reason="meshes need the extra 'points'")
        read_points(cube("obj"))  # imports are done

        def refuse(*args, **kwargs):
            raise AssertionError("a file was opened")

        monkeypatch.setattr(builtins, "open", refuse)
        assert len(read_points(b"mtllib /etc/passwd\nusemtl a\n" + cube("obj"))) == 1024

    def test_a_missing_package_is_no_damaged_file(self, cloud, monkeypatch):
        def absent(name, *, needed_by):
            raise MissingExtraError(f"{needed_by} needs {name}")

        monkeypatch.setattr(point_files, "import_optional", absent)
        for data in (ply(cloud), cube("obj"), cube("off"), cube("stl")):
            with pytest.raises(MissingExtraError, match="A point cloud of this format needs trim"):
                read_points(data)
        np.testing.assert_array_equal(read_points(npy(cloud)), cloud)
