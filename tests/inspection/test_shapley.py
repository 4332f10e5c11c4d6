"""Shares of the modalities in the score and in each prediction of planted data."""

import warnings

import numpy as np
import pandas as pd
import pytest
from counting import CountingModule, lines
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionMultiTask,
    LateFusionClassifier,
    LateFusionRegressor,
    ModuleEncoder,
)
from skmm.datasets import make_multimodal_classification, make_multimodal_regression
from skmm.inspection import modality_shapley

TRIPLES = [(name, "passthrough", [name]) for name in "abc"]
KINDS = {"a": "vector", "b": "vector", "c": "vector"}


def made(n=500, seed=0, make=make_multimodal_classification, **options):
    options = {"redundant": 0, "private": {"a": 0.7, "c": 0.3}} | options
    return make(n, modalities=KINDS, random_state=seed, **options)


@pytest.fixture(scope="module")
def data():
    return made()


@pytest.fixture(scope="module")
def late(data):
    X, y = data
    return LateFusionClassifier(TRIPLES).fit(X[:300], y[:300])


def check_sums(result):
    if result.score_values is not None:
        total = result.base_score + result.score_values.sum()
        assert total == pytest.approx(result.score, abs=1e-9)
        assert (np.diag(result.interactions) == 0).all()
        np.testing.assert_allclose(result.interactions, result.interactions.T, atol=1e-12)
    if result.row_values is not None:
        total = result.base_values + result.row_values.sum(axis=1)
        np.testing.assert_allclose(total, result.predictions, atol=1e-6)


