"""A modality that is learned quickly leaves the others time: what balances them."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import TRIPLES, Total, views, with_trainer
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skmm import (
    JointFusionClassifier,
    JointFusionMultiTask,
    JointFusionRegressor,
    ModuleEncoder,
    Trainer,
)
from skmm._training import _balance
from skmm._training._balance import row_losses, step_factors
from skmm.fusion._strategies import STRATEGIES
from skmm.nets import MeanFusionModule
from skmm.nets._layers import Head
from skmm.nets._losses import make_loss
from skmm.nets.fusion._unimodal import UnimodalHeads

FAST = {"n_components": 16, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}
STILL = {"dropout": 0.0, "modality_dropout": 0.0}  # nothing is drawn but the order
ONE_STEP = {**STILL, "max_epochs": 1, "batch_size": 64, "early_stopping": False}
NOTHING_ELSE = {"weight_decay": 0.0}
MODES = ["gradient", "auxiliary"]
BOTH = pytest.mark.parametrize("balance", MODES)


def classifier(**options):
    return JointFusionClassifier(TRIPLES, **with_trainer(**{**FAST, "max_epochs": 3, **options}))


def labeled(n=120, **options):
    X, score = views(n, **options)
    return X, np.array(["no", "yes"])[(score > 0).astype(int)]


def weights_of(model):
    """Parameters of the network but for the heads of single modalities."""
    found = model.module_.named_parameters()
    return {name: p.detach().clone() for name, p in found if not name.startswith("balance.")}


def recorded(monkeypatch):
    """Scores' sums, weights, alpha and factors of every step."""
    calls = []

    def spy(sums, weights, alpha):
        calls.append((sums.tolist(), weights.tolist(), alpha, step_factors(sums, weights, alpha)))
        return calls[-1][-1]

    monkeypatch.setattr(_balance, "step_factors", spy)
    return calls


# --- the formula -------------------------------------------------------------------------------


def slow_factors(sums, weights, alpha):
    """The formula, with a loop and no tensor."""
    factors = []
    for m in range(len(sums)):
        others = [sums[k] / weights[k] for k in range(len(sums)) if k != m and weights[k] > 0]
        if not others or not weights[m]:
            factors.append(1.0)
            continue
        ratio = (sums[m] / weights[m]) / (sum(others) / len(others))
        factors.append(1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0)
    return factors


@pytest.mark.parametrize("n_modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 2.0])
def test_factors_are_those_of_a_direct_computation(n_modalities, alpha):
    generator = torch.Generator().manual_seed(n_modalities)
    for batch in range(20):
        weights = 32 * torch.rand(n_modalities, generator=generator) + 1
        if batch % 3 == 0:
            weights[0] = 0.0  # no row of the batch has it
        sums = weights * torch.rand(n_modalities, generator=generator)
        expected = slow_factors(sums.tolist(), weights.tolist(), alpha)
        np.testing.assert_allclose(step_factors(sums, weights, alpha), expected, atol=1e-6)


def test_factors_of_the_paper():
    """Of two modalities, by hand: ratios 0.9 / 0.3 and its inverse."""
    factors = step_factors(torch.tensor([9.0, 3.0]), torch.tensor([10.0, 10.0]), 0.5)
    np.testing.assert_allclose(factors, [1 - math.tanh(1.5), 1.0], rtol=1e-5)


def test_scores_are_probabilities_of_the_truth_and_of_values_by_the_residual():
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 1, 0])
    _, scores = row_losses(make_loss("cross_entropy", "classes"), outputs, classes)
    torch.testing.assert_close(scores, outputs.softmax(1)[torch.arange(5), classes])
    labels = (torch.arange(15).view(5, 3) % 2).float()
    losses, scores = row_losses(make_loss("cross_entropy", "labels"), outputs, labels)
    right = torch.where(labels > 0, outputs.sigmoid(), 1 - outputs.sigmoid())
    torch.testing.assert_close(scores, right.mean(1))
    torch.testing.assert_close(losses, -right.log().mean(1))
    _, scores = row_losses(make_loss("squared_error", "values"), outputs, labels)
    torch.testing.assert_close(scores, torch.exp(-((outputs - labels) ** 2)).mean(1))


