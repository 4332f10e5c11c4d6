"""What stands for an absent modality: nothing, a learned token, a guess or zeros."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import TRIPLES, views, with_trainer
from sequences import Tokens, sequences
from sklearn.base import clone
from torch import nn

from skmm import ImageEncoder, JointFusionClassifier, JointFusionRegressor
from skmm._training._batches import Batch, FeatureInputs
from skmm._training._module import JointModule, ModalityEncoders, make_imputer
from skmm.datasets import make_multimodal_classification
from skmm.fusion import make_strategy
from skmm.fusion._strategies import STRATEGIES
from skmm.nets._layers import Head

MODES = ["mask", "token", "impute", "zero"]
WIDTHS = {"a": 3, "b": 5, "c": 2}
FAST = {"n_components": 16, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}


def joint_module(missing, strategy="concat", *, modality_dropout=0.0):
    torch.manual_seed(0)
    imputer = make_imputer(missing, WIDTHS, 8)
    if imputer is not None:  # as after some training
        for parameter in imputer.parameters():
            nn.init.normal_(parameter, std=0.3)
    fusion = make_strategy(strategy).build(WIDTHS, 8, dropout=0.0)
    encoders = ModalityEncoders(
        list(WIDTHS), {}, modality_dropout=modality_dropout, imputer=imputer
    )
    return JointModule(encoders, fusion, Head(8, 2), 8)


def batch(n=12, *, n_tokens=None):
    """Inputs of a module; row 0 has everything, others lack up to all three modalities."""
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for i, (name, width) in enumerate(WIDTHS.items()):
        shape = (n, width) if n_tokens is None else (n, n_tokens, width)
        values = torch.randn(shape, generator=generator)
        present = torch.arange(n) >> i & 1 == 0
        mask = None
        if n_tokens is not None:
            mask = torch.rand((n, n_tokens), generator=generator) < 0.6
            mask = mask | (torch.arange(n_tokens) == 2)
        inputs[name] = FeatureInputs(values, present, mask)
    return Batch(inputs)


def pooled(tokens, mask):
    return (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def trained(missing, X, y, **options):
    options = {**FAST, "max_epochs": 15, "missing": missing, **options}
    return JointFusionClassifier(TRIPLES, **with_trainer(**options)).fit(X, y)


# --- content of what is absent -----------------------------------------------------------------


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("missing", MODES)
def test_content_of_an_absent_modality_changes_nothing(missing, strategy):
    n_tokens = 3 if strategy in ("mean", "attention", "cross_attention", "bottleneck") else None
    module, inputs = joint_module(missing, strategy).eval(), batch(8, n_tokens=n_tokens)
    expected = module(inputs)
    assert torch.isfinite(expected).all()
    for junk in (1e4, float("nan")):
        other = copy.deepcopy(inputs)
        for own in other.modalities.values():
            own.values[~own.present] = junk
        assert torch.equal(module(other), expected)


@pytest.mark.parametrize("missing", MODES)
def test_gradients_do_not_reach_what_is_absent(missing):
    module, inputs = joint_module(missing), batch()
    for name in WIDTHS:
        inputs.modalities[name].values.requires_grad_()
    module(inputs).square().sum().backward()
    for name in WIDTHS:
        gone = ~inputs.modalities[name].present
        gradient = inputs.modalities[name].values.grad
        assert not gradient[gone].any() and gradient[~gone].any()


# --- what replaces it ------------------------------------------------------------------


@pytest.mark.parametrize("n_tokens", [None, 4])
def test_tokens_and_masks_of_each_mode(n_tokens):
    inputs = batch(n_tokens=n_tokens)
    for missing in ("token", "zero"):
        module = joint_module(missing).eval()
        before, known = module.encoders.gather(inputs)
        tokens, masks = module.encoders.imputer(before, known, known)
        for i, name in enumerate(WIDTHS):
            gone = ~inputs.modalities[name].present
            # A row that has the modality keeps what it has.
            assert torch.equal(tokens[name][~gone], before[name][~gone])
            assert torch.equal(masks[name][~gone], known[name][~gone])
            # Else there is one token.
            assert masks[name][gone].sum(dim=1).eq(1).all() and masks[name][gone, 0].all()
            vector = torch.zeros(1) if missing == "zero" else module.encoders.imputer.vectors[i]
            assert torch.equal(tokens[name][gone, 0], vector.expand(int(gone.sum()), WIDTHS[name]))


def test_imputed_tokens_equal_a_direct_computation():
    """Row by row from the modalities that the row has, and the loss over those it has."""
    module, inputs = joint_module("impute").train(), batch(n_tokens=4)
    net = module.encoders.imputer
    before, known = module.encoders.gather(inputs)
    shown = {name: mask.clone() for name, mask in known.items()}
    shown["b"][0] = False  # hidden by modality dropout: a truth to learn from
    tokens, _ = net(before, shown, known)
    losses = net.take_auxiliary()
    assert net.take_auxiliary() is None
    for row in range(12):
        means = {m: pooled(before[m], shown[m])[row] for m in WIDTHS}
        errors = []
        for i, name in enumerate(WIDTHS):
            there = [bool(shown[m][row].any()) and m != name for m in WIDTHS]
            parts = [
                layer(means[m]) if has else torch.zeros(8)
                for layer, m, has in zip(net.maps, WIDTHS, there, strict=True)
            ]
            joined = torch.cat([*parts, torch.tensor(there, dtype=torch.float32)])
            expected = net.straight[i](joined) + net.nonlinear[i](
                nn.functional.gelu(net.hidden[i](joined))
            )
            if not shown[name][row].any():
                torch.testing.assert_close(tokens[name][row, 0], expected)
            if known[name][row].any() and any(there):
                truth = pooled(before[name], known[name])[row]
                errors.append((expected - truth).square().mean())
        expected_loss = torch.stack(errors).mean() if errors else torch.tensor(0.0)
        torch.testing.assert_close(losses[row], expected_loss)
    module.eval()(inputs)
    assert net.take_auxiliary() is None


def test_imputing_does_not_train_the_encoders():
    module, inputs = joint_module("impute").train(), batch()
    inputs.modalities["a"].values.requires_grad_()
    module(inputs)
    module.take_auxiliary().sum().backward()
    assert inputs.modalities["a"].values.grad is None
    assert all(p.grad is not None and p.grad.any() for p in module.encoders.imputer.parameters())


def test_learned_tokens_learn_from_absent_rows_and_from_dropout():
    X, score = views(120)
    y = (score > 0).astype(int)
    moved = [trained("token", X, y, max_epochs=3, modality_dropout=p) for p in (0.0, 0.3)]
    vectors = [model.module_.encoders.imputer.vectors for model in moved]
    assert not any(vector.any() for vector in vectors[0])  # nothing was ever absent
    assert all(vector.any() for vector in vectors[1])
    X.loc[::3, "photo"] = None
    again = trained("token", X, y, max_epochs=3, modality_dropout=0.0)
    vectors = again.module_.encoders.imputer.vectors
    assert [bool(v.any()) for v in vectors] == [False, True, False]  # numbers, photo, text


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("missing", MODES)
def test_every_mode_learns_with_modalities_missing(missing):
    X, score = views(700, missing=0.25)
    y = (score > 0).astype(int)
    model = trained(missing, X[:500], y[:500])
    kept = X[500:].notna().any(axis=1)
    assert (model.predict(X[500:]) == y[500:])[kept].mean() > 0.75
    values = JointFusionRegressor(TRIPLES, **with_trainer(missing=missing, max_epochs=15, **FAST))
    assert values.fit(X[:500], score[:500]).score(X[500:], score[500:]) > 0.4


def imputed_error(model, X, name):
    """Mean squared error of the token of an absent modality, over its variance."""
    module, inputs = model.module_, model._inputs
    whole = module.encoders.gather(inputs.batch(X))[0][name][:, 0]
    tokens, known = module.encoders.gather(inputs.batch(X.assign(**{name: None})))
    with torch.no_grad():
        guess = module.encoders.imputer(tokens, known, known)[0][name][:, 0]
    return float((guess - whole).square().mean() / whole.square().mean())


@pytest.mark.slow
def test_a_modality_that_another_determines_is_imputed():
    """One is a linear map of the other: zeros have an error of one, the average of it."""
    rng = np.random.default_rng(0)
    photo, mixing = rng.normal(size=(700, 6)), rng.normal(size=(6, 4))
    X = pd.DataFrame({"photo": list(photo), "text": list(photo @ mixing)})
    y = (photo[:, 0] > 0).astype(int)
    X.loc[rng.random(700) < 0.3, "text"] = None
    triples = [("photo", "passthrough", ["photo"]), ("text", "passthrough", ["text"])]
    errors = {}
    for missing in ("impute", "zero"):
        model = JointFusionClassifier(
            triples, **with_trainer(missing=missing, max_epochs=20, early_stopping=False, **FAST)
        ).fit(X[:500], y[:500])
        new = X[500:].dropna()
        errors[missing] = imputed_error(model, new, "text")
    assert errors["zero"] == pytest.approx(1.0)
    assert errors["impute"] < 0.1


@pytest.mark.slow
def test_an_imputed_modality_is_used():
    """The class is in what is imputed, by a module that was never shown it absent."""
    X, score = views(500, strength=(1.0, 0.0, 0.0))
    X["text"] = [np.float32([cell[0], -cell[1], cell[2]]) for cell in X["photo"]]
    y = (score > 0).astype(int)
    triples = [TRIPLES[0], TRIPLES[1]]
    model = JointFusionClassifier(
        triples, **with_trainer(missing="impute", modality_dropout=0.0, max_epochs=15, **FAST)
    ).fit(X[:350], y[:350])
    for name in ("photo", "text"):
        assert model.score(X[350:].assign(**{name: None}), y[350:]) > 0.85


def test_loss_of_imputing_is_of_the_training_alone():
    """The held-out loss, by which training stops, is that of the task."""
    X, score = views(120)
    y = (score > 0).astype(int)
    options = {"max_epochs": 1, "learning_rate": 1e-12, "dropout": 0.0, "modality_dropout": 0.0}
    losses = trained("impute", X, y, **options).history_[0]
    # Untrained, it predicts zeros, and features are of variance one.
    assert losses["train_loss"] - losses["valid_loss"] == pytest.approx(1.0, abs=0.2)
    plain = trained("zero", X, y, **options).history_[0]
    assert plain["train_loss"] == pytest.approx(plain["valid_loss"], abs=0.2)


@pytest.mark.parametrize("missing", MODES)
def test_rows_of_weight_zero_are_not_learned_from(missing):
    X, score = views(100)
    y, weight = (score > 0).astype(int), np.where(np.arange(100) % 4 == 0, 0.0, 1.0)
    model = JointFusionClassifier(TRIPLES, **with_trainer(missing=missing, max_epochs=3, **FAST))
    expected = model.fit(X, y, sample_weight=weight).predict_proba(X)
    model.fit(X, np.where(weight == 0, 1 - y, y), sample_weight=weight)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-4)


# --- removed at prediction ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["concat"])
def test_without_a_modality_as_good_as_trained_without_it(strategy):
    """Mask and modality dropout: within two points, over seeds, and above the prior."""
    losses, above = [], []
    for seed in range(3):
        X, score = views(2400, seed=seed, noise=0.5, strength=(1.0, 0.7, 0.5))
        y = (score > 0.3).astype(int)
        train, test = slice(0, 400), slice(400, 2400)
        prior = max(y[test].mean(), 1 - y[test].mean())
        options = {**FAST, "max_epochs": 12, "strategy": strategy, "learning_rate": 2e-3,
                   "random_state": seed}  # fmt: skip
        model = JointFusionClassifier(TRIPLES, **with_trainer(modality_dropout=0.3, **options))
        model.fit(X[train], y[train])
        for name, _, columns in TRIPLES:
            others = [triple for triple in TRIPLES if triple[0] != name]
            alone = JointFusionClassifier(others, **with_trainer(**options)).fit(X[train], y[train])
            removed = model.score(X[test].assign(**dict.fromkeys(columns)), y[test])
            losses.append(alone.score(X[test], y[test]) - removed)
            above.append(removed - prior)
    error = np.std(losses, ddof=1) / np.sqrt(len(losses))
    assert np.mean(losses) < 0.02 + 2 * error
    assert min(above) > 0


def two_views_of_a_product(n, seed):
    """Both views tell the class, the sign of a product; one of them far more clearly."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 2))
    mixing = np.random.default_rng(9).normal(size=(2, 2, 6))
    clear = latent @ mixing[0] + 0.1 * rng.normal(size=(n, 6))
    noisy = latent @ mixing[1] + 0.8 * rng.normal(size=(n, 6))
    X = pd.DataFrame({"clear": list(clear), "noisy": list(noisy)})
    return X, (latent[:, 0] * latent[:, 1] > 0).astype(int)


