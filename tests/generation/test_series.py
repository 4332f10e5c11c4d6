"""SeriesGenerator: waves from descriptions, lengths, gaps, missing modalities, the contract."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from skmm import SeriesGenerator, TextEncoder, TimeSeriesEncoder, Trainer
from skmm.exceptions import ConvergenceError, ModalityMissingError

SMALL = {"n_components": 16, "n_layers": 1, "max_epochs": 25, "learning_rate": 1e-2}
TRIPLES = [("one", "passthrough", ["left"]), ("two", "passthrough", ["right"])]


def small(**params):
    return SeriesGenerator(TRIPLES, **with_trainer(**{**SMALL, "random_state": 0, **params}))


def waves(n=240, seed=0):
    """Make descriptions of waves, the waves, and which combinations to hold out."""
    rng = np.random.default_rng(seed)
    pace, height, shape, length = (rng.integers(0, k, n) for k in (3, 3, 2, 2))
    y, texts = np.empty(n, dtype=object), []
    for i in range(n):
        wave = np.sin(np.array([0.3, 0.6, 0.9])[pace[i]] * np.arange((12, 16)[length[i]]))
        wave = wave if shape[i] else np.sign(wave + 1e-9)
        y[i] = (1 + height[i]) * wave + 0.05 * rng.standard_normal(len(wave))
        words = ("slow", "steady", "fast")[pace[i]], ("low", "middle", "high")[height[i]]
        kind = ("square", "sine")[shape[i]], ("short", "long")[length[i]]
        texts.append(f"a {words[0]} {words[1]} {kind[0]}, {kind[1]}")
    return pd.DataFrame({"text": texts}), y, (pace + height + 2 * shape + 3 * length) % 6 == 0


@pytest.fixture(scope="module")
def ramps():
    """Make ramps with two channels and no noise; every fifth row has no second modality."""
    rng = np.random.default_rng(0)
    slope, length = rng.integers(0, 3, 120), rng.integers(0, 2, 120)
    X = pd.DataFrame({"left": list(np.eye(3)[slope]), "right": list(2.0 * length[:, None])})
    X.loc[::5, "right"] = None
    y = [
        np.outer(np.arange(6 + 3 * k), [1.0, -2.0]) * (s + 1) + [5.0, 1e4]
        for s, k in zip(slope, length, strict=True)
    ]
    return X, y


@pytest.fixture(scope="module", params=["transformer", "gru"])
def fitted(request, ramps):
    return small(decoder=request.param).fit(*ramps)


# --- what is learned -----------------------------------------------------------------------


@pytest.mark.parametrize(("decoder", "seed", "least"), [("gru", 0, 0.95), ("transformer", 0, 0.9)])
@pytest.mark.slow
def test_generates_waves_of_unseen_combinations(decoder, seed, least):
    X, y, held_out = waves(seed=seed)
    assert not set(X["text"][held_out]) & set(X["text"][~held_out])
    generator = SeriesGenerator(
        [("text", TextEncoder("tfidf", n_components=8, random_state=0), ["text"])],
        decoder=decoder,
        n_components=64,
        n_layers=1,
        trainer=Trainer(
            batch_size=32,
            learning_rate=4e-3 if decoder == "gru" else 2e-3,
            early_stopping=False,
        ),
        max_epochs=40,
        random_state=seed,
    ).fit(X[~held_out], y[~held_out])
    assert generator.score(X[held_out], y[held_out]) > least
    generated = generator.predict(X[held_out])
    off = [abs(len(a) - len(b)) for a, b in zip(generated, y[held_out], strict=True)]
    assert max(off) <= 1  # of lengths 12 and 16


@pytest.mark.slow
def test_lengths_levels_and_channels(fitted, ramps):
    X, y = ramps
    complete = np.arange(120) % 5 != 0
    generated = fitted.predict(X[complete])
    assert {series.dtype for series in generated} == {np.dtype(np.float32)}
    known = [own for own, k in zip(y, complete, strict=True) if k]
    assert [series.shape for series in generated] == [own.shape for own in known]
    assert fitted.score(X[complete], known) > 0.95
    assert fitted.n_channels_ == 2 and fitted.max_length_ == 9
    # Generated series are cells of an encoder.
    frame = pd.DataFrame({"series": list(generated)})
    assert TimeSeriesEncoder(n_kernels=84, random_state=0).fit_transform(frame).shape == (96, 84)


@pytest.mark.slow
def test_predicts_the_mean_of_possible_series():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"left": [[1.0, 0.0], [0.0, 1.0]] * 100, "right": [[0.0]] * 200})
    y = [np.full(5, (row % 2) * 4.0) + rng.choice([-1, 1]) for row in range(200)]
    generated = small(max_epochs=15, early_stopping=False).fit(X, y).predict(X[:2])
    np.testing.assert_allclose(np.mean(list(generated), axis=1), [0, 4], atol=0.35)


@pytest.mark.slow
def test_gaps_are_left_out(ramps):
    X, y = ramps
    rng = np.random.default_rng(0)
    holes = [np.where(rng.random(own.shape) < 0.4, np.nan, own) for own in y]
    complete = np.arange(120) % 5 != 0
    generator = small(max_epochs=40, early_stopping=False).fit(X, holes)
    whole = [own for own, k in zip(y, complete, strict=True) if k]
    assert generator.score(X[complete], whole) > 0.9
    assert all(np.isfinite(own).all() for own in generator.predict(X))


@pytest.mark.slow
def test_words_in_their_order():
    """With granularity="sequence" the decoder reads the order of the words."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 240)
    X = pd.DataFrame({"text": [("up down", "down up")[k] for k in first]})
    y = [(1 - 2 * k) * np.array([1.0, 1, -1, -1]) for k in first]
    encoder = TextEncoder("gru", n_components=16, random_state=0)
    generator = SeriesGenerator(
        [("text", encoder, ["text"])], **with_trainer(granularity="sequence", **SMALL)
    )
    generator.set_params(random_state=0, max_epochs=40).fit(X[:200], y[:200])
    assert generator.score(X[200:], y[200:]) > 0.95


