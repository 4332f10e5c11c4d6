"""A user's own module over point clouds."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._cloud_inputs import CloudInputs
from skmm.backbones._point_clouds import repeated
from skmm.backbones._user_module import ModuleBackbone

__all__ = ["PointModule"]


class PointModule(ModuleBackbone):
    """A user's module over point clouds, in the place of our own network.

    Parameters
    ----------
    module : nn.Module
        From ``(n, n_points, n_columns)`` floats. Points have no order of meaning, and of clouds
        with fewer points some are there several times.
    inputs : CloudInputs
        Fitted on the training clouds.
    """

    def __init__(self, module: nn.Module, inputs: CloudInputs):
        super().__init__(module)
        self.inputs = inputs

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        shape = (len(cells), self.inputs.n_points, self.inputs.n_columns)
        points = np.empty(shape, dtype=np.float32)
        for i, cell in enumerate(cells):
            points[i] = repeated(self.inputs.columns(cell), self.inputs.n_points)
        return {"0": torch.from_numpy(points)}

    def reconstruction_target(self, **tensors: Tensor) -> Tensor:
        points = tensors["0"]
        mask = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
        return self.inputs.reconstruction_target(points, mask)
