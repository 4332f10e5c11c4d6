"""Tokens in a joint fusion: they tell what their mean does not, of any number in any batch."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import NumbersRead, with_trainer
from sequences import Tokens, column, hidden_pairs, sequences
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

import skmm._compose._sequence_block as sequence_module
from skmm import ImageEncoder, JointFusionClassifier, JointFusionRegressor, TextEncoder
from skmm._compose._base import Modality
from skmm._compose._sequence_block import SequenceBlock, TokenValues, thinned
from skmm.datasets import make_multimodal_classification
from skmm.fusion._strategies import STRATEGIES

TRIPLES = [("text", Tokens(), ["text"]), ("photo", Tokens(), ["photo"])]
FAST = {"n_components": 16, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}


def frame(n=80, **options):
    return pd.DataFrame(
        {"text": sequences(n, 3, **options), "photo": sequences(n, 4, **{"seed": 1, **options})}
    )


def classifier(**options):
    options = {**FAST, "max_epochs": 2, "granularity": "sequence", **options}
    return JointFusionClassifier(TRIPLES, **with_trainer(**options))


class Noting(nn.Module):
    """A strategy that keeps what it is given."""

    def __init__(self, n_features, n_components, *, dropout=0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_components))
        self.n_features = dict(n_features)

    def forward(self, tokens, masks):
        self.tokens, self.masks = tokens, masks
        return self.bias.expand(len(next(iter(masks.values()))), -1)


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["attention"])
def test_attention_learns_from_tokens_what_their_mean_does_not_hold(strategy):
    """Which word meets which patch: the mean of either modality is zero in every row."""
    X, y = hidden_pairs(700)
    scores = {}
    for granularity in ("pooled", "sequence"):
        model = classifier(
            strategy=strategy, granularity=granularity, max_epochs=25, modality_dropout=0.0,
            dropout=0.0, early_stopping=False,
        )  # fmt: skip
        scores[granularity] = model.fit(X[:500], y[:500]).score(X[500:], y[500:])
    assert scores["sequence"] > 0.95
    assert scores["pooled"] < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_takes_sequences(strategy):
    """Values after the last token of a row, and how much of it, changes nothing."""
    X, y = frame(), np.arange(80) % 2
    X.loc[[3, 7], "text"] = None
    X.loc[7, "photo"] = None
    model = classifier(strategy=strategy, max_epochs=1).fit(X, y)
    together = model.predict_proba(X)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together[7], [0.5, 0.5])
    alone = np.vstack([model.predict_proba(X.iloc[[i]]) for i in range(10)])
    np.testing.assert_allclose(alone, together[:10], rtol=1e-3, atol=1e-5)
    longer = frame(20, shortest=7, longest=15, seed=4)
    assert np.isfinite(model.predict_proba(longer)).all()


def test_pooling_strategies_take_the_mean_of_the_tokens():
    X = frame(30)
    model = classifier(strategy="mean", max_epochs=1).fit(X, np.arange(30) % 2)
    means = X.map(lambda cell: cell.mean(axis=0, keepdims=True).astype(np.float32))
    np.testing.assert_allclose(model.predict_proba(means), model.predict_proba(X), rtol=1e-4)


@pytest.mark.slow
def test_values_are_predicted_from_sequences():
    X = frame(300)
    largest = np.array([cell[:, 0].max() for cell in X["text"]])
    model = JointFusionRegressor(
        TRIPLES, **with_trainer(strategy="attention", granularity="sequence", max_epochs=30, **FAST)
    )
    assert model.fit(X[:220], largest[:220]).score(X[220:], largest[220:]) > 0.7


def test_copies_and_pickles():
    X, y = frame(40), np.arange(40) % 2
    model = classifier(max_tokens=3).fit(X, y)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), expected)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), expected)


# --- what goes in ------------------------------------------------------------------------------


def test_tokens_are_standardized_over_those_that_exist():
    X, y = frame(50), np.arange(50) % 2
    X.loc[5, "text"] = None
    model = classifier(strategy=Noting, max_epochs=1, early_stopping=False).fit(X, y)
    model.predict_proba(X)
    every = np.concatenate([cell for cell in X["text"] if cell is not None]).astype(float)
    tokens, mask = (part["text"].numpy() for part in (model.module_.fusion.tokens,
                                                      model.module_.fusion.masks))  # fmt: skip
    assert tokens.shape == (50, 6, 3) and tokens.dtype == np.float32
    for row, cell in enumerate(X["text"]):
        if cell is None:
            assert not mask[row].any() and not tokens[row].any()
            continue
        assert mask[row].tolist() == [True] * len(cell) + [False] * (6 - len(cell))
        expected = (cell - every.mean(axis=0)) / every.std(axis=0)
        np.testing.assert_allclose(tokens[row, : len(cell)], expected, atol=1e-5)
        assert not tokens[row, len(cell) :].any()


def test_constant_and_extreme_tokens():
    values = np.ones((3, 2, 2), dtype=np.float32)
    values[:, :, 1] = [[1e30, -1e30], [0, 0], [5, 5]]
    block = TokenValues(values, np.array([[1, 1], [1, 0], [0, 0]], dtype=bool))
    assert block.present.tolist() == [True, True, False]
    mean, deviation = block.scale()
    np.testing.assert_allclose(mean, [1.0, 0.0], atol=1e14)
    assert deviation[0] == 1.0 and deviation[1] == pytest.approx(1e30 * np.sqrt(2 / 3))
    block.standardize(np.zeros(2), np.full(2, 1e-3), 20.0)
    assert block.values[0, 0].tolist() == [20.0, 20.0] and not block.values[2].any()


def test_pipelines_and_numbers_are_one_token():
    X = frame(20).assign(price=np.arange(20.0))
    triples = [
        ("text", make_pipeline(Tokens(), FunctionTransformer()), ["text"]),
        ("photo", Tokens(), ["photo"]),
        ("price", "passthrough", ["price"]),
    ]
    model = JointFusionClassifier(
        triples, **with_trainer(strategy=Noting, granularity="sequence", max_epochs=1, **FAST)
    ).fit(X, np.arange(20) % 2)
    model.predict(X)
    shapes = {name: tuple(t.shape) for name, t in model.module_.fusion.tokens.items()}
    assert shapes == {"text": (20, 1, 3), "photo": (20, 6, 4), "price": (20, 1, 1)}
    assert model.module_.fusion.n_features == {"text": 3, "photo": 4, "price": 1}


@pytest.mark.slow
def test_networks_trained_here_give_their_tokens():
    X, y = make_multimodal_classification(
        60, modalities={"photo": "image", "review": "text"}, image_size=12, random_state=0
    )
    X["review"] = [" ".join(text.split()[: 3 + i % 9]) for i, text in enumerate(X["review"])]
    X.loc[X.index[4], "review"] = None
    triples = [
        ("photo", ImageEncoder("cnn", n_components=8), ["photo"]),
        ("review", TextEncoder("gru", n_components=8), ["review"]),
    ]
    options = {**FAST, "max_epochs": 1, "granularity": "sequence", "strategy": Noting}
    model = JointFusionClassifier(triples, **with_trainer(**options)).fit(X, y)
    model.predict(X)
    tokens, masks = model.module_.fusion.tokens, model.module_.fusion.masks
    lengths = masks["review"].sum(dim=1)
    assert tokens["photo"].shape[1] > 1 and tokens["review"].shape[::2] == (60, 8)
    assert lengths[4] == 0 and len(set(lengths.tolist())) > 5
    model = JointFusionClassifier(triples, **with_trainer(**options, max_tokens=2)).fit(X, y)
    model.predict(X)
    assert model.module_.fusion.tokens["photo"].shape == (60, 2, 8)
    # Gradients reach the networks through the tokens.
    options.update(strategy="attention", learning_rate=5e-3)
    learned = JointFusionClassifier(triples, **with_trainer(**options)).fit(X, y)
    frozen = JointFusionClassifier(
        triples, **with_trainer(**{**options, "learning_rate": 1e-12})
    ).fit(X, y)
    for name in ("photo", "review"):
        pairs = zip(
            learned.module_.encoders.network_of(name).parameters(),
            frozen.module_.encoders.network_of(name).parameters(),
            strict=True,
        )
        assert any(not torch.allclose(a, b, atol=1e-4) for a, b in pairs)


class Maskless(TransformerMixin, BaseEstimator):
    """A third party's encoder whose network gives tokens without a mask."""

    needs_training = True

    def start_training(self, X, y=None):
        network = nn.Linear(1, 3)
        network.width = 3
        from skmm.backbones import Encoded

        network.forward = lambda read: Encoded(
            nn.Linear.forward(network, read.x)[:, None].expand(-1, 4, -1), None, None
        )
        return network

    def fit(self, X, y=None):
        raise AssertionError("to be trained under the head")

    def training_tensors(self, X):
        return NumbersRead.of(X)

    def end_training(self, network):
        self.fitted_ = True

    def transform(self, X):
        return X.to_numpy(np.float32)


