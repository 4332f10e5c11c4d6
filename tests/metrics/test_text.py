"""Metrics of texts: against sacrebleu, values of rouge-score, and CIDEr-D from its paper."""

import math
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import sacrebleu
from sklearn.dummy import DummyClassifier
from sklearn.metrics import make_scorer

from skmm.metrics import chrf, cider, corpus_bleu, exact_match, make_text_scorer, rouge_l

# Punctuation of every kind around and inside words.
WORDS = (
    "a red circle, \"blue\" square. on the (left) 3.5 1,000 10-year well-known it's don't $5 50%"
    " e.g. &amp; &lt;b&gt; <skipped> A Red é naïve x. - -- 7 #1 a/b http://x.y/?z=1 a! one_two ..."
    " 中 文。 ²"
).split()


def sentences(seed, n_rows=12, n_references=1):
    """Make references (n_rows lists) and texts that share some of their words."""
    rng = np.random.default_rng(seed)
    references, texts = [], []
    for _ in range(n_rows):
        first = list(rng.choice(WORDS, rng.integers(1, 14)))
        others = [_changed(first, rng) for _ in range(n_references - 1)]
        references.append([" ".join(words) for words in [first, *others]])
        texts.append(" ".join(_changed(first, rng)))
    return references, texts


def _changed(words, rng):
    words = [w if rng.random() < 0.7 else str(rng.choice(WORDS)) for w in words]
    start, stop = sorted(rng.integers(0, len(words) + 1, 2))
    return words[start:stop] if rng.random() < 0.3 else words


def columns(references):
    """Convert references to the format of sacrebleu, one list for each position."""
    return [list(column) for column in zip(*references, strict=True)]


CASES = [(seed, n) for seed in range(8) for n in (1, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "n_references"), CASES)
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_equals_sacrebleu(seed, n_references, lowercase):
    references, texts = sentences(seed, n_references=n_references)
    for smoothing, name in ((True, "exp"), (False, "none")):
        for max_order in (2, 4):
            scorer = sacrebleu.BLEU(
                smooth_method=name, lowercase=lowercase, max_ngram_order=max_order
            )
            theirs = scorer.corpus_score(texts, columns(references)).score / 100
            options = {"smoothing": smoothing, "lowercase": lowercase, "max_order": max_order}
            assert corpus_bleu(references, texts, **options) == pytest.approx(theirs, abs=1e-12)


def test_bleu_smoothed_where_an_order_has_no_match():
    texts, references = ["a b c d e"], ["a x c y e z"]
    theirs = sacrebleu.corpus_bleu(texts, [references]).score / 100
    assert 0 < theirs == pytest.approx(corpus_bleu(references, texts), abs=1e-12)
    assert corpus_bleu(references, texts, smoothing=False) == 0


def test_bleu_of_short_captions_uses_the_orders_that_they_have():
    assert sacrebleu.corpus_bleu(["red circle"], [["red circle"]]).score == 0
    assert corpus_bleu(["red circle"], ["red circle"]) == 1
    # One long reference, and short texts gain nothing by being short.
    assert corpus_bleu(["red circle", "a b c d e"], ["red circle", "a"]) == 0


def test_bleu_with_a_custom_tokenizer():
    assert corpus_bleu(["中文字"], ["中文"]) == 0  # two words that differ
    assert corpus_bleu(["中文字"], ["中文"], tokenize=list, max_order=1) == pytest.approx(
        math.exp(-0.5)
    )


@pytest.mark.parametrize(("seed", "n_references"), CASES)
def test_chrf_equals_sacrebleu(seed, n_references):
    references, texts = sentences(seed, n_references=n_references)
    for char_order, word_order, beta, lowercase in (
        (6, 0, 2, False),
        (6, 2, 2, True),
        (3, 1, 1, False),
    ):
        scorer = sacrebleu.CHRF(char_order, word_order, beta, lowercase=lowercase)
        theirs = scorer.corpus_score(texts, columns(references)).score / 100
        own = chrf(
            references,
            texts,
            char_order=char_order,
            word_order=word_order,
            beta=beta,
            lowercase=lowercase,
        )
        assert own == pytest.approx(theirs, abs=1e-12)


