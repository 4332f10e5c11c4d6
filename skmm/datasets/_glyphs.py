"""The embedded data set: characters as images, names and properties."""

import os
import unicodedata
from collections import Counter
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from skmm.datasets._draw import (
    MEASURES,
    cached_arrays,
    data_folder,
    draw_font,
    drawing_key,
    find_font,
    is_drawing,
)
from skmm.datasets._latent import check_choice, check_integer

__all__ = [
    "MINIMUM_MEMBERS",
    "TASKS",
    "category_of",
    "label_of",
    "load_glyphs",
    "load_glyphs_retrieval",
    "script_of",
    "scrubbed",
]

# --- What a character is, and which words of its Unicode name would say so ---
# Two labels are derived for every character: the script that it belongs to and the
# general category that Unicode gives it. For each, the words that name the label are
# taken out of the names, so that a name alone does not settle the answer.

TASKS = ("script", "category")

# Classes with fewer characters than this are left out of a task: Old Italic, Ogham, Coptic, Thai.
MINIMUM_MEMBERS = 45

# First word of the Unicode name -> script. Writing systems keep their own characters
# together in Unicode names, whatever block they stand in.
_BY_FIRST_WORD = {
    "ARABIC": "arabic",
    "ARABIC-INDIC": "arabic",
    "EXTENDED": "arabic",  # EXTENDED ARABIC-INDIC DIGIT
    "ARMENIAN": "armenian",
    "BRAILLE": "braille",
    "CANADIAN": "canadian syllabics",
    "COMBINING": "combining mark",
    "COPTIC": "coptic",
    "CYRILLIC": "cyrillic",
    "GEORGIAN": "georgian",
    "GREEK": "greek",
    "HEBREW": "hebrew",
    "LAO": "lao",
    "LATIN": "latin",
    "LISU": "lisu",
    "MATHEMATICAL": "mathematical letter",
    "MODIFIER": "modifier letter",
    "NKO": "nko",
    "OGHAM": "ogham",
    "OLD": "old italic",
    "THAI": "thai",
    "TIFINAGH": "tifinagh",
}

# Symbols have no such word: the Unicode block decides, here in ranges of code points.
_BY_BLOCK = (
    (0x0021, 0x00BF, "punctuation"),  # the part of ASCII and Latin-1 that is not Latin
    (0x00D7, 0x00F7, "punctuation"),  # multiplication and division signs
    (0x2000, 0x206F, "punctuation"),
    (0x2070, 0x209F, "number form"),  # superscripts and subscripts
    (0x20A0, 0x20CF, "punctuation"),  # currency
    (0x2100, 0x214F, "letterlike symbol"),
    (0x2150, 0x218F, "number form"),
    (0x2190, 0x21FF, "arrow"),
    (0x2200, 0x22FF, "mathematical operator"),
    (0x2300, 0x23FF, "technical symbol"),
    (0x2460, 0x24FF, "number form"),  # circled digits
    (0x2500, 0x259F, "box drawing"),
    (0x25A0, 0x25FF, "geometric shape"),
    (0x2600, 0x27BF, "pictograph"),  # miscellaneous symbols, dingbats
    (0x27C0, 0x27EF, "mathematical operator"),
    (0x27F0, 0x27FF, "arrow"),
    (0x2900, 0x297F, "arrow"),
    (0x2980, 0x2AFF, "mathematical operator"),
    (0x2B00, 0x2B11, "arrow"),
    (0x2B12, 0x2BFF, "geometric shape"),
    (0x2E00, 0x2E7F, "punctuation"),
    (0x4DC0, 0x4DFF, "i ching symbol"),
    (0x1D300, 0x1D35F, "i ching symbol"),
    (0x1F000, 0x1F0FF, "game piece"),  # dominoes, playing cards
    (0x1F400, 0x1F6FF, "pictograph"),  # faces
)

