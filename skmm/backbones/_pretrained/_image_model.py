"""Pretrained vision models: one vector per patch and one per image."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Encoded
from skmm.backbones._pretrained._base import FrozenBackbone
from skmm.backbones._pretrained._transformers import (
    Tower,
    is_dual,
    load_tower,
    outline,
    read_config,
    reading,
    tower_width,
    try_out,
)
from skmm.exceptions import CheckpointError

__all__ = ["ImageRecipe", "PretrainedImage"]

# Models whose published vector is their first token, which represents the whole image.
_CLS_PUBLISHED = {
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "vit",
    "vit_msn",
}
# Models with such a first token whose published vector is another one.
_CLS_PRESENT = {"beit", "clip", "clip_vision_model", "data2vec-vision", "dpt"}
_POOLINGS = ("mean", "max", "cls", "pooler")


class PretrainedImage(FrozenBackbone):
    """A pretrained vision model with its preprocessing and a pooling.

    The weights may be shared with other instances, so they stay frozen, in eval mode and on their
    device.

    Parameters
    ----------
    tower : Module
        The model: tensors to tokens and a pooled vector, like ``Tower``.
    prepare : callable
        Preprocessing: a sequence of images to the tensors that ``tower`` takes.
    pooling : {"mean", "max", "cls", "pooler"}
        How the tokens of an image are pooled.
    normalize : bool
        Whether pooled vectors are scaled to length 1.
    width : int
        Length of the vectors.
    separable : bool, default=True
        Whether images can be preprocessed separately; False if they are padded to the largest.
    """

    def __init__(
        self,
        tower: nn.Module,
        prepare: Callable[[Sequence[np.ndarray]], dict[str, Tensor]],
        *,
        pooling: str,
        normalize: bool,
        width: int,
        separable: bool = True,
    ):
        super().__init__(tower, pooling=pooling, normalize=normalize, width=width)
        self.separable = separable
        self.prepare = prepare

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Preprocess images as in the training of the model."""
        return self.prepare(cells)

    def forward(self, **tensors: Tensor) -> Encoded:
        """Encode a batch.

        Parameters
        ----------
        **tensors : Tensor of shape (n_images, ...)
            Output of ``collate``.

        Returns
        -------
        encoded : Encoded
            Tokens and pooled vectors in float32, for weights of any type.
        """
        tokens, summary = self.tower(**tensors)
        tokens = tokens.float()
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, self.scaled(self.pooled(tokens, mask, summary)))

    def trial_cells(self) -> list[Any]:
        """Return two images of noise."""
        return list(np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype(np.uint8))


class ImageRecipe:
    """A vision checkpoint without its weights: config, preprocessing, pooling.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    name : str
        Name of the checkpoint, for errors.
    """

    backbone_class: ClassVar[type[PretrainedImage]] = PretrainedImage

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.folder = folder
        self.config = read_config(folder, name)
        kind = self.config.model_type
        if kind == "vit_mae":
            raise CheckpointError(
                f"{name!r} is a 'vit_mae' model, which hides patches at random, so its vectors"
                " differ each time. Use a 'vit' or 'dinov2' model."
            )
        with reading(name, "image processor") as transformers:
            self.processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", trust_remote_code=False, local_files_only=True
            )
        if is_dual(self.config, name):
            width, self.has_pooler = tower_width(self.config, "image"), True
        else:
            width, self.has_pooler = outline(self.config, name, self.sample())
        if width is None:
            raise CheckpointError(
                f"The config of {name!r} ({kind}) does not declare the length of its vectors."
                " Use another checkpoint."
            )
        self.width: int = width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``.

        Parameters
        ----------
        pooling : {"auto", "mean", "max", "cls", "pooler"}
            Parameter of the user.
        normalize : "auto" or bool
            Parameter of the user; "auto" is False for images.
        max_length : None
            Ignored.

        Returns
        -------
        settings : dict
            All that changes the output besides the files, as JSON types.
        """
        return {
            "pooling": self._pooling(pooling),
            "normalize": False if normalize == "auto" else bool(normalize),
            "max_length": None,
            "processor": type(self.processor).__name__,
            "width": self.width,
            "image_size": self._image_size(),
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> Tower:
        """Load the weights."""
        tower = load_tower(self.folder, self.name, self.config, "image", device, dtype)
        return try_out(tower, self.name, self.sample(), self.width)

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedImage:
        """Return a backbone with the weights of a tower."""
        if settings["pooling"] == "pooler" and not getattr(tower, "has_pooler", False):
            raise CheckpointError(
                f"pooling='pooler' needs the weights of the pooler, which are missing in"
                f" {self.name!r}. Use pooling='mean' or 'cls'."
            )
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        padded = getattr(self.processor, "do_pad", None) or False
        return self.backbone_class(tower, self._prepare, separable=not padded, **options)

    def _image_size(self) -> int | None:
        """Return the size in pixels to which images are resized; None if they are not."""
        if not getattr(self.processor, "do_resize", True):
            return None
        sides = [side for side in dict(self.processor.size or {}).values() if side]
        if not sides:
            return None
        # Some processors resize to a larger size and crop this share of it.
        share = getattr(self.processor, "crop_pct", None) or 1.0
        return math.ceil(float(max(sides)) / share)

    def sample(self) -> dict[str, Tensor]:
        """Return a small input, on which the model is tried."""
        with reading(self.name, "image processor"):
            return self._prepare([np.zeros((32, 32, 3), np.uint8)])

    def _prepare(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        # The layout is given explicitly: the channels of an image of 3 rows would be inferred to
        # be first.
        batch = self.processor(
            images=list(images),
            input_data_format="channels_last",
            return_tensors="pt",
        )
        return {key: value for key, value in batch.items() if isinstance(value, Tensor)}

    def _pooling(self, pooling: str) -> str:
        kind = self.config.model_type
        if pooling == "auto":
            if kind in _CLS_PUBLISHED:
                return "cls"
            return "pooler" if self.has_pooler else "mean"
        if pooling not in _POOLINGS:
            raise ValueError(
                f"pooling={pooling!r} is none of 'auto', {', '.join(map(repr, _POOLINGS))}."
            )
        able = [*_CLS_PUBLISHED, *_CLS_PRESENT]
        if (pooling == "cls" and kind not in able) or (pooling == "pooler" and not self.has_pooler):
            raise ValueError(
                f"pooling={pooling!r} does not suit {self.name!r}: a {kind!r} model has no such"
                " vector. Use pooling='mean'."
            )
        return pooling
