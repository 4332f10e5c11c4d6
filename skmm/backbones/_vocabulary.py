"""The words of the training texts, and the numbers that stand for them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

__all__ = ["Vocabulary"]

# Scripts that put no space between words: their characters are taken one by one, as
# a sentence in one piece would be a word that no other text holds.
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+|[^\w\s]")


class Vocabulary:
    """Words of the training texts with an id each, the most frequent first.

    Texts are lower-cased, spellings of one character made one (NFKC), and cut into runs of
    letters and digits and into single signs; Chinese, Japanese, Thai, Lao, Burmese and Khmer
    into single characters.

    Parameters
    ----------
    max_words : int, default=20_000
        How many words are kept, the most frequent ones; ties are broken by the alphabet.
    min_count : int, default=1
        How often a word has to occur to be kept.

    Attributes
    ----------
    words_ : list of str
        Words after ``fit``; the id of the first one is ``N_SPECIAL``.

    Examples
    --------
    >>> from skmm.backbones import Vocabulary
    >>> vocabulary = Vocabulary().fit(["A red coat, a RED hat.", "A dress"])
    >>> vocabulary.words_
    ['a', 'red', ',', '.', 'coat', 'dress', 'hat']

    Words it has not met share the id 1, and a text without words is the id 2:

    >>> vocabulary.encode("a blue dress"), vocabulary.encode("  ")
    ([3, 1, 8], [2])
    """

    PADDING = 0
    UNKNOWN = 1
    EMPTY = 2
    N_SPECIAL = 3

    def __init__(self, max_words: int = 20_000, *, min_count: int = 1):
        self.max_words = max_words
        self.min_count = min_count

    def fit(self, texts: Iterable[str]) -> "Vocabulary":
        """Count the words of texts.

        Parameters
        ----------
        texts : iterable of str
            Training texts.

        Returns
        -------
        self : Vocabulary
            The vocabulary itself.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [word for word, count in ranked if count >= self.min_count]
        self.words_ = kept[: self.max_words]
        self._ids = {word: i for i, word in enumerate(self.words_, self.N_SPECIAL)}
        return self

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        """Turn a text into ids.

        Parameters
        ----------
        text : str
            Any text.
        max_length : int or None, default=None
            How many words are read from the start of the text; None for all.

        Returns
        -------
        ids : list of int
            At least one.
        """
        ids = [self._ids.get(word, self.UNKNOWN) for word in split_words(text)[:max_length]]
        return ids or [self.EMPTY]

    def __len__(self) -> int:
        """Count the ids, special ones included."""
        return self.N_SPECIAL + len(self.words_)

    def __repr__(self) -> str:
        size = f" of {len(self.words_)} words" if hasattr(self, "words_") else ", not fitted"
        return f"<{type(self).__name__}{size}>"


def split_words(text: str) -> list[str]:
    """Cut a text into lower-case words and signs."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
