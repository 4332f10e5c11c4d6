import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import FunctionTransformer

from skmm._frame._column import (
    Column,
    add_absent_columns,
    column_names,
    is_missing,
    n_rows,
    take_columns,
    take_rows,
    to_columns,
)

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

IMAGE = Image.new("RGB", (2, 2))
OTHER = Image.new("L", (3, 1))


def cells(*items):
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


# ---- is_missing ----------------------------------------------------------------------------

MISSING = [
    None,
    float("nan"),
    np.nan,
    np.float32("nan"),
    np.float16("nan"),
    pd.NA,
    pd.NaT,
    np.datetime64("NaT"),
    np.timedelta64("NaT"),
    Decimal("NaN"),
    Decimal("sNaN"),
]
PRESENT = [
    "",
    "nan",
    "None",
    b"",
    0,
    0.0,
    False,
    float("inf"),
    [],
    [None],
    [np.nan],
    (),
    {},
    np.array([np.nan]),
    np.array([]),
    np.full((2, 2), np.nan),
    IMAGE,
    Path("nan"),
    pd.Series([np.nan]),
    object(),
]


@pytest.mark.parametrize("cell", MISSING, ids=lambda c: f"{type(c).__name__} {c}")
def test_missing_in_every_spelling(cell):
    assert is_missing(cells(cell, "a", cell)).tolist() == [True, False, True]


@pytest.mark.parametrize("cell", PRESENT, ids=lambda c: type(c).__name__)
def test_other_cells_are_present(cell):
    missing = is_missing(cells(cell, None, cell))
    assert missing.dtype == bool
    assert missing.tolist() == [False, True, False]


def test_missing_cells_of_one_shape_do_not_become_a_matrix():
    assert is_missing(cells(np.zeros(2), np.zeros(2))).tolist() == [False, False]
    assert is_missing(cells(np.full(1, np.nan))).tolist() == [False]
    assert is_missing(cells()).tolist() == []


# ---- to_columns: containers ----------------------------------------------------------------


def as_pandas(name, items):
    return pd.DataFrame({name: pd.Series(cells(*items), dtype=object)})


def as_polars(name, items):
    return pl.DataFrame([pl.Series(name, items, dtype=pl.Object)])


