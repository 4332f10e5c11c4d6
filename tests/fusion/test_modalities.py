"""Triples: what is taken, what is refused and with which words, and what auto makes of a frame."""

import datetime

import numpy as np
import pandas as pd
import pytest
from fusing import TRIPLES, Recorder, views
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
    TextEncoder,
)
from skmm._compose._base import resolve_modalities
from skmm.exceptions import CellTypeError, ModalityMissingError, ModalityWarning

FUSIONS = [
    EarlyFusion(),
    LateFusionClassifier(cv=2),
    LateFusionRegressor(cv=2),
    JointFusionClassifier(max_epochs=1, n_components=4),
    JointFusionRegressor(max_epochs=1, n_components=4),
]
everywhere = pytest.mark.parametrize("fusion", FUSIONS, ids=lambda f: type(f).__name__)


def resolved(X, modalities="auto"):
    return resolve_modalities(modalities, X, "Fusion")


# --- auto ------------------------------------------------------------------------------------


def test_auto_makes_a_modality_of_each_medium_and_one_of_the_table():
    X = pd.DataFrame(
        {
            "price": [1.0, 2.0, 3.0],
            "review": ["warm and soft today", "fell apart after a week", "bought it twice already"],
            "vector": [np.ones(3), np.zeros(3), np.ones(3)],
            "when": [datetime.date(2020, 1, i) for i in (1, 2, 3)],
        }
    )
    found = {m.name: (m.transformer, m.columns) for m in resolved(X)}
    assert set(found) == {"review", "vector", "tabular"}
    assert isinstance(found["review"][0], TextEncoder)
    assert found["vector"] == ("passthrough", [2])
    assert found["tabular"][1] == [0, 3]


@pytest.mark.parametrize("names", [["a", "b"], [0, 1], [7, 3]])
def test_auto_takes_any_column_names(names):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 2)))
    X.columns = names
    (modality,) = resolved(X)
    assert modality.name == "tabular" and modality.columns == [0, 1]
    assert EarlyFusion().fit_transform(X).shape == (9, 3)


def test_auto_names_are_free_and_nestable():
    X = pd.DataFrame(
        {
            "tabular": ["one long sentence here", "another long one now", "a third one is here"],
            "a__b": [np.ones(2), np.zeros(2), np.ones(2)],
            "n": [1.0, 2.0, 3.0],
        }
    )
    assert [m.name for m in resolved(X)] == ["tabular", "a_b", "tabular_2"]


def test_auto_finds_columns_by_position_in_an_array():
    X = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [4.0, 1, 2, 2]})
    fusion = EarlyFusion().fit(X)
    with pytest.warns(UserWarning, match="feature names"):
        again = fusion.transform(X.to_numpy())
    np.testing.assert_array_equal(again, fusion.transform(X))


def test_a_table_of_one_row_is_a_table():
    assert EarlyFusion(add_indicator=False).fit_transform([[1.0, 2.0]]).shape == (1, 2)


@everywhere
def test_auto_on_a_frame_without_any_cell(fusion):
    X = pd.DataFrame({"a": [None, None], "b": [np.nan, np.nan]})
    with pytest.raises(ValueError, match=r"every cell of X is missing. Give rows that have"):
        clone(fusion).fit(X, [0, 1])


# --- what is refused -------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(
    ("modalities", "error", "message"),
    [
        ([], ValueError, r"must be 'auto' or a list of \(name, transformer, columns\), got \[\]"),
        (
            [("a", PCA())],
            ValueError,
            r"\(name, transformer, columns\), got .* position 0",
        ),
        ([TRIPLES[0], "text"], ValueError, "got 'text' at position 1"),
        ([(3, "passthrough", ["size"])], ValueError, "with a str as name, got 3"),
        ([("a__b", "passthrough", ["size"])], ValueError, "nor hold '__'"),
        ([("", "passthrough", ["size"])], ValueError, "must not be empty"),
        ([("all_missing", "passthrough", ["size"])], ValueError, "Choose another name"),
        ([TRIPLES[0], TRIPLES[0]], ValueError, "must differ, got 'photo' twice"),
        ([("a", BaseEstimator(), ["size"])], TypeError, "must have fit and transform"),
        ([("a", 3, ["size"])], TypeError, "must have fit and transform"),
        ([("a", "imag", ["size"])], ValueError, "did you mean 'image'"),
        ([("a", "passthrough", ["sise"])], ValueError, "did you mean 'size'"),
        ([("a", "passthrough", [9])], ValueError, "no column at position 9"),
        ([("a", "drop", ["size"])], ValueError, "every triple is dropped"),
        ([("a", "passthrough", [])], ValueError, "selects no column"),
    ],
)
def test_wrong_triples_are_refused(fusion, modalities, error, message):
    X, score = views(20)
    with pytest.raises(error, match=message) as caught:
        clone(fusion).set_params(modalities=modalities).fit(X, score > 0)
    assert str(caught.value).count(". ") <= 2


