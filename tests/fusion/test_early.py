"""Early fusion against a computation by hand."""

import numpy as np
import pandas as pd
import pytest
from fusing import TRIPLES, Recorder, views
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skmm import EarlyFusion, TextEncoder

NUMBERS = pd.DataFrame(
    {"a": [1.0, 3.0, np.nan, 5.0], "b": [0.0, np.nan, np.nan, 8.0], "c": [2.0, 2.0, 6.0, np.nan]}
)
PAIR = [("ab", "passthrough", ["a", "b"]), ("c", "passthrough", ["c"])]


def by_hand(scaling, indicator):
    """Mean over what is there, deviation over what is there, markers for absent modalities."""
    a, b, c = (np.array(v) for v in ([1, 3, 3, 5], [0, 4, 4, 8], [2, 2, 6, 10 / 3]))
    scale = {"a": np.sqrt(8 / 3), "b": 4.0, "c": np.sqrt(32 / 9)}
    if scaling:
        a, b = (a - 3) / scale["a"], (b - 4) / scale["b"]
        c = (c - 10 / 3) / scale["c"]
    if scaling == "block":
        a, b = a / np.sqrt(2), b / np.sqrt(2)
    parts = [a, b, [0, 0, 1, 0], c, [0, 0, 0, 1]]
    return np.column_stack(parts if indicator else [a, b, c])


@pytest.mark.parametrize("scaling", ["standard", "block", None])
@pytest.mark.parametrize("indicator", [True, False])
def test_scaling_imputation_and_markers_equal_a_hand_computation(scaling, indicator):
    fusion = EarlyFusion(PAIR, scaling=scaling, add_indicator=indicator)
    expected = by_hand(scaling, indicator)
    np.testing.assert_allclose(fusion.fit_transform(NUMBERS), expected, atol=1e-12)
    np.testing.assert_allclose(fusion.fit(NUMBERS).transform(NUMBERS), expected, atol=1e-12)
    # One row at a time: nothing is learned at transform.
    rows = [fusion.transform(NUMBERS.iloc[[i]])[0] for i in range(4)]
    np.testing.assert_allclose(rows, expected, atol=1e-12)


def test_block_scaling_makes_modalities_weigh_the_same():
    X, _ = views(500)
    features = EarlyFusion(TRIPLES, scaling="block", add_indicator=False).fit_transform(X)
    parts = np.split(features, [4, 7], axis=1)
    np.testing.assert_allclose([part.var(axis=0).sum() for part in parts], 1.0, rtol=1e-5)


def test_a_modality_never_absent_in_training_may_be_absent_later():
    X, _ = views(50)
    fusion = EarlyFusion(TRIPLES).fit(X)
    X.loc[3, "photo"] = None
    row = fusion.transform(X)[3]
    np.testing.assert_allclose(row[:4], 0.0)
    assert row[4] == 1.0
    assert fusion.transform(X)[:, 4].sum() == 1.0


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e9, 1e150, 1e300])
def test_scaling_in_any_unit(size):
    X = NUMBERS * size
    got = EarlyFusion(PAIR).fit_transform(X)
    np.testing.assert_allclose(got, by_hand("standard", True), rtol=1e-9, atol=1e-9)


def test_constant_features_become_zero():
    X = pd.DataFrame({"a": [0.1 + 0.2] * 5, "b": [1e8 + 0.1] * 5, "c": [0.0] * 5})
    triples = [(name, "passthrough", [name]) for name in X]
    assert np.abs(EarlyFusion(triples).fit_transform(X)).max() < 1e-6


# --- transformers ------------------------------------------------------------------------------


def test_transformer_gets_exactly_the_rows_that_have_its_modality():
    X, score = views(40, missing=0.3)
    present = X["size"].notna().to_numpy()
    fusion = EarlyFusion([("n", Recorder(), ["size"]), TRIPLES[0]])
    fusion.fit(X, score)
    transformer = dict((name, m) for name, m, _ in fusion.modalities_)["n"]
    assert transformer.fitted_rows_ == X["size"][present].tolist()
    np.testing.assert_array_equal(transformer.y_, score[present])
    new, _ = views(30, seed=1, missing=0.3)
    fusion.transform(new)
    assert transformer.seen_[:, 0].tolist() == new["size"].dropna().tolist()


