import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from columns import column_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skmm import encoders, infer_modalities
from skmm._compose._default_encoder import default_encoder
from skmm._frame._modality import MODALITIES
from skmm.exceptions import CellTypeError

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

RNG = np.random.default_rng(0)
PNG = b"\x89PNG\r\n\x1a\n"
WAV = b"RIFF\0\0\0\0WAVEfmt "
SENTENCES = [
    f"The {a} {b} was {c} than I had hoped for"
    for a, b, c in zip("abcdefgh", "ijklmnop", "qrstuvwx", strict=True)
]


def column(cells, name="c", index=None):
    return column_of(name, *cells, index=index)


def infer_one(cells, name="c"):
    return infer_modalities(column(cells, name))[name]


def as_polars(cells):
    try:
        return pl.DataFrame([pl.Series("c", cells)])
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        return pl.DataFrame([pl.Series("c", cells, dtype=pl.Object)])


CONTAINERS = {
    "pandas object": column,
    "polars": as_polars,
    "polars object": lambda cells: pl.DataFrame([pl.Series("c", cells, dtype=pl.Object)]),
    "pandas series": lambda cells: column(cells)["c"],
}

CASES = {
    "numbers": ([1, 2, 3], "tabular"),
    "floats": ([1.5, None, float("nan")], "tabular"),
    "booleans": ([True, False, None], "tabular"),
    "decimals": ([Decimal("1.5"), Decimal("2.5"), None], "tabular"),
    "dates": ([pd.Timestamp("2020-01-01").to_pydatetime(), None], "tabular"),
    "categories": (["red", "blue", "red", None], "tabular"),
    "sentences": ([*SENTENCES, None], "text"),
    "image paths": (["a.jpg", None, "b.png"], "image"),
    "path objects": ([Path("a.jpg"), None, Path("b.png")], "image"),
    "urls": (["https://example.org/a.jpg?x=1", "https://example.org/b.jpg"], "image"),
    "audio paths": (["a.wav", "b.mp3"], "audio"),
    "video paths": (["a.mp4", "b.webm"], "video"),
    "cloud paths": (["a.ply", "b.pcd"], "pointcloud"),
    "image bytes": ([PNG, None, PNG + b"1"], "image"),
    "audio bytes": ([WAV, WAV + b"1", None], "audio"),
    "pil": ([Image.new("L", (2, 2)), None, Image.new("RGB", (3, 3))], "image"),
    "gray arrays": ([np.zeros((4, 5), "u1"), None, np.zeros((6, 5), "u1")], "image"),
    "color arrays": ([np.zeros((4, 5, 3), "u1"), np.zeros((4, 5, 4), "u1")], "image"),
    "float color arrays": ([np.zeros((4, 5, 3)), np.zeros((6, 5, 3))], "image"),
    "lists of images": ([["a.jpg", "b.png"], None, [PNG], "c.jpg"], "image"),
    "lists of arrays": ([[np.zeros((4, 5, 3), "u1")] * 2, None, [np.zeros((4, 5), "u1")]], "image"),
    "clips": ([np.zeros((2, 4, 5, 3), "u1"), None], "video"),
    "vectors": ([np.zeros(5), None, np.ones(5)], "vector"),
    "lists of one length": ([[0.1, 0.2], None, [0.3, 0.4]], "vector"),
    "unequal vectors": ([np.zeros(5), None, np.ones(6)], "timeseries"),
    "lists of several lengths": ([[0.1, 0.2], None, [0.3]], "timeseries"),
    "series": ([np.zeros((9, 3)), np.ones((7, 3)), None], "timeseries"),
    "series of one length": ([np.zeros((9, 3)), np.ones((9, 3))], "timeseries"),
    "all missing": ([None, None], "drop"),
    "all missing, NaN": ([float("nan"), float("nan")], "drop"),
    "constant number": ([1.5, 1.5, 1.5], "drop"),
    "constant word": (["north", "north"], "drop"),
    "constant path": (["a.jpg", "a.jpg"], "drop"),
    "constant where present": (["yes", None, "yes", None], "tabular"),
    "constant number where present": ([1, None, 1], "tabular"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_cells(case, container):
    cells, modality = CASES[case]
    assert infer_modalities(CONTAINERS[container](cells)) == {"c": modality}


@pytest.mark.parametrize("case", CASES)
def test_numpy_and_lists(case):
    cells, modality = CASES[case]
    values = column(cells)["c"].to_numpy()
    assert infer_modalities(values) == {"x0": modality}
    assert infer_modalities(values[:, None]) == {"x0": modality}
    assert infer_modalities(list(cells)) == {"x0": modality}


@pytest.mark.parametrize(
    ("series", "modality"),
    [
        (pd.Series([1, 2]), "tabular"),
        (pd.Series([True, False]), "tabular"),
        (pd.Series([1, None], dtype="Int64"), "tabular"),
        (pd.Series([True, None, False], dtype="boolean"), "tabular"),
        (pd.Series([1.5, None], dtype="float[pyarrow]"), "tabular"),
        (pd.to_datetime(pd.Series(["2020-01-01", "2020-01-02"])), "tabular"),
        (pd.to_datetime(pd.Series(["2020-01-01", "2020-01-02"]), utc=True), "tabular"),
        (pd.to_timedelta(pd.Series([1, 2])), "tabular"),
        (pd.Series(SENTENCES, dtype="category"), "tabular"),
        (pd.Series([1, 2], dtype=pd.SparseDtype(int)), "tabular"),
        (pd.Series(SENTENCES), "text"),
        (pd.Series(SENTENCES, dtype="string"), "text"),
        (pd.Series(SENTENCES, dtype="string[pyarrow]"), "text"),
        (pd.Series(SENTENCES, dtype=pd.ArrowDtype(pa.string())), "text"),
        (pd.Series(["a.jpg", None], dtype="string[pyarrow]"), "image"),
        (pd.Series([None, None], dtype="string"), "drop"),
        (pd.Series([np.nan, np.nan]), "drop"),
        (pd.Series([3, 3], dtype="Int64"), "drop"),
        (pd.Series(["a", "a"], dtype="category"), "drop"),
        (pl.Series([1, 2]), "tabular"),
        (pl.Series([1.5, float("nan"), float("nan")]), "tabular"),
        (pl.Series([True, False]), "tabular"),
        (pl.Series(SENTENCES, dtype=pl.Categorical), "tabular"),
        (pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])), "tabular"),
        (pl.Series([1, 2]).cast(pl.Datetime), "tabular"),
        (pl.Series(SENTENCES), "text"),
        (pl.Series([float("nan"), None]), "drop"),
        (pl.Series([None, None]), "drop"),
        (pl.Series([2, 2]), "drop"),
        (pl.Series([[1.0, 2.0], [3.0, 4.0]], dtype=pl.Array(pl.Float32, 2)), "vector"),
        (pl.Series(np.zeros((2, 9, 9), "u1")), "image"),
        (np.array([1.5, 2.5]), "tabular"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), "tabular"),
        (np.array(SENTENCES), "text"),
        (np.zeros((3, 9, 2)), "timeseries"),
        (np.zeros((3, 9, 9, 3), "u1"), "image"),
        (np.zeros((3, 2, 9, 9, 3), "u1"), "video"),
    ],
)
def test_dtypes(series, modality):
    assert list(infer_modalities(series).values()) == [modality]