CONTAINERS = {
    "pandas frame": as_pandas,
    "pandas series": lambda name, items: as_pandas(name, items)[name],
    "polars frame": as_polars,
    "polars series": lambda name, items: as_polars(name, items)[name],
    "numpy 1-D": lambda name, items: cells(*items),
    "numpy 2-D": lambda name, items: cells(*items)[:, None],
    "list": lambda name, items: list(items),
    "tuple": lambda name, items: tuple(items),
}
KINDS = {
    "strings": ["a", None, ""],
    "bytes": [b"a", None, b""],
    "images": [IMAGE, None, OTHER],
    "paths": [Path("a"), None, Path("b")],
    "equal arrays": [np.zeros((2, 3)), np.ones((2, 3)), None],
    "unequal arrays": [np.zeros(2), None, np.zeros(3)],
    "lists": [[1, 2], None, [3]],
    "dicts": [{"a": 1}, None, {}],
    "mixed": ["a", IMAGE, None],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_cells_of_every_container_are_unchanged(container, kind):
    items = KINDS[kind]
    X = CONTAINERS[container]("photo", items)
    assert n_rows(X) == 3
    (column,) = to_columns(X)
    assert isinstance(column, Column)
    assert column.name == ("photo" if container.startswith(("pandas", "polars")) else None)
    assert column.values.shape == column.missing.shape == column.labels.shape == (3,)
    assert column.values.dtype == column.labels.dtype == object
    assert not column.values.flags.writeable
    assert column.missing.tolist() == [item is None for item in items]
    for item, value in zip(items, column.values, strict=True):
        assert item is value
    assert column.labels.tolist() == [0, 1, 2]
    assert type(column.labels[0]) is int  # a message must not show np.int64(0)


def test_reading_columns_leaves_the_array_writable():
    X = cells("a", "b")
    (column,) = to_columns(X)
    X[0] = "c"
    assert X[0] == "c"
    assert not column.values.flags.writeable


@pytest.mark.parametrize(
    ("series", "values"),
    [
        (pd.Series(["a", None]), ["a", None]),
        (pd.Series(["a", None], dtype="string"), ["a", None]),
        (pd.Series(["a", None], dtype="string[pyarrow]"), ["a", None]),
        (pd.Series(["a", None], dtype=pd.ArrowDtype(pa.string())), ["a", None]),
        (pd.Series(["a", None], dtype=object), ["a", None]),
        (pd.Series(["a", None], dtype="category"), ["a", None]),
        (pd.Series([1, None], dtype="category"), [1, None]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([1.5, np.nan]), [1.5, None]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([1.5, None], dtype="Float64"), [1.5, None]),
        (pd.Series([True, None], dtype="boolean"), [True, None]),
        (pd.Series([1, None], dtype="int64[pyarrow]"), [1, None]),
        (pd.Series([b"a", None], dtype=pd.ArrowDtype(pa.binary())), [b"a", None]),
        (pd.to_datetime(pd.Series(["2020-01-02", None])), [pd.Timestamp("2020-01-02"), None]),
        (pd.Series([0, 1], dtype=pd.SparseDtype(int)), [0, 1]),
        (pl.Series(["a", None]), ["a", None]),
        (pl.Series(["a", None], dtype=pl.Categorical), ["a", None]),
        (pl.Series(["a", None], dtype=pl.Enum(["a"])), ["a", None]),
        (pl.Series([1, None]), [1, None]),
        (pl.Series([1.5, float("nan"), None]), [1.5, None, None]),
        (pl.Series([b"a", None]), [b"a", None]),
        (pl.Series([{"a": 1}, None]), [{"a": 1}, None]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([b"a", b"bc"]), [b"a", b"bc"]),
        (np.array([1.5, np.nan]), [1.5, None]),
        (np.array(["2020-01-02", "NaT"], "M8[ns]"), [np.datetime64("2020-01-02"), None]),
        (["a", None, 3], ["a", None, 3]),
    ],
)
def test_values_of_every_dtype(series, values):
    (column,) = to_columns(series)
    assert column.missing.tolist() == [value is None for value in values]
    for value, got in zip(values, column.values, strict=True):
        assert value is None or got == value


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.UInt8, 2)), np.uint8),
        (pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Float32, 2)), np.float32),
        (pl.Series([[1, 2], None, [3, 4]], dtype=pl.List(pl.UInt8)), np.uint8),
        (pl.Series([[1, 2], None, [3, 4]], dtype=pl.List(pl.Float32)), np.float32),
    ],
)
def test_polars_vectors_keep_their_dtype(series, expected):
    (column,) = to_columns(series)
    assert column.missing.tolist() == [False, True, False]
    assert [type(v) for v in column.values] == [np.ndarray, type(None), np.ndarray]
    assert column.values[0].dtype == expected
    assert column.values[2].tolist() == [3, 4]


def test_polars_arrays_of_several_dimensions():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (column,) = to_columns(pl.Series("p", images))
    assert [v.shape for v in column.values] == [(3, 4), (3, 4)]
    np.testing.assert_array_equal(np.stack(list(column.values)), images)


def test_polars_lists_of_lists_and_of_strings():
    nested, words = [[[1.0, 2.0], [3.0, 4.0]], None], [["a", "b"], None]
    (column,) = to_columns(pl.Series(nested))
    assert column.values.tolist() == nested
    (column,) = to_columns(pl.Series(words))
    assert column.values.tolist() == words


def test_pandas_arrow_lists():
    series = pd.Series([[1.0, 2.0], None], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
    (column,) = to_columns(series)
    assert column.missing.tolist() == [False, True]
    assert list(column.values[0]) == [1.0, 2.0]


def test_a_frame_gives_its_columns_in_order():
    frame = pd.DataFrame({"b": [1, 2], "a": ["x", None], 3: [None, None]}, index=["r", "s"])
    columns = to_columns(frame)
    assert [column.name for column in columns] == ["b", "a", 3]
    assert [column.missing.tolist() for column in columns] == [
        [False, False],
        [False, True],
        [True, True],
    ]
    assert all(column.labels.tolist() == ["r", "s"] for column in columns)


def test_columns_with_the_same_name():
    frame = pd.DataFrame([["x", "y"]], columns=["a", "a"])
    assert [column.values[0] for column in to_columns(frame)] == ["x", "y"]


def test_labels_of_a_multi_index():
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    (column,) = to_columns(pd.Series(["x", "y"], index=index))
    assert column.labels.tolist() == [("a", 1), ("b", 2)]


def test_columns_of_a_matrix():
    columns = to_columns(np.array([[1.0, np.nan], [3.0, 4.0]]))
    assert [column.name for column in columns] == [None, None]
    assert columns[1].missing.tolist() == [True, False]
    assert columns[0].values.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2)])