def n_common(left, right):
    table = np.zeros((len(left) + 1, len(right) + 1), dtype=int)
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            table[i, j] = (
                table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
            )
    return table[-1, -1]


@pytest.mark.parametrize("seed", range(8))
def test_rouge_l_against_the_whole_table(seed):
    rng = np.random.default_rng(seed)
    left, right = rng.choice(list("abcde"), 70), rng.choice(list("abcd"), 90)
    n = n_common(left, right)
    precision, recall = n / 70, n / 90
    for beta in (1.0, 1.2):
        f = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
        found = rouge_l([" ".join(right)], [" ".join(left)], beta=beta)
        assert found == pytest.approx(f, abs=1e-12)


ROUGE = [
    (["The police killed the gunman."], "police kill the gunman", 0.6666666666666665),
    (
        ["a red circle, on the left", "the circle is red"],
        "the red circle on left",
        0.7272727272727272,
    ),
    (["it's 3.5 well-known things"], "its 3.5 well known things, e.g. one", 0.6250000000000001),
    (["nothing alike"], "quite other words", 0.0),
    (["a a b b c"], "b a c b a c", 0.5454545454545454),
]


@pytest.mark.parametrize(("references", "text", "value"), ROUGE)
def test_rouge_l_equals_rouge_score(references, text, value):
    """Values of rouge-score 0.1.2, ``RougeScorer(["rougeL"]).score_multi``."""
    assert rouge_l([references], [text]) == pytest.approx(value, abs=1e-12)


