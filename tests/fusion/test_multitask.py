"""Several tasks in one network: what they share, what may be missing, and what they weigh."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import TRIPLES, views, with_trainer
from sklearn.base import clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from skmm import JointFusionClassifier, JointFusionMultiTask, JointFusionRegressor

FAST = {"n_components": 16, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}
TASKS = {"mood": "classification", "stars": "regression"}


def multi(tasks=None, **options):
    options = {**FAST, "max_epochs": 15, **options}
    return JointFusionMultiTask(TRIPLES, **with_trainer(tasks=tasks or TASKS, **options))


def targets(n=300, *, missing=0.0, noise=0.2, **options):
    X, score = views(n, **options)
    rng = np.random.default_rng(1)
    y = pd.DataFrame(
        {
            "mood": np.where(score > 0, "good", "bad").astype(object),
            "stars": 3 + score + noise * rng.normal(size=n),
        },
        index=X.index,
    )
    for name in y:
        y.loc[rng.random(n) < missing, name] = None
    return X, y


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["equal", "uncertainty", "gradnorm", {"mood": 2}])
def test_both_tasks_are_learned_from_half_the_targets(weights):
    X, y = targets(400, missing=0.5)
    model = multi(loss_weights=weights, max_epochs=25).fit(X[:300], y[:300])
    _, full = targets(400)
    predicted = model.predict(X[300:])
    assert accuracy_score(full["mood"][300:], predicted["mood"]) > 0.8
    assert r2_score(full["stars"][300:], predicted["stars"]) > 0.7
    assert list(model.loss_weights_) == ["mood", "stars"]


def test_one_task_is_the_fusion_of_that_task():
    X, y = targets(100)
    options = {**FAST, "max_epochs": 3, "dropout": 0.2}
    single = JointFusionClassifier(TRIPLES, **with_trainer(**options)).fit(X, y["mood"])
    several = multi({"mood": "classification"}, max_epochs=3).fit(X, y)
    np.testing.assert_allclose(several.predict_proba(X)["mood"], single.predict_proba(X), rtol=1e-5)
    single = JointFusionRegressor(TRIPLES, **with_trainer(**options)).fit(X, y["stars"])
    several = multi({"stars": "regression"}, max_epochs=3).fit(X, y)
    np.testing.assert_allclose(several.predict(X)["stars"], single.predict(X), rtol=1e-4)


def shared_latent(seed, n=1200, share=0.04):
    """Few rows have the main target, all have another one of the same latent."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=40)
    cells = rng.normal(size=(n, 40))
    latent = cells @ direction / np.linalg.norm(direction)
    X = pd.DataFrame({"a": list(cells[:, :20]), "b": list(cells[:, 20:])})
    main = np.where(latent > 0, "yes", "no").astype(object)
    main[:800][rng.random(800) > share] = None
    return X, pd.DataFrame({"main": main, "aux": latent + 0.3 * rng.normal(size=n)})


@pytest.mark.slow
def test_an_auxiliary_task_helps_the_main_one():
    triples = [("a", "passthrough", ["a"]), ("b", "passthrough", ["b"])]
    options = {**FAST, "learning_rate": 3e-3, "early_stopping": False}
    gains = []
    for seed in range(3):
        X, y = shared_latent(seed)
        scores = []
        # Rows without a target are not trained on, so the one task needs more epochs of its
        # thirty rows for as many steps.
        for tasks, epochs in (
            ({"main": "classification"}, 375),
            ({"main": "classification", "aux": "regression"}, 15),
        ):
            model = JointFusionMultiTask(
                triples, **with_trainer(tasks=tasks, max_epochs=epochs, **options)
            )
            predicted = model.set_params(random_state=seed).fit(X[:800], y[:800]).predict(X[800:])
            scores.append(accuracy_score(y["main"][800:], predicted["main"]))
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.06 and min(gains) > -0.03, gains


@pytest.mark.slow
def test_heavier_tasks_are_learned_better():
    X, _ = views(300)
    rng = np.random.default_rng(0)
    y = pd.DataFrame(rng.normal(size=(300, 2)), columns=["one", "two"])  # to be learned by heart
    errors = []
    for weights in ({"one": 10, "two": 0.0}, {"one": 0.0, "two": 10}):
        model = multi("auto", loss_weights=weights, dropout=0.0, modality_dropout=0.0,
                      early_stopping=False, max_epochs=40).fit(X, y)  # fmt: skip
        errors.append(((model.predict(X) - y) ** 2).mean())
    assert errors[0]["one"] < 0.8 * errors[1]["one"]
    assert errors[1]["two"] < 0.8 * errors[0]["two"]


