"""Metrics of written texts against references."""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from skmm.metrics._text_rows import TextRow, count_ngrams, marked_words, plain_words, text_rows

__all__ = [
    "bleu",
    "character_f",
    "chrf",
    "cider",
    "consensus",
    "corpus_bleu",
    "exact_match",
    "rouge_l",
    "subsequence_f",
]


def corpus_bleu(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    max_order: int = 4,
    smoothing: bool = True,
    lowercase: bool = False,
    tokenize: Callable[[str], Sequence[str]] | None = None,
) -> float:
    """Compute the corpus BLEU: the precision of word n-grams over all rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Texts, or a list of several references in a cell. Rows without any are left out.
    y_pred : array-like of shape (n_samples,)
        Predicted texts. A missing one counts as empty.
    max_order : int, default=4
        Largest n of the n-grams.
    smoothing : bool, default=True
        Whether an order without any match gets a small precision, half of the previous such,
        instead of making the score 0.
    lowercase : bool, default=False
        Whether to ignore case.
    tokenize : callable, default=None
        Function from a text to its words. None is the tokenizer of published scores
        (mteval-v13a). Languages without spaces between words require their own.

    Returns
    -------
    bleu : float
        From 0 to 1; often reported times 100. It differs from the mean of the scores of the rows.

    Raises
    ------
    ValueError
        If the lengths differ, or no row has a reference.

    See Also
    --------
    chrf : F-score of characters, better suited to short texts and to inflected languages.

    Notes
    -----
    Equals ``sacrebleu`` with its defaults, except for orders that are longer than every reference:
    these are left out, since they would make the score of short captions 0.

    References
    ----------
    Papineni, Roukos, Ward, Zhu (2002), "BLEU: a method for automatic evaluation of machine
    translation", ACL. Post (2018), "A call for clarity in reporting BLEU scores", WMT.

    Examples
    --------
    >>> from skmm.metrics import corpus_bleu
    >>> written = ["a small red circle on the left", "two blue squares"]
    >>> corpus_bleu(["a small red circle on the right", "two blue squares"], written)
    0.83...
    >>> corpus_bleu([["one red dot", "a red circle"]], ["a red circle"])  # two references
    1.0
    """
    rows = text_rows(y_true, y_pred, "corpus_bleu")
    _check_int("corpus_bleu", "max_order", max_order, 1)
    cut = marked_words if tokenize is None else tokenize
    return bleu(
        rows,
        max_order=max_order,
        smoothing=smoothing,
        words=(lambda text: cut(text.lower())) if lowercase else cut,
    )


def chrf(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    char_order: int = 6,
    word_order: int = 0,
    beta: float = 2.0,
    lowercase: bool = False,
) -> float:
    """Compute chrF, the F-score of character n-grams over all rows, or chrF++ with words.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Texts, or a list of several references in a cell, the best of which counts. Rows without
        any are left out.
    y_pred : array-like of shape (n_samples,)
        Predicted texts. A missing one counts as empty.
    char_order : int, default=6
        Largest n of the character n-grams; spaces are left out.
    word_order : int, default=0
        Largest n of the word n-grams; 2 is chrF++.
    beta : float, default=2.0
        Weight of recall relative to precision.
    lowercase : bool, default=False
        Whether to ignore case.

    Returns
    -------
    chrf : float
        From 0 to 1; often reported times 100. Equals ``sacrebleu``.

    References
    ----------
    Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation", WMT. Popović
    (2017), "chrF++: words helping character n-grams", WMT.

    Examples
    --------
    >>> from skmm.metrics import chrf
    >>> chrf(["a red circle"], ["two red circles"])
    0.79...
    """
    rows = text_rows(y_true, y_pred, "chrf")
    _check_int("chrf", "char_order", char_order, 1)
    _check_int("chrf", "word_order", word_order, 0)
    _check_positive("chrf", "beta", beta)
    return character_f(
        rows, char_order=char_order, word_order=word_order, beta=beta, lowercase=lowercase
    )


