"""Weights of a fusion are those of its parts and follow the planted information."""

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import TRIPLES, Total, views, with_trainer
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionMultiTask,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
    Trainer,
)
from skmm.fusion import BottleneckFusion
from skmm.inspection import modality_weights

NAMES = ["photo", "text", "numbers"]


@pytest.fixture(scope="module")
def data():
    X, score = views(160, missing=0.25)
    X.index = np.arange(160) + 1000
    return X, (score > 0).astype(int)


def present(X):
    return np.column_stack([X["photo"].notna(), X["text"].notna(), X["size"].notna()])


def check(weights, X):
    """Assert that weights are NaN where absent, not negative, and sum to 1."""
    assert weights.columns.tolist() == NAMES
    there = present(X)
    np.testing.assert_array_equal(weights.notna(), there)
    some = there.any(axis=1)
    np.testing.assert_allclose(weights.sum(axis=1)[some], 1, atol=1e-6)
    assert (weights.fillna(0) >= 0).all(axis=None)
    assert 0 < some.sum() < len(X)


def halves(seed, n=600):
    """Return two vectors, of which one per row is informative and flagged as such."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    is_a = rng.integers(0, 2, n).astype(bool)  # whether a is informative
    cells = {}
    for name, own in (("a", is_a), ("b", ~is_a)):
        said = np.where(own, y, rng.integers(0, 2, n))
        cells[name] = np.column_stack([2 * said - 1, 2 * own - 1, rng.normal(size=(n, 2))])
        cells[name] = cells[name] + 0.1 * rng.normal(size=(n, 4))
    X = pd.DataFrame({name: list(own.astype(np.float32)) for name, own in cells.items()})
    return X, y, is_a


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["gated", "attention"])
@pytest.mark.parametrize("seed", [0])
def test_informative_modality_has_the_larger_weight(strategy, seed):
    X, y, is_a = halves(seed)
    model = JointFusionClassifier(
        [(name, "passthrough", [name]) for name in "ab"],
        strategy=strategy,
        n_components=32,
        max_epochs=30,
        trainer=Trainer(early_stopping=False),
        random_state=seed,
    ).fit(X[:400], y[:400])
    assert model.score(X[400:], y[400:]) > 0.9
    weights = modality_weights(model, X[400:])
    lead = (weights["a"] - weights["b"]).to_numpy()
    assert lead[is_a[400:]].mean() > lead[~is_a[400:]].mean() + 0.1


JOINT = [(strategy, "mask") for strategy in ("gated", "cross_gated", "attention", "bottleneck")]
JOINT += [("gated", "token"), ("attention", "impute"), ("cross_gated", "zero")]


@pytest.mark.slow
@pytest.mark.parametrize("strategy, missing", JOINT)
def test_joint_fusion(data, strategy, missing):
    X, y = data
    strategy = BottleneckFusion(n_layers=2) if strategy == "bottleneck" else strategy
    model = JointFusionClassifier(
        TRIPLES,
        **with_trainer(strategy=strategy, missing=missing, max_epochs=2, random_state=0),
    ).fit(X, y)
    weights = modality_weights(model, X)
    check(weights, X)
    assert weights.index.equals(X.index)
    assert weights.dropna().std().min() > 1e-4  # not the same in every row
    # The weights of a row do not depend on other rows.
    pd.testing.assert_frame_equal(modality_weights(model, X[:7]), weights[:7], atol=1e-6)


def test_gates_are_those_of_the_network(data):
    X, y = data
    model = JointFusionRegressor(TRIPLES, strategy="gated", max_epochs=2, random_state=0).fit(X, y)
    tokens, masks = model.module_.encoders.gather(model._inputs.batch(X))
    with torch.inference_mode():
        gates = model.module_.fusion.weights(tokens, masks).numpy()
    order = [sorted(NAMES).index(name) for name in NAMES]
    got = modality_weights(model, X).fillna(0).to_numpy()
    np.testing.assert_allclose(got, gates[:, order], atol=1e-6)


def test_custom_module(data):
    X, y = data

    class Weighed(Total):
        def weights(self, tokens, masks):
            return torch.stack([masks[name].any(dim=1).float() for name in sorted(masks)], dim=1)

    model = JointFusionMultiTask(TRIPLES, strategy=Weighed, max_epochs=1, random_state=0)
    weights = modality_weights(model.fit(X, pd.DataFrame({"t": y})), X)
    check(weights, X)
    counts = present(X).sum(axis=1)
    np.testing.assert_allclose(weights.max(axis=1)[counts > 0], 1 / counts[counts > 0])


@pytest.mark.parametrize("rule", ["mean", "vote", "product", "weighted", "stacking"])
def test_late_fusion(data, rule):
    X, y = data
    weights = modality_weights(LateFusionClassifier(TRIPLES, rule=rule).fit(X, y), X)
    check(weights, X)
    if rule in ("mean", "vote", "product"):
        counts = present(X).sum(axis=1)
        np.testing.assert_allclose(weights.max(axis=1)[counts > 0], 1 / counts[counts > 0])


def test_weights_of_late_fusion_are_those_of_the_rule(data):
    X, y = data
    full = present(X).all(axis=1)
    model = LateFusionClassifier(TRIPLES, rule="weighted", weights=[1, 0, 3]).fit(X, y)
    weights = modality_weights(model, X)
    assert np.allclose(weights[full], [0.25, 0, 0.75])
    only = (present(X) == [False, True, False]).all(axis=1)
    assert only.any() and (weights.loc[only, "text"] == 1).all()  # the only modality of the row


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("rule", ["weighted", "stacking"])
def test_learned_weights_follow_what_was_planted(rule, classes):
    X, score = views(400, strength=(1.0, 0.7, 0.0), noise=0.1)
    y = pd.qcut(score, classes, labels=False) if classes else score
    model = (LateFusionClassifier if classes else LateFusionRegressor)(TRIPLES, rule=rule)
    weights = modality_weights(model.fit(X, y), X).mean()
    assert weights["photo"] > weights["text"] + 0.03 and weights["numbers"] < 0.1
    assert weights["text"] > weights["numbers"] + 0.03


@pytest.mark.slow
def test_fusion_is_found_in_pipelines_and_searches(data):
    X, y = data
    fusion = LateFusionClassifier(TRIPLES, rule="weighted").fit(X, y)
    expected = modality_weights(fusion, X)
    search = GridSearchCV(LateFusionClassifier(TRIPLES), {"rule": ["weighted"]}, cv=2)
    for model in (
        search,
        make_pipeline(search),
        make_pipeline("passthrough", LateFusionClassifier(TRIPLES, rule="weighted")),
        make_pipeline(LateFusionClassifier(TRIPLES, rule="weighted"), LogisticRegression()),
        make_pipeline(Doubled(), make_pipeline(LateFusionClassifier(TRIPLES, rule="weighted"))),
    ):
        got = modality_weights(model.fit(X, y), X)
        pd.testing.assert_frame_equal(got, expected, atol=0.02)
        check(got, X)


class Doubled(BaseEstimator):
    """Changes the frame, so that the fusion after it requires its output."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.rename(columns=str).assign(size=2 * X["size"])

    def __sklearn_is_fitted__(self):
        return True


