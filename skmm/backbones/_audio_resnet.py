"""A small residual network over log-mel spectrograms, trained from scratch."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded, pool_tokens
from skmm.backbones._spectrogram import (
    coarse_spectrogram,
    frame_mask,
    log_mel,
    mel_spectrogram,
    pad_frames,
)

__all__ = ["AudioCNN"]

_N_STAGES = 4
_SHRINK = 2**_N_STAGES
_SPAN = 8.0  # powers of ten between the loudest value and the floor
_TOP = 64  # values are quantized from -64 to 64, so that a second takes 6 kB


class AudioCNN(Backbone):
    """Small residual network over log-mel spectrograms, trained from scratch.

    A residual network [1]_ of four stages over a spectrogram of 100 frames per second, with a
    level relative to its loudest value. Group normalization over the frames of each clip replaces
    batch normalization, so that the features of a clip depend neither on its batch nor on
    padding. In training, a random interval of frames and one of bands are masked in each clip
    [2]_. Weights are sampled from torch's global generator.

    Parameters
    ----------
    n_components : int, default=128
        Length of the tokens and of the pooled vector.
    n_mels : int, default=64
        Number of mel bands, a multiple of 16.
    rate : int, default=16000
        Samples per second of the cells.
    hidden_share : float, default=0.15
        Maximum share of the frames, and of the bands, masked in training, in [0, 1).

    Attributes
    ----------
    width : int
        ``n_components``. A token covers 160 ms; the pooled vector is the sum of the mean and the
        maximum of the tokens [3]_.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    .. [2] Park et al., "SpecAugment: a simple data augmentation method for automatic speech
       recognition", Interspeech 2019.
    .. [3] Kong et al., "PANNs: large-scale pretrained audio neural networks for audio pattern
       recognition", IEEE/ACM Transactions on Audio, Speech, and Language Processing 28 (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._audio_resnet import AudioCNN
    >>> model = AudioCNN(32)
    >>> tone = np.sin(np.arange(16000) * 0.1).astype(np.float32)  # a second
    >>> encoded = model(**model.collate([tone, tone[:4000]]))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 7, 32]), torch.Size([2, 32]))
    >>> encoded.mask.sum(dim=1)
    tensor([7, 2])
    """

    def __init__(
        self,
        n_components: int = 128,
        *,
        n_mels: int = 64,
        rate: int = 16_000,
        hidden_share: float = 0.15,
    ):
        super().__init__()
        if n_components < 1 or n_mels < 1 or n_mels % _SHRINK:
            raise ValueError(
                f"{type(self).__name__}: n_components must be positive and n_mels a multiple of"
                f" {_SHRINK}, got {n_components} and {n_mels}."
            )
        self.width = n_components
        self.n_mels = n_mels
        self.rate = rate
        self.hidden_share = hidden_share
        # An eighth, a quarter, a half, all of n_components; the first ones in steps of 8.
        channels = [
            8 * max(1, round(n_components / 2**k / 8)) for k in range(_N_STAGES - 1, 0, -1)
        ] + [n_components]
        self.stem = nn.Conv2d(1, channels[0], 3, stride=2, padding=1, bias=False)
        self.stem_norm = _MaskedNorm(channels[0])
        self.blocks = nn.ModuleList(
            _MaskedResidual(n_in, n_out, stride=2 if stage else 1)
            for stage, (n_in, n_out) in enumerate(
                zip([channels[0], *channels], channels, strict=False)
            )
        )
        # A weighted sum over the bands, not their mean: the pitch of a pattern is informative.
        self.across_bands = nn.Conv2d(n_components, n_components, (n_mels // _SHRINK, 1))

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Compute spectrograms.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Audio clips of any length.

        Returns
        -------
        tensors : dict of str to Tensor
            ``frames``, int8 of shape (n_cells, n_frames, n_mels) in steps of 0.6 dB, and
            ``n_frames`` of shape (n_cells,).
        """
        return pad_frames([self._spectrogram(torch.from_numpy(cell)) for cell in cells])

    def forward(self, *, frames: Tensor, n_frames: Tensor) -> Encoded:
        """Encode spectrograms.

        Parameters
        ----------
        frames : Tensor of shape (n_cells, n_frames, n_mels), int8
            Output of ``collate``.
        n_frames : Tensor of shape (n_cells,), int64
            Number of frames of each cell.

        Returns
        -------
        encoded : Encoded
            One token per 16 frames.
        """
        longest = max(int(n_frames.max()), 1) if len(n_frames) else 1
        n_frames = n_frames.clamp(min=1)
        frames = frames[:, :longest]
        x = frames.to(self.stem.weight.dtype).transpose(1, 2)[:, None] / _TOP  # (n, 1, mels, t)
        mask = frame_mask(n_frames, longest)
        if self.training and self.hidden_share > 0:
            x = self._hide(x, n_frames)
        x = x * mask[:, None, None]
        x, mask = self.stem(x), mask[:, ::2]
        x = F.relu(self.stem_norm(x, mask))
        for block in self.blocks:
            x, mask = block(x, mask)
        tokens = self.across_bands(x).squeeze(2).transpose(1, 2)  # (n, n_tokens, n_components)
        pooled = pool_tokens(tokens, mask, "mean") + pool_tokens(tokens, mask, "max")
        return Encoded(tokens, mask, pooled)

    def reconstruction_target(self, *, frames: Tensor, n_frames: Tensor) -> Tensor:
        """Return coarse spectrograms.

        Parameters
        ----------
        frames, n_frames : Tensor
            Output of ``collate``.

        Returns
        -------
        target : Tensor of shape (n_cells, 64)
            Means of 8 groups of bands in 8 segments of time, from -1 to 1.
        """
        return coarse_spectrogram(frames / _TOP, n_frames)

    def _spectrogram(self, samples: Tensor) -> Tensor:
        power = mel_spectrogram(
            samples, n_mels=self.n_mels, rate=self.rate, n_fft=self.rate // 25, hop=self.rate // 100
        )
        level = log_mel(power, span=_SPAN)
        level = 1 + (level - level.amax()) * 2 / _SPAN  # from -1 to 1
        return (level * _TOP).round().to(torch.int8).T.contiguous()

    def _hide(self, x: Tensor, n_frames: Tensor) -> Tensor:
        """Set a random interval of frames and one of bands to zero in each clip."""
        for axis, lengths in ((3, n_frames), (2, torch.full_like(n_frames, self.n_mels))):
            places = torch.arange(x.shape[axis], device=x.device)
            share = torch.rand(len(x), device=x.device) * self.hidden_share
            begin = torch.rand(len(x), device=x.device) * (1 - share) * lengths
            after = begin + share * lengths
            hidden = (places >= begin[:, None]) & (places < after[:, None])
            x = x.masked_fill(hidden[:, None, None] if axis == 3 else hidden[:, None, :, None], 0.0)
        return x


