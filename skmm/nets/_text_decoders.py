"""Networks that generate text: from a memory and previous tokens to the next token.

First the base class, then the two networks and their loss.
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
    """State between two steps, so that each step computes one token only.

    Attributes
    ----------
    memory : dict of str to Tensor
        Tensors that are constant during the generation; their first axis is rows.
    past : dict of str to Tensor
        Tensors that each step extends or replaces; their first axis is rows.
    """

    memory: dict[str, Tensor]
    past: dict[str, Tensor]

    def take(self, rows: Tensor) -> "DecoderState":
        """Return the state of the given rows, which may repeat."""
        return DecoderState(_taken(self.memory, rows), _taken(self.past, rows))

    def take_past(self, rows: Tensor) -> "DecoderState":
        """Return a state with the past of the given rows and the same memory."""
        return DecoderState(self.memory, _taken(self.past, rows))


def _taken(tensors: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


class TextDecoder(ABC, nn.Module):
    """Base class of networks that generate text token by token, with attention to a memory.

    Ids range from 0 to ``n_tokens - 1``; the id ``n_tokens`` begins a text and is never generated.

    Parameters
    ----------
    n_tokens : int
        Number of tokens that can be generated, including the one that ends a text.
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
        # Input and output embeddings are tied: Press and Wolf (2017), "Using the output embedding
        # to improve language models".
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
            Vectors that are attended to.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where a vector exists; at least once in each row.
        """

    @abstractmethod
    def read(self, ids: Tensor, mask: Tensor, state: DecoderState) -> DecoderState:
        """Return the state after a prefix.

        Parameters
        ----------
        ids : Tensor of shape (n_rows, n_steps), int
            Prefixes, padded on the right; at least one has full length.
        mask : BoolTensor of shape (n_rows, n_steps)
            False after the end of a prefix, which may be empty.
        state : DecoderState
            From :meth:`start`.
        """

    @abstractmethod
    def advance(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each id, and the new state.

        Parameters
        ----------
        ids : Tensor of shape (n_rows, n_steps), int
            Next tokens: several are allowed only in the first step of a state.
        state : DecoderState
            State before these tokens.
        """

    def start_after(
        self, memory: Tensor, mask: Tensor, prefix: Tensor | None = None
    ) -> DecoderState:
        """Return the state before the first token of a text, after a prefix if one is given.

        Parameters
        ----------
        memory : Tensor of shape (n_rows, n_memory, width)
            Vectors that are attended to.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where a vector exists.
        prefix : Tensor of shape (n_rows, n_steps), int, default=None
            Ids of the tokens before each text, negative after the end of a prefix.
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
            Vectors that are attended to.
        mask : BoolTensor of shape (n_rows, n_memory)
            True where a vector exists.
        ids : Tensor of shape (n_rows, n_steps), int
            Texts, each after the id that begins a text.
        prefix : Tensor of shape (n_rows, n_prefix), int, default=None
            Tokens before the texts, as in :meth:`start_after`.
        """
        return self.advance(ids, self.start_after(memory, mask, prefix))[0]