def test_a_frame_in_order():
    frame = pd.DataFrame({"z": ["a.jpg", "b.jpg"], "a": [1, 2], "m": SENTENCES[:2]})
    expected = {"z": "image", "a": "tabular", "m": "text"}
    assert infer_modalities(frame) == expected
    assert list(infer_modalities(frame)) == list(expected)
    assert infer_modalities(pl.from_pandas(frame)) == expected


def test_names_of_nameless_columns():
    assert infer_modalities(np.array([[1, 2.5], [3, 4]])) == {"x0": "tabular", "x1": "tabular"}
    assert infer_modalities(pd.DataFrame({3: [1, 2]})) == {"3": "tabular"}


def test_one_row_is_not_constant():
    assert infer_one(["red"]) != "drop"
    assert infer_modalities(pd.DataFrame({"a": [1]})) == {"a": "tabular"}


# ---- category or text ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "modality"),
    [
        # a repeated word
        (["red", "blue"] * 50, "tabular"),
        ([f"city{i % 400}" for i in range(2000)], "tabular"),
        # phrases that are repeated three times on average
        ([f"class number {i % 30}" for i in range(90)], "tabular"),
        ([f"class number {i % 31}" for i in range(90)], "text"),
        # the answers of a questionnaire
        (["I strongly agree with that statement", "I do not agree with it at all"] * 10, "tabular"),
        (["I strongly agree with that statement", "I do not agree with it at all"] * 9, "text"),
        # sentences that are repeated a few times
        (SENTENCES * 3, "text"),
        # short titles
        ([f"{a} {b}" for a in "abcdefghij" for b in "klmnopqrst"], "text"),
        # repeated, but too many values for categories
        ([f"user{i % 1001}" for i in range(5000)], "text"),
        ([f"user{i % 1000}" for i in range(5000)], "tabular"),
        # identifiers
        ([f"A-{i}" for i in range(100)], "text"),
        # numbers and dates in the form of text
        ([f"{i}.5" for i in range(100)], "tabular"),
        ([f"{i} %" for i in range(100)], "tabular"),
        ([f"1 000 {i:03}" for i in range(100)], "tabular"),
        ([f"2020-01-{i:02}" for i in range(1, 30)], "tabular"),
        ([f"2020-01-{i:02} 10:30:00" for i in range(1, 30)], "tabular"),
        # no spaces, but long
        (
            [
                "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd" * 10 + str(i % 40)
                for i in range(80)
            ],
            "text",
        ),
        # a number next to identifiers is an identifier
        (["A12", 13, "A12", 13, "B7", "B7"], "tabular"),
        # one text that ends like a file name
        ([*SENTENCES, "I mean the one in holiday.jpg"], "text"),
        (["", *SENTENCES], "text"),
    ],
)
def test_category_or_text(cells, modality):
    assert infer_one(cells) == modality


