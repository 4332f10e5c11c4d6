"""Networks that write: a memory and the tokens so far in, the next one out.

First the contract, then the two networks and the loss they are trained with.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._layers import Perceptron, masked_mean, masked_softmax

__all__ = [
    "DecoderState",
    "GRUDecoder",
    "TextDecoder",
    "TokenLoss",
    "TransformerDecoder",
]


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
        vectors: Tensor = self.embedding(ids) * self.width**0.5
        return vectors

    def _logits(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.weight[: self.n_tokens]
        logits: Tensor = functional.linear(hidden, weight, self.bias)
        return logits

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


class GRUDecoder(TextDecoder):
    """A GRU whose outputs look at the memory before each token is chosen [1]_.

    It begins with the mean of the memory. The attention is the multiplicative one of [1]_, without
    feeding what was found into the next step.

    Parameters
    ----------
    n_tokens : int
        Number of tokens that can be written, that of the end included.
    width : int
        Units of each layer and length of the memory's vectors.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    n_layers : int, default=1
        Number of recurrent layers.

    References
    ----------
    .. [1] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._text_decoders import GRUDecoder
    >>> decoder = GRUDecoder(10, 16)
    >>> memory, mask = torch.ones(2, 3, 16), torch.ones(2, 3).bool()
    >>> decoder(memory, mask, torch.tensor([[10, 4, 5], [10, 6, 7]])).shape
    torch.Size([2, 3, 10])
    """

    def __init__(self, n_tokens: int, width: int, *, dropout: float = 0.0, n_layers: int = 1):
        super().__init__(n_tokens, width, dropout=dropout)
        self.n_layers = n_layers
        self.begin = nn.Linear(width, n_layers * width)
        self.gru = nn.GRU(
            width, width, n_layers, batch_first=True, dropout=dropout if n_layers > 1 else 0.0
        )
        self.query = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)

    def start(self, memory: Tensor, mask: Tensor) -> DecoderState:
        """Return the state before the first token: hidden units made of the memory's mean."""
        hidden = torch.tanh(self.begin(masked_mean(memory, mask)))
        hidden = torch.unflatten(hidden, 1, (self.n_layers, self.width))
        return DecoderState({"memory": memory, "mask": mask}, {"hidden": hidden})

    def read(self, ids: Tensor, mask: Tensor, state: DecoderState) -> DecoderState:
        """Return the state behind a prefix: what the hidden units are after its last token."""
        begin = state.past["hidden"].transpose(0, 1).contiguous()
        lengths = mask.sum(dim=1)
        # Packed, each row ends at its own last token; one of no token is not allowed.
        read = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self._embed(ids)),
            lengths.clamp(min=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        hidden = torch.where((lengths > 0)[:, None], self.gru(read, begin)[1], begin)
        return DecoderState(state.memory, {"hidden": hidden.transpose(0, 1)})

    def advance(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return logits of what follows each id, and the state with the new hidden units."""
        begin = state.past["hidden"].transpose(0, 1).contiguous()
        outputs, hidden = self.gru(self.dropout(self._embed(ids)), begin)
        memory, mask = state.memory["memory"], state.memory["mask"]
        scores = self.query(outputs) @ memory.transpose(1, 2) * self.width**-0.5
        found = masked_softmax(scores, mask[:, None], dim=2) @ memory
        mixed = torch.tanh(self.mix(torch.cat([outputs, found], dim=2)))
        past = {"hidden": hidden.transpose(0, 1)}
        return self._logits(self.dropout(mixed)), DecoderState(state.memory, past)


class TransformerDecoder(TextDecoder):
    """Layers of attention to what is written, attention to the memory, and a hidden layer [1]_.

    Normalized before each part [2]_. Positions are sines, so a text may be longer than any seen.

    Parameters
    ----------
    n_tokens : int
        Number of tokens that can be written, that of the end included.
    width : int
        Width of the layers and length of the memory's vectors, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=2
        Number of layers.

    References
    ----------
    .. [1] Vaswani et al. (2017), "Attention is all you need", NeurIPS.
    .. [2] Xiong et al. (2020), "On layer normalization in the transformer architecture", ICML.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._text_decoders import TransformerDecoder
    >>> decoder = TransformerDecoder(10, 16).eval()
    >>> memory, mask = torch.ones(2, 3, 16), torch.ones(2, 3).bool()
    >>> ids = torch.tensor([[10, 4, 5], [10, 6, 7]])
    >>> whole = decoder(memory, mask, ids)
    >>> whole.shape
    torch.Size([2, 3, 10])

    Token by token it is the same:

    >>> state = decoder.start(memory, mask)
    >>> for step in range(3):
    ...     logits, state = decoder.advance(ids[:, [step]], state)
    >>> torch.allclose(logits[:, 0], whole[:, 2], atol=1e-5)
    True
    """

    def __init__(
        self,
        n_tokens: int,
        width: int,
        *,
        dropout: float = 0.0,
        n_heads: int = 4,
        n_layers: int = 2,
    ):
        super().__init__(n_tokens, width, dropout=dropout)
        if width % n_heads or width < 2:
            raise ValueError(
                f"TransformerDecoder needs a width of at least 2 that is a multiple of n_heads,"
                f" got {width} and n_heads={n_heads}."
            )
        self.layers = nn.ModuleList(_DecoderLayer(width, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)

    def start(self, memory: Tensor, mask: Tensor) -> DecoderState:
        """Return the state before the first token: the memory's keys and values of each layer."""
        kept = {"mask": mask}
        past = {}
        for i, layer in enumerate(cast(Iterable[_DecoderLayer], self.layers)):
            kept[f"keys_{i}"], kept[f"values_{i}"] = layer.read(memory)
            past[f"keys_{i}"] = past[f"values_{i}"] = kept[f"keys_{i}"][:, :, :0]
        return DecoderState(kept, past)

    def read(self, ids: Tensor, mask: Tensor, state: DecoderState) -> DecoderState:
        """Return the state behind a prefix: its keys and values, and which of them exist."""
        # What stands behind the end of a prefix is behind all its tokens: none looks there.
        _, past = self._through(ids, state)
        return DecoderState({**state.memory, "read": mask}, past)

    def advance(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return logits of what follows each id, and the state with the ids' keys and values."""
        x, past = self._through(ids, state)
        return self._logits(self.norm(x)), DecoderState(state.memory, past)

    def _through(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, dict[str, Tensor]]:
        n_before, n = state.past["keys_0"].shape[2], ids.shape[1]
        places = torch.arange(n_before, n_before + n, device=ids.device)[None]
        read, own = state.memory.get("read"), None
        if read is not None:
            # Each row goes on where its own prefix ended.
            places = places - (~read).sum(dim=1, keepdim=True)
            own = _visible(read, n_before, n)
        x = self.dropout(self._embed(ids) + self._positions(places))
        seen = state.memory["mask"][:, None, None]
        past = {}
        for i, layer in enumerate(cast(Iterable[_DecoderLayer], self.layers)):
            written = state.past[f"keys_{i}"], state.past[f"values_{i}"]
            looked_at = state.memory[f"keys_{i}"], state.memory[f"values_{i}"]
            x, (past[f"keys_{i}"], past[f"values_{i}"]) = layer(x, written, looked_at, seen, own)
        return x, past

    def _positions(self, places: Tensor) -> Tensor:
        weight = self.embedding.weight
        half = torch.arange((self.width + 1) // 2, device=weight.device)
        angles = places[..., None] / 10_000 ** (half * 2 / self.width)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        return waves[..., : self.width].to(weight.dtype)


def _visible(read: Tensor, n_before: int, n: int) -> Tensor:
    """What each of n tokens may look at behind a prefix, (n_rows, 1, n, n_before + n)."""
    written = read.new_ones(len(read), n_before - read.shape[1])
    before = torch.cat([read, written], dim=1)[:, None].expand(-1, n, -1)
    own = read.new_ones(n, n).tril().expand(len(read), -1, -1)
    return torch.cat([before, own], dim=2)[:, None]


class _DecoderLayer(nn.Module):
    """Attention to what is written, attention to the memory, and a hidden layer."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = nn.Linear(width, 3 * width)
        self.own_out = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.read_in = nn.Linear(width, 2 * width)
        self.read_out = nn.Linear(width, width)
        self.hidden = Perceptron(width, width, hidden_sizes=(4 * width,), dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, (n_rows, n_heads, n_memory, n)."""
        keys, values = self.read_in(memory).chunk(2, dim=2)
        return self._by_head(keys), self._by_head(values)

    def forward(
        self,
        x: Tensor,
        written: tuple[Tensor, Tensor],
        read: tuple[Tensor, Tensor],
        seen: Tensor,
        own: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = self.own(self.norms[0](x)).chunk(3, dim=2)
        keys = torch.cat([written[0], self._by_head(key)], dim=2)
        values = torch.cat([written[1], self._by_head(value)], dim=2)
        # A single new token may look at all that is there; several look only back.
        causal = own is None and x.shape[1] > 1
        found = functional.scaled_dot_product_attention(
            self._by_head(query), keys, values, attn_mask=own, is_causal=causal
        )
        x = x + self.dropout(self.own_out(self._joined(found)))
        query = self._by_head(self.query(self.norms[1](x)))
        found = functional.scaled_dot_product_attention(query, *read, attn_mask=seen)
        x = x + self.dropout(self.read_out(self._joined(found)))
        return x + self.dropout(self.hidden(self.norms[2](x))), (keys, values)

    def _by_head(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 2, (self.n_heads, -1)).transpose(1, 2)

    @staticmethod
    def _joined(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class TokenLoss(nn.Module):
    """Cross-entropy of the tokens, summed over a text and divided by a common length.

    So each token of a batch counts the same, in whatever batch it stands.

    Parameters
    ----------
    mean_length : float, default=1.0
        Mean number of tokens in a text.
    label_smoothing : float, default=0.0
        Share of the target that is spread over all tokens.

    Attributes
    ----------
    NOTHING : int
        Target behind the end of a text.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._text_decoders import TokenLoss
    >>> target = torch.tensor([[3, 0], [0, TokenLoss.NOTHING]])
    >>> TokenLoss()(torch.zeros(2, 2, 4), target)  # two tokens and one, of four possible
    tensor([2.7726, 1.3863])
    """

    NOTHING = -100

    def __init__(self, mean_length: float = 1.0, *, label_smoothing: float = 0.0):
        super().__init__()
        self.mean_length = mean_length
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each text.

        Parameters
        ----------
        logits : Tensor of shape (n_rows, n_steps, n_tokens)
            Of each place.
        target : Tensor of shape (n_rows, n_steps), int
            What stands there, ``NOTHING`` behind the end.

        Returns
        -------
        loss : Tensor of shape (n_rows,)
            Not negative.
        """
        losses = functional.cross_entropy(
            logits.transpose(1, 2),
            target,
            ignore_index=self.NOTHING,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return losses.sum(dim=1) / self.mean_length
