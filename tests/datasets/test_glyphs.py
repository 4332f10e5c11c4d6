import hashlib
import importlib.util
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skmm.datasets import _glyphs, load_glyphs, load_glyphs_retrieval
from skmm.datasets._glyphs import MINIMUM_MEMBERS
from skmm.exceptions import MissingExtraError

TASKS = ["script", "category"]


@pytest.fixture(scope="module", params=TASKS)
def glyphs(request):
    return load_glyphs(task=request.param, image_size=16)


@pytest.fixture(scope="module")
def baselines():
    """The benchmark script of the baselines, as a module."""
    path = Path(__file__).parents[1] / "benchmarks" / "glyphs_baselines.py"
    spec = importlib.util.spec_from_file_location("glyphs_baselines", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _characters(dataset):
    return [chr(code) for code in dataset.code_points]


def _digest(dataset):
    digest = hashlib.sha256()
    for cell in dataset.data["image"]:
        digest.update(cell.tobytes())
    digest.update(dataset.frame.drop(columns="image").to_csv().encode())
    return digest.hexdigest()


@pytest.mark.slow
def test_bunch_is_consistent(glyphs):
    n_rows = len(glyphs.data)
    assert n_rows > 5000
    assert glyphs.feature_names == list(glyphs.data.columns) == list(glyphs.modalities)
    assert glyphs.target_names == sorted(set(glyphs.target))
    pd.testing.assert_frame_equal(glyphs.frame[glyphs.feature_names], glyphs.data)
    pd.testing.assert_series_equal(glyphs.frame[glyphs.target.name], glyphs.target)
    assert glyphs.data.index.is_unique
    assert glyphs.data.index.tolist() == [f"U+{code:04X}" for code in glyphs.code_points]
    assert f"{n_rows} characters" in glyphs.DESCR
    assert glyphs.target.value_counts().min() >= MINIMUM_MEMBERS


@pytest.mark.slow
def test_modalities_are_the_kinds_of_the_cells(glyphs):
    kinds = glyphs.modalities
    assert [column for column in kinds if kinds[column] == "image"] == ["image"]
    assert [column for column in kinds if kinds[column] == "text"] == ["name"]
    for cell in glyphs.data["image"]:
        assert cell.dtype == np.uint8 and cell.shape == (16, 16)
    assert all(isinstance(name, str) and name for name in glyphs.data["name"])
    table = glyphs.data[[column for column in kinds if kinds[column] == "tabular"]]
    for column in table:
        is_category = isinstance(table[column].dtype, pd.CategoricalDtype)
        assert is_category or table[column].dtype == np.float64

    assert table.columns[table.isna().any()].tolist() == ["numeric_value"]


@pytest.mark.slow
def test_tuple_of_data_and_target(glyphs):
    task = glyphs.target.name
    X, y = load_glyphs(task=task, image_size=16, return_X_y=True)
    pd.testing.assert_frame_equal(X.drop(columns="image"), glyphs.data.drop(columns="image"))
    pd.testing.assert_series_equal(y, glyphs.target)


def test_properties_equal_those_of_unicodedata(glyphs):
    table = glyphs.data
    characters = _characters(glyphs)
    assert table["combining_class"].tolist() == [unicodedata.combining(c) for c in characters]
    assert table["mirrored"].tolist() == [
        "yes" if unicodedata.mirrored(c) else "no" for c in characters
    ]
    np.testing.assert_array_equal(
        table["numeric_value"], [unicodedata.numeric(c, np.nan) for c in characters]
    )
    assert table.loc["U+00C5", "decomposition"] == "canonical"
    assert table.loc["U+00C5", "n_decomposed"] == 2
    assert table.loc["U+0041", "decomposition"] == "none"
    assert table.loc["U+FB01", "decomposition"] == "compat"


def test_labels_are_right():
    script = load_glyphs(image_size=16).target
    category = load_glyphs(task="category", image_size=16).target
    known = {
        "U+0041": ("latin", "uppercase letter"),
        "U+03B1": ("greek", "lowercase letter"),
        "U+0411": ("cyrillic", "uppercase letter"),
        "U+05D0": ("hebrew", "other letter"),
        "U+0664": ("arabic", "number"),
        "U+2190": ("arrow", "mathematical symbol"),
        "U+2211": ("mathematical operator", "mathematical symbol"),
        "U+2801": ("braille", "other symbol"),
        "U+0301": ("combining mark", "mark"),
        "U+0021": ("punctuation", "punctuation"),
        "U+01C5": ("latin", "uppercase letter"),
    }
    for code_point, labels in known.items():
        assert (script[code_point], category[code_point]) == labels
    for code_point, label in category.items():
        general = unicodedata.category(chr(int(code_point[2:], 16)))
        assert (general in ("Lu", "Lt")) == (label == "uppercase letter")
        assert (general == "Sm") == (label == "mathematical symbol")
        assert general.startswith("P") == (label == "punctuation")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("script", "latin greek cyrillic arabic hebrew syllabics braille combining arrow domino"),
        ("category", "capital small letter digit number sign symbol mark combining modifier"),
    ],
)
def test_names_do_not_name_the_label(task, words):
    names = load_glyphs(task=task, image_size=16).data["name"]
    found = set(" ".join(names).split())
    assert not found & set(words.split())
    # The other words of a name stay, in order.
    assert names.loc["U+00E5"].split()[-4:] == ["a", "with", "ring", "above"]


