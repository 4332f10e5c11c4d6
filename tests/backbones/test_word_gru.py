"""The word network learns and ignores padding; splitting of texts and vocabulary."""

import pickle
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones._word_gru import Vocabulary, WordGRU, split_words

FILLER = [f"word{i}" for i in range(30)]


def keyword_texts(n_texts, seed=0, n_filler=6):
    """Return texts of random words; the label is whether "not" precedes "good"."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n_texts)
    texts = []
    for answer in label:
        words = list(rng.choice(FILLER, rng.integers(0, n_filler)))
        places = np.sort(rng.integers(0, len(words) + 1, 2))
        pair = ["not", "good"] if answer else ["good", "not"]
        words.insert(places[1], pair[1])
        words.insert(places[0], pair[0])
        texts.append(" ".join(words))
    return texts, torch.from_numpy(label)


@pytest.fixture
def texts():
    return ["a red coat", "a hat", "", "one two three four five six seven"]


@pytest.fixture
def model(texts):
    torch.manual_seed(0)
    return WordGRU(Vocabulary().fit(texts), n_components=8, n_embedding=5).eval()


def cell(gru, words, suffix):
    """Compute one direction of a GRU in numpy: h = (1 - z) n + z h, for each word."""
    w_x, w_h, b_x, b_h = (
        getattr(gru, f"{part}_l0{suffix}").detach().numpy().astype(float)
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    h, states = np.zeros(w_h.shape[1]), []
    for x in words:
        r_x, z_x, n_x = np.split(w_x @ x + b_x, 3)
        r_h, z_h, n_h = np.split(w_h @ h + b_h, 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        h = (1 - z) * np.tanh(n_x + r * n_h) + z * h
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_formula(texts, pooling):
    torch.manual_seed(0)
    vocabulary = Vocabulary().fit(texts)
    model = WordGRU(vocabulary, n_components=7, n_embedding=5, pooling=pooling).eval()
    encoded = model(**model.collate(texts))
    for row, text in enumerate(texts):
        words = model.embedding.weight.detach().numpy()[vocabulary.encode(text)]
        forward = cell(model.gru, words, "")
        backward = cell(model.gru, words[::-1], "_reverse")[::-1]
        states = np.hstack([forward, backward])
        tokens = states @ model.project.weight.detach().numpy().T
        tokens = tokens + model.project.bias.detach().numpy()
        assert encoded.mask[row].sum() == len(words)
        got = encoded.tokens[row, : len(words)].detach().numpy()
        np.testing.assert_allclose(got, tokens, atol=1e-5)
        pooled = getattr(tokens, pooling)(axis=0)
        np.testing.assert_allclose(encoded.pooled[row].detach().numpy(), pooled, atol=1e-5)


@pytest.mark.slow
def test_learns_the_order_of_words():
    torch.manual_seed(0)
    train, test = keyword_texts(300), keyword_texts(300, seed=1)
    model = WordGRU(Vocabulary().fit(train[0]), n_components=16, n_embedding=16)
    assert accuracy_when_trained(model, train, test, steps=120, learning_rate=0.01) > 0.95


@pytest.mark.slow
def test_pooled_vector_learns_to_reconstruct():
    torch.manual_seed(0)
    train, test = keyword_texts(300)[0], keyword_texts(200, seed=1)[0]
    model = WordGRU(Vocabulary().fit(train), n_components=32, n_embedding=16)
    assert unexplained_when_trained(model, train, test, steps=150, learning_rate=0.01) < 0.6


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_text_does_not_depend_on_batch_and_padding(texts, pooling):
    torch.manual_seed(0)
    model = WordGRU(Vocabulary().fit(texts), n_components=8, pooling=pooling, n_layers=2).eval()
    ids = model.collate(texts)["ids"]
    together = model(ids=torch.nn.functional.pad(ids, (0, 9)))
    assert together.tokens.shape[1] == 7  # no longer than the longest text
    for row, text in enumerate(texts):
        alone = model(**model.collate([text]))
        n_words = alone.mask.sum()
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(
            together.tokens[row, :n_words], alone.tokens[0], atol=1e-6, rtol=1e-5
        )


def test_collate(model, texts):
    ids = model.collate(texts)["ids"]
    assert ids.shape == (4, 7)
    assert ids.dtype == torch.int64
    assert (ids != 0).sum(1).tolist() == [3, 2, 1, 7]
    assert ids[2, 0] == Vocabulary.EMPTY
    short = WordGRU(model.vocabulary, n_components=8, max_length=2)
    assert torch.equal(short.collate(texts)["ids"][0], ids[0, :2])


def test_no_texts_and_no_words(model):
    assert model.collate([])["ids"].shape == (0, 1)
    assert model(**model.collate([])).pooled.shape == (0, 8)
    for n_words in (0, 3):  # rows of padding, which collate does not return
        encoded = model(ids=torch.zeros(2, n_words, dtype=torch.int64))
        assert not encoded.mask.any()
        assert torch.equal(encoded.pooled, torch.zeros(2, 8))


def test_word_dropout_in_training_only(texts):
    torch.manual_seed(0)
    model = WordGRU(Vocabulary().fit(texts), n_components=8, word_dropout=1.0)
    hidden, known = model.collate(["a red coat"]), model.collate(["never seen before"])
    assert torch.equal(model(**hidden).pooled, model(**known).pooled)
    assert torch.equal(
        model(**model.collate([""])).pooled, model.eval()(**model.collate([""])).pooled
    )
    assert not torch.equal(model(**hidden).pooled, model(**known).pooled)


def test_unknown_word_is_trained(texts):
    torch.manual_seed(0)
    model = WordGRU(Vocabulary().fit(texts), n_components=8, word_dropout=0.5)
    model(**model.collate(texts)).pooled.sum().backward()
    assert (model.embedding.weight.grad[Vocabulary.UNKNOWN] != 0).any()
    assert (model.embedding.weight.grad[Vocabulary.PADDING] == 0).all()


def test_reconstruction_target():
    texts = ["b a b", "c b", "", "zebra a"]
    model = WordGRU(Vocabulary(3).fit(["b a b", "c b a", ""]))
    target = model.reconstruction_target(**model.collate(texts))
    assert target.tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]]  # b, a, c
    many = Vocabulary().fit([" ".join(f"w{i}" for i in range(300))])
    model = WordGRU(many)
    target = model.reconstruction_target(**model.collate(["w299", many.words_[255]]))
    assert target.shape == (2, 256)
    assert target[1, 255] == 1


def test_reconstruction_target_of_empty_vocabulary():
    model = WordGRU(Vocabulary().fit(["", ""]))
    assert torch.equal(model.reconstruction_target(**model.collate([""])), torch.zeros(1, 1))


def test_seed_state_dict_and_pickle(model, texts):
    torch.manual_seed(0)
    again = WordGRU(model.vocabulary, n_components=8, n_embedding=5)
    copied = WordGRU(model.vocabulary, n_components=8, n_embedding=5)
    copied.load_state_dict(model.state_dict())
    expected = model(**model.collate(texts)).pooled
    for other in (again, copied, pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.eval()(**other.collate(texts)).pooled, expected)


def test_dropout_with_one_and_two_layers(texts):
    for n_layers in (1, 2):  # torch warns for one layer, and warnings are errors
        model = WordGRU(Vocabulary().fit(texts), n_layers=n_layers, dropout=0.5)
        assert torch.isfinite(model(**model.collate(texts)).pooled).all()


def test_errors(texts):
    with pytest.raises(ValueError, match="WordGRU: the vocabulary is not fitted"):
        WordGRU(Vocabulary())
    with pytest.raises(ValueError, match="pooling must be 'max' or 'mean', got 'sum'"):
        WordGRU(Vocabulary().fit(texts), pooling="sum")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's RED, size 42!", ["it", "'", "s", "red", ",", "size", "42", "!"]),
        ("  \n\t", []),
        ("na\u00efve Stra\u00dfe", ["na\u00efve", "stra\u00dfe"]),
        ("wow\U0001f600\U0001f600", ["wow", "\U0001f600", "\U0001f600"]),
        ("\u8d64\u3044coat\u4e8c", ["\u8d64", "\u3044", "coat", "\u4e8c"]),  # no spaces
        ("\ud55c\uad6d \uc0ac\ub78c", ["\ud55c\uad6d", "\uc0ac\ub78c"]),  # Korean has spaces
        ("\uff21\uff22\u3000\uff11", ["ab", "1"]),  # full width
        ("a_b", ["a_b"]),
    ],
)
def test_split_words(text, words):
    assert split_words(text) == words


def test_unicode_normalization():
    composed = "caf\u00e9"
    assert split_words(composed) == split_words(unicodedata.normalize("NFD", composed))


def test_words_are_sorted_by_frequency():
    texts = ["b a b", "c b a", "d"]
    words = Vocabulary().fit(texts).words_
    counts = Counter(" ".join(texts).split())
    assert words == sorted(counts, key=lambda word: (-counts[word], word)) == ["b", "a", "c", "d"]


def test_max_words_and_min_count():
    texts = ["b a b", "c b a", "d"]
    assert Vocabulary(2).fit(texts).words_ == ["b", "a"]
    assert Vocabulary(min_count=2).fit(texts).words_ == ["b", "a"]
    assert Vocabulary(min_count=3).fit(texts).words_ == ["b"]


def test_ids():
    vocabulary = Vocabulary().fit(["b a b"])
    assert len(vocabulary) == 5
    assert vocabulary.encode("A b, B") == [4, 3, Vocabulary.UNKNOWN, 3]
    assert vocabulary.encode("a b b", max_length=2) == [4, 3]
    assert vocabulary.encode("") == vocabulary.encode(" \n") == [Vocabulary.EMPTY]
    assert Vocabulary().fit([""]).encode("a") == [Vocabulary.UNKNOWN]


def test_vocabulary_is_invariant_to_the_order_of_texts():
    texts = ["one two", "two three", "four"]
    assert Vocabulary().fit(texts).words_ == Vocabulary().fit(texts[::-1]).words_


def test_pickle_and_refit():
    vocabulary = Vocabulary(7).fit(["b a b"])
    again = pickle.loads(pickle.dumps(vocabulary))
    assert again.encode("a b c") == vocabulary.encode("a b c")
    assert again.max_words == 7
    assert again.fit(["z"]).encode("a z") == [Vocabulary.UNKNOWN, 3]


def test_repr():
    assert repr(Vocabulary()) == "<Vocabulary, not fitted>"
    assert repr(Vocabulary().fit(["a b"])) == "<Vocabulary of 2 words>"