def rouge_l(y_true: ArrayLike, y_pred: ArrayLike, *, beta: float = 1.0) -> float:
    """Compute ROUGE-L, the mean F-score of the longest common subsequence of words.

    Texts are compared as lower-case words, without punctuation and without stemming.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Texts, or a list of several references in a cell, the best of which counts. Rows without
        any are left out.
    y_pred : array-like of shape (n_samples,)
        Predicted texts. A missing one counts as empty.
    beta : float, default=1.0
        Weight of recall relative to precision. Captions are often scored with 1.2.

    Returns
    -------
    rouge_l : float
        From 0 to 1.

    References
    ----------
    Lin (2004), "ROUGE: a package for automatic evaluation of summaries", ACL workshop.

    Examples
    --------
    >>> from skmm.metrics import rouge_l
    >>> rouge_l(["The police killed the gunman."], ["police kill the gunman"])
    0.666...
    """
    rows = text_rows(y_true, y_pred, "rouge_l")
    _check_positive("rouge_l", "beta", beta)
    return subsequence_f(rows, beta=beta)


def exact_match(
    y_true: ArrayLike, y_pred: ArrayLike, *, ignore: Literal["case", "case_and_signs"] | None = None
) -> float:
    """Compute the fraction of rows whose text equals one of its references.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Texts, or a list of several references in a cell. Rows without any are left out.
    y_pred : array-like of shape (n_samples,)
        Predicted texts. A missing one counts as empty.
    ignore : {"case", "case_and_signs"}, default=None
        What to ignore: case, or case and punctuation. The number of spaces between words and the
        composition of characters (Unicode NFC) never count.

    Returns
    -------
    exact_match : float
        From 0 to 1.

    Examples
    --------
    >>> from skmm.metrics import exact_match
    >>> y_true, y_pred = ["A red circle.", ["four", "4"]], ["a red  circle", "4"]
    >>> exact_match(y_true, y_pred)
    0.5
    >>> exact_match(y_true, y_pred, ignore="case_and_signs")
    1.0
    """
    rows = text_rows(y_true, y_pred, "exact_match")
    if ignore not in (None, "case", "case_and_signs"):
        raise ValueError(
            f"exact_match: ignore must be None, 'case' or 'case_and_signs', got {ignore!r}."
        )

    def form(text: str) -> list[str]:
        if ignore == "case_and_signs":
            return plain_words(text)
        words = unicodedata.normalize("NFC", text).split()
        return [word.casefold() for word in words] if ignore == "case" else words

    found = [form(row.text) in [form(reference) for reference in row.references] for row in rows]
    return float(np.mean(found))


def cider(
    y_true: ArrayLike, y_pred: ArrayLike, *, max_order: int = 4, sigma: float | None = 6.0
) -> float:
    """Compute CIDEr-D, the mean similarity of TF-IDF weighted n-grams with the references.

    N-grams of one to four words are weighted by how rare they are in the references of all rows,
    and the cosine similarities of a text with its references are averaged. Repeated n-grams are
    clipped to their count in the reference, and a difference in length lowers the score. Texts are
    compared as lower-case words, without punctuation.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Texts, or a list of several references in a cell. Rows without any are left out.
    y_pred : array-like of shape (n_samples,)
        Predicted texts. A missing one counts as empty.
    max_order : int, default=4
        Largest n of the n-grams.
    sigma : float, default=6.0
        Standard deviation, in words, of the Gaussian penalty on the difference of lengths; None is
        no penalty.

    Returns
    -------
    cider : float
        From 0 to 10, the scale of the paper; often reported times 10. The weights come from the
        given rows, so scores of different sets of rows are not comparable, and that of a single
        row is 0.

    References
    ----------
    Vedantam, Zitnick, Parikh (2015), "CIDEr: consensus-based image description evaluation", CVPR.

    Examples
    --------
    >>> from skmm.metrics import cider
    >>> y_true = [["a red circle on a table", "red circle on wood"], ["two blue squares"]]
    >>> cider(y_true, ["a red circle on a table", "two blue squares"], max_order=2)
    8.73...
    """
    rows = text_rows(y_true, y_pred, "cider")
    _check_int("cider", "max_order", max_order, 1)
    if sigma is not None:
        _check_positive("cider", "sigma", sigma)
    return consensus(rows, max_order=max_order, sigma=sigma)


