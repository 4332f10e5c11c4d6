"""End to end: pretrained encoders trained under a joint head, and how the net is trained."""

import pickle

import numpy as np
import pytest
import torch
from fusing import Total, views, with_trainer
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from tuning import LORA, deepened, needs_peft, noise_images, parity_texts

from skmm import (
    ImageEncoder,
    JointFusionClassifier,
    JointFusionRegressor,
    TextEncoder,
    config_context,
)
from skmm.encoders import EmbeddingStore

HOW = ["last", "full", LORA]


@pytest.fixture(autouse=True)
def store(tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    with config_context(store=store.folder, device="cpu"):
        yield store
    store.close()


@pytest.fixture(scope="module")
def bert(tiny_checkpoint, tmp_path_factory):
    place = tmp_path_factory.mktemp("deep") / "bert"
    return deepened(tiny_checkpoint("bert"), place, initializer_range=0.1)


@pytest.fixture(scope="module")
def vit(tiny_checkpoint, tmp_path_factory):
    return deepened(tiny_checkpoint("vit"), tmp_path_factory.mktemp("deep") / "vit")


@pytest.fixture(scope="module")
def data():
    X, y = parity_texts(60)
    X["size"] = np.arange(60.0)
    X.loc[3, "text"] = None
    return X, y


def fusion(model, how, **options):
    options = {"n_components": 8, "max_epochs": 3, "random_state": 0, **options}
    encoder = TextEncoder(model, fine_tune=how)
    return JointFusionClassifier(
        [("text", encoder, ["text"]), ("size", "passthrough", ["size"])], **with_trainer(**options)
    )


# --- encoders under the head -------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_over_fine_tune_encodes_each_text_once(bert, data, store):
    """3 candidates x 3 folds and a refit, 5 epochs each."""
    X, y = data
    search = GridSearchCV(
        fusion(bert, "frozen", max_epochs=5, early_stopping=False),
        {"text__fine_tune": ["frozen", "last", 1], "max_epochs": [5]},
        cv=3,
    ).fit(X, y)
    n_distinct = X["text"].nunique()
    # Once as a vector, once as far as the last block; "last" and 1 are the same cut.
    assert store.stats()["encoded"] == 2 * n_distinct
    assert len(search.cv_results_["params"]) == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["frozen", *HOW])
def test_encoder_for_hands_back_the_tuned_encoder(bert, data, how):
    X, y = data
    model = fusion(bert, how).fit(X, y)
    encoder = model.encoder_for("text")
    vectors = encoder.transform(X[["text"]])
    assert vectors.shape == (60, 16) and np.isnan(vectors[3]).all()
    if how != "frozen":
        network = model.module_.encoders.network_of("text")
        with torch.no_grad():
            inside = network(encoder.training_tensors(X[["text"]])).pooled.numpy()
        rows = np.arange(60) != 3
        np.testing.assert_allclose(vectors[rows], inside[rows], atol=1e-5)
        frozen = TextEncoder(bert).fit_transform(X[["text"]])
        assert not np.allclose(vectors, frozen, atol=1e-5, equal_nan=True)
    with pytest.raises(ValueError, match="no encoder for 'size'. It has one for each of"):
        model.encoder_for("size")
    with pytest.raises(ValueError, match="no encoder for 'x'"):
        model.encoder_for("x")


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_pickle_clone_and_rows(bert, data, how):
    X, y = data
    model = fusion(bert, how, early_stopping=True).fit(X, y)
    proba = model.predict_proba(X)
    stored = pickle.dumps(model)
    again = pickle.loads(stored)
    np.testing.assert_allclose(again.predict_proba(X), proba, atol=1e-6)
    n_trained = sum(p.numel() for p in model.module_.parameters())
    assert len(stored) < 4 * n_trained + 40_000
    # One set of weights: what is trained on is what the encoder gives.
    again.partial_fit(X, y)
    backbone = again.encoder_for("text")._engine.backbone
    assert backbone is again.module_.encoders.network_of("text").backbone
    alone = np.vstack([model.predict_proba(X.iloc[[i]]) for i in range(6)])
    np.testing.assert_allclose(alone, proba[:6], atol=1e-5)
    np.testing.assert_allclose(clone(model).fit(X, y).predict_proba(X), proba, atol=1e-6)
    assert np.isfinite(model.predict_proba(X.assign(text=None))).all()


