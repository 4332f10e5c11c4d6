"""What the neighbourhood of a point looks like, whichever way the cloud is turned."""

import torch
from torch import Tensor

__all__ = ["LOCAL_NAMES", "SCALES", "local_geometry", "squared_distances"]

# Radii of the neighbourhoods, in units of the cloud's own size.
SCALES = (0.15, 0.3, 0.6)
LOCAL_NAMES = ("linearity", "planarity", "sphericity", "offset", "inward", "density")

# A variance, in units of a scale's square: full neighbourhoods have one of about 1.
_FAINT = 0.01


def squared_distances(xyz: Tensor) -> Tensor:
    """Squared distances between points.

    Parameters
    ----------
    xyz : Tensor of shape (n_points, 3)
        Coordinates.

    Returns
    -------
    distances : Tensor of shape (n_points, n_points)
        Exactly zero on the diagonal, never negative.
    """
    lengths = xyz.square().sum(1)
    distances = lengths[:, None] + lengths[None, :] - 2.0 * xyz @ xyz.T
    return distances.clamp_(min=0.0).fill_diagonal_(0.0)


def local_geometry(xyz: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
    """Describe the neighbourhood of each point of a cloud at several scales.

    A neighbourhood has no edge: points count by a Gaussian of their distance, so nothing jumps
    when a point moves a little.

    Parameters
    ----------
    xyz : Tensor of shape (n_points, 3)
        Coordinates of one cloud, from its centre, of mean square 1.
    squared : Tensor of shape (n_points, n_points)
        Their squared distances.

    Returns
    -------
    features : Tensor of shape (n_points, n_scales, 6)
        For each scale linearity, planarity and sphericity of the neighbours (Weinmann et al.,
        2015), how far their mean lies from the point, how much of that towards the centre of the
        cloud, and which share of the cloud they are. All stay the same when the cloud is turned.
    covariances : Tensor of shape (n_points, n_scales, 6)
        Their covariance, divided by its trace: xx, yy, zz, xy, xz, yz. These turn.
    """
    n = len(xyz)
    x, y, z = xyz.T
    products = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], dim=1)
    columns = torch.cat([torch.ones_like(xyz[:, :1]), xyz, products], dim=1)  # (n, 10)
    inwards = -xyz / xyz.norm(dim=1, keepdim=True).clamp(min=1e-6)
    features, covariances = [], []
    for scale in SCALES:
        sums = torch.exp(squared * (-0.5 / scale**2)) @ columns
        weight = sums[:, :1]  # at least 1: a point is its own neighbour
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
    """Linearity, planarity and sphericity (n, 3), and the covariance of trace 1 (n, 6).

    Both fade to 0 where neighbours are few and near: what is left is rounding errors.
    """
    xx, yy, zz, xy, xz, yz = covariance.T
    matrix = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).view(-1, 3, 3)
    small, middle, large = torch.linalg.eigvalsh(matrix).clamp(min=0.0).T
    shape = torch.stack([large - middle, middle - small, small], dim=1)
    trace = (xx + yy + zz).clamp(min=0.0)
    return shape / (large + _FAINT)[:, None], covariance / (trace + _FAINT)[:, None]