def _check_int(owner: str, name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{owner}: {name} must be an int of at least {least}, got {value!r}.")


def _check_positive(owner: str, name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise ValueError(f"{owner}: {name} must be a number above 0, got {value!r}.")


# --- The metrics, for checked rows ---

_SIGNS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def bleu(
    rows: list[TextRow],
    *,
    max_order: int,
    smoothing: bool,
    words: Callable[[str], Sequence[str]],
) -> float:
    """Compute corpus BLEU, from 0 to 1."""
    right, there = np.zeros(max_order), np.zeros(max_order)
    n_words = n_wanted = longest = 0
    for text, references in rows:
        found = words(text)
        wanted = [words(reference) for reference in references]
        lengths = [len(reference) for reference in wanted]
        n_words += len(found)
        # The nearest length; the shorter of two at the same distance.
        n_wanted += min(lengths, key=lambda length: (abs(length - len(found)), length))
        longest = max(longest, *lengths)
        for n in range(1, max_order + 1):
            allowed: Counter[Any] = Counter()
            for reference in wanted:
                allowed |= count_ngrams(reference, n)
            counts = count_ngrams(found, n)
            right[n - 1] += (counts & allowed).total()
            there[n - 1] += counts.total()
    order = min(max_order, max(longest, 1))  # leave out orders longer than every reference
    right, there = right[:order], there[:order]
    if not right.any() or not there.all():
        return 0.0
    halvings = np.cumsum(right == 0)  # each order without a match halves again
    if halvings.any() and not smoothing:
        return 0.0
    precisions = np.where(right == 0, 0.5**halvings, right) / there
    brevity = min(0.0, 1 - n_wanted / n_words)
    return math.exp(brevity + float(np.log(precisions).mean()))


def character_f(
    rows: list[TextRow], *, char_order: int, word_order: int, beta: float, lowercase: bool
) -> float:
    """Compute chrF of a corpus, from 0 to 1."""
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
    """Count the n-grams of characters, without spaces, and of words, for each n."""
    text = text.lower() if lowercase else text
    characters = "".join(text.split())
    words = [part for word in text.split() for part in _without_sign(word)]
    runs = [count_ngrams(characters, n) for n in range(1, char_order + 1)]
    return runs + [count_ngrams(words, n) for n in range(1, word_order + 1)]


def _without_sign(word: str) -> list[str]:
    """Split off a punctuation mark at the end of a word, or else at its beginning."""
    if len(word) > 1 and word[-1] in _SIGNS:
        return [word[:-1], word[-1]]
    if len(word) > 1 and word[0] in _SIGNS:
        return [word[0], word[1:]]
    return [word]


def _matches(found: list[Counter[Any]], wanted: list[Counter[Any]]) -> np.ndarray:
    """Count the n-grams of the text, of the reference and of both: (n_orders, 3)."""
    return np.array(
        [
            # An order longer than the reference does not count against the text.
            (own.total() if other else 0, other.total(), (own & other).total())
            for own, other in zip(found, wanted, strict=True)
        ],
        dtype=float,
    )


def _f_of_counts(counts: np.ndarray, beta: float) -> float:
    known = counts[(counts[:, 0] > 0) & (counts[:, 1] > 0)]
    if not len(known):
        return 0.0
    precision = float((known[:, 2] / known[:, 0]).mean())
    recall = float((known[:, 2] / known[:, 1]).mean())
    return _f(precision, recall, beta)


def _f(precision: float, recall: float, beta: float) -> float:
    weighted = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def subsequence_f(rows: list[TextRow], *, beta: float) -> float:
    """Compute the mean ROUGE-L with the best reference of each row, from 0 to 1."""
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
    """Return the length of the longest common subsequence.

    A row of the dynamic programming table is the bits of one integer: Hyyrö (2004), "Bit-parallel
    LCS-length computation revisited".
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
    """Compute CIDEr-D, from 0 to 10."""
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
    """Compute the cosine of TF-IDF weighted n-grams, clipped to the counts of the reference."""
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
