"""Fusions inside everything that scikit-learn has for estimators."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from fusing import TRIPLES, Recorder, views, with_trainer
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier, VotingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
)

FAST = {"n_components": 8, "max_epochs": 6, "learning_rate": 1e-2, "random_state": 0}

CLASSIFIERS = [
    make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()),
    LateFusionClassifier(TRIPLES, cv=3),
    JointFusionClassifier(TRIPLES, **with_trainer(batch_size=16, **FAST)),
]
REGRESSORS = [
    make_pipeline(EarlyFusion(TRIPLES), LinearRegression()),
    LateFusionRegressor(TRIPLES, cv=3),
    JointFusionRegressor(TRIPLES, **with_trainer(batch_size=16, **{**FAST, "max_epochs": 20})),
]
each_classifier = pytest.mark.parametrize("model", CLASSIFIERS, ids=["early", "late", "joint"])


@pytest.fixture(scope="module")
def data():
    X, score = views(150, missing=0.1)
    return X, np.array(["no", "yes"])[(score > 0).astype(int)]


# --- cross-validation and meta-estimators ------------------------------------------------------


@pytest.mark.slow
@each_classifier
def test_cross_val_predict(model, data):
    X, y = data
    proba = cross_val_predict(model, X, y, cv=3, method="predict_proba")
    assert (np.array(["no", "yes"])[proba.argmax(axis=1)] == y).mean() > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("model", REGRESSORS, ids=["early", "late", "joint"])
def test_cross_val_score_of_values(model):
    X, score = views(200)
    assert cross_val_score(model, X, score, cv=3).mean() > 0.6


@pytest.mark.slow
@each_classifier
def test_stacking_and_calibration(model, data):
    X, y = data
    stack = StackingClassifier([("fusion", model), ("numbers", _numbers())], cv=3).fit(X, y)
    assert stack.score(X, y) > 0.75
    calibrated = CalibratedClassifierCV(model, cv=3).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1.0)
    assert calibrated.score(X, y) > 0.75


def _numbers():
    return make_pipeline(EarlyFusion([TRIPLES[2]]), GaussianNB())


@pytest.mark.slow
def test_voting_of_fusions():
    X, score = views(150)
    vote = VotingRegressor([("late", REGRESSORS[1]), ("joint", REGRESSORS[2])]).fit(X, score)
    assert vote.score(X, score) > 0.6


def test_column_transformer_around_fusions(data):
    X, y = data
    inner = EarlyFusion([TRIPLES[0], ("text", "passthrough", ["text"])], scaling=None)
    columns = ColumnTransformer(
        [("media", inner, ["photo", "text"]), ("size", "passthrough", ["size"])]
    )
    got = columns.fit_transform(X)
    np.testing.assert_allclose(got[:, :-1], inner.fit_transform(X[["photo", "text"]]))
    assert columns.get_feature_names_out()[0] == "media__photo__photo_0"
    late = ColumnTransformer([("late", LateFusionClassifier(TRIPLES[:2]), ["photo", "text"])])
    assert late.fit_transform(X, y).shape == (150, 4)


@pytest.mark.slow
def test_feature_union_of_fusions(data):
    X, y = data
    union = FeatureUnion(
        [("early", EarlyFusion(TRIPLES)), ("late", CLASSIFIERS[1]), ("joint", CLASSIFIERS[2])]
    )
    width = (4 + 3 + 2 + 3) + (3 + 3) + 8
    assert union.fit_transform(X, y).shape == union.transform(X).shape == (150, width)
    assert len(set(union.get_feature_names_out())) == width
    model = make_pipeline(union, LogisticRegression())
    assert cross_val_score(model, X, y, cv=2).mean() > 0.7


def test_fusion_of_fusions(data):
    X, y = data
    media = EarlyFusion(TRIPLES[:2])
    outer = LateFusionClassifier([("media", media, ["photo", "text"]), TRIPLES[2]], cv=3)
    assert outer.fit(X, y).score(X, y) > 0.8
    assert outer.get_params()["media__scaling"] == "standard"


@pytest.mark.slow
@each_classifier
def test_clone_and_diagram(model, data):
    X, y = data
    twin = clone(model)
    for estimator in (twin, clone(twin).fit(X, y)):
        html = estimator_html_repr(estimator)
        assert "photo" in html and "passthrough" in html
    assert repr(twin)


def test_diagram_of_an_unfitted_fusion():
    assert "EarlyFusion" in estimator_html_repr(EarlyFusion())
    assert "EarlyFusion" in estimator_html_repr(EarlyFusion("wrong"))
    assert "EarlyFusion" in estimator_html_repr(EarlyFusion([("a", "passthrough")]))
    fitted = EarlyFusion().fit(pd.DataFrame({"n": [1.0, 2.0]}))
    assert "TabularEncoder" in estimator_html_repr(fitted)


# --- searches ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_search_over_exchanged_fusions_and_nested_parameters(data):
    X, y = data
    photo = make_pipeline(Recorder(), PCA(2))
    numbers = ("numbers", make_pipeline(EarlyFusion(), PCA(1)), ["size", "price"])
    early = make_pipeline(EarlyFusion([numbers, TRIPLES[1]]), LogisticRegression())
    grid = [
        {"fusion": [early], "fusion__earlyfusion__numbers__pca__n_components": [1, 2]},
        {
            "fusion": [LateFusionClassifier([numbers, TRIPLES[0]], cv=2)],
            "fusion__rule": ["mean", "weighted"],
            "fusion__photo": ["drop", "passthrough"],
        },
        {
            "fusion": [JointFusionClassifier(TRIPLES, **with_trainer(**FAST))],
            "fusion__strategy": ["mean", "gated"],
        },
    ]
    search = GridSearchCV(Pipeline([("fusion", early)]), grid, cv=2, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 2 + 4 + 2
    assert search.best_score_ > 0.75
    assert photo.steps  # the grid's own objects are cloned, never fitted
    assert not hasattr(early[0], "modalities_")


def test_search_over_the_modalities_themselves(data):
    X, y = data
    triple = ("numbers", make_pipeline(EarlyFusion(), PCA(1)), ["size", "price"])
    grid = {
        "earlyfusion__modalities": [[triple], [triple, TRIPLES[0]]],
        "earlyfusion__numbers__pca__n_components": [1, 2],
    }
    search = GridSearchCV(CLASSIFIERS[0], grid, cv=2, error_score="raise").fit(X, y)
    best = search.best_estimator_[0].modalities_[0][1]
    assert best[-1].n_components == search.best_params_["earlyfusion__numbers__pca__n_components"]


# --- metadata routing --------------------------------------------------------------------------


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def weights(y):
    return np.where(y == "yes", 50.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("model", CLASSIFIERS[1:], ids=["late", "joint"])
def test_weights_through_a_pipeline_without_routing(model, data):
    X, y = data
    X = X.assign(photo=None, text=None)
    model = clone(model).set_params(photo="drop", text="drop")
    plain = Pipeline([("fusion", clone(model))]).fit(X, y)
    heavy = Pipeline([("fusion", clone(model))]).fit(X, y, fusion__sample_weight=weights(y))
    assert (heavy.predict(X) == "yes").mean() > (plain.predict(X) == "yes").mean() + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("model", CLASSIFIERS[1:], ids=["late", "joint"])
@pytest.mark.usefixtures("_routing")
def test_weights_through_a_search_with_routing(model, data):
    X, y = data
    X = X.assign(photo=None, text=None)
    asked = clone(model).set_fit_request(sample_weight=True)
    asked.set_score_request(sample_weight=True)
    asked.set_params(photo="drop", text="drop")
    search = GridSearchCV(Pipeline([("fusion", asked)]), {"fusion__all_missing": ["prior"]}, cv=2)
    plain = clone(search).fit(X, y)
    heavy = clone(search).fit(X, y, sample_weight=weights(y))
    assert (heavy.predict(X) == "yes").mean() > (plain.predict(X) == "yes").mean() + 0.1


@pytest.mark.usefixtures("_routing")
def test_late_routes_what_its_estimators_request(data):
    X, y = data

    class Needs(LogisticRegression):
        def fit(self, X, y, sample_weight=None, price=None):
            self.seen_ = (None if sample_weight is None else len(sample_weight), len(price), len(X))
            return super().fit(X, y, sample_weight)

    needs = Needs().set_fit_request(sample_weight=False, price=True)
    fusion = LateFusionClassifier(TRIPLES, estimator=needs, rule="stacking", cv=2)
    fusion.fit(X, y, price=np.arange(150))
    n_photos = int(X["photo"].notna().sum())
    assert fusion.estimators_["photo"].seen_ == (None, n_photos, n_photos)
    # Asked not to weigh, an estimator does not; the rule and the prior do.
    fusion.set_fit_request(sample_weight=True).fit(X, y, sample_weight=weights(y), price=y)
    assert fusion.estimators_["photo"].seen_[0] is None
    nothing = X.iloc[[0]].assign(photo=None, text=None, size=None, price=None)
    assert fusion.predict_proba(nothing)[0, 1] > 0.9
    with pytest.raises(ValueError, match="sample_weight.*not requested for Needs.fit"):
        clone(fusion).set_params(estimator=Needs().set_fit_request(price=True)).fit(
            X, y, sample_weight=weights(y), price=y
        )


@pytest.mark.usefixtures("_routing")
def test_late_routes_to_classifiers_of_cells(data):
    X, y = data
    own = LogisticRegression().set_fit_request(sample_weight=True)
    X = X[["size", "price"]].dropna()
    y = y[X.index]
    fusion = LateFusionClassifier([("numbers", own, ["size", "price"])], rule="mean")
    plain = clone(fusion).fit(X, y)
    heavy = clone(fusion).fit(X, y, sample_weight=weights(y))
    assert heavy.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.1


@pytest.mark.usefixtures("_routing")
def test_early_routes_the_rows_of_a_transformer(data):
    X, y = data
    asked = Recorder().set_fit_request(sample_weight=True)
    fusion = EarlyFusion([("size", asked, ["size"]), TRIPLES[0]])
    model = make_pipeline(fusion, LogisticRegression().set_fit_request(sample_weight=False))
    model.fit(X, y, sample_weight=np.arange(150.0))
    transformer = model[0].modalities_[0][1]
    np.testing.assert_array_equal(transformer.sample_weight_, np.flatnonzero(X["size"].notna()))


def test_metadata_without_routing_is_refused(data):
    X, y = data
    for model in (EarlyFusion(TRIPLES), LateFusionClassifier(TRIPLES)):
        with pytest.raises(ValueError, match=r"\['groups'\].*enable_metadata_routing=True"):
            model.fit(X, y, groups=y)


@pytest.mark.slow
@pytest.mark.usefixtures("_routing")
def test_everything_still_runs_with_routing_on(data):
    X, y = data
    for model in CLASSIFIERS:
        assert clone(model).fit(X, y).score(X, y) > 0.75
    scaled = [("numbers", StandardScaler(), ["size", "price"])]
    knn = LateFusionClassifier(scaled, estimator=KNeighborsClassifier(), rule="vote")
    assert knn.fit(X, y).score(X, y) > 0.5