@pytest.mark.slow
def test_the_score_is_that_of_a_loop(fitted, ramps):
    X, y = ramps
    y = [own.copy() for own in y]
    y[0][2, 1] = np.nan
    y[1] = None
    known = [own for own in y if own is not None]
    values = np.concatenate(known)
    mean, scale = fitted._target.mean, fitted._target.scale
    total = np.nansum(((values - np.nanmean(values, axis=0)) / scale) ** 2)
    errors = 0.0
    for own, generated in zip(y, fitted.predict(X), strict=True):
        if own is None:
            continue
        for step in range(max(len(own), len(generated))):
            a = own[step] if step < len(own) else mean
            b = generated[step] if step < len(generated) else mean
            errors += np.nansum(((a - b) / scale) ** 2)
    assert fitted.score(X, y) == pytest.approx(1 - errors / total, rel=1e-6)


# --- missing -------------------------------------------------------------------------------


def test_rows_without_any_modality_get_the_mean_series(fitted, ramps):
    X, y = ramps
    X = X[:6].copy()
    X.loc[[1, 4], ["left", "right"]] = None
    generated = fitted.predict(X)
    expected = np.mean([own[:6] for own in y], axis=0)
    np.testing.assert_allclose(generated[1][:6], expected, rtol=1e-5)
    assert len(generated[1]) == round(np.mean([len(own) for own in y]))
    generated[1][:] = 0  # rows do not share an array
    np.testing.assert_allclose(generated[4][:6], expected, rtol=1e-5)
    others = fitted.predict(X.iloc[[0, 2, 3, 5]])
    for a, b in zip(generated[[0, 2, 3, 5]], others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    with pytest.raises(ModalityMissingError, match="SeriesGenerator: 2 of .* is row 1"):
        copy.copy(fitted).set_params(all_missing="raise").predict(X)


def test_rows_without_a_series_or_a_cell_are_not_learned(ramps):
    X, y = ramps
    X, keep = X.copy(), np.arange(120) % 4 != 1
    options = {"max_epochs": 2, "early_stopping": False}
    known = [own for own, k in zip(y, keep, strict=True) if k]
    expected = small(**options).fit(X[keep], known)
    X.loc[~keep, ["left", "right"]] = None
    same = small(**options).fit(X, y)
    for a, b in zip(same.predict(X[keep]), expected.predict(X[keep]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    nothing = [own if k else np.full_like(own, np.nan) for own, k in zip(y, keep, strict=True)]
    assert len(small(max_epochs=1).fit(X, nothing).history_) == 1
    with pytest.raises(ValueError, match="none of n_samples=120 rows has both a series and a mod"):
        small().fit(X, [None if k else own for own, k in zip(y, keep, strict=True)])


# --- estimator -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same(ramps):
    X, y = ramps
    params = {"max_epochs": 2, "modality_dropout": 0.3, "dropout": 0.1}
    first, second = (small(**params).fit(X, y).predict(X) for _ in range(2))
    other = small(**params).set_params(random_state=1).fit(X, y).predict(X)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_pickle_clone_and_length_after_fit(fitted, ramps):
    X, _ = ramps
    loaded = pickle.loads(pickle.dumps(fitted))
    for a, b in zip(loaded.predict(X), fitted.predict(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert max(len(own) for own in loaded.set_params(max_length=4).predict(X)) == 4
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


@pytest.mark.slow
def test_cross_validation_and_a_grid(ramps):
    X, y = ramps
    cells = np.empty(len(y), dtype=object)
    cells[:] = y
    generator = small(max_epochs=2)
    assert cross_val_score(generator, X, cells, cv=2).shape == (2,)
    grid = {"decoder": ["gru"], "position": ["steps", "share"]}
    search = GridSearchCV(generator, grid, cv=2).fit(X, cells)
    assert search.best_estimator_.decoder == "gru"


@pytest.mark.slow
def test_shapes_of_targets(ramps):
    X, _ = ramps
    flat = np.arange(600.0).reshape(120, 5)
    expected = small(max_epochs=1).fit(X, flat).predict(X[:1])[0]
    assert expected.shape == (5,)
    lists = [list(map(int, own)) for own in flat]
    for given in (lists, pd.Series(lists), pd.DataFrame(flat), pd.DataFrame({"y": lists})):
        np.testing.assert_array_equal(small(max_epochs=1).fit(X, given).predict(X[:1])[0], expected)
    generated = small(max_epochs=1).fit(X, flat[:, :, None]).predict(X[:1])[0]
    np.testing.assert_array_equal(generated[:, 0], expected)
    constant = small(max_epochs=1).fit(X, np.full((120, 3), 7.0))
    assert [len(own) for own in constant.predict(X)] == [3] * 120
    cut = small(max_epochs=1, max_length=2).fit(X, flat)
    assert cut.max_length_ == 2 and len(cut.predict(X)[0]) == 2


def test_a_training_that_diverges_raises(ramps):
    with pytest.raises(
        ConvergenceError, match="the loss is (nan|inf) in epoch .* Use a learning_rat"
    ):
        small(learning_rate=1e25, max_grad_norm=None, early_stopping=False).fit(*ramps)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, "SeriesGenerator requires y to be passed"),
        ([1.5] * 120, TypeError, "a cell of y must be a series.*got float in row 0"),
        (["a"] * 120, TypeError, "a cell of y must be a series.*got str in row 0"),
        ([[1.0]] * 119 + [["a"]], TypeError, "values of dtype <U1 in row 119"),
        ([[1.0]] * 119 + [[{}]], ValueError, "holds no numbers .* in row 119"),
        ([[1.0]] * 119 + [[]], ValueError, "got an array of shape \\(0,\\) in row 119"),
        ([[1.0]] * 119 + [[np.inf]], ValueError, "beyond the range of float32 in row 119"),
        ([[1.0]] * 119 + [[[1.0, 2.0]]], ValueError, "have 1 channels, that in row 119 .* has 2"),
        ([[1.0]] * 3, ValueError, "X has 120 rows and y has 3"),
        ("a series", TypeError, "y must hold a series.*got str"),
    ],
)
def test_a_target_without_series_is_refused(ramps, y, error, message):
    with pytest.raises(error, match=message):
        small().fit(ramps[0], y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"decoder": "gru", "n_heads": 2}, "n_heads=2 has no effect with decoder='gru'"),
        ({"max_tokens": 3}, "max_tokens=3 has no effect with granularity='pooled'"),
    ],
)
def test_parameters_without_effect_are_refused(ramps, params, message):
    with pytest.raises(ValueError, match=f"SeriesGenerator: {message}"):
        small(**params).fit(*ramps)


def test_score_refuses_bad_targets(fitted, ramps):
    X, y = ramps
    with pytest.raises(ValueError, match="series of y have 1 channels, those of fit had 2"):
        fitted.score(X, [own[:, :1] for own in y])
    with pytest.raises(ValueError, match="none of n_samples=120 rows of y has a series"):
        fitted.score(X, [None] * 120)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("decoder", ["transformer", "gru"])
def test_on_the_gpu(ramps, decoder):
    X, y = ramps
    generator = small(decoder=decoder, device="cuda").fit(X, y)
    loaded = pickle.loads(pickle.dumps(generator)).set_params(device="cpu")
    for a, b in zip(loaded.predict(X), generator.predict(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)