MODELS = {
    "late": LateFusionClassifier(TRIPLES),
    "mean": LateFusionClassifier(TRIPLES, rule="mean"),
    "early": make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()),
    "auto": make_pipeline(EarlyFusion(), LogisticRegression()),
    "joint": JointFusionClassifier(TRIPLES, max_epochs=15, random_state=0),
    "search": GridSearchCV(LateFusionClassifier(TRIPLES), {"rule": ["mean", "stacking"]}, cv=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("removal", ["missing", "permute"])
@pytest.mark.parametrize("name", MODELS)
def test_shares_follow_the_planted_information_and_add_up(data, name, removal):
    X, y = data
    model = MODELS[name].fit(X[:300], y[:300])
    result = modality_shapley(model, X[300:], y[300:], removal=removal, random_state=0)
    check_sums(result)
    a, b, c = result.score_values
    assert a > c + 0.02 and c > 0.04
    assert abs(b) < 0.05
    assert result.score == model.score(X[300:], y[300:])
    np.testing.assert_allclose(result.predictions, model.predict_proba(X[300:]), atol=1e-9)
    assert result.row_values.shape == (200, 3, 2)
    sizes = np.abs(result.row_values[:, :, 1]).mean(axis=0)
    assert sizes[0] > sizes[2] > 1.2 * sizes[1]
    # Probabilities always sum to 1, so that their shares sum to 0.
    np.testing.assert_allclose(result.row_values.sum(axis=2), 0, atol=1e-6)
    assert result.classes.tolist() == [0, 1] and result.exact and result.removal == removal
    assert result.modalities == list("abc") == result.score_values.index.tolist()


class Additive(RegressorMixin, BaseEstimator):
    """Model that sums terms and pairwise products of columns; a missing one is 0."""

    def __init__(self, parts, pairs=()):
        self.parts = parts
        self.pairs = pairs

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        x = np.nan_to_num(np.asarray(X, dtype=float))
        return x @ self.parts + sum(w * x[:, i] * x[:, j] for i, j, w in self.pairs)


@pytest.mark.parametrize("max_coalitions", [256, 30])
def test_shares_of_a_known_function(max_coalitions):
    """A share is the term and half of each product; an interaction is the product."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(30, 6)), columns=list("uvwxyz"))
    parts = np.array([1.0, -2.0, 0.0, 3.0, 0.0, 0.5])
    pairs = [(0, 1, 2.0), (2, 3, -1.0)]
    model = Additive(parts, pairs).fit(X)
    result = modality_shapley(
        model, X, removal="missing", modalities={c: [c] for c in X}, max_coalitions=max_coalitions
    )
    x = X.to_numpy()
    expected = x * parts
    interactions = np.zeros((30, 6, 6))
    for i, j, weight in pairs:
        product = weight * x[:, i] * x[:, j]
        expected[:, [i, j]] += product[:, None] / 2
        interactions[:, i, j] = interactions[:, j, i] = product
    assert result.exact == (max_coalitions == 256)
    np.testing.assert_allclose(result.row_values[:, :, 0], expected, atol=1e-9)
    np.testing.assert_allclose(result.row_interactions[..., 0], interactions, atol=1e-9)
    np.testing.assert_allclose(result.row_values[:, 4], 0, atol=1e-12)  # a column without effect
    assert not result.base_values.any() and result.classes is None
    assert result.score_values is result.interactions is result.score is result.base_score is None
    check_sums(result)


def test_equal_modalities_have_equal_shares():
    rng = np.random.default_rng(0)
    column = rng.normal(size=200)
    X = pd.DataFrame({"one": column, "two": column, "three": rng.normal(size=200)})
    y = 2 * column + X["three"]
    model = Additive(np.array([1.0, 1.0, 1.0]), [(0, 2, 0.1), (1, 2, 0.1)]).fit(X)
    for removal in ("missing", "permute"):
        result = modality_shapley(
            model, X, y, modalities={c: [c] for c in X}, removal=removal, random_state=0
        )
        check_sums(result)
        assert result.score_values["one"] == pytest.approx(result.score_values["two"])
        assert result.score_values["one"] > result.score_values["three"] > 0
        np.testing.assert_allclose(result.row_values[:, 0], result.row_values[:, 1], atol=1e-9)


def interaction(X, y, model, half, **options):
    model.fit(X[:half], y[:half])
    result = modality_shapley(model, X[half:], y[half:], random_state=0, **options)
    check_sums(result)
    return result


@pytest.mark.parametrize("removal", ["missing", "permute"])
def test_interaction_of_an_exclusive_or_is_positive(removal):
    """Neither modality is informative alone."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=(600, 2))
    X = pd.DataFrame(signs + 0.1 * rng.normal(size=(600, 2)), columns=["a", "b"]).assign(c=0.0)
    X["c"] = rng.normal(size=600)
    y = (signs.prod(axis=1) > 0).astype(int)
    modalities = {name: [name] for name in "abc"}
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    if removal == "missing":  # requires training rows with missing modalities
        X[:300] = X[:300].mask(rng.random((300, 3)) < 0.2)
    result = interaction(X, y, model, 300, modalities=modalities, removal=removal)
    assert result.interactions.loc["a", "b"] > 0.3
    assert np.abs(result.interactions.loc["c"]).max() < 0.15
    assert abs(result.score_values["c"]) < 0.1
    assert abs(result.score_values["a"] - result.score_values["b"]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mean", "stacking"])
def test_interaction_of_redundant_modalities_is_negative(rule):
    X, y = made(600, redundant=0, shared={("a", "b"): 1.0}, private=0)
    result = interaction(X, y, LateFusionClassifier(TRIPLES, rule=rule), 300)
    assert result.interactions.loc["a", "b"] < -0.3
    assert np.abs(result.interactions.loc["c"]).max() < 0.15
    a, b, c = result.score_values
    assert a > 0.15 and b > 0.15 and abs(a - b) < 0.1
    assert abs(c) < 0.1


def test_absent_modalities_have_no_share(data, late):
    X, y = data
    X = X[300:].assign(a=X["a"].where(np.arange(len(X)) % 3 > 0))
    absent = X["a"].isna().to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = modality_shapley(late, X, y[300:])
    assert result.removal == "missing"
    np.testing.assert_allclose(result.row_values[absent, 0], 0, atol=1e-12)
    assert (np.abs(result.row_values[~absent, 0]) > 1e-6).all()
    # Without any modality the prediction is the prior.
    np.testing.assert_allclose(result.base_values, np.tile(result.base_values[:1], (200, 1)))


@pytest.mark.slow
def test_auto_chooses_the_removal(data, late):
    X, y = data[0][300:340], data[1][300:340]
    assert modality_shapley(late, X).removal == "missing"
    refuses = LateFusionClassifier(TRIPLES, all_missing="raise").fit(*data)
    assert modality_shapley(refuses, X, random_state=0).removal == "permute"
    numbers = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["u", "v"])
    target = (numbers["u"] > 0).to_numpy()
    plain = make_pipeline(
        ColumnTransformer([(c, StandardScaler(), [c]) for c in "uv"]), LogisticRegression()
    ).fit(numbers, target)
    result = modality_shapley(plain, numbers, target, random_state=0)
    assert result.removal == "permute"
    assert result.score_values["u"] > 0.3 > abs(result.score_values["v"])
    with pytest.raises(ValueError, match="NaN") as caught:
        modality_shapley(plain, numbers, target, removal="missing")
    note = "u, v was removed; with removal='permute' no cell is missing"
    assert note in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="LateFusionClassifier refuses with all_missing='raise'"):
        modality_shapley(refuses, X, y, removal="missing")


