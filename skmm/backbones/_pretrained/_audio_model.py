"""Pretrained models of audio: one vector per frame and one per clip."""

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
from skmm.backbones._spectrogram import append_deviation, frame_mask, pad_frames
from skmm.exceptions import CheckpointError

__all__ = ["PretrainedAudio", "AudioRecipe", "resolved_pooling"]

_POOLINGS = ("mean", "max", "statistics")
_FBANK_RATE = 100  # frames per second of the spectrogram of AST
_FBANK_LENGTH = 0.025  # seconds of one frame

_TRIAL = (4_000, 3_000)  # samples of two audio clips

AudioOutput = tuple[Tensor, Tensor, Tensor | None]  # tokens, mask, the model's own pooled vector


class PretrainedAudio(FrozenBackbone):
    """A pretrained model of audio with its preprocessing and a pooling.

    The weights may be shared with other instances, so they stay frozen, in eval mode and on their
    device.

    Parameters
    ----------
    tower : Module
        The model.
    prepare : callable
        Preprocessing: a sequence of audio clips to tensors.
    encode : callable
        Function from ``tower`` and these tensors to tokens, their mask, and the model's own
        pooled vector or None.
    n_leading : int, default=0
        Number of tokens for the whole clip that precede the others.
    frames_of : callable or None, default=None
        For models with a mask of frames: function from the tower to its part after the
        convolutions, a module that takes ``mask``, BoolTensor of shape (n_cells, n_frames).
    pooling : {"mean", "max", "statistics", "pooler"}
        How the tokens of a clip are pooled; "pooler" is the model's own pooled vector.
    normalize : bool
        Whether pooled vectors are scaled to length 1.
    width : int
        Length of the vectors, twice that of the model for "statistics".
    """

    def __init__(
        self,
        tower: nn.Module,
        prepare: Callable[[Sequence[np.ndarray]], dict[str, Tensor]],
        encode: Callable[..., AudioOutput],
        *,
        pooling: str,
        normalize: bool,
        width: int,
        n_leading: int = 0,
        frames_of: Callable[[nn.Module], nn.Module] | None = None,
    ):
        super().__init__(tower, pooling=pooling, normalize=normalize, width=width)
        self.prepare = prepare
        self.encode = encode
        self.n_leading = n_leading
        self.frames_of = frames_of

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Preprocess audio clips as in the training of the model."""
        return self.prepare(cells)

    def forward(self, **tensors: Tensor) -> Encoded:
        """Encode a batch.

        Parameters
        ----------
        **tensors : Tensor of shape (n_cells, ...)
            Output of ``collate``.

        Returns
        -------
        encoded : Encoded
            Tokens and pooled vectors in float32, for weights of any type. With statistics, each
            token is followed by its absolute deviation from the mean token.
        """
        encode = self._encode_hidden if "hidden" in tensors else self.encode
        tokens, mask, summary = encode(self.tower, **tensors)
        tokens, mask = tokens[:, self.n_leading :].float(), mask[:, self.n_leading :]
        pooled = self.pooled(tokens, mask, summary)
        if self.pooling == "statistics":
            tokens = append_deviation(tokens, pooled)
        return Encoded(tokens, mask, self.scaled(pooled))

    def _encode_hidden(self, tower: nn.Module, *, hidden: Tensor) -> AudioOutput:
        """Run the head of the model on outputs of the trunk, whose last column is the mask."""
        mask = hidden[..., -1] > 0
        masks = {} if self.frames_of is None else {"mask": mask}
        tokens, summary = tower(hidden=hidden[..., :-1], **masks)
        return tokens, mask, summary

    def trial_cells(self) -> list[np.ndarray]:
        """Return two audio clips of noise."""
        rng = np.random.default_rng(0)
        return [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in _TRIAL]

    def trunk_arrays(self, **tensors: Tensor) -> list[np.ndarray]:
        """Return the tokens of each clip with their mask as a last column.

        Masked tokens are left out if the model takes a mask of frames.
        """
        hidden, mask, _ = self.encode(self.tower, **tensors)
        arrays = torch.cat([hidden.float(), mask[..., None].float()], dim=2).cpu().numpy()
        if self.frames_of is None:
            return list(arrays)
        return [a[:n] for a, n in zip(arrays, mask.sum(1).tolist(), strict=True)]

    def head_part(self, tower: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the part after the convolutions, which take as long as many blocks."""
        if self.frames_of is not None:
            return self.frames_of(tower), {}
        blank = self.collate(self.trial_cells()[:1])
        del blank["lengths"]
        return tower, blank

    def head_inputs(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> dict[str, Tensor]:
        """Pad the tokens of shorter clips with zeros and stack them."""
        return {"hidden": pad_frames([torch.from_numpy(np.array(a)) for a in arrays])["frames"]}

    def trim(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remove padding beyond the longest clip if the model masks it."""
        if self.frames_of is None:
            return tensors
        if "hidden" in tensors:
            hidden = tensors["hidden"]
            return {"hidden": hidden[:, : int((hidden[..., -1] > 0).sum(1).max())]}
        values, lengths = tensors["input_values"], tensors["lengths"]
        return {"input_values": values[:, : int(lengths.max())], "lengths": lengths}


class AudioRecipe:
    """An audio checkpoint without its weights: config, preprocessing, pooling.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    name : str
        Name of the checkpoint, for errors.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.folder = folder
        self.config = read_config(folder, name)
        self.kind = self.config.model_type
        if getattr(self.config, "add_adapter", False):
            raise CheckpointError(
                f"{name!r} has an adapter after its encoder, which skmm does not support. Use the"
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
                f"The config of {name!r} ({self.kind}) does not declare the length of its vectors."
                " Use another checkpoint."
            )
        self.width: int = width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``.

        Parameters
        ----------
        pooling : {"auto", "mean", "max", "statistics", "pooler"}
            Parameter of the user.
        normalize : "auto" or bool
            Parameter of the user; "auto" is False for audio.
        max_length : float or None
            Seconds of a window; the model may have a lower limit.

        Returns
        -------
        settings : dict
            All that changes the output besides the files, as JSON types. Cells must have ``rate``
            samples per second and be no longer than ``window`` seconds.
        """
        has_pooler = self.kind in ("audio-spectrogram-transformer", "clap")
        pooling = resolved_pooling(pooling, self.name, has_pooler)
        limits = [seconds for seconds in (max_length, self._limit()) if seconds is not None]
        return {
            "pooling": pooling,
            "normalize": False if normalize == "auto" else bool(normalize),
            "max_length": max_length,
            # The extractor of AST uses torchaudio if it is installed.
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
        """Return a backbone with the weights of a tower."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        if self._is_raw():
            options["frames_of"] = _Frames
        elif self.kind == "audio-spectrogram-transformer":
            options["n_leading"] = 2
        return PretrainedAudio(tower, self._prepare, self._encode, **options)

    def _limit(self) -> float | None:
        """Return the maximum duration in seconds, None without one."""
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
            if state is not None:  # the extractor of CLAP uses numpy's global generator
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

    def _encode(self, tower: nn.Module, *, lengths: Tensor, **tensors: Tensor) -> AudioOutput:
        if self._is_raw():
            tokens = self._encode_raw(tower, tensors["input_values"], lengths)
            return tokens, frame_mask(self._n_tokens(lengths), tokens.shape[1]), None
        tokens, summary = tower(**tensors)
        if self.kind == "whisper":
            n_samples = 2 * self.extractor.hop_length  # of a token
            return tokens, frame_mask(-(-lengths // n_samples), tokens.shape[1]), summary
        if self.kind == "clap":  # short clips are repeated, so no patch is padding
            return tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool), summary
        # After two tokens for the whole clip.
        patches = self._patch_mask(lengths, tokens.shape[1] - 2)
        return tokens, nn.functional.pad(patches, (2, 0), value=True), summary

    # --- models of the raw wave -----------------------------------------------------------

    def _is_raw(self) -> bool:
        return hasattr(self.config, "conv_kernel")

    def _least_samples(self) -> int:
        """Return the number of samples of one token, to which shorter clips are padded."""
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

    def _encode_raw(self, tower: nn.Module, values: Tensor, lengths: Tensor) -> Tensor:
        if self._takes_mask():
            mask = frame_mask(lengths, values.shape[1]).long()
            tokens: Tensor = tower(input_values=values, attention_mask=mask)[0]
            return tokens
        # The first layer normalizes over time, including padding, so lengths are not mixed.
        tokens = values.new_zeros(len(values), int(self._n_tokens(lengths).max()), self.width)
        for length in sorted(set(lengths.tolist())):
            rows = lengths == length
            frames = tower(input_values=values[rows, :length])[0].to(tokens.dtype)
            tokens[rows, : frames.shape[1]] = frames
        return tokens

    def _takes_mask(self) -> bool:
        return bool(self.extractor.return_attention_mask) and (
            getattr(self.config, "feat_extract_norm", "layer") == "layer"
        )

    # --- models of patches of a spectrogram -----------------------------------------------

    def _patch_mask(self, lengths: Tensor, n_tokens: int) -> Tensor:
        """Return the mask of the patches of AST, False for padding, band by band."""
        config = self.config
        n_steps = (config.max_length - config.patch_size) // config.time_stride + 1
        n_frames = (lengths - _FBANK_LENGTH * self.rate) // (self.rate / _FBANK_RATE) + 1
        begins = torch.arange(n_steps, device=lengths.device) * config.time_stride
        mask: Tensor = begins < n_frames.clamp(min=1)[:, None]  # (n, n_steps)
        return mask.repeat(1, n_tokens // n_steps)


class _Frames(nn.Module):
    """The part of a model of the raw wave after its convolutions.

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
        self.encoder.pos_conv_embed = nn.Identity()  # the trunk has added the positions

    def forward(self, *, mask: Tensor) -> tuple[Tensor, None]:
        """Run the blocks; ``LastBlocks`` replaces the input of the first.

        Parameters
        ----------
        mask : BoolTensor of shape (n_cells, n_frames)
            True for frames of the clip, False for padding.
        """
        blank = torch.zeros(*mask.shape, self.width, device=mask.device)
        return self.encoder(blank, attention_mask=mask)[0], None


def resolved_pooling(pooling: str, name: str, has_pooler: bool) -> str:
    """Resolve ``"auto"``, and refuse a pooling that a model of audio does not have."""
    if pooling == "auto":
        return "pooler" if has_pooler else "mean"
    allowed = (*_POOLINGS, "pooler") if has_pooler else _POOLINGS
    if pooling not in allowed:
        raise ValueError(
            f"pooling={pooling!r} does not suit {name!r}. Use 'auto',"
            f" {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}."
        )
    return pooling