@everywhere
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame({"size": []}), "0 sample"),
        (pd.DataFrame(index=[0, 1]), "0 feature"),
        (np.array([1.0, 2.0]), "Reshape your data"),
        (np.array([[1j]]), "Complex data not supported"),
    ],
)
def test_empty_and_misshapen_frames(fusion, X, message):
    with pytest.raises(ValueError, match=message):
        clone(fusion).fit(X, [0, 1])


@pytest.mark.parametrize("fusion", [LateFusionClassifier, JointFusionClassifier])
def test_only_transformers_and_predictors_are_accepted(fusion):
    X, score = views(20)
    predictor = [("numbers", LogisticRegression(), ["size", "price"])]
    if fusion is LateFusionClassifier:
        fusion(predictor, rule="mean").fit(X, score > 0)
    else:
        with pytest.raises(TypeError, match="must have fit and transform"):
            fusion(predictor).fit(X, score > 0)


def test_strings_cannot_be_passed_through():
    X = pd.DataFrame({"review": ["good", "bad"]})
    with pytest.raises(ValueError, match=r"no numbers .* Give it a transformer, such as 'text'"):
        EarlyFusion([("review", "passthrough", ["review"])]).fit(X)


def test_objects_of_no_modality_are_named():
    with pytest.raises(CellTypeError, match="Column 'a': row 0"):
        EarlyFusion().fit(pd.DataFrame({"a": [object(), object()]}))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1] * 20, "needs at least 2 classes, but y holds 1 class only: 1. Give training rows"),
        ([0.0, np.nan] * 10, r"first in row 1 \(by position\). Drop the rows without a target"),
        (["a", None] * 10, r"first in row 1 \(by position\)"),
        (pd.array(["a", pd.NA] * 10), r"first in row 1 \(by position\)"),
        (None, "requires y to be passed, but the target y is None"),
        ([0, 1] * 9, "inconsistent numbers of samples"),
        (np.linspace(0, 1, 20), "Unknown label type"),
    ],
)
@pytest.mark.parametrize("fusion", FUSIONS[1::2], ids=lambda f: type(f).__name__)
def test_wrong_classes(fusion, y, message):
    X, _ = views(20)
    with pytest.raises(ValueError, match=message):
        clone(fusion).set_params(modalities=TRIPLES).fit(X, y)


