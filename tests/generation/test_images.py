"""ImageGenerator: agreement with the rows, noise, guidance, missing modalities, collapse."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer
from sequences import Tokens
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline

from skmm import ImageEncoder, ImageGenerator, TextEncoder
from skmm._training import _trainer
from skmm.exceptions import ConvergenceError, ModalityMissingError
from skmm.generation import GAN, FlowMatching
from skmm.metrics import make_image_scorer

TRIPLES = [("down", "passthrough", ["down"]), ("right", "passthrough", ["right"])]
SMALL = {"image_size": 8, "n_channels": 8, "n_components": 16}
LEARNS = {
    "flow_matching": {"learning_rate": 3e-3, "batch_size": 32, "max_epochs": 14},
    "gan": {"learning_rate": 2e-3, "batch_size": 16, "max_epochs": 16},
}


def small(method="flow_matching", of_method=None, **params):
    options = {**SMALL, **LEARNS[method], "random_state": 0, **params}
    kinds = {"flow_matching": FlowMatching, "gan": GAN}
    own = {"n_steps": 8} if method == "flow_matching" else {}
    method = kinds[method](**own, **(of_method or {}))
    return ImageGenerator(TRIPLES, method=method, **with_trainer(**options))


def squares(n, seed):
    """Make bright squares on a dark background, up or down, left or right as two vectors say."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 4, n)
    right = np.eye(2)[corner % 2] + 0.1 * rng.standard_normal((n, 2))
    X = pd.DataFrame({"down": list(np.eye(2)[corner // 2]), "right": list(right)})
    y = rng.integers(0, 40, (n, 8, 8)).astype(np.uint8)
    for cell, c in zip(y, corner, strict=True):
        cell[4 * (c // 2) + 1 :, 4 * (c % 2) + 1 :][:2, :2] = rng.integers(160, 256)
    return X, y, corner


def brightest(images):
    """Return the brightest corner of each image."""
    return images.reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(-1, 4).argmax(axis=1)


@pytest.fixture(scope="module")
def rows():
    return squares(160, 0)


@pytest.fixture(scope="module")
def fitted(rows):
    X, y, _ = rows
    return small(modality_dropout=0.2, max_epochs=18).fit(X, y)


@pytest.fixture(scope="module")
def quick(rows):
    """Fit a generator of each method for one epoch."""
    X, y, _ = rows
    return {m: small(m, max_epochs=1).fit(X[:48], y[:48]) for m in LEARNS}


# --- what is learned -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "seed"),
    [
        ("flow_matching", 0),
        pytest.param("gan", 0, marks=pytest.mark.slow),
    ],
)
def test_images_agree_with_their_rows(method, seed):
    X, y, _ = squares(160, seed)
    images = small(method, random_state=seed).fit(X, y)
    new, _, corner = squares(200, seed + 100)
    generated = images.predict(new)
    assert generated.shape == (200, 8, 8) and generated.dtype == np.uint8
    assert np.mean(brightest(generated) == corner) > 0.9
    # The square is bright and the background is dark.
    assert np.mean(generated.max(axis=(1, 2)) > 140) > 0.9 and np.median(generated) < 60
    # Noise makes images of one row differ, beyond rounding.
    same = images.predict(new.iloc[[0] * 40])
    assert np.mean(brightest(same) == corner[0]) > 0.8
    assert same.astype(float).std(axis=0).mean() > 2


@pytest.mark.slow
def test_guidance_makes_images_clearer(fitted):
    new, _, corner = squares(300, 9)
    contrast = []
    for scale in (0.0, 1.0, 3.0):
        generated = (
            copy.copy(fitted).set_params(method__guidance_scale=scale).predict(new).astype(float)
        )
        inside = generated.reshape(-1, 2, 4, 2, 4).max(axis=(2, 4)).reshape(-1, 4)
        own = inside[np.arange(300), corner]
        contrast.append(own.mean() - (inside.sum(axis=1) - own).mean() / 3)
    assert abs(contrast[0]) < 25 and contrast[2] > contrast[1] > contrast[0] + 100


@pytest.mark.slow
def test_rows_without_any_modality_get_unconditional_images(fitted, rows):
    X, _, _ = rows
    nothing = pd.DataFrame({"down": [None] * 200, "right": [None] * 200})
    corners = np.bincount(brightest(fitted.predict(nothing)), minlength=4) / 200
    assert (corners > 0.05).all()  # of all four kinds
    some = X[:4].copy()
    some.loc[[1, 3], ["down", "right"]] = None
    np.testing.assert_allclose(  # the noise depends on the position of a row
        fitted.predict(some)[[0, 2]].astype(int), fitted.predict(X[:4])[[0, 2]].astype(int), atol=1
    )
    with pytest.raises(ModalityMissingError, match="ImageGenerator: 2 of .* is row 1"):
        copy.copy(fitted).set_params(all_missing="raise").predict(some)


@pytest.mark.slow
def test_a_row_without_one_modality_shows_the_other(fitted):
    new, _, corner = squares(200, 7)
    new["right"] = None
    generated = brightest(fitted.predict(new))
    assert np.mean(generated // 2 == corner // 2) > 0.85
    assert 0.2 < np.mean(generated % 2 == corner % 2) < 0.8


@pytest.mark.slow
def test_a_text_encoder_is_trained_with_the_network():
    _, y, corner = squares(160, 3)
    words = np.array(["north", "east", "south", "west"])
    triples = [("words", TextEncoder("gru", n_components=16), ["words"])]
    images = small(n_channels=16, batch_size=16).set_params(modalities=triples)
    images.fit(pd.DataFrame({"words": words[corner]}), y)
    generated = images.predict(pd.DataFrame({"words": np.repeat(words, 30)}))
    assert np.mean(brightest(generated) == np.repeat(np.arange(4), 30)) > 0.75
    assert images.modalities_[0][1].transform(pd.DataFrame({"words": words})).shape == (4, 16)


@pytest.mark.slow
def test_colors_and_opacity(rows):
    X, _, corner = rows
    y = np.zeros((160, 8, 8, 4), np.uint8)  # one half is red, the other is transparent
    for cell, right in zip(y, corner % 2, strict=True):
        cell[:, 4 * right : 4 * right + 4] = 200, 0, 0, 255
    images = small(max_epochs=18).fit(X, y)
    assert images.mode_ == "RGBA"
    generated = images.predict(X)
    assert generated.shape == (160, 8, 8, 4)
    solid, clear = generated[y[..., 3] == 255].astype(int), generated[y[..., 3] == 0].astype(int)
    np.testing.assert_allclose(np.median(solid, axis=0), [200, 0, 0, 255], atol=50)
    assert np.median(clear[:, 3]) < 40


# --- generating ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNS)
def test_the_same_random_state_generates_the_same(quick, rows, method):
    X = rows[0][:30]
    images = copy.copy(quick[method])
    first = images.predict(X)
    np.testing.assert_array_equal(images.predict(X), first)
    # An image does not depend on later rows, nor on the batches.
    np.testing.assert_allclose(images.predict(X[:9]).astype(int), first[:9].astype(int), atol=1)
    try:
        type(images.module_).rows_at_once = 7
        np.testing.assert_allclose(images.predict(X).astype(int), first.astype(int), atol=1)
    finally:
        del type(images.module_).rows_at_once
    other = images.set_params(random_state=1).predict(X)
    assert np.mean(other != first) > 0.5
    state = np.random.RandomState(0)
    images.set_params(random_state=state)
    assert (images.predict(X) != images.predict(X)).any()  # a RandomState continues its stream


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNS)
def test_the_same_seed_trains_the_same(rows, quick, method):
    X, y, _ = rows
    before = torch.random.get_rng_state()
    again = small(method, max_epochs=1).fit(X[:48], y[:48])
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(again.predict(X), quick[method].predict(X))
    assert again.history_ == quick[method].history_


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNS)
def test_pickle_and_clone(quick, rows, method):
    X = rows[0]
    content = pickle.dumps(quick[method])
    loaded = pickle.loads(content)
    expected = quick[method].predict(X)
    np.testing.assert_allclose(loaded.predict(X).astype(int), expected.astype(int), atol=1)
    assert not hasattr(loaded, "net_")
    # Neither the discriminator nor the weights of the last step are kept.
    n_weights = sum(p.numel() for p in loaded.module_.parameters())
    assert len(content) < 4 * n_weights + 60_000
    assert not any("discriminator" in name for name, _ in loaded.module_.named_parameters())
    with pytest.raises(NotFittedError):
        clone(quick[method]).predict(X)


@pytest.mark.slow
def test_search_over_the_method_fits_nothing(fitted, rows, monkeypatch):
    X, y, corner = rows
    images = copy.copy(fitted).set_params(
        scoring=lambda model, X, y: np.mean(brightest(y) == brightest(model.predict(X)))
    )
    grid = {"guidance_scale": [0.0, 2.0], "n_steps": [2, 5], "solver": ["heun"]}
    grid = ParameterGrid({f"method__{name}": values for name, values in grid.items()})
    ways = [FrozenEstimator(copy.copy(images).set_params(**way)) for way in grid]
    monkeypatch.setattr(ImageGenerator, "fit", None)
    search = GridSearchCV(Pipeline([("images", ways[0])]), {"images": ways}, cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"].reshape(2, 2)  # (guidance_scale, n_steps)
    assert (scores[1] > 0.9).all() and (scores[0] < 0.5).all()
    assert search.best_params_["images"].estimator.method.guidance_scale == 2.0
    assert fitted.method.guidance_scale == 2.0 and fitted.method.n_steps == 8
    with pytest.raises(ValueError, match="'n_steps' parameter"):
        images.set_params(method__n_steps=0).predict(X)


# --- score ---------------------------------------------------------------------------------


class Pixels(TransformerMixin, BaseEstimator):
    """Encoder of images by their pixels, which requires a fit."""

    def fit(self, X, y=None):
        self.n_fitted_ = len(X)
        return self

    def transform(self, X):
        return np.stack([np.asarray(cell, dtype=float).ravel() / 255 for cell in X])


@pytest.mark.slow
def test_score(fitted, quick, rows):
    X, y, _ = rows
    y = [None, *y[1:]]
    encoder = Pixels().fit(y)
    generated = copy.copy(fitted).set_params(feature_encoder=encoder)
    expected = make_image_scorer("frechet", encoder=encoder)(fitted, X, y)
    assert generated.score(X, y) == pytest.approx(expected)
    # An encoder that is not fitted is cloned and fitted on the given images.
    unfitted = Pixels()
    assert generated.set_params(feature_encoder=unfitted).score(X, y) == pytest.approx(expected)
    assert not hasattr(unfitted, "n_fitted_")
    # Better images score higher; images of another size are resized to the generated size.
    poor = copy.copy(quick["flow_matching"]).set_params(feature_encoder=encoder)
    assert poor.score(X, y) < expected - 1
    large = [None if cell is None else np.kron(cell, np.ones((2, 2), np.uint8)) for cell in y]
    assert expected - 0.5 < generated.score(X, large) < 0
    pixels = make_image_scorer()
    generated.set_params(scoring=pixels, feature_encoder=None)
    assert generated.score(X, y) == pixels(fitted, X, y)


class Space:
    """Alignment whose vectors encode the bright corner."""

    modality_names_ = ("image", "place")
    modalities_ = (("image", None, ["image"]), ("place", None, ["down", "right"]))

    def transform_modality(self, X, modality):
        if modality == "image":
            return np.eye(4)[brightest(np.stack(list(X)))]
        down, right = (np.stack(list(X[name])).argmax(axis=1) for name in ("down", "right"))
        return np.eye(4)[2 * down + right]


@pytest.mark.slow
def test_score_by_agreement(fitted, rows):
    X, y, corner = rows
    images = copy.copy(fitted).set_params(scoring="alignment", alignment=Space())
    agrees = np.mean(brightest(fitted.predict(X)) == corner)
    assert images.score(X, y) == pytest.approx(agrees)
    with pytest.raises(ValueError, match="scoring='alignment' needs alignment="):
        images.set_params(alignment=None).score(X, y)


def test_generated_images_are_cells_of_an_encoder(quick, rows):
    X = rows[0]
    generated = pd.DataFrame({"photo": list(quick["gan"].predict(X[:3]))})
    encoder = ImageEncoder("cnn", image_size=16, n_components=4, max_epochs=1, random_state=0)
    assert encoder.fit_transform(generated).shape == (3, 4)


# --- training ------------------------------------------------------------------------------


@pytest.mark.slow
def test_history(fitted, quick):
    assert set(fitted.history_[0]) == {"epoch", "train_loss", "valid_loss"}
    assert fitted.history_[-1]["valid_loss"] < 0.6 * fitted.history_[0]["valid_loss"]
    (epoch,) = quick["gan"].history_
    own = {"discriminator_loss", "generator_loss", "spread"}
    assert set(epoch) == own | {"epoch", "train_loss"}
    both = epoch["discriminator_loss"] + epoch["generator_loss"]
    assert epoch["train_loss"] == pytest.approx(both, rel=1e-4)


@pytest.mark.slow
def test_rows_without_an_image_are_not_learned(rows):
    X, y, _ = rows
    X, y, keep = X[:60], list(y[:60]), np.arange(60) % 3 != 1
    options = {"max_epochs": 2, "early_stopping": False}
    # The transformers are fitted on all rows, so both fits need the same statistics.
    X = pd.concat([X[keep]] * 2, ignore_index=True)
    some = [y[i] for i in np.flatnonzero(keep)]
    expected = small(**options).fit(X[:40], some)
    found = small(**options).fit(X, [*some, *[None] * 40])
    np.testing.assert_allclose(
        found.predict(X[:40]).astype(int), expected.predict(X[:40]).astype(int), atol=1
    )
    with pytest.raises(ValueError, match="nothing to learn from: y holds no image"):
        small().fit(X, [None] * 80)


@pytest.mark.slow
def test_early_stopping_restores_the_best_epoch(rows):
    X, y, _ = rows
    noise = np.random.default_rng(0).integers(0, 256, (48, 8, 8)).astype(np.uint8)
    images = small(max_epochs=60, n_iter_no_change=2, dropout=0.0, batch_size=8).fit(X[:48], noise)
    losses = [epoch["valid_loss"] for epoch in images.history_]
    assert images.n_iter_ == np.argmin(losses) + 1 + 2 < 60


@pytest.mark.parametrize("method", LEARNS)
def test_a_training_that_diverges_raises(rows, method):
    X, y, _ = rows
    images = small(method, learning_rate=1e30, early_stopping=False, max_grad_norm=None)
    with pytest.raises(
        ConvergenceError, match="the loss is (nan|inf) in epoch .* Use a learning_rate below"
    ):
        images.fit(X[:32], y[:32])
    assert not hasattr(images, "module_")


@pytest.mark.slow
def test_a_collapsed_generator_raises(rows):
    X, y, _ = rows
    images = small("gan", {"discriminator_learning_rate": 1e-6, "patience": 3}, learning_rate=3.0)
    with pytest.raises(ConvergenceError, match="same image for every row in 3 epochs. Lower"):
        images.fit(X, y)
    # The same image for all rows is no collapse if the real images are the same.
    alike = small("gan", {"patience": 3}, max_epochs=5).fit(X[:32], y[[0] * 32])
    assert alike.n_iter_ == 5


@pytest.mark.slow
def test_a_discriminator_that_is_never_wrong_raises(rows):
    X, y, _ = rows
    images = small("gan", {"discriminator_learning_rate": 1e-2}, learning_rate=1e-7, max_epochs=60)
    images.set_params(method__patience=3, unconditional_fraction=0.0)
    X = X.iloc[[0] * 64]  # no negatives by another condition
    with pytest.raises(ConvergenceError, match="certain of every image in 3 epochs"):
        images.fit(X, y[:64])


def test_learning_rates_of_both_networks(quick):
    groups = quick["gan"].net_.optimizer_.param_groups
    assert [group["lr"] for group in groups] == [2e-3, 8e-3]
    assert all(group["betas"] == (0.0, 0.99) for group in groups)
    n_weights = [sum(p.numel() for p in group["params"]) for group in groups]
    assert all(n > 1000 for n in n_weights)


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNS)
def test_half_precision(rows, method):
    X, y, _ = rows
    images = small(method, dtype="bfloat16", max_epochs=2).fit(X[:48], y[:48])
    assert all(p.dtype == torch.float32 for p in images.module_.parameters())
    assert np.isfinite(images.history_[-1]["train_loss"])
    assert images.predict(X[:3]).shape == (3, 8, 8)


def test_half_precision_is_used_if_the_device_has_it(rows, monkeypatch):
    """Convolutions are faster in half precision, also if no encoder is trained."""
    monkeypatch.setattr(_trainer, "resolve_dtype", lambda dtype, device: torch.bfloat16)
    X, y, _ = rows
    assert small(max_epochs=1).fit(X[:16], y[:16]).net_.half
    assert not small(max_epochs=1, dtype="float32").fit(X[:16], y[:16]).net_.half


def test_tokens_and_other_strategies(rows):
    X, y, _ = rows
    triples = [("down", Tokens(), ["pair"]), ("right", "passthrough", ["right"])]
    X = X.assign(pair=[np.stack([cell, -cell]) for cell in X["down"]])
    options = {"strategy": "attention", "granularity": "sequence", "max_epochs": 1}
    images = small(**options).set_params(modalities=triples).fit(X, y)
    assert images.predict(X[:3]).shape == (3, 8, 8)


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"method": "diffusion"},
        {"mode": "CMYK"},
        {"solver": "rk4"},
        {"guidance_scale": -1},
        {"unconditional_fraction": 1},
        {"ema_decay": 1},
        {"scoring": "fid"},
    ],
)
def test_bad_parameters_are_refused(rows, params):
    name, images = next(iter(params)), small()
    if name in images.method.get_params():
        params = {f"method__{name}": params[name]}
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        images.set_params(**params).fit(*rows[:2])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alignment": Space()}, "alignment=.* has no effect with scoring='frechet'"),
        (
            {"scoring": "alignment", "feature_encoder": Pixels()},
            "feature_encoder=.* has no effect with scoring='alignment'",
        ),
        ({"max_tokens": 3}, "max_tokens=3 has no effect with granularity='pooled'"),
    ],
)
def test_parameters_without_effect_are_refused(rows, params, message):
    with pytest.raises(ValueError, match=f"ImageGenerator: {message}"):
        small(**params).fit(*rows[:2])


