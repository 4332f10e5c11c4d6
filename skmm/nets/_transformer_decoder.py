"""A transformer that writes, with the keys and values of what it has written kept."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._perceptron import Perceptron
from skmm.nets._text_decoders import DecoderState, TextDecoder

__all__ = ["TransformerDecoder"]


class TransformerDecoder(TextDecoder):
    """Layers of attention to what is written, attention to the memory, and a hidden layer [1]_.

    Normalised before each part [2]_. Positions are sines, so a text may be longer than any seen.

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
    >>> from skmm.nets import TransformerDecoder
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
        self.layers: Any = nn.ModuleList(_Layer(width, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)

    def start(self, memory: Tensor, mask: Tensor) -> DecoderState:
        """Return the state before the first token: the memory's keys and values of each layer."""
        kept = {"mask": mask}
        past = {}
        for i, layer in enumerate(self.layers):
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
        for i, layer in enumerate(self.layers):
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


class _Layer(nn.Module):
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
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)

    @staticmethod
    def _joined(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)
