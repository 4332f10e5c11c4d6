"""CaptionGenerator: unseen combinations, likelihoods by hand, decoding, missing modalities."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer
from sequences import Tokens
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, ParameterGrid, cross_val_score
from sklearn.pipeline import Pipeline

from skmm import CaptionGenerator, ImageEncoder
from skmm.exceptions import ConvergenceError, ModalityMissingError
from skmm.generation import BeamSearch, NucleusSampling
from skmm.generation._memory_modules import CaptionBatch
from skmm.metrics import chrf, corpus_bleu, exact_match, make_text_scorer

TRIPLES = [("one", "passthrough", ["left"]), ("two", "passthrough", ["right"])]
SLOW_SEEDS = [("transformer", 0)]
SMALL = {"n_components": 48, "n_layers": 1, "max_epochs": 30, "learning_rate": 3e-3}


def small(**params):
    return CaptionGenerator(TRIPLES, **with_trainer(**{**SMALL, "random_state": 0, **params}))


@pytest.fixture(scope="module")
def objects():
    """Make a frame and sentences; every fifth row has no second modality."""
    rng = np.random.default_rng(0)
    kind, size = rng.integers(0, 3, 240), rng.integers(0, 2, 240)
    left = np.eye(3)[kind] + 0.1 * rng.standard_normal((240, 3))
    right = 2.0 * size[:, None] + 0.1 * rng.standard_normal((240, 2))
    X = pd.DataFrame({"left": list(left), "right": list(right)})
    X.loc[::5, "right"] = None
    # Two phrasings with known frequencies, so that likelihoods can be checked.
    way = np.where(rng.random(240) < 0.7, "a", "one")
    words = np.array(["dot", "box", "bar"])[kind], np.array(["small", "large"])[size]
    return X, np.array([f"{w} {b} {a}" for w, a, b in zip(way, *words, strict=True)], dtype=object)


@pytest.fixture(scope="module", params=["transformer", "gru"])
def fitted(request, objects):
    return small(decoder=request.param, max_epochs=12).fit(*objects)


# --- what is learned -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "seed"),
    [
        ("gru", 0),
        *(pytest.param(kind, seed, marks=pytest.mark.slow) for kind, seed in SLOW_SEEDS),
    ],
)
def test_writes_correct_texts_for_unseen_combinations(make_objects, decoder, seed):
    X, y, held_out = make_objects(seed=seed)
    assert not set(y[held_out]) & set(y[~held_out])
    captions = small(decoder=decoder, random_state=seed).fit(X[~held_out], y[~held_out])
    written = captions.predict(X[held_out])
    assert exact_match(y[held_out], written) > 0.9
    # The sentence of the nearest training row is always wrong in a word.
    near = np.hstack([np.stack(X[name]) for name in X])
    distances = ((near[held_out][:, None] - near[~held_out]) ** 2).sum(axis=2)
    nearest = y[~held_out][distances.argmin(axis=1)]
    for metric in (corpus_bleu, chrf):
        assert metric(y[held_out], written) > metric(y[held_out], nearest) + 0.15


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["bpe", "character"])
def test_parts_of_words(make_objects, tokenizer):
    X, y, held_out = make_objects(seed=0)
    captions = small(tokenizer=tokenizer, max_vocabulary=40, max_epochs=20)
    captions.fit(X[~held_out], y[~held_out])
    assert len(captions.vocabulary_) <= 40
    assert chrf(y[held_out], captions.predict(X[held_out])) > 0.85


def images(n, seed):
    """Make dark images with a bright square, up or down, left or right."""
    rng = np.random.default_rng(seed)
    down, right = rng.integers(0, 2, n), rng.integers(0, 2, n)
    cells = rng.integers(0, 60, (n, 16, 16, 3)).astype(np.uint8)
    for cell, d, r in zip(cells, down, right, strict=True):
        cell[8 * d + 2 : 8 * d + 6, 8 * r + 2 : 8 * r + 6] = 250
    words = zip(np.array(["up", "down"])[down], np.array(["left", "right"])[right], strict=True)
    return pd.DataFrame({"photo": list(cells)}), [f"a square {a} {b}" for a, b in words]


@pytest.mark.slow
def test_an_image_network_is_trained_with_the_decoder():
    X, y = images(160, seed=0)
    triples = [("photo", ImageEncoder("cnn", image_size=16, n_components=16), ["photo"])]
    captions = CaptionGenerator(triples, **with_trainer(**SMALL, batch_size=16, random_state=0))
    captions.set_params(granularity="sequence", trainer__early_stopping=False).fit(X, y)
    new, expected = images(60, seed=1)
    assert exact_match(expected, captions.predict(new)) > 0.9
    assert captions.modalities_[0][1].transform(new).shape == (60, 16)


def test_augmentation_is_for_training_and_texts_of_a_row_stay_together():
    X, y = images(50, seed=0)
    seen = []

    def noted(cell, rng):
        seen.append(cell.tobytes())
        return cell

    encoder = ImageEncoder("cnn", image_size=16, n_components=4, augment=noted)
    captions = CaptionGenerator(
        [("photo", encoder, ["photo"])], **with_trainer(**SMALL, random_state=0)
    )
    captions.set_params(max_epochs=2, n_components=8)
    several = [None, [y[1], "another"], *y[2:]]
    captions.fit(X, several)
    n_held_out = 5
    assert len(set(seen)) == 49 - n_held_out
    assert X["photo"][0].tobytes() not in seen
    captions.predict(X)
    assert len(set(seen)) == 49 - n_held_out


@pytest.mark.slow
def test_sequences_keep_what_their_mean_loses():
    """Which object has which color is lost in the mean of the tokens."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 3, (300, 2))
    order = rng.permuted(np.tile([0, 1], (300, 1)), axis=1)
    objects, colors = np.eye(2)[order], np.eye(3)[np.take_along_axis(color, order, axis=1)]
    X = pd.DataFrame({"pair": list(np.concatenate([objects, colors], axis=2))})
    words = np.array(["red", "green", "blue"])[color]
    y = [f"dot {dot} box {box}" for dot, box in words]
    matches = {}
    for granularity in ("pooled", "sequence"):
        captions = CaptionGenerator(
            [("pair", Tokens(), ["pair"])], **with_trainer(**SMALL, random_state=0)
        )
        captions.set_params(granularity=granularity, scoring="exact_match")
        matches[granularity] = captions.fit(X[:220], y[:220]).score(X[220:], y[220:])
    assert matches["sequence"] > 0.95
    assert matches["pooled"] < 0.9  # a guess for the two thirds with two colors


