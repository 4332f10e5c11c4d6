"""Spectrograms on the mel scale, in torch: what every model of sound but the raw ones begins with.

One spectrogram serves all of them, so that no package for audio has to be there.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["delta", "dct_matrix", "log_mel", "mel_filters", "mel_spectrogram"]

# The scale of Slaney's Auditory Toolbox: linear up to 1 kHz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_MELS_PER_LOG = 27.0 / torch.log(torch.tensor(6.4, dtype=torch.float64)).item()
_LEAST_POWER = 1e-10


@lru_cache(maxsize=16)
def mel_filters(n_mels: int, n_fft: int, rate: int) -> Tensor:
    """Triangles on Slaney's mel scale, of equal area.

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
        Kept for the next caller: not to be written to.
    """
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    top = _to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    steps = torch.arange(n_mels + 2, dtype=torch.float64) / (n_mels + 1)
    corners = _to_hz(steps * top)  # (n_mels + 2,)
    low, centre, high = (c[:, None] for c in (corners[:-2], corners[1:-1], corners[2:]))
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return (triangles * 2.0 / (high - low)).float()


def mel_spectrogram(
    samples: Tensor,
    *,
    n_mels: int,
    rate: int = 16_000,
    n_fft: int = 400,
    hop: int = 160,
    pad_mode: str = "constant",
) -> Tensor:
    """Power of a sound in each mel band and frame.

    Parameters
    ----------
    samples : Tensor of shape (n_samples,) or (n_sounds, n_samples), float32
        The sound.
    n_mels : int
        Number of bands.
    rate : int, default=16000
        Samples per second.
    n_fft : int, default=400
        Samples of a frame; at 16 kHz a window of 25 ms.
    hop : int, default=160
        Samples from one frame to the next; at 16 kHz 10 ms.
    pad_mode : {"constant", "reflect"}, default="constant"
        What stands before the first and after the last sample: frames are centred.

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


def log_mel(power: Tensor, *, span: float = 8.0) -> Tensor:
    """Logarithm of a spectrogram, cut off at a distance below its loudest value.

    Parameters
    ----------
    power : Tensor of shape (..., n_mels, n_frames)
        What ``mel_spectrogram`` gave.
    span : float, default=8.0
        Powers of ten that are kept; 8 are 80 dB.

    Returns
    -------
    logarithm : Tensor of shape (..., n_mels, n_frames)
        Base 10. What lies under the noise of the recording is level, and so are the bands that
        a lower rate of the recording leaves empty.
    """
    logarithm = power.clamp(min=_LEAST_POWER).log10()
    return torch.maximum(logarithm, logarithm.amax(dim=(-2, -1), keepdim=True) - span)


@lru_cache(maxsize=16)
def dct_matrix(n_coefficients: int, n_mels: int) -> Tensor:
    """Rows of the orthonormal cosine transform (type II), lowest first.

    Parameters
    ----------
    n_coefficients : int
        Rows.
    n_mels : int
        Columns.

    Returns
    -------
    matrix : Tensor of shape (n_coefficients, n_mels), float32
        Kept for the next caller: not to be written to.
    """
    k = torch.arange(n_coefficients, dtype=torch.float64)[:, None]
    centres = torch.arange(n_mels, dtype=torch.float64)[None] + 0.5
    matrix = torch.cos(torch.pi / n_mels * k * centres) * (2.0 / n_mels) ** 0.5
    matrix[0] /= 2.0**0.5
    return matrix.float()


def delta(frames: Tensor, *, reach: int = 2) -> Tensor:
    """Slope of each coefficient over the frames around, by least squares.

    Parameters
    ----------
    frames : Tensor of shape (n_coefficients, n_frames)
        Coefficients.
    reach : int, default=2
        Frames on either side; beyond the ends stand the first and the last one.

    Returns
    -------
    slopes : Tensor of shape (n_coefficients, n_frames)
        Change per frame.
    """
    steps = torch.arange(-reach, reach + 1, dtype=frames.dtype, device=frames.device)
    weights = (steps / steps.square().sum()).view(1, 1, -1)
    padded = F.pad(frames.unsqueeze(1), (reach, reach), mode="replicate")
    return F.conv1d(padded, weights).squeeze(1)


def _to_mel(hz: Tensor) -> Tensor:
    above = _BREAK_HZ / _HZ_PER_MEL + torch.log(hz / _BREAK_HZ) * _MELS_PER_LOG
    return torch.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def _to_hz(mel: Tensor) -> Tensor:
    corner = _BREAK_HZ / _HZ_PER_MEL
    above = _BREAK_HZ * torch.exp((mel - corner) / _MELS_PER_LOG)
    return torch.where(mel < corner, mel * _HZ_PER_MEL, above)
