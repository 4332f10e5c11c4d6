"""Audio clips through any pretrained model of audio: one vector a frame and one an audio clip."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Encoded
from skmm.backbones._pretrained._base import FrozenBackbone
from skmm.backbones._pretrained._transformers import (
    Tower,
    load_tower,
    read_config,
    reading,
    tower_width,
    try_out,
)
from skmm.backbones._spectrogram import beside_deviation, frame_mask, pad_frames
from skmm.exceptions import CheckpointError

__all__ = ["PretrainedAudio", "AudioRecipe", "resolved_pooling"]

_POOLINGS = ("mean", "max", "statistics")
_FBANK_RATE = 100  # frames a second of the spectrogram of AST
_FBANK_LENGTH = 0.025  # seconds that a frame of it looks at

_TRIAL = (4_000, 3_000)  # samples of two audio clips

Heard = tuple[Tensor, Tensor, Tensor | None]  # tokens, mask, the model's own summary


class PretrainedAudio(FrozenBackbone):
    """A pretrained model of audio with its preprocessing and a way to pool.

    The weights may be shared with other instances, so they stay frozen, in eval mode and where
    they are.

    Parameters
    ----------
    tower : Module
        The model.
    prepare : callable
        Its preprocessing: a sequence of audio clips to tensors.
    hear : callable
        From ``tower`` and those tensors to tokens, their mask, and the model's own summary if
        it has one.
    n_leading : int, default=0
        How many tokens stand for the whole audio, in front of the others.
    frames_of : callable or None, default=None
        For a model that is told which frames there are: from the tower to the part that goes on
        from frames, a module that takes ``heard``, BoolTensor of shape (n_audio_clips, n_frames).
    pooling : {"mean", "max", "statistics", "pooler"}
        How the tokens of an audio clip become one vector; "pooler" is the model's own summary.
    normalize : bool
        Whether that vector gets length 1.
    width : int
        Length of the vectors, with "statistics" twice that of the model's.
    """

    def __init__(
        self,
        tower: nn.Module,
        prepare: Callable[[Sequence[np.ndarray]], dict[str, Tensor]],
        hear: Callable[..., Heard],
        *,
        pooling: str,
        normalize: bool,
        width: int,
        n_leading: int = 0,
        frames_of: Callable[[nn.Module], nn.Module] | None = None,
    ):
        super().__init__(tower, pooling=pooling, normalize=normalize, width=width)
        self.prepare = prepare
        self.hear = hear
        self.n_leading = n_leading
        self.frames_of = frames_of

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Turn audio clips into what the model was trained on."""
        return self.prepare(cells)

    def forward(self, **tensors: Tensor) -> Encoded:
        """Encode a batch.

        Parameters
        ----------
        **tensors : Tensor of shape (n_audio_clips, ...)
            What ``collate`` gave.

        Returns
        -------
        encoded : Encoded
            In float32, whatever the type of the weights. With statistics, a token's distance
            from the mean token stands behind it.
        """
        hear = self._go_on if "hidden" in tensors else self.hear
        tokens, mask, summary = hear(self.tower, **tensors)
        tokens, mask = tokens[:, self.n_leading :].float(), mask[:, self.n_leading :]
        pooled = self.pooled(tokens, mask, summary)
        if self.pooling == "statistics":
            tokens = beside_deviation(tokens, pooled)
        return Encoded(tokens, mask, self.scaled(pooled))

    def _go_on(self, tower: nn.Module, *, hidden: Tensor) -> Heard:
        """Hear from the middle of the model on."""
        mask = hidden[..., -1] > 0
        told = {} if self.frames_of is None else {"heard": mask}
        tokens, summary = tower(hidden=hidden[..., :-1], **told)
        return tokens, mask, summary

    def trial(self) -> list[np.ndarray]:
        """Give two audio clips of noise."""
        rng = np.random.default_rng(0)
        return [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in _TRIAL]

    def below(self, **tensors: Tensor) -> list[np.ndarray]:
        """Give the tokens of each audio clip, with 1 behind those that hear it and 0 behind others.

        Where the model is told which frames there are, the others are left out.
        """
        hidden, mask, _ = self.hear(self.tower, **tensors)
        arrays = torch.cat([hidden.float(), mask[..., None].float()], dim=2).cpu().numpy()
        if self.frames_of is None:
            return list(arrays)
        return [a[:n] for a, n in zip(arrays, mask.sum(1).tolist(), strict=True)]

    def remainder(self, tower: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
        """Leave out what makes frames of a wave, which costs as much as many blocks."""
        if self.frames_of is not None:
            return self.frames_of(tower), {}
        blank = self.collate(self.trial()[:1])
        del blank["lengths"]
        return tower, blank

    def above(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> dict[str, Tensor]:
        """Stack tokens, with zeros behind the shorter audio clips."""
        return {"hidden": pad_frames([torch.from_numpy(np.array(a)) for a in arrays])["frames"]}

    def trimmed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cut off what stands behind the longest audio, where the model would not look at it."""
        if self.frames_of is None:
            return tensors
        if "hidden" in tensors:
            hidden = tensors["hidden"]
            return {"hidden": hidden[:, : int((hidden[..., -1] > 0).sum(1).max())]}
        values, lengths = tensors["input_values"], tensors["lengths"]
        return {"input_values": values[:, : int(lengths.max())], "lengths": lengths}


class AudioRecipe:
    """All of an audio checkpoint but its weights: config, preprocessing, the way to pool.

    Parameters
    ----------
    folder : Path
        The checkpoint's.
    name : str
        Its name, for messages.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.folder = folder
        self.config = read_config(folder, name)
        self.kind = self.config.model_type
        if getattr(self.config, "add_adapter", False):
            raise CheckpointError(
                f"{name!r} has an adapter behind its encoder, which skmm cannot use. Take the"
                " checkpoint without it."
            )
        with reading(name, "feature extractor") as transformers:
            self.extractor = transformers.AutoFeatureExtractor.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        self.rate = int(self.extractor.sampling_rate)
        width = tower_width(self.config, "audio")
        if width is None:
            raise CheckpointError(
                f"The config of {name!r} ({self.kind}) does not say how long its vectors are, so"
                " it cannot be used. Use another checkpoint."
            )
        self.width: int = width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``.

        Parameters
        ----------
        pooling : {"auto", "mean", "max", "statistics", "pooler"}
            As the user gave it.
        normalize : "auto" or bool
            As the user gave it; audio clips are not normalized by themselves.
        max_length : float or None
            Seconds that go through the model at once; it may take less.

        Returns
        -------
        settings : dict
            Of JSON types: all that changes the output beside the files themselves. ``rate`` and
            ``window`` say what a cell has to be: samples per second, and seconds at most.
        """
        has_pooler = self.kind in ("audio-spectrogram-transformer", "clap")
        pooling = resolved_pooling(pooling, self.name, has_pooler)
        limits = [seconds for seconds in (max_length, self._limit()) if seconds is not None]
        return {
            "pooling": pooling,
            "normalize": False if normalize == "auto" else bool(normalize),
            "max_length": max_length,
            # That of AST computes its spectrogram by torchaudio, if that is there.
            "processor": type(self.extractor).__name__,
            "filters": hasattr(self.extractor, "mel_filters"),
            "width": self.width * (2 if pooling == "statistics" else 1),
            "rate": self.rate,
            "window": min(limits, default=None),
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> Tower:
        """Load the weights."""
        tower = load_tower(self.folder, self.name, self.config, "audio", device, dtype)
        sample = self._prepare([np.zeros(self.rate // 10, np.float32)])
        del sample["lengths"]
        return try_out(tower, self.name, sample, self.width)

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedAudio:
        """Put a way to pool around the weights."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        if self._is_raw():
            options["frames_of"] = _Frames
        elif self.kind == "audio-spectrogram-transformer":
            options["n_leading"] = 2
        return PretrainedAudio(tower, self._prepare, self._hear, **options)

    def _limit(self) -> float | None:
        """Seconds that the model takes at most."""
        if self.kind == "whisper":
            return float(self.extractor.chunk_length)
        if self.kind == "clap":
            return float(self.extractor.nb_max_samples) / self.rate
        if self.kind == "audio-spectrogram-transformer":
            return float(self.config.max_length - 1) / _FBANK_RATE + _FBANK_LENGTH
        return None

    def _prepare(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        least = self._least_samples()
        cells = [np.pad(cell, (0, max(0, least - len(cell)))) for cell in cells]
        lengths = torch.tensor([len(cell) for cell in cells], dtype=torch.int64)
        with reading(self.name, "feature extractor"):
            state = np.random.get_state() if self.kind == "clap" else None
            prepared = [
                self.extractor(cell, sampling_rate=self.rate, return_tensors="pt") for cell in cells
            ]
            if (
                state is not None
            ):  # that of CLAP draws numbers, for audio clips longer than a window
                np.random.set_state(state)
                for part in prepared:
                    part["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
        if not self._is_raw():
            return {
                **{key: torch.cat([part[key] for part in prepared]) for key in prepared[0]},
                "lengths": lengths,
            }
        values = [part["input_values"][0] for part in prepared]
        return {
            "input_values": nn.utils.rnn.pad_sequence(values, batch_first=True),
            "lengths": lengths,
        }

    def _hear(self, tower: nn.Module, *, lengths: Tensor, **tensors: Tensor) -> Heard:
        if self._is_raw():
            tokens = self._hear_raw(tower, tensors["input_values"], lengths)
            return tokens, frame_mask(self._n_tokens(lengths), tokens.shape[1]), None
        tokens, summary = tower(**tensors)
        if self.kind == "whisper":
            a_token = 2 * self.extractor.hop_length  # samples
            return tokens, frame_mask(-(-lengths // a_token), tokens.shape[1]), summary
        if self.kind == "clap":  # a short audio is repeated, so every patch hears it
            return tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool), summary
        # Behind two that stand for the whole audio.
        patches = self._patches_that_hear(lengths, tokens.shape[1] - 2)
        return tokens, nn.functional.pad(patches, (2, 0), value=True), summary

    # --- models of the raw wave -----------------------------------------------------------

    def _is_raw(self) -> bool:
        return hasattr(self.config, "conv_kernel")

    def _least_samples(self) -> int:
        """Samples that give one token, so that the shortest audio has one."""
        if not self._is_raw():
            return math.ceil(_FBANK_LENGTH * self.rate)
        n = 1
        for kernel, stride in zip(
            reversed(self.config.conv_kernel), reversed(self.config.conv_stride), strict=True
        ):
            n = (n - 1) * stride + kernel
        return n

    def _n_tokens(self, lengths: Tensor) -> Tensor:
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _hear_raw(self, tower: nn.Module, values: Tensor, lengths: Tensor) -> Tensor:
        if self._takes_mask():
            mask = frame_mask(lengths, values.shape[1]).long()
            tokens: Tensor = tower(input_values=values, attention_mask=mask)[0]
            return tokens
        # Their first layer normalizes over time, padding included: each length goes by itself.
        tokens = values.new_zeros(len(values), int(self._n_tokens(lengths).max()), self.width)
        for length in sorted(set(lengths.tolist())):
            rows = lengths == length
            heard = tower(input_values=values[rows, :length])[0].to(tokens.dtype)
            tokens[rows, : heard.shape[1]] = heard
        return tokens

    def _takes_mask(self) -> bool:
        return bool(self.extractor.return_attention_mask) and (
            getattr(self.config, "feat_extract_norm", "layer") == "layer"
        )

    # --- models of images of a spectrogram ------------------------------------------------

    def _patches_that_hear(self, lengths: Tensor, n_tokens: int) -> Tensor:
        """Mask of the patches of AST that are not all padding, band by band."""
        config = self.config
        n_steps = (config.max_length - config.patch_size) // config.time_stride + 1
        n_frames = (lengths - _FBANK_LENGTH * self.rate) // (self.rate / _FBANK_RATE) + 1
        begins = torch.arange(n_steps, device=lengths.device) * config.time_stride
        hearing: Tensor = begins < n_frames.clamp(min=1)[:, None]  # (n, n_steps)
        return hearing.repeat(1, n_tokens // n_steps)


class _Frames(nn.Module):
    """What a model of the raw wave does with frames, as against how it makes them.

    Parameters
    ----------
    tower : Tower
        The model; it is changed.
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        model: Any = tower.model
        self.encoder = model.encoder
        self.width = int(model.config.hidden_size)
        self.encoder.pos_conv_embed = nn.Identity()  # its work is in the frames already

    def forward(self, *, heard: Tensor) -> tuple[Tensor, None]:
        """Run the blocks; what goes into the first is put there by ``Upper``.

        Parameters
        ----------
        heard : BoolTensor of shape (n_audio_clips, n_frames)
            Which frames there are.
        """
        blank = torch.zeros(*heard.shape, self.width, device=heard.device)
        return self.encoder(blank, attention_mask=heard)[0], None


def resolved_pooling(pooling: str, name: str, has_pooler: bool) -> str:
    """Resolve ``"auto"``, and refuse what a model of audio does not have."""
    if pooling == "auto":
        return "pooler" if has_pooler else "mean"
    allowed = (*_POOLINGS, "pooler") if has_pooler else _POOLINGS
    if pooling not in allowed:
        raise ValueError(
            f"pooling={pooling!r} does not suit {name!r}. Use 'auto',"
            f" {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}."
        )
    return pooling
