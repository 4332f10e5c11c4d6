"""A user's own module over the samples of a sound."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Encoded
from skmm.backbones._sounds import coarse_spectrogram
from skmm.backbones._spectrogram import log_mel, mel_spectrogram
from skmm.backbones._user_module import ModuleBackbone

__all__ = ["SoundModule"]

_N_MELS = 64


class SoundModule(ModuleBackbone):
    """A user's module over sounds, in the place of our own network.

    Parameters
    ----------
    module : nn.Module
        From ``(n, n_samples)`` floats. Returns ``(n, width)``, ``(n, n_tokens, width)``,
        ``(n, width, height, width)`` or ``(tokens, mask)``.
    n_samples : int
        Samples of every sound that the module is given: shorter ones are padded with silence,
        longer ones cut. So what it gives for a sound never depends on the others of a batch.
    rate : int, default=16000
        Samples per second of the cells.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skmm.backbones import SoundModule
    >>> model = SoundModule(torch.nn.Linear(800, 3), n_samples=800)
    >>> model(**model.collate([np.ones(500, np.float32)])).pooled.shape
    torch.Size([1, 3])
    """

    separable = True

    def __init__(self, module: nn.Module, *, n_samples: int, rate: int = 16_000):
        super().__init__(module)
        self.n_samples = n_samples
        self.rate = rate

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Bring sounds to one length.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Sounds of any length.

        Returns
        -------
        tensors : dict of str to Tensor
            ``samples`` of shape (n_cells, n_samples).
        """
        samples = torch.zeros(len(cells), self.n_samples)
        for row, cell in zip(samples, cells, strict=True):
            kept = cell[: self.n_samples]
            row[: len(kept)] = torch.from_numpy(kept)
        return {"samples": samples}

    def forward(self, *, samples: Tensor) -> Encoded:  # type: ignore[override]
        return super().forward(**{"0": samples})

    def reconstruction_target(self, *, samples: Tensor) -> Tensor:  # type: ignore[override]
        """Give small spectrograms, (n_cells, 64): see ``SoundCNN.reconstruction_target``."""
        hop = self.rate // 100
        power = mel_spectrogram(
            samples, n_mels=_N_MELS, rate=self.rate, n_fft=self.rate // 25, hop=hop
        )
        frames = log_mel(power).transpose(1, 2)
        n_frames = torch.full((len(samples),), frames.shape[1], device=samples.device)
        return coarse_spectrogram(frames, n_frames)