def test_what_is_measured_is_the_mean_over_rows_that_have_the_modality():
    widths = {"a": 3, "b": 5}
    fusion = MeanFusionModule(widths, 8)
    heads = UnimodalHeads(fusion, widths, lambda width: Head(width, 2), detached=True)
    own = {"a": [], "b": []}
    balance = _balance.Balance(heads, "gradient", {"alpha": 1.0, "noise": 0.0}, own)
    tokens = {name: torch.randn(6, 1, width) for name, width in widths.items()}
    there = {"a": [1, 1, 1, 0, 0, 1], "b": [1, 0, 1, 1, 0, 1]}
    masks = {name: torch.tensor(rows).bool()[:, None] for name, rows in there.items()}
    target, weight = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([1.0, 2, 1, 0, 1, 3])
    criterion = make_loss("cross_entropy", "classes")
    balance.look(fusion, tokens, masks)
    losses = balance.losses(criterion, target, weight)
    sums, counts = balance._sums
    for m, name in enumerate("ab"):
        probability = heads.heads[m](fusion.own_layers()[name](tokens[name][:, 0])).softmax(1)
        right = probability[torch.arange(6), target].detach()
        rows = torch.tensor(there[name])
        assert counts[m] == (rows * weight).sum()
        torch.testing.assert_close(sums[m], (rows * weight * right).sum())
    assert losses[4] == 0 and (losses[[0, 1, 2, 3, 5]] > 0).all()
    assert balance.losses(criterion, target, weight) is None  # taken


# --- the steps ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_steps_of_the_modality_ahead_are_shortened_by_the_factor(monkeypatch, strategy):
    X, y = labeled(60)
    options = {**ONE_STEP, **NOTHING_ELSE, "strategy": strategy}
    start = weights_of(classifier(**options | {"learning_rate": 1e-30}).fit(X, y))
    plain = weights_of(classifier(**options).fit(X, y))
    calls = recorded(monkeypatch)
    model = classifier(**options, balance="gradient", balance_params={"alpha": 0.4}).fit(X, y)
    modulated = weights_of(model)
    [(*_, factors)] = calls
    assert factors.min() < 0.7 and factors.max() == 1
    expected = dict.fromkeys(modulated, 1.0)
    layers = model.module_.fusion.own_layers()
    for name, parameter in model.module_.named_parameters():
        for m, modality in enumerate(model.module_.balance.heads.modalities):
            if any(parameter is own for own in layers[modality].parameters()):
                expected[name] = factors[m].item()
    assert len(set(expected.values())) > 1
    for name, after in modulated.items():
        step = expected[name] * (plain[name] - start[name])
        torch.testing.assert_close(after - start[name], step, rtol=2e-3, atol=2e-6)


def test_without_strength_the_training_is_that_without_balance():
    X, y = labeled(120, missing=0.2)
    plain = classifier(**STILL).fit(X, y)
    measured = classifier(**STILL, balance="gradient", balance_params={"alpha": 0}).fit(X, y)
    for name, weight in weights_of(plain).items():
        assert torch.equal(weight, weights_of(measured)[name])
    np.testing.assert_array_equal(plain.predict_proba(X), measured.predict_proba(X))
    assert plain.module_.balance is None
    assert not any("balance" in name for name in plain.module_.state_dict())
    assert [set(group) & {"modality"} for group in plain.net_.optimizer_.param_groups] == [set()]


def test_step_sizes_are_back_after_each_step():
    X, y = labeled(60)
    model = classifier(balance="gradient", warmup=2, max_epochs=4).fit(X, y)
    seen = {group["lr"] for group in model.net_.optimizer_.param_groups}
    assert seen == {FAST["learning_rate"]}


def test_parts_of_a_step_are_measured_together(monkeypatch):
    X, y = labeled(60)
    options = {**ONE_STEP, "balance": "gradient"}
    calls = recorded(monkeypatch)
    classifier(**options).fit(X, y)
    classifier(**{**options, "batch_size": 16, "accumulate": 4}).fit(X, y)
    (sums, counts, _, _), (in_parts, counts_in_parts, _, _) = calls
    np.testing.assert_allclose(in_parts, sums, rtol=1e-4)
    assert counts == counts_in_parts


def test_noise_shakes_the_modalities_own_layers_alone():
    X, y = labeled(60)
    options = {**ONE_STEP, "balance": "gradient"}
    calm = weights_of(classifier(**options).fit(X, y))
    shaken = weights_of(classifier(**options, balance_params={"noise": 1.0}).fit(X, y))
    moved = {name for name, weight in calm.items() if not torch.equal(weight, shaken[name])}
    assert moved and all(name.startswith("fusion.projections.") for name in moved)
    assert all(f"fusion.projections.{m}.0.weight" in moved for m in range(3))


class Detached(Total):
    """A strategy from which no gradient reaches what is below it."""

    def forward(self, tokens, masks):
        return super().forward({name: t.detach() for name, t in tokens.items()}, masks)


