"""A recurrent network over words, trained from scratch, and its vocabulary."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skmm.backbones._base import Backbone, Encoded

__all__ = ["Vocabulary", "WordGRU", "split_words"]

# Scripts without spaces between words: each character is a word, since a whole sentence would
# be a word that occurs in no other text.
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_N_TARGET_WORDS = 256  # words of the reconstruction target
_TOKEN = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+|[^\w\s]")


class Vocabulary:
    """Words of the training texts and their ids, the most frequent first.

    Texts are normalized (NFKC), lower-cased, and split into runs of letters and digits and into
    single punctuation characters. Chinese, Japanese, Thai, Lao, Burmese and Khmer are split into
    single characters.

    Parameters
    ----------
    max_words : int, default=20_000
        Maximum number of words. The most frequent words are kept; ties are broken
        alphabetically.
    min_count : int, default=1
        Minimum number of occurrences of a word.

    Attributes
    ----------
    words_ : list of str
        The words; the id of the first one is ``N_SPECIAL``.

    Examples
    --------
    >>> from skmm.backbones._word_gru import Vocabulary
    >>> vocabulary = Vocabulary().fit(["A red coat, a RED hat.", "A dress"])
    >>> vocabulary.words_
    ['a', 'red', ',', '.', 'coat', 'dress', 'hat']

    Unknown words have the id 1, and a text without words is the id 2:

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
        """Learn the words of texts.

        Parameters
        ----------
        texts : iterable of str
            Training texts.

        Returns
        -------
        self : Vocabulary
            The fitted vocabulary.
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
        """Convert a text to ids.

        Parameters
        ----------
        text : str
            Any text.
        max_length : int or None, default=None
            Maximum number of words; the rest of a longer text is cut. None means no limit.

        Returns
        -------
        ids : list of int
            The ids, at least one.
        """
        ids = [self._ids.get(word, self.UNKNOWN) for word in split_words(text)[:max_length]]
        return ids or [self.EMPTY]

    def __len__(self) -> int:
        """Return the number of ids, special ones included."""
        return self.N_SPECIAL + len(self.words_)

    def __repr__(self) -> str:
        size = f" of {len(self.words_)} words" if hasattr(self, "words_") else ", not fitted"
        return f"<{type(self).__name__}{size}>"


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation characters."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


class WordGRU(Backbone):
    """Bidirectional GRU over the words of a text, trained from scratch.

    A bidirectional gated recurrent network [1]_ reads the embeddings of the words, and the
    maximum over the projected states is the pooled vector [2]_. In training, some words are
    replaced by the unknown word [3]_, so that its embedding is trained. Weights are sampled from
    torch's global generator.

    Parameters
    ----------
    vocabulary : Vocabulary
        Vocabulary fitted on the training texts.
    n_components : int, default=128
        Length of the tokens and of the pooled vector.
    n_embedding : int, default=64
        Length of the embedding of a word.
    n_layers : int, default=1
        Number of recurrent layers.
    max_length : int, default=128
        Maximum number of words; the rest of a longer text is cut.
    pooling : {"max", "mean"}, default="max"
        How the states of the words are pooled.
    word_dropout : float, default=0.1
        Share of the words that are replaced by the unknown word in training, in [0, 1].
    dropout : float, default=0.0
        Dropout rate of the embeddings and between the recurrent layers, in [0, 1].

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the projected states of the words.

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
    >>> from skmm.backbones._word_gru import Vocabulary, WordGRU
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
                f"{type(self).__name__}: the vocabulary is not fitted. Call its method fit with"
                " the training texts first."
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
            dropout=dropout if n_layers > 1 else 0.0,  # torch warns about dropout with one layer
            bidirectional=True,
        )
        self.project = nn.Linear(2 * n_states, n_components)

    def collate(self, cells: Sequence[str]) -> dict[str, Tensor]:
        """Convert texts to the ids of their words.

        Parameters
        ----------
        cells : sequence of str
            Texts.

        Returns
        -------
        tensors : dict of str to Tensor
            ``ids``, int64 of shape (n_cells, n_words), zero-padded at the end to the longest
            text.
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
            Ids of the words, zero-padded at the end.

        Returns
        -------
        encoded : Encoded
            One token per word, up to the longest text of the batch.
        """
        mask = ids != Vocabulary.PADDING
        lengths = mask.sum(dim=1)
        # torch requires a length of at least 1; the mask of a row of padding stays False.
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
        """Return which of the most frequent words occur in a text.

        Parameters
        ----------
        ids : Tensor of shape (n_cells, n_words), int64
            Output of ``collate``.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            1 or 0 for each of the 256 most frequent words, or for all if there are fewer.
        """
        first = Vocabulary.N_SPECIAL
        n_targets = max(1, min(_N_TARGET_WORDS, len(self.vocabulary) - first))
        # All other ids go to an extra column, which is dropped.
        column = torch.where((ids < first) | (ids >= first + n_targets), n_targets, ids - first)
        target = torch.zeros(len(ids), n_targets + 1, device=ids.device)
        return target.scatter_(1, column, 1.0)[:, :n_targets]

    def _hide(self, ids: Tensor) -> Tensor:
        if not self.training or self.word_dropout == 0.0:
            return ids
        hidden = torch.rand(ids.shape, device=ids.device) < self.word_dropout
        return torch.where(hidden & (ids >= Vocabulary.N_SPECIAL), Vocabulary.UNKNOWN, ids)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        is_word = mask.unsqueeze(-1)
        if self.pooling == "mean":
            total = torch.where(is_word, tokens, 0.0).sum(dim=1)
            return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
        largest = torch.where(is_word, tokens, -torch.inf).amax(dim=1)
        return torch.where(mask.any(dim=1, keepdim=True), largest, 0.0)
