"""EfficientNet-Lite0 with its published weights, as one more pretrained vision model."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._pretrained._efficientnet import EfficientNetLite0
from skmm.backbones._pretrained._image import PretrainedPicture
from skmm.backbones._weights import load_weights

__all__ = ["LiteRecipe"]


class _LiteTower(nn.Module):
    """The network, with the output that a tower gives."""

    has_pooler = True
    # The smallest input: it takes pictures of any size.
    blank: ClassVar[dict[str, Tensor]] = {"pictures": torch.zeros(1, 3, 32, 32)}

    def __init__(self, model: EfficientNetLite0):
        super().__init__()
        self.model = model
        self.stages = model.stages

    def forward(self, *, pictures: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.model(pictures=pictures)
        return encoded.tokens, encoded.pooled


class LiteRecipe:
    """All of EfficientNet-Lite0 but its weights.

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
        with torch.device("meta"):  # without weights: it prepares pictures, and knows its width
            self.model = EfficientNetLite0()
        self.width = self.model.width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: int | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``PictureRecipe.settings``."""
        if pooling not in ("auto", "mean", "max", "pooler"):
            raise ValueError(
                f"pooling={pooling!r} does not suit {self.name!r}, a convolutional network."
                " Use 'auto', 'mean' or 'max'."
            )
        return {
            # Its own summary is the mean of its tokens.
            "pooling": "max" if pooling == "max" else "mean",
            "normalize": False if normalize == "auto" else bool(normalize),
            "max_length": None,
            "processor": f"EfficientNetLite0({self.model.image_size}, crop={self.model.crop})",
            "width": self.width,
            # Before the crop, of the shorter side.
            "image_size": math.ceil(self.model.image_size / (self.model.crop or 1.0)),
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the weights."""
        with torch.random.fork_rng(devices=[]):  # it is born with random weights
            model = EfficientNetLite0()
        load_weights(model, self.file)
        return _LiteTower(model.requires_grad_(False)).to(device, dtype).eval()

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedPicture:
        """Put a way to pool around the weights."""
        options = {key: settings[key] for key in ("pooling", "normalize", "width")}
        return PretrainedPicture(tower, self.model.collate, **options)

    def sample(self) -> dict[str, Tensor]:
        """Give the smallest input, to see what the model makes of it."""
        return self.model.collate([np.zeros((32, 32, 3), np.uint8)])
