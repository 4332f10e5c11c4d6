"""Videos through a model of single pictures that is trained on."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from skmm.backbones import FrameEncoder
from skmm.encoders._engines._fine_tuned import TunedBackbone, TunedEngine
from skmm.encoders._engines._parts import PartsEngine

__all__ = ["TunedFrames", "over_frames"]


class TunedFrames(FrameEncoder):
    """A pretrained model of pictures, some of whose weights are trained, over frames.

    Parameters
    ----------
    pictures : TunedBackbone
        For a frame.
    temporal_pooling : {"mean", "max"}
        How the frames' vectors become one.

    Attributes
    ----------
    step_size : float
        Step size of the optimizer that suits the weights of ``pictures``, and there are no
        others.
    """

    looks_again: ClassVar[bool] = False
    pictures: TunedBackbone

    def __init__(self, pictures: TunedBackbone, *, temporal_pooling: str):
        super().__init__(pictures, temporal_pooling=temporal_pooling)
        self.source = pictures.source
        self.step_size = pictures.step_size

    def stacked(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> dict[str, Any]:
        """Inputs of the last blocks, from what the part below them gave for each frame.

        Parameters
        ----------
        arrays : sequence of ndarray of shape (n_frames, ...)
            One a video.
        cells : sequence
            Not needed.

        Returns
        -------
        tensors : dict of str to Tensor
            ``n_frames``, and the others with zeros behind the frames of a shorter video.
        """
        if len({array.shape[1:] for array in arrays}) > 1:
            raise self.pictures.unequal()
        n_frames = torch.tensor([len(array) for array in arrays], dtype=torch.int64)
        hidden = torch.zeros(len(arrays), int(n_frames.max()), *arrays[0].shape[1:])
        for row, array in enumerate(arrays):
            hidden[row, : len(array)] = torch.from_numpy(np.array(array))
        return {"n_frames": n_frames, "hidden": hidden}

    def reconstruction_target(self, **tensors: torch.Tensor) -> torch.Tensor:
        """Refuse: a pretrained model is trained towards something."""
        return self.pictures.reconstruction_target(**tensors)


def over_frames(engine: TunedEngine, *, temporal_pooling: str, owner: str) -> TunedEngine:
    """Put an engine of pictures over the frames of videos.

    Parameters
    ----------
    engine : TunedEngine
        For pictures.
    temporal_pooling : {"mean", "max"}
        How the frames' vectors become one.
    owner : str
        The encoder's class, for messages.
    """
    # As a sequence: a cell of the part below is what that gave for each frame.
    below = None if engine.below is None else PartsEngine(engine.below, owner=owner)
    return TunedEngine(TunedFrames(engine.backbone, temporal_pooling=temporal_pooling), below)