def test_an_array_of_more_dimensions_is_one_column(shape):
    images = np.arange(np.prod(shape)).reshape(shape)
    (column,) = to_columns(images)
    assert column.values.shape == (5,)
    assert not column.missing.any()
    for image, cell in zip(images, column.values, strict=True):
        np.testing.assert_array_equal(cell, image)


def test_a_list_of_equally_long_rows_of_scalars_is_a_matrix():
    columns = to_columns([["a", 1.0, Path("x")], ["b", None, Path("y")]])
    assert [column.values.tolist() for column in columns] == [
        ["a", "b"],
        [1.0, None],
        [Path("x"), Path("y")],
    ]


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3]],
        [np.zeros(2), np.zeros(2)],
        [[np.zeros(2)], [np.zeros(2)]],
        [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
        [{"a": 1}, {"a": 2}],
        ["ab", "cd"],
        [b"ab", b"cd"],
    ],
)
def test_other_lists_are_one_column(X):
    (column,) = to_columns(X)
    assert all(a is b for a, b in zip(column.values, X, strict=True))


@pytest.mark.parametrize(
    "X", [pd.DataFrame({"a": []}), pl.DataFrame({"a": []}), np.empty((0, 1)), np.empty(0), []]
)
def test_no_rows(X):
    (column,) = to_columns(X)
    assert column.values.shape == column.missing.shape == column.labels.shape == (0,)
    assert n_rows(X) == 0


def test_array_likes():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return np.array([["a", "b"]], dtype=object)

    assert [column.values.tolist() for column in to_columns(Foreign())] == [["a"], ["b"]]
    assert n_rows(Foreign()) == 1


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a text", "got str. Pass a pandas or polars frame"),
        ({"a": [1]}, "got dict"),
        (None, "got NoneType"),
        (3, "got int"),
        (np.array(3), "got ndarray"),
        ((i for i in "ab"), "got generator"),
        (pl.LazyFrame({"a": [1]}), r"X.collect\(\)"),
    ],
)
@pytest.mark.parametrize("function", [to_columns, n_rows, column_names])
def test_other_objects_are_refused(X, message, function):
    with pytest.raises(TypeError, match=message):
        function(X)


def test_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"sparse matrix.*X.toarray\(\)"):
        to_columns(sparse.csr_matrix((2, 2)))


# ---- take_rows -----------------------------------------------------------------------------

TABLE = {"a": ["x", "y", "z"], "b": [1.0, 2.0, 3.0], "c": [IMAGE, None, OTHER]}
FRAMES = {
    "pandas": pd.DataFrame(TABLE, index=[10, 20, 30]),
    "polars": pl.DataFrame(
        [
            pl.Series("a", TABLE["a"]),
            pl.Series("b", TABLE["b"]),
            pl.Series("c", TABLE["c"], pl.Object),
        ]
    ),
    "numpy": np.array(list(zip(*TABLE.values(), strict=True)), dtype=object),
}


def contents(X):
    """Rows as lists, from any container."""
    return [list(row) for row in zip(*(c.values for c in to_columns(X)), strict=True)]


@pytest.mark.parametrize("container", FRAMES)
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([2, 0], [2, 0]),
        (np.array([1, 1, 1]), [1, 1, 1]),
        ([-1], [2]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (pd.Series([False, True, True], index=[5, 6, 7]), [1, 2]),
        (slice(1, None), [1, 2]),
        ([], []),
        (np.zeros(3, bool), []),
    ],
)
def test_take_rows_of_frames(container, rows, expected):
    X = FRAMES[container]
    taken = take_rows(X, rows)
    assert type(taken) is type(X)
    assert contents(taken) == [contents(X)[i] for i in expected]
    if container == "pandas":
        assert taken.index.tolist() == [[10, 20, 30][i] for i in expected]


@pytest.mark.parametrize(
    "X",
    [
        pd.Series(["x", "y", "z"], name="a", index=[3, 2, 1]),
        pl.Series("a", ["x", "y", "z"]),
        np.array(["x", "y", "z"]),
        ["x", "y", "z"],
        ("x", "y", "z"),
    ],
    ids=lambda X: type(X).__name__,
)
def test_take_rows_of_one_column(X):
    for rows in ([2, 0], [True, False, True]):
        taken = take_rows(X, rows)
        assert type(taken) is type(X)
        assert set(taken) == {"x", "z"}
    assert list(take_rows(X, [2, 0])) == ["z", "x"]


