"""The tokenizer is lossless and learns the most frequent tokens."""

import pytest

from skmm.generation._text_targets import TextTokenizer

TEXTS = [
    "A red circle, on the LEFT (almost).",
    "don't  stop\n3.5 snake_case  ½ é",
    "中文字 and カタカナ, ไทย",
    "स्वागत है 👍🏽",
    "",
]
KINDS = ["word", "bpe", "character"]


@pytest.mark.parametrize("kind", KINDS)
def test_tokenization_is_lossless(kind):
    tokenizer = TextTokenizer(kind, 1000).fit(TEXTS)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == " ".join(text.split())
        assert all(tokenizer.N_SPECIAL <= i < len(tokenizer) for i in ids)


def test_composed_and_decomposed_are_one():
    tokenizer = TextTokenizer("word", 10).fit(["caf\u00e9"])
    assert tokenizer.decode(tokenizer.encode("cafe\u0301")) == "caf\u00e9"


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_tokens(kind):
    tokenizer = TextTokenizer(kind, 1000).fit(["ab ab"])
    ids = tokenizer.encode("ab xy")
    assert tokenizer.UNKNOWN in ids
    assert tokenizer.decode(ids).startswith("ab") and "\ufffd" in tokenizer.decode(ids)


def test_the_most_frequent_words_are_kept():
    tokenizer = TextTokenizer("word", 2).fit(["b a c", "b a", "b"])
    assert tokenizer.tokens_ == [" b", " a"] and len(tokenizer) == 4
    assert tokenizer.encode("c b") == [tokenizer.UNKNOWN, 2]


def test_byte_pairs_by_hand():
    """Pairs: (' ', 'a') 5, ('a', 'b') 4, ... and so on; ties by the later in the alphabet."""
    tokenizer = TextTokenizer("bpe", 5).fit(["ab ab ab abc a"])
    assert tokenizer.tokens_ == [" ", "a", "b", "c", " a"]
    tokenizer = TextTokenizer("bpe", 6).fit(["ab ab ab abc a"])
    assert tokenizer.tokens_[4:] == [" a", " ab"]
    assert [tokenizer.tokens_[i - 2] for i in tokenizer.encode("abc ba")] == [
        " ab",
        "c",
        " ",
        "b",
        "a",
    ]


def counted_again(texts, n_merges):
    """Byte-pair encoding that counts all pairs again before each merge."""
    words = [list(f" {word}") for text in texts for word in text.split()]
    merges = []
    for _ in range(n_merges):
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append("".join(best))
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def test_byte_pairs_counted_as_they_change():
    texts = ["banana bandana ananas", "aaaa aaa aa", "anna nana banana an"] * 2
    n_characters = len(TextTokenizer("character", 100).fit(texts).tokens_)
    tokenizer = TextTokenizer("bpe", n_characters + 12).fit(texts)
    assert tokenizer.tokens_[n_characters:] == counted_again(texts, 12)


def test_kinds_differ_in_length():
    texts = [f"counting {word} counted" for word in ("one", "two", "three", "ones", "twos")]
    lengths = [len(TextTokenizer(kind, 30).fit(texts).encode("counting ones")) for kind in KINDS]
    assert lengths[0] == 2 < lengths[1] < lengths[2] == 14
