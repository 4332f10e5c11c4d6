"""Encoders trained from scratch under a joint fusion, from raw cells to the class."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import NumbersRead
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression
from torch import nn

from skmm import (
    ImageEncoder,
    JointFusionClassifier,
    JointFusionRegressor,
    ModuleEncoder,
    TabularEncoder,
    TextEncoder,
    Trainer,
)
from skmm.backbones import Encoded
from skmm.datasets import make_multimodal_classification
from skmm.exceptions import ModalityWarning

COLUMNS = ["table_number_0", "table_number_1", "table_category_0", "table_category_1"]


def triples():
    return [
        ("photo", ImageEncoder("cnn", n_components=16), ["photo"]),
        ("review", TextEncoder("gru", n_components=16), ["review"]),
        ("table", TabularEncoder("tokens", n_components=8), COLUMNS),
    ]


@pytest.fixture(scope="module")
def data():
    X, y = make_multimodal_classification(
        420,
        modalities={"photo": "image", "review": "text", "table": "tabular"},
        redundant=0.7,
        missing_rate={"photo": 0.1, "review": 0.1},
        image_size=12,
        random_state=0,
    )
    return X, np.array(["cat", "dog"])[y]


@pytest.fixture(scope="module")
def fitted(data):
    X, y = data
    model = JointFusionClassifier(
        triples(),
        strategy="mean",
        n_components=16,
        max_epochs=12,
        trainer=Trainer(batch_size=32, learning_rate=5e-3),
        random_state=0,
    )
    return model.fit(X[:320], y[:320])


@pytest.mark.slow
def test_encoders_and_head_learn_together(data, fitted):
    X, y = data
    assert fitted.score(X[320:], y[320:]) > 0.7
    assert fitted.module_.encoders.trained == ["photo", "review", "table"]


def test_gradients_reach_every_encoder(data, fitted):
    """Against the same network with its initial weights."""
    X, y = data
    untrained = (
        clone(fitted).set_params(max_epochs=1, trainer__learning_rate=1e-12).fit(X[:320], y[:320])
    )
    for name in ("photo", "review", "table"):
        before = dict(untrained.module_.encoders.network_of(name).named_parameters())
        after = dict(fitted.module_.encoders.network_of(name).named_parameters())
        moved = [key for key in after if not torch.allclose(before[key], after[key], atol=1e-4)]
        assert len(moved) > 0.8 * len(after)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["photo", "review", "table"])
def test_each_encoder_is_a_fitted_transformer_afterwards(data, fitted, name):
    X, y = data
    encoder, columns = next((e, c) for n, e, c in fitted.modalities_ if n == name)
    features = encoder.transform(X[columns])
    present = X[columns].notna().any(axis=1).to_numpy()
    assert np.isnan(features[~present]).all() and np.isfinite(features[present]).all()
    assert len(encoder.get_feature_names_out()) == features.shape[1]
    # What it has learned under the head tells the class to a linear model of its own.
    train = present & (np.arange(len(X)) < 320)
    test = present & (np.arange(len(X)) >= 320)
    alone = LogisticRegression(max_iter=1000).fit(features[train], y[train])
    assert alone.score(features[test], y[test]) > 0.65


def test_parameters_are_untouched(fitted):
    for _, encoder, _ in fitted.modalities:
        assert not hasattr(encoder, "n_outputs_")


@pytest.mark.parametrize("column", ["photo", "review"])
def test_a_column_may_be_empty_at_prediction(data, fitted, column):
    X, y = data
    new = X[320:].copy()
    new[column] = None
    assert fitted.score(new, y[320:]) > 0.6
    one = X.iloc[[330]].assign(**dict.fromkeys(X.columns))
    assert np.isfinite(fitted.predict_proba(one)).all()


def test_predictions_of_a_row_do_not_depend_on_the_others(data, fitted):
    """Texts of a batch are padded to the longest, images may be of any size."""
    X, _ = data
    together = fitted.predict_proba(X[:12])
    alone = np.vstack([fitted.predict_proba(X.iloc[[i]]) for i in range(12)])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_same_seed_same_encoders(data, fitted):
    X, y = data
    again = clone(fitted).fit(X[:320], y[:320])
    np.testing.assert_allclose(again.predict_proba(X), fitted.predict_proba(X), rtol=1e-5)


@pytest.mark.slow
def test_pickle_holds_the_encoders_once(data, fitted):
    X, _ = data
    stored = pickle.dumps(fitted)
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    name, encoder, columns = again.modalities_[0]
    np.testing.assert_array_equal(
        encoder.transform(X[columns]), fitted.modalities_[0][1].transform(X[columns])
    )
    n_bytes = 4 * sum(p.numel() for p in fitted.module_.parameters())
    assert len(stored) < 1.5 * n_bytes + 100_000


@pytest.mark.slow
def test_partial_fit_trains_the_encoders_too(data):
    X, y = data
    model = JointFusionClassifier(
        triples()[:2], n_components=8, trainer=Trainer(learning_rate=5e-3), random_state=0
    ).partial_fit(X[:100], y[:100])
    weights = [p.clone() for p in model.module_.encoders.network_of("review").parameters()]
    model.partial_fit(X[100:200], y[100:200])
    after = list(model.module_.encoders.network_of("review").parameters())
    assert any(not torch.equal(a, b) for a, b in zip(weights, after, strict=True))


@pytest.mark.slow
def test_warm_start_continues_with_the_encoders(data):
    X, y = data
    model = JointFusionClassifier(
        triples()[:2], n_components=8, max_epochs=1, warm_start=True, random_state=0
    ).fit(X, y)
    network = model.module_.encoders.network_of("photo")
    assert model.fit(X, y).module_.encoders.network_of("photo") is network


@pytest.mark.slow
def test_unreadable_images_count_as_absent(data):
    X, y = data[0][["photo"]].copy(), data[1]
    X["photo"] = [cell if i % 3 else b"no image" for i, cell in enumerate(X["photo"])]
    encoder = ImageEncoder("cnn", n_components=4, on_error="missing")
    model = JointFusionClassifier(
        [("photo", encoder, ["photo"])], n_components=8, max_epochs=1, random_state=0
    )
    with pytest.warns(ModalityWarning):
        model.fit(X, y)
    with pytest.warns(ModalityWarning):
        proba = model.predict_proba(X[:30])
    prior = [(y == "cat").mean(), (y == "dog").mean()]
    np.testing.assert_allclose(proba[::3], [prior] * 10)
    assert not np.isclose(proba[1, 0], prior[0])


class ByProtocol(TransformerMixin, BaseEstimator):
    """A third party's encoder: it asks for training and keeps numbers, not the network."""

    needs_training = True

    def fit(self, X, y=None):
        raise AssertionError("to be trained under the head")

    def start_training(self, X, y=None):
        self.y_ = y
        network = nn.Linear(1, 3)
        network.width = 3
        network.forward = lambda read: Encoded(
            read.x[:, None], None, nn.Linear.forward(network, read.x)
        )
        return network

    def training_tensors(self, X):
        return NumbersRead.of(X)

    def end_training(self, network):
        self.weight_ = network.weight.detach().numpy().copy()

    def transform(self, X):
        return X.to_numpy(np.float32) @ self.weight_.T