def test_take_rows_of_images_in_one_array():
    X = np.arange(24).reshape(3, 2, 4)
    np.testing.assert_array_equal(take_rows(X, [2, 0]), X[[2, 0]])


@pytest.mark.parametrize("container", [*FRAMES, "list"])
@pytest.mark.parametrize("rows", [[3], [True, False], [-4]])
def test_take_rows_out_of_range(container, rows):
    with pytest.raises(IndexError):
        take_rows(FRAMES.get(container, ["x", "y", "z"]), rows)


# ---- take_columns --------------------------------------------------------------------------

KEYS = [
    ("a", ["a"]),
    (["a"], ["a"]),
    (["c", "a"], ["c", "a"]),
    (pd.Index(["b"]), ["b"]),
    (np.array(["b", "c"]), ["b", "c"]),
    (1, ["b"]),
    (-1, ["c"]),
    (np.int64(2), ["c"]),
    ([0, 2], ["a", "c"]),
    ([-1, 0], ["c", "a"]),
    (np.array([1]), ["b"]),
    (slice(None), ["a", "b", "c"]),
    (slice(1, 3), ["b", "c"]),
    (slice("a", "b"), ["a", "b"]),
    (slice("b", None), ["b", "c"]),
    (slice(None, "b"), ["a", "b"]),
    ([True, False, True], ["a", "c"]),
    (np.array([False, True, False]), ["b"]),
    ([], []),
    (lambda X: ["b"], ["b"]),
    (lambda X: slice(0, 2), ["a", "b"]),
    (lambda X: 2, ["c"]),
]
IDS = [str(i) for i in range(len(KEYS))]


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize(("key", "names"), KEYS, ids=IDS)
def test_take_columns_of_frames(container, key, names):
    X = FRAMES[container]
    taken = take_columns(X, key)
    assert column_names(X, key) == names
    scalar = np.isscalar(key(X) if callable(key) else key)
    assert type(taken).__name__ == ("Series" if scalar else "DataFrame")
    assert ([taken.name] if scalar else list(taken.columns)) == names
    for name, column in zip(names, to_columns(taken), strict=True):
        assert column.values.tolist() == TABLE[name]
    if container == "pandas":
        assert taken.index.equals(X.index)


@pytest.mark.parametrize(("key", "names"), KEYS, ids=IDS)
def test_take_columns_agrees_with_column_transformer(key, names):
    X = FRAMES["pandas"]
    seen = []
    spy = FunctionTransformer(lambda part: seen.append(part) or np.zeros((3, 1)))
    ColumnTransformer([("spy", spy, key)]).fit(X)
    if names:  # scikit-learn skips an empty selection
        assert type(seen[0]) is type(take_columns(X, key))
        assert contents(seen[0]) == contents(take_columns(X, key))


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (1, ["x1"]),
        ([2, 0], ["x2", "x0"]),
        (slice(1, 3), ["x1", "x2"]),
        ([True, False, False], ["x0"]),
    ],
)
def test_take_columns_of_a_matrix(key, names):
    X = FRAMES["numpy"]
    taken = take_columns(X, key)
    assert taken.ndim == (1 if isinstance(key, int) else 2)
    assert column_names(X, key) == names
    assert contents(taken) == [[row[int(name[1])] for name in names] for row in contents(X)]


ONE = ["x", None, "z"]


@pytest.mark.parametrize(
    ("X", "names"),
    [
        (pd.Series(ONE, name="a", dtype=object), ["a"]),
        (pd.Series(ONE, dtype=object), ["x0"]),
        (pl.Series("a", ONE), ["a"]),
        (pl.Series(ONE), ["x0"]),
        (cells(*ONE), ["x0"]),
        (ONE, ["x0"]),
    ],
)
def test_take_columns_of_one_column(X, names):
    assert column_names(X) == column_names(X, 0) == column_names(X, [0]) == names
    flat, frame = take_columns(X, 0), take_columns(X, [0])
    assert getattr(flat, "ndim", 1) == 1
    assert frame.ndim == 2 if not isinstance(frame, pl.DataFrame) else frame.width == 1
    assert contents(flat) == contents(frame) == [[cell] for cell in ONE]
    if names == ["a"]:
        assert contents(take_columns(X, "a")) == contents(flat)
    empty = take_columns(X, [])
    assert empty.shape[1] == 0


