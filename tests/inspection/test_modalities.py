"""The modalities of an estimator, and the estimator without some of them."""

import numpy as np
import pandas as pd
import pytest
from fusing import TRIPLES, views
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import skmm.alignment
from skmm import EarlyFusion, LateFusionClassifier
from skmm.inspection._modalities import (
    check_modalities,
    keep_only,
    modality_columns,
    with_triples,
)

COLUMNS = {"photo": [0], "text": [1], "numbers": [2, 3]}


def numbers():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=list("abcd"))
    return X, (X["a"] > 0).astype(int)


def transformer(**params):
    scalers = [("one", StandardScaler(), ["a", "b"]), ("two", StandardScaler(), ["c"])]
    return ColumnTransformer(scalers, **params)


def columns_of(estimator, X):
    return modality_columns(estimator, X, function="f")


@pytest.mark.parametrize(
    "estimator",
    [
        LateFusionClassifier(TRIPLES),
        make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()),
        GridSearchCV(make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()), {}),
        VotingClassifier([("one", LateFusionClassifier(TRIPLES)), ("two", EarlyFusion(TRIPLES))]),
        # A fusion inside a fusion belongs to the outer one.
        LateFusionClassifier([("numbers", EarlyFusion(TRIPLES[2:]), ["size", "price"])]),
    ],
    ids=["fusion", "pipeline", "search", "voting", "nested"],
)
def test_modalities_are_found_at_any_depth(estimator):
    X, _ = views(10)
    found = columns_of(estimator, X)
    assert found == {name: COLUMNS[name] for name in found}
    assert "numbers" in found


def test_dropped_and_empty_triples_are_left_out():
    X, _ = views(10)
    triples = [*TRIPLES[:1], ("text", "drop", ["text"]), ("none", "passthrough", [])]
    assert columns_of(LateFusionClassifier(triples), X) == {"photo": [0]}


def test_columns_of_a_column_transformer():
    X, _ = numbers()
    assert columns_of(make_pipeline(transformer()), X) == {"one": [0, 1], "two": [2]}
    whole = make_pipeline(transformer(remainder="passthrough"))
    assert columns_of(whole, X) == {"one": [0, 1], "two": [2], "remainder": [3]}
    all_floats = ColumnTransformer([("all", "passthrough", make_column_selector())])
    assert columns_of(all_floats, X) == {"all": [0, 1, 2, 3]}


def test_auto_becomes_triples():
    X, score = views(60)
    y = score > 0
    auto = make_pipeline(EarlyFusion(), LogisticRegression())
    expected = {"photo": [0], "text": [1], "tabular": [2, 3]}
    assert columns_of(with_triples(auto, X, y, function="f"), X) == expected
    fitted = with_triples(auto.fit(X, y), X, y, function="f")
    assert columns_of(fitted, X) == expected
    assert auto[0].modalities == "auto"
    # The model is the same, with the inferred triples as parameter.
    again = fitted.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(again, auto.predict_proba(X))
    array = X.to_numpy()
    found = with_triples(EarlyFusion(), array, None, function="f")
    assert list(columns_of(found, array).values()) == [[0], [1], [2, 3]]


def test_keep_only():
    pipeline = make_pipeline(EarlyFusion(TRIPLES), LogisticRegression())
    kept = keep_only(pipeline, ["text"])
    kept_by_name = {name: transformer for name, transformer, _ in kept[0].modalities}
    assert kept_by_name == {"photo": "drop", "text": "passthrough", "numbers": "drop"}
    assert [transformer for _, transformer, _ in pipeline[0].modalities] == ["passthrough"] * 3


@pytest.mark.parametrize("name, columns", [("one", ["a", "b"]), ("remainder", ["d"])])
def test_keep_only_of_a_column_transformer(name, columns):
    X, _ = numbers()
    whole = transformer(remainder="passthrough").set_output(transform="pandas")
    out = keep_only(whole, [name]).fit_transform(X)
    assert [c.partition("__")[2] for c in out.columns] == columns