@pytest.mark.slow
def test_uncertainty_weighs_noisy_tasks_less():
    X, score = views(600)
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"clean": score, "noisy": score + 4 * rng.normal(size=600)}, index=X.index)
    model = multi("auto", loss_weights="uncertainty", max_epochs=40).fit(X, y)
    # 1 / (2 s^2), with the noise of the standardized targets.
    assert model.loss_weights_["clean"] > 2.5 * model.loss_weights_["noisy"]
    assert 0.4 < model.loss_weights_["noisy"] < 1.0


@pytest.mark.slow
def test_gradnorm_evens_out_units_of_losses():
    X, y = targets(300)

    class Loud(nn.Module):
        def forward(self, outputs, target):
            return 50 * (outputs - target).square().mean(dim=1)

    tasks = {"one": "regression", "two": "regression"}
    y = pd.DataFrame({"one": y["stars"], "two": y["stars"]})
    model = multi(tasks, loss={"two": Loud()}, loss_weights="gradnorm", max_epochs=40,
                  early_stopping=False).fit(X, y)  # fmt: skip
    ratio = model.loss_weights_["one"] / model.loss_weights_["two"]
    assert 25 < ratio < 100
    assert sum(model.loss_weights_.values()) == pytest.approx(2)


@pytest.mark.slow
def test_losses_and_class_weights_of_tasks():
    X, y = targets(300, noise=1.0)
    y["level"] = np.digitize(y["stars"], [2, 4])
    tasks = {**TASKS, "level": "classification"}
    model = multi(tasks, loss={"mood": "focal", "stars": "huber", "level": "ordinal"},
                  loss_params={"mood": {"gamma": 1.0}, "stars": {"delta": 0.5}},
                  max_epochs=25).fit(X[:200], y[:200])  # fmt: skip
    assert model.score(X[200:], y[200:]) > 0.6
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba["level"].sum(axis=1), 1)
    np.testing.assert_array_equal(proba["level"].argmax(axis=1), model.predict(X)["level"])
    margins = multi(loss={"mood": "max_margin"}, max_epochs=2).fit(X, y)
    assert margins.predict_proba(X) == {} and set(margins.predict(X)["mood"]) <= {"good", "bad"}
    plain = multi().fit(X, y).predict(X)["mood"]
    heavy = multi(class_weight={"mood": {"good": 20.0, "bad": 1.0}}).fit(X, y).predict(X)["mood"]
    assert (heavy == "good").mean() > (plain == "good").mean() + 0.05
    rare = y.assign(mood=np.where(y["stars"] > 5, "good", "bad"))
    plain, even = (
        multi(class_weight=w).fit(X, rare).predict(X)["mood"] for w in (None, "balanced")
    )
    assert (even == "good").sum() > (plain == "good").sum()


# --- missing targets ---------------------------------------------------------------------------


def test_rows_without_any_target_are_not_learned_from():
    X, y = targets(100)
    y.loc[10:59, "mood"] = None
    y.loc[40:79, "stars"] = np.nan  # rows 40 to 59 have neither
    model = multi(max_epochs=3, early_stopping=False).fit(X, y)
    weight = np.ones(100)
    weight[40:60] = 0
    same = multi(max_epochs=3, early_stopping=False).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X)["stars"], same.predict(X)["stars"], rtol=1e-6)


@pytest.mark.slow
def test_the_spelling_of_a_missing_target_does_not_matter():
    X, y = targets(80, missing=0.3)
    expected = multi(max_epochs=2).fit(X, y).predict(X)
    for spelled in (y.astype({"mood": "category"}), y.assign(mood=y["mood"].where(
            y["mood"].notna(), np.nan)), y.astype({"stars": "Float64"})):  # fmt: skip
        pd.testing.assert_frame_equal(multi(max_epochs=2).fit(X, spelled).predict(X), expected)
    polars = pytest.importorskip("polars")
    found = multi(max_epochs=2).fit(X, polars.from_pandas(y)).predict(X)
    pd.testing.assert_frame_equal(found, expected)


