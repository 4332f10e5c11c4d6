"""The texts of a target: checked, and as arrays of ids."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._base import Modality
from skmm._frame._column import column_names, columns_of, is_missing, take_columns
from skmm._frame._types import Frame
from skmm._training._batches import Target
from skmm.exceptions import CellTypeError
from skmm.nets._text_decoders import TokenLoss

__all__ = [
    "TextTarget",
    "TextTokenizer",
    "padded_ids",
    "prefix_ids",
    "prefixes_of_rows",
    "resolve_others",
    "texts_of_rows",
]

# --- Texts to token ids and back ---

# Scripts without spaces between words: Thai to Khmer, Japanese, Chinese. Each character is a word,
# since a whole sentence would be a word that occurs in no other text.
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
# The space before a word is part of it, so that the concatenated pieces are the text.
_PIECE = re.compile(rf" ?(?:[{_NO_SPACES}]|[^\W{_NO_SPACES}]+|[^\w\s])")

_Pair = tuple[str, str]


class TextTokenizer:
    """Split texts into tokens from which the text is restored without loss.

    Runs of spaces become one space and characters are composed (Unicode NFC); case and punctuation
    are kept. Tokens that occur in no training text have the id ``UNKNOWN``.

    Parameters
    ----------
    kind : {"word", "bpe", "character"}
        Words and punctuation; parts of words, by byte-pair encoding (of characters) [1]_; or
        characters.
    max_tokens : int
        Maximum number of tokens: the most frequent words, or the merges that are learned first.

    References
    ----------
    .. [1] Sennrich, Haddow, Birch (2016), "Neural machine translation of rare words with subword
       units", ACL.
    """

    END = 0
    UNKNOWN = 1
    N_SPECIAL = 2

    def __init__(self, kind: str, max_tokens: int):
        self.kind = kind
        self.max_tokens = max_tokens

    def fit(self, texts: Iterable[str]) -> "TextTokenizer":
        """Learn the tokens of texts and set ``tokens_``, the most frequent first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_pieces(text))
        self._ranks: dict[_Pair, int] = {}
        if self.kind == "word":
            self.tokens_ = _most_frequent(counts)[: self.max_tokens]
        else:
            characters: Counter[str] = Counter()
            for piece, count in counts.items():
                for character in piece:
                    characters[character] += count
            self.tokens_ = _most_frequent(characters)[: self.max_tokens]
            if self.kind == "bpe":
                self._learn_merges(counts)
        self._ids = {token: i for i, token in enumerate(self.tokens_, self.N_SPECIAL)}
        return self

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without that of the end."""
        tokens = [token for piece in _pieces(text) for token in self._cut(piece)]
        return [self._ids.get(token, self.UNKNOWN) for token in tokens]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without that of the end."""
        special = self.N_SPECIAL
        return "".join("\ufffd" if i < special else self.tokens_[i - special] for i in ids).strip()

    def __len__(self) -> int:
        """Return the number of token ids."""
        return self.N_SPECIAL + len(self.tokens_)

    def _cut(self, piece: str) -> list[str]:
        if self.kind == "word":
            return [piece]
        parts = list(piece)
        while self._ranks and len(parts) > 1:
            pair = min(zip(parts, parts[1:], strict=False), key=self._rank)
            if pair not in self._ranks:
                break
            parts = _merged(parts, pair)
        return parts

    def _rank(self, pair: _Pair) -> int:
        return self._ranks.get(pair, len(self._ranks))

    def _learn_merges(self, counts: Counter[str]) -> None:
        """Merge the most frequent pair of neighbors, repeatedly."""
        words = [(list(piece), count) for piece, count in sorted(counts.items())]
        pairs: Counter[_Pair] = Counter()
        places: defaultdict[_Pair, set[int]] = defaultdict(set)
        for i, (parts, count) in enumerate(words):
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += count
                places[pair].add(i)
        known = set(self.tokens_)
        while len(self.tokens_) < self.max_tokens and pairs:
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            if pairs[best] < 2:  # a pair that occurs once is of no use elsewhere
                break
            self._ranks[best] = len(self._ranks)
            token = "".join(best)
            if token not in known:  # different merges may give the same token
                known.add(token)
                self.tokens_.append(token)
            for i in places.pop(best):
                parts, count = words[i]
                for pair in zip(parts, parts[1:], strict=False):
                    pairs[pair] -= count
                    if not pairs[pair]:
                        del pairs[pair]
                parts = _merged(parts, best)
                words[i] = parts, count
                for pair in zip(parts, parts[1:], strict=False):
                    pairs[pair] += count
                    places[pair].add(i)


