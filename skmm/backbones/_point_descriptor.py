"""Geometric statistics of a point cloud: a descriptor without trained weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skmm.backbones._base import Backbone, Encoded
from skmm.backbones._point_clouds import pad_clouds, place, sample_points

__all__ = [
    "LOCAL_NAMES",
    "PointDescriptor",
    "SCALES",
    "local_geometry",
    "squared_distances",
]

# Radii of the neighborhoods, in units of the size of the cloud.
SCALES = (0.15, 0.3, 0.6)
LOCAL_NAMES = ("linearity", "planarity", "sphericity", "offset", "inward", "density")

# A small variance, in units of the squared scale: that of a full neighborhood is about 1.
_FAINT = 0.01

_QUANTILES = (0.1, 0.5, 0.9)
_N_BINS = 16
_LONGEST = 3.2  # end of the histogram of distances, in units of the size of the cloud
_RADII = tuple(i / 8 for i in range(9))
_EXTENTS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class PointDescriptor(Backbone):
    """Multi-scale geometric statistics of point clouds, without weights.

    Neighborhoods of three sizes around each point are described by the eigenvalues of their
    covariance (linearity, planarity, sphericity [1]_), the position of their mean, and the share
    of the points in them. The descriptor has the mean, the standard deviation and quantiles of
    these over the points. It also has the histogram of the distances between all pairs of points
    (the shape distribution D2 [2]_), quantiles of the distance from the center, the standard
    deviations along the principal axes, and statistics of the features of the points.

    All of these are invariant to rotations of the cloud. Without ``rotation_invariant`` the
    descriptor also has statistics that depend on its orientation: quantiles of x, y and z, the
    covariance, and the mean covariance of the neighborhoods.

    Parameters
    ----------
    n_features : int, default=0
        Number of features of a point, the columns after its coordinates.
    n_points : int, default=1024
        Maximum number of points; larger clouds are sampled by the points' content. Time grows
        with its square.
    rotation_invariant : bool, default=False
        Whether to leave out statistics that depend on the orientation.
    center : bool, default=True
        If False, add the position of the cloud (its distance from the origin if
        ``rotation_invariant``).
    scale : bool, default=True
        If False, add the size of the cloud, its root mean square radius.

    Attributes
    ----------
    width : int
        Length of the descriptor, which is also the only token of a cloud.

    References
    ----------
    .. [1] Weinmann, Jutzi, Hinz, Mallet, "Semantic point cloud interpretation based on optimal
       neighborhoods, relevant features and efficient classifiers", ISPRS Journal 2015.
    .. [2] Osada, Funkhouser, Chazelle, Dobkin, "Shape distributions", ACM Transactions on
       Graphics 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._point_descriptor import PointDescriptor
    >>> model = PointDescriptor(rotation_invariant=True)
    >>> clouds = [np.random.default_rng(0).normal(size=(n, 3)) for n in (50, 1)]
    >>> model(**model.collate(clouds)).pooled.shape
    torch.Size([2, 118])
    """

    def __init__(
        self,
        n_features: int = 0,
        *,
        n_points: int = 1024,
        rotation_invariant: bool = False,
        center: bool = True,
        scale: bool = True,
    ):
        super().__init__()
        self.n_features = n_features
        self.n_points = n_points
        self.rotation_invariant = rotation_invariant
        self.center = center
        self.scale = scale
        n_local = len(SCALES) * len(LOCAL_NAMES)
        n_statistics = 2 + len(_QUANTILES)
        self.width = n_local * n_statistics + _N_BINS + len(_RADII) + 3
        self.width += n_features * n_statistics
        if not rotation_invariant:
            self.width += 3 * len(_EXTENTS) + 6 + 6 * len(SCALES)
        if not center:
            self.width += 1 if rotation_invariant else 3
        self.width += int(not scale)

    def collate(self, cells: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Sample points, and center and scale them.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_points, 3 + n_features)
            Clouds of at least one point.

        Returns
        -------
        tensors : dict of str to Tensor
            ``points``, float32 of shape (n_cells, n_longest, 3 + n_features); ``mask``, bool;
            ``placement``, float32 of shape (n_cells, 4), center and size.
        """
        placed = [place(sample_points(cell, self.n_points)) for cell in cells]
        points, mask = pad_clouds([part.points for part in placed], 3 + self.n_features)
        placement = np.array([[*part.center, part.size] for part in placed], dtype=np.float32)
        return {
            "points": points,
            "mask": mask,
            "placement": torch.from_numpy(placement.reshape(len(placed), 4)),
        }

    def forward(self, *, points: Tensor, mask: Tensor, placement: Tensor) -> Encoded:
        """Compute the descriptors of clouds.

        Parameters
        ----------
        points : Tensor of shape (n_cells, n_longest, 3 + n_features)
            Centered and scaled clouds.
        mask : BoolTensor of shape (n_cells, n_longest)
            True for points of the cloud, False for padding.
        placement : Tensor of shape (n_cells, 4)
            Center and size of the clouds.

        Returns
        -------
        encoded : Encoded
            One token per cloud: its descriptor.
        """
        # Cloud by cloud: the operations are large, and padding would take as long as points.
        rows = [
            self._describe(cloud[:n], where)
            for cloud, n, where in zip(points, mask.sum(1).tolist(), placement, strict=True)
        ]
        pooled = torch.stack(rows) if rows else points.new_zeros(0, self.width)
        token = torch.ones(len(pooled), 1, dtype=torch.bool, device=pooled.device)
        return Encoded(pooled[:, None], token, pooled)

    def _describe(self, cloud: Tensor, placement: Tensor) -> Tensor:
        xyz, features = cloud[:, :3], cloud[:, 3:]
        squared = squared_distances(xyz)
        local, covariances = local_geometry(xyz, squared)
        moments = xyz.T @ xyz / len(xyz)  # trace 1, or 0 for a single point
        axes = torch.linalg.eigvalsh(moments).clamp(min=0.0).sqrt()
        parts = [
            _statistics(local.flatten(1)),
            _distance_histogram(squared),
            _quantiles(xyz.norm(dim=1, keepdim=True), _RADII),
            axes,
            _statistics(features),
        ]
        if not self.rotation_invariant:
            upper = torch.triu_indices(3, 3, device=xyz.device)
            parts += [
                _quantiles(xyz, _EXTENTS),
                moments[upper[0], upper[1]],
                covariances.mean(0).flatten(),
            ]
        if not self.center:
            position = placement[:3]
            parts.append(position.norm()[None] if self.rotation_invariant else position)
        if not self.scale:
            parts.append(placement[3:])
        return torch.cat(parts)