@pytest.mark.slow
def test_without_a_dominant_modality():
    """Where one modality outshines another, dropout is what keeps the other in use."""
    triples = [(name, "passthrough", [name]) for name in ("clear", "noisy")]
    options = {**FAST, "strategy": "gated", "n_iter_no_change": 20}
    losses, without_dropout = [], []
    for seed in range(2):
        X, y = two_views_of_a_product(2500, seed)
        train, test = slice(0, 500), slice(500, 2500)
        without_clear = X[test].assign(clear=None)
        scores = []
        for modalities, dropout, epochs in (
            (triples[1:], 0.1, 80),
            (triples, 0.3, 80),
            (triples, 0.0, 25),
        ):
            model = JointFusionClassifier(
                modalities, **with_trainer(modality_dropout=dropout, max_epochs=epochs,
                **{**options, "random_state": seed}),
            )  # fmt: skip
            scores.append(model.fit(X[train], y[train]).score(without_clear, y[test]))
        losses.append(scores[0] - scores[1])
        without_dropout.append(scores[0] - scores[2])
        assert scores[1] > max(y[test].mean(), 1 - y[test].mean()) + 0.1
    assert np.mean(losses) < 0.06
    assert np.mean(without_dropout) > 0.09


@pytest.mark.slow
@pytest.mark.parametrize("missing", MODES)
def test_never_missing_in_training(missing):
    X, score = views(1300, strength=(1.0, 1.0, 0.0))
    y = (score > 0).astype(int)
    model = trained(missing, X[:300], y[:300], modality_dropout=0.3)
    # What the text alone says is three quarters.
    assert model.score(X[300:].assign(photo=None), y[300:]) > 0.68
    assert model.score(X[300:], y[300:]) > 0.82


