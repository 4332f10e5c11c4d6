"""What a character is, and which words of its Unicode name would say so.

Two labels are derived for every character: the script that it belongs to and the
general category that Unicode gives it. For each, the words that name the label are
taken out of the names, so that a name alone does not settle the answer.
"""

import unicodedata

__all__ = ["MINIMUM_MEMBERS", "TASKS", "category_of", "label_of", "script_of", "scrubbed"]

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

# General category -> readable class. Rare categories join their nearest neighbour.
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
