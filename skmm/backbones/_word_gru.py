"""A recurrent network over words, trained from scratch, and the vocabulary that it reads."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skmm.backbones._base import Backbone, Encoded

__all__ = ["Vocabulary", "WordGRU", "split_words"]

# Scripts that put no space between words: their characters are taken one by one, as
# a sentence in one piece would be a word that no other text holds.
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_N_TARGET_WORDS = 256  # that a text is reconstructed as
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


class WordGRU(Backbone):
    """Bidirectional GRU over the words of a text, to be trained from scratch.

    Words are looked up in a vocabulary that the caller has fitted on the training texts; a
    gated recurrent network [1]_ reads them from both ends, and the largest value of each state
    over the words is the pooled vector [2]_. In training a few words are hidden behind the
    unknown word [3]_, so a word that was never met has a meaning learned for it. Weights are
    drawn from torch's current generator.

    Parameters
    ----------
    vocabulary : Vocabulary
        Fitted vocabulary.
    n_components : int, default=128
        Length of the tokens and of the pooled vector.
    n_embedding : int, default=64
        Length of the vector of a word.
    n_layers : int, default=1
        Number of recurrent layers.
    max_length : int, default=128
        How many words are read from the start of a text.
    pooling : {"max", "mean"}, default="max"
        How the states of the words become one vector.
    word_dropout : float, default=0.1
        Share of the words that is hidden in training, in [0, 1].
    dropout : float, default=0.0
        Share of word vectors' entries, and of states between layers, that is zeroed in
        training, in [0, 1].

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the states at the words.

    References
    ----------
    .. [1] Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.
    .. [2] Conneau, Kiela, Schwenk, Barrault, Bordes, "Supervised learning of universal sentence
       representations from natural language inference data", EMNLP 2017.
    .. [3] Iyyer, Manjunatha, Boyd-Graber, Daume, "Deep unordered composition rivals syntactic
       methods for text classification", ACL 2015.

    Examples
    --------
    >>> from skmm.backbones import Vocabulary, WordGRU
    >>> texts = ["a red coat", "a hat", ""]
    >>> model = WordGRU(Vocabulary().fit(texts), n_components=16)
    >>> encoded = model(**model.collate(texts))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([3, 3, 16]), torch.Size([3, 16]))
    >>> encoded.mask.sum(dim=1)
    tensor([3, 2, 1])
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        n_components: int = 128,
        n_embedding: int = 64,
        n_layers: int = 1,
        max_length: int = 128,
        pooling: str = "max",
        word_dropout: float = 0.1,
        dropout: float = 0.0,
    ):
        super().__init__()
        if pooling not in ("max", "mean"):
            raise ValueError(
                f"{type(self).__name__}: pooling must be 'max' or 'mean', got {pooling!r}."
            )
        if not hasattr(vocabulary, "words_"):
            raise ValueError(
                f"{type(self).__name__}: the vocabulary is not fitted. Call its fit with the"
                " training texts first."
            )
        self.vocabulary = vocabulary
        self.width = n_components
        self.max_length = max_length
        self.pooling = pooling
        self.word_dropout = word_dropout
        n_states = -(-n_components // 2)  # of each direction
        self.embedding = nn.Embedding(len(vocabulary), n_embedding, Vocabulary.PADDING)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(
            n_embedding,
            n_states,
            n_layers,
            batch_first=True,
            dropout=dropout if n_layers > 1 else 0.0,  # torch warns where there is no between
            bidirectional=True,
        )
        self.project = nn.Linear(2 * n_states, n_components)

    def collate(self, cells: Sequence[str]) -> dict[str, Tensor]:
        """Look up the words of texts.

        Parameters
        ----------
        cells : sequence of str
            Texts.

        Returns
        -------
        tensors : dict of str to Tensor
            ``ids``, int64 of shape (n_cells, n_words) with the words of the longest text;
            shorter ones are padded with zeros at the end.
        """
        rows = [self.vocabulary.encode(cell, self.max_length) for cell in cells]
        ids = torch.zeros(len(rows), max(map(len, rows), default=1), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return {"ids": ids}

    def forward(self, *, ids: Tensor) -> Encoded:
        """Encode texts.

        Parameters
        ----------
        ids : Tensor of shape (n_cells, n_words), int64
            Words of each text, zeros at the end.

        Returns
        -------
        encoded : Encoded
            A token for every word, up to the longest text of the batch.
        """
        mask = ids != Vocabulary.PADDING
        lengths = mask.sum(dim=1)
        # A row of nothing but padding still has to be of some length; its mask stays False.
        steps = lengths.clamp(min=1).cpu()
        n_words = int(steps.max()) if len(ids) else 0
        ids, mask = ids[:, :n_words], mask[:, :n_words]
        if not ids.numel():
            empty = self.project.weight.new_zeros(len(ids), n_words, self.width)
            return Encoded(empty, mask, empty.sum(dim=1))
        words = self.dropout(self.embedding(self._hide(ids)))
        packed = pack_padded_sequence(words, steps, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        tokens = self.project(states)
        return Encoded(tokens, mask, self._pool(tokens, mask))

    def reconstruction_target(self, *, ids: Tensor) -> Tensor:
        """Tell which of the most frequent words a text holds.

        Parameters
        ----------
        ids : Tensor of shape (n_cells, n_words), int64
            What ``collate`` gave.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            One or zero for each of the 256 most frequent words, or for all if there are fewer.
        """
        first = Vocabulary.N_SPECIAL
        n_targets = max(1, min(_N_TARGET_WORDS, len(self.vocabulary) - first))
        # Everything but the words in question falls into an extra column that is cut off.
        column = torch.where((ids < first) | (ids >= first + n_targets), n_targets, ids - first)
        target = torch.zeros(len(ids), n_targets + 1, device=ids.device)
        return target.scatter_(1, column, 1.0)[:, :n_targets]

    def _hide(self, ids: Tensor) -> Tensor:
        if not self.training or self.word_dropout == 0.0:
            return ids
        hidden = torch.rand(ids.shape, device=ids.device) < self.word_dropout
        return torch.where(hidden & (ids >= Vocabulary.N_SPECIAL), Vocabulary.UNKNOWN, ids)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        there = mask.unsqueeze(-1)
        if self.pooling == "mean":
            total = torch.where(there, tokens, 0.0).sum(dim=1)
            return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
        largest = torch.where(there, tokens, -torch.inf).amax(dim=1)
        return torch.where(mask.any(dim=1, keepdim=True), largest, 0.0)