@pytest.mark.slow
@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), min_size=1, max_size=30))
def test_any_strings_have_a_modality(cells):
    try:
        assert infer_one(cells) in MODALITIES
    except CellTypeError as error:
        assert "its own column" in str(error)


# ---- arrays that depend on the column or its name --------------------------------------------


def test_lengths_of_vectors_are_checked_in_all_rows():
    cells = [np.zeros(5)] * 1000
    assert infer_one(cells) == "vector"
    cells[1] = np.zeros(6)  # not among the 200
    assert infer_one(cells) == "timeseries"


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("points", "pointcloud"),
        ("point_cloud", "pointcloud"),
        ("leftCloud", "pointcloud"),
        ("LIDAR", "pointcloud"),
        ("xyz2", "pointcloud"),
        ("accelerometer", "timeseries"),
        ("appointments", "timeseries"),
    ],
)
def test_name_distinguishes_points_and_series(name, modality):
    assert infer_one([np.zeros((9, 3)), np.zeros((7, 3))], name) == modality
    assert infer_one([np.zeros((9, 2)), np.zeros((7, 2))], name) == "timeseries"


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"a": 1}, "holds dict, which belongs to no modality. Name an encoder"),
        (object(), "holds object"),
        ({1}, "holds set"),
        (["a", "b"], "holds list of shape"),
        (b"%PDF-1.7", "bytes that begin with b'%PDF-1.7'"),
        (Path("a.npy"), "a path with the suffix '.npy'"),
        (np.zeros((5, 6, 7), "u1"), r"ndarray of shape \(5, 6, 7\) and dtype uint8"),
    ],
)
def test_opaque_cells_are_named(cell, message):
    frame = column([None, cell], "thing", index=["r", "s"])
    with pytest.raises(CellTypeError, match=message) as caught:
        infer_modalities(frame)
    assert str(caught.value).startswith("Column 'thing': row 's' holds ")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a.jpg", "b.wav"], r"row 10 holds image \('a.jpg'\) and row 20 audio \('b.wav'\)"),
        (["a.jpg", "b.jpg", "unknown"], r"row 10 holds image .* and row 30 string \('unknown'\)"),
        ([Path("a.jpg"), WAV], "row 10 holds image .* and row 20 audio .bytes."),
        ([Image.new("L", (1, 1)), 3], "row 10 holds image .Image. and row 20 tabular .int."),
        (
            [np.zeros(3), "some words here"],
            "1-D array .ndarray. and row 20 string|string .* row 10",
        ),
        ([np.zeros(3), np.zeros((3, 3))], "row 10 holds 1-D array .* row 20 2-D array"),
        ([np.zeros((9, 3)), np.zeros((9, 4))], "array of 3 columns and row 20 one of 4"),
        ([np.zeros((4, 4), "u1"), np.zeros((4, 4))], "row 10 holds image .* row 20 2-D array"),
    ],
)
def test_mixtures_name_two_rows(cells, message):
    frame = column(cells, "thing", index=[10, 20, 30][: len(cells)])
    with pytest.raises(CellTypeError, match=message) as caught:
        infer_modalities(frame)
    assert "Column 'thing': row " in str(caught.value)


