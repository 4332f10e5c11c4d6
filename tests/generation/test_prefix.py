"""Prefixes: read and not written, independent of the other rows."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer

from skmm import CaptionGenerator
from skmm.exceptions import CellTypeError, ModalityMissingError
from skmm.generation import NucleusSampling
from skmm.generation._decoding import beam, greedy, nucleus
from skmm.generation._memory_modules import CaptionBatch
from skmm.metrics import exact_match
from skmm.nets._text_decoders import GRUDecoder, TransformerDecoder

SMALL = {
    "n_components": 32,
    "n_layers": 1,
    "max_epochs": 15,
    "batch_size": 16,
    "learning_rate": 5e-3,
}
COLORS = np.array(["red", "green", "blue"])
SHAPES = np.array(["dot", "box", "bar"])
ASKED = {"color": "color ?", "shape": "tell me what shape it has"}


def small(**params):
    options = {"modalities": [("seen", "passthrough", ["seen"])], "prefix_column": "asked", **SMALL}
    return CaptionGenerator(**with_trainer(**{**options, "random_state": 0, **params}))


def objects(n=300, seed=0):
    """Make objects with a color and a shape; the prefix says which of the two to write."""
    rng = np.random.default_rng(seed)
    color, shape = rng.integers(0, 3, (2, n))
    seen = np.hstack([np.eye(3)[color], np.eye(3)[shape]]) + 0.1 * rng.standard_normal((n, 6))
    of_color = rng.random(n) < 0.5
    X = pd.DataFrame({"asked": np.where(of_color, *ASKED.values()), "seen": list(seen)})
    said = np.where(of_color, COLORS[color], SHAPES[shape])
    return X, np.array([f"it is {word} ." for word in said], dtype=object)


@pytest.fixture(scope="module", params=["transformer", "gru"])
def fitted(request):
    return small(decoder=request.param, early_stopping=False, max_epochs=8).fit(*objects())


# --- the decoders --------------------------------------------------------------------------


@pytest.fixture(params=["gru", "transformer"])
def decoder(request):
    torch.manual_seed(0)
    kinds = {"gru": GRUDecoder, "transformer": TransformerDecoder}
    decoder = kinds[request.param](9, 16, n_layers=2).eval().requires_grad_(False)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            parameter.normal_(std=0.5)
    return decoder


@pytest.fixture
def given():
    """Make a memory, a mask and prefixes of five lengths, one of them empty."""
    torch.manual_seed(1)
    memory = 2 * torch.randn(5, 3, 16)
    mask = torch.tensor([[True, True, False]]).expand(5, 3)
    prefix = torch.full((5, 6), -1)
    for row, length in enumerate((3, 0, 6, 1, 5)):
        prefix[row, :length] = torch.randint(2, 9, (length,))
    return memory, mask, prefix


def test_what_follows_a_prefix_is_what_follows_its_tokens(decoder, given):
    memory, mask, prefix = given
    texts = torch.tensor([[9, 4, 5, 2]]).expand(5, 4)
    found = decoder(memory, mask, texts, prefix)
    for row, own in enumerate(prefix):
        own = own[own >= 0]
        # The prefix and the text as one text.
        whole = torch.cat([own, texts[row]])[None]
        expected = decoder(memory[[row]], mask[[row]], whole)[0, len(own) :]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
    assert (found[0] - decoder(memory, mask, texts)[0]).abs().max() > 0.1


def test_step_by_step_decoding_after_a_prefix(decoder, given):
    memory, mask, prefix = given
    texts = torch.randint(2, 9, (5, 4))
    whole = decoder(memory, mask, texts, prefix)
    state = decoder.start_after(memory, mask, prefix)
    for step in range(4):
        logits, state = decoder.advance(texts[:, [step]], state)
        torch.testing.assert_close(logits[:, 0], whole[:, step], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["greedy", "beam", "nucleus"])
def test_decoding_continues_the_prefix_of_each_row(decoder, given, way):
    memory, mask, prefix = given
    draws = np.random.default_rng(0).random((5, 7))

    def write(rows, prefix):
        options = {"max_length": 7, "prefix": prefix}
        if way == "nucleus":
            options |= {"draws": draws[rows], "top_p": 0.9, "temperature": 1.0}
        if way == "beam":
            options |= {"size": 3, "length_penalty": 0.5}
        decode = {"greedy": greedy, "beam": beam, "nucleus": nucleus}[way]
        ids = decode(decoder, memory[rows], mask[rows], **options)
        return [row[: row.index(0)] if 0 in row else row for row in ids.tolist()]

    together = write([0, 1, 2, 3, 4], prefix)
    alone = [write([row], prefix[[row], : (prefix[row] >= 0).sum()])[0] for row in range(5)]
    assert together == alone
    assert write([1], None)[0] == together[1]  # an empty prefix equals no prefix
    assert write([0, 1, 2, 3, 4], None) != together


# --- the generator -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize(("decoder", "max_epochs"), [("transformer", 8), ("gru", 20)])
def test_written_texts_answer_the_prefix(decoder, max_epochs, seed):
    X, y = objects(160, seed=seed)
    captions = small(decoder=decoder, max_epochs=max_epochs, random_state=seed)
    captions.set_params(trainer__early_stopping=False).fit(X, y)
    assert [name for name, *_ in captions.modalities_] == ["seen"]
    X, y = objects(80, seed=seed + 100)
    assert exact_match(y, captions.predict(X)) > 0.9  # by chance: 0.5
    likely = captions.score_samples(X, y)
    first, second = ASKED.values()
    other = X.assign(asked=np.where(X["asked"] == first, second, first))
    assert (likely > captions.score_samples(other, y)).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("way", ["greedy", "beam", "nucleus"])
def test_a_row_does_not_depend_on_the_other_rows(fitted, way):
    X, y = objects(12, seed=1)
    X.loc[3, "asked"] = None
    X.loc[4, "asked"] = "what ?"
    X.loc[[5, 6], "seen"] = None
    captions = copy.copy(fitted).set_params(decoding=way, random_state=7)
    if way == "nucleus":
        captions.set_params(decoding=NucleusSampling(top_p=0.9))
    written, likely = captions.predict(X), captions.score_samples(X, y)
    assert np.isfinite(likely).all() and not pd.isna(written).any()
    for row in range(len(X)):
        own = X.iloc[[row]]
        np.testing.assert_allclose(captions.score_samples(own, y[[row]]), likely[row], rtol=1e-4)
        if way != "nucleus":  # its samples depend on the position of a row
            assert captions.predict(own)[0] == written[row]
    if way == "nucleus":  # a longer prefix of another row changes no sample
        longer = pd.concat([X, X[:1].assign(asked="what ? " * 30)])
        np.testing.assert_array_equal(captions.predict(longer)[:12], written)


@pytest.mark.slow
def test_likelihood_equals_that_of_a_text_begun_by_its_prefix(fitted):
    X, y = objects(6, seed=2)
    found = fitted.score_samples(X, y)
    batch = fitted._inputs.batch(X)
    tokenizer = fitted._target.tokenizer
    for row in range(6):
        own = batch.rows(torch.tensor([row])).modalities
        before, ids = tokenizer.encode(X["asked"][row]), tokenizer.encode(y[row])
        whole = torch.tensor([[*before, len(tokenizer), *ids]])
        logits = fitted.module_(CaptionBatch(own, text=whole))[0, len(before) :]
        steps = torch.log_softmax(logits, dim=1)
        direct = sum(steps[i, token].item() for i, token in enumerate([*ids, 0]))
        assert found[row] == pytest.approx(direct, rel=1e-4)


def test_missing_empty_and_unknown(fitted):
    X, y = objects(20, seed=3)
    none, empty, unheard = (X.assign(asked=cell) for cell in (None, "", "xyzzy 17"))
    expected = fitted.score_samples(empty, y)
    np.testing.assert_array_equal(fitted.score_samples(none, y), expected)
    np.testing.assert_array_equal(fitted.score_samples(unheard, y), expected)
    more = X.assign(asked=[f"xyzzy {text}" for text in X["asked"]])
    np.testing.assert_array_equal(fitted.predict(more), fitted.predict(X))


@pytest.mark.slow
def test_no_loss_is_computed_on_the_prefix():
    """Prefixes of random words, which no decoder could learn to predict."""
    X, y = objects(200)
    rng = np.random.default_rng(0)
    X["asked"] = [" ".join(map(str, rng.integers(0, 50, 20))) for _ in range(200)]
    always = np.full(200, "yes", dtype=object)
    captions = small(early_stopping=False, max_epochs=5, dropout=0).fit(X, always)
    assert captions.history_[-1]["train_loss"] < 0.1
    assert set(captions.predict(X)) == {"yes"}
    assert {" yes", " 7"} < set(captions.vocabulary_)


def test_modality_dropout_never_drops_both_prefix_and_modality():
    X, y = objects(200)
    captions = small(max_epochs=1, modality_dropout=0.5).fit(X, y)
    own = captions._inputs.batch(X).modalities
    batch = CaptionBatch(own, prefix=torch.ones(200, 4, dtype=torch.long))
    torch.manual_seed(0)
    for training in (True, False):
        _, mask, prefix = captions.module_.train(training).memory_and_prefix(batch)
        seen, read = mask[:, 1:].any(dim=1), (prefix >= 0).any(dim=1)
        assert torch.equal(read, (prefix >= 0).all(dim=1)) and (seen | read).all()
        shares = seen.float().mean().item(), read.float().mean().item()
        assert all(0.5 < share < 0.8 for share in shares) if training else shares == (1, 1)


def test_rows_with_only_a_prefix():
    X, y = objects(60)
    X["seen"] = X["seen"].astype(object)
    X.loc[[1, 2], "seen"] = None
    X.loc[[2, 3], "asked"] = None
    captions = small(max_epochs=2).fit(X, y)
    assert [text is None for text in captions.predict(X[:5])] == [False, False, True, False, False]
    assert np.isnan(captions.score_samples(X[:5], y[:5])).tolist() == [0, 0, 1, 0, 0]
    with pytest.raises(ModalityMissingError, match="1 of 60 rows .* is row 2"):
        captions.set_params(all_missing="raise").predict(X)


def test_auto_leaves_out_the_prefix():
    X, y = objects(60)
    X["note"], X["number"] = [f"the {i} th of them" for i in range(60)], np.arange(60.0)
    captions = small(modalities="auto", max_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        from skmm._compose import _base as _modalities

        patch.setattr(_modalities, "default_encoder", lambda kind: captions_of(kind))
        captions.fit(X, y)
    assert [columns for _, _, columns in captions.modalities_] == [["seen"], ["note"], ["number"]]
    by_position = small(prefix_column=0, max_epochs=1).fit(X, y)
    np.testing.assert_array_equal(
        by_position.score_samples(X, y),
        small(max_epochs=1).fit(X, y).score_samples(X, y),
    )


def captions_of(kind):
    """Return an encoder that needs no download."""
    from skmm import TabularEncoder, TextEncoder

    kinds = {"text": TextEncoder("tfidf", n_components=2), "tabular": TabularEncoder()}
    return kinds.get(kind, "passthrough")


@pytest.mark.slow
def test_several_texts_of_a_row_share_its_prefix():
    X, y = objects(120)
    several = [[text, f"{text} yes"] if i % 2 else text for i, text in enumerate(y)]
    captions = small(early_stopping=False, max_epochs=10).fit(X, several)
    likely = captions.score_samples(X, y)
    np.testing.assert_allclose(np.exp(likely[1::2]).mean(), 2 / 3, atol=0.2)


def test_pickle_and_missing_columns(fitted):
    X, y = objects(20, seed=4)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.score_samples(X, y), fitted.score_samples(X, y))
    X.loc[7, "asked"] = None
    wide = X.drop(columns="asked")
    with pytest.raises(ValueError, match="asked"):
        fitted.predict(wide)
    absent = copy.copy(fitted).set_params(missing_columns="absent")
    expected = fitted.score_samples(X.assign(asked=None), y)
    np.testing.assert_array_equal(absent.score_samples(wide, y), expected)


@pytest.mark.parametrize(
    ("prefix", "cells", "error", "message"),
    [
        ("aske", ["a"], ValueError, "no column 'aske': did you mean 'asked'"),
        (7, ["a"], ValueError, "7"),
        ("asked", [None, 3], CellTypeError, "CaptionGenerator: column 'asked', row 1: got int"),
        (-1, ["a"], ValueError, "The 'prefix_column' parameter"),
    ],
)
def test_errors(prefix, cells, error, message):
    X, y = objects(8)
    X["asked"] = pd.Series((cells * 8)[:8], dtype=object)
    with pytest.raises(error, match=message):
        small(prefix_column=prefix).fit(X, y)


def test_a_frame_with_only_the_prefix_is_refused():
    X, y = objects(8)
    with pytest.raises(ValueError, match="CaptionGenerator: X has no column besides 'asked'"):
        small(modalities="auto").fit(X[["asked"]], y)
