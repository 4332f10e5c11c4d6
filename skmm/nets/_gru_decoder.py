"""A recurrent network that writes, with attention to the memory."""

import torch
from torch import Tensor, nn

from skmm.nets._layers import masked_mean, masked_softmax
from skmm.nets._text_decoders import DecoderState, TextDecoder

__all__ = ["GRUDecoder"]


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
    >>> from skmm.nets import GRUDecoder
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
        hidden = hidden.unflatten(1, (self.n_layers, self.width))
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
