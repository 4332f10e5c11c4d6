"""Whisper and the GE2E voice encoder with weights from Python packages.

The encoder of Whisper is a transformer trained to transcribe 680,000 hours of speech. The voice
encoder is a recurrent network trained to verify speakers.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmm.backbones._pretrained._audio_model import AudioOutput, PretrainedAudio, resolved_pooling
from skmm.backbones._spectrogram import frame_mask, log_mel, mel_spectrogram

__all__ = [
    "VoiceEncoder",
    "VoiceRecipe",
    "WhisperEncoder",
    "WhisperRecipe",
    "whisper_input",
]

_RATE = 16_000
_HOP = 160  # samples between the starts of two frames of a spectrogram
# Of Whisper.
_WHISPER_MELS = 80
_TOKENS_PER_SECOND = 50
_SAMPLES_PER_TOKEN = _RATE // _TOKENS_PER_SECOND
# Of the voice encoder.
_VOICE_MELS = 40
_VOICE_WIDTH = 256
_PART = 160  # frames of a part
_STEP = 77  # frames between the starts of two parts: 1.3 parts per second
_LEAST_SHARE = 0.75  # minimum share of the last part that is not padding
_TARGET_LEVEL = -30.0  # dB below full scale; quieter clips are amplified


class WhisperRecipe:
    """The encoder of Whisper tiny.en without its weights.

    Parameters
    ----------
    file : Path
        File with the weights published by OpenAI.
    name : str
        Name of the checkpoint, for errors.
    """

    longest = 30.0  # seconds

    def __init__(self, file: Path, name: str):
        self.file = file
        self.name = name
        with torch.device("meta"):
            self.width = WhisperEncoder().ln_post.normalized_shape[0]

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``AudioRecipe.settings``.

        Clips are padded to ``max_length`` seconds, at most 30, the duration of the training.
        """
        pooling = resolved_pooling(pooling, self.name, has_pooler=False)
        return {
            "pooling": pooling,
            "normalize": False if normalize == "auto" else bool(normalize),
            "max_length": max_length,
            "processor": "whisper_input",
            "width": self.width * (2 if pooling == "statistics" else 1),
            "rate": _RATE,
            "window": min(self.longest, max_length or self.longest),
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the weights of the encoder, without those of the decoder."""
        prefix = "encoder."
        state = {
            key.removeprefix(prefix): value
            for key, value in _tensors(self.file, "model_state_dict").items()
            if key.startswith(prefix)
        }
        return _WhisperTower(_filled(WhisperEncoder, state, device, dtype)).eval()

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedAudio:
        """Return a backbone with the weights of a tower."""
        prepare = partial(whisper_input, seconds=settings["window"])
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedAudio(tower, prepare, _encode_whisper, **options)


def whisper_input(cells: Sequence[np.ndarray], *, seconds: float = 30.0) -> dict[str, Tensor]:
    """Compute the padded log-mel spectrograms that Whisper takes.

    Parameters
    ----------
    cells : sequence of ndarray of shape (n_samples,), float32
        Audio clips at 16 kHz, no longer than ``seconds``.
    seconds : float, default=30.0
        Duration to which clips are padded with silence.

    Returns
    -------
    tensors : dict of str to Tensor
        ``mel`` of shape (n_cells, 80, n_frames), 100 frames per second, and ``lengths``, the
        number of samples of each cell.
    """
    n_samples = math.ceil(seconds * _TOKENS_PER_SECOND) * _SAMPLES_PER_TOKEN
    padded = torch.zeros(len(cells), n_samples)
    for row, cell in zip(padded, cells, strict=True):
        row[: len(cell)] = torch.from_numpy(cell)
    # Clip by clip: a batch of long clips would need hundreds of megabytes.
    powers = (
        mel_spectrogram(row, n_mels=_WHISPER_MELS, hop=_HOP, pad_mode="reflect") for row in padded
    )
    mels = [(log_mel(power[:, :-1]) + 4) / 4 for power in powers]
    lengths = torch.tensor([len(cell) for cell in cells], dtype=torch.int64)
    return {"mel": torch.stack(mels), "lengths": lengths}


def _encode_whisper(tower: nn.Module, *, mel: Tensor, lengths: Tensor) -> AudioOutput:
    tokens, _ = tower(mel=mel)
    return tokens, frame_mask(-(-lengths // _SAMPLES_PER_TOKEN), tokens.shape[1]), None


class _WhisperTower(nn.Module):
    """The encoder of Whisper with the output of a tower."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *, mel: Tensor) -> tuple[Tensor, None]:
        return self.model(mel), None


class WhisperEncoder(nn.Module):
    """Encoder of Whisper [1]_, from log-mel frames to one vector every 20 ms.

    Names and shapes of the weights are those of the published checkpoints. Windows shorter than
    the 30 s of the training use the first positions.

    Parameters
    ----------
    n_mels : int, default=80
        Number of mel bands.
    width : int, default=384
        Length of a vector. The defaults are those of the size "tiny".
    n_heads : int, default=6
        Number of attention heads.
    n_layers : int, default=4
        Number of transformer layers.
    n_positions : int, default=1500
        Maximum number of vectors of a window.

    References
    ----------
    .. [1] Radford et al., "Robust speech recognition via large-scale weak supervision",
       ICML 2023.
    """

    positional_embedding: Tensor

    def __init__(
        self,
        *,
        n_mels: int = 80,
        width: int = 384,
        n_heads: int = 6,
        n_layers: int = 4,
        n_positions: int = 1500,
    ):
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.zeros(n_positions, width))
        self.blocks = nn.ModuleList(_WhisperBlock(width, n_heads) for _ in range(n_layers))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: Tensor) -> Tensor:
        """Encode spectrograms.

        Parameters
        ----------
        mel : Tensor of shape (n_cells, n_mels, n_frames)
            Log-mel frames, 100 per second, at most ``2 * n_positions``.

        Returns
        -------
        vectors : Tensor of shape (n_cells, n_frames / 2, width)
            One vector per two frames.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positional_embedding[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        vectors: Tensor = self.ln_post(x)
        return vectors


class _WhisperBlock(nn.Module):
    """Attention and two dense layers with pre-normalization and residual connections."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attn = _WhisperAttention(width, n_heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x))
        x = x + self.mlp(self.mlp_ln(x))
        return x