@pytest.mark.slow
def test_several_texts_of_a_row_are_all_learned(objects):
    X, _ = objects
    kind = np.array([int(np.argmax(cell)) for cell in X["left"]])
    y = [[f"a {k}", f"b {k}", None] if k else f"c {k}" for k in kind]
    captions = small(max_epochs=20).fit(X, y)
    given = X.iloc[[int(np.flatnonzero(kind == 1)[0])]]
    likely = [captions.score_samples(given, [t])[0] for t in ("a 1", "b 1", "c 1")]
    assert np.exp(likely[0]) == pytest.approx(0.5, abs=0.2)
    assert np.exp(likely[1]) == pytest.approx(0.5, abs=0.2)
    assert np.exp(likely[2]) < 0.1


@pytest.mark.slow
def test_likelihoods_are_the_frequencies_of_the_texts(objects):
    X, y = objects
    captions = small(max_epochs=25, early_stopping=False).fit(X, y)
    rows = X.iloc[[1, 2, 3, 4]]
    ends = [text.split(maxsplit=1)[1] for text in y[1:5]]
    share = np.mean([text.startswith("a ") for text in y])
    found = np.exp(captions.score_samples(rows, [f"a {end}" for end in ends]))
    np.testing.assert_allclose(found, share, atol=0.15)
    other = np.exp(captions.score_samples(rows, [f"one {end}" for end in ends]))
    np.testing.assert_allclose(found + other, 1, atol=0.1)


# --- likelihood and decoding ---------------------------------------------------------------


