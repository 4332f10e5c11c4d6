"""Cepstral coefficients of a sound: features from the textbook, nothing learned."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from skmm.backbones._base import Backbone, Encoded
from skmm.backbones._pooling import pool_tokens
from skmm.backbones._sounds import beside_deviation, frame_mask, pad_frames
from skmm.backbones._spectrogram import dct_matrix, delta, log_mel, mel_spectrogram

__all__ = ["MFCC"]

_DECIBELS = 10.0  # of a power of ten


class MFCC(Backbone):
    """Mel-frequency cepstral coefficients [1]_ with their first and second differences.

    A frame of 25 ms every 10 ms: the log-mel spectrum, 80 dB deep, through a cosine transform, of
    which the lowest coefficients are kept. Nothing is trained and nothing downloaded.

    Parameters
    ----------
    pooling : {"statistics", "mean", "max"}, default="statistics"
        How frames become one vector: mean and standard deviation side by side, which is twice
        as wide; the mean; the largest.
    n_coefficients : int, default=20
        Coefficients of a frame; with the differences three times as many.
    n_mels : int, default=40
        Bands of the spectrum.
    rate : int, default=16000
        Samples per second of the cells.

    Attributes
    ----------
    width : int
        Length of the pooled vector and of a token. A token is a frame; where statistics are
        pooled, its distance from the mean frame stands behind it.

    References
    ----------
    .. [1] Davis, Mermelstein, "Comparison of parametric representations for monosyllabic word
       recognition in continuously spoken sentences", IEEE Transactions on Acoustics, Speech,
       and Signal Processing 28 (1980).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones import MFCC
    >>> model = MFCC()
    >>> tone = np.sin(np.arange(16000) * 0.1).astype(np.float32)  # a second
    >>> encoded = model(**model.collate([tone, tone[:4000]]))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 101, 120]), torch.Size([2, 120]))
    >>> encoded.mask.sum(dim=1)
    tensor([101,  26])
    """

    def __init__(
        self,
        pooling: str = "statistics",
        *,
        n_coefficients: int = 20,
        n_mels: int = 40,
        rate: int = 16_000,
    ):
        super().__init__()
        if pooling not in ("statistics", "mean", "max"):
            raise ValueError(
                f"{type(self).__name__}: pooling must be 'statistics', 'mean' or 'max', got"
                f" {pooling!r}."
            )
        self.pooling = pooling
        self.n_coefficients = n_coefficients
        self.n_mels = n_mels
        self.rate = rate
        self.width = 3 * n_coefficients * (2 if pooling == "statistics" else 1)

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Compute the coefficients of sounds.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Sounds of any length.

        Returns
        -------
        tensors : dict of str to Tensor
            ``frames`` of shape (n_cells, n_frames, 3 * n_coefficients), zero behind the end of
            the shorter ones, and ``n_frames`` of shape (n_cells,).
        """
        return pad_frames([self._frames(torch.from_numpy(cell)) for cell in cells])

    def forward(self, *, frames: Tensor, n_frames: Tensor) -> Encoded:  # type: ignore[override]
        """Pool frames.

        Parameters
        ----------
        frames : Tensor of shape (n_cells, n_frames, n_values)
            Coefficients.
        n_frames : Tensor of shape (n_cells,), int64
            How many of them belong to the cell.

        Returns
        -------
        encoded : Encoded
            A token for every frame.
        """
        mask = frame_mask(n_frames, frames.shape[1])
        pooled = pool_tokens(frames, mask, self.pooling)
        if self.pooling == "statistics":
            frames = beside_deviation(frames, pooled)
        return Encoded(frames, mask, pooled)

    def _frames(self, samples: Tensor) -> Tensor:
        n_fft, hop = self.rate // 40, self.rate // 100
        # Mirrored at its ends: silence there would stand out in the statistics.
        samples = F.pad(samples, (0, max(0, n_fft // 2 + 1 - len(samples))))
        power = mel_spectrogram(
            samples, n_mels=self.n_mels, rate=self.rate, n_fft=n_fft, hop=hop, pad_mode="reflect"
        )
        cepstrum = dct_matrix(self.n_coefficients, self.n_mels) @ (_DECIBELS * log_mel(power))
        slopes = delta(cepstrum)
        return torch.cat([cepstrum, slopes, delta(slopes)]).T  # (n_frames, 3 * n_coefficients)
