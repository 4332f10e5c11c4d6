"""Contrastive alignment finds the space that views share."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmm import ContrastiveAlignment, TextEncoder, TimeSeriesEncoder
from skmm.alignment import InfoNCE, MaxMargin, SigLIP, Triplet
from skmm.alignment._contrastive import PairTarget
from skmm.alignment._contrastive_losses import LOSS_SHORTHANDS
from skmm.alignment._recall import encode_contents
from skmm.nets._contrastive import CONTRASTIVE_LOSSES, InfoNCELoss, PairwiseContrast

BATCH_SIZE = 64
FAST = with_trainer(n_components=16, learning_rate=5e-3, batch_size=BATCH_SIZE, max_epochs=25)
FEW = {**FAST, "max_epochs": 3, "random_state": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [
        InfoNCE(),
        InfoNCE(negatives="hard"),
        SigLIP(),
        SigLIP(negatives="semi_hard"),
        Triplet(negatives="semi_hard"),
        MaxMargin(),
        MaxMargin(negatives="hard"),
    ],
    ids=str,
)
def test_finds_what_views_share(loss, views, triples):
    X = views(0)
    alignment = ContrastiveAlignment(triples, loss=loss, random_state=0, **FAST).fit(X[:300])
    assert alignment.score(X[300:]) > 0.2  # chance is 0.01


@pytest.mark.slow
def test_projections(views, triples):
    X = views(1)
    for projection in ("linear", "mlp"):
        alignment = ContrastiveAlignment(
            triples, projection=projection, random_state=0, **FAST
        ).fit(X[:300])
        assert alignment.score(X[300:]) > 0.3
    for loss in ("infonce", "triplet"):
        learned = ContrastiveAlignment(triples, loss=loss, **FEW).fit(X).temperature_
        assert (learned is None) is (loss == "triplet")
    loss = InfoNCE(temperature=0.2, learn_temperature=False)
    fixed = ContrastiveAlignment(triples, loss=loss, **FEW)
    assert fixed.fit(X).temperature_ == pytest.approx(0.2)


@pytest.mark.slow
def test_three_modalities_with_missing_cells(views, triples):
    X = views(2, n_views=3, missing_rate=0.2)
    modalities = [*triples, ("third", "passthrough", ["view_2"])]
    alignment = ContrastiveAlignment(modalities, random_state=0, **FAST).fit(X[:300])
    assert alignment.score(X[300:]) > 0.3
    vectors = alignment.transform_modality(X[["view_2"]], "third")
    np.testing.assert_array_equal(np.isnan(vectors[:, 0]), X["view_2"].isna())
    empty = X.isna().all(axis=1).to_numpy()
    assert empty.any() and not alignment.transform(X)[empty].any()


def test_rows_of_one_modality_are_not_trained_on(views, triples):
    X = views(0)[:120]
    # Each view occurs twice, so that mean and deviation of the features do not change.
    halves = [X.assign(view_1=None), X.assign(view_0=None)]
    alone = ContrastiveAlignment(triples, **FEW).fit(X)
    more = ContrastiveAlignment(triples, **FEW).fit(pd.concat([X, *halves], ignore_index=True))
    np.testing.assert_allclose(more.transform(X), alone.transform(X), atol=1e-3)
    assert more.history_[-1]["train_loss"] == pytest.approx(
        alone.history_[-1]["train_loss"], abs=1e-3
    )


@pytest.mark.slow
def test_equal_contents_are_not_negatives(views, triples):
    """Five captions for all images: images of the same caption are not pushed apart."""
    X = views(0)[:200]
    kinds = np.arange(len(X)) % 5
    noise = 0.1 * np.random.default_rng(0).normal(size=(200, 20))
    images = np.stack(list(X["view_0"]))[kinds] + noise
    X["view_0"] = pd.Series(list(images), index=X.index, dtype=object)
    X["view_1"] = pd.Series([X["view_1"].iloc[k] for k in kinds], index=X.index, dtype=object)
    alignment = ContrastiveAlignment(triples, **{**FEW, "max_epochs": 20}).fit(X)
    seen = []

    class Watch(torch.nn.Module):
        def forward(self, left, right, positive, negative):
            seen.append((positive, negative))
            return (left * right).sum(dim=1)

    batch, target = alignment._inputs.batch(X), PairTarget(Watch(), np.full(200, -1))
    target.criterion()(alignment.module_(batch), target.tensor(target.encode(batch)))
    positive, negative = (mask.numpy() for mask in seen[0])
    np.testing.assert_array_equal(positive, np.eye(200, dtype=bool))
    np.testing.assert_array_equal(negative, kinds[:, None] != kinds[None, :])
    assert len(np.unique(encode_contents(np.stack(list(X["view_1"]))))) == 5
    # If equal contents were negatives, the loss would be at least the logarithm of their number.
    assert alignment.history_[-1]["train_loss"] < 0.3 * np.log(BATCH_SIZE / 5)


@pytest.mark.slow
def test_rows_of_one_class_are_partners(views, triples):
    """With labels of some rows, rows of one class are nearer to each other."""
    X, rng = views(3), np.random.default_rng(0)
    y = rng.integers(0, 4, len(X))
    offsets = 0.8 * rng.normal(size=(2, 4, 20))
    for column, offset in zip(X, offsets, strict=True):
        X[column] = pd.Series(list(np.stack(list(X[column])) + offset[y]), dtype=object)
    known = y.astype(object)
    known[:60] = None

    def gap(alignment):
        vectors = alignment.transform(X[300:])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        similarity = vectors @ vectors.T
        same = y[300:, None] == y[None, 300:]
        return similarity[same].mean() - similarity[~same].mean()

    alignment = ContrastiveAlignment(triples, random_state=0, **FAST)
    for loss in ("infonce", "triplet"):
        alignment.set_params(loss=loss)
        plain = gap(clone(alignment).fit(X[:300]))
        guided = gap(clone(alignment).fit(X[:300], known[:300]))
        assert guided > plain + 0.15
    names = np.array(["a", "b", "c", "d"])[y]
    few = clone(alignment).set_params(max_epochs=3)
    same = [gap(clone(few).fit(X[:300], target[:300])) for target in (y, names)]
    assert same[0] == pytest.approx(same[1], abs=1e-3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        alignment.fit(X, y[:10])


def test_random_state(views, triples):
    X = views(0)[:150]
    alignment = ContrastiveAlignment(triples, **FEW)
    first, again = (clone(alignment).fit(X).transform(X) for _ in range(2))
    other = clone(alignment).set_params(random_state=1).fit(X).transform(X)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    before = torch.random.get_rng_state()
    clone(alignment).fit(X)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_search_pipeline_and_pickle(views, triples):
    X = views(0)
    grid = [
        {"loss": ["triplet", InfoNCE(negatives="hard")]},
        {"loss": [InfoNCE(), SigLIP()], "loss__temperature": [0.05, 0.2]},
    ]
    search = GridSearchCV(ContrastiveAlignment(triples, **FEW), grid, cv=2).fit(X[:200])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    loaded = pickle.loads(pickle.dumps(best))
    assert not hasattr(loaded, "net_")
    np.testing.assert_array_equal(loaded.transform(X), best.transform(X))
    assert best.set_output(transform="pandas").transform(X).columns[0] == "contrastivealignment0"
    clusters = make_pipeline(clone(best), KMeans(3, n_init=1, random_state=0)).fit_predict(X)
    assert set(clusters) == {0, 1, 2}
    y = (np.stack(list(X["view_0"]))[:, 0] > 0).astype(int)
    guided = make_pipeline(
        ContrastiveAlignment(triples, random_state=0, **FAST), LogisticRegression()
    )
    assert guided.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.7


@pytest.mark.slow
def test_encoders_are_trained_with_the_projections():
    """Texts name the frequency of series, which only a trained encoder can distinguish."""
    rng = np.random.default_rng(0)
    words = np.array(["slow", "medium", "quick", "rapid"])
    kinds = rng.integers(0, 4, 160)
    time = np.arange(40) / 40
    series = [
        np.sin(2 * np.pi * (2 * k + 1) * time + 6 * rng.random())[:, None].astype(np.float32)
        for k in kinds
    ]
    X = pd.DataFrame({"motion": pd.Series(series, dtype=object), "text": words[kinds]})
    X.loc[3, "text"] = None
    modalities = [
        ("motion", TimeSeriesEncoder("gru", n_components=16), ["motion"]),
        ("text", TextEncoder("tfidf", n_components=4, random_state=0), ["text"]),
    ]
    alignment = ContrastiveAlignment(modalities, random_state=0, **{**FAST, "max_epochs": 30})
    alignment.fit(X[:120])
    assert alignment.module_.encoders.trained == ["motion"]
    found = alignment.transform_modality(X[120:], "motion")
    texts = alignment.transform_modality(list(words), "text")
    assert ((found @ texts.T).argmax(axis=1) == kinds[120:]).mean() > 0.6  # chance is 0.25
    loaded = pickle.loads(pickle.dumps(alignment))
    np.testing.assert_allclose(loaded.transform(X), alignment.transform(X), atol=1e-6)


def test_callbacks_early_stopping_and_history(views, triples):
    from skorch.callbacks import Callback

    class Count(Callback):
        seen = 0

        def on_epoch_end(self, net, **kwargs):
            type(self).seen += 1

    X = views(0)
    callbacks = [("count", Count())]
    alignment = clone(ContrastiveAlignment(triples, **FEW))
    alignment.set_params(trainer__early_stopping=True, trainer__callbacks=callbacks).fit(X)
    assert Count.seen == alignment.n_iter_ == len(alignment.history_) == 3
    assert set(alignment.history_[0]) == {"epoch", "train_loss", "valid_loss"}
    whole = ContrastiveAlignment(triples, **FEW).fit(X)
    assert set(whole.history_[0]) == {"epoch", "train_loss"}


# --- losses -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_strings_are_losses_with_their_defaults(views, triples):
    assert set(LOSS_SHORTHANDS) == set(CONTRASTIVE_LOSSES)
    X = views(0)[:120]
    for name, loss in LOSS_SHORTHANDS.items():
        assert type(loss().build(64)) is CONTRASTIVE_LOSSES[name]
        short = ContrastiveAlignment(triples, loss=name, **FEW).fit(X)
        long = ContrastiveAlignment(triples, loss=loss(), **FEW).fit(X)
        np.testing.assert_array_equal(short.transform(X), long.transform(X))


def test_a_loss_passes_its_parameters_to_the_module():
    for cls in (InfoNCE, SigLIP):
        module = cls(temperature=0.3, learn_temperature=False, negatives="hard").build(64)
        assert module.temperature == pytest.approx(0.3) and module.negatives == "hard"
        assert not module.log_factor.requires_grad
    for cls in (Triplet, MaxMargin):
        module = cls(margin=0.7, negatives="semi_hard").build(64)
        assert module.margin == 0.7 and module.negatives == "semi_hard"
    for negatives, odds in (("all", 1 / 63), ("semi_hard", 1 / 63), ("hard", 1)):
        module = SigLIP(negatives=negatives).build(64)
        assert float(module.bias.detach()) == pytest.approx(np.log(odds))
    assert float(SigLIP(bias=-3.0).build(64).bias.detach()) == -3


def test_parameters_of_a_loss_change_the_training(views, triples):
    X = views(0)[:120]
    alignment = ContrastiveAlignment(triples, loss=Triplet(), **FEW)
    plain = clone(alignment).fit(X).transform(X)
    for name, value in (("margin", 1.0), ("negatives", "hard")):
        other = clone(alignment).set_params(**{f"loss__{name}": value}).fit(X)
        assert np.abs(other.transform(X) - plain).max() > 0.01
    assert alignment.loss.margin == 0.2


class Distance(torch.nn.Module):
    """A user's loss with a learned parameter: cross-entropy of scaled similarities."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, left, right, positive, negative):
        logits = self.scale * left @ right.T
        return -(logits.log_softmax(dim=1) * positive).sum(dim=1)