# General category -> readable class. Rare categories join their nearest neighbor.
_CATEGORIES = {
    "Lu": "uppercase letter",
    "Lt": "uppercase letter",  # titlecase: 31 characters, capital in their first half
    "Ll": "lowercase letter",
    "Lm": "modifier letter",
    "Lo": "other letter",
    "Mn": "mark",
    "Mc": "mark",
    "Me": "mark",
    "Nd": "number",
    "Nl": "number",
    "No": "number",
    "Pc": "punctuation",
    "Pd": "punctuation",
    "Pe": "punctuation",
    "Pf": "punctuation",
    "Pi": "punctuation",
    "Po": "punctuation",
    "Ps": "punctuation",
    "Sc": "other symbol",
    "Sk": "modifier symbol",
    "Sm": "mathematical symbol",
    "So": "other symbol",
}

# Words that name a label, per task. What is joined by a hyphen is one word.
_GIVE_AWAYS = {
    "script": frozenset(
        """
        ARABIC ARABIC-INDIC EXTENDED ARMENIAN BRAILLE PATTERN CANADIAN SYLLABICS COMBINING COPTIC
        CYRILLIC GEORGIAN GREEK HEBREW LAO LATIN LISU MATHEMATICAL MODIFIER NKO TIFINAGH
        ARROW ARROWS BOX DRAWINGS DOMINO TILE PLAYING CARD HEXAGRAM TETRAGRAM TRIGRAM DIGRAM
        MONOGRAM OPERATOR SYMBOL SUPERSCRIPT SUBSCRIPT SCRIPT
        """.split()
    ),
    "category": frozenset(
        """
        CAPITAL SMALL LETTER LETTERS LIGATURE SYLLABICS SYLLABLE MODIFIER COMBINING VOWEL POINT
        ACCENT MARK DIGIT NUMBER NUMERAL NUMERIC FRACTION SIGN SYMBOL PUNCTUATION BRACKET
        PARENTHESIS QUOTATION OPERATOR MATHEMATICAL PATTERN DRAWINGS
        """.split()
    ),
}


def script_of(character: str) -> str | None:
    """Script or family of symbols of a character, None where this file knows none."""
    script = _BY_FIRST_WORD.get(unicodedata.name(character).split()[0])
    if script is not None:
        return script
    code = ord(character)
    return next((name for low, high, name in _BY_BLOCK if low <= code <= high), None)


def category_of(character: str) -> str | None:
    """General category of a character in words, None for controls and spaces."""
    return _CATEGORIES.get(unicodedata.category(character))


def label_of(character: str, task: str) -> str | None:
    """Label of a character in a task."""
    return script_of(character) if task == "script" else category_of(character)


def scrubbed(name: str, task: str) -> str:
    """Lower-case name without the words that name the label of a task; empty if none is left."""
    return " ".join(word for word in name.split() if word not in _GIVE_AWAYS[task]).lower()


_TRAIN_SHARE = 0.75
_CATEGORICAL = ("east_asian_width", "decomposition", "mirrored")

_DESCRIPTION = """\
Characters of the font DejaVu Sans: images, names and properties
-------------------------------------------------------------------

{n_samples} characters. The font is the one that matplotlib ships; nothing is downloaded.

- image (image): uint8 array of {size} x {size} pixels, black on white, all on one baseline.
- name (text): the Unicode name in lower case{scrubbing}.
{table}
{target}
Rows are named by their code point, such as U+0041.
"""

_TABLE_DESCRIPTION = """\
- east_asian_width, decomposition (type of it: none, canonical, font, circle, ...), mirrored (in
  text from right to left: yes, no): categories, properties of the Unicode standard.
- combining_class, n_decomposed (characters in the full decomposition), numeric_value (missing
  for what is no number): numbers, properties of the Unicode standard.
- advance_width, ink_left, ink_top, ink_width, ink_height (in em; left from the origin, top from
  the baseline), ink_share (inked share of the box around the ink): numbers, measured.
"""


