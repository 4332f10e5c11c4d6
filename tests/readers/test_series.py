"""Time series cells: all forms of one series have the same values; other cells are refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import read_series
from skmm.readers._image import digest_image
from skmm.readers._series import digest_series, load_series

VALUES = np.array([[1.5, -2.0], [np.nan, 0.25], [3.0, 4.0]])
FRAME = pd.DataFrame(VALUES, columns=["x", "y"], index=pd.date_range("2026-01-01", periods=3))

SPELLINGS = {
    "float64": VALUES,
    "float32": VALUES.astype(np.float32),
    "float16": VALUES.astype(np.float16),
    "big-endian": VALUES.astype(">f8"),
    "column-major": np.asfortranarray(VALUES),
    "masked": np.ma.masked_invalid(VALUES),
    "objects": VALUES.astype(object),
    "lists": VALUES.tolist(),
    "lists with None": [[1.5, -2], [None, 0.25], [3, 4]],
    "tuples": tuple(map(tuple, VALUES.tolist())),
    "a list of arrays": list(VALUES),
    "tensor": torch.from_numpy(VALUES),
    "DataFrame": FRAME,
    "nullable DataFrame": FRAME.convert_dtypes(),
}


@pytest.mark.parametrize("cell", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_one_series(cell):
    series = read_series(cell)
    assert series.dtype == np.float32 and series.flags.c_contiguous and series.flags.writeable
    np.testing.assert_array_equal(series, VALUES.astype(np.float32))
    assert digest_series(cell) == digest_series(VALUES)


@pytest.mark.parametrize(
    "cell",
    [
        [1, 2, None],
        np.array([1, 2, np.nan]),
        np.array([[1.0], [2.0], [np.nan]]),
        pd.Series([1, 2, None]),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1, 2, None], dtype=object),
        pd.array([1, 2, None], dtype="Float32"),
    ],
)
def test_one_channel(cell):
    np.testing.assert_array_equal(read_series(cell), [[1], [2], [np.nan]])
    assert digest_series(cell) == digest_series([[1.0], [2.0], [np.nan]])


def test_polars():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": [1.5, None, 3.0], "y": [-2.0, 0.25, 4.0]})
    assert digest_series(frame) == digest_series(VALUES)
    assert digest_series(frame["x"]) == digest_series(VALUES[:, 0])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_whole_numbers(dtype):
    cell = np.array([0, 1, 1], dtype=dtype)
    assert read_series(cell).ravel().tolist() == [0.0, 1.0, 1.0]
    assert digest_series(cell) == digest_series([0, 1, 1])


def test_one_timestamp():
    assert read_series([7.0]).tolist() == [[7.0]]
    assert read_series([[7.0, 8.0]]).tolist() == [[7.0, 8.0]]


def test_the_cell_is_left_alone():
    cell = np.array([[1.0, np.nan]], dtype=np.float32)
    before = cell.copy()
    series = read_series(cell)
    series[:] = 5
    np.testing.assert_array_equal(cell, before)
    read_only = before.copy()
    read_only.setflags(write=False)
    assert read_series(read_only).flags.writeable


def test_max_length():
    digest, series = load_series(VALUES, max_length=2)
    np.testing.assert_array_equal(series, VALUES[:2].astype(np.float32))
    assert digest == digest_series(VALUES)  # of the whole content
    assert len(read_series(VALUES, max_length=3)) == len(read_series(VALUES, max_length=9)) == 3


# ---- digests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        VALUES[:2],
        VALUES[::-1],
        VALUES[:, ::-1],
        VALUES.T,
        VALUES.reshape(1, 6),
        VALUES.reshape(6),
        VALUES + [[0, 0], [0, 1e-6], [0, 0]],
        np.nan_to_num(VALUES),
    ],
)
def test_another_series_has_another_digest(other):
    assert digest_series(other) != digest_series(VALUES)


def test_a_series_is_no_image():
    cell = np.zeros((4, 4), dtype=np.uint8)
    assert digest_series(cell) != digest_image(cell)


def test_all_bit_patterns_of_nan_have_one_digest():
    odd = np.array([0x7FC00001, 0x3F800000], dtype=np.uint32).view(np.float32)
    assert np.isnan(odd[0]) and odd[1] == 1.0
    assert digest_series(odd) == digest_series([np.nan, 1.0])


def test_load_is_digest_and_read():
    digest, series = load_series(FRAME)
    assert digest == digest_series(FRAME) and len(digest) == 16
    np.testing.assert_array_equal(series, read_series(FRAME))


# ---- refused cells ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("walk.csv", "from a cell of type str. Load the file"),
        (b"123", "from a cell of type bytes. Load the file"),
        (3.5, "from a cell of type float. Put each series into one cell"),
        (np.float32(3.5), "from a cell of type float32. Put each"),
        ({"a": [1]}, "from a cell of type dict. Give an array"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\). Use \(n_timestamps,\) or"),
        (np.array(3.0), r"shape \(\). Use \(n_timestamps,\) or"),
        (np.zeros((5, 0)), "it has no channels"),
        ([[1, 2], [3]], "a list whose items differ in length"),
        (["1", "2"], "an array of dtype <U1. Use numbers"),
        ([1, "2", None], "values of type str. Use numbers|dtype <U"),
        (pd.Series(["1", "2"], dtype=object), "values of type str"),
        (pd.Series(["1", "2"]), "values of type str"),
        (np.array([1j]), "dtype complex128"),
        (pd.date_range("2026-01-01", periods=3), r"dtype datetime64"),
        (torch.ones(2, requires_grad=True), r"a Tensor that numpy cannot convert .*detach"),
    ],
)
def test_no_series(cell, message):
    for reader in (read_series, digest_series, load_series):
        with pytest.raises(CellTypeError, match=message):
            reader(cell)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([], "it has no timestamps"),
        (np.zeros((0, 3)), r"shape \(0, 3\): it has no timestamps"),
        (pd.DataFrame(), "it has no timestamps"),
        (pd.Series([], dtype=float), "it has no timestamps"),
        ([[0, 1], [np.inf, 2]], "value inf at timestamp 1 of channel 0 is infinite"),
        ([0.0, -np.inf], "value -inf at timestamp 1 of channel 0 is infinite"),
        ([0.0, 1e300], "value 1e[+]300 at timestamp 1 .* beyond the range of float32"),
        ([0, 10**400], "at timestamp 1 .* is infinite|beyond"),
    ],
)
def test_unreadable(cell, message):
    for reader in (read_series, digest_series, load_series):
        with pytest.raises(MediaDecodeError, match=message):
            reader(cell)


@pytest.mark.parametrize("cell", [[np.nan], [None, None], np.full((3, 2), np.nan)])
def test_nothing_but_nan(cell):
    for reader in (read_series, load_series):
        with pytest.raises(MediaDecodeError, match="nothing but NaN. Use None for an absent"):
            reader(cell)


def test_nothing_but_nan_in_one_channel_is_a_series():
    assert np.isnan(read_series([[1, np.nan], [2, np.nan]])[:, 1]).all()


def test_nothing_but_nan_after_the_cut():
    with pytest.raises(MediaDecodeError, match="nothing but NaN"):
        read_series([np.nan, np.nan, 1.0], max_length=2)