def test_encoder_and_pca_never_meet_a_nan():
    texts = ["good warm coat", "bad cold hat", "warm hat", None, "cold coat", "good hat", None]
    X = pd.DataFrame({"review": texts, "stars": [5.0, 1, 3, 2, np.nan, 4, 2]})
    transformer = make_pipeline(TextEncoder("tfidf", n_components=4, random_state=0), PCA(2))
    fusion = EarlyFusion([("text", transformer, ["review"]), ("stars", "passthrough", ["stars"])])
    features = fusion.fit_transform(X)
    assert np.isfinite(features).all() and features.shape == (7, 2 + 1 + 1 + 1)
    present = X["review"].notna()
    alone = clone(transformer).fit_transform(X.loc[present, ["review"]])
    np.testing.assert_allclose(
        features[present, :2], StandardScaler().fit_transform(alone), rtol=1e-4, atol=1e-5
    )
    assert features[3, 2] == features[6, 2] == 1.0


def test_cells_that_the_transformer_cannot_use_count_as_absent():
    """As an encoder gives NaN for an image that it cannot open."""

    class Picky(Recorder):
        def transform(self, X):
            values = np.asarray(X, dtype=float)
            return np.where(values > 2, np.nan, values)

    X = pd.DataFrame({"n": [1.0, 2.0, 3.0, np.nan]})
    got = EarlyFusion([("n", Picky(), ["n"])], scaling=None).fit_transform(X)
    assert got.tolist() == [[1.0, 0.0], [2.0, 0.0], [1.5, 1.0], [1.5, 1.0]]


def test_partly_present_modality_names_the_way_out():
    X = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [1.0, np.nan, 3, 1]})
    fusion = EarlyFusion([("ab", PCA(1), ["a", "b"])])
    with pytest.raises(ValueError, match="contains NaN") as caught:
        fusion.fit(X)
    notes = " ".join(caught.value.__notes__)
    assert "modality 'ab'" in notes and "SimpleImputer" in notes
    fusion.set_params(ab=make_pipeline(SimpleImputer(), PCA(1)))
    assert np.isfinite(fusion.fit_transform(X)).all()


def test_vectors_pass_through_beside_numbers():
    X, _ = views(30, missing=0.2)
    triple = ("both", "passthrough", ["photo", "size"])
    fusion = EarlyFusion([triple], scaling=None, add_indicator=False).fit(X)
    got = fusion.transform(X)
    has_photo, has_size = X["photo"].notna().to_numpy(), X["size"].notna().to_numpy()
    expected = np.stack(X["photo"][has_photo])
    np.testing.assert_allclose(got[has_photo, :4], expected, rtol=1e-6)
    np.testing.assert_allclose(got[has_size, 4], X["size"][has_size])
    assert list(fusion.get_feature_names_out()) == [
        *("both__photo_0", "both__photo_1", "both__photo_2", "both__photo_3"),
        "both__size",
    ]


def test_a_column_of_vectors_may_be_empty_in_a_new_frame():
    X, _ = views(30)
    triple = ("both", "passthrough", ["photo", "size"])
    fusion = EarlyFusion([triple]).fit(X)
    X["photo"] = None
    assert np.isfinite(fusion.transform(X)).all()


def test_vectors_of_another_length_are_refused():
    X, _ = views(30)
    fusion = EarlyFusion(TRIPLES).fit(X)
    X["photo"] = pd.Series([np.ones(5)] * 30, dtype=object)
    with pytest.raises(ValueError, match="'photo' held vectors of 4 numbers in fit and holds 5"):
        fusion.transform(X)
    X["photo"] = pd.Series([np.ones(4 + i % 2) for i in range(30)], dtype=object)
    with pytest.raises(ValueError, match="2 different lengths, from 4 to 5"):
        fusion.fit(X)


@pytest.mark.parametrize("vectorizer", [TfidfVectorizer(), CountVectorizer()])
def test_sparse_transformers_on_a_column_of_strings(vectorizer):
    X = pd.DataFrame({"review": ["good coat", None, "bad hat", "good hat"], "n": [1.0, 2, 3, 4]})
    fusion = EarlyFusion(
        [("text", vectorizer, "review"), ("n", "passthrough", ["n"])], scaling=None
    )
    got = fusion.fit_transform(X)
    dense = clone(vectorizer).fit_transform(X["review"].dropna()).toarray()
    np.testing.assert_allclose(got[[0, 2, 3], : dense.shape[1]], dense, rtol=1e-6)
    np.testing.assert_allclose(got[1, : dense.shape[1]], dense.mean(axis=0), rtol=1e-6)
    assert fusion.get_feature_names_out()[0] == "text__bad"


