"""Losses, labels and orders: what a joint fusion can be trained for beside plain cross-entropy."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import TRIPLES, views, with_trainer
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import accuracy_score, brier_score_loss, get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.utils import get_tags
from torch import nn

from skmm import JointFusionClassifier, JointFusionRegressor

FAST = {"n_components": 16, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}


def classifier(**options):
    return JointFusionClassifier(TRIPLES, **with_trainer(**{**FAST, "max_epochs": 15, **options}))


def regressor(**options):
    return JointFusionRegressor(TRIPLES, **with_trainer(**{**FAST, "max_epochs": 30, **options}))


def labeled(n=300, **options):
    X, score = views(n, **options)
    return X, np.array(["no", "yes"])[(score > 0).astype(int)]


def labels(n=400, **options):
    """Three labels, one for each latent, of shares 0.5, 0.3 and 0.1."""
    X, _ = views(n, noise=0.1)
    firsts = [np.stack(X["photo"])[:, 0], np.stack(X["text"])[:, 0], X["size"].to_numpy()]
    shares = zip(firsts, (0.5, 0.7, 0.9), strict=True)
    Y = np.column_stack([cells > np.quantile(cells, q) for cells, q in shares])
    return views(n, noise=0.1, **options)[0], Y.astype(int)


class Focus(nn.Module):
    """A loss of the user's for classes: the focal loss with gamma 2."""

    def forward(self, outputs, target):
        log = nn.functional.log_softmax(outputs, dim=1).gather(1, target[:, None])[:, 0]
        return -((1 - log.exp()) ** 2) * log


# --- losses of classes -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "label_smoothing", "max_margin", "ordinal"])
def test_every_loss_learns(loss):
    X, y = labeled(400, noise=0.1)
    params = {"order": ["no", "yes"]} if loss == "ordinal" else None
    model = classifier(loss=loss, loss_params=params, max_epochs=25).fit(X[:300], y[:300])
    assert model.score(X[300:], y[300:]) > 0.85


def test_a_module_trains_as_the_loss_of_its_formula():
    X, y = labeled(100)
    named = classifier(loss="focal", max_epochs=3).fit(X, y).predict_proba(X)
    own = classifier(loss=Focus(), max_epochs=3).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(own, named, rtol=1e-4)
    squared = regressor(max_epochs=3).fit(X, y == "yes").predict(X)
    own = regressor(loss=nn.MSELoss(reduction="none"), max_epochs=3).fit(X, y == "yes").predict(X)
    np.testing.assert_allclose(own, squared, rtol=1e-5)


@pytest.mark.slow
def test_loss_params_change_the_training():
    X, y = labeled(100)
    plain = classifier(max_epochs=3).fit(X, y).predict_proba(X)
    none = classifier(loss="focal", loss_params={"gamma": 0.0}, max_epochs=3).fit(X, y)
    np.testing.assert_allclose(none.predict_proba(X), plain, rtol=1e-4)
    # A target that is not sure makes predictions that are less so.
    X, y = labeled(300, noise=0.0)
    sure, unsure = (
        classifier(loss="label_smoothing", loss_params={"smoothing": s}, max_epochs=40).fit(X, y)
        for s in (0.0, 0.5)
    )
    spread = [np.abs(m.predict_proba(X)[:, 0] - 0.5).mean() for m in (sure, unsure)]
    assert spread[1] < 0.3 < spread[0]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "label_smoothing", "max_margin", Focus()])
@pytest.mark.parametrize("how", ["sample_weight", "class_weight"])
def test_weights_work_with_every_loss(loss, how):
    X, y = labeled(200, noise=2.0)
    heavy = {"no": 1.0, "yes": 20.0}
    plain = classifier(loss=loss).fit(X, y)
    if how == "class_weight":
        weighted = classifier(loss=loss, class_weight=heavy).fit(X, y)
    else:
        weighted = classifier(loss=loss).fit(X, y, sample_weight=[heavy[label] for label in y])
    assert (weighted.predict(X) == "yes").mean() > (plain.predict(X) == "yes").mean() + 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "focal", "loss_params": {"gama": 1}},
            "JointFusionClassifier: loss 'focal' takes",
        ),
        ({"loss": Focus(), "loss_params": {"gamma": 1}}, "takes no loss_params"),
        ({"loss": nn.CrossEntropyLoss()}, "CrossEntropyLoss returned a tensor .* reduction='none'"),
        ({"loss": "hinge"}, "'loss' parameter .*'max_margin'.* Got 'hinge'"),
        ({"loss": "ordinal"}, r"order of classes that are no numbers. Give loss_params=\{'order'"),
        ({"loss": "ordinal", "loss_params": {"order": ["no"]}}, "Name each class once"),
    ],
)
def test_refused(options, message):
    X, y = labeled(40)
    with pytest.raises(ValueError, match=message):
        classifier(**options).fit(X, y)


# --- margins and calibration -------------------------------------------------------------------