def _statistics(columns: Tensor) -> Tensor:
    """Return the mean, the standard deviation and quantiles of each column."""
    mean = columns.mean(dim=0)
    spread = (columns - mean).square().mean(dim=0).sqrt()
    return torch.cat([mean, spread, _quantiles(columns, _QUANTILES)])


def _quantiles(columns: Tensor, shares: Sequence[float]) -> Tensor:
    """Return the quantiles of each column, (n_shares * n_columns,)."""
    ordered = columns.sort(dim=0).values
    at = torch.tensor(shares, device=columns.device) * (len(columns) - 1)
    below = at.floor().long()
    above = (below + 1).clamp(max=len(columns) - 1)
    between = (at - below)[:, None]
    return (ordered[below] * (1 - between) + ordered[above] * between).flatten()


def _distance_histogram(squared: Tensor) -> Tensor:
    """Return the share of the pairs of points in each bin of distance, (n_bins,).

    A distance is split linearly between the two bins with the nearest centers, so that the
    histogram is continuous and rounding errors at an edge of a bin have no effect.
    """
    n = len(squared)
    if n < 2:
        return squared.new_zeros(_N_BINS)
    first, second = torch.triu_indices(n, n, 1, device=squared.device)
    places = squared[first, second].sqrt() * (_N_BINS / _LONGEST) - 0.5
    places = places.clamp(0.0, _N_BINS - 1.0)
    below = places.floor()
    above_share = places - below
    below = below.long()
    counts = torch.zeros(_N_BINS + 1, dtype=squared.dtype, device=squared.device)
    counts.index_add_(0, below, 1.0 - above_share)
    counts.index_add_(0, below + 1, above_share)
    return counts[:_N_BINS] / len(places)