def test_encoders_are_used_by_protocol(data):
    X, y = data
    own = ByProtocol()
    model = JointFusionClassifier(
        [("own", own, ["table_number_0"])], n_components=8, max_epochs=2, random_state=0
    ).fit(X, y)
    encoder = model.modalities_[0][1]
    assert encoder is not own and set(encoder.y_) == {"cat", "dog"}
    trained = model.module_.encoders.network_of("own").weight.detach().numpy()
    np.testing.assert_array_equal(encoder.weight_, trained)
    model.set_params(warm_start=True).fit(X, y)
    np.testing.assert_array_equal(
        encoder.weight_, model.module_.encoders.network_of("own").weight.detach().numpy()
    )


@pytest.mark.slow
def test_module_of_the_users_is_trained_as_a_copy(data):
    X, score = data[0], (data[1] == "cat").astype(float)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12 * 12 * 3, 8))
    before = [p.clone() for p in module.parameters()]
    own = ModuleEncoder(module, read=lambda cell: cell / np.float32(255), fine_tune="full")
    model = JointFusionRegressor(
        [("photo", own, ["photo"])],
        n_components=8,
        max_epochs=60,
        trainer=Trainer(batch_size=32, learning_rate=2e-3, n_iter_no_change=60),
        random_state=0,
    )
    model.fit(X[:320], score[:320])
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert np.corrcoef(model.predict(X[320:]), score[320:])[0, 1] > 0.5  # untrained: 0.3 at most


class Meeting(nn.Module):
    """Returns only when two threads are in it at once."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2))

    def forward(self, x):
        MEETING.wait()
        return x @ self.weight


MEETING = threading.Barrier(2, timeout=60)


def test_threads_encode_at_the_same_time():
    """Only the training is one at a time: it draws from a generator that the process shares."""
    rng = np.random.default_rng(0)

    def fit(seed):
        X = pd.DataFrame({"cell": list(rng.normal(size=(20, 2)).astype(np.float32))})
        encoder = ModuleEncoder(Meeting(), batch_size=64, store=False)
        modalities = [("cell", encoder, ["cell"])]
        model = JointFusionClassifier(modalities, n_components=4, max_epochs=1, random_state=seed)
        return model.fit(X, np.arange(20) % 2)

    with ThreadPoolExecutor(2) as pool:
        assert all(hasattr(model, "module_") for model in pool.map(fit, [0, 1]))