def _pieces(text: str) -> list[str]:
    words = unicodedata.normalize("NFC", text).split()
    return _PIECE.findall("".join(f" {word}" for word in words))


def _most_frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda token: (-counts[token], token))


def _merged(parts: list[str], pair: _Pair) -> list[str]:
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return merged


def texts_of_rows(y: Any, n_rows: int, owner: str, *, several: bool) -> list[list[str]]:
    """Check a target and return the texts of each row, an empty list where it is missing.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Texts; with ``several`` also lists of texts.
    n_rows : int
        Number of rows of ``X``.
    owner : str
        Name of the caller, for messages.
    several : bool
        Whether a cell may hold a list.

    Returns
    -------
    texts : list of list of str
        One list for each row.
    """
    wanted = "a text or a list of texts" if several else "a text"
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None. Give {wanted} for each"
            " row."
        )
    if isinstance(y, str) or not hasattr(y, "__len__"):
        raise TypeError(
            f"{owner}: y must hold {wanted} for each row, got {type(y).__name__}. For one row give"
            " a list of one."
        )
    cells = _cells(y, owner)
    if len(cells) != n_rows:
        raise ValueError(
            f"{owner}: X has {n_rows} rows and y has {len(cells)}. Give {wanted} for each row."
        )
    missing = is_missing(np.fromiter(cells, dtype=object, count=len(cells)))
    texts: list[list[str]] = []
    for position, (cell, absent) in enumerate(zip(cells, missing, strict=True)):
        if absent:
            texts.append([])
        elif isinstance(cell, str):
            texts.append([str(cell)])
        elif several and isinstance(cell, list | tuple | np.ndarray):
            own = np.fromiter(cell, dtype=object, count=len(cell))
            known = own[~is_missing(own)]
            if not all(isinstance(text, str) for text in known):
                raise _not_text(owner, wanted, cell, position)
            texts.append([str(text) for text in known])
        else:
            raise _not_text(owner, wanted, cell, position)
    return texts


def _cells(y: Any, owner: str) -> list[Any]:
    shape: tuple[int, ...] = tuple(getattr(y, "shape", (len(y),)))
    if len(shape) == 2 and shape[1] == 1:
        y = y.iloc[:, 0] if hasattr(y, "iloc") else np.asarray(y, dtype=object)[:, 0]
    elif len(shape) != 1:
        raise ValueError(
            f"{owner}: y must have one dimension, got shape {shape}. Give several texts of a"
            " row as a list in its cell."
        )
    return list(y)


def _not_text(owner: str, wanted: str, cell: object, position: int) -> TypeError:
    return TypeError(
        f"{owner}: a cell of y must be {wanted}, or None, got {type(cell).__name__} in row"
        f" {position} (by position)."
    )


