"""Cells set to missing, in every container."""

import numpy as np
import pandas as pd
import pytest

from skmm._frame._column import is_missing, to_columns
from skmm.inspection._cell_edits import column_positions, has_cells, remove_cells

ROWS = np.array([True, False, True])

SERIES = {
    "object": pd.Series([np.zeros(2), "text", (1, 2)], dtype=object),
    "str": pd.Series(["a", "b", "c"]),
    "float": pd.Series([0.5, 1.5, 2.5]),
    "int": pd.Series([1, 2, 3]),
    "bool": pd.Series([True, False, True]),
    "Int64": pd.Series([1, 2, 3], dtype="Int64"),
    "category": pd.Series(["a", "b", "a"], dtype="category"),
    "time": pd.Series(pd.to_datetime(["2020", "2021", "2022"], format="%Y")),
}


@pytest.mark.parametrize("kind", SERIES)
def test_pandas_cells_are_removed_and_others_unchanged(kind):
    # Labels are repeated, because rows are positions.
    frame = pd.DataFrame({"kept": [1, 2, 3], "cell": SERIES[kind]}).set_axis(["x", "x", "y"])
    before = frame.copy()
    after = remove_cells(frame, [1], ROWS)
    column = to_columns(after)[1]
    assert column.missing.tolist() == ROWS.tolist()
    assert column.values[1] == before["cell"].iloc[1]
    assert after.index.tolist() == ["x", "x", "y"]
    pd.testing.assert_series_equal(after["kept"], before["kept"])
    pd.testing.assert_frame_equal(frame, before)  # the input is not changed


def test_object_columns_keep_their_missing_value():
    with_none = pd.DataFrame({"cell": pd.Series(["a", None, "b"], dtype=object)})
    without = pd.DataFrame({"cell": pd.Series(["a", "c", "b"], dtype=object)})
    assert remove_cells(with_none, [0], ROWS)["cell"].tolist() == [None, None, None]
    assert [type(c) for c in remove_cells(without, [0], ROWS)["cell"]] == [float, str, float]


@pytest.mark.parametrize("dtype", [float, np.float32, int, bool, object, str])
def test_arrays(dtype):
    array = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).astype(dtype)
    before = array.copy()
    after = remove_cells(array, [0, 2], ROWS)
    missing = np.array([is_missing(column.astype(object)) for column in after.T]).T
    assert missing.tolist() == [[True, False, True], [False] * 3, [True, False, True]]
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(array, before)
    assert after.dtype == (dtype if dtype in (float, np.float32, object) else after.dtype)


def test_polars():
    pl = pytest.importorskip("polars", reason="needs the extra 'polars'")
    cells = [b"x", b"y", b"z"]
    frame = pl.DataFrame({"kept": [1, 2, 3], "cell": cells, "price": [1, 2, 3]})
    after = remove_cells(frame, [1, 2], ROWS)
    assert after.to_dict(as_series=False) == {
        "kept": [1, 2, 3],
        "cell": [None, b"y", None],
        "price": [None, 2, None],
    }
    assert after.schema == frame.schema
    assert frame["cell"].to_list() == cells


def test_nothing_to_remove_returns_the_same_object():
    frame = pd.DataFrame({"cell": [1, 2, 3]})
    assert remove_cells(frame, [0], np.zeros(3, dtype=bool)) is frame


@pytest.mark.parametrize(
    "key, expected",
    [
        ("b", [1]),
        (["c", "a"], [2, 0]),
        (2, [2]),
        ([0, 2], [0, 2]),
        (slice("a", "b"), [0, 1]),
        ([True, False, True], [0, 2]),
        (lambda X: [c for c in X.columns if c != "b"], [0, 2]),
        ([], []),
    ],
)
def test_positions_of_columns(key, expected):
    X = pd.DataFrame([[1, "x", 2.0]], columns=["a", "b", "c"])
    assert column_positions(X, key) == expected


def test_positions_of_columns_of_an_array():
    assert column_positions(np.zeros((2, 3)), [0, -1]) == [0, 2]
    with pytest.raises(ValueError, match="no column names"):
        column_positions(np.zeros((2, 3)), ["a"])


def test_modality_is_present_with_any_of_its_columns():
    X = pd.DataFrame({"front": ["a", None, None], "back": [None, "b", None]})
    assert has_cells(X, [0, 1]).tolist() == [True, True, False]
