"""The voice encoder of GE2E: one vector that tells who is speaking."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._sounds import frame_mask
from skmm.backbones._spectrogram import mel_spectrogram

__all__ = ["VoiceEncoder"]

_RATE = 16_000
_HOP = 160
_N_MELS = 40
_WIDTH = 256
_PART = 160  # frames that the network hears at once
_STEP = 77  # frames from one part to the next: 1.3 parts a second
_LEAST_SHARE = 0.75  # of the last part that has to be sound
_TARGET_LEVEL = -30.0  # dB below full scale; what is louder stays as it is


class VoiceEncoder(nn.Module):
    """Three recurrent layers over mel frames, trained to tell speakers apart [1]_.

    A sound is cut into parts of 1.6 s that overlap by half; each gives a vector of length one.
    Names and shapes of the weights are those of the published checkpoint.

    References
    ----------
    .. [1] Wan, Wang, Papir, Lopez Moreno, "Generalized end-to-end loss for speaker
       verification", ICASSP 2018.
    """

    width = _WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_N_MELS, _WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(_WIDTH, _WIDTH)
        # Of the loss; there because the checkpoint has them.
        self.similarity_weight = nn.Parameter(torch.zeros(1))
        self.similarity_bias = nn.Parameter(torch.zeros(1))

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Cut sounds into parts.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Sounds at 16 kHz.

        Returns
        -------
        tensors : dict of str to Tensor
            ``parts`` of shape (n_cells, n_parts, 160, 40), zero where a sound has fewer, and
            ``n_parts`` of shape (n_cells,).
        """
        parts = [_parts(cell) for cell in cells]
        n_parts = torch.tensor([len(p) for p in parts], dtype=torch.int64)
        return {"parts": nn.utils.rnn.pad_sequence(parts, batch_first=True), "n_parts": n_parts}

    def forward(self, *, parts: Tensor, n_parts: Tensor) -> tuple[Tensor, Tensor]:
        """Encode parts.

        Parameters
        ----------
        parts : Tensor of shape (n_cells, n_parts, 160, 40)
            Mel frames.
        n_parts : Tensor of shape (n_cells,)
            How many parts a cell has.

        Returns
        -------
        tokens : Tensor of shape (n_cells, n_parts, 256)
            Vectors of length one, none of them negative.
        mask : BoolTensor of shape (n_cells, n_parts)
            Which of them are there.
        """
        mask = frame_mask(n_parts, parts.shape[1])
        _, (hidden, _) = self.lstm(parts[mask])
        vectors = nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)
        tokens = vectors.new_zeros(*mask.shape, _WIDTH)
        tokens[mask] = vectors
        return tokens, mask


def _parts(samples: np.ndarray) -> Tensor:
    """Mel frames of the parts of a sound, (n_parts, 160, 40)."""
    loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if loudness > 0:
        gain = 10 ** (_TARGET_LEVEL / 20) / loudness
        samples = samples * np.float32(max(gain, 1.0))
    n_frames = -(-(len(samples) + 1) // _HOP)
    begins = list(range(0, max(1, n_frames - _PART + _STEP + 1), _STEP))
    heard = (len(samples) - begins[-1] * _HOP) / (_PART * _HOP)
    if heard < _LEAST_SHARE and len(begins) > 1:
        begins.pop()
    padded = np.zeros(max(len(samples), (begins[-1] + _PART) * _HOP), np.float32)
    padded[: len(samples)] = samples
    power = mel_spectrogram(
        torch.from_numpy(padded), n_mels=_N_MELS, rate=_RATE, hop=_HOP, pad_mode="reflect"
    )
    return torch.stack([power[:, begin : begin + _PART].T for begin in begins])