def test_margins_are_no_probabilities():
    X, y = labeled(300)
    model = classifier(loss="max_margin")
    assert not hasattr(model, "predict_proba") and not hasattr(classifier(), "decision_function")
    model.fit(X[:200], y[:200])
    scores = model.decision_function(X[200:])
    assert scores.shape == (100,)
    np.testing.assert_array_equal(model.predict(X[200:]), np.where(scores > 0, "yes", "no"))
    assert get_scorer("roc_auc")(model, X[200:], y[200:]) > 0.9
    with pytest.raises(AttributeError) as caught:
        model.predict_proba(X)
    assert "CalibratedClassifierCV" in str(caught.value.__cause__)


def test_margins_of_rows_without_anything_follow_the_prior():
    X, y = labeled(90)
    y = np.where(np.arange(90) < 60, "no", y)
    nothing = pd.DataFrame(None, index=X.index, columns=X.columns, dtype=object)
    model = classifier(loss="max_margin", max_epochs=2).fit(X, y)
    yes = (y == "yes").mean()
    np.testing.assert_allclose(model.decision_function(nothing), np.log(yes / (1 - yes)))
    assert (model.predict(nothing) == "no").all()
    y = np.digitize(views(90)[1], [-1, 1])
    model = classifier(loss="max_margin", max_epochs=2).fit(X, y)
    assert model.decision_function(X).shape == (90, 3)
    np.testing.assert_array_equal(model.decision_function(X).argmax(axis=1), model.predict(X))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "max_margin"])