def test_categories_through_a_one_hot_encoder():
    X = pd.DataFrame({"size": ["S", "M", None, "S"]})
    fusion = EarlyFusion([("size", OneHotEncoder(), ["size"])], scaling=None)
    expected = [[0, 1, 0], [1, 0, 0], [1 / 3, 2 / 3, 1], [0, 1, 0]]
    np.testing.assert_allclose(fusion.fit_transform(X), expected)


def test_transformer_without_fit_transform():
    class Plain:
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return np.asarray(X, dtype=float) * 2

        def get_params(self, deep=True):
            return {}

    X = pd.DataFrame({"n": [1.0, 2.0]})
    assert EarlyFusion([("n", Plain(), ["n"])], scaling=None).fit_transform(X)[1, 0] == 4.0


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda X: np.ones(len(X)), r"gave an array of shape \(4,\) for 4 rows"),
        (lambda X: np.ones((1, 2)), r"gave an array of shape \(1, 2\) for 4 rows"),
        (lambda X: np.full((len(X), 1), "x", dtype=object), "cells that are no numbers"),
        (lambda X: np.full((len(X), 1), np.inf), "infinite value"),
    ],
)
def test_unusable_transformers_are_named(gives, message):
    class Odd(Recorder):
        def transform(self, X):
            return gives(X)

    X = pd.DataFrame({"n": [1.0, 2, 3, 4]})
    with pytest.raises(ValueError, match=f"modality 'n'.*{message}|Modality 'n'.*{message}"):
        EarlyFusion([("n", Odd(), ["n"])]).fit(X)


# --- output ------------------------------------------------------------------------------------


def test_output_is_float32_unless_a_modality_brings_more():
    X, _ = views(20)
    assert EarlyFusion(TRIPLES[:2]).fit_transform(X).dtype == np.float32
    assert EarlyFusion(TRIPLES).fit_transform(X).dtype == np.float64


def test_containers_and_names():
    X, _ = views(20, missing=0.2)
    X.index = [f"row{i}" for i in range(20)]
    fusion = EarlyFusion([("n", Recorder(), ["size"]), TRIPLES[2]]).set_output(transform="pandas")
    frame = fusion.fit_transform(X)
    assert list(frame.index) == list(X.index)
    assert list(frame.columns) == [
        *("n__value", "n__missing"),
        *("numbers__size", "numbers__price", "numbers__missing"),
    ]


def test_polars_gives_what_pandas_gives():
    polars = pytest.importorskip("polars")
    X, _ = views(20, missing=0.2)
    columns = ["size", "price"]
    frame = polars.DataFrame({name: X[name].tolist() for name in columns}).fill_nan(None)
    triples = [("size", "passthrough", ["size"]), ("price", Recorder(), ["price"])]
    expected = EarlyFusion(triples).fit_transform(X[columns])
    got = EarlyFusion(triples).set_output(transform="polars").fit_transform(frame)
    assert isinstance(got, polars.DataFrame)
    np.testing.assert_allclose(got.to_numpy(), expected)


def test_markers_alone_can_tell_the_class():
    """Absence is a fact that the estimator behind can learn from."""
    X, _ = views(200)
    y = np.arange(200) % 2
    X.loc[y == 1, "photo"] = None
    model = make_pipeline(EarlyFusion(TRIPLES), LogisticRegression())
    assert model.fit(X[:100], y[:100]).score(X[100:], y[100:]) == 1.0
    model.set_params(earlyfusion__add_indicator=False)
    assert model.fit(X[:100], y[:100]).score(X[100:], y[100:]) < 1.0


def test_verbose_prints_each_modality_that_is_fitted(capsys):
    for verbose in (0, 1):
        EarlyFusion(PAIR, verbose=verbose).fit(NUMBERS)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2 * verbose
    assert lines[0].startswith("[EarlyFusion] fitting modality 'ab': ")


def test_a_row_without_any_modality_gets_the_mean():
    fusion = EarlyFusion(PAIR, scaling=None, add_indicator=False).fit(NUMBERS)
    features = fusion.transform(NUMBERS.iloc[:1] * np.nan)
    np.testing.assert_allclose(features, [[3.0, 4.0, 10 / 3]])
    with pytest.raises(ValueError, match="'all_missing' parameter of EarlyFusion"):
        EarlyFusion(PAIR, all_missing="prior").fit(NUMBERS)