class _WhisperAttention(nn.Module):
    """Self-attention whose keys have no bias."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = [
            part(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        attended: Tensor = self.out(
            F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        )
        return attended


class VoiceRecipe:
    """The GE2E voice encoder without its weights.

    Parameters
    ----------
    file : Path
        File with the weights.
    name : str
        Name of the checkpoint, for errors.
    """

    def __init__(self, file: Path, name: str):
        self.file = file
        self.name = name
        with torch.device("meta"):  # without weights: its collate is used
            self.model = VoiceEncoder()

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``AudioRecipe.settings``."""
        pooling = resolved_pooling(pooling, self.name, has_pooler=False)
        return {
            "pooling": pooling,
            # As published: the mean of the parts, scaled to length 1.
            "normalize": True if normalize == "auto" else bool(normalize),
            "max_length": max_length,
            "processor": "VoiceEncoder",
            "width": self.model.width * (2 if pooling == "statistics" else 1),
            "rate": _RATE,
            "window": max_length,
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the weights."""
        return _filled(VoiceEncoder, _tensors(self.file, "model_state"), device, dtype)

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedAudio:
        """Return a backbone with the weights of a tower."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedAudio(tower, self.model.collate, _encode_voice, **options)


class VoiceEncoder(nn.Module):
    """Three LSTM layers over mel frames, trained to verify speakers [1]_.

    A clip is split into parts of 1.6 s that overlap by about half. Each part has a vector of
    length 1. Names and shapes of the weights are those of the published checkpoint.

    References
    ----------
    .. [1] Wan, Wang, Papir, Lopez Moreno, "Generalized end-to-end loss for speaker
       verification", ICASSP 2018.
    """

    width = _VOICE_WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_VOICE_MELS, _VOICE_WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(_VOICE_WIDTH, _VOICE_WIDTH)
        # Weights of the loss, which are unused: the checkpoint has them.
        self.similarity_weight = nn.Parameter(torch.zeros(1))
        self.similarity_bias = nn.Parameter(torch.zeros(1))

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Split audio clips into parts.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Audio clips at 16 kHz.

        Returns
        -------
        tensors : dict of str to Tensor
            ``parts`` of shape (n_cells, n_parts, 160, 40), zero-padded to the most parts, and
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
            Number of parts of each cell.

        Returns
        -------
        tokens : Tensor of shape (n_cells, n_parts, 256)
            Vectors of length 1 with nonnegative entries.
        mask : BoolTensor of shape (n_cells, n_parts)
            True for parts of the cell, False for padding.
        """
        mask = frame_mask(n_parts, parts.shape[1])
        _, (hidden, _) = self.lstm(parts[mask])
        vectors = nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)
        tokens = vectors.new_zeros(*mask.shape, _VOICE_WIDTH)
        tokens[mask] = vectors
        return tokens, mask


def _parts(samples: np.ndarray) -> Tensor:
    """Return the mel frames of the parts of a clip, (n_parts, 160, 40)."""
    loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if loudness > 0:
        gain = 10 ** (_TARGET_LEVEL / 20) / loudness
        samples = samples * np.float32(max(gain, 1.0))
    n_frames = -(-(len(samples) + 1) // _HOP)
    begins = list(range(0, max(1, n_frames - _PART + _STEP + 1), _STEP))
    share = (len(samples) - begins[-1] * _HOP) / (_PART * _HOP)
    if share < _LEAST_SHARE and len(begins) > 1:
        begins.pop()
    padded = np.zeros(max(len(samples), (begins[-1] + _PART) * _HOP), np.float32)
    padded[: len(samples)] = samples
    power = mel_spectrogram(
        torch.from_numpy(padded),
        n_mels=_VOICE_MELS,
        rate=_RATE,
        hop=_HOP,
        pad_mode="reflect",
    )
    return torch.stack([power[:, begin : begin + _PART].T for begin in begins])


def _encode_voice(tower: nn.Module, **tensors: Tensor) -> AudioOutput:
    tokens, mask = tower(**tensors)
    return tokens, mask, None


def _tensors(file: Path, part: str) -> dict[str, Tensor]:
    # Only tensors are read, never objects; the sha256 of the file is pinned.
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)[part]
    return tensors


def _filled(
    make: type[nn.Module], state: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # the constructor samples weights
        model = make()
    model.load_state_dict(state, strict=True)
    return model.requires_grad_(False).to(device, dtype).eval()