def test_images_in_several_forms_are_one_modality():
    cells = ["a.jpg", Path("b.png"), PNG, Image.new("L", (1, 1)), np.zeros((4, 4), "u1")]
    assert infer_one(cells) == "image"


@pytest.mark.parametrize(
    "X", [pd.DataFrame(), pd.DataFrame({"a": []}), pl.DataFrame({"a": []}), np.empty((0, 2)), []]
)
def test_columns_without_cells(X):
    with pytest.raises(ValueError, match="cannot be inferred from X with 0 rows"):
        infer_modalities(X)


def test_no_columns():
    with pytest.raises(ValueError, match="2 rows and 0 columns"):
        infer_modalities(pd.DataFrame(index=[0, 1]))


def test_repeated_name():
    with pytest.raises(ValueError, match="several columns named 'a'. Rename"):
        infer_modalities(pd.DataFrame([[1, 2]], columns=["a", "a"]))


# ---- access to cells ------------------------------------------------------------------------


def test_no_file_is_opened(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a file was looked at")

    frame = pd.DataFrame({"a": ["a.jpg", "b.jpg"], "b": [Path("a.wav"), Path("b.wav")]})
    for name in ("builtins.open", "os.stat", "os.path.exists", "io.open"):
        monkeypatch.setattr(name, refuse)
    inferred = infer_modalities(frame)
    monkeypatch.undo()
    assert inferred == {"a": "image", "b": "audio"}


def test_few_cells_are_inspected_evenly(monkeypatch):
    from skmm._frame import _modality

    seen = []
    real = _modality.cell_kind
    monkeypatch.setattr(_modality, "cell_kind", lambda cell: seen.append(cell) or real(cell))
    cells = [None if i % 2 else f"{i:06}.jpg" for i in range(10_001)]
    assert infer_one(cells) == "image"
    assert 100 <= len(seen) <= 200
    assert {cells[0], cells[-1]} <= set(seen)
    assert infer_one(cells) == "image"
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]  # the same cells again


def test_mixture_in_a_sorted_column_is_found():
    with pytest.raises(CellTypeError, match="image.*audio"):
        infer_one(["a.jpg"] * 5000 + ["a.wav"] * 5000)


@pytest.mark.slow
def test_neither_torch_nor_pillow_nor_polars_is_imported():
    code = (
        "import sys, pandas as pd; from skmm._frame._modality import infer_modalities;"
        "infer_modalities(pd.DataFrame({'a': ['x.jpg', 'y.jpg'], 'b': [1, 2]}));"
        "print([m for m in ('torch', 'PIL', 'polars') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ---- default_encoder -------------------------------------------------------------------------


def test_default_encoder_is_a_new_object():
    first, second = default_encoder("text"), default_encoder("text")
    assert type(first) is encoders.TextEncoder
    assert first is not second


def test_modalities_without_encoder():
    assert default_encoder("vector") == "passthrough"
    assert default_encoder("drop") == "drop"


@pytest.mark.parametrize("modality", [m for m in MODALITIES if m not in ("vector", "drop")])
def test_default_encoder_of_every_modality(modality):
    encoder = default_encoder(modality)
    assert type(encoder).__name__ in encoders.__all__
    assert encoder.modality == modality


@pytest.mark.parametrize("wrong", ["images", "Image", "imgae"])
def test_unknown_modality(wrong):
    with pytest.raises(ValueError, match=f"no modality '{wrong}': did you mean 'image'"):
        default_encoder(wrong)


@pytest.mark.parametrize("wrong", ["qqq", None, 3])
def test_unknown_modality_without_similar_one(wrong):
    with pytest.raises(ValueError, match=r"no modality .*\. Modalities are 'text', 'image'"):
        default_encoder(wrong)