def test_priors_are_of_the_rows_that_have_the_target():
    X, y = targets(100, missing=0.4)
    nothing = pd.DataFrame(None, index=X.index, columns=X.columns, dtype=object)
    weight = np.random.default_rng(0).random(100)
    model = multi(max_epochs=2).fit(X, y, sample_weight=weight)
    known = y["mood"].notna()
    good = np.average(y["mood"][known] == "good", weights=weight[known])
    np.testing.assert_allclose(model.predict_proba(nothing)["mood"], [[1 - good, good]] * 100)
    known = y["stars"].notna()
    mean = np.average(y["stars"][known], weights=weight[known])
    np.testing.assert_allclose(model.predict(nothing)["stars"], mean)


@pytest.mark.slow
@pytest.mark.parametrize("early_stopping", [True, False])
def test_held_out_rows_and_history(early_stopping):
    X, y = targets(200, missing=0.5)
    y.loc[y.index[10:], "mood"] = None
    patience = {"n_iter_no_change": 3} if early_stopping else {}
    model = multi(max_epochs=60, early_stopping=early_stopping, **patience).fit(X, y)
    assert ("valid_loss" in model.history_[0]) == early_stopping
    assert (model.n_iter_ < 60) == early_stopping


# --- an honest estimator -----------------------------------------------------------------------


def test_predict_score_and_classes():
    X, y = targets(120, missing=0.3)
    X.index = y.index = [f"row {i}" for i in range(120)]
    model = multi(max_epochs=5).fit(X, y)
    predicted = model.predict(X)
    assert list(predicted) == ["mood", "stars"] and predicted.index.equals(X.index)
    assert model.task_classes_["mood"].tolist() == ["bad", "good"]
    assert list(model.task_classes_) == ["mood"] and not hasattr(model, "classes_")
    assert model.tasks_ == TASKS and model.transform(X).shape == (120, 16)
    mood, stars = y["mood"].notna(), y["stars"].notna()
    weight = np.random.default_rng(0).random(120)
    for w in (None, weight):
        of_mood, of_stars = (None, None) if w is None else (w[mood], w[stars])
        expected = (
            accuracy_score(y["mood"][mood], predicted["mood"][mood], sample_weight=of_mood)
            + r2_score(y["stars"][stars], predicted["stars"][stars], sample_weight=of_stars)
        ) / 2
        assert model.score(X, y, sample_weight=w) == pytest.approx(expected)
    only = y.assign(stars=np.nan)
    assert model.score(X, only) == accuracy_score(y["mood"][mood], predicted["mood"][mood])
    with pytest.raises(ValueError, match="too few targets to score any task"):
        model.score(X, y.assign(mood=None, stars=np.nan))