@pytest.mark.parametrize("fusion", FUSIONS[2::2], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_wrong_values(fusion, bad):
    X, score = views(20)
    score[3] = bad
    with pytest.raises(ValueError, match=r"first in row 3 \(by position\). Drop the rows"):
        clone(fusion).set_params(modalities=TRIPLES).fit(X, score)


@everywhere
def test_infinite_features_are_refused(fusion):
    X, score = views(20)
    X.loc[3, "price"] = np.inf
    with pytest.raises(ValueError, match=r"'numbers' has an infinite value .*\(1 rows\). Replace"):
        clone(fusion).set_params(modalities=TRIPLES).fit(X, score > 0)


# --- absent modalities -----------------------------------------------------------------------


@everywhere
def test_a_modality_that_training_never_has_is_left_out(fusion):
    X, score = views(60)
    X["text"] = None
    fusion = clone(fusion).set_params(modalities=TRIPLES)
    with pytest.warns(ModalityWarning, match="'text' is absent in every training row and is left"):
        fusion.fit(X, score > 0)
    assert [name for name, _, _ in fusion.modalities_] == ["photo", "numbers"]
    # What new rows hold there cannot be used, and does no harm.
    X["text"] = pd.Series([np.ones(3)] * 60, dtype=object)
    assert np.isfinite(fusion.transform(X)).all()


@everywhere
def test_rows_without_any_modality_raise_with_all_missing_raise(fusion):
    X, score = views(60)
    y = score > 0 if fusion.__class__.__name__.endswith("Classifier") else score
    strict = clone(fusion).set_params(modalities=TRIPLES, all_missing="raise").fit(X, y)
    X.loc[[4, 7], :] = None
    with pytest.raises(ModalityMissingError, match=r"rows have no modality; the first is row 4 "):
        strict.transform(X)
    with pytest.raises(
        ModalityMissingError,
        match=r"2 of \d+ rows have no modality; .* set all_missing",
    ):
        clone(strict).fit(X, y)
    lenient = clone(strict).set_params(all_missing=fusion.all_missing).fit(X, y)
    assert np.isfinite(lenient.transform(X)).all()


@everywhere
def test_transformer_without_features_is_left_out(fusion):
    class Nothing(Recorder):
        def transform(self, X):
            return np.empty((len(X), 0))

    X, score = views(60)
    fusion = clone(fusion)
    fusion.set_params(modalities=[("empty", Nothing(), ["size"]), TRIPLES[1]])
    with pytest.warns(ModalityWarning, match="'empty' has no features"):
        fusion.fit(X, score > 0)
    assert [name for name, _, _ in fusion.modalities_] == ["text"]


# --- nested parameters -----------------------------------------------------------------------


@everywhere
def test_nested_parameters_follow_column_transformer(fusion):
    fusion = clone(fusion).set_params(
        modalities=[("scaled", StandardScaler(), ["size"]), TRIPLES[0]], scaled__with_mean=False
    )
    assert fusion.get_params()["scaled__with_mean"] is False
    assert fusion.get_params()["photo"] == "passthrough"
    fusion.set_params(scaled=Recorder(), scaled__offset=3.0, photo="drop")
    assert fusion.modalities[0][1].offset == 3.0
    assert fusion.modalities[1] == ("photo", "drop", ["photo"])
    twin = clone(fusion)
    assert twin.modalities[0][1] is not fusion.modalities[0][1]
    assert twin.get_params()["scaled__offset"] == 3.0
    with pytest.raises(ValueError, match="Invalid parameter 'foto'"):
        fusion.set_params(foto="drop")
    with pytest.raises(ValueError, match=r"is 'drop', which has no parameter 'pooling'. Put a"):
        fusion.set_params(photo__pooling="max")


@everywhere
def test_fit_leaves_parameters_alone(fusion):
    X, score = views(60, missing=0.2)
    transformer = StandardScaler()
    fusion = clone(fusion)
    fusion.set_params(modalities=[("numbers", transformer, ["size", "price"]), *TRIPLES[:2]])
    before = dict(vars(transformer))
    fusion.fit(X, score > 0)
    assert vars(transformer) == before
    assert fusion.modalities_[0][1] is not transformer
    assert fusion.modalities_[0][1].n_features_in_ == 2
    assert fusion.modalities_[0][2] == ["size", "price"]


@pytest.mark.parametrize(
    "columns",
    [["size", "price"], [2, 3], slice("size", "price"), slice(2, None), [False, False, True, True]],
)
def test_columns_as_in_column_transformer(columns):
    X, _ = views(30)
    expected = EarlyFusion([TRIPLES[2]]).fit_transform(X)
    for key in (columns, lambda frame: columns):
        got = EarlyFusion([("numbers", "passthrough", key)]).fit_transform(X)
        np.testing.assert_array_equal(got, expected)


def test_lists_keep_the_types_of_their_cells():
    X = [["good", 5.0], ["bad", 1.0], ["good", 3.0], [None, 2.0]]
    fusion = EarlyFusion(
        [("text", TextEncoder("tfidf", n_components=2), [0]), ("stars", "passthrough", [1])],
        scaling=None,
    )
    assert fusion.fit_transform(X)[:, -2].tolist() == [5.0, 1.0, 3.0, 2.0]
