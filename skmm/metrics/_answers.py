"""How right answers to questions are, where people gave several."""

import numpy as np
from numpy.typing import ArrayLike

from skmm.metrics._text_rows import plain_words, text_rows

__all__ = ["vqa_accuracy"]

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}


def vqa_accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, leave_one_out: bool = False) -> float:
    """Mean share of what three people would have said: a third for each who gave this answer.

    Answers are compared as lower-case words, without signs and articles; number words up to ten
    are digits, and "none" is 0.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Answers that people gave, a list in each cell, with repetitions; a text is one answer. A
        row without any is left out.
    y_pred : array-like of shape (n_samples,)
        Answers to be judged. A missing one is wrong.
    leave_one_out : bool, default=False
        Whether each of a row's answers is left out in turn and the values averaged, as the
        challenge does with ten of them.

    Returns
    -------
    vqa_accuracy : float
        Mean over rows of ``min(n_matching / 3, 1)``, from 0 to 1. Where a row has fewer than three
        answers, nothing is quite right: take :func:`exact_match` there.

    References
    ----------
    Antol et al. (2015), "VQA: visual question answering", ICCV.

    Examples
    --------
    >>> from skmm.metrics import vqa_accuracy
    >>> people = [["red", "red", "Red.", "pink"], ["two", "2", "three", "many"]]
    >>> vqa_accuracy(people, ["red", "2"])
    0.833...
    """
    values = []
    for text, references in text_rows(y_true, y_pred, "vqa_accuracy"):
        found = _form(text)
        n, right = len(references), sum(_form(reference) == found for reference in references)
        if leave_one_out:
            # One of those that match is left out, or one of the others.
            values.append((right * _share(right - 1) + (n - right) * _share(right)) / n)
        else:
            values.append(_share(right))
    return float(np.mean(values))


def _form(text: str) -> list[str]:
    words = plain_words(text)
    # Of the letter "a" nothing would be left.
    telling = [word for word in words if word not in _ARTICLES] or words or [text.strip()]
    return [_DIGITS.get(word, word) for word in telling]


def _share(n_matching: int) -> float:
    return min(max(n_matching, 0) / 3, 1.0)
