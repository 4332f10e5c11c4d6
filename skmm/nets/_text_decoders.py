"""The contract of a network that writes: a memory and the tokens so far in, the next one out."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["DecoderState", "TextDecoder"]


class DecoderState(NamedTuple):
    """What is kept between two steps, so that a step costs one token.

    Attributes
    ----------
    memory : dict of str to Tensor
        What does not change while a row is written; first axis rows.
    past : dict of str to Tensor
        What each step adds to or replaces; first axis rows.
    """

    memory: dict[str, Tensor]
    past: dict[str, Tensor]

    def take(self, rows: Tensor) -> "DecoderState":
        """Return the state of some rows, each as often as asked for."""
        return DecoderState(_taken(self.memory, rows), _taken(self.past, rows))

    def take_past(self, rows: Tensor) -> "DecoderState":
        """Return a state in which rows exchange what they wrote, of the same memory."""
        return DecoderState(self.memory, _taken(self.past, rows))


def _taken(tensors: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


class TextDecoder(ABC, nn.Module):
    """Base of the networks that write token by token, looking at a memory.

    Ids count from 0 to ``n_tokens - 1``; the id ``n_tokens`` begins a text and is never written.

    Parameters
    ----------
    n_tokens : int
        Number of tokens that can be written, that of the end included.
    width : int
        Length of the vectors of the memory.
    dropout : float
        Share of the embeddings that is zeroed in training.
    """

    def __init__(self, n_tokens: int, width: int, *, dropout: float):
        super().__init__()
        self.n_tokens = n_tokens
        self.width = width
        self.embedding = nn.Embedding(n_tokens + 1, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        # What is read of a token and what is asked for it are the same vector: Press and Wolf
        # (2017), "Using the output embedding to improve language models".
        self.bias = nn.Parameter(self.embedding.weight.new_zeros(n_tokens))

    def _embed(self, ids: Tensor) -> Tensor:
        return self.embedding(ids) * self.width**0.5

    def _logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.embedding.weight[: self.n_tokens], self.bias)

    @abstractmethod
    def start(self, memory: Tensor, mask: Tensor) -> DecoderState:
        """Return the state before the first token.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            What is looked at.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where it exists; at least once in each row.
        """

    @abstractmethod
    def read(self, ids: Tensor, mask: Tensor, state: DecoderState) -> DecoderState:
        """Return the state behind a prefix, which is read and not written.

        Parameters
        ----------
        ids : Tensor of shape (n_rows, n_steps), int
            Prefixes, each from the left; at least one of them of full length.
        mask : BoolTensor of shape (n_rows, n_steps)
            False behind the end of a prefix, which may be empty.
        state : DecoderState
            As :meth:`start` gives it.
        """

    @abstractmethod
    def advance(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each id, and the new state.

        Parameters
        ----------
        ids : Tensor of shape (n_rows, n_steps), int
            What is written next: several only as the first step of a state, then one at a time.
        state : DecoderState
            What was before.
        """

    def start_behind(
        self, memory: Tensor, mask: Tensor, prefix: Tensor | None = None
    ) -> DecoderState:
        """Return the state before the first token of a text, behind a prefix if there is one.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            What is looked at.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where it exists.
        prefix : Tensor of shape (n_rows, n_steps), int, default=None
            Ids of what stands in front of each text, negative behind its end. An empty one is
            none.
        """
        state = self.start(memory, mask)
        if prefix is None:
            return state
        exists = prefix >= 0
        longest = int(exists.sum(dim=1).max())
        if not longest:
            return state
        return self.read(prefix[:, :longest].clamp(min=0), exists[:, :longest], state)

    def forward(
        self, memory: Tensor, mask: Tensor, ids: Tensor, prefix: Tensor | None = None
    ) -> Tensor:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each id of whole texts.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            What is looked at.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where it exists.
        ids : Tensor of shape (n_rows, n_steps), int
            Texts, each behind the id that begins one.
        prefix : Tensor of shape (n_rows, n_prefix), int, default=None
            What stands in front of them, as :meth:`start_behind` takes it.
        """
        return self.advance(ids, self.start_behind(memory, mask, prefix))[0]
