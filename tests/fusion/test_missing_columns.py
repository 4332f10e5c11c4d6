"""A frame without a whole column: an error, or a column of absent cells by request."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fusing import TRIPLES, views, with_trainer
from sklearn.base import clone

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
    TabularEncoder,
    TextEncoder,
)
from skmm.datasets import make_multimodal_classification

SMALL = {"n_components": 8, "max_epochs": 2, "random_state": 0}
FUSIONS = {
    "early": EarlyFusion(TRIPLES, missing_columns="absent"),
    "late": LateFusionClassifier(TRIPLES, missing_columns="absent"),
    "late, values": LateFusionRegressor(TRIPLES, rule="mean", missing_columns="absent"),
    "joint": JointFusionClassifier(TRIPLES, **with_trainer(missing_columns="absent", **SMALL)),
    "joint, values": JointFusionRegressor(
        TRIPLES, **with_trainer(missing_columns="absent", **SMALL)
    ),
}


def fitted(name, X, score):
    y = score if "values" in name else (score > 0).astype(int)
    return clone(FUSIONS[name]).fit(X, y)


def answer(model, X):
    for method in ("predict_proba", "predict", "transform"):
        if hasattr(model, method):
            return getattr(model, method)(X)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize(
    "columns", [["photo"], ["price"], ["size", "price"], ["photo", "text", "size"]]
)
def test_a_column_that_is_not_there_is_absent(name, columns):
    X, score = views(60)
    model = fitted(name, X, score)
    new = X[:10]
    expected = answer(model, new.assign(**dict.fromkeys(columns, np.nan)))
    incomplete = new.drop(columns=columns)
    before = incomplete.copy(deep=False)
    np.testing.assert_array_equal(answer(model, incomplete), expected)
    pd.testing.assert_frame_equal(incomplete, before)  # the user's frame stays as it is


@pytest.mark.parametrize("name", FUSIONS)
def test_a_frame_without_any_column_gets_the_prior(name):
    X, score = views(60)
    model = fitted(name, X, score)
    nothing = X[:5].drop(columns=X.columns)
    expected = answer(model, X[:5].assign(**dict.fromkeys(X.columns, np.nan)))
    np.testing.assert_array_equal(answer(model, nothing), expected)


@pytest.mark.parametrize("name", FUSIONS)
def test_missing_columns_may_raise(name):
    X, score = views(40)
    model = fitted(name, X, score).set_params(missing_columns="raise")
    with pytest.raises(ValueError, match="Feature names seen at fit time, yet now missing"):
        answer(model, X.drop(columns="photo"))


@pytest.mark.parametrize("name", FUSIONS)
def test_other_errors_are_still_raised(name):
    X, score = views(40)
    model = fitted(name, X, score)
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- image"):
        answer(model, X.rename(columns={"photo": "image"}))
    with pytest.raises(ValueError, match="in the same order"):
        answer(model, X[["text", "photo", "size"]])
    with pytest.raises(ValueError, match="X has 3 features, but"), pytest.warns(UserWarning):
        answer(model, X.drop(columns="photo").to_numpy())


@pytest.mark.parametrize("name", FUSIONS)
def test_training_frames_have_every_column(name):
    X, score = views(40)
    with pytest.raises(ValueError, match="X has no column 'photo'"):
        fitted(name, X.drop(columns="photo"), score)


def test_polars_frames():
    X, score = views(40)
    frame = pl.DataFrame({name: X[name].to_list() for name in X.columns})
    model = fitted("late", frame, score)
    without = frame.with_columns(text=None)
    np.testing.assert_array_equal(
        model.predict_proba(frame.drop("text")), model.predict_proba(without)
    )


@pytest.mark.slow
def test_positions_stay_what_they_were():
    """Modalities that are picked by position, as "auto" does."""
    X, score = views(60)
    y = (score > 0).astype(int)
    triples = [("photo", "passthrough", [0]), ("text", "passthrough", [1]),
               ("numbers", "passthrough", slice(2, 4))]  # fmt: skip
    for modalities in (triples, "auto"):
        model = LateFusionClassifier(modalities, missing_columns="absent").fit(X, y)
        found = model.predict_proba(X.drop(columns=["photo", "size"]))
        expected = model.predict_proba(X.assign(photo=np.nan, size=np.nan))
        np.testing.assert_array_equal(found, expected)


def test_warm_start_without_a_column():
    X, score = views(60)
    model = fitted("joint", X, score)
    y = (score > 0).astype(int)
    assert model.partial_fit(X.drop(columns="photo"), y).n_iter_ == 3
    assert model.set_params(warm_start=True).fit(X.drop(columns="text"), y).n_iter_ == 5


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["mask", "impute"])
def test_columns_of_networks_and_tables(missing):
    X, y = make_multimodal_classification(
        60, modalities={"photo": "image", "review": "text", "table": "tabular"}, image_size=12,
        random_state=0,
    )  # fmt: skip
    table = [name for name in X.columns if name.startswith("table")]
    model = JointFusionClassifier(
        [("photo", ImageEncoder("cnn", n_components=4), ["photo"]),
         ("review", TextEncoder("gru", n_components=4), ["review"]),
         ("table", TabularEncoder(), table)],
        **with_trainer(missing=missing, missing_columns="absent", **SMALL),
    ).fit(X, y)  # fmt: skip
    for columns in (["photo"], ["review"], table, table[:1], table[-1:]):
        new = X[:10]
        found = model.predict_proba(new.drop(columns=columns))
        expected = model.predict_proba(new.assign(**dict.fromkeys(columns)))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