class _MaskedResidual(nn.Module):
    """Two convolutions with a shortcut; frames of padding stay zero."""

    def __init__(self, n_in: int, n_out: int, *, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _MaskedNorm(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = _MaskedNorm(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask[:, :: self.stride]
        inner = F.relu(self.norm1(self.conv1(x), mask))
        return F.relu(self.norm2(self.conv2(inner), mask) + self.shortcut(x)), mask


class _MaskedNorm(nn.Module):
    """Group normalization over the frames of each clip; frames of padding become zero."""

    def __init__(self, n_channels: int):
        super().__init__()
        # Groups of at least eight channels: a clip may have a single frame.
        self.n_groups = math.gcd(n_channels, max(1, n_channels // 8))
        self.weight = nn.Parameter(torch.ones(n_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(n_channels, 1, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        is_frame = mask[:, None, None, :].to(x.dtype)  # (n, 1, 1, t)
        x = x * is_frame
        n_each = x.shape[1] // self.n_groups
        # (n, groups, channels, bands, t)
        grouped = x.reshape(len(x), self.n_groups, n_each, *x.shape[2:])
        count = mask.sum(dim=1)[:, None] * (grouped[0, 0, ..., 0].numel())
        mean = grouped.sum(dim=(2, 3, 4)) / count  # (n, groups)
        variance = grouped.square().sum(dim=(2, 3, 4)) / count - mean.square()
        scale = torch.rsqrt(variance.clamp(min=0.0) + 1e-5)
        mean, scale = (v.repeat_interleave(n_each, dim=1)[..., None, None] for v in (mean, scale))
        scale = scale * self.weight
        return torch.addcmul(self.bias - mean * scale, x, scale) * is_frame
