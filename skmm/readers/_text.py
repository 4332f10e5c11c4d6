"""Text cells: strings as they are, numbers in one stable spelling, nothing else.

Numbers of any size as floats stand here too.
"""

from typing import SupportsFloat, cast

import numpy as np

from skmm.exceptions import CellTypeError
from skmm.readers._source import hasher

__all__ = ["as_float", "digest_text", "read_text"]

# Above this a float no longer tells neighboring integers apart.
_EXACT = 2.0**53
_HASHER = hasher("text")


def read_text(cell: object) -> str:
    """Read a text cell.

    Parameters
    ----------
    cell : str, bool, int, float or numpy scalar
        A string is kept character by character. A number is spelled as Python does, in its own
        precision, and a float that is whole as an integer: pandas turns the integers of a column
        into floats as soon as a neighbor is missing, and ``3`` has to stay ``3``.

    Returns
    -------
    text : str
        The text, exactly of type ``str``.

    Raises
    ------
    CellTypeError
        If the cell holds anything else. A missing cell is refused too: absence is the caller's
        to handle, and never becomes the text ``"nan"``.

    Examples
    --------
    >>> from skmm.readers import read_text
    >>> read_text("a red coat"), read_text(3), read_text(3.0), read_text(0.5)
    ('a red coat', '3', '3', '0.5')
    >>> read_text({"title": "a red coat"})
    Traceback (most recent call last):
        ...
    skmm.exceptions.CellTypeError: Cannot read a text from a cell of type dict. Give a str; \
for absent text give None.
    """
    if type(cell) is str:  # nearly every cell
        return cell
    if isinstance(cell, str):
        return str.__str__(cell)  # numpy.str_ and the like
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if isinstance(cell, int | np.integer) and not isinstance(cell, np.timedelta64):
        return str(int(cell))
    if isinstance(cell, float | np.floating) and cell == cell:
        value = float(cell)
        if -_EXACT < value < _EXACT and value.is_integer():
            return str(int(value))
        # str, not repr: numpy's repr names its type. And of the cell, not of the value:
        # np.float32(0.1) stays '0.1'.
        return str(cell)
    name = type(cell).__name__
    if isinstance(cell, float | np.floating):
        name += " that is not a number"
    way = "Decode it first" if isinstance(cell, bytes | bytearray | memoryview) else "Give a str"
    raise CellTypeError(
        f"Cannot read a text from a cell of type {name}. {way}; for absent text give None."
    )


def digest_text(cell: object) -> bytes:
    """Name the content of a text cell.

    Parameters
    ----------
    cell : str, bool, int, float or numpy scalar
        As :func:`read_text` takes it; cells that read as the same text have the same digest.

    Returns
    -------
    digest : bytes
        16 bytes.

    Examples
    --------
    >>> from skmm.readers._text import digest_text
    >>> digest_text("3") == digest_text(3.0), digest_text("a") == digest_text("A")
    (True, False)
    """
    h = _HASHER.copy()  # quicker than a new one, and texts are many
    # Lone surrogates do turn up in scraped text and must not stop a digest.
    h.update(read_text(cell).encode("utf-8", "surrogatepass"))
    return h.digest()


def as_float(number: SupportsFloat) -> float:
    """Return a number as a float; an int that is too large for one is infinite.

    Parameters
    ----------
    number : int, float, or another object with ``__float__``
        The number.

    Returns
    -------
    value : float
        The number.
    """
    try:
        return float(number)
    except OverflowError:  # Python's integers have no end
        return np.inf if cast(int, number) > 0 else -np.inf
