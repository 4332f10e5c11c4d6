"""Prototypes: shrunken means of classes, from few rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.datasets import load_iris, make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline

from skmm import EarlyFusion, PrototypeClassifier
from skmm.model_selection import FewShotSplit


@pytest.fixture
def blobs():
    return make_blobs(300, centers=4, n_features=6, cluster_std=3.0, random_state=0)


def test_equals_nearest_centroid(blobs):
    X, y = blobs
    model = PrototypeClassifier().fit(X, y)
    theirs = NearestCentroid().fit(X, y)
    assert model.prototypes_ == pytest.approx(theirs.centroids_)
    assert np.array_equal(model.predict(X), theirs.predict(X))
    assert model.class_count_.tolist() == [75] * 4


def test_probabilities_are_those_of_isotropic_normal_distributions(blobs):
    """Compare with discriminant analysis, with a multiple of the identity as covariance."""
    X, y = blobs
    model = PrototypeClassifier().fit(X, y)

    class Spherical(EmpiricalCovariance):
        def fit(self, X, y=None):
            self.covariance_ = np.eye(X.shape[1]) * model.temperature_ / 2
            return self

    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Spherical(), priors=[0.25] * 4
    ).fit(X, y)
    assert model.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-6)
    within = np.mean([X[y == c].var(axis=0, ddof=1) for c in range(4)])
    assert model.temperature_ == pytest.approx(2 * within)


def test_decision_function_is_the_logarithm_of_the_odds(blobs):
    X, y = blobs
    model = PrototypeClassifier(temperature=3.0).fit(X, y)
    scores, logarithms = model.decision_function(X), np.log(model.predict_proba(X))
    assert scores - scores[:, :1] == pytest.approx(logarithms - logarithms[:, :1], abs=1e-6)
    squared = ((X[:, None] - model.prototypes_) ** 2).sum(axis=2)
    assert scores - scores[:, :1] == pytest.approx((squared[:, :1] - squared) / 3, abs=1e-9)
    two = PrototypeClassifier().fit(X[y < 2], y[y < 2])
    assert two.decision_function(X).shape == (300,)
    assert np.array_equal(two.decision_function(X) > 0, two.predict(X) == 1)


def test_shrinkage_adds_rows_at_the_mean_of_all_classes(blobs):
    X, y = blobs
    means = NearestCentroid().fit(X, y).centroids_
    center = means.mean(axis=0)
    with_rows = PrototypeClassifier().fit(
        np.vstack([X, np.tile(center, (4 * 5, 1))]), np.append(y, np.repeat(np.arange(4), 5))
    )
    shrunken = PrototypeClassifier(shrinkage=5).fit(X, y)
    assert shrunken.prototypes_ == pytest.approx(with_rows.prototypes_)
    assert shrunken.prototypes_ == pytest.approx(center + 75 / 80 * (means - center))
    assert PrototypeClassifier(shrinkage=1e9).fit(X, y).prototypes_ == pytest.approx(
        np.tile(center, (4, 1)), abs=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
def test_shrinkage_helps_with_classes_of_unequal_size(seed):
    """One class has 60 rows and the other two, whose prototype is mostly noise."""
    rng = np.random.default_rng(seed)
    n_features = 50
    centers = np.vstack([np.zeros(n_features), np.full(n_features, 0.35)])
    y = np.repeat([0, 1], [60, 60])
    X = centers[y] + rng.standard_normal((120, n_features))
    test_y = np.repeat([0, 1], 2000)
    test = centers[test_y] + rng.standard_normal((4000, n_features))
    rows = np.append(np.arange(60), [60, 61])
    plain, shrunken = (
        PrototypeClassifier(shrinkage=s).fit(X[rows], y[rows]).score(test, test_y) for s in (0, 2)
    )
    assert shrunken > plain + 0.02


def test_cosine_uses_directions_only():
    rng = np.random.default_rng(0)
    directions = np.array([[1.0, 0.1], [1.0, 0.6]])
    y = np.tile([0, 1], 100)
    X = (
        directions[y]
        * rng.uniform(0.01, 100, size=(200, 1))
        * np.exp(0.1 * rng.standard_normal((200, 2)))
    )
    model = PrototypeClassifier(metric="cosine").fit(X, y)
    assert model.score(X, y) == 1
    assert PrototypeClassifier().fit(X, y).score(X, y) < 0.9
    assert np.linalg.norm(model.prototypes_, axis=1) == pytest.approx(1)
    assert model.predict_proba(X * 7) == pytest.approx(model.predict_proba(X))
    assert model.predict([[0.0, 0.0]]).shape == (1,)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_partial_fit_equals_fit(metric, blobs):
    X, y = blobs
    X = X + 1000.0  # far from zero sums lose digits
    names = np.array(["a", "b", "c", "d"])[y]
    whole = PrototypeClassifier(metric=metric, shrinkage=2).fit(X, names)
    parts = PrototypeClassifier(metric=metric, shrinkage=2)
    for begin in range(0, 300, 40):
        part = slice(begin, begin + 40)
        parts.partial_fit(X[part], names[part], classes=names if begin == 0 else None)
    assert parts.prototypes_ == pytest.approx(whole.prototypes_, rel=1e-9)
    assert parts.temperature_ == pytest.approx(whole.temperature_, rel=1e-6)
    assert np.array_equal(parts.predict(X), whole.predict(X))


def test_a_class_without_rows_is_never_predicted(blobs):
    X, y = blobs
    model = PrototypeClassifier(shrinkage=3).partial_fit(X[y < 3], y[y < 3], classes=range(4))
    assert set(model.predict(X)) <= {0, 1, 2}
    assert (model.predict_proba(X)[:, 3] == 0).all()
    only = PrototypeClassifier(shrinkage=3).fit(X[y < 3], y[y < 3])
    assert model.predict_proba(X)[:, :3] == pytest.approx(only.predict_proba(X))
    model.partial_fit(X[y == 3], y[y == 3])
    whole = PrototypeClassifier(shrinkage=3).fit(X, y)
    assert model.predict_proba(X) == pytest.approx(whole.predict_proba(X))


def test_weights_equal_repeated_rows(blobs):
    X, y = blobs
    weights = np.random.default_rng(0).integers(0, 4, size=300)
    weighted = PrototypeClassifier(shrinkage=1).fit(X, y, sample_weight=weights)
    repeated = PrototypeClassifier(shrinkage=1).fit(
        np.repeat(X, weights, axis=0), np.repeat(y, weights)
    )
    assert weighted.prototypes_ == pytest.approx(repeated.prototypes_)
    assert weighted.predict_proba(X) == pytest.approx(repeated.predict_proba(X))


def test_one_row_per_class():
    X, y = [[0.0, 0.0], [4.0, 0.0]], ["a", "b"]
    model = PrototypeClassifier().fit(X, y)
    assert model.temperature_ == pytest.approx(2 * 4 / 2)  # the variance between, over 2 features
    assert model.predict([[1.0, 3.0]]) == ["a"]
    assert model.predict_proba([[2.0, 0.0]])[0] == pytest.approx([0.5, 0.5])
    one = PrototypeClassifier().fit([[1.0], [1.0]], ["a", "a"])
    assert one.predict([[5.0]]) == ["a"] and one.predict_proba([[5.0]]) == [[1.0]]


@pytest.mark.slow
def test_few_shot_accuracy_on_iris():
    X, y = load_iris(return_X_y=True)
    one, five, twenty = (
        cross_val_score(PrototypeClassifier(), X, y, cv=FewShotSplit(k, random_state=0)).mean()
        for k in (1, 5, 20)
    )
    assert 0.75 < one < five - 0.02 < twenty
    assert twenty > 0.9


@pytest.mark.slow
def test_after_a_fusion():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 2], 40)
    left, right = (np.eye(3)[y] + 0.6 * rng.standard_normal((120, 3)) for _ in range(2))
    X = pd.DataFrame({"left": [*left], "right": [*right]})
    X.loc[::7, "left"] = None
    blocks = [(name, "passthrough", [name]) for name in X.columns]
    fusion = EarlyFusion(blocks, scaling=None, add_indicator=False)
    scores = [
        cross_val_score(
            make_pipeline(fusion.set_params(left=what), PrototypeClassifier()),
            X, y, cv=FewShotSplit(5, n_splits=20, random_state=0),
        ).mean()
        for what in ("passthrough", "drop")
    ]  # fmt: skip
    assert scores[0] > scores[1] + 0.03 > 0.5


def test_nan_is_refused():
    with pytest.raises(
        ValueError, match=r"Input X contains NaN.\nPrototypeClassifier does not accept"
    ):
        PrototypeClassifier().fit([[np.nan], [1.0]], [0, 1])
    model = PrototypeClassifier().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict([[np.nan]])


def test_invalid_input():
    X, y = [[0.0], [1.0]], [0, 1]
    with pytest.raises(ValueError, match="partial_fit needs classes in the first call"):
        PrototypeClassifier().partial_fit(X, y)
    model = PrototypeClassifier().fit(X, y)
    with pytest.raises(ValueError, match="y has the label .*2.*not among the classes"):
        model.partial_fit(X, [0, 2])
    with pytest.raises(ValueError, match="got other classes than in the first call"):
        model.partial_fit(X, y, classes=[0, 1, 2])
    for wrong in ({"metric": "manhattan"}, {"shrinkage": -1}, {"temperature": 0}):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' parameter"):
            PrototypeClassifier(**wrong).fit(X, y)