def test_grids_without_dropped_parameters():
    fusion = LateFusionClassifier([("one", StandardScaler(), ["a"]), ("two", "passthrough", ["b"])])
    grid = {"m__one__with_mean": [True, False], "m__two": ["drop", "passthrough"], "m__rule": [0]}
    search = GridSearchCV(Pipeline([("m", fusion)]), grid)
    assert keep_only(search, ["two"]).param_grid == {
        "m__two": ["drop", "passthrough"],
        "m__rule": [0],
    }
    several = keep_only(search.set_params(param_grid=[grid, {"m__cv": [2]}]), ["one"]).param_grid
    assert several == [{"m__one__with_mean": [True, False], "m__rule": [0]}, {"m__cv": [2]}]
    assert search.param_grid[0] is grid


@pytest.mark.parametrize("key", ["m", "m__modalities"])
def test_search_that_replaces_the_fusion_is_refused(key):
    fusion = LateFusionClassifier([("one", "passthrough", ["a"]), ("two", "passthrough", ["b"])])
    search = GridSearchCV(Pipeline([("m", fusion)]), {key: [1, 2]})
    with pytest.raises(ValueError, match=f"the search replaces '{key}'"):
        keep_only(search, ["one"])


def check(modalities, estimator):
    X, y = numbers()
    return check_modalities(modalities, estimator, X, y, function="f")


def test_given_modalities():
    assert check(["two"], transformer()) == {"two": [2]}
    assert check({"mine": ["d", "a"]}, LogisticRegression()) == {"mine": [3, 0]}


@pytest.mark.parametrize(
    "modalities, estimator, error, message",
    [
        (["tow"], transformer(), ValueError, "no modality 'tow': did you mean 'two'"),
        (["x"], transformer(), ValueError, r"no modality 'x'\. Its modalities are 'one', 'two'"),
        ([], transformer(), ValueError, "modalities is empty"),
        ("one", transformer(), TypeError, "a list of names or a dict"),
        ({"mine": ["z"]}, transformer(), ValueError, "no column 'z'"),
        ({"mine": []}, transformer(), ValueError, "at least one column"),
        ({}, transformer(), ValueError, "at least one modality"),
        (None, LogisticRegression(), ValueError, "LogisticRegression holds neither a fusion nor"),
        (None, "model", TypeError, "must be an estimator, got 'model'"),
    ],
)
def test_bad_modalities(modalities, estimator, error, message):
    with pytest.raises(error, match=message):
        check(modalities, estimator)


def test_different_fusions_are_refused():
    both = VotingClassifier([("a", transformer()), ("b", transformer(remainder="passthrough"))])
    with pytest.raises(ValueError, match="several fusions with different modalities"):
        columns_of(both, numbers()[0])


@pytest.mark.parametrize("name", ["CCAAlignment", "ContrastiveAlignment"])
def test_auto_of_an_alignment(name):
    X, _ = views(60)
    alignment = getattr(skmm.alignment, name)(n_components=2)
    if name == "ContrastiveAlignment":
        alignment.set_params(max_epochs=1, random_state=0)
    for model in (alignment, make_pipeline(clone(alignment).fit(X), "passthrough")):
        written = with_triples(model, X, None, function="f")
        assert columns_of(written, X) == {"photo": [0], "text": [1], "tabular": [2, 3]}
        assert check_modalities(["text"], model, X, None, function="f") == {"text": [1]}


def test_modalities_of_a_fitted_search():
    X, y = numbers()
    model = GridSearchCV(Pipeline([("m", transformer())]), {"m__one": ["drop"]}, cv=2)
    assert check(None, model) == {"one": [0, 1], "two": [2]}
    with pytest.raises(ValueError, match="no modality 'one'"):
        check(["one"], model.set_params(scoring=lambda *_: 0.0).fit(X, y))