@pytest.mark.slow
def test_a_loss_of_the_user(views, triples):
    X = views(0)
    own = Distance()
    alignment = ContrastiveAlignment(triples, loss=own, random_state=0, **FAST).fit(X[:300])
    assert alignment.score(X[300:]) > 0.2 and alignment.temperature_ is None
    assert float(own.scale.detach()) == 1.0  # a copy was trained
    assert float(alignment.net_.criterion_.loss.scale.detach()) != 1.0
    again = clone(alignment).fit(X[:300])
    np.testing.assert_array_equal(again.transform(X), alignment.transform(X))
    assert isinstance(pickle.loads(pickle.dumps(alignment)).loss, Distance)

    class Recipe:
        def build(self, batch_size):
            return InfoNCELoss(temperature=1 / batch_size, learn_temperature=False)

    built = ContrastiveAlignment(triples, loss=Recipe(), **FEW).fit(X)
    assert built.temperature_ == pytest.approx(1 / BATCH_SIZE)
    built = ContrastiveAlignment(triples, loss=Recipe(), max_epochs=1).fit(X)
    assert built.temperature_ == pytest.approx(1 / 128)
    assert isinstance(built.net_.criterion_, PairwiseContrast)


def test_invalid_losses_are_refused(views, triples):
    X = views(0)[:60]

    class Empty:
        def build(self, batch_size):
            return None

    for loss, error, message in (
        ("cosine", ValueError, "The 'loss' parameter of ContrastiveAlignment must be"),
        (InfoNCE, TypeError, r"got the class InfoNCE. Write InfoNCE\(\)"),
        (Empty(), TypeError, "must return an nn.Module, got None"),
        (InfoNCE(temperature=0), ValueError, "'temperature' parameter of InfoNCE must be"),
        (SigLIP(bias="none"), ValueError, "'bias' parameter of SigLIP must be"),
        (Triplet(margin=-1), ValueError, "'margin' parameter of Triplet must be"),
        (MaxMargin(negatives="some"), ValueError, "'negatives' parameter of MaxMargin must be"),
    ):
        with pytest.raises(error, match=message):
            ContrastiveAlignment(triples, loss=loss, **FEW).fit(X)
    with pytest.raises(ValueError, match="Invalid parameter 'margin' for estimator InfoNCE"):
        ContrastiveAlignment(loss=InfoNCE()).set_params(loss__margin=0.1)
    with pytest.raises(ValueError, match="loss='infonce', which has no parameter 'temperature'"):
        ContrastiveAlignment().set_params(loss__temperature=0.1)
    with pytest.raises(ValueError, match="is 'text', which has no parameter 'pooling'"):
        ContrastiveAlignment([("words", "text", ["a"])]).set_params(words__pooling="max")


def test_an_invalid_loss_is_refused_before_any_cell_is_encoded(views, triples):
    class Never(FunctionTransformer):
        def fit(self, X, y=None):
            raise AssertionError

    own = [("left", Never(), ["view_0"]), triples[1]]
    with pytest.raises(ValueError, match="'margin' parameter of Triplet must be"):
        ContrastiveAlignment(own, loss=Triplet(margin=-1), **FEW).fit(views(0)[:60])


def test_errors(views, triples):
    X = views(0)[:60]
    with pytest.raises(
        ValueError, match="ContrastiveAlignment aligns .* one modality only, 'left'"
    ):
        ContrastiveAlignment(triples[:1]).fit(X)
    apart = X.copy()
    apart.loc[:29, "view_0"] = None
    apart.loc[30:, "view_1"] = None
    with pytest.raises(ValueError, match="rows that have two modalities or more, got 0 of"):
        ContrastiveAlignment(triples).fit(apart)
    alignment = ContrastiveAlignment(triples, **FEW).fit(X)
    with pytest.raises(ValueError, match="no modality 'top'. Its modalities are 'left', 'right'"):
        alignment.transform_modality(X, "top")
    assert not hasattr(alignment, "predict_modality")
