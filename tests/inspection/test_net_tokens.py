"""Gradients and attention of joint networks find the planted parts, and gradients add up."""

import numpy as np
import pandas as pd
import pytest
from fusing import TRIPLES, views, with_trainer
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tuning import LORA

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    JointFusionMultiTask,
    JointFusionRegressor,
    LateFusionClassifier,
    TextEncoder,
    TimeSeriesEncoder,
    Trainer,
)
from skmm.fusion import BottleneckFusion
from skmm.inspection import token_attribution

FILLERS = ["red", "warm", "coat", "with", "a", "long", "belt", "and", "two", "pockets"]


class Words(TransformerMixin, BaseEstimator):
    """Frozen encoder of texts with a random vector for each word."""

    def __init__(self, width=16):
        self.width = width

    def fit(self, X, y=None):
        self.vectors_ = {}
        return self

    def __sklearn_is_fitted__(self):
        return True

    def _vector(self, word):
        seed = sum(ord(letter) * 31**i for i, letter in enumerate(word)) % 2**31
        return np.random.default_rng(seed).normal(size=self.width).astype(np.float32)

    def transform_sequence(self, X):
        texts = [str(text).split() for text in np.ravel(X)]
        tokens = np.zeros((len(texts), max(map(len, texts)), self.width), dtype=np.float32)
        mask = np.zeros(tokens.shape[:2], dtype=bool)
        for i, words in enumerate(texts):
            tokens[i, : len(words)] = [self._vector(word) for word in words]
            mask[i, : len(words)] = True
        return tokens, mask

    def transform(self, X):
        tokens, mask = self.transform_sequence(X)
        return tokens.sum(axis=1) / mask.sum(axis=1, keepdims=True)


