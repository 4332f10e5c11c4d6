"""What a network is told about each point of a cloud, on one scale for all clouds."""

from collections.abc import Sequence
from itertools import product
from typing import Self

import numpy as np
import torch
from torch import Tensor

from skmm.backbones._point_clouds import place, some_points
from skmm.backbones._point_geometry import LOCAL_NAMES, SCALES, local_geometry, squared_distances

__all__ = ["CloudInputs"]

# Axes, diagonals between two of them and between three: one of each pair of opposites.
_DIRECTIONS = [
    direction for direction in product((-1.0, 0.0, 1.0), repeat=3) if direction > (0.0, 0.0, 0.0)
]
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


class CloudInputs:
    """Turns clouds into columns of a network's input.

    Parameters
    ----------
    n_points : int
        Points that are kept of a cloud, chosen by their content.
    rotation_invariant : bool
        Whether a point is told by its distance from the centre and the geometry of its
        neighbourhood, which do not turn with the cloud, instead of its coordinates.
    center, scale : bool
        Whether position and size are taken out. What is left in is measured by the mean position
        and size of the training clouds.

    Attributes
    ----------
    n_geometry : int
        Columns that come from the coordinates; features follow them.
    n_columns : int
        All columns, known after ``fit``.
    """

    def __init__(self, *, n_points: int, rotation_invariant: bool, center: bool, scale: bool):
        self.n_points = n_points
        self.rotation_invariant = rotation_invariant
        self.center = center
        self.scale = scale
        self.n_geometry = 3
        if rotation_invariant:
            self.n_geometry = 1 + len(SCALES) * len(LOCAL_NAMES) + int(not center)

    def fit(self, cells: Sequence[np.ndarray]) -> Self:
        """Learn the scale of positions, sizes and features.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_points, 3 + n_features)
            Training clouds.

        Returns
        -------
        self : CloudInputs
            Ready for ``columns``.
        """
        placed = [place(cell) for cell in cells]
        self._origin = np.mean([part.center for part in placed], axis=0)
        size = float(np.mean([part.size for part in placed]))
        self._unit = size if size > 0 else 1.0
        # Every cloud counts the same, however many points it has.
        means = np.stack([cell[:, 3:].mean(axis=0) for cell in cells])
        squares = np.stack([((cell[:, 3:] - means.mean(0)) ** 2).mean(axis=0) for cell in cells])
        spread = np.sqrt(squares.mean(axis=0))
        self._mean, self._spread = means.mean(axis=0), np.where(spread > 0, spread, 1.0)
        self.n_columns = self.n_geometry + len(self._mean)
        return self

    def columns(self, cell: np.ndarray) -> np.ndarray:
        """Give the input of one cloud.

        Parameters
        ----------
        cell : ndarray of shape (n, 3 + n_features)
            A cloud of at least one point.

        Returns
        -------
        columns : ndarray of shape (min(n, n_points), n_columns), float32
            Geometry, then standardised features.
        """
        cell = some_points(cell, self.n_points)
        placed = place(cell)
        factor = 1.0 if self.scale else placed.size / self._unit
        if self.rotation_invariant:
            xyz = torch.from_numpy(placed.points[:, :3].astype(np.float32))
            local, _ = local_geometry(xyz, squared_distances(xyz))
            geometry = [factor * xyz.norm(dim=1, keepdim=True).numpy(), local.flatten(1).numpy()]
            if not self.center:
                away = np.linalg.norm(cell[:, :3], axis=1, keepdims=True)
                geometry.append(away / self._unit)
        else:
            geometry = [factor * placed.points[:, :3]]
            if not self.center:
                geometry[0] = geometry[0] + (placed.center - self._origin) / self._unit
        features = (placed.points[:, 3:] - self._mean) / self._spread
        return np.concatenate([*geometry, features], axis=1, dtype=np.float32, casting="same_kind")

    def reconstruction_target(self, points: Tensor, mask: Tensor) -> Tensor:
        """Describe clouds by what a network without y has to find in them.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Inputs.
        mask : BoolTensor of shape (n_cells, n_longest)
            Which points are there.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            Quantiles of every column, and of the coordinates along the diagonals between the axes
            too: where the points are, seen from many sides.
        """
        if not self.rotation_invariant:
            directions = torch.tensor(_DIRECTIONS, dtype=points.dtype, device=points.device)
            along = points[..., :3] @ (directions / directions.norm(dim=1, keepdim=True)).T
            points = torch.cat([along, points[..., 3:]], dim=2)
        n = mask.sum(1)
        ordered = torch.where(mask[..., None], points, torch.inf).sort(dim=1).values
        rows = torch.arange(len(n), device=n.device)
        ranks = [(share * (n - 1).clamp(min=0)).round().long() for share in _SHARES]
        target = torch.cat([ordered[rows, at] for at in ranks], dim=1)
        return torch.where(mask.any(1, keepdim=True), target, 0.0)
