"""Cells of several images: a network for single images, and pooling over time."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skmm.backbones._base import Backbone, Encoded, pool_tokens

__all__ = ["FrameEncoder"]

_POOLINGS = ("mean", "max", "gru", "attention")


class FrameEncoder(Backbone):
    """Network over the frames of a video or over several images, trained from scratch.

    An image network encodes each frame separately. The vectors of the frames are then pooled over
    time: by their mean or maximum, which ignore the order; by a bidirectional gated recurrent
    network [1]_, whose last states in both directions are projected to the vector; or by a
    transformer layer [2]_ over the frames with sinusoidal positions, followed by the mean.
    Weights are sampled from torch's global generator.

    Parameters
    ----------
    images : Backbone
        Network for single images, such as ``ImageCNN``.
    temporal_pooling : {"mean", "max", "gru", "attention"}, default="mean"
        How the vectors of the frames are pooled.
    dropout : float, default=0.0
        Dropout rate of the transformer layer, in [0, 1].

    Attributes
    ----------
    width : int
        That of ``images``. Tokens are the frames: the vectors of the image network, or the
        outputs of the recurrent network or of the transformer layer.

    References
    ----------
    .. [1] Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.
    .. [2] Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._frames import FrameEncoder
    >>> from skmm.backbones._image_cnn import ImageCNN
    >>> model = FrameEncoder(ImageCNN(16, image_size=32), temporal_pooling="gru")
    >>> clips = [np.zeros((3, 40, 40, 3), np.uint8), np.ones((2, 9, 9, 3), np.uint8)]
    >>> encoded = model(**model.collate(clips))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 3, 16]), torch.Size([2, 16]))
    >>> encoded.mask.tolist()
    [[True, True, True], [True, True, False]]
    """

    def __init__(self, images: Backbone, *, temporal_pooling: str = "mean", dropout: float = 0.0):
        super().__init__()
        if temporal_pooling not in _POOLINGS:
            raise ValueError(
                f"{type(self).__name__}: temporal_pooling must be one of"
                f" {', '.join(map(repr, _POOLINGS))}, got {temporal_pooling!r}."
            )
        self.images = images
        self.temporal_pooling = temporal_pooling
        self.width = width = images.width
        if temporal_pooling == "gru":
            n_states = -(-width // 2)  # of each direction
            self.gru = nn.GRU(width, n_states, batch_first=True, bidirectional=True)
            self.project = nn.Linear(2 * n_states, width)
        elif temporal_pooling == "attention":
            if width < 2:
                raise ValueError(
                    f"{type(self).__name__}: temporal_pooling='attention' needs n_components=2 or"
                    " more, got 1. Increase n_components or use another temporal_pooling."
                )
            self.attention = nn.TransformerEncoderLayer(
                width,
                nhead=math.gcd(width, 4),
                dim_feedforward=2 * width,
                dropout=dropout,
                batch_first=True,
                norm_first=True,
            )

    def collate(self, cells: Sequence[Iterable[np.ndarray]]) -> dict[str, Tensor]:
        """Convert the frames of all cells to tensors, one frame at a time.

        Parameters
        ----------
        cells : sequence of iterables of ndarray of shape (height, width, 3), uint8
            Frames of any size, at least one per cell. A single image is a cell of one frame.

        Returns
        -------
        tensors : dict of str to Tensor
            Output of the image network's ``collate`` with frames along a second axis, zero-padded
            to the longest cell; and ``n_frames``, int64 of shape (n_cells,).
        """
        rows: list[list[dict[str, Tensor]]] = []
        for cell in cells:
            single = isinstance(cell, np.ndarray) and cell.ndim == 3
            rows.append([self.images.collate([f]) for f in ([cell] if single else cell)])
        counts = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        tensors = {"n_frames": counts}
        for name, first in rows[0][0].items():
            full = first.new_zeros((len(rows), int(counts.max()), *first.shape[1:]))
            for i, row in enumerate(rows):
                for k, frame in enumerate(row):
                    full[i, k] = frame[name][0]
            tensors[name] = full
        return tensors

    def forward(self, *, n_frames: Tensor, **frames: Tensor) -> Encoded:
        """Encode videos.

        Parameters
        ----------
        n_frames : Tensor of shape (n_cells,), int64
            Number of frames of each cell.
        **frames : Tensor of shape (n_cells, n_longest, ...)
            Inputs of the image network, under its names.

        Returns
        -------
        encoded : Encoded
            One token per frame.
        """
        # The longest of this batch: the tensors may be padded to the longest of a whole column.
        longest = int(n_frames.max()) if len(n_frames) else 0
        mask = torch.arange(longest, device=n_frames.device) < n_frames[:, None]
        existing = {name: tensor[:, :longest][mask] for name, tensor in frames.items()}
        if not longest:
            weight = next(self.parameters())
            empty = weight.new_zeros(len(n_frames), 0, self.width)
            return Encoded(empty, mask, empty.sum(dim=1))
        vectors = self.images(**existing).pooled
        tokens = vectors.new_zeros(*mask.shape, self.width)
        tokens[mask] = vectors
        if self.temporal_pooling == "gru":
            tokens, pooled = self._recur(tokens, n_frames)
        elif self.temporal_pooling == "attention":
            tokens, pooled = self._attend(tokens, mask)
        else:
            pooled = pool_tokens(tokens, mask, self.temporal_pooling)
        return Encoded(tokens, mask, torch.where(n_frames[:, None] > 0, pooled, 0.0))

    def reconstruction_target(self, *, n_frames: Tensor, **frames: Tensor) -> Tensor:
        """Return the image network's targets of the first, the middle and the last frame.

        Parameters
        ----------
        n_frames : Tensor of shape (n_cells,), int64
            Number of frames of each cell.
        **frames : Tensor of shape (n_cells, n_longest, ...)
            Inputs of the image network.

        Returns
        -------
        target : Tensor of shape (n_cells, 3 * n_targets)
            The three targets concatenated, which depend on the order of the frames.
        """
        last = (n_frames - 1).clamp(min=0)
        rows = torch.arange(len(n_frames), device=n_frames.device)
        return torch.cat(
            [
                self.images.reconstruction_target(
                    **{name: tensor[rows, k] for name, tensor in frames.items()}
                )
                for k in (torch.zeros_like(last), last // 2, last)
            ],
            dim=1,
        )

    def _recur(self, tokens: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor]:
        # torch requires a length of at least 1; the mask of a row without frames stays False.
        steps = n_frames.clamp(min=1).cpu()
        packed = pack_padded_sequence(tokens, steps, batch_first=True, enforce_sorted=False)
        states, ends = self.gru(packed)
        states, _ = pad_packed_sequence(states, batch_first=True)
        return self.project(states), self.project(torch.cat([ends[0], ends[1]], dim=1))

    def _attend(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        placed = tokens + _positions(tokens.shape[1], self.width).to(tokens)
        hidden = ~mask
        hidden[:, 0] = False  # attention of a row without frames would be NaN
        attended = self.attention(placed, src_key_padding_mask=hidden)
        return attended, pool_tokens(attended, mask, "mean")


def _positions(n_frames: int, width: int) -> Tensor:
    """Return sinusoidal positions of the frames, of shape (n_frames, width)."""
    k = torch.arange(n_frames)[:, None]
    wave = torch.arange(width)[None]
    angle = k / 100.0 ** ((wave // 2 * 2) / width)  # clips are short: wavelengths from 6 to 600
    return torch.where(wave % 2 == 0, angle.sin(), angle.cos())
