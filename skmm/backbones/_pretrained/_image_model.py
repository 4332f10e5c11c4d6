"""Images through any pretrained vision model: one vector a patch and one an image."""

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

# Their first token was trained to stand for the whole image, and is what they publish.
_CLS_PUBLISHED = {
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "vit",
    "vit_msn",
}
# Their first token is of that kind too, but something else is published.
_CLS_PRESENT = {"beit", "clip", "clip_vision_model", "data2vec-vision", "dpt"}
_POOLINGS = ("mean", "max", "cls", "pooler")


class PretrainedImage(FrozenBackbone):
    """A pretrained vision model with its preprocessing and a way to pool.

    The weights may be shared with other instances, so they stay frozen, in eval mode and where
    they are.

    Parameters
    ----------
    tower : Module
        The model: tensors to tokens and a pooled vector, as ``Tower`` does it.
    prepare : callable
        Its preprocessing: a sequence of images to the tensors that ``tower`` takes.
    pooling : {"mean", "max", "cls", "pooler"}
        How the tokens of an image become one vector.
    normalize : bool
        Whether that vector gets length 1.
    width : int
        Length of the vectors.
    separable : bool, default=True
        Whether images may be prepared one by one: not if they are padded to the largest.
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
        """Resize, crop and scale images as the model was trained on them."""
        return self.prepare(cells)

    def forward(self, **tensors: Tensor) -> Encoded:
        """Encode a batch.

        Parameters
        ----------
        **tensors : Tensor of shape (n_images, ...)
            What ``collate`` gave.

        Returns
        -------
        encoded : Encoded
            In float32, whatever the type of the weights.
        """
        tokens, summary = self.tower(**tensors)
        tokens = tokens.float()
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, self.scaled(self.pooled(tokens, mask, summary)))

    def trial(self) -> list[Any]:
        """Give two images of noise."""
        return list(np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype(np.uint8))


class ImageRecipe:
    """All of a vision checkpoint but its weights: config, preprocessing, the way to pool.

    Parameters
    ----------
    folder : Path
        The checkpoint's.
    name : str
        Its name, for messages.
    """

    backbone_class: ClassVar[type[PretrainedImage]] = PretrainedImage

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.folder = folder
        self.config = read_config(folder, name)
        kind = self.config.model_type
        if kind == "vit_mae":
            raise CheckpointError(
                f"{name!r} is a 'vit_mae' model, which hides patches at random and so gives"
                " other vectors each time. Use a 'vit' or 'dinov2' model."
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
                f"The config of {name!r} ({kind}) does not say how long its vectors are, so it"
                " cannot be used. Use another checkpoint."
            )
        self.width: int = width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``.

        Parameters
        ----------
        pooling : {"auto", "mean", "max", "cls", "pooler"}
            As the user gave it.
        normalize : "auto" or bool
            As the user gave it; images are not normalized by themselves.
        max_length : None
            Means nothing for images.

        Returns
        -------
        settings : dict
            Of JSON types: all that changes the output beside the files themselves.
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
        """Put a way to pool around the weights."""
        if settings["pooling"] == "pooler" and not getattr(tower, "has_pooler", False):
            raise CheckpointError(
                f"pooling='pooler' needs the pooler's weights, which {self.name!r} lacks."
                " Use pooling='mean' or 'cls'."
            )
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        padded = getattr(self.processor, "do_pad", None) or False
        return self.backbone_class(tower, self._prepare, separable=not padded, **options)

    def _image_size(self) -> int | None:
        """Side in pixels to which images are brought; None if they keep their size."""
        if not getattr(self.processor, "do_resize", True):
            return None
        sides = [side for side in dict(self.processor.size or {}).values() if side]
        if not sides:
            return None
        # Some resize to more than they look at, and crop: by this share of the side.
        share = getattr(self.processor, "crop_pct", None) or 1.0
        return math.ceil(float(max(sides)) / share)

    def sample(self) -> dict[str, Tensor]:
        """Give the smallest input, to see what the model makes of it."""
        with reading(self.name, "image processor"):
            return self._prepare([np.zeros((32, 32, 3), np.uint8)])

    def _prepare(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        # The layout is said outright, since an image of 3 rows would be guessed to have its
        # channels first.
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
