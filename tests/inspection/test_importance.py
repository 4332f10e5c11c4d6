"""Importances of planted data."""

import numpy as np
import pandas as pd
import pytest
from counting import CountingModule, lines
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import EarlyFusion, JointFusionClassifier, LateFusionClassifier, ModuleEncoder
from skmm.datasets import make_multimodal_classification
from skmm.inspection import modality_importance

TRIPLES = [(name, "passthrough", [name]) for name in "abc"]


def made(seed=0, n=500, **options):
    options = {"redundant": 0, "private": {"a": 0.7, "c": 0.3}} | options
    return make_multimodal_classification(
        n, modalities={"a": "vector", "b": "vector", "c": "vector"}, random_state=seed, **options
    )


@pytest.fixture(scope="module")
def data():
    return made()


@pytest.fixture(scope="module")
def late(data):
    X, y = data
    return LateFusionClassifier(TRIPLES).fit(X[:300], y[:300])


MODELS = {
    "late": LateFusionClassifier(TRIPLES),
    "early": make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()),
    "auto": make_pipeline(EarlyFusion(), LogisticRegression()),
    "joint": JointFusionClassifier(TRIPLES, max_epochs=15, random_state=0),
    "search": GridSearchCV(LateFusionClassifier(TRIPLES), {"rule": ["mean", "stacking"]}, cv=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_importance_follows_the_planted_information(data, name):
    X, y = data
    model = MODELS[name].fit(X[:300], y[:300])
    result = modality_importance(model, X[300:], y[300:], random_state=0)
    a, b, c = result.importances_mean
    assert a > c + 0.05 and c > 0.04
    assert abs(b) < 0.04
    assert result.score == model.score(X[300:], y[300:])


@pytest.mark.slow
def test_agrees_with_permutation_importance():
    """A modality of one column is shuffled like a feature."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 3)), columns=list("abc"), index=np.arange(300) + 7)
    y = (X["a"] + 0.5 * X["b"] > 0).to_numpy()
    model = make_pipeline(
        ColumnTransformer([(f"m{c}", StandardScaler(), [c]) for c in X]), LogisticRegression()
    ).fit(X, y)
    ours = modality_importance(model, X, y, n_repeats=20, random_state=0)
    theirs = permutation_importance(model, X, y, n_repeats=20, random_state=0)
    assert ours.modalities == ["ma", "mb", "mc"]
    np.testing.assert_allclose(ours.importances_mean, theirs.importances_mean, atol=0.03)


def test_columns_of_a_modality_are_shuffled_together():
    """Columns are informative only by their equality, which shuffling them together keeps."""
    rng = np.random.default_rng(0)
    left = rng.integers(0, 2, 400)
    y = rng.integers(0, 2, 400)
    X = pd.DataFrame({"left": left, "right": np.where(y, left, 1 - left), "other": 0})

    class Equal(LogisticRegression):
        def predict(self, X):
            return (X["left"] == X["right"]).astype(int).to_numpy()

    model = Equal().fit(X, y)
    both = modality_importance(model, X, y, modalities={"both": ["left", "right"]}, random_state=0)
    apart = modality_importance(
        model, X, y, modalities={"l": ["left"], "r": ["right"]}, random_state=0
    )
    assert both.score == 1
    # The cells are nevertheless those of another row.
    assert 0.4 < both.importances_mean[0] < 0.6
    assert (apart.importances_mean > 0.4).all()
    order = np.random.RandomState(0).permutation(400)
    assert both.importances[0, 0] == pytest.approx(1 - np.mean(y[order] == y))


def test_content_of_the_result(data, late):
    X, y = data
    result = modality_importance(late, X, y, n_repeats=4, random_state=0)
    assert result.importances.shape == (3, 4)
    np.testing.assert_array_equal(result.importances.mean(axis=1), result.importances_mean)
    np.testing.assert_array_equal(result.importances.std(axis=1), result.importances_std)
    assert result.modalities == list("abc") == result.frame.index.tolist()
    assert result.frame["importance"].tolist() == result.importances_mean.tolist()
    assert result.frame["std"].tolist() == result.importances_std.tolist()
    some = modality_importance(late, X, y, modalities=["c"], n_repeats=4, random_state=0)
    np.testing.assert_array_equal(some.importances, result.importances[2:])


@pytest.mark.slow
@pytest.mark.parametrize("scoring", [None, ["accuracy", "roc_auc"]])
def test_n_jobs_does_not_change_the_importances(data, late, scoring):
    X, y = data[0][300:], data[1][300:]
    options = {"scoring": scoring, "n_repeats": 3, "random_state": 1}
    alone = modality_importance(late, X, y, **options)
    shared = modality_importance(late, X, y, n_jobs=2, **options)
    if scoring is None:
        alone, shared = {"score": alone}, {"score": shared}
    for metric in alone:
        np.testing.assert_array_equal(alone[metric].importances, shared[metric].importances)
    other = modality_importance(late, X, y, **options | {"random_state": 2, "scoring": None})
    assert (other.importances != next(iter(alone.values())).importances).any()


@pytest.mark.slow
def test_scorers_of_every_kind(data, late):
    X, y = data[0][300:], data[1][300:]
    options = {"n_repeats": 2, "random_state": 0}
    auc = make_scorer(roc_auc_score, response_method="predict_proba")
    found = [
        modality_importance(late, X, y, scoring=scoring, **options)
        for scoring in ("roc_auc", auc, lambda m, X, y: roc_auc_score(y, m.predict_proba(X)[:, 1]))
    ]
    for one in found:
        np.testing.assert_allclose(one.importances, found[0].importances)
    several = modality_importance(late, X, y, scoring={"one": "accuracy", "two": auc}, **options)
    assert list(several) == ["one", "two"]
    np.testing.assert_allclose(several["two"].importances, found[0].importances)
    plain = modality_importance(late, X, y, **options)
    np.testing.assert_array_equal(several["one"].importances, plain.importances)


def test_sample_weight(data, late):
    X, y = data
    rows = np.arange(len(y)) >= 300
    weighted = modality_importance(late, X, y, sample_weight=rows.astype(float), n_repeats=1)
    assert weighted.score == pytest.approx(late.score(X[300:], y[300:]))


def test_arrays_polars_and_odd_frames_give_the_same():
    pl = pytest.importorskip("polars", reason="needs the extra 'polars'")
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3))
    y = values[:, 0] > 0
    frames = [
        values,
        pl.DataFrame(values, schema=list("abc")),
        pd.DataFrame(values, columns=["a", "a", "c"], index=["same"] * 200),
        pd.DataFrame({0: values[:, 0], 1: pd.array(values[:, 1], dtype="Float64"), 2: 1.0}),
    ]
    expected = None
    for X in frames:
        model = LogisticRegression().fit(np.asarray(X), y)
        before = np.asarray(X).copy()

        def score(model, X, y):
            return (model.predict(np.asarray(X, dtype=float)) == y).mean()

        result = modality_importance(
            model, X, y, modalities={"one": [0], "two": [1]}, scoring=score, random_state=0
        )
        np.testing.assert_array_equal(np.asarray(X), before)
        expected = result.importances if expected is None else expected
        np.testing.assert_allclose(result.importances, expected, atol=0.02)


@pytest.mark.slow
def test_no_cell_is_encoded_again(tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"cell": list(rng.normal(size=(40, 4)).astype(np.float32)), "number": 1.0})
    X.loc[3, "cell"] = None
    y = np.arange(40) % 2
    encoder = ModuleEncoder(CountingModule(tmp_path / "log"), store=tmp_path / "store")
    triples = [("cell", encoder, ["cell"]), ("number", "passthrough", ["number"])]
    for model in (
        LateFusionClassifier(triples, rule="mean"),
        make_pipeline(EarlyFusion(triples), LogisticRegression()),
    ):
        model.fit(X, y)
        before = len(lines(tmp_path / "log"))
        modality_importance(model, X, y)
        assert before == len(lines(tmp_path / "log")) == 39


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"modalities": ["photo"]}, ValueError, "has no modality 'photo'"),
        ({"n_repeats": 0}, ValueError, "n_repeats must be an int of at least 1, got 0"),
        ({"n_repeats": True}, ValueError, "n_repeats must be an int"),
        ({"scoring": "accurate"}, ValueError, "scoring"),
    ],
)
def test_bad_options(data, late, options, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        modality_importance(late, X, y, **options)


def test_bad_data(data, late):
    X, y = data
    with pytest.raises(ValueError, match="X has 500 rows and y has 3"):
        modality_importance(late, X, y[:3])
    with pytest.raises(NotFittedError):
        modality_importance(LateFusionClassifier(TRIPLES), X, y)
    plain = LogisticRegression().fit(np.stack(X["a"]), y)
    with pytest.raises(ValueError, match="or name the columns, as in modalities="):
        modality_importance(plain, np.stack(X["a"]), y)
