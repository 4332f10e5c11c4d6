"""Whisper and the GE2E voice encoder with the weights that packages of the index bring.

Whisper's encoder is a transformer that was trained to write down 680,000 hours of speech; the
voice encoder gives one vector that tells who is speaking.
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

from skmm.backbones._pretrained._audio_model import Heard, PretrainedAudio, resolved_pooling
from skmm.backbones._spectrogram import frame_mask, log_mel, mel_spectrogram

__all__ = [
    "VoiceEncoder",
    "VoiceRecipe",
    "WhisperEncoder",
    "WhisperRecipe",
    "whisper_input",
]

_RATE = 16_000
_HOP = 160  # samples from one frame of a spectrogram to the next
# Of Whisper.
_WHISPER_MELS = 80
_TOKENS_PER_SECOND = 50
_SAMPLES_PER_TOKEN = _RATE // _TOKENS_PER_SECOND
# Of the voice encoder.
_VOICE_MELS = 40
_VOICE_WIDTH = 256
_PART = 160  # frames that the network hears at once
_STEP = 77  # frames from one part to the next: 1.3 parts a second
_LEAST_SHARE = 0.75  # of the last part that has to be audio
_TARGET_LEVEL = -30.0  # dB below full scale; what is louder stays as it is


class WhisperRecipe:
    """All of the encoder of Whisper tiny.en but its weights.

    Parameters
    ----------
    file : Path
        Its weights, as OpenAI published them.
    name : str
        Its name, for messages.
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

        An audio clip is padded to ``max_length`` seconds, if these are fewer than the 30 to which the
        model was trained.
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
        """Load the weights of the encoder; the decoder's stay in the file."""
        prefix = "encoder."
        state = {
            key.removeprefix(prefix): value
            for key, value in _tensors(self.file, "model_state_dict").items()
            if key.startswith(prefix)
        }
        return _Ear(_filled(WhisperEncoder, state, device, dtype)).eval()

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedAudio:
        """Put a way to pool around the weights."""
        prepare = partial(whisper_input, seconds=settings["window"])
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedAudio(tower, prepare, _hear_whisper, **options)


def whisper_input(cells: Sequence[np.ndarray], *, seconds: float = 30.0) -> dict[str, Tensor]:
    """Turn audio clips into what Whisper was trained on.

    Parameters
    ----------
    cells : sequence of ndarray of shape (n_samples,), float32
        Audio clips at 16 kHz, no longer than ``seconds``.
    seconds : float, default=30.0
        Length to which they are padded with silence.

    Returns
    -------
    tensors : dict of str to Tensor
        ``mel`` of shape (n_cells, 80, n_frames), 100 frames a second, and ``lengths``, the
        samples of each cell.
    """
    n_samples = math.ceil(seconds * _TOKENS_PER_SECOND) * _SAMPLES_PER_TOKEN
    padded = torch.zeros(len(cells), n_samples)
    for row, cell in zip(padded, cells, strict=True):
        row[: len(cell)] = torch.from_numpy(cell)
    # One by one: a batch of long audio clips would need some hundred megabytes at once.
    powers = (
        mel_spectrogram(row, n_mels=_WHISPER_MELS, hop=_HOP, pad_mode="reflect") for row in padded
    )
    mels = [(log_mel(power[:, :-1]) + 4) / 4 for power in powers]
    lengths = torch.tensor([len(cell) for cell in cells], dtype=torch.int64)
    return {"mel": torch.stack(mels), "lengths": lengths}


def _hear_whisper(tower: nn.Module, *, mel: Tensor, lengths: Tensor) -> Heard:
    tokens, _ = tower(mel=mel)
    return tokens, frame_mask(-(-lengths // _SAMPLES_PER_TOKEN), tokens.shape[1]), None


class _Ear(nn.Module):
    """The encoder of Whisper, with the output that a tower gives."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *, mel: Tensor) -> tuple[Tensor, None]:
        return self.model(mel), None


class WhisperEncoder(nn.Module):
    """Encoder of Whisper [1]_, from log-mel frames to one vector every 20 ms.

    Names and shapes of the weights are those of the published checkpoints. A stretch shorter
    than the 30 s of the training has the positions of its beginning.

    Parameters
    ----------
    n_mels : int, default=80
        Mel bands.
    width : int, default=384
        Length of a vector; the defaults are those of the size "tiny".
    n_heads : int, default=6
        Heads of each attention.
    n_layers : int, default=4
        Layers of the transformer.
    n_positions : int, default=1500
        Vectors that a stretch has at most.

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
        mel : Tensor of shape (n_audio_clips, n_mels, n_frames)
            Log-mel frames, 100 a second; at most twice as many as there are positions.

        Returns
        -------
        vectors : Tensor of shape (n_audio_clips, n_frames / 2, width)
            One for every second frame.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positional_embedding[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        vectors: Tensor = self.ln_post(x)
        return vectors


class _WhisperBlock(nn.Module):
    """Attention and two dense layers, each normalized before and added after."""

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
    """Attention over all vectors of the stretch; keys have no bias."""

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
    """All of the GE2E voice encoder but its weights.

    Parameters
    ----------
    file : Path
        Its weights.
    name : str
        Its name, for messages.
    """

    def __init__(self, file: Path, name: str):
        self.file = file
        self.name = name
        with torch.device("meta"):  # without weights: it prepares audio clips
            self.model = VoiceEncoder()

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``AudioRecipe.settings``."""
        pooling = resolved_pooling(pooling, self.name, has_pooler=False)
        return {
            "pooling": pooling,
            # As published: the mean of the parts, at length one.
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
        """Put a way to pool around the weights."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedAudio(tower, self.model.collate, _hear_voice, **options)


class VoiceEncoder(nn.Module):
    """Three recurrent layers over mel frames, trained to tell speakers apart [1]_.

    An audio clip is cut into parts of 1.6 s that overlap by half; each gives a vector of length one.
    Names and shapes of the weights are those of the published checkpoint.

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
        # Of the loss; there because the checkpoint has them.
        self.similarity_weight = nn.Parameter(torch.zeros(1))
        self.similarity_bias = nn.Parameter(torch.zeros(1))

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Cut audio clips into parts.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_samples,), float32
            Audio clips at 16 kHz.

        Returns
        -------
        tensors : dict of str to Tensor
            ``parts`` of shape (n_cells, n_parts, 160, 40), zero where an audio clip has fewer, and
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
        tokens = vectors.new_zeros(*mask.shape, _VOICE_WIDTH)
        tokens[mask] = vectors
        return tokens, mask


def _parts(samples: np.ndarray) -> Tensor:
    """Mel frames of the parts of an audio clip, (n_parts, 160, 40)."""
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
        torch.from_numpy(padded),
        n_mels=_VOICE_MELS,
        rate=_RATE,
        hop=_HOP,
        pad_mode="reflect",
    )
    return torch.stack([power[:, begin : begin + _PART].T for begin in begins])


def _hear_voice(tower: nn.Module, **tensors: Tensor) -> Heard:
    tokens, mask = tower(**tensors)
    return tokens, mask, None


def _tensors(file: Path, part: str) -> dict[str, Tensor]:
    # Tensors alone, never objects. What the file holds is known: its sha256 is pinned.
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)[part]
    return tensors


def _filled(
    make: type[nn.Module], state: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # it is born with random weights
        model = make()
    model.load_state_dict(state, strict=True)
    return model.requires_grad_(False).to(device, dtype).eval()