def test_network_without_a_mask():
    X = pd.DataFrame({"value": np.arange(20.0)})
    model = JointFusionClassifier(
        [("own", Maskless(), ["value"])],
        **with_trainer(strategy=Noting, granularity="sequence", max_epochs=1, **FAST),
    ).fit(X, np.arange(20) % 2)
    model.predict(X)
    assert model.module_.fusion.masks["own"].shape == (20, 4)
    assert model.module_.fusion.masks["own"].all()


def test_a_cell_without_tokens_is_absent():
    X, y = frame(40), np.where(np.arange(40) < 10, "a", "b")
    X["text"] = [np.empty((0, 3), dtype=np.float32) if i == 6 else c for i, c in
                 enumerate(X["text"])]  # fmt: skip
    X.loc[6, "photo"] = None
    model = classifier(max_epochs=1).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X)[6], [0.25, 0.75])


def test_a_column_may_be_empty_at_prediction():
    X, y = frame(40), np.arange(40) % 2
    model = classifier(max_epochs=1).fit(X, y)
    assert np.isfinite(model.predict_proba(X.assign(photo=None))).all()


# --- at most so many ---------------------------------------------------------------------------


def evenly(n, most):
    """Positions that are kept of ``n`` tokens."""
    if n <= most:
        return list(range(n))
    if most == 1:
        return [0]
    return [int(np.floor(j * (n - 1) / (most - 1) + 0.5)) for j in range(most)]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 12])