@pytest.mark.parametrize("missing", MODES)
def test_rows_without_anything_get_the_prior(missing):
    X, score = views(90)
    y = np.where(np.arange(90) < 30, "a", "b")
    model = trained(missing, X, y, max_epochs=1)
    nothing = X.assign(**dict.fromkeys(X.columns))
    np.testing.assert_allclose(model.predict_proba(nothing), np.tile([1 / 3, 2 / 3], (90, 1)))
    assert np.isfinite(model.transform(nothing)).all()


# --- with the rest -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("missing", MODES)
def test_copies_pickles_and_warm_start(missing):
    X, score = views(100, missing=0.2)
    y = (score > 0).astype(int)
    model = trained(missing, X, y, max_epochs=2, warm_start=True)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), expected)
    np.testing.assert_array_equal(copy.deepcopy(model).predict_proba(X), expected)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), expected)
    assert model.partial_fit(X, y).fit(X, y).n_iter_ == 5


def test_a_copy_in_the_middle_of_a_batch():
    module = joint_module("impute").train()
    module(batch())
    assert copy.deepcopy(module).take_auxiliary() is None
    assert module.take_auxiliary() is not None


@pytest.mark.slow
@pytest.mark.parametrize("missing", MODES)
def test_sequences_and_networks(missing):
    X, y = make_multimodal_classification(
        60, modalities={"photo": "image"}, image_size=12, missing_rate=0.2, random_state=0
    )
    X["words"] = sequences(60, 3).to_numpy()
    X.loc[X.index[5:15], "words"] = None
    model = JointFusionClassifier(
        [("photo", ImageEncoder("cnn", n_components=8), ["photo"]), ("words", Tokens(), ["words"])],
        **with_trainer(
            granularity="sequence", strategy="attention", missing=missing, max_epochs=2, **FAST
        ),
    ).fit(X, y)
    together = model.predict_proba(X)
    alone = np.vstack([model.predict_proba(X.iloc[[i]]) for i in range(12)])
    np.testing.assert_allclose(alone, together[:12], rtol=1e-3, atol=1e-5)


def test_unknown_mode():
    X, y = views(20)
    with pytest.raises(ValueError, match="'missing' parameter .*'impute'.* Got 'impte'"):
        trained("impte", X, y > 0)
