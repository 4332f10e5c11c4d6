"""Pretrained models: described without their weights, loaded once per process.

A checkpoint is read into a recipe (config, tokenizer or preprocessing, pooling). The recipe
describes the model, loads its weights (the tower) and makes a backbone of them. Recipes and towers
are cached, since an encoder and its clones use the same ones.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import nn

from skmm.backbones._pretrained._audio_model import AudioRecipe
from skmm.backbones._pretrained._base import FrozenBackbone
from skmm.backbones._pretrained._checkpoint import Checkpoint
from skmm.backbones._pretrained._efficientnet import LiteRecipe
from skmm.backbones._pretrained._image_model import ImageRecipe
from skmm.backbones._pretrained._speech import VoiceRecipe, WhisperRecipe
from skmm.backbones._pretrained._text_model import TextRecipe
from skmm.backbones._pretrained._transformers import is_video_model, read_config
from skmm.backbones._pretrained._video_model import VideoRecipe

__all__ = ["LRUCache", "describe", "load_backbone", "load_count"]

_Value = TypeVar("_Value")


class LRUCache(Generic[_Value]):
    """Cache of the most recently used values; concurrent threads compute a value once.

    Parameters
    ----------
    size : int
        Maximum number of values.

    Attributes
    ----------
    n_made : int
        Number of values computed so far.
    """

    def __init__(self, size: int):
        self.size = size
        self.n_made = 0
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key; compute it if it is not in the cache."""
        found = self._find(key)
        if found is not None:
            return found
        with self._making:
            found = self._find(key)  # another thread may have computed it meanwhile
            if found is not None:
                return found
            made = make()
            with self._lock:
                self.n_made += 1
                self._values[key] = made
                while len(self._values) > self.size:
                    self._values.popitem(last=False)
            return made

    def _find(self, key: Hashable) -> _Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)


class Recipe(Protocol):
    """A checkpoint without its weights, for one modality."""

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``."""

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the weights."""

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> FrozenBackbone:
        """Return a backbone with the weights of a tower."""


_RECIPES: LRUCache[Recipe] = LRUCache(16)
# Models are large, and a comparison of more of them uses one after the other.
_TOWERS: LRUCache[nn.Module] = LRUCache(4)
_COMPILED: LRUCache[nn.Module] = LRUCache(4)
_PACKAGED_AUDIO: dict[str, Callable[[Path, str], Recipe]] = {
    "ge2e": VoiceRecipe,
    "whisper-tiny.en": WhisperRecipe,
}


def load_count() -> int:
    """Return how often this process has loaded weights; a search over one encoder loads once."""
    return _TOWERS.n_made


def describe(
    checkpoint: Checkpoint,
    modality: str,
    pooling: str = "auto",
    normalize: bool | str = "auto",
    max_length: float | None = None,
) -> dict[str, Any]:
    """Describe all that determines the output besides the files, without loading weights.

    Parameters
    ----------
    checkpoint : Checkpoint
        Result of ``resolve_checkpoint``.
    modality : {"text", "image", "audio", "video"}
        Modality of the cells.
    pooling : {"auto", "mean", "max", "statistics", "cls", "pooler", "last"}, default="auto"
        How tokens are pooled.
    normalize : "auto" or bool, default="auto"
        Whether pooled vectors are scaled to length 1.
    max_length : int, float or None, default=None
        Maximum number of tokens of a text, or seconds of audio in one window; longer ones are cut
        or split. None means the model's own limit.

    Returns
    -------
    description : dict
        Values of JSON types: resolved ``pooling``, ``normalize``, ``max_length``; ``processor``
        (a class name), ``transformers`` (major.minor, None if it is not used), ``width``.
    """
    settings = _recipe(checkpoint, modality).settings(pooling, normalize, max_length)
    library = None
    if checkpoint.family == "transformers":
        library = _transformers_version()
    return {**settings, "transformers": library}


def load_backbone(
    checkpoint: Checkpoint,
    *,
    modality: str,
    pooling: str = "auto",
    normalize: bool | str = "auto",
    max_length: float | None = None,
    device: torch.device,
    dtype: torch.dtype,
    compile: bool = False,
) -> FrozenBackbone:
    """Return a frozen backbone in eval mode; its weights are loaded at most once per process.

    Parameters
    ----------
    checkpoint : Checkpoint
        Result of ``resolve_checkpoint``.
    modality : {"text", "image", "audio", "video"}
        Modality of the cells.
    pooling : {"auto", "mean", "max", "statistics", "cls", "pooler", "last"}, default="auto"
        How tokens are pooled.
    normalize : "auto" or bool, default="auto"
        Whether pooled vectors are scaled to length 1.
    max_length : int, float or None, default=None
        Maximum number of tokens of a text, or seconds of audio in one window; longer ones are cut
        or split. None means the model's own limit.
    device : torch.device
        Device of the weights. They are shared, so the backbone must not be moved.
    dtype : torch.dtype
        Type of the weights; the output is float32.
    compile : bool, default=False
        Whether to compile the model with ``torch.compile``, at its first batch.

    Returns
    -------
    backbone : FrozenBackbone
        A new module around the cached weights.

    Raises
    ------
    CheckpointError
        If the weights are incomplete, unreadable, or have changed since they were resolved.
    """
    recipe = _recipe(checkpoint, modality)
    settings = recipe.settings(pooling, normalize, max_length)

    def load() -> nn.Module:
        checkpoint.verify()
        tower = recipe.load(device, dtype)
        checkpoint.verify()  # the files did not change while they were read
        return tower

    key = (checkpoint.digest, checkpoint.family, modality, str(device), dtype)
    tower = _TOWERS.get(key, load)
    if compile:
        tower = _COMPILED.get(key, lambda: cast(nn.Module, torch.compile(tower, dynamic=True)))
    return recipe.backbone(tower, settings).eval()


@cache
def _transformers_version() -> str:
    """Return major.minor; cached, since reading metadata takes milliseconds."""
    return ".".join(version("transformers").split(".")[:2])


def _recipe(checkpoint: Checkpoint, modality: str) -> Recipe:
    def read() -> Recipe:
        checkpoint.verify()
        if checkpoint.family == "efficientnet-lite0":
            recipe: Recipe = LiteRecipe(checkpoint.path, checkpoint.name)
        elif checkpoint.family in _PACKAGED_AUDIO:
            recipe = _PACKAGED_AUDIO[checkpoint.family](checkpoint.path, checkpoint.name)
        elif modality == "audio":
            recipe = AudioRecipe(checkpoint.path, checkpoint.name)
        elif modality == "text":
            recipe = TextRecipe(checkpoint.path, checkpoint.name)
        elif modality == "video" and _is_of_clips(checkpoint):
            recipe = VideoRecipe(checkpoint.path, checkpoint.name)
        else:
            recipe = ImageRecipe(checkpoint.path, checkpoint.name)
        checkpoint.verify()
        return recipe

    # The path is part of the key: a recipe reads the weights from it, and files of equal digest
    # elsewhere may have changed by then.
    key = (str(checkpoint.path), checkpoint.digest, checkpoint.family, modality)
    return _RECIPES.get(key, read)


def _is_of_clips(checkpoint: Checkpoint) -> bool:
    """Return whether a model for videos reads clips, not single frames."""
    return is_video_model(read_config(checkpoint.path, checkpoint.name))