@pytest.mark.slow
def test_clone_pickle_and_search():
    X, y = targets(120, missing=0.2)
    model = multi(max_epochs=3, loss_weights="gradnorm").fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.predict(X), model.predict(X))
    pd.testing.assert_frame_equal(clone(model).fit(X, y).predict(X), model.predict(X))
    again.partial_fit(X, y)
    before, after = (list(m.loss_weights_.values()) for m in (model, again))
    np.testing.assert_allclose(after, before, atol=0.2)  # it continues where it was
    assert not np.allclose(before, 1)
    grid = {"loss_weights": ["equal", "uncertainty"], "n_components": [8, 16]}
    search = GridSearchCV(multi(max_epochs=2), grid, cv=2, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(X).shape == (120, 2)
    assert np.isfinite(cross_val_score(multi(max_epochs=2), X, y, cv=3)).all()


def test_tasks_auto_arrays_and_other_columns():
    X, y = targets(60)
    y["sure"] = (y["stars"] > 3).astype(bool)
    model = multi("auto", max_epochs=1).fit(X, y)
    assert model.tasks_ == {**TASKS, "sure": "classification"}
    assert model.predict(X)["sure"].dtype == bool
    assert list(multi(max_epochs=1).fit(X, y).predict(X)) == ["mood", "stars"]
    array = multi({"a": "regression", "b": "regression"}, max_epochs=1)
    assert list(array.fit(X, np.random.default_rng(0).normal(size=(60, 2))).predict(X)) == [
        "a",
        "b",
    ]
    series = multi("auto", max_epochs=1).fit(X, y["stars"])
    assert series.tasks_ == {"stars": "regression"} and not hasattr(series, "predict_proba")
    assert hasattr(multi(), "predict_proba")


@pytest.mark.slow
def test_warm_start():
    X, y = targets(200, missing=0.3)
    for weights in ("equal", "uncertainty", "gradnorm"):
        model = multi(loss_weights=weights)
        for _ in range(8):
            for rows in np.array_split(np.arange(200), 2):
                classes = {"mood": ["bad", "good"]}
                model.partial_fit(X.iloc[rows], y.iloc[rows], classes=classes)
        assert model.n_iter_ == 16 and model.score(X, y) > 0.7
        before = model.loss_weights_
        model.partial_fit(X[:20], y[:20].assign(mood=None))  # a batch without the task
        # From where they were: one step away, not from 1.
        assert np.allclose(list(before.values()), list(model.loss_weights_.values()), atol=0.15)
    warm = multi(warm_start=True, max_epochs=2, loss_weights="uncertainty").fit(X, y)
    first = warm.loss_weights_
    assert warm.fit(X, y).n_iter_ == 4
    assert warm.loss_weights_ != first
    with pytest.raises(ValueError, match="task 'mood': y holds 'huh', which is not among"):
        warm.partial_fit(X[:2], pd.DataFrame({"mood": ["huh", "bad"], "stars": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="needs all rows at once"):
        multi(class_weight={"mood": "balanced"}).partial_fit(X, y)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"tasks": {"mood": "classify"}}, {}, "task 'mood' is 'classify'. It must be"),
        ({"tasks": {"moood": "classification"}}, {}, "no column for task 'moood'; it has"),
        ({"tasks": {"mood": "regression"}}, {}, "a regression, but y holds '(good|bad)' in row 0"),
        ({"tasks": {"stars": "classification"}}, {}, "Unknown label type"),
        ({}, {"mood": "good"}, "task 'mood' needs at least 2 classes"),
        ({}, {"stars": np.nan}, "task 'stars': no row has a target. Give some, or leave"),
        ({}, {"stars": np.inf}, "contains infinity, first in row 0"),
        ({"loss": {"mod": "focal"}}, {}, "loss names 'mod', which is no task. The tasks are"),
        ({"loss_weights": {"mod": 1}}, {}, "loss_weights names 'mod', which is no task"),
        ({"loss_weights": {"mood": -1}}, {}, "weight of task 'mood' in loss_weights is -1"),
        ({"loss": {"mood": "huber"}}, {}, "task 'mood': loss 'huber' is not available for classes"),
        ({"loss_params": {"stars": {"d": 1}}}, {}, "task 'stars': loss 'squared_error' takes no"),
        ({"loss_weights": "equally"}, {}, "'loss_weights' parameter"),
    ],
)
def test_refused(options, change, message):
    X, y = targets(40)
    with pytest.raises(ValueError, match=message):
        multi(**options).fit(X, y.assign(**change))


def test_refused_containers():
    X, y = targets(40)
    with pytest.raises(TypeError, match="y is a dict. Give a DataFrame"):
        multi().fit(X, y.to_dict("list"))
    with pytest.raises(ValueError, match="y has 3 columns without names, but there are 2 tasks"):
        multi().fit(X, np.zeros((40, 3)))
    with pytest.raises(ValueError, match="two columns of y have one name"):
        multi().fit(X, pd.concat([y, y], axis=1))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        multi().fit(X, y[:30])
    with pytest.raises(ValueError, match="tasks is empty"):
        JointFusionMultiTask(TRIPLES, tasks={}).fit(X, y)
    weight = (y["mood"] == "good").to_numpy(dtype=float)
    with pytest.raises(ValueError, match="task 'stars': no row that has a target has a positive"):
        multi().fit(X, y.assign(stars=y["stars"].where(weight == 0)), sample_weight=weight)


@pytest.mark.slow
def test_a_trained_encoder_is_shared_by_the_tasks():
    from skmm import ModuleEncoder

    X, y = targets(120)
    encoder = ModuleEncoder(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU()), fine_tune="full", store=False
    )
    triples = [("photo", encoder, ["photo"]), *TRIPLES[1:]]
    for weights in ("equal", "gradnorm"):
        model = JointFusionMultiTask(
            triples, **with_trainer(tasks=TASKS, loss_weights=weights, max_epochs=3, **FAST)
        )
        assert model.fit(X, y).predict(X).notna().all(axis=None)
        assert all(torch.isfinite(p).all() for p in model.module_.parameters())