def test_calibration_through_scikit_learn(loss):
    X, y = labeled(400, noise=1.0)
    model = CalibratedClassifierCV(classifier(loss=loss, max_epochs=10), cv=2)
    model.fit(X[:300], y[:300])
    proba = model.predict_proba(X[300:])
    assert proba.shape == (100, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    always = brier_score_loss(y[300:], np.full(100, 0.5), pos_label="yes")
    assert brier_score_loss(y[300:], proba[:, 1], pos_label="yes") < 0.7 * always


@pytest.mark.slow
def test_a_loss_in_a_search():
    X, y = labeled(120)
    grid = {"loss": ["cross_entropy", "focal", "max_margin"]}
    search = GridSearchCV(classifier(max_epochs=2), grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 3


# --- values ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", "absolute_error"])
def test_robust_losses_withstand_outliers(loss):
    X, score = views(400)
    y = score.copy()
    y[np.random.default_rng(0).choice(300, 20, replace=False)] += 100
    params = {"delta": 0.1} if loss == "huber" else None
    errors = [
        np.abs(m.fit(X[:300], y[:300]).predict(X[300:]) - score[300:]).mean()
        for m in (regressor(), regressor(loss=loss, loss_params=params))
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.slow
def test_losses_of_several_values():
    X, score = views(300)
    Y = np.column_stack([score, 1e6 * np.stack(X["photo"])[:, 0]])
    model = regressor(loss="huber").fit(X[:200], Y[:200], sample_weight=np.ones(200))
    assert model.score(X[200:], Y[200:]) > 0.7


# --- orders ------------------------------------------------------------------------------------


def graded(n, noise=1.0):
    X, score = views(n)
    latent = score + noise * np.random.default_rng(1).logistic(size=n)
    return X, np.digitize(latent, [-3, -1, 1, 3])


@pytest.mark.slow
def test_ordinal_classes_are_learned_by_one_score():
    X, y = graded(800)
    model = classifier(loss="ordinal", max_epochs=30).fit(X[:600], y[:600])
    plain = classifier(max_epochs=30).fit(X[:600], y[:600])
    proba = model.predict_proba(X[600:])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (proba >= 0).all() and model.classes_.tolist() == [0, 1, 2, 3, 4]
    errors = [np.abs(m.predict(X[600:]) - y[600:]).mean() for m in (model, plain)]
    assert errors[0] < errors[1] + 0.15 and errors[0] < 0.9
    # Whichever the threshold, the rows have the same order.
    above = np.cumsum(proba[:, ::-1], axis=1)[:, :-1]
    ranks = np.argsort(np.argsort(above, axis=0), axis=0)
    assert (np.abs(ranks - ranks[:, [0]]) <= 1).all()


@pytest.mark.slow
def test_order_of_names():
    X, y = graded(300)
    names = np.array(["worst", "bad", "fair", "good", "best"])
    options = {"loss": "ordinal", "max_epochs": 10, "early_stopping": False}
    model = classifier(loss_params={"order": names.tolist()}, **options).fit(X, names[y])
    numbers = classifier(**options).fit(X, y)
    assert model.classes_.tolist() == sorted(names)
    places = [model.classes_.tolist().index(name) for name in names]
    np.testing.assert_allclose(
        model.predict_proba(X)[:, places], numbers.predict_proba(X), rtol=1e-4
    )
    np.testing.assert_array_equal(model.predict(X), names[numbers.predict(X)])


def test_ordinal_prior_pickle_and_warm_start():
    X, y = graded(100)
    model = classifier(loss="ordinal", max_epochs=2, warm_start=True).fit(X, y)
    nothing = pd.DataFrame(None, index=X.index, columns=X.columns, dtype=object)
    np.testing.assert_allclose(model.predict_proba(nothing)[0], np.bincount(y) / 100)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), rtol=1e-5)
    assert model.fit(X, y).n_iter_ == 4
    with pytest.raises(ValueError, match="cannot be trained further. Fit with warm_start=False"):
        model.set_params(loss="focal").fit(X, y)


# --- labels ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "label_smoothing", "max_margin"])
def test_labels_are_learned(loss):
    X, Y = labels()
    model = classifier(loss=loss, max_epochs=25).fit(X[:300], Y[:300])
    predicted = model.predict(X[300:])
    assert predicted.shape == (100, 3) and predicted.dtype == Y.dtype
    assert (predicted == Y[300:]).mean(axis=0).min() > 0.85
    assert model.score(X[300:], Y[300:]) == accuracy_score(Y[300:], predicted) > 0.7
    scores = model.decision_function if loss == "max_margin" else model.predict_proba
    threshold = 0.0 if loss == "max_margin" else 0.5
    np.testing.assert_array_equal(scores(X[300:]) > threshold, predicted)
    assert model.classes_.tolist() == [0, 1, 2]


def test_outputs_of_labels_are_sigmoids_and_the_prior_their_shares():
    X, Y = labels(100, missing=0.2)
    nothing = pd.DataFrame(None, index=X.index, columns=X.columns, dtype=object)
    weight = np.random.default_rng(0).random(100)
    model = classifier(max_epochs=2).fit(X, Y, sample_weight=weight)
    shares = np.average(Y, axis=0, weights=weight)
    np.testing.assert_allclose(model.predict_proba(nothing), np.tile(shares, (100, 1)))
    rows = X.notna().any(axis=1).to_numpy()
    fused = torch.as_tensor(model.transform(X))
    odds = model.module_.head(fused).detach().numpy()
    expected = 1 / (1 + np.exp(-odds))
    np.testing.assert_allclose(model.predict_proba(X)[rows], expected[rows], rtol=1e-4)


@pytest.mark.slow
def test_labels_in_every_container_and_search():
    X, Y = labels(100)
    expected = classifier(max_epochs=2).fit(X, Y).predict_proba(X)
    for given in (sparse.csr_matrix(Y), pd.DataFrame(Y), Y.astype(bool), Y.tolist(), Y * 1.0):
        found = classifier(max_epochs=2).fit(X, given).predict_proba(X)
        np.testing.assert_array_equal(found, expected)
    grid = {"strategy": ["concat", "gated"]}
    search = GridSearchCV(classifier(max_epochs=2), grid, scoring="f1_micro", cv=2,
                          error_score="raise").fit(X, Y)  # fmt: skip
    assert clone(search.best_estimator_).fit(X, Y).predict(X).shape == (100, 3)


@pytest.mark.slow
def test_rare_labels_can_weigh_more():
    X, _ = labels(400)
    size = X["size"].to_numpy() + np.random.default_rng(0).normal(size=400)
    Y = np.column_stack([np.stack(X["photo"])[:, 0] > 0, size > np.quantile(size, 0.9)]).astype(int)
    plain = classifier().fit(X, Y).predict(X)
    balanced = classifier(class_weight="balanced").fit(X, Y).predict(X)
    rare = Y[:, 1] == 1
    assert balanced[rare, 1].mean() > plain[rare, 1].mean() + 0.2
    # A label of weight 0 is not learned, and does not stop the others from being.
    one = classifier(class_weight={1: 0.0}).fit(X, Y).predict_proba(X)
    two = classifier(class_weight={1: 0.0}).fit(X, np.column_stack([Y[:, 0], 1 - Y[:, 1]]))
    np.testing.assert_allclose(one[:, 0], two.predict_proba(X)[:, 0], rtol=1e-5)
    with pytest.raises(ValueError, match="names label 2, but labels are numbered from 0 to 1"):
        classifier(class_weight={2: 1.0}).fit(X, Y)


@pytest.mark.slow
def test_warm_start_with_labels_and_their_errors():
    X, Y = labels(100)
    model = classifier()
    for _ in range(10):
        for rows in np.array_split(np.arange(100), 2):
            model.partial_fit(X.iloc[rows], Y[rows], classes=[0, 1, 2])
    assert (model.predict(X) == Y).mean() > 0.8
    with pytest.raises(ValueError, match="y has 2 labels, but there are 3. Give as many"):
        model.partial_fit(X, Y[:, :2])
    with pytest.raises(ValueError, match="no matrix of labels"):
        model.partial_fit(X, Y[:, 0])
    with pytest.raises(ValueError, match="y is a matrix of labels. Choose another loss"):
        classifier(loss="ordinal").fit(X, Y)
    with pytest.raises(ValueError, match="no matrix of labels, 0 and 1"):
        classifier().fit(X, Y + 1)
    with pytest.raises(ValueError, match="1d array"):
        classifier().fit(X, np.where(Y == 1, np.nan, 0.0))
    assert get_tags(classifier()).classifier_tags.multi_label
