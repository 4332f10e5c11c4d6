"""Whisper and the GE2E voice encoder with the weights that packages of the index bring."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._pretrained._audio import Heard, PretrainedSound, resolved_pooling
from skmm.backbones._sounds import frame_mask
from skmm.backbones._spectrogram import log_mel, mel_spectrogram
from skmm.backbones._voice import VoiceEncoder
from skmm.backbones._whisper import WhisperEncoder

__all__ = ["VoiceRecipe", "WhisperRecipe", "whisper_input"]

_RATE = 16_000
_N_MELS = 80
_HOP = 160
_TOKENS_PER_SECOND = 50
_SAMPLES_PER_TOKEN = _RATE // _TOKENS_PER_SECOND


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
        """Resolve every ``"auto"``; see ``SoundRecipe.settings``.

        A sound is padded to ``max_length`` seconds, if these are fewer than the 30 to which the
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

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedSound:
        """Put a way to pool around the weights."""
        prepare = partial(whisper_input, seconds=settings["window"])
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedSound(tower, prepare, _hear_whisper, **options)


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
        with torch.device("meta"):  # without weights: it prepares sounds
            self.model = VoiceEncoder()

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``SoundRecipe.settings``."""
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

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedSound:
        """Put a way to pool around the weights."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedSound(tower, self.model.collate, _hear_voice, **options)


def whisper_input(cells: Sequence[np.ndarray], *, seconds: float = 30.0) -> dict[str, Tensor]:
    """Turn sounds into what Whisper was trained on.

    Parameters
    ----------
    cells : sequence of ndarray of shape (n_samples,), float32
        Sounds at 16 kHz, no longer than ``seconds``.
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
    # One by one: a batch of long sounds would need some hundred megabytes at once.
    mels = [
        (log_mel(mel_spectrogram(row, n_mels=_N_MELS, hop=_HOP, pad_mode="reflect")[:, :-1]) + 4)
        / 4
        for row in padded
    ]
    lengths = torch.tensor([len(cell) for cell in cells], dtype=torch.int64)
    return {"mel": torch.stack(mels), "lengths": lengths}


class _Ear(nn.Module):
    """The encoder of Whisper, with the output that a tower gives."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *, mel: Tensor) -> tuple[Tensor, None]:
        return self.model(mel), None


def _hear_whisper(tower: nn.Module, *, mel: Tensor, lengths: Tensor) -> Heard:
    tokens, _ = tower(mel=mel)
    return tokens, frame_mask(-(-lengths // _SAMPLES_PER_TOKEN), tokens.shape[1]), None


def _hear_voice(tower: nn.Module, **tensors: Tensor) -> Heard:
    tokens, mask = tower(**tensors)
    return tokens, mask, None


def _tensors(file: Path, part: str) -> dict[str, Tensor]:
    # Tensors alone, never objects. What the file holds is known: its sha256 is pinned.
    return torch.load(file, map_location="cpu", weights_only=True)[part]


def _filled(
    make: type[nn.Module], state: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # it is born with random weights
        model = make()
    model.load_state_dict(state, strict=True)
    return model.requires_grad_(False).to(device, dtype).eval()
