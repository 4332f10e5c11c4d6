"""A first model for a frame, without a choice."""

import numpy as np
import pandas as pd
import pytest
from fusing import TRIPLES, views
from sklearn.model_selection import cross_val_score

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
    make_multimodal_pipeline,
)
from skmm.datasets import make_multimodal_classification, make_multimodal_regression

KINDS = {"a": "vector", "t": "tabular"}


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["early", "late", "joint"])
def test_classifier_learns_from_any_frame(fusion):
    X, y = make_multimodal_classification(300, modalities=KINDS, missing_rate=0.1, random_state=0)
    model = make_multimodal_pipeline("classifier", fusion=fusion, random_state=0)
    assert cross_val_score(model, X, y, cv=3).mean() > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["early", "late", "joint"])
def test_regressor_learns_from_any_frame(fusion):
    X, y = make_multimodal_regression(300, modalities=KINDS, missing_rate=0.1, random_state=0)
    model = make_multimodal_pipeline("regressor", fusion=fusion, random_state=0)
    assert cross_val_score(model, X, y, cv=3).mean() > 0.6


@pytest.mark.parametrize(
    ("task", "fusion", "step", "last"),
    [
        ("classifier", "early", EarlyFusion, "classifier"),
        ("regressor", "early", EarlyFusion, "regressor"),
        ("classifier", "late", LateFusionClassifier, "fusion"),
        ("regressor", "late", LateFusionRegressor, "fusion"),
        ("classifier", "joint", JointFusionClassifier, "fusion"),
        ("regressor", "joint", JointFusionRegressor, "fusion"),
    ],
)
def test_steps_have_names_to_set_parameters_by(task, fusion, step, last):
    model = make_multimodal_pipeline(task, fusion=fusion, modalities=TRIPLES, random_state=3)
    assert isinstance(model["fusion"], step)
    assert list(model.named_steps)[-1] == last
    assert model.set_params(fusion__photo="drop")["fusion"].modalities[0][1] == "drop"
    assert model["fusion"].modalities is not TRIPLES


@pytest.mark.slow
def test_same_seed_same_predictions():
    X, score = views(80, missing=0.2)
    for fusion in ("early", "late", "joint"):
        first, again = (
            make_multimodal_pipeline("regressor", fusion=fusion, random_state=0).fit(X, score)
            for _ in "ab"
        )
        np.testing.assert_array_equal(first.predict(X), again.predict(X))


def test_frames_of_numbers_and_arrays_are_tables():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 4))
    y = (X[:, 0] > 0).astype(int)
    assert make_multimodal_pipeline("classifier").fit(X, y).score(X, y) > 0.9
    assert make_multimodal_pipeline("classifier").fit(pd.DataFrame(X), y).score(X, y) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classification",), "task must be 'classifier' or 'regressor', got 'classification'"),
        (("classifier", "middle"), "fusion must be 'early', 'late' or 'joint', got 'middle'"),
    ],
)
def test_wrong_words(arguments, message):
    task, *fusion = arguments
    options = {"fusion": fusion[0]} if fusion else {}
    with pytest.raises(ValueError, match=message):
        make_multimodal_pipeline(task, **options)
