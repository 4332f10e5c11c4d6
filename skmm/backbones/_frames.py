"""Cells of several images: a network for each image, and a way to pool them over time."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skmm.backbones._base import Backbone, Encoded, pool_tokens

__all__ = ["FrameEncoder"]

_POOLINGS = ("mean", "max", "gru", "attention")
_HERE = "n_frames"  # name of the tensor that says how many frames a cell has


class FrameEncoder(Backbone):
    """Network over the frames of a video, or over several images, trained from scratch.

    Every frame goes through the one image network, which knows nothing of the others. What the
    frames give is then pooled over time: by their mean or largest value, which do not know the
    order; by a bidirectional gated recurrent network [1]_, whose last state from either end
    becomes the vector; or by a layer of attention [2]_ in which each frame, marked with its place
    as sines and cosines, looks at all others before their mean is taken. Weights are drawn from
    torch's current generator.

    Parameters
    ----------
    images : Backbone
        For single images, e.g. ``ImageCNN``.
    temporal_pooling : {"mean", "max", "gru", "attention"}, default="mean"
        How frames become one vector.
    dropout : float, default=0.0
        Share of the values that is zeroed inside attention in training, in [0, 1].

    Attributes
    ----------
    width : int
        That of ``images``. Tokens are the frames: as the image network gives them, or with
        what recurrence or attention adds.

    References
    ----------
    .. [1] Cho et al., "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.
    .. [2] Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones import FrameEncoder, ImageCNN
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
                    f"{type(self).__name__}: attention normalizes over the components, so one is"
                    " not enough. Use n_components=2 or more, or another temporal_pooling."
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
        """Prepare the frames of every cell, one at a time, as the image network wants them.

        Parameters
        ----------
        cells : sequence of iterables of ndarray of shape (height, width, 3), uint8
            Frames of any size; at least one in a cell. A single image is a cell of one frame.

        Returns
        -------
        tensors : dict of str to Tensor
            What the image network's ``collate`` gives, with a second axis over the frames,
            zeros where a cell has fewer than the longest; and ``n_frames``, int64 of shape
            (n_cells,).
        """
        rows: list[list[dict[str, Tensor]]] = []
        for cell in cells:
            single = isinstance(cell, np.ndarray) and cell.ndim == 3
            rows.append([self.images.collate([f]) for f in ([cell] if single else cell)])
        counts = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        tensors = {_HERE: counts}
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
            How many frames each cell has.
        **frames : Tensor of shape (n_cells, n_longest, ...)
            What the image network takes, by its names.

        Returns
        -------
        encoded : Encoded
            A token for every frame.
        """
        # The longest of this batch: the tensors may be padded to that of a whole column.
        longest = int(n_frames.max()) if len(n_frames) else 0
        mask = torch.arange(longest, device=n_frames.device) < n_frames[:, None]
        there = {name: tensor[:, :longest][mask] for name, tensor in frames.items()}
        if not longest:
            weight = next(self.parameters())
            empty = weight.new_zeros(len(n_frames), 0, self.width)
            return Encoded(empty, mask, empty.sum(dim=1))
        vectors = self.images(**there).pooled
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
        """Give the first, the middle and the last frame, as the image network is asked to.

        Parameters
        ----------
        n_frames : Tensor of shape (n_cells,), int64
            What ``collate`` gave, as the others.
        **frames : Tensor of shape (n_cells, n_longest, ...)
            Frames.

        Returns
        -------
        target : Tensor of shape (n_cells, 3 * n_targets)
            One after the other: so the order of the frames has to be learned.
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
        # A row without frames still has to be of some length; its mask stays False.
        steps = n_frames.clamp(min=1).cpu()
        packed = pack_padded_sequence(tokens, steps, batch_first=True, enforce_sorted=False)
        states, ends = self.gru(packed)
        states, _ = pad_packed_sequence(states, batch_first=True)
        return self.project(states), self.project(torch.cat([ends[0], ends[1]], dim=1))

    def _attend(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        placed = tokens + _places(tokens.shape[1], self.width).to(tokens)
        hidden = ~mask
        hidden[:, 0] = False  # a row without frames still has to look at something
        seen = self.attention(placed, src_key_padding_mask=hidden)
        return seen, pool_tokens(seen, mask, "mean")


def _places(n_frames: int, width: int) -> Tensor:
    """Sines and cosines of the frames' numbers, of shape (n_frames, width)."""
    k = torch.arange(n_frames)[:, None]
    wave = torch.arange(width)[None]
    angle = k / 100.0 ** ((wave // 2 * 2) / width)  # clips are short: wavelengths from 6 to 600
    return torch.where(wave % 2 == 0, angle.sin(), angle.cos())
