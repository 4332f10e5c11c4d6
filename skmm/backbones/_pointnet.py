"""PointNet with its alignment networks, trained from scratch, and the columns of its input."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded, pool_tokens
from skmm.backbones._point_clouds import pad_clouds, place, sample_points
from skmm.backbones._point_descriptor import LOCAL_NAMES, SCALES, local_geometry, squared_distances

__all__ = ["PointCloudInputs", "PointNet"]

# The 13 axes and diagonals of a cube: one of each pair of opposite directions.
_DIRECTIONS = [
    direction for direction in product((-1.0, 0.0, 1.0), repeat=3) if direction > (0.0, 0.0, 0.0)
]
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_N_CHUNK = 64  # clouds in a batch without gradients
_ORTHOGONALITY = 1e-3  # weight of the penalty, as published


class PointCloudInputs:
    """Convert clouds to the columns of a network's input.

    Parameters
    ----------
    n_points : int
        Maximum number of points of a cloud; larger clouds are sampled by the points' content.
    rotation_invariant : bool
        Whether a point is described by its distance from the center and the geometry of its
        neighborhood, which do not change with a rotation, instead of its coordinates.
    center, scale : bool
        Whether the position and the size of a cloud are removed. If not, they are standardized
        by the mean position and size of the training clouds.

    Attributes
    ----------
    n_geometry : int
        Number of columns computed from the coordinates; the features follow them.
    n_columns : int
        Number of all columns, available after ``fit``.
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
        self : PointCloudInputs
            The fitted inputs.
        """
        placed = [place(cell) for cell in cells]
        self._origin = np.mean([part.center for part in placed], axis=0)
        size = float(np.mean([part.size for part in placed]))
        self._unit = size if size > 0 else 1.0
        # Clouds have equal weights, whatever their number of points.
        means = np.stack([cell[:, 3:].mean(axis=0) for cell in cells])
        squares = np.stack([((cell[:, 3:] - means.mean(0)) ** 2).mean(axis=0) for cell in cells])
        spread = np.sqrt(squares.mean(axis=0))
        self._mean, self._spread = means.mean(axis=0), np.where(spread > 0, spread, 1.0)
        self.n_columns = self.n_geometry + len(self._mean)
        return self

    def columns(self, cell: np.ndarray) -> np.ndarray:
        """Return the input of one cloud.

        Parameters
        ----------
        cell : ndarray of shape (n, 3 + n_features)
            A cloud of at least one point.

        Returns
        -------
        columns : ndarray of shape (min(n, n_points), n_columns), float32
            Columns of geometry, then standardized features.
        """
        cell = sample_points(cell, self.n_points)
        placed = place(cell)
        factor = 1.0 if self.scale else placed.size / self._unit
        if self.rotation_invariant:
            xyz = torch.from_numpy(placed.points[:, :3].astype(np.float32))
            local, _ = local_geometry(xyz, squared_distances(xyz))
            geometry = [factor * xyz.norm(dim=1, keepdim=True).numpy(), local.flatten(1).numpy()]
            if not self.center:
                distance = np.linalg.norm(cell[:, :3], axis=1, keepdims=True)
                geometry.append(distance / self._unit)
        else:
            geometry = [factor * placed.points[:, :3]]
            if not self.center:
                geometry[0] = geometry[0] + (placed.center - self._origin) / self._unit
        features = (placed.points[:, 3:] - self._mean) / self._spread
        return np.concatenate([*geometry, features], axis=1, dtype=np.float32, casting="same_kind")

    def reconstruction_target(self, points: Tensor, mask: Tensor) -> Tensor:
        """Return the target that a network reconstructs without y.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Inputs.
        mask : BoolTensor of shape (n_cells, n_longest)
            True for points of the cloud, False for padding.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            Quantiles of each column. The coordinates are replaced by their projections on the 13
            axes and diagonals.
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