class GRUDecoder(TextDecoder):
    """A GRU whose outputs attend to the memory before each token is predicted [1]_.

    Its initial state is computed from the mean of the memory. The attention is the multiplicative
    one of [1]_, without input feeding.

    Parameters
    ----------
    n_tokens : int
        Number of tokens that can be generated, including the one that ends a text.
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
        """Return the state before the first token: hidden units from the mean of the memory."""
        hidden = torch.tanh(self.begin(masked_mean(memory, mask)))
        hidden = torch.unflatten(hidden, 1, (self.n_layers, self.width))
        return DecoderState({"memory": memory, "mask": mask}, {"hidden": hidden})

    def read(self, ids: Tensor, mask: Tensor, state: DecoderState) -> DecoderState:
        """Return the state after a prefix: the hidden units after its last token."""
        begin = state.past["hidden"].transpose(0, 1).contiguous()
        lengths = mask.sum(dim=1)
        # Packed, so that each row ends at its last token; packing allows no empty rows.
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
    """Transformer decoder: causal self-attention, attention to the memory, a hidden layer [1]_.

    Each part is normalized before [2]_. Positions are encoded by sines and cosines, so a text may
    be longer than those in training.

    Parameters
    ----------
    n_tokens : int
        Number of tokens that can be generated, including the one that ends a text.
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
        """Return the state after a prefix: its keys and values, and which of them exist."""
        # Padding is after all tokens of a prefix, which attend only to previous ones.
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
            # Each row continues at the end of its own prefix.
            places = places - (~read).sum(dim=1, keepdim=True)
            own = _visible(read, n_before, n)
        x = self.dropout(self._embed(ids) + self._positions(places))
        memory_mask = state.memory["mask"][:, None, None]
        past = {}
        for i, layer in enumerate(cast(Iterable[_DecoderLayer], self.layers)):
            before = state.past[f"keys_{i}"], state.past[f"values_{i}"]
            memory = state.memory[f"keys_{i}"], state.memory[f"values_{i}"]
            x, (past[f"keys_{i}"], past[f"values_{i}"]) = layer(x, before, memory, memory_mask, own)
        return x, past

    def _positions(self, places: Tensor) -> Tensor:
        weight = self.embedding.weight
        half = torch.arange((self.width + 1) // 2, device=weight.device)
        angles = places[..., None] / 10_000 ** (half * 2 / self.width)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        return waves[..., : self.width].to(weight.dtype)


def _visible(read: Tensor, n_before: int, n: int) -> Tensor:
    """Return what each of n tokens after a prefix may attend to, (n_rows, 1, n, n_before + n)."""
    generated = read.new_ones(len(read), n_before - read.shape[1])
    before = torch.cat([read, generated], dim=1)[:, None].expand(-1, n, -1)
    own = read.new_ones(n, n).tril().expand(len(read), -1, -1)
    return torch.cat([before, own], dim=2)[:, None]


class _DecoderLayer(nn.Module):
    """Self-attention with a cache, attention to the memory, and a hidden layer."""

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
        """Return keys and values of the memory, (n_rows, n_heads, n_memory, n)."""
        keys, values = self.read_in(memory).chunk(2, dim=2)
        return self._by_head(keys), self._by_head(values)

    def forward(
        self,
        x: Tensor,
        before: tuple[Tensor, Tensor],
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor,
        own_mask: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = self.own(self.norms[0](x)).chunk(3, dim=2)
        keys = torch.cat([before[0], self._by_head(key)], dim=2)
        values = torch.cat([before[1], self._by_head(value)], dim=2)
        # A single new token may attend to all keys; several need a causal mask.
        causal = own_mask is None and x.shape[1] > 1
        found = functional.scaled_dot_product_attention(
            self._by_head(query), keys, values, attn_mask=own_mask, is_causal=causal
        )
        x = x + self.dropout(self.own_out(self._joined(found)))
        query = self._by_head(self.query(self.norms[1](x)))
        found = functional.scaled_dot_product_attention(query, *memory, attn_mask=memory_mask)
        x = x + self.dropout(self.read_out(self._joined(found)))
        return x + self.dropout(self.hidden(self.norms[2](x))), (keys, values)

    def _by_head(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 2, (self.n_heads, -1)).transpose(1, 2)

    @staticmethod
    def _joined(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class TokenLoss(nn.Module):
    """Cross-entropy of the tokens, summed over a text and divided by a common length.

    Each token has the same weight, in short and long texts.

    Parameters
    ----------
    mean_length : float, default=1.0
        Mean number of tokens in a text.
    label_smoothing : float, default=0.0
        Share of the target that is spread over all tokens.

    Attributes
    ----------
    NOTHING : int
        Target after the end of a text.

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
            Logits of each step.
        target : Tensor of shape (n_rows, n_steps), int
            Ids of the tokens, ``NOTHING`` after the end.

        Returns
        -------
        loss : Tensor of shape (n_rows,)
            Nonnegative losses.
        """
        losses = functional.cross_entropy(
            logits.transpose(1, 2),
            target,
            ignore_index=self.NOTHING,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return losses.sum(dim=1) / self.mean_length