def test_warm_start_trains_the_same_weights(bert, data):
    X, y = data
    model = fusion(bert, "last", warm_start=True).fit(X, y)
    weight = model.module_.encoders.networks[0].backbone.weights[0]
    before = weight.detach().clone()
    model.fit(X, y)
    assert model.module_.encoders.networks[0].backbone.weights[0] is weight
    assert not torch.equal(weight, before)


def test_a_checkpoint_shared_by_two_modalities_is_tuned_for_each(bert, data):
    X, y = data
    both = X.assign(other=X["text"][::-1].to_numpy())
    encoder = TextEncoder(bert, fine_tune="last")
    model = JointFusionClassifier(
        [("text", encoder, ["text"]), ("other", encoder, ["other"])],
        n_components=8, max_epochs=2, random_state=0,
    ).fit(both, y)  # fmt: skip
    one, other = (network.backbone.weights[0] for network in model.module_.encoders.networks)
    assert not torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["concat", "attention"])
def test_images_and_texts_as_sequences(bert, vit, data, strategy):
    X, y = data
    X = X.assign(photo=noise_images(60)["photo"])
    model = JointFusionClassifier(
        [
            ("text", TextEncoder(bert, fine_tune="last"), ["text"]),
            ("photo", ImageEncoder(vit, fine_tune="last"), ["photo"]),
        ],
        strategy=strategy, granularity="sequence", n_components=8, max_epochs=2, random_state=0,
    ).fit(X, y)  # fmt: skip
    assert model.predict_proba(X).shape == (60, 2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["last", "full"])
def test_augment_is_for_training_rows_alone(bert, data, how):
    X, y = data
    X = X.assign(text=[f"{cell} {i}" if cell else None for i, cell in enumerate(X["text"])])
    seen = []

    def noted(cell, rng):
        seen.append(cell)
        return cell + " b" * int(rng.integers(3))

    encoder = TextEncoder(bert, fine_tune=how, augment=noted)
    model = JointFusionClassifier(
        [("text", encoder, ["text"])], n_components=8, max_epochs=4, random_state=0
    ).fit(X, y)
    n_held_out = 60 - len(set(seen)) - 1  # one text is missing
    assert 5 <= n_held_out <= 6 and len(seen) == 4 * len(set(seen))
    proba, n = model.predict_proba(X), len(seen)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), proba)
    assert seen[n:] == seen[:n]


# --- how the net is trained --------------------------------------------------------------------


def rates(model):
    return [group["lr"] for group in model.net_.optimizer_.param_groups]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "rate", "expected"),
    [
        ("last", "auto", [5e-5, 1e-3]),
        ("full", "auto", [2e-5, 1e-3]),
        pytest.param("lora", "auto", [2e-4, 1e-3], marks=needs_peft),
        ("last", 0.5, [0.5, 1e-3]),
        ("frozen", "auto", [1e-3]),
    ],
)
def test_encoders_have_a_step_size_of_their_own(bert, data, how, rate, expected):
    X, y = data
    model = fusion(bert, how, encoder_learning_rate=rate, max_epochs=1).fit(X, y)
    assert rates(model) == expected
    encoder, n = model.module_.encoders, model.net_.optimizer_.param_groups[0]["params"]
    if how != "frozen":
        assert {id(p) for p in n} == {id(p) for p in encoder.parameters()}


def test_an_encoder_from_scratch_learns_at_the_head_s_pace(data):
    X, y = data
    triples = [("text", TextEncoder("gru", n_components=4), ["text"])]
    model = JointFusionClassifier(triples, n_components=8, max_epochs=1, random_state=0)
    assert rates(model.fit(X, y)) == [1e-3]
    assert rates(model.set_params(trainer__encoder_learning_rate=0.01).fit(X, y)) == [0.01, 1e-3]


TRIPLES = [("photo", "passthrough", ["photo"]), ("text", "passthrough", ["text"])]
PLAIN = {"n_components": 8, "dropout": 0.0, "modality_dropout": 0.0, "early_stopping": False}


def regressor(**options):
    options = {**PLAIN, "max_epochs": 3, "random_state": 0, **options}
    return JointFusionRegressor(TRIPLES, **with_trainer(strategy=Total, **options))