def test_replacing_rows_are_those_of_the_background():
    X = pd.DataFrame({"u": [1.0, 2.0], "v": [10.0, 20.0]}, index=["p", "q"])
    background = pd.DataFrame({"u": [5.0], "v": [7.0]})
    model = Additive(np.array([1.0, 1.0])).fit(X)
    options = {"modalities": {"u": ["u"], "v": ["v"]}, "background": background}
    result = modality_shapley(model, X[:1], **options)
    assert result.base_values.tolist() == [[12.0]]
    assert result.row_values[0, :, 0].tolist() == [-4.0, 3.0]
    both = modality_shapley(model, X, **options)
    assert both.row_values[:, :, 0].tolist() == [[-4.0, 3.0], [-3.0, 13.0]]
    with pytest.raises(ValueError, match="X has one row. Give such rows as background"):
        modality_shapley(model, X[:1], modalities=options["modalities"])


@pytest.mark.slow
def test_n_jobs_does_not_change_the_shares(data, late):
    X, y = data[0][300:], data[1][300:]
    options = {"removal": "permute", "random_state": 3}
    alone = modality_shapley(late, X, y, **options)
    shared = modality_shapley(late, X, y, n_jobs=2, **options)
    np.testing.assert_array_equal(alone.row_values, shared.row_values)
    pd.testing.assert_series_equal(alone.score_values, shared.score_values, check_exact=True)
    other = modality_shapley(late, X, y, **options | {"random_state": 4})
    assert (alone.row_values != other.row_values).any()


def test_regression_and_a_metric():
    X, y = made(make=make_multimodal_regression)
    model = LateFusionRegressor(TRIPLES).fit(X[:300], y[:300])
    result = modality_shapley(
        model, X[300:], y[300:], scoring="neg_mean_squared_error", modalities=["c", "a"]
    )
    check_sums(result)
    assert result.row_values.shape == (200, 2, 1) and result.classes is None
    assert result.modalities == ["c", "a"]
    assert result.score_values["a"] > result.score_values["c"] > 0
    np.testing.assert_allclose(result.predictions[:, 0], model.predict(X[300:]))


@pytest.mark.parametrize("model", [LinearSVC(), RidgeClassifier()])
def test_margins_replace_probabilities(data, model):
    X, y = np.stack(data[0]["a"]), data[1]
    model.fit(X, y)
    result = modality_shapley(
        model, X, modalities={"few": [0, 1], "rest": slice(2, None)}, random_state=0
    )
    check_sums(result)
    np.testing.assert_allclose(result.predictions[:, 0], model.decision_function(X))