def trained_below(**options):
    X, y = labeled(60)
    X = X[["size", "photo"]]
    torch.manual_seed(0)
    encoder = ModuleEncoder(nn.Linear(1, 3), fine_tune="full")
    triples = [
        ("numbers", encoder, ["size"]),
        ("photo", "passthrough", ["photo"]),
    ]
    model = JointFusionClassifier(
        triples, **with_trainer(**{**FAST, **ONE_STEP, **NOTHING_ELSE, **options})
    )
    return model.fit(X, y)


def encoder_of(model):
    return {n: w for n, w in weights_of(model).items() if n.startswith("encoders.")}


def test_auxiliary_heads_train_the_encoder_and_measuring_heads_do_not():
    before = encoder_of(trained_below(learning_rate=1e-30))
    for balance, learns in ((None, False), ("gradient", False), ("auxiliary", True)):
        after = encoder_of(trained_below(strategy=Detached, balance=balance))
        assert all(torch.equal(before[n], after[n]) != learns for n in before), balance


def test_an_encoder_is_held_back_with_its_modality(monkeypatch):
    """With a factor of 0 it stays; its step size is its own."""
    rate = {"encoder_learning_rate": 1e-3}
    start = encoder_of(trained_below(learning_rate=1e-30, encoder_learning_rate=1e-30))
    for factor, moves in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        monkeypatch.setattr(_balance, "step_factors", lambda *_, f=factor: torch.tensor([f, 1.0]))
        after = encoder_of(trained_below(balance="gradient", **rate))
        steps = torch.cat([(after[name] - start[name]).abs().flatten() for name in start])
        np.testing.assert_allclose(steps, moves * 1e-3, rtol=0.02, atol=1e-9)


# --- everywhere --------------------------------------------------------------------------------


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_is_balanced(strategy, balance):
    X, y = labeled(80, missing=0.3)
    model = classifier(strategy=strategy, balance=balance, max_epochs=2).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    for parameter in model.module_.balance.parameters():
        assert parameter.isfinite().all()


def other_tasks():
    X, score = views(80, missing=0.2)
    rows = np.arange(80)
    yield JointFusionRegressor, {}, X, score
    yield JointFusionRegressor, {"loss": "huber"}, X, np.column_stack([score, -score])
    yield JointFusionClassifier, {}, X, np.column_stack([score > 0, score > 1]).astype(int)
    ordered = np.digitize(score, [-1, 1])
    yield JointFusionClassifier, {"loss": "ordinal"}, X, ordered
    yield JointFusionClassifier, {"loss": "max_margin", "class_weight": "balanced"}, X, ordered
    Y = pd.DataFrame({"sign": np.where(score > 0, "yes", "no"), "score": score})
    Y = Y.astype({"sign": object}).mask(np.column_stack([rows % 3 == 0, rows % 4 == 0]))
    for weights in ("equal", "uncertainty", "gradnorm"):
        yield JointFusionMultiTask, {"loss_weights": weights}, X, Y
    yield JointFusionClassifier, {"missing": "impute", "max_grad_norm": 1.0}, X, ordered


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("case", range(9))
def test_every_kind_of_target_is_balanced(case, balance):
    kind, options, X, y = list(other_tasks())[case]
    options = with_trainer(**{**FAST, "max_epochs": 2, "balance": balance, **options})
    model = kind(TRIPLES, **options).fit(X, y)
    again = clone(model).fit(X, y)
    assert all(np.isfinite(epoch["train_loss"]) for epoch in model.history_)
    pd.testing.assert_frame_equal(pd.DataFrame(model.predict(X)), pd.DataFrame(again.predict(X)))


def test_weights_of_tasks_learn_nothing_from_the_heads():
    """Gradient norms are taken once a step, and of the fused loss."""
    X, score = views(60)
    Y = pd.DataFrame({"sign": np.where(score > 0, "yes", "no"), "score": score})
    common = {**FAST, **ONE_STEP, "loss_weights": "gradnorm"}
    plain = JointFusionMultiTask(TRIPLES, **with_trainer(**common)).fit(X, Y)
    balanced = JointFusionMultiTask(TRIPLES, **with_trainer(**common, balance="auxiliary")).fit(
        X, Y
    )
    assert balanced.loss_weights_ == pytest.approx(plain.loss_weights_, rel=1e-5)
    assert plain.loss_weights_["score"] != 1


