"""What the report says about a column and its cells, independent of the page."""

import re
from dataclasses import dataclass, field

__all__ = ["ColumnFacts", "Drawing", "Sample", "spell"]

_MOST = 200  # characters of a spelled object
# No part of any HTML document; half a surrogate pair cannot even be written into a file.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass
class Drawing:
    """Something to look at: markup that needs no escaping any more, made by ``_drawing``."""

    markup: str


@dataclass
class Sample:
    """One cell that is shown.

    Attributes
    ----------
    row : str
        Label of the row.
    images : list of Drawing
        What can be seen of the cell.
    text : str
        Its first words, if it is a text.
    note : str
        Size, length or the reason why it is not shown.
    unreadable : bool
        Whether the note says what is wrong with the cell.
    """

    row: str
    images: list[Drawing] = field(default_factory=list)
    text: str = ""
    note: str = ""
    unreadable: bool = False


@dataclass
class ColumnFacts:
    """One column.

    Attributes
    ----------
    name : str
        Spelled.
    modality : str
        As ``infer_modalities`` gives it, ``"empty"`` without a row, ``"unclear"`` where the cells
        belong to no one modality.
    dtype : str
        What the container calls it.
    n_rows, n_missing : int
        Counts.
    n_distinct : int or None
        Distinct cells among those present, None where they cannot be compared.
    facts : list of str
        Sentences without a full stop.
    image : Drawing or None
        Of the column as a whole.
    samples : list of Sample
        A few cells.
    unreadable : dict of int to (str, str)
        Position of the row -> its label and what is wrong with the cell, for those looked at.
    is_shown : bool
        Whether it has a section of its own.
    """

    name: str
    modality: str
    dtype: str
    n_rows: int
    n_missing: int
    n_distinct: int | None = None
    facts: list[str] = field(default_factory=list)
    image: Drawing | None = None
    samples: list[Sample] = field(default_factory=list)
    unreadable: dict[int, tuple[str, str]] = field(default_factory=dict)
    is_shown: bool = True

    @property
    def missing_share(self) -> float:
        """Missing cells per row."""
        return self.n_missing / self.n_rows if self.n_rows else 0.0


def spell(value: object, at_most: int = _MOST) -> str:
    """Spell any object in one line, whatever its own ``__str__`` does."""
    try:
        text = value if type(value) is str else str(value)
    except Exception:  # a user's class
        text = f"<{type(value).__name__}>"
    text = _UNWRITABLE.sub("\ufffd", " ".join(text[: 4 * at_most].split()))
    return text if len(text) <= at_most else text[: at_most - 1] + "…"