def cider_by_hand(references, texts, sigma=6.0, max_order=4):
    """Equations 1 to 3 and the changes of CIDEr-D, n-gram by n-gram."""

    def grams(text, n):
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    total = 0.0
    for row, text in zip(references, texts, strict=True):
        for n in range(1, max_order + 1):
            value = 0.0
            for reference in row:
                vocabulary = sorted(set(grams(text, n)) | set(grams(reference, n)))
                weights = []
                for gram in vocabulary:
                    df = sum(any(gram in grams(r, n) for r in other) for other in references)
                    weights.append(math.log(len(references) / max(1, df)))
                own = np.array(
                    [grams(text, n)[g] * w for g, w in zip(vocabulary, weights, strict=True)]
                )
                other = np.array(
                    [grams(reference, n)[g] * w for g, w in zip(vocabulary, weights, strict=True)]
                )
                norm = np.linalg.norm(own) * np.linalg.norm(other)
                apart = len(text.split()) - len(reference.split())
                if norm > 0:
                    cosine = np.minimum(own, other) @ other / norm
                    value += 10 * math.exp(-(apart**2) / (2 * sigma**2)) * cosine
            total += value / len(row) / max_order
    return total / len(texts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_references", [1, 4])
def test_cider_equals_the_paper(seed, n_references):
    rng = np.random.default_rng(seed)

    def text(longest=9):
        return " ".join(rng.choice(list("abcdefg"), rng.integers(1, longest)))

    references = [[text() for _ in range(n_references)] for _ in range(10)]
    texts = [text() if rng.random() < 0.5 else row[0] + " a a" for row in references]
    assert cider(references, texts) == pytest.approx(cider_by_hand(references, texts), abs=1e-9)
    theirs = cider_by_hand(references, texts, sigma=2.0, max_order=2)
    assert cider(references, texts, sigma=2.0, max_order=2) == pytest.approx(theirs, abs=1e-9)


def test_cider_rewards_rare_words_and_no_repetition():
    y = ["a red circle", "a blue square", "a green star", "a red star"]
    assert cider(y, y, max_order=2) == pytest.approx(10)
    plain = cider(y, ["a", "a", "a", "a"])
    assert plain == 0  # every row has it
    said_twice = ["circle circle circle", *y[1:]]
    assert cider(y, said_twice, sigma=None) < cider(y, ["a red circle", *y[1:]], sigma=None)


def test_exact_match():
    y = ["A red circle.", ["two", "2"], "caf\u00e9"]
    assert exact_match(y, ["A red  circle.", "2", "cafe\u0301"]) == 1
    assert exact_match(y, ["a red circle.", "two", "café"]) == pytest.approx(2 / 3)
    assert exact_match(y, ["a red circle.", "Two", "x"], ignore="case") == pytest.approx(2 / 3)
    assert exact_match(y, ["a red, circle", "3", "x"], ignore="case_and_signs") == pytest.approx(
        1 / 3
    )


METRICS = [chrf, cider, corpus_bleu, exact_match, rouge_l]


@pytest.mark.parametrize("metric", METRICS)
def test_missing_texts(metric):
    y = ["a red circle", None, ["one dot on the left", None], np.nan, pd.NA, [], "a blue square"]
    texts = ["a red circle", "x", "one dot on the left", "x", "x", "x", None]
    kept = [["a red circle"], ["one dot on the left"], ["a blue square"]]
    value = metric(y, texts)
    assert value == metric(kept, ["a red circle", "one dot on the left", ""])
    assert 0 < value < metric(kept, [row[0] for row in kept])
    assert metric(kept, ["", None, ""]) == 0
    assert metric(pd.Series(y, index=range(10, 17)), np.array(texts, dtype=object)) == value


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input_is_refused(metric):
    name = metric.__name__
    with pytest.raises(ValueError, match=f"{name}: y_true has 2 rows and y_pred has 1"):
        metric(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=f"{name}: no row of y_true has a text"):
        metric([None, []], ["a", "b"])
    with pytest.raises(TypeError, match=f"{name}: y_pred must hold texts, got int in row 1"):
        metric(["a", "b"], ["a", 3])
    with pytest.raises(TypeError, match=f"{name}: a cell of y_true must be a text.*bytes in row 0"):
        metric([b"a"], ["a"])
    with pytest.raises(TypeError, match=f"{name}: y_pred must be a list .* got str"):
        metric(["a"], "a")


@pytest.mark.parametrize(
    ("metric", "params", "message"),
    [
        (corpus_bleu, {"max_order": 0}, "max_order must be an int of at least 1, got 0"),
        (chrf, {"char_order": 1.5}, "char_order must be an int"),
        (chrf, {"beta": 0}, "beta must be a number above 0"),
        (rouge_l, {"beta": -1}, "beta must be a number above 0, got -1"),
        (cider, {"sigma": "6"}, "sigma must be a number above 0"),
        (exact_match, {"ignore": "signs"}, "ignore must be None, 'case' or 'case_and_signs'"),
    ],
)
def test_bad_parameters_are_refused(metric, params, message):
    with pytest.raises(ValueError, match=message):
        metric(["a"], ["a"], **params)


# --- scorers -------------------------------------------------------------------------------


def test_scorer():
    X, y = np.zeros((4, 1)), ["a red dot", "a red dot", "a red dot", "A blue dot"]
    model = DummyClassifier().fit(X, y)
    assert make_text_scorer("exact_match")(model, X, y) == 0.75
    assert make_text_scorer()(model, X, y) == corpus_bleu(y, ["a red dot"] * 4)
    lowered = make_text_scorer("corpus_bleu", lowercase=True)
    assert lowered(model, X, y) == corpus_bleu(y, ["a red dot"] * 4, lowercase=True)
    assert repr(lowered) == "make_text_scorer('corpus_bleu', lowercase=True)"
    assert pickle.loads(pickle.dumps(lowered))(model, X, y) == lowered(model, X, y)
    assert make_scorer(chrf)(model, X, np.array(y)) == make_text_scorer("chrf")(model, X, y)


def test_scorer_refuses_unknown_metrics_and_parameters():
    with pytest.raises(ValueError, match="metric must be one of .*'chrf'.* got 'meteor'"):
        make_text_scorer("meteor")
    with pytest.raises(TypeError, match="chrf has no parameter 'order': it takes .*'char_order'"):
        make_text_scorer("chrf", order=3)