@pytest.mark.slow
def test_score_samples_equals_the_network_by_hand(fitted, objects):
    X, y = objects
    found = fitted.score_samples(X[:7], y[:7])
    assert found.dtype == np.float64 and (found < 0).all()
    batch = fitted._inputs.batch(X[:7])
    for row in range(7):
        ids = fitted._target.tokenizer.encode(y[row])
        own = batch.rows(torch.tensor([row])).modalities
        begin = [len(fitted._target.tokenizer), *ids]
        logits = fitted.module_(CaptionBatch(own, text=torch.tensor([begin])))[0]
        steps = torch.log_softmax(logits, dim=1)
        direct = sum(steps[i, token] for i, token in enumerate([*ids, 0])).item()
        assert found[row] == pytest.approx(direct, rel=1e-4)
    # A text does not depend on the others of its batch, however long.
    longer = [*y[:6], " ".join(y[:9])]
    np.testing.assert_allclose(fitted.score_samples(X[:7], longer)[:6], found[:6], rtol=1e-4)
    with pytest.raises(ValueError, match="score_samples requires y to be passed"):
        fitted.score_samples(X[:7], None)


def test_unknown_and_longer_texts_have_a_likelihood(fitted, objects):
    X, y = objects
    texts = [y[0], f"{y[1]} unheard-of", " ".join([y[2]] * 9), ""]
    found = fitted.score_samples(X[:4], texts)
    assert np.isfinite(found).all() and (found[1:] < found[0]).all()


def test_decoding_is_set_without_training_again(fitted, objects):
    X, y = objects
    captions, before = copy.copy(fitted), fitted.predict(X)
    greedy = captions.score_samples(X, before)
    captions.set_params(decoding="beam", decoding__beam_size=6)
    assert captions.module_ is fitted.module_
    by_beam = captions.score_samples(X, captions.predict(X))
    # Few texts are possible, so the beam holds the most likely ones.
    assert (by_beam >= greedy - 1e-4).all()
    captions.set_params(max_length=2)
    assert all(len(text.split()) <= 2 for text in captions.predict(X))
    with pytest.raises(ValueError, match="beam_size.*must be an int"):
        captions.set_params(decoding__beam_size=0).predict(X)
    np.testing.assert_array_equal(fitted.predict(X), before)


def test_nucleus_sampling_repeats_with_its_random_state(fitted, objects):
    X, _ = objects
    captions = copy.copy(fitted).set_params(decoding=NucleusSampling(1.0), random_state=3)
    first = captions.predict(X)
    np.testing.assert_array_equal(captions.predict(X), first)
    other = captions.set_params(random_state=4).predict(X)
    assert 0.05 < np.mean(first != other) < 0.95
    state = np.random.RandomState(0)
    captions.set_params(random_state=state)
    assert (captions.predict(X) != captions.predict(X)).any()  # a RandomState continues its stream
    starts = [text.split()[:1] == ["a"] for text in first]
    assert 0.5 < np.mean(starts) < 0.9  # 0.7 of the texts do