def test_table_has_no_column_that_determines_the_label(glyphs):
    assert not {"code_point", "bidirectional", "general_category"} & set(glyphs.data)


@pytest.mark.slow
def test_images_show_their_characters():
    data = load_glyphs(image_size=32).data
    image = data["image"]
    # The same letter form of three scripts has the same image.
    np.testing.assert_array_equal(image["U+0041"], image["U+0391"])
    np.testing.assert_array_equal(image["U+0041"], image["U+0410"])
    assert (image["U+0041"] != image["U+0042"]).any()

    def rows_of_ink(code_point):
        return np.flatnonzero((image[code_point] < 128).any(axis=1))

    # A common baseline: a comma is below an apostrophe, and "p" reaches below "b".
    assert rows_of_ink("U+002C").min() > rows_of_ink("U+0027").max()
    assert rows_of_ink("U+0070").max() > rows_of_ink("U+0062").max() + 2
    # Height and width: "l" is 0.76 em high, the em dash nearly one em wide.
    assert abs(len(rows_of_ink("U+006C")) - 0.76 * 0.72 * 32) <= 1.5
    columns_of_ink = (image["U+2014"] < 250).any(axis=0).sum()
    assert 0.85 < data["ink_width"]["U+2014"] <= 1
    assert abs(columns_of_ink - data["ink_width"]["U+2014"] * 0.72 * 32) <= 1.5
    # The ink of braille is proportional to the number of dots.
    ink = [float((255 - image[code].astype(int)).sum()) for code in ("U+2801", "U+2803", "U+28FF")]
    assert ink[1] == pytest.approx(2 * ink[0], rel=0.1)
    assert ink[2] == pytest.approx(8 * ink[0], rel=0.1)


@pytest.mark.slow
def test_ink_of_every_image_is_inside():
    data = load_glyphs(image_size=32).data
    ink = 1 - np.stack(list(data["image"])) / 255.0
    measured = data["ink_share"] * data["ink_width"] * data["ink_height"] * (0.72 * 32) ** 2
    fits = (data["ink_width"] < 1.3) & (data["ink_top"] < 1) & (data["ink_height"] < 1.2)
    assert fits.mean() > 0.9
    # Measured ink and ink in the images agree, so nothing is cut off.
    assert np.corrcoef(measured[fits], ink.sum(axis=(1, 2))[fits])[0, 1] > 0.995
    ratio = ink.sum(axis=(1, 2))[fits] / measured[fits]
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert (ink.max(axis=(1, 2)) > 0.2).all()


def test_measures_are_in_em():
    measures = load_glyphs(image_size=16).data.loc["U+2588"]  # full block
    assert measures["ink_share"] > 0.97  # its edges are gray
    assert measures["advance_width"] == pytest.approx(0.77, abs=0.02)
    assert measures["ink_width"] == pytest.approx(measures["advance_width"], abs=0.05)
    data = load_glyphs(image_size=16).data
    assert data.loc["U+0069", "advance_width"] < data.loc["U+006D", "advance_width"]
    assert data.loc["U+0070", "ink_height"] > data.loc["U+0070", "ink_top"]  # a descender


@pytest.mark.slow
def test_measures_do_not_depend_on_image_size():
    small, large = (load_glyphs(image_size=size).data for size in (16, 32))
    pd.testing.assert_frame_equal(small.drop(columns="image"), large.drop(columns="image"))


def test_subset_is_the_beginning_and_keeps_class_frequencies(glyphs):
    task = glyphs.target.name
    few = load_glyphs(task=task, image_size=16, n_samples=600)
    assert few.data.index.tolist() == glyphs.data.index[:600].tolist()
    expected = glyphs.target.value_counts(normalize=True) * 600
    found = few.target.value_counts().reindex(expected.index, fill_value=0)
    assert (found - expected).abs().max() < 2.5