def texts(n=260, seed=0):
    """Return texts in which one word is informative, and an uninformative number."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    rows, places = [], []
    for label in y:
        row = list(rng.choice(FILLERS, rng.integers(4, 7)))
        places.append(int(rng.integers(0, len(row) + 1)))
        row.insert(places[-1], ["awful", "lovely"][label])
        rows.append(" ".join(row))
    return pd.DataFrame({"review": rows, "size": rng.normal(size=n)}), y, places


def joint(encoder, column="review", **options):
    options = {"n_components": 32, "max_epochs": 12, "early_stopping": False, "random_state": 0} | {
        "modality_dropout": 0.0, "learning_rate": 3e-3
    } | options  # fmt: skip
    triples = [(column, encoder, [column]), ("size", "passthrough", ["size"])]
    return JointFusionClassifier(triples, **with_trainer(**options))


def check_sums(found, tolerance=0.05):
    for one in found:
        assert one.scores.sum() == pytest.approx(one.prediction - one.base, abs=tolerance)


def check_words(found, X, places):
    """Assert that the informative word has the highest score where the text matters."""
    hits = []
    for row, one in enumerate(found):
        assert one.tokens == X["review"].iloc[row].split()
        assert one.scores.shape == (len(one.tokens),)
        if one.prediction - one.base > 0.2:
            hits.append(one.scores.argmax() == places[row])
    assert len(hits) >= 10 and np.mean(hits) >= 0.8


FROZEN = {"strategy": "attention", "granularity": "sequence"}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["attention", "cross_attention"])
def test_attention_finds_the_informative_word(strategy):
    X, y, places = texts()
    strategy = BottleneckFusion(n_layers=2) if strategy == "bottleneck" else strategy
    model = joint(Words(), **FROZEN | {"strategy": strategy}).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.9
    new = X[200:].reset_index(drop=True)
    found = token_attribution(model, new, "review", method="gradient")
    check_words(found, new, places[200:])
    check_sums(found)
    assert [one.target for one in found] == model.predict(new).tolist()
    probabilities = model.predict_proba(new).max(axis=1)
    np.testing.assert_allclose([one.prediction for one in found], probabilities, atol=1e-5)
    rolled = token_attribution(model, new, "review", method="rollout")
    assert all((one.scores >= 0).all() and one.target is None for one in rolled)
    # Attention to a word need not change a prediction: compare averages over rows.
    own = [one.scores[place] for one, place in zip(rolled, places[200:], strict=True)]
    mean = [np.delete(one.scores, p).mean() for one, p in zip(rolled, places[200:], strict=True)]
    assert np.mean(own) > 2 * np.mean(mean)


@pytest.mark.slow
def test_gradients_of_a_trained_text_encoder():
    X, y, places = texts()
    encoder = TextEncoder(model="gru", n_components=32, random_state=0)
    model = joint(encoder, strategy="concat").fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.9
    new = X[200:].reset_index(drop=True)
    found = token_attribution(model, new, "review", method="gradient")
    check_words(found, new, places[200:])
    check_sums(found)
    against = token_attribution(model, new[:5], "review", method="gradient", target=0)
    check_sums(against)
    for one, other in zip(found, against, strict=False):
        sign = 1 if one.target == 0 else -1
        np.testing.assert_allclose(other.scores, sign * one.scores, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["frozen", "last", LORA, "full"])
def test_checkpoints_of_texts(tiny_bert, tuned):
    """Tokens have the names of the tokenizer, and gradients add up."""
    X, y, _ = texts(16)
    encoder = TextEncoder(model=str(tiny_bert), fine_tune=tuned, random_state=0)
    model = joint(encoder, max_epochs=1, trainer=Trainer(batch_size=8), **FROZEN).fit(X, y)
    gradients = token_attribution(model, X[:2], "review", method="gradient", n_steps=32)
    check_sums(gradients)
    attention = token_attribution(model, X[:2], "review", method="rollout")
    for one, two, text in zip(gradients, attention, X["review"], strict=False):
        assert one.tokens == two.tokens and len(two.tokens) == len(two.scores)
        assert one.tokens[0] == "[CLS]" and one.tokens[-1] == "[SEP]"
        assert "".join(one.tokens[1:-1]).replace("##", "") == text.replace(" ", "")


@pytest.mark.slow
def test_patches_of_checkpoints_of_images(tiny_vit):
    rng = np.random.default_rng(0)
    y = np.arange(12) % 2
    photos = list(rng.integers(0, 255, (12, 20, 20, 3)).astype(np.uint8))
    X = pd.DataFrame({"photo": photos, "size": rng.normal(size=12)})
    model = joint(ImageEncoder(model=str(tiny_vit)), "photo", max_epochs=1, **FROZEN).fit(X, y)
    for method in ("gradient", "rollout"):
        (found,) = token_attribution(model, X[:1], "photo", method=method)
        assert found.scores.shape == (4, 4) and found.tokens is None


@pytest.mark.slow
def test_gradients_of_pixels():
    rng = np.random.default_rng(0)
    n = 200
    y = rng.integers(0, 2, n)
    places = rng.integers(0, 24, (n, 2))
    images = rng.integers(90, 110, (n, 32, 32, 3)).astype(np.uint8)
    for image, label, (row, column) in zip(images, y, places, strict=True):
        image[row : row + 8, column : column + 8] = [220, 30, 30] if label else [30, 30, 220]
    X = pd.DataFrame({"photo": list(images), "size": rng.normal(size=n)})
    encoder = ImageEncoder(model="cnn", image_size=32, n_components=32, random_state=0)
    model = joint(encoder, "photo", max_epochs=8).fit(X[:160], y[:160])
    assert model.score(X[160:], y[160:]) > 0.9
    found = token_attribution(model, X[160:180], "photo", method="gradient")
    check_sums(found)
    ratios = []
    for one, (row, column) in zip(found, places[160:180], strict=True):
        assert one.scores.shape == (32, 32) and one.tokens is None
        if one.prediction - one.base > 0.5:  # otherwise the image does not change the prediction
            inside = np.abs(one.scores[row : row + 8, column : column + 8]).mean()
            ratios.append(inside / np.abs(one.scores).mean())
    assert len(ratios) >= 5 and np.mean(ratios) > 1.5


@pytest.mark.slow
def test_gradients_of_the_timestamps_of_a_series():
    rng = np.random.default_rng(0)
    n = 160
    y = rng.integers(0, 2, n)
    places = rng.integers(0, 24, n)
    series = []
    for label, place in zip(y, places, strict=True):
        own = 0.2 * rng.normal(size=30 + int(rng.integers(0, 5)))
        own[place : place + 4] += 2.0 if label else -2.0
        series.append(own.astype(np.float32))
    X = pd.DataFrame({"signal": series, "size": rng.normal(size=n)})
    encoder = TimeSeriesEncoder(model="gru", n_components=16, random_state=0)
    model = joint(encoder, "signal", max_epochs=15).fit(X[:120], y[:120])
    assert model.score(X[120:], y[120:]) > 0.85
    found = token_attribution(model, X[120:], "signal", method="gradient", sampling_rate=10)
    check_sums(found)
    shares = []
    for one, place, own in zip(found, places[120:], series[120:], strict=True):
        assert one.scores.shape == (len(own),) and one.tokens[1] == pytest.approx((0.1, 0.2))
        sizes = np.abs(one.scores)
        shares.append(sizes[place : place + 4].sum() / sizes.sum())
    assert np.mean(shares) > 0.3  # 4 of about 32 timestamps


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["mask", "token"])
def test_regression_and_rows_without_the_modality(missing):
    X, score = views(120, missing=0.3)
    X = X.rename(columns={"photo": "vector"})
    triples = [("vector", "passthrough", ["vector"]), TRIPLES[1]]
    model = JointFusionRegressor(
        triples, strategy="gated", missing=missing, max_epochs=5, random_state=0
    ).fit(X, score)
    found = token_attribution(model, X, "vector", method="gradient", kind="timeseries")
    there = X["vector"].notna().to_numpy()
    assert [one.scores.size > 0 for one in found] == there.tolist()
    check_sums([one for one, here in zip(found, there, strict=True) if here], 0.05 * score.std())
    predictions = model.predict(X)
    for one, predicted, here in zip(found, predictions, there, strict=True):
        assert one.prediction == pytest.approx(predicted, abs=1e-4) if here else not one.tokens


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "ordinal", "max_margin"])
def test_every_loss_is_explained(loss):
    X, score = views(150)
    y = pd.qcut(score, 3, labels=False)
    model = JointFusionClassifier(TRIPLES[:2], loss=loss, max_epochs=5, random_state=0).fit(X, y)
    answers = model.decision_function(X) if loss == "max_margin" else model.predict_proba(X)
    for target in (None, 0, 2):
        found = token_attribution(
            model, X[:20], "photo", method="gradient", kind="timeseries", target=target
        )
        check_sums(found)
        for one, answer in zip(found, answers, strict=False):
            own = answer.max() if target is None else answer[target]
            assert one.prediction == pytest.approx(own, abs=1e-4)
    labels = np.column_stack([score > 0, score > 1]).astype(int)
    model = JointFusionClassifier(TRIPLES[:2], max_epochs=5, random_state=0).fit(X, labels)
    check_sums(model.token_gradients(X[:20], "photo", target=1))


@pytest.mark.slow
def test_rows_do_not_depend_on_their_batch():
    X, y, _ = texts(150)
    model = joint(Words(), max_epochs=1, **FROZEN).fit(X, y)
    for method in ("gradient", "rollout"):
        options = {"method": method} | ({"n_steps": 4} if method == "gradient" else {})
        together = token_attribution(model, X, "review", **options)  # in chunks of 128 rows
        alone = token_attribution(model, X[140:142], "review", **options)
        for one, other in zip(together[140:142], alone, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    assert not model.module_.training
    assert all(parameter.grad is None for parameter in model.module_.parameters())


def test_rollout_sums_to_one_over_all_modalities():
    X, y, _ = texts(60)
    model = joint(Words(), max_epochs=1, **FROZEN).fit(X, y)
    words = model.token_weights(X, "review")
    number = model.token_weights(X, "size")
    total = [own.sum() + other.sum() for own, other in zip(words, number, strict=True)]
    np.testing.assert_allclose(total, 1, atol=1e-5)
    in_pipeline = make_pipeline(model, LogisticRegression()).fit(X, y)
    (found,) = token_attribution(in_pipeline, X[:1], "review", method="rollout")
    assert len(found.tokens) == len(found.scores) == len(X["review"][0].split())


@pytest.mark.slow
def test_estimators_without_a_joint_network_are_refused():
    X, y, _ = texts(60)
    late = LateFusionClassifier([("review", Words(), ["review"])]).fit(X, y)
    with pytest.raises(
        TypeError, match="LateFusionClassifier has no joint network, which method='grad"
    ):
        token_attribution(late, X, "review", method="gradient")
    early = make_pipeline(EarlyFusion([("review", Words(), ["review"])]), LogisticRegression())
    with pytest.raises(TypeError, match="Pipeline has no joint network, which method='rollout'"):
        token_attribution(early.fit(X, y), X, "review", method="rollout")
    concat = joint(Words(), max_epochs=1).fit(X, y)
    with pytest.raises(
        TypeError, match="ConcatFusionModule has no attention to tokens. Take strategy"
    ):
        token_attribution(concat, X, "review", method="rollout")
    with pytest.raises(ValueError, match="target 'x' is not a class"):
        token_attribution(concat, X, "review", method="gradient", target="x")
    with pytest.raises(ValueError, match="JointFusionClassifier has no modality 'words'"):
        concat.token_gradients(X, "words")
    triples = [("review", Words(), ["review"]), ("size", "passthrough", ["size"])]
    tasks = JointFusionMultiTask(triples, max_epochs=1, random_state=0)
    tasks.fit(X, pd.DataFrame({"t": y, "s": np.where(y, "x", "z")}))
    with pytest.raises(TypeError, match="several tasks has no single answer"):
        token_attribution(tasks, X, "review", method="gradient", target=0)
