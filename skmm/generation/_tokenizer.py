"""Texts to numbers and back, without loss."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

__all__ = ["TextTokenizer"]

# Scripts that put no space between words: Thai to Khmer, Japanese, Chinese. A sentence of theirs
# in one piece would be a word that no other text holds.
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
# The space before a word belongs to it, so that pieces put together are the text.
_PIECE = re.compile(rf" ?(?:[{_NO_SPACES}]|[^\W{_NO_SPACES}]+|[^\w\s])")

_Pair = tuple[str, str]


class TextTokenizer:
    """Cuts texts into tokens that make up the same text again.

    Spaces are squeezed and characters composed (Unicode NFC); case and signs stay. What no
    training text holds is the id ``UNKNOWN``.

    Parameters
    ----------
    kind : {"word", "bpe", "character"}
        Words and signs; parts of words, by byte-pair encoding (of characters) [1]_; or characters.
    max_tokens : int
        Most tokens that are kept: the most frequent words, or the merges that are learned first.

    References
    ----------
    .. [1] Sennrich, Haddow, Birch (2016), "Neural machine translation of rare words with subword
       units", ACL.
    """

    END = 0
    UNKNOWN = 1
    N_SPECIAL = 2

    def __init__(self, kind: str, max_tokens: int):
        self.kind = kind
        self.max_tokens = max_tokens

    def fit(self, texts: Iterable[str]) -> "TextTokenizer":
        """Learn the tokens of texts; sets ``tokens_``, the most frequent first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_pieces(text))
        self._ranks: dict[_Pair, int] = {}
        if self.kind == "word":
            self.tokens_ = _most_frequent(counts)[: self.max_tokens]
        else:
            characters: Counter[str] = Counter()
            for piece, count in counts.items():
                for character in piece:
                    characters[character] += count
            self.tokens_ = _most_frequent(characters)[: self.max_tokens]
            if self.kind == "bpe":
                self._learn_merges(counts)
        self._ids = {token: i for i, token in enumerate(self.tokens_, self.N_SPECIAL)}
        return self

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without that of the end."""
        tokens = [token for piece in _pieces(text) for token in self._cut(piece)]
        return [self._ids.get(token, self.UNKNOWN) for token in tokens]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, none of which is that of the end."""
        special = self.N_SPECIAL
        return "".join("\ufffd" if i < special else self.tokens_[i - special] for i in ids).strip()

    def __len__(self) -> int:
        """Count the ids that can be written."""
        return self.N_SPECIAL + len(self.tokens_)

    def _cut(self, piece: str) -> list[str]:
        if self.kind == "word":
            return [piece]
        parts = list(piece)
        while self._ranks and len(parts) > 1:
            pair = min(zip(parts, parts[1:], strict=False), key=self._rank)
            if pair not in self._ranks:
                break
            parts = _merged(parts, pair)
        return parts

    def _rank(self, pair: _Pair) -> int:
        return self._ranks.get(pair, len(self._ranks))

    def _learn_merges(self, counts: Counter[str]) -> None:
        """Join the most frequent pair of neighbours, again and again."""
        words = [(list(piece), count) for piece, count in sorted(counts.items())]
        pairs: Counter[_Pair] = Counter()
        places: defaultdict[_Pair, set[int]] = defaultdict(set)
        for i, (parts, count) in enumerate(words):
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += count
                places[pair].add(i)
        known = set(self.tokens_)
        while len(self.tokens_) < self.max_tokens and pairs:
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            if pairs[best] < 2:  # a part that is there once explains nothing else
                break
            self._ranks[best] = len(self._ranks)
            token = "".join(best)
            if token not in known:  # two ways may lead to one token
                known.add(token)
                self.tokens_.append(token)
            for i in places.pop(best):
                parts, count = words[i]
                for pair in zip(parts, parts[1:], strict=False):
                    pairs[pair] -= count
                    if not pairs[pair]:
                        del pairs[pair]
                parts = _merged(parts, best)
                words[i] = parts, count
                for pair in zip(parts, parts[1:], strict=False):
                    pairs[pair] += count
                    places[pair].add(i)


def _pieces(text: str) -> list[str]:
    words = unicodedata.normalize("NFC", text).split()
    return _PIECE.findall("".join(f" {word}" for word in words))


def _most_frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda token: (-counts[token], token))


def _merged(parts: list[str], pair: _Pair) -> list[str]:
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return merged