class PointNet(Backbone):
    """PointNet over point clouds of any size, trained from scratch.

    A network with shared weights encodes each point, and the maximum of its outputs over the
    points is the vector of the cloud [1]_, which is invariant to the order of the points. Two
    alignment networks predict linear transforms from the whole cloud: one of the coordinates, one
    of the features of the points. Both start as the identity. A penalty keeps the second
    transform nearly orthogonal. Its gradient is added to that of any loss that the network is
    trained with; the reported loss does not include it.

    Unlike in the published network, layer normalization [2]_ replaces batch normalization, so
    that the vector of a cloud depends neither on its batch nor on padding. Weights are sampled
    from torch's global generator.

    Parameters
    ----------
    inputs : PointCloudInputs
        Inputs fitted on the training clouds.
    n_components : int, default=128
        Length of the tokens and of the pooled vector.

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the points.

    References
    ----------
    .. [1] Qi, Su, Mo, Guibas, "PointNet: deep learning on point sets for 3D classification and
       segmentation", CVPR 2017.
    .. [2] Ba, Kiros, Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._pointnet import PointCloudInputs, PointNet
    >>> clouds = [np.random.default_rng(0).normal(size=(n, 3)) for n in (50, 20)]
    >>> inputs = PointCloudInputs(n_points=40, rotation_invariant=False, center=True, scale=True)
    >>> model = PointNet(inputs.fit(clouds), n_components=16)
    >>> encoded = model(**model.collate(clouds))
    >>> encoded.tokens.shape, encoded.mask.sum(dim=1).tolist(), encoded.pooled.shape
    (torch.Size([2, 40, 16]), [40, 20], torch.Size([2, 16]))
    """

    def __init__(self, inputs: PointCloudInputs, *, n_components: int = 128):
        super().__init__()
        self.inputs = inputs
        self.width = n_components
        # Rotation-invariant columns need no alignment.
        self.align_points = None if inputs.rotation_invariant else AlignmentNet(inputs.n_columns, 3)
        self.first = _shared_layers(inputs.n_columns, 64, 64)
        self.align_features = AlignmentNet(64, 64)
        self.second = _shared_layers(64, 64, 128)
        self.project = nn.Linear(128, n_components)

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Convert clouds to inputs.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_points, 3 + n_features)
            Clouds of at least one point.

        Returns
        -------
        tensors : dict of str to Tensor
            ``points``, float32 of shape (n_cells, n_longest, n_columns), and ``mask``, bool.
        """
        points, mask = pad_clouds(
            [self.inputs.columns(cell) for cell in cells], self.inputs.n_columns
        )
        return {"points": points, "mask": mask}

    def forward(self, *, points: Tensor, mask: Tensor) -> Encoded:
        """Encode clouds.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Inputs.
        mask : BoolTensor of shape (n_cells, n_longest)
            True for points of the cloud, False for padding.

        Returns
        -------
        encoded : Encoded
            One token per point.
        """
        if torch.is_grad_enabled() or len(points) <= _N_CHUNK:
            return self._encode(points, mask)
        parts = zip(torch.split(points, _N_CHUNK), torch.split(mask, _N_CHUNK), strict=True)
        chunks = [self._encode(*part) for part in parts]
        return Encoded(*(torch.cat(part) for part in zip(*chunks, strict=True)))

    def reconstruction_target(self, *, points: Tensor, mask: Tensor) -> Tensor:
        """Return quantiles of the points' columns.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Inputs.
        mask : BoolTensor of shape (n_cells, n_longest)
            True for points of the cloud, False for padding.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            See :meth:`PointCloudInputs.reconstruction_target`.
        """
        return self.inputs.reconstruction_target(points, mask)

    def _encode(self, points: Tensor, mask: Tensor) -> Encoded:
        if self.align_points is not None:
            aligned = points[..., :3] @ self.align_points(points, mask)
            points = torch.cat([aligned, points[..., 3:]], dim=2)
        x = self.first(points)
        transform = self.align_features(x, mask)
        x = x @ transform
        if self.training and torch.is_grad_enabled():
            x = _with_penalty(x, _ORTHOGONALITY * _from_orthogonal(transform))
        tokens = self.project(self.second(x))
        return Encoded(tokens, mask, pool_tokens(tokens, mask, "max"))


class AlignmentNet(nn.Module):
    """Predict a linear transform of the points of a cloud (the T-Net of PointNet).

    Parameters
    ----------
    n_columns : int
        Number of columns of the input.
    n_transformed : int
        Number of rows and columns of the transform.
    """

    def __init__(self, n_columns: int, n_transformed: int):
        super().__init__()
        self.points = _shared_layers(n_columns, 64, 128, 256)
        self.cloud = _shared_layers(256, 128)
        self.transform = nn.Linear(128, n_transformed**2)
        self.n_transformed = n_transformed
        nn.init.zeros_(self.transform.weight)
        with torch.no_grad():
            self.transform.bias.copy_(torch.eye(n_transformed).flatten())

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        """Return a matrix for each cloud.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Points of the clouds.
        mask : BoolTensor of shape (n_cells, n_longest)
            True for points of the cloud, False for padding.

        Returns
        -------
        transform : Tensor of shape (n_cells, n_transformed, n_transformed)
            Matrices by which points are multiplied from the right.
        """
        cloud = self.cloud(pool_tokens(self.points(points), mask, "max"))
        transform: Tensor = self.transform(cloud)
        return transform.view(-1, self.n_transformed, self.n_transformed)


class _Context(Protocol):
    """State that the forward pass keeps for the backward pass."""

    like: Tensor


class _WithPenalty(torch.autograd.Function):
    """Identity function that adds the gradient of a penalty in the backward pass.

    The training loop computes its own loss only. The penalty is therefore added to the gradient,
    once per forward pass, as if it were a term of that loss.
    """

    @staticmethod
    def forward(ctx: "_Context", x: Tensor, penalty: Tensor) -> Tensor:
        ctx.like = penalty.detach()
        return x.view_as(x)

    @staticmethod
    def backward(ctx: "_Context", gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, torch.ones_like(ctx.like)


_with_penalty: Callable[[Tensor, Tensor], Tensor] = _WithPenalty.apply


def _from_orthogonal(transform: Tensor) -> Tensor:
    """Return the mean squared distance of ``A @ A.T`` from the identity (Frobenius norm)."""
    identity = torch.eye(transform.shape[1], device=transform.device, dtype=transform.dtype)
    return (transform @ transform.mT - identity).square().sum(dim=(1, 2)).mean()


def _shared_layers(*widths: int) -> nn.Sequential:
    """Return layers that are applied to each point separately."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.ReLU()]
    return nn.Sequential(*layers)
