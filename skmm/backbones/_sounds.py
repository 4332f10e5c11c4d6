"""What the models of sound share: frames of unequal number side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["beside_deviation", "coarse_spectrogram", "frame_mask", "pad_frames"]

_COARSE = 8  # rows and columns of the small spectrogram that is reconstructed


def pad_frames(sounds: Sequence[Tensor]) -> dict[str, Tensor]:
    """Stack sequences of frames, with zeros behind the end of the shorter ones.

    Parameters
    ----------
    sounds : sequence of Tensor of shape (n_frames, n_values)
        One for each cell.

    Returns
    -------
    tensors : dict of str to Tensor
        ``frames`` of shape (n_cells, n_frames, n_values) and ``n_frames`` of shape (n_cells,).
    """
    n_frames = torch.tensor([len(frames) for frames in sounds], dtype=torch.int64)
    return {
        "frames": torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True),
        "n_frames": n_frames,
    }


def frame_mask(n_frames: Tensor, longest: int) -> Tensor:
    """Tell which frames belong to their cell: a BoolTensor of shape (n_cells, longest)."""
    return torch.arange(longest, device=n_frames.device) < n_frames[:, None]


def beside_deviation(frames: Tensor, pooled: Tensor) -> Tensor:
    """Put behind each frame how far it is from the mean: a token as wide as its statistics."""
    mean = pooled[:, None, : frames.shape[2]]
    return torch.cat([frames, (frames - mean).abs()], dim=2)


def coarse_spectrogram(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Average a spectrogram over eight groups of bands and eight stretches of its own length.

    Parameters
    ----------
    frames : Tensor of shape (n_cells, n_frames, n_bands)
        Spectrograms.
    n_frames : Tensor of shape (n_cells,)
        How many frames belong to the cell.

    Returns
    -------
    target : Tensor of shape (n_cells, 64)
        What a model reconstructs from which nothing else is asked.
    """
    bands = torch.nn.functional.adaptive_avg_pool1d(frames.float(), _COARSE)  # (n, t, 8)
    sums = torch.nn.functional.pad(bands.cumsum(dim=1), (0, 0, 1, 0))
    edges = torch.arange(_COARSE, device=frames.device) * n_frames[:, None]  # (n, 8)
    begin = edges // _COARSE
    end = (edges + n_frames[:, None] + _COARSE - 1) // _COARSE
    end = torch.maximum(end, begin + 1).clamp(max=frames.shape[1])
    index = [edge[..., None].expand(-1, -1, _COARSE) for edge in (begin, end)]
    total = sums.gather(1, index[1]) - sums.gather(1, index[0])
    return (total / (end - begin).clamp(min=1)[..., None]).flatten(1)
