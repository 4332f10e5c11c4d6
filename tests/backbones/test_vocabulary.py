"""How texts are cut, counted and numbered."""

import pickle
import unicodedata
from collections import Counter

import pytest

from skmm.backbones import Vocabulary
from skmm.backbones._word_gru import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's RED, size 42!", ["it", "'", "s", "red", ",", "size", "42", "!"]),
        ("  \n\t", []),
        ("na\u00efve Stra\u00dfe", ["na\u00efve", "stra\u00dfe"]),
        ("wow\U0001f600\U0001f600", ["wow", "\U0001f600", "\U0001f600"]),
        ("\u8d64\u3044coat\u4e8c", ["\u8d64", "\u3044", "coat", "\u4e8c"]),  # no spaces
        ("\ud55c\uad6d \uc0ac\ub78c", ["\ud55c\uad6d", "\uc0ac\ub78c"]),  # Korean has them
        ("\uff21\uff22\u3000\uff11", ["ab", "1"]),  # full width
        ("a_b", ["a_b"]),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_spellings_of_one_character_are_one_word():
    composed = "caf\u00e9"
    assert split_words(composed) == split_words(unicodedata.normalize("NFD", composed))


def test_counts_against_a_counter():
    texts = ["b a b", "c b a", "d"]
    words = Vocabulary().fit(texts).words_
    counts = Counter(" ".join(texts).split())
    assert words == sorted(counts, key=lambda word: (-counts[word], word)) == ["b", "a", "c", "d"]


def test_limits():
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


def test_order_of_the_texts_does_not_matter():
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
