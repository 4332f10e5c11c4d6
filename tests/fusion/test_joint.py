"""Joint fusion learns, repeats itself, and keeps its promises about weights and absence."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import TRIPLES, Total, views, with_trainer
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV

from skmm import JointFusionClassifier, JointFusionRegressor
from skmm._training._trainer import TrainingDefaults
from skmm.datasets import make_multimodal_classification
from skmm.exceptions import ConvergenceError
from skmm.fusion import AttentionFusion, LowRankFusion, MeanFusion

STRATEGIES = [
    *("concat", "mean", "max", "sum", "gated", "cross_gated", "film", "bilinear", "low_rank"),
    "attention",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("cross_attention", "bottleneck")),
]
FAST = {"n_components": 16, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}


def classifier(**options):
    return JointFusionClassifier(TRIPLES, **with_trainer(**{**FAST, "max_epochs": 15, **options}))


def regressor(**options):
    return JointFusionRegressor(TRIPLES, **with_trainer(**{**FAST, "max_epochs": 30, **options}))


def labeled(n=300, **options):
    X, score = views(n, **options)
    return X, np.array(["no", "yes"])[(score > 0).astype(int)]


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns_a_planted_latent(strategy):
    X, y = make_multimodal_classification(
        600,
        modalities={"a": "vector", "b": "vector", "t": "tabular"},
        redundant=0.2,
        private={"a": 0.4, "b": 0.4},
        missing_rate=0.05,
        random_state=0,
    )
    model = JointFusionClassifier(**with_trainer(strategy=strategy, **FAST, max_epochs=25))
    model.fit(X[:450], y[:450])
    assert model.score(X[450:], y[450:]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["concat", "gated", "low_rank", "attention"])
def test_strategies_learn_values(strategy):
    X, score = views(400)
    model = regressor(strategy=strategy).fit(X[:300], score[:300])
    assert model.score(X[300:], score[300:]) > 0.68  # of two views: 0.67 at best


@pytest.mark.slow
def test_interaction_across_modalities_is_learned():
    """An exclusive or of two modalities: no single one of them says anything."""
    X, y = make_multimodal_classification(
        800, modalities={"a": "vector", "b": "vector"}, redundant=0, synergy=1.0, noise=0,
        n_nuisance=0, random_state=0,
    )  # fmt: skip
    model = JointFusionClassifier(
        **with_trainer(**{**FAST, "modality_dropout": 0.0}, max_epochs=40)
    )
    assert model.fit(X[:600], y[:600]).score(X[600:], y[600:]) > 0.8


@pytest.mark.slow
def test_several_targets():
    X, score = views(400)
    other = np.stack(X["photo"])[:, 0]
    Y = np.column_stack([1e6 * score, 1e-6 * other])
    model = regressor().fit(X[:300], Y[:300])
    predicted = model.predict(X[300:])
    assert predicted.shape == (100, 2)
    for k in range(2):
        assert np.corrcoef(predicted[:, k], Y[300:, k])[0, 1] > 0.9
    assert regressor(max_epochs=1).fit(X, Y[:, [0]]).predict(X).shape == (400, 1)


@pytest.mark.parametrize("unit", [1e-200, 1e-9, 1e9, 1e200])
def test_units_of_the_target_do_not_matter(unit):
    X, score = views(100)
    expected = regressor(max_epochs=3).fit(X, score).predict(X)
    got = regressor(max_epochs=3).fit(X, (score + 3) * unit).predict(X)
    np.testing.assert_allclose(got / unit - 3, expected, atol=1e-3)


def test_constant_target():
    X, _ = views(60)
    np.testing.assert_allclose(
        regressor(max_epochs=3).fit(X, np.full(60, 0.1)).predict(X), 0.1, atol=0.5
    )


@pytest.mark.slow
def test_representation_is_the_input_of_a_linear_head():
    X, y = labeled(missing=0.2)
    model = classifier().fit(X, y)
    fused = model.transform(X)
    assert fused.shape == (300, 16) and fused.dtype == np.float32
    odds = np.log(model.predict_proba(X))
    rows = X.notna().any(axis=1).to_numpy()
    difference = (odds[:, 1] - odds[:, 0])[rows]
    assert LinearRegression().fit(fused[rows], difference).score(fused[rows], difference) > 0.999
    assert list(model.get_feature_names_out()[:1]) == ["jointfusionclassifier0"]


@pytest.mark.parametrize("task", ["classifier", "regressor"])
def test_every_weight_is_trained(task):
    """Those of the head too, which a score hardly tells: the fusion learns in its place."""
    if task == "classifier":
        make, (X, y) = classifier, labeled(100)
    else:
        make, (X, y) = regressor, views(100)
    start = make(max_epochs=1, learning_rate=1e-30).fit(X, y).module_.state_dict()
    trained = make(max_epochs=5).fit(X, y).module_
    assert any(name.startswith("head.") for name, _ in trained.named_parameters())
    for name, weight in trained.named_parameters():
        assert (weight - start[name]).abs().mean() > 1e-3, name


# --- early stopping ----------------------------------------------------------------------------


def test_early_stopping_ends_at_the_best_epoch():
    X, _ = views(120)
    y = np.random.default_rng(0).integers(0, 2, 120)  # nothing to learn
    model = classifier(max_epochs=60, n_iter_no_change=5, dropout=0.0).fit(X, y)
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert model.n_iter_ == len(losses) == int(np.argmin(losses)) + 1 + 5 < 60
    # Of the best epoch: the held-out rows are those that the seed draws.
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    held_out = model.trainer.hold_out(np.arange(120), y, TrainingDefaults(), seed)
    assert len(held_out) == 12
    proba = model.predict_proba(X.iloc[held_out])
    loss = -np.log(proba[np.arange(12), y[held_out]]).mean()
    assert loss == pytest.approx(min(losses), abs=1e-5)


@pytest.mark.parametrize("options", [{"early_stopping": False}, {"validation_fraction": 0.3}])
def test_validation_fraction(options):
    X, y = labeled(100)
    model = classifier(max_epochs=2, **options).fit(X, y)
    assert ("valid_loss" in model.history_[0]) == ("early_stopping" not in options)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_extreme_held_out_parts(fraction):
    X, y = labeled(50)
    model = classifier(max_epochs=2, validation_fraction=fraction).fit(X, y)
    assert "valid_loss" in model.history_[0]
    assert np.isfinite(model.predict_proba(X)).all()


def test_few_rows_are_all_trained_on():
    X, y = labeled(39)
    assert "valid_loss" not in classifier(max_epochs=2).fit(X, y).history_[0]
    y = np.where(np.arange(45) == 0, "rare", "common")
    classifier(max_epochs=2).fit(views(45)[0], y)


# --- seeds, threads ----------------------------------------------------------------------------


def test_same_seed_same_result_and_no_global_state():
    X, y = labeled(100)
    torch.manual_seed(5)
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    first = classifier(max_epochs=3).fit(X, y).predict_proba(X)
    assert torch.equal(torch.get_rng_state(), before_torch)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    np.testing.assert_array_equal(first, classifier(max_epochs=3).fit(X, y).predict_proba(X))
    other = classifier(max_epochs=3, random_state=1).fit(X, y).predict_proba(X)
    assert not np.allclose(first, other)


@pytest.mark.slow
def test_same_seed_same_result_in_threads_and_their_number_is_restored():
    X, y = labeled(100)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = classifier(max_epochs=3).fit(X, y).predict_proba(X)
        with parallel_config(backend="threading"):
            found = Parallel(n_jobs=2)(
                delayed(lambda: classifier(max_epochs=3).fit(X, y).predict_proba(X))()
                for _ in range(4)
            )
            numbers = Parallel(n_jobs=2)(delayed(torch.get_num_threads)() for _ in range(4))
        assert torch.get_num_threads() == 2
        assert set(numbers) == {2}
    finally:
        torch.set_num_threads(threads)
    for proba in found:
        np.testing.assert_allclose(proba, expected, rtol=1e-5)


# --- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [classifier, regressor])
def test_rows_of_weight_zero_have_no_influence(task):
    X, score = views(100)
    y = (score > 0).astype(int)
    weight = np.where(np.arange(100) % 4 == 0, 0.0, 1.0)
    wrong = np.where(weight == 0, 1 - y, y)
    one = task(max_epochs=4).fit(X, y, sample_weight=weight)
    two = task(max_epochs=4).fit(X, wrong, sample_weight=weight)
    np.testing.assert_allclose(one.predict(X), two.predict(X)) if task is regressor else (
        np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X))
    )


def test_only_proportions_of_weights_count():
    X, y = labeled(100)
    weight = np.random.default_rng(0).random(100) + 0.1
    one = classifier(max_epochs=4).fit(X, y, sample_weight=weight)
    two = classifier(max_epochs=4).fit(X, y, sample_weight=1e-6 * weight)
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sample_weight", "class_weight"])
def test_heavy_class_is_predicted_more(how):
    X, y = labeled(200, noise=2.0)
    heavy = {"no": 1.0, "yes": 20.0}
    plain = classifier().fit(X, y)
    if how == "class_weight":
        weighted = classifier(class_weight=heavy).fit(X, y)
    else:
        weighted = classifier().fit(X, y, sample_weight=[heavy[label] for label in y])
    assert (weighted.predict(X) == "yes").mean() > (plain.predict(X) == "yes").mean() + 0.1


@pytest.mark.slow
def test_balanced_classes_recall_the_rare_one():
    X, score = views(400, noise=1.0)
    y = (score > 2.2).astype(int)
    rare = y == 1
    plain = classifier().fit(X, y)
    balanced = classifier(class_weight="balanced").fit(X, y)
    assert balanced.predict(X)[rare].mean() > plain.predict(X)[rare].mean()


def test_weights_must_leave_something():
    X, y = labeled(40)
    with pytest.raises(ValueError, match="[Ww]eight"):
        classifier().fit(X, y, sample_weight=np.zeros(40))
    with pytest.raises(ValueError, match="leave every row with weight 0. Give at least one"):
        classifier(class_weight={"no": 0.0, "yes": 1.0}).fit(
            X, y, sample_weight=(y == "no").astype(float)
        )
    with pytest.raises(ValueError, match="not in class_weight"):
        classifier(class_weight={"no": 1.0, "yse": 2.0}).fit(X, y)


# --- warm start ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_partial_fit_learns_and_knows_the_classes():
    X, y = labeled(300)
    order = np.argsort(y, kind="stable")  # the first batch holds one class only
    model = classifier()
    for _ in range(15):
        for rows in np.array_split(order, 3):
            model.partial_fit(X.iloc[rows], y[rows], classes=["no", "yes", "maybe"])
    assert model.classes_.tolist() == ["maybe", "no", "yes"]
    assert model.n_iter_ == 45
    assert (model.predict(X) == y).mean() > 0.8
    with pytest.raises(ValueError, match=r"y holds 'huh', which is not among .* Name all classes"):
        model.partial_fit(X[:2], ["huh", "no"])
    with pytest.raises(ValueError, match="classes are .* but were .* before"):
        model.partial_fit(X, y, classes=["no", "yes"])
    with pytest.raises(ValueError, match="'balanced' needs all rows at once"):
        classifier(class_weight="balanced").partial_fit(X, y)


@pytest.mark.slow
def test_partial_fit_continues_after_fit_and_keeps_its_optimizer():
    X, score = views(200)
    model = regressor(max_epochs=2).fit(X, score)
    before = model.score(X, score)
    model.partial_fit(X, score)
    net = model.net_
    for _ in range(20):
        model.partial_fit(X, score)
    assert model.net_ is net
    assert model.score(X, score) > before
    with pytest.raises(ValueError, match="y has 2 targets, but had 1 before"):
        model.partial_fit(X, np.column_stack([score, score]))


def test_partial_fit_after_a_pickle_of_itself(tmp_path):
    import pickle

    X, score = views(100)
    model = regressor().partial_fit(X, score)
    again = pickle.loads(pickle.dumps(model)).partial_fit(X, score)
    assert again.n_iter_ == 2


def test_warm_start_continues_and_cold_start_does_not():
    X, y = labeled(200)
    model = classifier(max_epochs=2, warm_start=True, early_stopping=False)
    first = model.fit(X, y).history_[-1]["train_loss"]
    module = model.module_
    assert model.fit(X, y).module_ is module
    assert model.n_iter_ == 4 and model.history_[-1]["train_loss"] < first
    model.set_params(warm_start=False).fit(X, y)
    assert model.module_ is not module and model.n_iter_ == 2
    assert model.history_[-1]["train_loss"] == pytest.approx(first)


# --- strategies of the user's ------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [partial(Total, gain=2.0), lambda *a, **k: Total(*a, gain=2.0, **k)]
)
def test_strategy_as_class_or_function(strategy):
    X, y = labeled()
    model = classifier(strategy=strategy).fit(X, y)
    assert isinstance(model.module_.fusion, Total) and model.module_.fusion.gain == 2.0
    assert model.score(X, y) > 0.85


@pytest.mark.slow
def test_strategy_as_instance_is_not_changed():
    X, y = labeled()
    strategy = Total({"photo": 4, "text": 3, "numbers": 2}, 16)
    before = {name: tensor.clone() for name, tensor in strategy.state_dict().items()}
    model = classifier(strategy=strategy)
    first = model.fit(X, y).predict_proba(X)
    for name, tensor in strategy.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert model.module_.fusion is not strategy
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), first)


def test_options_reach_the_strategy():
    X, y = labeled(60)
    attention = classifier(strategy=AttentionFusion(n_heads=2, n_layers=3), max_epochs=1).fit(X, y)
    assert len(attention.module_.fusion.layers) == 3
    assert attention.module_.fusion.layers[0].self_attn.num_heads == 2
    low_rank = classifier(strategy=LowRankFusion(rank=5), max_epochs=1).fit(X, y)
    assert low_rank.module_.fusion.rank == 5
    with pytest.raises(ValueError, match="not a multiple of n_heads=3. Choose n_components"):
        classifier(strategy=AttentionFusion(n_heads=3)).fit(X, y)
    with pytest.raises(ValueError, match="Invalid parameter 'rank' for estimator MeanFusion"):
        classifier(strategy=MeanFusion()).set_params(strategy__rank=3)
    searched = GridSearchCV(
        classifier(strategy=AttentionFusion(), max_epochs=1), {"strategy__n_heads": [2, 8]}, cv=2
    ).fit(X, y)
    best = searched.best_params_["strategy__n_heads"]
    assert searched.best_estimator_.module_.fusion.layers[0].self_attn.num_heads == best


@pytest.mark.parametrize(
    "strategy", ["attention", AttentionFusion, AttentionFusion()], ids=["name", "class", "object"]
)
def test_a_strategy_is_the_same_by_name_by_class_and_as_an_object(strategy):
    X, y = labeled(60)
    options = {**FAST, "max_epochs": 2}
    del options["learning_rate"]
    first = JointFusionClassifier(TRIPLES, strategy="attention", **with_trainer(**options))
    model = clone(first).set_params(strategy=strategy).fit(X, y)
    assert model.net_.lr == 3e-4
    np.testing.assert_array_equal(model.predict_proba(X), first.fit(X, y).predict_proba(X))


def test_unknown_strategy_is_refused_with_the_names():
    X, y = labeled(60)
    with pytest.raises(ValueError, match="no strategy 'gate': did you mean 'gated'.*'low_rank'"):
        classifier(strategy="gate").fit(X, y)


def test_strategy_of_another_width():
    X, y = labeled(60)
    with pytest.raises(ValueError, match="n_components is 16. Make the two the same"):
        classifier(strategy=Total({"photo": 4, "text": 3, "numbers": 2}, 7)).fit(X, y)


# --- absence -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["concat", "gated", "low_rank", "attention"])
def test_a_modality_that_training_always_had_may_be_missing(strategy):
    X, y = labeled(400, strength=(1.0, 1.0, 0.0))
    model = classifier(strategy=strategy, modality_dropout=0.3).fit(X[:300], y[:300])
    new, truth = X[300:].copy(), y[300:]
    new["photo"] = None
    text = np.stack(X["text"][300:])[:, 0] > 0
    assert np.isfinite(model.predict_proba(new)).all()
    # What the text alone says is what is left: about three quarters.
    assert model.score(new, truth) > 0.6
    assert (model.predict(new) == np.where(text, "yes", "no")).mean() > 0.75


def test_a_row_without_anything_gets_the_prior():
    X, score = views(100)
    y = np.where(score > 0.8, "yes", "no")
    weight = np.where(y == "yes", 3.0, 1.0)
    nothing = X.copy()
    nothing.loc[[2, 5], :] = None
    shares = [weight[y == "no"].sum() / weight.sum(), weight[y == "yes"].sum() / weight.sum()]
    model = classifier(max_epochs=2).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.predict_proba(nothing)[[2, 5]], [shares, shares])
    model = regressor(max_epochs=2).fit(X, score, sample_weight=weight)
    expected = np.average(score, weights=weight)
    np.testing.assert_allclose(model.predict(nothing)[[2, 5]], expected)
    assert np.isfinite(model.transform(nothing)).all()


def test_predictions_of_a_row_do_not_depend_on_the_others():
    X, y = labeled(100, missing=0.3)
    model = classifier(max_epochs=2).fit(X, y)
    together = model.predict_proba(X)
    alone = np.vstack([model.predict_proba(X.iloc[[i]]) for i in range(100)])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-6)


def test_numbers_far_outside_training_stay_finite():
    X, y = labeled(100)
    for model in (classifier(max_epochs=2).fit(X, y), regressor(max_epochs=2).fit(X, y == "yes")):
        for extreme in (1e30, -1e300, 1e308):
            new = X.copy()
            new["price"] = extreme
            assert np.isfinite(model.predict_proba(new) if hasattr(model, "classes_") else
                               model.predict(new)).all()  # fmt: skip
            assert np.isfinite(model.transform(new)).all()


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_diverged_training_leaves_no_network():
    X, score = views(100)

    class Explode(Total):
        def forward(self, tokens, masks):
            return super().forward(tokens, masks) * float("inf")

    model = regressor(strategy=Explode, early_stopping=False, warm_start=True)
    with pytest.raises(ConvergenceError, match="in epoch 1. Use a learning_rate below 0.01"):
        model.fit(X, score)
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert regressor().set_params(**{**model.get_params(), "strategy": "mean"}).fit(X, score)


@pytest.mark.parametrize("method", ["predict", "transform", "predict_proba"])
def test_not_fitted(method):
    X, _ = views(5)
    with pytest.raises(NotFittedError):
        getattr(classifier(), method)(X)


def test_device_that_is_not_there():
    X, y = labeled(40)
    with pytest.raises(ValueError, match="not available on this machine. Use device='auto'"):
        classifier(device="mps" if torch.cuda.is_available() else "cuda").fit(X, y)


def test_other_columns_are_refused():
    X, y = labeled(40)
    model = classifier(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename(columns={"photo": "image"}))
    with pytest.raises(ValueError, match="held vectors of 4 numbers in fit"):
        model.predict(X.assign(photo=pd.Series([np.ones(2)] * 40, dtype=object)))