@BOTH
def test_rows_of_weight_zero_have_no_influence(balance):
    X, y = labeled(100)
    weight = np.where(np.arange(100) % 4 == 0, 0.0, 1.0)
    wrong = np.where(weight == 0, np.where(y == "no", "yes", "no"), y)
    one = classifier(balance=balance).fit(X, y, sample_weight=weight)
    two = classifier(balance=balance).fit(X, wrong, sample_weight=weight)
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X))


@BOTH
def test_pickle_partial_fit_and_warm_start(balance):
    X, y = labeled(60)
    model = classifier(balance=balance).partial_fit(X, y)
    heads = model.module_.balance
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    before = next(again.module_.balance.parameters()).clone()
    assert again.partial_fit(X, y).n_iter_ == 2
    assert not torch.equal(before, next(again.module_.balance.parameters()))
    model.set_params(warm_start=True).fit(X, y)
    assert model.module_.balance is heads and model.n_iter_ == 4
    other = MODES[1 - MODES.index(balance)]
    assert model.set_params(balance=other).fit(X, y).module_.balance.mode == other
    model.set_params(balance=None).fit(X, y)
    assert model.module_.balance is None and model.n_iter_ == 10


def test_a_search_over_it():
    X, y = labeled(80)
    search = GridSearchCV(classifier(max_epochs=1), {"balance": [None, *MODES]}, cv=2)
    assert len(search.fit(X, y).cv_results_["mean_test_score"]) == 3


@BOTH
def test_a_single_modality_has_nothing_to_wait_for(balance):
    X, y = labeled(60)
    model = JointFusionClassifier(
        TRIPLES[:1], **with_trainer(**FAST, max_epochs=2, balance=balance)
    )
    assert np.isfinite(model.fit(X[["photo"]], y).predict_proba(X[["photo"]])).all()


class Telling(Total):
    """A strategy of the user's that tells which layers are a modality's alone."""

    def own_layers(self):
        return dict(zip(self.names, self.maps, strict=True))


@BOTH
def test_strategies_of_the_users(balance):
    X, y = labeled(60)
    message = f"balance='{balance}' finds nothing to balance, .* strategy Total names no layers"
    with pytest.raises(ValueError, match=message):
        classifier(strategy=Total, balance=balance).fit(X, y)
    model = classifier(strategy=Telling, balance=balance).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    trained_below(strategy=Total, balance=balance)  # an encoder is trained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "gradients"}, "'balance' parameter .* Got 'gradients'"),
        (
            {"balance": "gradient", "balance_params": {"weight": 1}},
            r"JointFusionClassifier: balance='gradient' takes no parameter 'weight'. It takes"
            r" \['alpha', 'noise'\]",
        ),
        (
            {"balance_params": {"alpha": 1}},
            "balance=None takes no parameter 'alpha'. It takes no",
        ),
        (
            {"balance": "gradient", "balance_params": {"alpha": -1}},
            "'alpha' in balance_params is -1. Give a number that is at least 0",
        ),
        ({"balance": "auxiliary", "balance_params": {"weight": "1"}}, "'weight' .* is '1'"),
    ],
)
def test_refused(options, message):
    X, y = labeled(40)
    with pytest.raises(ValueError, match=message):
        classifier(**options).fit(X, y)


# --- what it is for ----------------------------------------------------------------------------


def one_is_quick(seed, n=3000):
    """Classes by a product of two numbers, which ``quick`` gives away in 80 rows of 100."""
    rng = np.random.default_rng(seed)
    slow, quick = rng.normal(size=(n, 12)), rng.normal(size=(n, 60))
    y = np.where(slow[:, 0] * slow[:, 1] > 0, 1, -1)
    quick[:, 0] += 3 * np.where(rng.random(n) < 0.8, y, -y)
    blocks = {"quick": quick.astype(np.float32), "slow": slow.astype(np.float32)}
    return pd.DataFrame({name: list(block) for name, block in blocks.items()}), y


@pytest.mark.slow
def test_each_mode_helps_where_one_modality_is_learned_faster():
    """The quick one is learned by heart before the slow one says anything."""
    triples = [(name, "passthrough", [name]) for name in ("quick", "slow")]
    accuracy = {}
    for seed in range(2):
        X, y = one_is_quick(seed)
        for balance in (None, *MODES):
            model = JointFusionClassifier(
                triples, n_components=64, trainer=Trainer(validation_fraction=0.2), balance=balance,
                random_state=seed,
            )  # fmt: skip
            score = model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:])
            accuracy.setdefault(balance, []).append(score)
    means = {balance: np.mean(scores) for balance, scores in accuracy.items()}
    for balance in MODES:
        assert means[balance] > means[None] + 0.005, accuracy
