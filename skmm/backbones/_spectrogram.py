"""Mel spectrograms and mel-frequency cepstral coefficients in torch, without an audio package."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmm.backbones._base import Backbone, Encoded, pool_tokens

__all__ = [
    "MFCC",
    "append_deviation",
    "coarse_spectrogram",
    "dct_matrix",
    "delta",
    "frame_mask",
    "log_mel",
    "mel_filters",
    "mel_spectrogram",
    "pad_frames",
]

# The scale of Slaney's Auditory Toolbox: linear up to 1 kHz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_MELS_PER_LOG = 27.0 / torch.log(torch.tensor(6.4, dtype=torch.float64)).item()
_LEAST_POWER = 1e-10
_COARSE = 8  # rows and columns of the coarse spectrogram, the reconstruction target
_DECIBELS = 10.0  # per power of ten


def mel_spectrogram(
    samples: Tensor,
    *,
    n_mels: int,
    rate: int = 16_000,
    n_fft: int = 400,
    hop: int = 160,
    pad_mode: str = "constant",
) -> Tensor:
    """Compute the power of audio in each mel band and frame.

    Parameters
    ----------
    samples : Tensor of shape (n_samples,) or (n_audio_clips, n_samples), float32
        Audio clips of one length.
    n_mels : int
        Number of bands.
    rate : int, default=16000
        Samples per second.
    n_fft : int, default=400
        Samples of a frame; 400 are 25 ms at 16 kHz.
    hop : int, default=160
        Samples between the starts of two frames; 160 are 10 ms at 16 kHz.
    pad_mode : {"constant", "reflect"}, default="constant"
        Padding at both ends, by zeros or by reflection; frames are centered.

    Returns
    -------
    power : Tensor of shape (..., n_mels, n_frames), float32
        ``n_frames`` is ``1 + n_samples // hop``.
    """
    window = torch.hann_window(n_fft, device=samples.device)
    spectrum = torch.stft(
        samples, n_fft, hop, window=window, center=True, pad_mode=pad_mode, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return mel_filters(n_mels, n_fft, rate).to(samples.device) @ power


@lru_cache(maxsize=16)
def mel_filters(n_mels: int, n_fft: int, rate: int) -> Tensor:
    """Return triangular filters of equal area on Slaney's mel scale.

    Parameters
    ----------
    n_mels : int
        Number of filters, from 0 Hz to half the rate.
    n_fft : int
        Samples of a frame.
    rate : int
        Samples per second.

    Returns
    -------
    filters : Tensor of shape (n_mels, n_fft // 2 + 1), float32
        A cached tensor, which must not be changed.
    """
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    top = _to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    steps = torch.arange(n_mels + 2, dtype=torch.float64) / (n_mels + 1)
    corners = _to_hz(steps * top)  # (n_mels + 2,)
    low, center, high = (c[:, None] for c in (corners[:-2], corners[1:-1], corners[2:]))
    rising = (frequencies - low) / (center - low)
    falling = (high - frequencies) / (high - center)
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return (triangles * 2.0 / (high - low)).float()


def _to_mel(hz: Tensor) -> Tensor:
    above = _BREAK_HZ / _HZ_PER_MEL + torch.log(hz / _BREAK_HZ) * _MELS_PER_LOG
    return torch.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def _to_hz(mel: Tensor) -> Tensor:
    corner = _BREAK_HZ / _HZ_PER_MEL
    above = _BREAK_HZ * torch.exp((mel - corner) / _MELS_PER_LOG)
    return torch.where(mel < corner, mel * _HZ_PER_MEL, above)


def log_mel(power: Tensor, *, span: float = 8.0) -> Tensor:
    """Return the logarithm of a spectrogram, clipped at a distance below its loudest value.

    Parameters
    ----------
    power : Tensor of shape (..., n_mels, n_frames)
        Output of ``mel_spectrogram``.
    span : float, default=8.0
        Dynamic range in powers of ten; 8 are 80 dB.

    Returns
    -------
    logarithm : Tensor of shape (..., n_mels, n_frames)
        Logarithm to base 10. Bands without energy, such as those above half the original sampling
        rate, are at the lower limit.
    """
    logarithm = power.clamp(min=_LEAST_POWER).log10()
    return torch.maximum(logarithm, logarithm.amax(dim=(-2, -1), keepdim=True) - span)


def pad_frames(audio_clips: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pad sequences of frames with zeros to the longest and stack them.

    Parameters
    ----------
    audio_clips : sequence of Tensor of shape (n_frames, n_values)
        Frames of each cell.

    Returns
    -------
    tensors : dict of str to Tensor
        ``frames`` of shape (n_cells, n_frames, n_values) and ``n_frames`` of shape (n_cells,).
    """
    n_frames = torch.tensor([len(frames) for frames in audio_clips], dtype=torch.int64)
    return {
        "frames": torch.nn.utils.rnn.pad_sequence(list(audio_clips), batch_first=True),
        "n_frames": n_frames,
    }


def frame_mask(n_frames: Tensor, longest: int) -> Tensor:
    """Return the mask of frames, False for padding: a BoolTensor of shape (n_cells, longest)."""
    return torch.arange(longest, device=n_frames.device) < n_frames[:, None]


def append_deviation(frames: Tensor, pooled: Tensor) -> Tensor:
    """Append to each frame its absolute deviation from the mean frame.

    The tokens are then as wide as pooled statistics.
    """
    mean = pooled[:, None, : frames.shape[2]]
    return torch.cat([frames, (frames - mean).abs()], dim=2)


def coarse_spectrogram(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Average spectrograms over eight groups of bands and eight segments of time.

    Parameters
    ----------
    frames : Tensor of shape (n_cells, n_frames, n_bands)
        Spectrograms.
    n_frames : Tensor of shape (n_cells,)
        Number of frames of each cell.

    Returns
    -------
    target : Tensor of shape (n_cells, 64)
        Reconstruction target of audio networks trained without y.
    """
    bands = torch.nn.functional.adaptive_avg_pool1d(frames.float(), _COARSE)  # (n, t, 8)
    sums = torch.nn.functional.pad(bands.cumsum(dim=1), (0, 0, 1, 0))
    edges = torch.arange(_COARSE, device=frames.device) * n_frames[:, None]  # (n, 8)
    begin = edges // _COARSE
    end = (edges + n_frames[:, None] + _COARSE - 1) // _COARSE
    end = torch.maximum(end, begin + 1).clamp(max=frames.shape[1])
    index = [edge[..., None].expand(-1, -1, _COARSE) for edge in (begin, end)]
    total = sums.gather(1, index[1]) - sums.gather(1, index[0])
    means: Tensor = total / (end - begin).clamp(min=1)[..., None]
    return means.flatten(1)


class MFCC(Backbone):
    """Mel-frequency cepstral coefficients [1]_ with their first and second differences.

    Frames of 25 ms every 10 ms. The coefficients are the lowest ones of the cosine transform of
    the log-mel spectrum, which has a dynamic range of 80 dB. No weight is trained or downloaded.

    Parameters
    ----------
    pooling : {"statistics", "mean", "max"}, default="statistics"
        How frames are pooled: mean and standard deviation concatenated, which is twice as wide;
        the mean; or the maximum.
    n_coefficients : int, default=20
        Number of coefficients of a frame. The differences are as many each.
    n_mels : int, default=40
        Number of mel bands.
    rate : int, default=16000
        Samples per second of the cells.

    Attributes
    ----------
    width : int
        Length of the pooled vector and of a token. Tokens are the frames; with
        ``pooling="statistics"`` followed by their absolute deviations from the mean frame.

    References
    ----------
    .. [1] Davis, Mermelstein, "Comparison of parametric representations for monosyllabic word
       recognition in continuously spoken sentences", IEEE Transactions on Acoustics, Speech,
       and Signal Processing 28 (1980).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._spectrogram import MFCC
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
        """Compute the coefficients of audio clips.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Audio clips of any length.

        Returns
        -------
        tensors : dict of str to Tensor
            ``frames`` of shape (n_cells, n_frames, 3 * n_coefficients), zero-padded to the
            longest, and ``n_frames`` of shape (n_cells,).
        """
        return pad_frames([self._frames(torch.from_numpy(cell)) for cell in cells])

    def forward(self, *, frames: Tensor, n_frames: Tensor) -> Encoded:
        """Pool frames.

        Parameters
        ----------
        frames : Tensor of shape (n_cells, n_frames, n_values)
            Coefficients.
        n_frames : Tensor of shape (n_cells,), int64
            Number of frames of each cell.

        Returns
        -------
        encoded : Encoded
            One token per frame.
        """
        mask = frame_mask(n_frames, frames.shape[1])
        pooled = pool_tokens(frames, mask, self.pooling)
        if self.pooling == "statistics":
            frames = append_deviation(frames, pooled)
        return Encoded(frames, mask, pooled)

    def _frames(self, samples: Tensor) -> Tensor:
        n_fft, hop = self.rate // 40, self.rate // 100
        # Padded by reflection: silence at the ends would distort the statistics.
        samples = F.pad(samples, (0, max(0, n_fft // 2 + 1 - len(samples))))
        power = mel_spectrogram(
            samples, n_mels=self.n_mels, rate=self.rate, n_fft=n_fft, hop=hop, pad_mode="reflect"
        )
        cepstrum = dct_matrix(self.n_coefficients, self.n_mels) @ (_DECIBELS * log_mel(power))
        slopes = delta(cepstrum)
        return torch.cat([cepstrum, slopes, delta(slopes)]).T  # (n_frames, 3 * n_coefficients)


@lru_cache(maxsize=16)
def dct_matrix(n_coefficients: int, n_mels: int) -> Tensor:
    """Return rows of the orthonormal cosine transform (type II), lowest frequency first.

    Parameters
    ----------
    n_coefficients : int
        Number of rows.
    n_mels : int
        Number of columns.

    Returns
    -------
    matrix : Tensor of shape (n_coefficients, n_mels), float32
        A cached tensor, which must not be changed.
    """
    k = torch.arange(n_coefficients, dtype=torch.float64)[:, None]
    centers = torch.arange(n_mels, dtype=torch.float64)[None] + 0.5
    matrix: Tensor = torch.cos(torch.pi / n_mels * k * centers) * (2.0 / n_mels) ** 0.5
    matrix[0] /= 2.0**0.5
    return matrix.float()


def delta(frames: Tensor, *, reach: int = 2) -> Tensor:
    """Compute the slope of each coefficient over neighboring frames by least squares.

    Parameters
    ----------
    frames : Tensor of shape (n_coefficients, n_frames)
        Coefficients.
    reach : int, default=2
        Number of frames on either side; the first and the last frame are repeated at the ends.

    Returns
    -------
    slopes : Tensor of shape (n_coefficients, n_frames)
        Change per frame.
    """
    steps = torch.arange(-reach, reach + 1, dtype=frames.dtype, device=frames.device)
    weights = (steps / steps.square().sum()).view(1, 1, -1)
    padded = F.pad(frames.unsqueeze(1), (reach, reach), mode="replicate")
    return F.conv1d(padded, weights).squeeze(1)