def test_predicted_classes_replace_missing_scores():
    class Plain(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, X):
            return np.where(np.asarray(X)[:, 0] > 0, "yes", "no")

    X = np.random.default_rng(0).normal(size=(40, 2))
    model = Plain().fit(X, ["yes", "no"] * 20)
    result = modality_shapley(model, X, modalities={"u": [0], "v": [1]}, random_state=0)
    check_sums(result)
    assert set(result.predictions.ravel()) == {0, 1}
    assert (result.predictions[:, 1] == (X[:, 0] > 0)).all()
    np.testing.assert_allclose(result.row_values[:, 1], 0, atol=1e-12)


def test_several_tasks_have_only_shares_of_the_score(data):
    X, y = data
    Y = pd.DataFrame({"kind": np.where(y, "x", "z"), "size": y * 2.0})
    model = JointFusionMultiTask(TRIPLES, max_epochs=3, random_state=0).fit(X[:100], Y[:100])
    result = modality_shapley(model, X[100:150], Y[100:150])
    check_sums(result)
    assert result.score_values["a"] > result.score_values["b"]
    assert result.row_values is result.predictions is result.base_values is None
    with pytest.raises(TypeError, match="not one table of numbers.* Give y"):
        modality_shapley(model, X[:10])


@pytest.mark.slow
def test_no_cell_is_encoded_again(tmp_path):
    rng = np.random.default_rng(0)
    cells = list(rng.normal(size=(40, 4)).astype(np.float32))
    X = pd.DataFrame({"cell": cells, "other": cells[::-1], "number": 1.0})
    y = np.arange(40) % 2
    encoder = ModuleEncoder(CountingModule(tmp_path / "log"), store=tmp_path / "store")
    triples = [("cell", encoder, ["cell"]), ("both", encoder, ["other"])]
    model = LateFusionClassifier(triples, rule="mean").fit(X, y)
    before = len(lines(tmp_path / "log"))
    for removal in ("missing", "permute"):
        modality_shapley(model, X, y, removal=removal)
    assert before == len(lines(tmp_path / "log")) == 40


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"modalities": ["photo"]}, ValueError, "has no modality 'photo'"),
        ({"removal": "drop"}, ValueError, "'auto', 'missing' or 'permute', got 'drop'"),
        ({"max_coalitions": 1}, ValueError, "max_coalitions must be an int of at least 2"),
        ({"n_repeats": 0.5}, ValueError, "n_repeats must be an int of at least 1, got 0.5"),
        ({"scoring": ["accuracy", "roc_auc"]}, TypeError, "once for each metric"),
        ({"background": pd.DataFrame({"z": [1]})}, ValueError, "the columns of X, .*got 1 rows"),
    ],
)
def test_bad_options(data, late, options, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        modality_shapley(late, X, y, **options)


def test_bad_data(data, late):
    X, y = data
    with pytest.raises(ValueError, match="X has 500 rows and y has 3"):
        modality_shapley(late, X, y[:3])
    with pytest.raises(ValueError, match="scoring is given without y"):
        modality_shapley(late, X, scoring="accuracy")
    with pytest.raises(TypeError, match="DataFrame or an array of two dimensions, got Series"):
        modality_shapley(late, X["a"])
    with pytest.raises(NotFittedError):
        modality_shapley(LateFusionClassifier(TRIPLES), X, y)
    with pytest.raises(TypeError, match="EarlyFusion has no predict"):
        modality_shapley(EarlyFusion(TRIPLES).fit(X), X)
    with pytest.raises(ValueError, match="holds neither a fusion nor"):
        modality_shapley(LinearRegression().fit(np.stack(X["a"]), y), np.stack(X["a"]))
