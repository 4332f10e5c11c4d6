"""Accuracy of answers to questions to which several people gave an answer."""

import numpy as np
from numpy.typing import ArrayLike

from skmm.metrics._text_rows import plain_words, text_rows

__all__ = ["vqa_accuracy"]

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}


def vqa_accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, leave_one_out: bool = False) -> float:
    """Compute the accuracy of visual question answering: a third for each person who agrees.

    Answers are compared as lower-case words, without punctuation and articles; number words up to
    ten count as digits, and "none" as 0.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Answers that people gave, as a list with repetitions in each cell; a text is one answer.
        Rows without any are left out.
    y_pred : array-like of shape (n_samples,)
        Predicted answers. A missing one is wrong.
    leave_one_out : bool, default=False
        Whether to leave out each answer of a row in turn and to average the values, as the VQA
        challenge does with ten answers.

    Returns
    -------
    vqa_accuracy : float
        Mean over rows of ``min(n_matching / 3, 1)``, from 0 to 1. A row with fewer than three
        answers cannot reach 1; use :func:`exact_match` for such rows.

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
            # The answer left out is one of those that match, or one of the others.
            values.append((right * _share(right - 1) + (n - right) * _share(right)) / n)
        else:
            values.append(_share(right))
    return float(np.mean(values))


def _form(text: str) -> list[str]:
    words = plain_words(text)
    # An answer of articles alone, such as the letter "a", is kept.
    telling = [word for word in words if word not in _ARTICLES] or words or [text.strip()]
    return [_DIGITS.get(word, word) for word in telling]


def _share(n_matching: int) -> float:
    return min(max(n_matching, 0) / 3, 1.0)
