"""Rows of texts with their references: checked, and split into words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["TextRow", "count_ngrams", "is_missing", "marked_words", "plain_words", "text_rows"]

_PLAIN = re.compile(r"[^\W_]+")
# The rules of mteval-v13a, the tokenizer of published BLEU scores: punctuation marks are tokens,
# except a full stop or a comma between digits; a hyphen is a token after a digit.
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_MARKS = (
    (re.compile(r"([{-~[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


class TextRow(NamedTuple):
    """A text with its references, at least one."""

    text: str
    references: list[str]


def text_rows(y_true: ArrayLike, y_pred: ArrayLike, owner: str) -> list[TextRow]:
    """Check the input and return the rows that have a reference.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        As in the metrics of texts.
    owner : str
        Name of the metric, for messages.

    Returns
    -------
    rows : list of TextRow
        At least one.
    """
    references, texts = _listed(y_true, "y_true", owner), _listed(y_pred, "y_pred", owner)
    if len(references) != len(texts):
        raise ValueError(
            f"{owner}: y_true has {len(references)} rows and y_pred has {len(texts)}. Give one"
            " text for each row."
        )
    rows = []
    for position, (cell, text) in enumerate(zip(references, texts, strict=True)):
        known = _references(cell, position, owner)
        if is_missing(text):
            text = ""
        elif not isinstance(text, str):
            raise TypeError(
                f"{owner}: y_pred must hold texts, got {type(text).__name__} in row {position} (by"
                " position)."
            )
        if known:
            rows.append(TextRow(text, known))
    if not rows:
        raise ValueError(f"{owner}: no row of y_true has a text. Give at least one that has.")
    return rows


def _listed(values: object, name: str, owner: str) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise TypeError(
            f"{owner}: {name} must be a list with one entry for each row, got"
            f" {type(values).__name__}. For one text give a list of one."
        )
    return list(cast(Iterable[Any], values))


def _references(cell: object, position: int, owner: str) -> list[str]:
    """Return the texts of a cell of ``y_true``: one, several or none."""
    if isinstance(cell, str):
        return [cell]
    if is_missing(cell):
        return []
    if isinstance(cell, Sequence | np.ndarray | set | frozenset) and not isinstance(cell, bytes):
        known = [text for text in cell if not is_missing(text)]
        if all(isinstance(text, str) for text in known):
            return known
    raise TypeError(
        f"{owner}: a cell of y_true must be a text or a list of texts, got {type(cell).__name__} in"
        f" row {position} (by position)."
    )


def is_missing(cell: object) -> bool:
    """Return whether a cell is None, a NaN or pandas.NA."""
    # By the name of the type, so that pandas need not be imported.
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float | np.floating) and cell != cell)
    )


def plain_words(text: str) -> list[str]:
    """Split a text into lower-case words of letters and digits, without punctuation."""
    return _PLAIN.findall(unicodedata.normalize("NFKC", text).lower())


def marked_words(text: str) -> list[str]:
    """Split a text into words and punctuation marks by the rules of mteval-v13a."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text} "  # so that a mark at an end has a neighbor
    for pattern, spread in _MARKS:
        text = pattern.sub(spread, text)
    return text.split()


def count_ngrams(items: Sequence[str], order: int) -> Counter[Any]:
    """Count the n-grams of ``order`` items."""
    return Counter(zip(*(items[start:] for start in range(order)), strict=False))
