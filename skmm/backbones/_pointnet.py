"""PointNet with its alignment nets, trained from scratch, and what it is given of a cloud."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded, pool_tokens
from skmm.backbones._point_clouds import pad_clouds, place, some_points
from skmm.backbones._point_descriptor import LOCAL_NAMES, SCALES, local_geometry, squared_distances

__all__ = ["PointCloudInputs", "PointNet"]

# Axes, diagonals between two of them and between three: one of each pair of opposites.
_DIRECTIONS = [
    direction for direction in product((-1.0, 0.0, 1.0), repeat=3) if direction > (0.0, 0.0, 0.0)
]
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_N_CHUNK = 64  # clouds that go through at once where no gradient asks for all of them
_ORTHOGONALITY = 1e-3  # weight of the penalty, as published


class PointCloudInputs:
    """Turns clouds into columns of a network's input.

    Parameters
    ----------
    n_points : int
        Points that are kept of a cloud, chosen by their content.
    rotation_invariant : bool
        Whether a point is told by its distance from the center and the geometry of its
        neighborhood, which do not turn with the cloud, instead of its coordinates.
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
        self : PointCloudInputs
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
            Geometry, then standardized features.
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


class PointNet(Backbone):
    """PointNet over point clouds of any size, to be trained from scratch.

    The same small network looks at every point, and the largest value of each of its outputs over
    the points is the vector of the cloud [1]_: the order of the points cannot matter. Two
    alignment nets look at the whole cloud first and say how to transform it: one its coordinates,
    one the features of its points. Both start as the identity. A penalty keeps the second
    transform nearly orthogonal; it enters with the gradient, whichever loss the network is
    trained on, and is not part of the loss that is reported.

    Unlike as published, layers are normalized over the features of each point [2]_ and not over
    the batch, so that a cloud's vector depends neither on its batch nor on padding. Weights are
    drawn from torch's current generator.

    Parameters
    ----------
    inputs : PointCloudInputs
        Fitted on the training clouds.
    n_components : int, default=128
        Length of the tokens and of the pooled vector.

    Attributes
    ----------
    width : int
        ``n_components``. A token is a point.

    References
    ----------
    .. [1] Qi, Su, Mo, Guibas, "PointNet: deep learning on point sets for 3D classification and
       segmentation", CVPR 2017.
    .. [2] Ba, Kiros, Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones import PointCloudInputs, PointNet
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
        # Invariants have no axes that could be aligned.
        self.align_points = None if inputs.rotation_invariant else AlignmentNet(inputs.n_columns, 3)
        self.first = _shared_layers(inputs.n_columns, 64, 64)
        self.align_features = AlignmentNet(64, 64)
        self.second = _shared_layers(64, 64, 128)
        self.project = nn.Linear(128, n_components)

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Turn clouds into inputs.

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
            Which points are there.

        Returns
        -------
        encoded : Encoded
            A token for every point.
        """
        if torch.is_grad_enabled() or len(points) <= _N_CHUNK:
            return self._encode(points, mask)
        parts = zip(torch.split(points, _N_CHUNK), torch.split(mask, _N_CHUNK), strict=True)
        chunks = [self._encode(*part) for part in parts]
        return Encoded(*(torch.cat(part) for part in zip(*chunks, strict=True)))

    def reconstruction_target(self, *, points: Tensor, mask: Tensor) -> Tensor:
        """Give where the points are, in coarse.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Inputs.
        mask : BoolTensor of shape (n_cells, n_longest)
            Which points are there.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            See :meth:`PointCloudInputs.reconstruction_target`.
        """
        return self.inputs.reconstruction_target(points, mask)

    def _encode(self, points: Tensor, mask: Tensor) -> Encoded:
        if self.align_points is not None:
            turned = points[..., :3] @ self.align_points(points, mask)
            points = torch.cat([turned, points[..., 3:]], dim=2)
        x = self.first(points)
        transform = self.align_features(x, mask)
        x = x @ transform
        if self.training and torch.is_grad_enabled():
            x = _with_penalty(x, _ORTHOGONALITY * _from_orthogonal(transform))
        tokens = self.project(self.second(x))
        return Encoded(tokens, mask, pool_tokens(tokens, mask, "max"))


class AlignmentNet(nn.Module):
    """Says how to transform the points of a cloud (the T-Net of PointNet).

    Parameters
    ----------
    n_columns : int
        Columns of its input.
    n_transformed : int
        Rows and columns of the transform.
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
        """Give a matrix for each cloud.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, n_columns)
            Its points.
        mask : BoolTensor of shape (n_cells, n_longest)
            Which of them are there.

        Returns
        -------
        transform : Tensor of shape (n_cells, n_transformed, n_transformed)
            To be multiplied with from the right.
        """
        cloud = self.cloud(pool_tokens(self.points(points), mask, "max"))
        transform: Tensor = self.transform(cloud)
        return transform.view(-1, self.n_transformed, self.n_transformed)


class _Context(Protocol):
    """What a pass forward leaves for the pass back."""

    like: Tensor


class _WithPenalty(torch.autograd.Function):
    """Hands a tensor on, and adds the gradient of a penalty when gradients come back.

    Who trains the network knows its own loss alone. So the penalty meets it on the way back, once
    for every time the network was used, with the weight it would have as a term of that loss.
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
    """Mean squared distance of ``A @ A.T`` from the identity (Frobenius norm)."""
    identity = torch.eye(transform.shape[1], device=transform.device, dtype=transform.dtype)
    return (transform @ transform.mT - identity).square().sum(dim=(1, 2)).mean()


def _shared_layers(*widths: int) -> nn.Sequential:
    """Layers that look at each point for itself."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.ReLU()]
    return nn.Sequential(*layers)