def test_search_over_the_decoding_fits_nothing(fitted, objects, monkeypatch):
    X, y = objects
    grid = {"decoding": ["beam"], "decoding__beam_size": [1, 3], "max_length": [1, 9]}
    ways = [FrozenEstimator(copy.copy(fitted).set_params(**way)) for way in ParameterGrid(grid)]
    monkeypatch.setattr(CaptionGenerator, "fit", None)
    search = GridSearchCV(Pipeline([("captions", ways[0])]), {"captions": ways}, cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"].reshape(2, 2)  # (beam_size, max_length)
    assert (scores[:, 1] > scores[:, 0] + 0.3).all()
    assert search.best_params_["captions"].estimator.max_length == 9


@pytest.mark.slow
def test_cross_validation_and_a_grid_that_trains(objects):
    X, y = objects
    captions = small(max_epochs=2)
    scorer = make_text_scorer("chrf")
    assert cross_val_score(captions, X, y, cv=2, scoring=scorer).shape == (2,)
    grid = {"decoder": ["gru"], "n_components": [8]}
    search = GridSearchCV(captions, grid, cv=2).fit(X, y)
    assert search.best_estimator_.n_components == 8


@pytest.mark.slow
def test_scoring(fitted, objects):
    X, y = objects
    written = fitted.predict(X)
    captions = copy.copy(fitted)
    assert captions.score(X, y) == corpus_bleu(y, written)
    assert captions.set_params(scoring="chrf").score(X, y) == chrf(y, written)
    scorer = make_text_scorer("exact_match", ignore="case")
    assert captions.set_params(scoring=scorer).score(X, y) == scorer(fitted, X, y)
    accuracy = captions.set_params(scoring=lambda model, X, y: np.mean(model.predict(X) == y))
    assert accuracy.score(X, y) == np.mean(y == written)


def test_permutation_importance(fitted, objects):
    X, y = objects
    drop = permutation_importance(fitted, X, y, n_repeats=2, random_state=0).importances_mean
    assert (drop > 0.05).all()


# --- missing -------------------------------------------------------------------------------


def test_rows_without_any_modality(fitted, objects):
    X, y = objects
    X = X[:6].copy()
    X.loc[[1, 4], ["left", "right"]] = None
    written = fitted.predict(X)
    assert [text is None for text in written] == [False, True, False, False, True, False]
    likely = fitted.score_samples(X, [None, *y[1:6]])
    assert np.isnan(likely).tolist() == [True, True, False, False, True, False]
    own = fitted.score_samples(X, written)
    assert np.isnan(own).tolist() == [text is None for text in written]
    expected = fitted.predict(X.iloc[[0, 2, 3, 5]])
    np.testing.assert_array_equal(written[[0, 2, 3, 5]], expected)
    nothing = X.iloc[[1, 4]]
    assert fitted.predict(nothing).tolist() == [None, None]
    with pytest.raises(
        ModalityMissingError, match="CaptionGenerator: 2 of .* is row 1.*all_missing='none'"
    ):
        copy.copy(fitted).set_params(all_missing="raise").predict(X)


def test_rows_without_a_text_or_a_cell_are_not_learned(objects):
    X, y = objects
    X, texts = X[:80].copy(), [str(text) for text in y[:80]]
    keep = np.arange(80) % 4 != 1
    expected = small(max_epochs=3, early_stopping=False).fit(X[keep], y[:80][keep])
    X.loc[~keep, ["left", "right"]] = None
    same = small(max_epochs=3, early_stopping=False).fit(X, texts)
    np.testing.assert_allclose(
        same.score_samples(X[keep], y[:80][keep]),
        expected.score_samples(X[keep], y[:80][keep]),
        rtol=1e-4,
    )
    without = [text if k else None for text, k in zip(texts, keep, strict=True)]
    assert len(small(max_epochs=1).fit(X, without).history_) == 1
    with pytest.raises(ValueError, match="none of n_samples=80 rows has both a text and a mod"):
        small().fit(X, [None if k else "a" for k in keep])


# --- estimator -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same(objects):
    X, y = objects
    params = {"max_epochs": 2, "modality_dropout": 0.3, "label_smoothing": 0.1}
    first, second = (small(**params).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(X, y), second.score_samples(X, y))
    other = small(**params).set_params(random_state=1).fit(X, y)
    assert (first.score_samples(X, y) != other.score_samples(X, y)).any()


def test_pickle_and_clone(fitted, objects):
    X, y = objects
    loaded = pickle.loads(pickle.dumps(fitted))
    for decoding in ("greedy", "beam", "nucleus"):
        way = {"decoding": decoding, "random_state": 5}
        expected = copy.copy(fitted).set_params(**way).predict(X)
        np.testing.assert_array_equal(loaded.set_params(**way).predict(X), expected)
    np.testing.assert_array_equal(loaded.score_samples(X, y), fitted.score_samples(X, y))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


@pytest.mark.slow
def test_early_stopping_restores_the_best_epoch(objects):
    X, y = objects
    # The texts are random, so that only the training texts become more likely.
    noise = np.random.default_rng(0).permutation(y)
    captions = small(max_epochs=60, n_iter_no_change=4, dropout=0.0).fit(X, noise)
    losses = [epoch["valid_loss"] for epoch in captions.history_]
    assert captions.n_iter_ == np.argmin(losses) + 1 + 4 < 60


def test_a_training_that_diverges_raises(objects):
    X, y = objects
    with pytest.raises(
        ConvergenceError, match="the loss is nan in epoch .* Use a learning_rate below"
    ):
        small(learning_rate=1e25, max_grad_norm=None, early_stopping=False).fit(X, y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, "CaptionGenerator requires y to be passed"),
        ([1.5] * 240, TypeError, "a cell of y must be a text or a list of texts.*float in row 0"),
        (["a"] * 239 + [["a", 3]], TypeError, "got list in row 239"),
        (["a"] * 3, ValueError, "X has 240 rows and y has 3"),
        (np.full((240, 2), "a"), ValueError, "y must have one dimension, got shape"),
        ("a caption", TypeError, "y must hold a text or a list of texts for each row, got str"),
    ],
)
def test_a_target_without_texts_is_refused(objects, y, error, message):
    with pytest.raises(error, match=message):
        small().fit(objects[0], y)


