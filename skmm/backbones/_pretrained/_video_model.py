"""Video models of transformers: clips of a fixed number of frames, one vector per patch in time."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from skmm.backbones._pretrained._image_model import ImageRecipe, PretrainedImage
from skmm.backbones._pretrained._transformers import reading

__all__ = ["VideoRecipe"]

# Models whose first token represents the whole clip.
_CLS_PUBLISHED = {"timesformer", "vivit"}
_POOLINGS = ("mean", "max", "cls")


class PretrainedClip(PretrainedImage):
    """A pretrained video model, whose cells are iterables of frames."""

    def trial_cells(self) -> list[list[np.ndarray]]:
        """Return two clips of noise."""
        noise = np.random.default_rng(0).integers(0, 256, (2, 4, 48, 48, 3)).astype(np.uint8)
        return [list(clip) for clip in noise]


class VideoRecipe(ImageRecipe):
    """A video checkpoint without its weights: config, preprocessing, pooling.

    A cell is an iterable of frames. The number of frames that the model takes is sampled from
    them at equal distances; frames of a shorter cell are repeated.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    name : str
        Name of the checkpoint, for errors.
    """

    backbone_class: ClassVar[type[PretrainedImage]] = PretrainedClip

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``; see ``ImageRecipe.settings``."""
        settings = super().settings(pooling, normalize, max_length)
        return {**settings, "n_frames": int(self.config.num_frames)}

    def sample(self) -> dict[str, Tensor]:
        """Return a small input, on which the model is tried."""
        with reading(self.name, "image processor"):
            return self._prepare([[np.zeros((32, 32, 3), np.uint8)]])

    def _prepare(self, clips: Sequence[Iterable[np.ndarray]]) -> dict[str, Tensor]:
        n_frames = int(self.config.num_frames)
        batch = self.processor(
            [_spread(list(clip), n_frames) for clip in clips],
            input_data_format="channels_last",
            return_tensors="pt",
        )
        # (n_clips, n_frames, 3, height, width)
        return {key: value for key, value in batch.items() if isinstance(value, Tensor)}

    def _pooling(self, pooling: str) -> str:
        kind = self.config.model_type
        if pooling == "auto":
            return "cls" if kind in _CLS_PUBLISHED else "mean"
        if pooling not in _POOLINGS or (pooling == "cls" and kind not in _CLS_PUBLISHED):
            raise ValueError(
                f"pooling={pooling!r} does not suit {self.name!r}: a {kind!r} model has no such"
                " vector. Use pooling='mean'."
            )
        return pooling


def _spread(frames: list[np.ndarray], n_wanted: int) -> list[np.ndarray]:
    """Return the frames in the middle of ``n_wanted`` equal parts of a clip."""
    if not frames:
        raise ValueError("a clip needs at least one frame")
    return [frames[(2 * k + 1) * len(frames) // (2 * n_wanted)] for k in range(n_wanted)]
