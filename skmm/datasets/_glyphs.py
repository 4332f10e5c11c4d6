"""The glyph data sets: characters as images, names and properties."""

import os
import unicodedata
from collections import Counter
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from skmm.datasets._latent import check_choice, check_integer
from skmm.datasets._render import (
    MEASURES,
    cached_arrays,
    data_folder,
    find_font,
    is_rendering,
    render_font,
    rendering_key,
)

__all__ = [
    "MINIMUM_MEMBERS",
    "TASKS",
    "category_of",
    "label_of",
    "load_glyphs",
    "load_glyphs_retrieval",
    "script_of",
    "remove_label_words",
]

# --- Labels of a character, and the words of its Unicode name that reveal them ---
# Every character has two labels: its script and its general category in the Unicode
# standard. For each task, the words that name the label are removed from the names, so
# that the label cannot be read from the name.

TASKS = ("script", "category")

# Classes with fewer characters are left out of a task: Old Italic, Ogham, Coptic, Thai.
MINIMUM_MEMBERS = 45

# First word of the Unicode name -> script. The name states the writing system of a letter
# whichever Unicode block the letter is in.
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

# The names of symbols have no such word, so the Unicode block decides: ranges of code points.
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

# General category -> readable class. Rare categories are merged with the nearest one.
_CATEGORIES = {
    "Lu": "uppercase letter",
    "Lt": "uppercase letter",  # titlecase: 31 ligatures whose first letter is a capital
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

# Words that name a label, per task. A hyphenated word counts as one.
_LABEL_WORDS = {
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
    """Return the script or the family of symbols of a character, None without either."""
    script = _BY_FIRST_WORD.get(unicodedata.name(character).split()[0])
    if script is not None:
        return script
    code = ord(character)
    return next((name for low, high, name in _BY_BLOCK if low <= code <= high), None)


def category_of(character: str) -> str | None:
    """Return the general category of a character in words, None for controls and spaces."""
    return _CATEGORIES.get(unicodedata.category(character))


def label_of(character: str, task: str) -> str | None:
    """Return the label of a character in a task, None if it has none."""
    return script_of(character) if task == "script" else category_of(character)


def remove_label_words(name: str, task: str) -> str:
    """Return the name in lower case without the words that name the label of a task."""
    return " ".join(word for word in name.split() if word not in _LABEL_WORDS[task]).lower()


_TRAIN_SHARE = 0.75
_CATEGORICAL = ("east_asian_width", "decomposition", "mirrored")

_DESCRIPTION = """\
Characters of the font DejaVu Sans: images, names and properties
----------------------------------------------------------------

{n_samples} characters of the font that matplotlib ships.

- image (image): uint8 array of {size} x {size} pixels, black on white, with a common baseline.
- name (text): the Unicode name in lower case{name_note}.
{table}
{target}
The index is the code point, such as U+0041.
"""

_TABLE_DESCRIPTION = """\
- east_asian_width, decomposition (its type: none, canonical, font, circle, ...), mirrored (in
  text from right to left: yes, no): categories, properties in the Unicode standard.
- combining_class, n_decomposed (number of characters in the full decomposition), numeric_value
  (missing where the character is no number): numbers, properties in the Unicode standard.
- advance_width, ink_left, ink_top, ink_width, ink_height (in em; ink_left is measured from the
  origin, ink_top from the baseline), ink_share (mean ink within the bounding box of the ink, from
  0 to 1): numbers, measured on the glyph.
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
    """Load the glyphs data set: characters as images, names and properties (classification).

    Each row is a character of the font DejaVu Sans. matplotlib ships the font, and Python the
    Unicode names and properties, so nothing is downloaded. The images are rendered on the
    first call, which takes seconds, and kept in a cache folder.

    No single modality determines the label. Latin *o*, Greek *omicron*, Cyrillic *o* and
    Lisu *o* have the same image; "capital letter a" names a character in many scripts; and the
    properties separate groups of classes only. The names do not contain the words that name
    the label, and the table does not contain the properties that nearly determine it (the
    code point, the bidirectional class, the length of the full name). A logistic regression
    on one modality reaches an accuracy of 0.56 to 0.76, on all three together 0.90 (script)
    and 0.94 (category).

    ==================   ===========================================
    Samples              5,659 (script), 5,745 (category)
    Classes              27 (script), 10 (category)
    Columns              14: an image, a text, 9 numbers, 3 categories
    Missing values       ``numeric_value`` where it does not apply
    ==================   ===========================================

    Parameters
    ----------
    task : {"script", "category"}, default="script"
        The target.

        - ``"script"``: the writing system (latin, greek, arabic, ...), given by the first word
          of the Unicode name; for symbols the family (arrow, box drawing, game piece, ...),
          given by their Unicode block. Classes of fewer than 45 characters are left out.
        - ``"category"``: the general category in the Unicode standard (uppercase letter,
          lowercase letter, number, mathematical symbol, ...). Rare categories are merged:
          titlecase with uppercase; all punctuation, all marks and all numbers into one class
          each; currency signs with other symbols.

    image_size : int, default=64
        Height and width of the images in pixels, from 8 to 256.
    n_samples : int, default=None
        Number of rows; all of them if None. A subset keeps the class frequencies, and a
        smaller subset is the beginning of a larger one.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.
    data_home : str or path-like, default=None
        Folder in which the rendered images are cached. If None, the environment variable
        ``SKMM_DATA_HOME`` is used, and without it the folder ``skmm`` in the platform's folder
        for caches. A damaged file is rendered again.
    random_state : int, RandomState instance or None, default=0
        Determines the order of the rows. Pass an int for the same rows in every process.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With these keys:

        - ``data`` : DataFrame of shape (n_samples, 14). ``DESCR`` describes the columns. The
          index is the code point, such as ``"U+0041"``.
        - ``target`` : Series of shape (n_samples,), the labels as str.
        - ``frame`` : DataFrame of shape (n_samples, 15), ``data`` and ``target``.
        - ``target_names`` : list of str, the classes in alphabetical order.
        - ``feature_names`` : list of str, the columns of ``data``.
        - ``modalities`` : dict of column to ``"image"``, ``"text"`` or ``"tabular"``.
        - ``code_points`` : ndarray of int, shape (n_samples,); ``chr`` returns the character.
        - ``DESCR`` : str, the description of the data set.

    (data, target) : tuple
        If ``return_X_y=True``.

    See Also
    --------
    load_glyphs_retrieval : Pairs of a full name and an image, for retrieval.
    make_multimodal_classification : Synthetic data with chosen information per modality.

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
    rendered = _load_arrays(image_size, data_home, "load_glyphs")
    kept, labels, names = _label_characters(rendered["code_points"], task)
    n_rows = _n_rows(n_samples, len(kept), "load_glyphs")
    order = _stratified_order(labels, check_random_state(random_state))[:n_rows]
    rows = kept[order]

    codes = rendered["code_points"][rows]
    index = _index(codes)
    data = pd.concat(
        [
            _image_column(rendered["images"][rows], index),
            pd.Series(names[order].tolist(), index=index, name="name"),
            _table(codes, rendered["measures"][rows], index),
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
            name_note=f", without the words that name the {task}",
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
    """Load the glyphs as pairs of a full name and an image (retrieval).

    The pairs are one to one. Of characters that look the same, such as Latin *o* and Greek
    *omicron*, only the one with the lowest code point is included. The names and images of
    the test rows are not in the training rows, but their words and strokes are: a model
    trained on other letters with *oxia* and on other forms of *alpha* can retrieve "greek
    small letter alpha with oxia".

    Parameters
    ----------
    subset : {"all", "train", "test"}, default="all"
        The part to load. Three quarters of the pairs are for training, in a fixed split.
    image_size : int, default=64
        Height and width of the images in pixels, from 8 to 256.
    n_samples : int, default=None
        Number of rows. If None, all of them: 5,301 in total, 3,976 for training and 1,325 for
        testing.
    data_home : str or path-like, default=None
        Folder in which the rendered images are cached, as in `load_glyphs`.
    random_state : int, RandomState instance or None, default=0
        Determines the order of the rows, and thereby which rows ``n_samples`` keeps.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With these keys:

        - ``data`` : DataFrame of shape (n_samples, 2), columns ``name`` (text) and ``image``
          (uint8 array of shape (image_size, image_size)). The index is the code point.
        - ``frame`` : the same DataFrame.
        - ``feature_names`` : list of str, the columns of ``data``.
        - ``modalities`` : dict of column to ``"text"`` or ``"image"``.
        - ``code_points`` : ndarray of int, shape (n_samples,).
        - ``DESCR`` : str, the description of the data set.

    See Also
    --------
    load_glyphs : The same characters with labels.

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
    rendered = _load_arrays(image_size, data_home, function)
    _, pairs = np.unique(rendered["shapes"], return_index=True)
    # A fixed order: the split must not depend on random_state.
    pairs = np.random.RandomState(0).permutation(pairs)
    n_train = round(_TRAIN_SHARE * len(pairs))
    pairs = {"all": pairs, "train": pairs[:n_train], "test": pairs[n_train:]}[subset]
    n_rows = _n_rows(n_samples, len(pairs), function)
    rows = check_random_state(random_state).permutation(pairs)[:n_rows]

    codes = rendered["code_points"][rows]
    index = _index(codes)
    names = [unicodedata.name(chr(code)).lower() for code in codes]
    frame = pd.concat(
        [
            pd.Series(names, index=index, name="name"),
            _image_column(rendered["images"][rows], index),
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
            name_note="",
            table="",
            target="Names and images correspond one to one.\n",
        ),
    )


def _load_arrays(
    image_size: int, data_home: str | os.PathLike[str] | None, function: str
) -> dict[str, np.ndarray]:
    """Return images and measures of all characters, from the cache if they are there."""
    size = check_integer(function, "image_size", image_size, 8, 256)
    font = find_font(function)
    key = rendering_key(font, size, needed_by=function)
    return cached_arrays(
        data_folder(data_home) / f"{key}.npz",
        lambda: render_font(font, size, needed_by=function),
        lambda arrays: is_rendering(arrays, size),
        needed_by=function,
    )


def _label_characters(codes: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions of the characters in a task, their labels and their shortened names."""
    characters = [chr(code) for code in codes]
    names = [remove_label_words(unicodedata.name(character), task) for character in characters]
    labels = [label_of(character, task) for character in characters]
    # Characters whose name has label words only ("NUMBER SIGN") are left out.
    named = [label for label, name in zip(labels, names, strict=True) if name and label]
    classes = {label for label, members in Counter(named).items() if members >= MINIMUM_MEMBERS}
    kept = [row for row, label in enumerate(labels) if names[row] and label in classes]
    return (
        np.array(kept),
        np.array(labels, dtype=object)[kept],
        np.array(names, dtype=object)[kept],
    )


def _stratified_order(y: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return a random order of the rows in which every prefix keeps the class frequencies."""
    places = np.empty(len(y))
    # The members of a class are spread evenly over [0, 1), with a jitter of one step.
    for label in sorted(set(y)):
        members = np.flatnonzero(y == label)
        steps = rng.permutation(len(members)) + rng.uniform(size=len(members))
        places[members] = steps / len(members)
    return np.argsort(places, kind="stable")


def _n_rows(n_samples: int | None, available: int, function: str) -> int:
    """Return the number of rows, checked against the number available."""
    if n_samples is None:
        return available
    return check_integer(function, "n_samples", n_samples, 1, available)


def _index(codes: np.ndarray) -> pd.Index:
    return pd.Index([f"U+{code:04X}" for code in codes], name="code_point")


def _image_column(images: np.ndarray, index: pd.Index) -> pd.Series:
    """Return images as cells; each owns its pixels, so that it can be stored or sent alone."""
    return pd.Series([image.copy() for image in images], index=index, name="image", dtype=object)


def _table(codes: np.ndarray, measures: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Return the Unicode properties and the measures of characters."""
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
    """Return the type of the decomposition: none, canonical, or its Unicode tag."""
    decomposition = unicodedata.decomposition(character)
    if not decomposition:
        return "none"
    if not decomposition.startswith("<"):
        return "canonical"
    return decomposition[1 : decomposition.index(">")]