def squared_distances(xyz: Tensor) -> Tensor:
    """Compute the squared distances between points.

    Parameters
    ----------
    xyz : Tensor of shape (n_points, 3)
        Coordinates.

    Returns
    -------
    distances : Tensor of shape (n_points, n_points)
        Nonnegative distances, exactly zero on the diagonal.
    """
    lengths = xyz.square().sum(1)
    distances = lengths[:, None] + lengths[None, :] - 2.0 * xyz @ xyz.T
    return distances.clamp_(min=0.0).fill_diagonal_(0.0)


def local_geometry(xyz: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
    """Describe the neighborhood of each point of a cloud at several scales.

    Points of a neighborhood are weighted by a Gaussian of their distance, so the features are
    continuous in the coordinates.

    Parameters
    ----------
    xyz : Tensor of shape (n_points, 3)
        Coordinates of one centered and scaled cloud.
    squared : Tensor of shape (n_points, n_points)
        Squared distances of the points.

    Returns
    -------
    features : Tensor of shape (n_points, n_scales, 6)
        For each scale: linearity, planarity and sphericity of the neighbors (Weinmann et al.,
        2015), the distance of their mean from the point, its component toward the center of the
        cloud, and their share of the cloud. All are invariant to rotations.
    covariances : Tensor of shape (n_points, n_scales, 6)
        Covariance of the neighbors, divided by its trace: xx, yy, zz, xy, xz, yz.
    """
    n = len(xyz)
    x, y, z = xyz.T
    products = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], dim=1)
    columns = torch.cat([torch.ones_like(xyz[:, :1]), xyz, products], dim=1)  # (n, 10)
    inwards = -xyz / xyz.norm(dim=1, keepdim=True).clamp(min=1e-6)
    features, covariances = [], []
    for scale in SCALES:
        sums = torch.exp(squared * (-0.5 / scale**2)) @ columns
        weight = sums[:, :1]  # at least 1: a point is its own neighbor
        means, moments = sums[:, 1:4] / weight, sums[:, 4:] / weight
        u, v, w = means.T
        covariance = moments - torch.stack([u * u, v * v, w * w, u * v, u * w, v * w], dim=1)
        shape, normed = _shape(covariance / scale**2)
        offsets = (means - xyz) / scale
        features.append(
            torch.cat(
                [
                    shape,
                    offsets.norm(dim=1, keepdim=True),
                    (offsets * inwards).sum(dim=1, keepdim=True),
                    (weight - 1.0) / max(n - 1, 1),
                ],
                dim=1,
            )
        )
        covariances.append(normed)
    return torch.stack(features, dim=1), torch.stack(covariances, dim=1)


def _shape(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return linearity, planarity and sphericity (n, 3), and the covariance of trace 1 (n, 6).

    Both approach 0 where the variance is small and rounding errors would dominate.
    """
    xx, yy, zz, xy, xz, yz = covariance.T
    matrix = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).view(-1, 3, 3)
    small, medium, large = torch.linalg.eigvalsh(matrix).clamp(min=0.0).T
    shape = torch.stack([large - medium, medium - small, small], dim=1)
    trace = (xx + yy + zz).clamp(min=0.0)
    return shape / (large + _FAINT)[:, None], covariance / (trace + _FAINT)[:, None]