def test_order_depends_on_random_state():
    first, again, other = (
        load_glyphs(image_size=16, n_samples=300, random_state=seed).data.index.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again and first != other
    state = np.random.get_state()[1].copy()
    load_glyphs(image_size=16, n_samples=300, random_state=1)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_changing_a_cell_does_not_change_later_data():
    load_glyphs(image_size=16).data["image"]["U+0041"][:] = 0
    assert load_glyphs(image_size=16).data["image"]["U+0041"].max() == 255


_OTHER_PROCESS = """
import hashlib, sys
from skmm.datasets import load_glyphs
glyphs = load_glyphs(image_size=16, n_samples=1500, data_home=sys.argv[1])
digest = hashlib.sha256()
for cell in glyphs.data["image"]:
    digest.update(cell.tobytes())
digest.update(glyphs.frame.drop(columns="image").to_csv().encode())
print(digest.hexdigest())
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_another_process_renders_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    digest, modules = done.stdout.split("\n")[:2]
    assert digest == _digest(load_glyphs(image_size=16, n_samples=1500))
    assert modules == "[]"


@pytest.mark.slow
def test_import_loads_no_heavy_package():
    code = (
        "import sys, skmm.datasets;"
        "print({'torch', 'matplotlib', 'PIL'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "light"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_no_single_modality_determines_the_label(baselines, task):
    singles = [("text",), ("image",), ("tabular",)]
    all_three = ("text", "image", "tabular")
    scores = baselines.accuracies(
        task, subsets=[*singles, all_three], n_samples=1500, image_size=16, cv=2
    )
    chance = load_glyphs(task=task, image_size=16).target.value_counts(normalize=True).max()
    for single in singles:
        assert chance + 0.15 < scores[single] < 0.95
    assert scores[all_three] > max(scores[single] for single in singles) + 0.05


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "language"}, ValueError, "task must be one of 'script', 'category'"),
        ({"image_size": 4}, ValueError, "image_size must be at least 8"),
        ({"image_size": 32.0}, TypeError, "image_size must be an integer"),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"n_samples": 10**6}, ValueError, "n_samples must be .* at most 5"),
        ({"n_samples": True}, TypeError, "n_samples must be an integer"),
        ({"random_state": "seed"}, ValueError, "seed"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        load_glyphs(**({"image_size": 16} | arguments))


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"load_glyphs needs .*skmm\[plot\]"):
        load_glyphs()


@pytest.mark.slow
def test_retrieval_pairs_are_one_to_one():
    pairs = load_glyphs_retrieval(image_size=32)
    assert list(pairs.data) == list(pairs.modalities) == ["name", "image"]
    assert pairs.data["name"].is_unique
    images = [cell.tobytes() for cell in pairs.data["image"]]
    # A handful of shapes differ by less than a gray level at this size.
    assert len(images) - len(set(images)) < 0.01 * len(images)
    assert "U+0041" in pairs.data.index and "U+0391" not in pairs.data.index
    characters = _characters(pairs)
    assert pairs.data["name"].tolist() == [unicodedata.name(c).lower() for c in characters]
    labeled = load_glyphs(image_size=32).data["image"]
    np.testing.assert_array_equal(pairs.data["image"]["U+0041"], labeled["U+0041"])


def test_retrieval_subsets_are_disjoint():
    whole = set(load_glyphs_retrieval(image_size=16).data.index)
    train = load_glyphs_retrieval(subset="train", image_size=16)
    test = load_glyphs_retrieval(subset="test", image_size=16)
    assert set(train.data.index) | set(test.data.index) == whole
    assert len(train.data) + len(test.data) == len(whole)
    assert len(train.data) == round(0.75 * len(whole))
    # The split depends neither on random_state nor on the image size.
    few = load_glyphs_retrieval(subset="test", image_size=32, n_samples=100, random_state=5)
    assert len(few.data) == 100 and set(few.data.index) < set(test.data.index)
    with pytest.raises(ValueError, match="load_glyphs_retrieval: subset must be one of 'all'"):
        load_glyphs_retrieval(subset="valid")


@pytest.mark.slow
def test_linear_model_retrieves_images_of_unseen_names():
    from sklearn.decomposition import PCA
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    train = load_glyphs_retrieval(subset="train", image_size=16).data
    test = load_glyphs_retrieval(subset="test", image_size=16, n_samples=400).data

    def pixels(cells):
        return np.stack(list(cells)).reshape(len(cells), -1) / 255.0

    words, pca = TfidfVectorizer(token_pattern=r"\S+"), PCA(50, random_state=0)
    model = Ridge(1.0).fit(
        words.fit_transform(train["name"]), pca.fit_transform(pixels(train["image"]))
    )
    queries = model.predict(words.transform(test["name"]))
    gallery = pca.transform(pixels(test["image"]))
    distance = ((queries[:, None] - gallery[None]) ** 2).sum(axis=2)
    rank = (distance < np.diag(distance)[:, None]).sum(axis=1)
    assert np.median(rank) < 40  # chance: 200


@pytest.mark.slow
def test_data_home_keeps_the_rendered_images(tmp_path, monkeypatch):
    folder = tmp_path / "not" / "there"
    first = load_glyphs(image_size=8, data_home=folder)
    assert [path.suffix for path in folder.iterdir()] == [".npz"]

    def fail(*args, **kwargs):
        raise AssertionError("rendered again")

    monkeypatch.setattr(_glyphs, "render_font", fail)
    assert _digest(load_glyphs(image_size=8, data_home=str(folder))) == _digest(first)
    with pytest.raises(AssertionError, match="rendered again"):  # another size has another file
        load_glyphs(image_size=9, data_home=folder)