def load_glyphs(
    *,
    task: Literal["script", "category"] = "script",
    image_size: int = 64,
    n_samples: int | None = None,
    return_X_y: bool = False,
    data_home: str | os.PathLike[str] | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load characters as images, names and a table of properties (classification).

    Every character that the font DejaVu Sans can draw is a row. The font comes with
    matplotlib, the names and properties with Python, so nothing is downloaded: the
    images are drawn once, in seconds, and kept in a cache folder.

    The tasks are made for fusion. Latin *o*, Greek *omicron*, Cyrillic *o* and Lisu *o* are
    the same image; "capital letter a" is said in many scripts; and the properties
    tell groups of classes apart, not classes. Words that name the label are taken out of
    the names, and properties that nearly are the label (the code point, the bidirectional
    class, the length of the full name) out of the table. A logistic regression on a
    single modality is right on 56 to 76 rows of 100, on all three together on 90 (script)
    and 94 (category).

    ==================   ===========================================
    Samples              5,659 (script), 5,745 (category)
    Classes              27 (script), 10 (category)
    Columns              14: an image, a text, 9 numbers, 3 categories
    Missing cells        ``numeric_value`` of what is no number
    ==================   ===========================================

    Parameters
    ----------
    task : {"script", "category"}, default="script"
        What to predict.

        - ``"script"``: the writing system (latin, greek, arabic, ...) by the first word of the
          Unicode name, and for symbols the family (arrow, box drawing, game piece, ...)
          by their Unicode block. Scripts of fewer than 45 characters are left out.
        - ``"category"``: the general category of the Unicode standard (uppercase letter,
          lowercase letter, number, mathematical symbol, ...), rare ones merged with the
          nearest: titlecase with uppercase, all kinds of punctuation, of marks and of
          numbers in one class each, currency with the other symbols.

    image_size : int, default=64
        Side of the images in pixels, from 8 to 256.
    n_samples : int, default=None
        Number of rows. With None all of them. Fewer rows keep the shares of the classes,
        and are the first rows of more rows.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` in place of a Bunch.
    data_home : str or path-like, default=None
        Folder for the drawn images. With None it is the environment variable
        ``SKMM_DATA_HOME``, or else a folder ``skmm`` where the platform keeps caches. A damaged
        file is drawn anew.
    random_state : int, RandomState instance or None, default=0
        Order of the rows. An int gives the same rows in every process.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With these keys:

        - ``data`` : DataFrame of shape (n_samples, 14), its columns described in ``DESCR``;
          the index is the code point, such as ``"U+0041"``.
        - ``target`` : Series of shape (n_samples,), the labels as words.
        - ``frame`` : DataFrame of shape (n_samples, 15), ``data`` and ``target``.
        - ``target_names`` : list of str, the classes in alphabetic order.
        - ``feature_names`` : list of str, the columns of ``data``.
        - ``modalities`` : dict of column to ``"image"``, ``"text"`` or ``"tabular"``.
        - ``code_points`` : ndarray of shape (n_samples,), int; ``chr`` gives the character.
        - ``DESCR`` : str, a description.

    (data, target) : tuple
        With ``return_X_y=True``.

    See Also
    --------
    load_glyphs_retrieval : Full names with images, for retrieval.
    make_multimodal_classification : Data whose information per modality is chosen.

    Examples
    --------
    >>> from skmm.datasets import load_glyphs
    >>> glyphs = load_glyphs(image_size=32)
    >>> glyphs.data.shape, glyphs.data["image"].iloc[0].shape
    ((5659, 14), (32, 32))
    >>> glyphs.data.loc["U+0411", "name"], glyphs.target.loc["U+0411"]
    ('capital letter be', 'cyrillic')
    >>> X, y = load_glyphs(image_size=32, n_samples=500, return_X_y=True)
    >>> y.value_counts().head(2).to_dict()
    {'latin': 86, 'arabic': 43}
    """
    check_choice("load_glyphs", "task", task, TASKS)
    drawn = _drawn(image_size, data_home, "load_glyphs")
    kept, labels, names = _labeled(drawn["code_points"], task)
    n_rows = _n_rows(n_samples, len(kept), "load_glyphs")
    order = _interleaved(labels, check_random_state(random_state))[:n_rows]
    rows = kept[order]

    codes = drawn["code_points"][rows]
    index = _index(codes)
    data = pd.concat(
        [
            _image_column(drawn["images"][rows], index),
            pd.Series(names[order].tolist(), index=index, name="name"),
            _table(codes, drawn["measures"][rows], index),
        ],
        axis=1,
    )
    target = pd.Series(labels[order].tolist(), index=index, name=task)
    if return_X_y:
        return data, target
    classes = sorted(set(labels))
    modalities = {column: "tabular" for column in data} | {"image": "image", "name": "text"}
    return Bunch(
        data=data,
        target=target,
        frame=pd.concat([data, target], axis=1),
        target_names=classes,
        feature_names=list(data.columns),
        modalities=modalities,
        code_points=codes,
        DESCR=_DESCRIPTION.format(
            n_samples=len(data),
            size=image_size,
            scrubbing=f", without the words that name the {task}",
            table=_TABLE_DESCRIPTION,
            target=f"The target is the {task}, one of {len(classes)} classes.\n",
        ),
    )


def load_glyphs_retrieval(
    *,
    subset: Literal["all", "train", "test"] = "all",
    image_size: int = 64,
    n_samples: int | None = None,
    data_home: str | os.PathLike[str] | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Load full names of characters with their images (retrieval).

    A row pairs a name with the one image that it names: of characters that look the
    same, as Latin *o* and Greek *omicron* do, only the one with the lowest code point is in
    the set. No name and no image of the test rows is in the training rows, but their words
    and strokes are: a model that has seen other letters with *oxia* and other forms of *alpha*
    can find "greek small letter alpha with oxia".

    Parameters
    ----------
    subset : {"all", "train", "test"}, default="all"
        Which part. Three quarters of the pairs are for training; the parts are always the same.
    image_size : int, default=64
        Side of the images in pixels, from 8 to 256.
    n_samples : int, default=None
        Number of rows. With None all of them: 5,301, or 3,976 for training and 1,325 for test.
    data_home : str or path-like, default=None
        Folder for the drawn images, as in `load_glyphs`.
    random_state : int, RandomState instance or None, default=0
        Order of the rows, and so which of them ``n_samples`` leaves.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With these keys:

        - ``data`` : DataFrame of shape (n_samples, 2), columns ``name`` (text) and ``image``
          (uint8 array of shape (image_size, image_size)); row ``i`` of one belongs to row
          ``i`` of the other. The index is the code point.
        - ``frame`` : the same DataFrame.
        - ``feature_names`` : list of str, the columns of ``data``.
        - ``modalities`` : dict of column to ``"text"`` or ``"image"``.
        - ``code_points`` : ndarray of shape (n_samples,), int.
        - ``DESCR`` : str, a description.

    See Also
    --------
    load_glyphs : The same characters with a label.

    Examples
    --------
    >>> from skmm.datasets import load_glyphs_retrieval
    >>> train = load_glyphs_retrieval(subset="train", image_size=32)
    >>> test = load_glyphs_retrieval(subset="test", image_size=32)
    >>> train.data.shape, test.data.shape
    ((3976, 2), (1325, 2))
    >>> train.data.loc["U+0041", "name"]
    'latin capital letter a'
    """
    function = "load_glyphs_retrieval"
    check_choice(function, "subset", subset, ("all", "train", "test"))
    drawn = _drawn(image_size, data_home, function)
    _, pairs = np.unique(drawn["shapes"], return_index=True)
    # A fixed order, so that the two parts never mix, whatever random_state is.
    pairs = np.random.RandomState(0).permutation(pairs)
    n_train = round(_TRAIN_SHARE * len(pairs))
    pairs = {"all": pairs, "train": pairs[:n_train], "test": pairs[n_train:]}[subset]
    n_rows = _n_rows(n_samples, len(pairs), function)
    rows = check_random_state(random_state).permutation(pairs)[:n_rows]

    codes = drawn["code_points"][rows]
    index = _index(codes)
    names = [unicodedata.name(chr(code)).lower() for code in codes]
    frame = pd.concat(
        [
            pd.Series(names, index=index, name="name"),
            _image_column(drawn["images"][rows], index),
        ],
        axis=1,
    )
    return Bunch(
        data=frame,
        frame=frame,
        feature_names=list(frame.columns),
        modalities={"name": "text", "image": "image"},
        code_points=codes,
        DESCR=_DESCRIPTION.format(
            n_samples=len(frame),
            size=image_size,
            scrubbing="",
            table="",
            target="A row is a pair: the name and the only image that it names.\n",
        ),
    )


def _drawn(
    image_size: int, data_home: str | os.PathLike[str] | None, function: str
) -> dict[str, np.ndarray]:
    """Images and measures of all characters, from the cache where it has them."""
    size = check_integer(function, "image_size", image_size, 8, 256)
    font = find_font(function)
    key = drawing_key(font, size, needed_by=function)
    return cached_arrays(
        data_folder(data_home) / f"{key}.npz",
        lambda: draw_font(font, size, needed_by=function),
        lambda arrays: is_drawing(arrays, size),
        needed_by=function,
    )


def _labeled(codes: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the characters that a task has, their labels and their scrubbed names."""
    characters = [chr(code) for code in codes]
    names = [scrubbed(unicodedata.name(character), task) for character in characters]
    labels = [label_of(character, task) for character in characters]
    # A name of nothing but give-aways ("NUMBER SIGN") is no text to learn from.
    named = [label for label, name in zip(labels, names, strict=True) if name and label]
    classes = {label for label, members in Counter(named).items() if members >= MINIMUM_MEMBERS}
    kept = [row for row, label in enumerate(labels) if names[row] and label in classes]
    return (
        np.array(kept),
        np.array(labels, dtype=object)[kept],
        np.array(names, dtype=object)[kept],
    )


def _interleaved(y: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """A random order of the rows in which every prefix keeps the shares of the classes."""
    places = np.empty(len(y))
    # The members of a class are spread evenly over [0, 1), with a jitter of one step.
    for label in sorted(set(y)):
        members = np.flatnonzero(y == label)
        steps = rng.permutation(len(members)) + rng.uniform(size=len(members))
        places[members] = steps / len(members)
    return np.argsort(places, kind="stable")


def _n_rows(n_samples: int | None, available: int, function: str) -> int:
    """Number of rows asked for, checked against those there are."""
    if n_samples is None:
        return available
    return check_integer(function, "n_samples", n_samples, 1, available)


def _index(codes: np.ndarray) -> pd.Index:
    return pd.Index([f"U+{code:04X}" for code in codes], name="code_point")


def _image_column(images: np.ndarray, index: pd.Index) -> pd.Series:
    """Images as cells; each owns its pixels, so that a cell can be kept or sent alone."""
    return pd.Series([image.copy() for image in images], index=index, name="image", dtype=object)


def _table(codes: np.ndarray, measures: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Properties that tell something of a character, but not its code point."""
    rows = []
    for code in codes:
        character = chr(code)
        rows.append(
            {
                "east_asian_width": unicodedata.east_asian_width(character),
                "decomposition": _decomposition(character),
                "mirrored": "yes" if unicodedata.mirrored(character) else "no",
                "combining_class": float(unicodedata.combining(character)),
                "n_decomposed": float(len(unicodedata.normalize("NFKD", character))),
                "numeric_value": unicodedata.numeric(character, np.nan),
            }
        )
    table = pd.DataFrame(rows, index=index).astype(dict.fromkeys(_CATEGORICAL, "category"))
    return table.assign(**dict(zip(MEASURES, measures.T.astype(np.float64), strict=True)))


def _decomposition(character: str) -> str:
    """Type of the decomposition: none, canonical, or the tag that Unicode gives it."""
    decomposition = unicodedata.decomposition(character)
    if not decomposition:
        return "none"
    if not decomposition.startswith("<"):
        return "canonical"
    return decomposition[1 : decomposition.index(">")]