def test_score_samples_refuses_lists(fitted, objects):
    X, y = objects
    with pytest.raises(TypeError, match="score_samples: a cell of y must be a text, or None"):
        fitted.score_samples(X[:1], [[y[0]]])


@pytest.mark.parametrize(
    "params",
    [{"top_p": 0}, {"top_p": 1.5}, {"temperature": 0}, {"decoding": "best"}, {"scoring": "f1"}],
)
def test_bad_parameters_are_refused(objects, params):
    name = next(iter(params))
    if name in ("top_p", "temperature"):
        params = {"decoding": NucleusSampling(**params)}
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        small(**params).fit(*objects)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"decoder": "gru", "n_heads": 2}, "n_heads=2 has no effect with decoder='gru'"),
        ({"max_tokens": 3}, "max_tokens=3 has no effect with granularity='pooled'"),
    ],
)
def test_parameters_without_effect_are_refused(objects, params, message):
    with pytest.raises(ValueError, match=f"CaptionGenerator: {message}"):
        small(**params).fit(*objects)


def test_a_copy_has_its_own_decoding(fitted):
    captions = copy.copy(fitted).set_params(decoding=BeamSearch(2))
    other = copy.copy(captions).set_params(decoding__beam_size=7)
    assert (captions.decoding.beam_size, other.decoding.beam_size) == (2, 7)
    assert other.module_ is fitted.module_ and fitted.decoding == "greedy"
    assert clone(other).decoding.beam_size == 7
    # A shorthand becomes the object whose parameter is set.
    named = copy.copy(fitted).set_params(decoding="nucleus", decoding__top_p=0.5)
    assert named.get_params()["decoding__top_p"] == 0.5
    with pytest.raises(ValueError, match="Invalid parameter 'top_p' for estimator BeamSearch"):
        other.set_params(decoding__top_p=0.5)


def test_a_series_and_a_column_of_a_frame_are_targets(objects):
    X, y = objects
    rows = X[:60]
    expected = small(max_epochs=1).fit(rows, y[:60]).score_samples(rows, y[:60])
    for given in (pd.Series(y[:60], index=rows.index[::-1]), pd.DataFrame({"text": y[:60]})):
        found = small(max_epochs=1).fit(rows, given).score_samples(rows, y[:60])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("decoder", ["transformer", "gru"])
def test_on_the_gpu(objects, decoder):
    X, y = objects
    captions = small(decoder=decoder, max_epochs=12, device="cuda").fit(X, y)
    loaded = pickle.loads(pickle.dumps(captions)).set_params(device="cpu")
    for decoding in ("greedy", "beam", "nucleus"):
        way = {"decoding": decoding, "random_state": 5}
        written = captions.set_params(device="cuda", **way).predict(X)
        assert np.mean(written == loaded.set_params(**way).predict(X)) > 0.95
    np.testing.assert_allclose(
        captions.score_samples(X, y), loaded.score_samples(X, y), rtol=1e-2, atol=1e-3
    )