class TextTarget(Target):
    """Texts as a target of a decoder.

    Encoded texts are the token ids to be predicted, (n_texts, n_steps).

    Parameters
    ----------
    kind, max_tokens : object
        Of :class:`TextTokenizer`.
    label_smoothing : float
        Fraction of each target that is spread evenly over all tokens.

    Attributes
    ----------
    tokenizer : TextTokenizer
        Tokenizer, fitted by ``learn``.
    mean_length : float
        Mean length of the training texts in tokens, set by ``learn``.
    longest : int
        Length of the longest training text in tokens, its end included, set by ``learn``.
    """

    mean_length: float
    longest: int

    def __init__(self, kind: str, max_tokens: int, *, label_smoothing: float):
        self.tokenizer = TextTokenizer(kind, max_tokens)
        self.label_smoothing = label_smoothing

    def learn(
        self, texts: list[str], prefixes: list[str], max_length: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn the tokens of texts and prefixes, and return the ids of ``encode``."""
        self.tokenizer.fit([*texts, *prefixes])
        read, written = self.encode(texts, max_length)
        self.mean_length = float((written != TokenLoss.NOTHING).sum(axis=1).mean())
        self.longest = written.shape[1]
        return read, written

    def encode(
        self, texts: list[str], max_length: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the input and the target of a decoder for texts, as :func:`padded_ids`."""
        ids = [self.tokenizer.encode(text) for text in texts]
        return padded_ids(ids, len(self.tokenizer), TokenLoss.NOTHING, max_length)

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, up to the first end."""
        end = TextTokenizer.END
        return self.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as a tensor for the loss."""
        return torch.from_numpy(encoded)

    def criterion(self) -> nn.Module:
        """Return the loss of each text."""
        return TokenLoss(self.mean_length, label_smoothing=self.label_smoothing)


def padded_ids(
    texts: list[list[int]], begin: int, nothing: int, max_length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the input and the target of a decoder, (n_texts, n_steps) int64 each.

    Parameters
    ----------
    texts : list of list of int
        Token ids, without that of the end.
    begin : int
        Id that precedes each text in the input.
    nothing : int
        Padding of the target.
    max_length : int, default=None
        Maximum length in tokens, the end included. Longer texts are cut and have no end.

    Returns
    -------
    ids, target : ndarray
        The target is the input one step later.
    """
    whole = [[*ids, TextTokenizer.END][:max_length] for ids in texts]
    longest = max((len(ids) for ids in whole), default=1)
    target = np.full((len(whole), longest), nothing, dtype=np.int64)
    read = np.full((len(whole), longest), TextTokenizer.END, dtype=np.int64)
    for row, ids in enumerate(whole):
        target[row, : len(ids)] = ids
        read[row, 1 : len(ids)] = ids[:-1]
    read[:, 0] = begin
    return read, target


# --- A column of texts that precede the written texts ---


def prefixes_of_rows(X: Frame, column: str | int, owner: str) -> list[str | None]:
    """Check the texts of a column and return them, None where the cell is missing.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_columns)
        Cells.
    column : str or int
        Name or position.
    owner : str
        Name of the caller, for messages.

    Returns
    -------
    prefixes : list of str or None
        One for each row.
    """
    (cells,) = columns_of(X, column)
    prefixes: list[str | None] = []
    for cell, absent, label in zip(cells.values, cells.missing, cells.labels, strict=True):
        if not absent and not isinstance(cell, str):
            raise CellTypeError(
                f"{owner}: column {column!r}, row {label!r}: got {type(cell).__name__} in a column"
                " of texts. Give a text, or None."
            )
        prefixes.append(None if absent else str(cell))
    return prefixes


def prefix_ids(prefixes: list[str | None], tokenizer: TextTokenizer) -> np.ndarray:
    """Return the token ids of prefixes, (n_rows, n_steps) int64, padded with -1.

    Unknown tokens are left out, since the decoder was not trained on them.
    """
    known: dict[str, list[int]] = {}  # many rows have the same prefix
    for prefix in prefixes:
        if prefix and prefix not in known:
            ids = tokenizer.encode(prefix)
            known[prefix] = [i for i in ids if i != TextTokenizer.UNKNOWN]
    rows = [known[prefix] if prefix else [] for prefix in prefixes]
    read = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for row, ids in zip(read, rows, strict=True):
        row[: len(ids)] = ids
    return read


def resolve_others(
    X: Frame, column: str | int, owner: str, resolve: Callable[[Frame], list[Modality]]
) -> list[Modality]:
    """Infer the modalities of all columns except one.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_columns)
        Training frame.
    column : str or int
        Name or position of the column that is no modality.
    owner : str
        Name of the caller, for messages.
    resolve : callable
        From a frame to modalities with positions of its columns.

    Returns
    -------
    resolved : list of Modality
        Modalities with positions of columns of ``X``.
    """
    names = column_names(X)
    position = names.index(column) if isinstance(column, str) else column
    others = np.delete(np.arange(len(names)), position)
    if not len(others):
        raise ValueError(
            f"{owner}: X has no column besides {column!r}, which is read as text. Give at least one"
            " modality."
        )
    found = resolve(take_columns(X, others))
    return [own._replace(columns=others[own.columns].tolist()) for own in found]
