"""Pretrained models by checkpoint: described without their weights, loaded once per process.

The path: a checkpoint's folder gives a recipe (config, tokenizer or preprocessing, the way to
pool), the recipe describes itself, loads a tower (the weights) and puts a backbone around it.
Recipes and towers are kept, since an encoder and each of its clones asks for the same ones.
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

__all__ = ["Shelf", "describe", "load_backbone", "load_count"]

_Thing = TypeVar("_Thing")


class Shelf(Generic[_Thing]):
    """Keeps the few things last used, each made once however many threads ask for it.

    Parameters
    ----------
    size : int
        How many are kept.

    Attributes
    ----------
    n_made : int
        How many were made so far.
    """

    def __init__(self, size: int):
        self.size = size
        self.n_made = 0
        self._things: OrderedDict[Hashable, _Thing] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], _Thing]) -> _Thing:
        """Give what is kept under a key, or make it."""
        found = self._find(key)
        if found is not None:
            return found
        with self._making:
            found = self._find(key)  # another thread may have made it meanwhile
            if found is not None:
                return found
            made = make()
            with self._lock:
                self.n_made += 1
                self._things[key] = made
                while len(self._things) > self.size:
                    self._things.popitem(last=False)
            return made

    def _find(self, key: Hashable) -> _Thing | None:
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
            return self._things.get(key)


class Recipe(Protocol):
    """All of a checkpoint but its weights, for one modality."""

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``."""

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the weights."""

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> FrozenBackbone:
        """Put a way to pool around the weights."""


_RECIPES: Shelf[Recipe] = Shelf(16)
# A handful: models are large, and who compares more of them does so one after another.
_TOWERS: Shelf[nn.Module] = Shelf(4)
_COMPILED: Shelf[nn.Module] = Shelf(4)
_PACKAGED_AUDIO: dict[str, Callable[[Path, str], Recipe]] = {
    "ge2e": VoiceRecipe,
    "whisper-tiny.en": WhisperRecipe,
}


def load_count() -> int:
    """How often this process has loaded weights; a grid over one encoder must load once."""
    return _TOWERS.n_made


def describe(
    checkpoint: Checkpoint,
    modality: str,
    pooling: str = "auto",
    normalize: bool | str = "auto",
    max_length: float | None = None,
) -> dict[str, Any]:
    """Tell all that changes the output beside the files, without loading weights.

    Parameters
    ----------
    checkpoint : Checkpoint
        What ``resolve_checkpoint`` gave.
    modality : {"text", "image", "audio", "video"}
        What it is used for.
    pooling : {"auto", "mean", "max", "statistics", "cls", "pooler", "last"}, default="auto"
        How tokens become one vector.
    normalize : "auto" or bool, default="auto"
        Whether that vector gets length 1.
    max_length : int, float or None, default=None
        Tokens after which a text is cut, or seconds of audio that go through the model at once;
        None for the model's own limit.

    Returns
    -------
    description : dict
        Of JSON types: resolved ``pooling``, ``normalize``, ``max_length``; ``processor`` (a class
        name), ``transformers`` (major.minor, None where it has no part), ``width``.
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
    """Give a frozen backbone in eval mode; its weights are loaded at most once per process.

    Parameters
    ----------
    checkpoint : Checkpoint
        What ``resolve_checkpoint`` gave.
    modality : {"text", "image", "audio", "video"}
        What it is used for.
    pooling : {"auto", "mean", "max", "statistics", "cls", "pooler", "last"}, default="auto"
        How tokens become one vector.
    normalize : "auto" or bool, default="auto"
        Whether that vector gets length 1.
    max_length : int, float or None, default=None
        Tokens after which a text is cut, or seconds of audio that go through the model at once;
        None for the model's own limit.
    device : torch.device
        Where the weights are; they are shared, so never move the backbone.
    dtype : torch.dtype
        Their type. What the backbone gives is float32.
    compile : bool, default=False
        Whether ``torch.compile`` makes machine code of the model, at its first batch.

    Returns
    -------
    backbone : FrozenBackbone
        Thin: making it again costs nothing.

    Raises
    ------
    CheckpointError
        If the weights are incomplete, unreadable, or not those that were resolved.
    """
    recipe = _recipe(checkpoint, modality)
    settings = recipe.settings(pooling, normalize, max_length)

    def load() -> nn.Module:
        checkpoint.verify()
        tower = recipe.load(device, dtype)
        checkpoint.verify()  # nothing was exchanged while it was read
        return tower

    key = (checkpoint.digest, checkpoint.family, modality, str(device), dtype)
    tower = _TOWERS.get(key, load)
    if compile:
        tower = _COMPILED.get(key, lambda: cast(nn.Module, torch.compile(tower, dynamic=True)))
    return recipe.backbone(tower, settings).eval()


@cache
def _transformers_version() -> str:
    """Major and minor; to ask takes milliseconds."""
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

    # By its place as well: the weights are read from there, and elsewhere may lie others by now.
    key = (str(checkpoint.path), checkpoint.digest, checkpoint.family, modality)
    return _RECIPES.get(key, read)


def _is_of_clips(checkpoint: Checkpoint) -> bool:
    """Whether a model for videos looks at clips, as against single frames."""
    return is_video_model(read_config(checkpoint.path, checkpoint.name))
