"""Late fusion: votes, folds, learned trust."""

import numpy as np
import pandas as pd
import pytest
from fusing import TRIPLES, Recorder, views
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skmm import LateFusionClassifier, LateFusionRegressor
from skmm.exceptions import ModalityWarning

CLASSIFIER_RULES = ["stacking", "weighted", "mean", "vote", "max", "product"]


def names_of(score):
    return np.array(["no", "yes"])[(score > 0).astype(int)]


class Shown(ClassifierMixin, BaseEstimator):
    """Votes 0.9 for a row that it was fitted on, 0.1 for any other."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.rows_ = {tuple(row) for row in np.asarray(X).tolist()}
        return self

    def predict_proba(self, X):
        known = [tuple(row) in self.rows_ for row in np.asarray(X).tolist()]
        positive = np.where(known, 0.9, 0.1)
        return np.column_stack([1 - positive, positive])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


# --- votes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["mean", "vote", "max", "product"])
def test_rules_equal_a_loop_over_estimators(rule):
    X, score = views(150, missing=0.3)
    y = names_of(score)
    fusion = LateFusionClassifier(TRIPLES, estimator=GaussianNB(), rule=rule).fit(X, y)
    expected = np.zeros((len(X), 2))
    votes = np.full((3, len(X), 2), np.nan)
    for m, (_, _, columns) in enumerate(TRIPLES):
        rows = X[columns[0]].notna().to_numpy()
        features = np.column_stack([np.vstack(X[c][rows].to_numpy()) for c in columns])
        votes[m, rows] = GaussianNB().fit(features, y[rows]).predict_proba(features)
    for i in range(len(X)):
        own = votes[:, i][~np.isnan(votes[:, i, 0])]
        if not len(own):
            expected[i] = [(y == "no").mean(), (y == "yes").mean()]
            continue
        if rule == "vote":
            own = np.eye(2)[own.argmax(axis=1)]
        reduce = {"mean": np.mean, "vote": np.mean, "max": np.max, "product": np.prod}[rule]
        expected[i] = reduce(own, axis=0)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fusion.predict_proba(X), expected, atol=1e-6)
    assert (fusion.predict(X) == np.array(["no", "yes"])[expected.argmax(axis=1)]).all()


@pytest.mark.parametrize("rule", CLASSIFIER_RULES)
def test_every_rule_learns_and_is_proper(rule):
    X, score = views(300, missing=0.1)
    y = names_of(score)
    fusion = LateFusionClassifier(TRIPLES, rule=rule, random_state=0).fit(X[:200], y[:200])
    proba = fusion.predict_proba(X[200:])
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    assert (proba >= 0).all()
    assert fusion.score(X[200:], y[200:]) > 0.75


@pytest.mark.parametrize("rule", ["stacking", "weighted", "mean"])
def test_every_rule_of_values_learns(rule):
    X, score = views(300, missing=0.1)
    y = 5 + 100 * score
    fusion = LateFusionRegressor(TRIPLES, rule=rule).fit(X[:200], y[:200])
    assert fusion.score(X[200:], y[200:]) > {"stacking": 0.7}.get(rule, 0.4)


def test_absent_cells_cannot_matter():
    X, score = views(100, missing=0.2)
    fusion = LateFusionClassifier(TRIPLES, rule="mean").fit(X, names_of(score))
    X.loc[:9, "photo"] = None
    alone = LateFusionClassifier(TRIPLES[1:], rule="mean").fit(X, names_of(score))
    np.testing.assert_allclose(fusion.predict_proba(X)[:10], alone.predict_proba(X)[:10], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule, final", [*((rule, None) for rule in CLASSIFIER_RULES), ("stacking", LinearSVC())]
)
def test_rows_without_any_modality_get_the_prior(rule, final):
    X, score = views(120)
    y = names_of(score - 0.7)
    fusion = LateFusionClassifier(TRIPLES, rule=rule, final_estimator=final).fit(X, y)
    X.loc[[3, 5], :] = None
    got = fusion.predict_proba(X)
    np.testing.assert_allclose(got[[3, 5]], [[(y == "no").mean(), (y == "yes").mean()]] * 2)
    assert set(fusion.predict(X)[[3, 5]]) == {"no"}


@pytest.mark.parametrize("rule", ["stacking", "weighted", "mean"])
def test_rows_without_any_modality_get_the_mean(rule):
    X, score = views(60)
    fusion = LateFusionRegressor(TRIPLES, rule=rule).fit(X, score)
    X.loc[[3, 5], :] = None
    np.testing.assert_allclose(fusion.predict(X)[[3, 5]], score.mean())


# --- learned trust -----------------------------------------------------------------------------


def test_weights_give_noise_nothing():
    X, score = views(400, strength=(1, 0.6, 0))
    fusion = LateFusionClassifier(TRIPLES, rule="weighted", random_state=0)
    fusion.fit(X, names_of(score))
    photo, text, numbers = fusion.weights_
    assert photo > text > numbers
    assert numbers < 0.05
    scores = fusion.modality_scores_
    assert scores["photo"] > 0.7 and abs(scores["numbers"] - 0.5) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("strength", [(1, 0, 0), (0, 0, 1)])
def test_stacking_and_weights_beat_equal_weights_beside_noise(strength):
    X, score = views(600, strength=strength, noise=1.0)
    y = names_of(score)
    accuracy = {}
    for rule in ("stacking", "weighted", "mean"):
        # A forest votes with confidence also where it knows nothing.
        estimator = RandomForestClassifier(20, min_samples_leaf=1, random_state=0)
        fusion = LateFusionClassifier(TRIPLES, estimator=estimator, rule=rule)
        accuracy[rule] = fusion.fit(X[:300], y[:300]).score(X[300:], y[300:])
    assert accuracy["stacking"] > accuracy["mean"] + 0.02
    assert accuracy["weighted"] > accuracy["mean"] + 0.02


def test_regression_weights_give_noise_nothing():
    X, score = views(400, strength=(1, 0.6, 0))
    fusion = LateFusionRegressor(TRIPLES, rule="weighted").fit(X, score)
    photo, text, numbers = fusion.weights_
    assert photo > text > numbers
    assert numbers < 0.05
    assert abs(fusion.modality_scores_["numbers"]) < 0.1 < fusion.modality_scores_["photo"]


def test_out_of_fold_votes_have_not_seen_their_row():
    X, _ = views(60)
    y = np.arange(60) % 2
    fusion = LateFusionClassifier([TRIPLES[2]], estimator=Shown(), rule="stacking")
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            seen.append(X)
            return super().fit(X, y, sample_weight)

    fusion.set_params(final_estimator=Spy()).fit(X, y)
    np.testing.assert_allclose(seen[0][:, 0], np.log(0.1 / 0.9))  # a stranger, every one
    np.testing.assert_allclose(fusion.transform(X)[:, 0], np.log(0.9 / 0.1))


def test_memory_is_no_merit():
    """1-NN knows its training rows by heart; out of fold it knows nothing of this target."""
    X, _ = views(200)
    y = np.random.default_rng(0).integers(0, 2, 200)
    fusion = LateFusionClassifier(TRIPLES, estimator=KNeighborsClassifier(1), rule="weighted")
    fusion.fit(X, y)
    assert max(fusion.modality_scores_.values()) < 0.65


def test_transformers_are_fitted_inside_the_folds():
    X, score = views(40)
    fusion = LateFusionClassifier([("n", Recorder(), ["size"])], cv=KFold(4))
    seen = []

    class Spy(Recorder):
        def fit(self, X, y=None, sample_weight=None):
            super().fit(X, y)
            seen.append(len(self.fitted_rows_))
            return self

    fusion.set_params(n=Spy()).fit(X, np.arange(40) % 2)
    assert seen == [40, 30, 30, 30, 30]


def test_rows_outside_every_fold_are_not_learned_from():
    X, score = views(80)
    y = names_of(score)
    split = ShuffleSplit(1, test_size=0.5, random_state=0)
    rows = next(split.split(X))[1]
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            seen.append(y)
            return super().fit(X, y, sample_weight)

    LateFusionClassifier(TRIPLES, cv=split, final_estimator=Spy()).fit(X, y)
    np.testing.assert_array_equal(seen[0], (y == "yes")[np.sort(rows)])


# --- given weights -----------------------------------------------------------------------------


def test_given_weights_belong_to_the_modalities_as_named():
    X, score = views(100)
    fusion = LateFusionRegressor(TRIPLES, rule="weighted", weights=[3, 5, 1]).fit(X, score)
    np.testing.assert_allclose(fusion.weights_, [3 / 9, 5 / 9, 1 / 9])
    assert fusion.modality_scores_ is None
    parts = [LateFusionRegressor([t], rule="mean").fit(X, score).predict(X) for t in TRIPLES]
    np.testing.assert_allclose(fusion.predict(X), np.average(parts, axis=0, weights=[3, 5, 1]))
    # Dropping a modality leaves the others their own weights.
    fusion.set_params(text="drop").fit(X, score)
    np.testing.assert_allclose(fusion.weights_, [3 / 4, 1 / 4])


@pytest.mark.parametrize("weights", [[1, 2], [1, 2, -1], [0, 0, 0], [1, 2, np.nan], [[1, 2, 3]]])
def test_wrong_weights(weights):
    X, score = views(40)
    with pytest.raises(ValueError, match=r"weights must be 3 numbers .*\['photo', 'text'"):
        LateFusionRegressor(TRIPLES, rule="weighted", weights=weights).fit(X, score)


# --- estimators of the modalities --------------------------------------------------------------


def test_a_modality_may_have_a_classifier_that_takes_its_cells():
    X = pd.DataFrame({"review": ["good", "bad", None, "good", "bad", "good"] * 5})
    X["n"] = np.arange(30.0)
    y = ["no" if r == "bad" else "yes" for r in X["review"]]
    text = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100))
    triples = [("text", text, "review"), ("n", "passthrough", ["n"])]
    fusion = LateFusionClassifier(triples, rule="mean").fit(X, y)
    assert fusion.modalities_[0][1] is fusion.estimators_["text"]
    assert fusion.modalities_[0][1] is not text
    new = pd.DataFrame({"review": ["bad", "good"], "n": [None, None]})
    assert fusion.predict(new).tolist() == ["no", "yes"]


def test_estimators_without_probabilities_can_only_vote():
    X, score = views(60)
    y = names_of(score)
    fusion = LateFusionClassifier(TRIPLES, estimator=LinearSVC(), rule="vote").fit(X, y)
    assert set(np.unique(fusion.predict_proba(X).round(6))) <= {0, 1, 0.333333, 0.666667}
    with pytest.raises(TypeError, match=r"no predict_proba. Wrap it in CalibratedClassifierCV"):
        fusion.set_params(rule="mean").fit(X, y).predict(X)
    calibrated = CalibratedClassifierCV(LinearSVC())
    assert fusion.set_params(estimator=calibrated).fit(X, y).score(X, y) > 0.8


def test_a_modality_with_rows_of_one_class_only():
    X, score = views(60)
    y = names_of(score)
    X.loc[y == "no", "text"] = None
    with pytest.warns(ModalityWarning, match="'text' is present in rows of one class only"):
        fusion = LateFusionClassifier(TRIPLES, rule="mean").fit(X, y)
    row = X[y == "yes"].iloc[[0]].assign(photo=None, size=None, price=None)
    assert fusion.predict_proba(row).tolist() == [[0.0, 1.0]]


def test_a_modality_may_be_absent_in_a_whole_fold():
    X, score = views(30)
    X.loc[2:, "text"] = None
    for rule in ("stacking", "weighted"):
        with pytest.warns(ModalityWarning):  # of one class
            fusion = LateFusionClassifier(TRIPLES, rule=rule).fit(X, [0, 0, *[0, 1] * 14])
        assert np.isfinite(fusion.predict_proba(X)).all()


def test_many_classes_with_rare_ones():
    X, score = views(200)
    y = np.digitize(score, [-2, -1, 0, 1, 2])
    y[:2] = 9  # a class of two rows
    fusion = LateFusionClassifier(TRIPLES).fit(X, y)
    assert fusion.classes_.tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert fusion.predict_proba(X).shape == (200, 7)
    assert fusion.get_feature_names_out()[:2].tolist() == ["photo__0", "photo__1"]
    assert len(fusion.get_feature_names_out()) == fusion.transform(X).shape[1]


# --- weights of rows, seeds, workers -----------------------------------------------------------


@pytest.mark.parametrize("rule", ["mean", "vote", "max", "product"])
def test_weights_of_rows_are_repetitions(rule):
    X, score = views(60, missing=0.2, noise=1.0)
    y = names_of(score)
    weight = np.random.default_rng(0).integers(0, 3, 60)
    fusion = LateFusionClassifier(
        TRIPLES, estimator=LogisticRegression(tol=1e-10, max_iter=10_000), rule=rule
    )
    twice = np.repeat(np.arange(60), weight)
    repeated = clone(fusion).set_params(numbers="drop").fit(X.iloc[twice], y[twice])
    weighted = clone(fusion).set_params(numbers="drop").fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(repeated.predict_proba(X), weighted.predict_proba(X), atol=1e-4)


@pytest.mark.slow
def test_weights_of_rows_reach_estimators_rule_and_prior():
    X, score = views(120)
    y = names_of(score)
    weight = np.where(y == "yes", 1.0, 0.01)
    plain = LateFusionClassifier(TRIPLES).fit(X, y)
    weighted = LateFusionClassifier(TRIPLES).fit(X, y, sample_weight=weight)
    assert (weighted.predict_proba(X)[:, 1] > plain.predict_proba(X)[:, 1]).mean() > 0.95
    nothing = X.iloc[[0]].assign(photo=None, text=None, size=None, price=None)
    assert weighted.predict_proba(nothing)[0, 1] > 0.95


def test_weights_need_estimators_that_take_them():
    X, score = views(40)
    fusion = LateFusionClassifier(TRIPLES, estimator=KNeighborsClassifier(3), rule="mean")
    with pytest.raises(TypeError, match="KNeighborsClassifier, does not take it. Choose one"):
        fusion.fit(X, names_of(score), sample_weight=np.ones(40))


@pytest.mark.slow
def test_seed_is_passed_to_parts_without_one():
    X, score = views(80)
    y = names_of(score)
    forest = RandomForestClassifier(5)

    def proba(seed):
        model = LateFusionClassifier(TRIPLES, estimator=forest, random_state=seed)
        return model.fit(X, y).predict_proba(X)

    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(proba(0), proba(0))
    assert not np.array_equal(proba(0), proba(1))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert forest.random_state is None


@pytest.mark.slow
def test_n_jobs_does_not_change_predictions():
    X, score = views(80, missing=0.2)
    y = names_of(score)
    alone = LateFusionClassifier(TRIPLES, random_state=0).fit(X, y)
    together = LateFusionClassifier(TRIPLES, random_state=0, n_jobs=2).fit(X, y)
    np.testing.assert_allclose(alone.predict_proba(X), together.predict_proba(X))


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_units_of_the_target_do_not_matter(unit):
    X, score = views(200, missing=0.1)
    expected = LateFusionRegressor(TRIPLES).fit(X, score).predict(X)
    got = LateFusionRegressor(TRIPLES).fit(X, score * unit).predict(X)
    np.testing.assert_allclose(got / unit, expected, rtol=1e-5, atol=1e-8)


def test_stacked_regression_adds_private_parts():
    """Each view holds a part of the target: stacking adds up what a mean would average."""
    X, score = views(400, noise=0.1)
    fusion = LateFusionRegressor(TRIPLES, estimator=Ridge(), final_estimator=LinearRegression())
    fusion.fit(X[:300], score[:300])
    assert fusion.score(X[300:], score[300:]) > 0.95
    assert (
        fusion.set_params(rule="mean", final_estimator=None)
        .fit(X[:300], score[:300])
        .score(X, score)
        < 0.7
    )


def test_final_estimator_without_probabilities():
    X, score = views(120)
    y = names_of(score)
    fusion = LateFusionClassifier(TRIPLES, final_estimator=LinearSVC()).fit(X, y)
    assert accuracy_score(y, fusion.predict(X)) > 0.85
    assert set(np.unique(fusion.predict_proba(X))) == {0.0, 1.0}


def test_verbose_prints_each_estimator_that_is_fitted(capfd):
    X, score = views(60)
    for verbose in (0, 1):
        LateFusionRegressor(TRIPLES, cv=2, verbose=verbose).fit(X, score)
        lines = capfd.readouterr().out.splitlines()
        assert len(lines) == verbose * 3 * len(TRIPLES)
    assert lines[0].startswith("[LateFusionRegressor] fitting modality 'photo' on all rows: ")
    assert any("on fold 2 of 2: " in line for line in lines)
