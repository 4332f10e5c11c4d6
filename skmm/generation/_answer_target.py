"""The answers of a target: one a row, and those that are learned."""

from collections import Counter

__all__ = ["answers_of_rows", "kept_answers"]


def answers_of_rows(answers: list[list[str]]) -> list[str | None]:
    """Return the most frequent answer of each row, the first of several; None where none is.

    Parameters
    ----------
    answers : list of list of str
        One list for each row.
    """
    return [Counter(row).most_common(1)[0][0] if row else None for row in answers]


def kept_answers(answers: list[str | None], max_answers: int | None) -> set[str]:
    """Return the answers that most rows have, in the order of the alphabet where as many do.

    Parameters
    ----------
    answers : list of str or None
        As :func:`answers_of_rows` gives them.
    max_answers : int or None
        How many; None for all.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return set(sorted(counts, key=lambda answer: (-counts[answer], answer))[:max_answers])
