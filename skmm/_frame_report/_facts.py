"""The content of the report about a column and its cells, independent of the page."""

import re
from dataclasses import dataclass, field

__all__ = ["ColumnFacts", "Drawing", "Sample", "spell"]

_MOST = 200  # characters of a spelled object
# Not allowed in HTML; half a surrogate pair cannot be encoded.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass
class Drawing:
    """Markup of an image or a plot, in which all texts are escaped."""

    markup: str


@dataclass
class Sample:
    """A cell that is shown.

    Attributes
    ----------
    row : str
        Label of the row.
    drawings : list of Drawing
        Images or plots of the cell.
    text : str
        Its first words, if it is a text.
    note : str
        Size or length of the cell, or why it is not shown.
    unreadable : bool
        Whether the note is an error of the cell.
    """

    row: str
    drawings: list[Drawing] = field(default_factory=list)
    text: str = ""
    note: str = ""
    unreadable: bool = False


@dataclass
class ColumnFacts:
    """Facts about a column.

    Attributes
    ----------
    name : str
        Name as text.
    modality : str
        Modality of ``infer_modalities``; ``"empty"`` without a row, ``"unclear"`` if the cells
        do not belong to one modality.
    dtype : str
        Name of the dtype in the container.
    n_rows, n_missing : int
        Counts.
    n_distinct : int or None
        Number of distinct present cells, None if they cannot be compared.
    facts : list of str
        Sentences without a full stop.
    plot : Drawing or None
        Plot of the whole column.
    samples : list of Sample
        A few cells.
    unreadable : dict of int to (str, str)
        Position of the row -> its label and the error, for the inspected cells.
    is_shown : bool
        Whether it has its own section.
    """

    name: str
    modality: str
    dtype: str
    n_rows: int
    n_missing: int
    n_distinct: int | None = None
    facts: list[str] = field(default_factory=list)
    plot: Drawing | None = None
    samples: list[Sample] = field(default_factory=list)
    unreadable: dict[int, tuple[str, str]] = field(default_factory=dict)
    is_shown: bool = True

    @property
    def missing_share(self) -> float:
        """Share of the missing cells."""
        return self.n_missing / self.n_rows if self.n_rows else 0.0


def spell(value: object, at_most: int = _MOST) -> str:
    """Return any object as one line of text, even if its ``__str__`` fails."""
    try:
        text = value if type(value) is str else str(value)
    except Exception:  # a user's class
        text = f"<{type(value).__name__}>"
    text = _UNWRITABLE.sub("\ufffd", " ".join(text[: 4 * at_most].split()))
    return text if len(text) <= at_most else text[: at_most - 1] + "…"