def test_take_columns_of_images_in_one_array():
    X = np.arange(24).reshape(3, 2, 4)
    assert column_names(X) == ["x0"]
    assert take_columns(X, 0) is X
    frame = take_columns(X, [0])
    assert frame.shape == (3, 1)
    np.testing.assert_array_equal(frame[1, 0], X[1])


def test_names_that_are_not_strings():
    X = pd.DataFrame({3: ["x"], "a": ["y"]})
    assert column_names(X) == ["3", "a"]
    # Integers are positions, as in ColumnTransformer, even here.
    assert take_columns(X, 0).tolist() == ["x"]
    with pytest.raises(ValueError, match="no column at position 3"):
        take_columns(X, 3)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("wrap", [lambda k: k, lambda k: [k], lambda k: slice(k, None)])
def test_unknown_name(container, wrap):
    frame = FRAMES[container].rename(
        **{"columns" if container == "pandas" else "mapping": {"a": "photo"}}
    )
    with pytest.raises(
        ValueError, match="no column 'foto': did you mean 'photo'.* are 'photo', 'b'"
    ):
        take_columns(frame, wrap("foto"))
    with pytest.raises(ValueError, match="no column 'zzzzzz'. Its columns are"):
        column_names(frame, wrap("zzzzzz"))


def test_a_wide_frame_is_not_listed_in_full():
    frame = pd.DataFrame([range(1000)], columns=[f"c{i}" for i in range(1000)])
    with pytest.raises(ValueError, match="'c19' and 980 more") as caught:
        take_columns(frame, "price")
    assert len(str(caught.value)) < 300


def test_repeated_name():
    frame = pd.DataFrame([["x", "y"]], columns=["a", "a"])
    with pytest.raises(ValueError, match="2 columns named 'a'. Rename"):
        take_columns(frame, "a")
    assert take_columns(frame, [1]).to_numpy().tolist() == [["y"]]


def test_name_in_an_array():
    for X in (np.zeros((2, 2)), ["a", "b"], pd.Series(["a"])):
        with pytest.raises(ValueError, match="no column 'a', because it has no column names"):
            take_columns(X, "a")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (3, "no column at position 3: it has 3 columns"),
        ([0, -4], "no column at position -4"),
        ([True, False], "mask of 2 columns does not fit X with 3"),
        (["a", 0], "No columns can be selected by"),
        ([0.5], "No columns can be selected by"),
        (None, "No columns can be selected by None"),
        (True, "No columns can be selected by True"),
        ({"a"}, "No columns can be selected by"),
    ],
)
@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_invalid_keys(container, key, message):
    with pytest.raises(ValueError, match=message):
        take_columns(FRAMES[container], key)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_absent_columns_are_added(container):
    make = pd.DataFrame if container == "pandas" else pl.DataFrame
    frame = make({"b": [1, 2], "d": ["x", "y"]})
    full = add_absent_columns(frame, ["a", "b", "c", "d"])
    assert list(full.columns) == ["a", "b", "c", "d"] and list(frame.columns) == ["b", "d"]
    a, b, c, d = to_columns(full)
    assert a.missing.all() and c.missing.all()
    assert b.values.tolist() == [1, 2] and d.values.tolist() == ["x", "y"]
    # Other columns stay, and a complete frame is returned unchanged.
    assert list(add_absent_columns(frame, ["d", "e"]).columns) == ["b", "e", "d"]
    assert add_absent_columns(frame, ["d"]) is frame


def test_absent_columns_without_names_or_with_repeated_names():
    array = np.zeros((2, 2))
    assert add_absent_columns(array, ["a"]) is array
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert add_absent_columns(twice, ["a", "b"]) is twice
    nothing = add_absent_columns(pd.DataFrame(index=["r", "s"]), ["a"])
    assert nothing.shape == (2, 1) and nothing.index.tolist() == ["r", "s"]


# ---- imports -------------------------------------------------------------------------------


@pytest.mark.slow
def test_polars_is_not_imported():
    code = (
        "import sys, pandas as pd; from skmm._frame._column import *;"
        "to_columns(pd.DataFrame({'a': ['x']})); take_rows(['a'], [0]);"
        "print([m for m in ('torch', 'PIL', 'polars') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