@pytest.mark.parametrize(
    "params", [{"early_stopping": True}, {"max_grad_norm": 1.0}, {"accumulate": 2}]
)
def test_parameters_of_a_trainer_without_effect_on_a_gan_are_refused(rows, params):
    ((name, value),) = params.items()
    effect = "is not supported" if name == "accumulate" else "has no effect"
    message = f"Trainer: {name}={value} {effect} with method='gan'"
    with pytest.raises(ValueError, match=message):
        small("gan", **params).fit(*rows[:2])
    for name in ("validation_fraction", "n_iter_no_change"):
        with pytest.raises(ValueError, match=f"Trainer: {name}=.* has no effect without early_st"):
            small("gan").set_params(**{f"trainer__{name}": 0.5 if "f" in name else 5}).fit(
                *rows[:2]
            )


def test_another_method_than_that_of_fit_is_refused(quick, rows):
    for method, other in (("flow_matching", "gan"), ("gan", "flow_matching")):
        images = copy.copy(quick[method]).set_params(method=other)
        with pytest.raises(ValueError, match="ImageGenerator: method=.* trained by another method"):
            images.predict(rows[0])
    with pytest.raises(ValueError, match="Invalid parameter 'n_steps' for estimator GAN"):
        copy.copy(quick["gan"]).set_params(method__n_steps=3)


def test_parameters_that_do_not_go_together_are_refused(rows):
    X, y, _ = rows
    with pytest.raises(ValueError, match="image_size must be a multiple of 4, got 10"):
        small(image_size=10).fit(X, y)
    with pytest.raises(ValueError, match="There is no strategy 'sorted'"):
        small(strategy="sorted").fit(X, y)
    images = small(unconditional_fraction=0.0, max_epochs=1).fit(X[:40], y[:40])
    with pytest.raises(ValueError, match="guidance_scale=2.0 needs a network that was fitted"):
        images.predict(X)
    assert images.set_params(method__guidance_scale=1).predict(X[:2]).shape == (2, 8, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", LEARNS)
def test_on_the_gpu(rows, method):
    X, y, corner = rows
    images = small(method, device="cuda").fit(X, y)
    generated = images.predict(X)
    assert np.mean(brightest(generated) == corner) > 0.9
    loaded = pickle.loads(pickle.dumps(images)).set_params(device="cpu")
    np.testing.assert_allclose(loaded.predict(X).astype(int), generated.astype(int), atol=3)