def test_kept_tokens_are_spaced_evenly(most):
    rng = np.random.default_rng(most)
    mask = rng.random((40, 11)) < 0.7  # what exists is anywhere
    mask[0], mask[1] = False, True
    tokens = rng.normal(size=(40, 11, 2)).astype(np.float32)
    kept, exists = (
        part.numpy() for part in thinned(torch.from_numpy(tokens), torch.from_numpy(mask), most)
    )
    assert kept.shape == (40, min(most, 11), 2)
    for row in range(40):
        there = tokens[row][mask[row]]
        expected = there[evenly(len(there), most)]
        np.testing.assert_array_equal(kept[row][exists[row]], expected)


def test_no_limit_leaves_tokens_as_they_are():
    tokens, mask = torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    for most in (None, 5, 9):
        assert thinned(tokens, mask, most)[0] is tokens


def test_limit_in_pieces_and_at_prediction(monkeypatch):
    X = frame(50, longest=12)
    X.loc[9, "text"] = None
    modality = Modality("text", Tokens(), ["text"])
    whole = SequenceBlock(modality, 0, max_tokens=4)
    expected = whole.fit_transform(X)
    assert expected.values.shape == (50, 4, 3)
    monkeypatch.setattr(sequence_module, "_PIECE", 7)
    pieces = SequenceBlock(modality, 0, max_tokens=4)
    found = pieces.fit_transform(X)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(pieces.transform(X).values, expected.values)
    np.testing.assert_allclose(pieces.mean, whole.mean)


@pytest.mark.parametrize("options", [{"granularity": "token"}, {"max_tokens": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=f"'{next(iter(options))}' parameter"):
        classifier(**options).fit(frame(10), np.arange(10) % 2)


# --- what goes wrong ---------------------------------------------------------------------------


class Wrong(Tokens):
    """Gives what a test asks for."""

    def __init__(self, tokens=None, mask=None):
        self.tokens = tokens
        self.mask = mask

    def transform_sequence(self, X):
        return self.tokens, self.mask


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (np.zeros((4, 3)), np.ones((4, 3)), r"gave tokens of shape \(4, 3\)"),
        (np.zeros((3, 2, 2)), np.ones((3, 2)), r"gave .* for 4 rows. A fusion needs"),
        (np.zeros((4, 2, 2)), np.ones((4, 3)), r"gave .* and a mask of shape \(4, 3\)"),
        (np.full((4, 2, 2), np.nan), np.ones((4, 2)), "gave NaN or an infinite value in a token"),
    ],
)
def test_useless_sequences_are_named(tokens, mask, message):
    model = JointFusionClassifier([("text", Wrong(tokens, mask), ["text"])], granularity="sequence")
    with pytest.raises(ValueError, match="of modality 'text' " + message):
        model.fit(frame(4)[["text"]], [0, 1, 0, 1])


def test_tokens_of_another_width_are_refused():
    X = frame(20)
    model = classifier(max_epochs=1).fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="tokens of 3 features in fit and has tokens of 2 now"):
        model.predict(X.assign(text=column([cell[:, :2] for cell in X["text"]])))
