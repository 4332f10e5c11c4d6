"""What the metrics of texts compute, of rows that are checked."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skmm.metrics._texts import TextRow, count_ngrams, plain_words

__all__ = ["bleu", "character_f", "consensus", "subsequence_f"]

_SIGNS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def bleu(
    rows: list[TextRow],
    *,
    max_order: int,
    smoothing: bool,
    words: Callable[[str], Sequence[str]],
) -> float:
    """Corpus BLEU, from 0 to 1."""
    right, there = np.zeros(max_order), np.zeros(max_order)
    n_words = n_wanted = longest = 0
    for text, references in rows:
        found = words(text)
        wanted = [words(reference) for reference in references]
        lengths = [len(reference) for reference in wanted]
        n_words += len(found)
        # The nearest length, the shorter one of two that are as near.
        n_wanted += min(lengths, key=lambda length: (abs(length - len(found)), length))
        longest = max(longest, *lengths)
        for n in range(1, max_order + 1):
            allowed: Counter[Any] = Counter()
            for reference in wanted:
                allowed |= count_ngrams(reference, n)
            counts = count_ngrams(found, n)
            right[n - 1] += (counts & allowed).total()
            there[n - 1] += counts.total()
    order = min(max_order, max(longest, 1))  # what no reference is long enough for says nothing
    right, there = right[:order], there[:order]
    if not right.any() or not there.all():
        return 0.0
    halvings = np.cumsum(right == 0)  # each order without a match counts half of the last one's
    if halvings.any() and not smoothing:
        return 0.0
    precisions = np.where(right == 0, 0.5**halvings, right) / there
    brevity = min(0.0, 1 - n_wanted / n_words)
    return math.exp(brevity + float(np.log(precisions).mean()))


def character_f(
    rows: list[TextRow], *, char_order: int, word_order: int, beta: float, lowercase: bool
) -> float:
    """Score chrF of a corpus, from 0 to 1."""
    total = np.zeros((char_order + word_order, 3))
    for text, references in rows:
        found = _pieces(text, char_order, word_order, lowercase)
        matches = [
            _matches(found, _pieces(reference, char_order, word_order, lowercase))
            for reference in references
        ]
        total += max(matches, key=lambda counts: _f_of_counts(counts, beta))
    return _f_of_counts(total, beta)


def _pieces(text: str, char_order: int, word_order: int, lowercase: bool) -> list[Counter[Any]]:
    """Runs of characters, without spaces, and of words, by their length."""
    text = text.lower() if lowercase else text
    characters = "".join(text.split())
    words = [part for word in text.split() for part in _without_sign(word)]
    runs = [count_ngrams(characters, n) for n in range(1, char_order + 1)]
    return runs + [count_ngrams(words, n) for n in range(1, word_order + 1)]


def _without_sign(word: str) -> list[str]:
    """A word, and a sign at its end or else at its beginning, apart."""
    if len(word) > 1 and word[-1] in _SIGNS:
        return [word[:-1], word[-1]]
    if len(word) > 1 and word[0] in _SIGNS:
        return [word[0], word[1:]]
    return [word]


def _matches(found: list[Counter[Any]], wanted: list[Counter[Any]]) -> np.ndarray:
    """Runs of the text, of the reference and of both, by order: (n_orders, 3)."""
    return np.array(
        [
            # A reference too short for an order does not judge the text in it.
            (own.total() if other else 0, other.total(), (own & other).total())
            for own, other in zip(found, wanted, strict=True)
        ],
        dtype=float,
    )


def _f_of_counts(counts: np.ndarray, beta: float) -> float:
    judged = counts[(counts[:, 0] > 0) & (counts[:, 1] > 0)]
    if not len(judged):
        return 0.0
    precision = float((judged[:, 2] / judged[:, 0]).mean())
    recall = float((judged[:, 2] / judged[:, 1]).mean())
    return _f(precision, recall, beta)


def _f(precision: float, recall: float, beta: float) -> float:
    weighted = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def subsequence_f(rows: list[TextRow], *, beta: float) -> float:
    """ROUGE-L of each row's best reference, averaged; from 0 to 1."""
    values = []
    for text, references in rows:
        found = plain_words(text)
        scores = []
        for reference in references:
            wanted = plain_words(reference)
            n = _n_common(found, wanted)
            scores.append(_f(n / len(found), n / len(wanted), beta) if n else 0.0)
        values.append(max(scores))
    return float(np.mean(values))


def _n_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    A row of the usual table as the bits of one integer: Hyyrö (2004), "Bit-parallel LCS-length
    computation revisited".
    """
    places: dict[str, int] = {}
    for i, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << i
    everything = (1 << len(left)) - 1
    free = everything
    for word in right:
        match = free & places.get(word, 0)
        free = ((free + match) | (free - match)) & everything
    return len(left) - free.bit_count()


def consensus(rows: list[TextRow], *, max_order: int, sigma: float | None) -> float:
    """CIDEr-D, from 0 to 10."""
    words = [[plain_words(reference) for reference in row.references] for row in rows]
    said = [plain_words(row.text) for row in rows]
    scores = np.zeros(len(rows))
    for n in range(1, max_order + 1):
        wanted = [[count_ngrams(text, n) for text in row] for row in words]
        in_rows: Counter[Any] = Counter()
        for row in wanted:
            in_rows.update(set().union(*row))
        n_rows = len(rows)
        rarity = {run: math.log(n_rows / count) for run, count in in_rows.items()}
        for i, row in enumerate(wanted):
            own = count_ngrams(said[i], n)
            scores[i] += sum(
                _likeness(own, other, rarity, math.log(n_rows))
                * _same_length(len(said[i]) - len(text), sigma)
                for other, text in zip(row, words[i], strict=True)
            ) / len(row)
    return float(10 * scores.mean() / max_order)


def _likeness(
    own: Counter[Any], other: Counter[Any], rarity: dict[Any, float], unseen: float
) -> float:
    """Cosine of two texts' runs weighted by rarity; what is said too often counts once less."""
    shared = sum(
        min(own[run], count) * count * rarity[run] ** 2
        for run, count in other.items()
        if run in own
    )
    lengths = [
        math.sqrt(sum((count * rarity.get(run, unseen)) ** 2 for run, count in runs.items()))
        for runs in (own, other)
    ]
    return shared / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def _same_length(difference: int, sigma: float | None) -> float:
    return 1.0 if sigma is None else math.exp(-(difference**2) / (2 * sigma**2))