def test_accumulated_batches_are_one_large_batch():
    X, y = views(100)
    large = regressor(batch_size=16).fit(X, y)
    small = regressor(batch_size=8, accumulate=2).fit(X, y)
    np.testing.assert_allclose(small.predict(X), large.predict(X), rtol=1e-4, atol=1e-5)
    other = regressor(batch_size=8).fit(X, y)
    assert not np.allclose(other.predict(X), large.predict(X), rtol=1e-2)
    weight = np.linspace(0.1, 2, 100)
    large.fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(
        small.fit(X, y, sample_weight=weight).predict(X), large.predict(X), rtol=1e-4, atol=1e-5
    )


def test_no_step_is_longer_than_max_grad_norm():
    """One step of plain gradient descent, of which the clipped one is a multiple."""
    X, y = views(40)
    noted = []

    def weights(**options):
        model = regressor(max_epochs=1, batch_size=40, callbacks=[Norm(noted)], **options)
        return model.fit(X, y)

    weights()
    weights(max_grad_norm=1e-3)
    weights(max_grad_norm=1e6)
    assert noted[0] == noted[2] > 0.1
    assert noted[1] == pytest.approx(1e-3, rel=1e-3)


def test_warmup_raises_all_step_sizes_evenly(bert, data):
    X, y = data
    noted = []
    model = fusion(
        bert, "last", warmup=1.5, batch_size=15, early_stopping=False, callbacks=[Rates(noted)]
    ).fit(X, y)
    # Four steps an epoch: six to grow, and then six as they are.
    grown = np.minimum(np.arange(1, 13) / 6, 1)[:, None]
    np.testing.assert_allclose(noted, grown * [5e-5, 1e-3], rtol=1e-6)
    assert rates(model) == pytest.approx([5e-5, 1e-3])


@pytest.mark.slow
def test_half_precision_is_asked_for_or_a_gpu_s(bert, data):
    X, y = data
    assert not fusion(bert, "last").fit(X, y).net_.half  # on a CPU
    full = fusion(bert, "last", dtype="float32").fit(X, y).predict_proba(X)
    half = fusion(bert, "last", dtype="bfloat16").fit(X, y)
    assert (
        half.net_.half
        and half.module_.encoders.networks[0].backbone.weights[0].dtype == torch.float32
    )
    np.testing.assert_allclose(half.predict_proba(X), full, atol=0.1)
    assert not np.array_equal(half.predict_proba(X), full)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", HOW)
def test_on_a_gpu_and_back(bert, vit, data, how):
    X, y = data
    X = X.assign(photo=noise_images(60)["photo"])
    with config_context(device="cuda"):
        model = JointFusionClassifier(
            [
                ("text", TextEncoder(bert, fine_tune=how), ["text"]),
                ("photo", ImageEncoder(vit, fine_tune=how), ["photo"]),
            ],
            n_components=8, max_epochs=3, random_state=0,
        ).fit(X, y)  # fmt: skip
        assert model.net_.half
        proba = model.predict_proba(X)
        vectors = model.encoder_for("photo").transform(X[["photo"]])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.predict_proba(X), proba, atol=0.05)
    assert next(again.module_.parameters()).device.type == "cpu"
    on_cpu = again.encoder_for("photo").transform(X[["photo"]])
    np.testing.assert_allclose(on_cpu, vectors, atol=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accumulate": 0},
        {"warmup": -1},
        {"max_grad_norm": 0},
        {"encoder_learning_rate": "slow"},
        {"dtype": "float16"},
    ],
)
def test_wrong_parameters(wrong):
    X, y = views(20)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        regressor(**wrong).fit(X, y)


class Noting(Callback):
    """Copies share the list."""

    def __init__(self, noted):
        self.noted = noted

    def __deepcopy__(self, memo):
        return self


class Norm(Noting):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        grads = [p.grad for _, p in named_parameters if p.grad is not None]
        self.noted.append(float(torch.cat([g.flatten() for g in grads]).norm()))


class Rates(Noting):
    def on_batch_end(self, net, training, **kwargs):
        if training:
            self.noted.append([group["lr"] for group in net.optimizer_.param_groups])
