"""Text cells: strings as they are, numbers in one stable form, nothing else.

``as_float`` converts numbers of any size.
"""

from typing import SupportsFloat, cast

import numpy as np

from skmm.exceptions import CellTypeError
from skmm.readers._source import hasher

__all__ = ["as_float", "digest_text", "read_text"]

# Above this a float no longer distinguishes neighboring integers.
_EXACT = 2.0**53
_HASHER = hasher("text")


def read_text(cell: object) -> str:
    """Read a text cell.

    Parameters
    ----------
    cell : str, bool, int, float or numpy scalar
        A string is kept unchanged. A number is converted by ``str``, in its own precision, and a
        float that is a whole number as an integer: pandas turns the integers of a column into
        floats if a cell is missing, and ``3`` must stay ``"3"``.

    Returns
    -------
    text : str
        Text, of type ``str`` and not of a subclass.

    Raises
    ------
    CellTypeError
        If the cell holds anything else. A missing cell is refused too: the caller handles it, and
        it never becomes the text ``"nan"``.

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
    """Compute the digest of a text cell.

    Parameters
    ----------
    cell : str, bool, int, float or numpy scalar
        As for :func:`read_text`; cells with the same text have the same digest.

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
    h = _HASHER.copy()  # faster than a new one
    # Scraped text may contain lone surrogates.
    h.update(read_text(cell).encode("utf-8", "surrogatepass"))
    return h.digest()


def as_float(number: SupportsFloat) -> float:
    """Convert a number to a float; an int that is too large for one becomes infinite.

    Parameters
    ----------
    number : int, float, or another object with ``__float__``
        Number to convert.

    Returns
    -------
    value : float
        Its value, infinite where it exceeds the range of a float.
    """
    try:
        return float(number)
    except OverflowError:  # Python's integers are unbounded
        return np.inf if cast(int, number) > 0 else -np.inf