class Renamed(Doubled):
    """Accepts only the frame that it was fitted on."""

    def fit(self, X, y=None):
        self.columns_ = list(X.columns)
        return self

    def transform(self, X):
        assert list(X.columns) == self.columns_
        return X.rename(columns=lambda name: f"{name}'")


@pytest.mark.slow
def test_a_step_of_an_inner_pipeline_receives_the_output_of_the_step_before(data):
    X, y = data
    triples = [(name, middle, [f"{c}''" for c in columns]) for name, middle, columns in TRIPLES]
    fusion = LateFusionClassifier(triples, rule="weighted")
    model = make_pipeline(Renamed(), make_pipeline(Renamed(), fusion)).fit(X, y)
    seen = X.rename(columns=lambda name: f"{name}''")
    expected = modality_weights(fusion.fit(seen, y), seen)
    pd.testing.assert_frame_equal(modality_weights(model, X), expected)


def test_polars():
    pl = pytest.importorskip("polars", reason="needs the extra 'polars'")
    X, score = views(40)
    y = score > 0
    model = LateFusionClassifier(TRIPLES, rule="mean").fit(X, y)
    frame = pl.DataFrame({name: list(X[name]) for name in X})
    got = modality_weights(model, frame)
    np.testing.assert_array_equal(got, modality_weights(model, X))


@pytest.mark.slow
def test_estimators_without_weights_are_refused(data):
    X, y = data
    joint = JointFusionClassifier(TRIPLES, strategy="concat", max_epochs=1, random_state=0)
    forest = LateFusionClassifier(TRIPLES, final_estimator=RandomForestClassifier(3))
    for model, message in (
        (joint, "ConcatFusionModule gives the modalities no weights. Take strategy='gated'"),
        (forest, "a RandomForestClassifier as final_estimator_ gives the modalities no weights"),
        (LateFusionClassifier(TRIPLES, rule="max"), "rule='max' gives the modalities no weights"),
        (make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()), "Pipeline gives its modal"),
    ):
        with pytest.raises(TypeError, match=message):
            modality_weights(model.fit(X, y), X)
    with pytest.raises(NotFittedError):
        modality_weights(LateFusionClassifier(TRIPLES), X)
    with pytest.raises(TypeError, match="DataFrame or an array of two dimensions, got Series"):
        modality_weights(forest, X["text"])
