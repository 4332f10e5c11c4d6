"""Sampling, centering, scaling and padding of point clouds.

All results are invariant to the order of the points. Points of a large cloud are therefore sampled
by their content: those with the smallest hash of their columns are kept, which is as good as a
random sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Placed", "pad_clouds", "place", "repeat_points", "sample_points"]

_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)


class Placed(NamedTuple):
    """A centered and scaled cloud with its position and size.

    Parameters
    ----------
    points : ndarray of shape (n_points, 3 + n_features), float64
        Coordinates relative to the center, in units of ``size``, and unchanged features.
    center : ndarray of shape (3,)
        Mean of the points.
    size : float
        Root mean square distance of the points from their mean; 0 if all points are equal.
    """

    points: np.ndarray
    center: np.ndarray
    size: float


def sample_points(points: np.ndarray, n_points: int) -> np.ndarray:
    """Sample points by a hash of their content.

    Parameters
    ----------
    points : ndarray of shape (n, 3 + n_features), float64
        A cloud.
    n_points : int
        Maximum number of points.

    Returns
    -------
    points : ndarray of shape (min(n, n_points), 3 + n_features)
        Points in an order that does not depend on the order of the input.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.backbones._point_clouds import sample_points
    >>> cloud = np.random.default_rng(0).normal(size=(100, 3))
    >>> bool((sample_points(cloud, 9) == sample_points(cloud[::-1], 9)).all())
    True
    """
    # Adding zero turns -0.0 into 0.0, which has other bits.
    bits = (np.ascontiguousarray(points, dtype=np.float64) + 0.0).view(np.uint64)
    mixed = np.zeros(len(bits), dtype=np.uint64)
    for column in bits.T:
        mixed = (mixed ^ column) * _MULTIPLIERS[0]
        mixed ^= mixed >> np.uint64(29)
        mixed *= _MULTIPLIERS[1]
        mixed ^= mixed >> np.uint64(32)
    if len(points) <= n_points:
        return points[np.argsort(mixed, kind="stable")]
    chosen = np.argpartition(mixed, n_points - 1)[:n_points]
    return points[chosen[np.argsort(mixed[chosen], kind="stable")]]


def repeat_points(points: np.ndarray, n_points: int) -> np.ndarray:
    """Return the first ``n_points`` rows of a cloud, repeating the rows of a smaller one."""
    return points[np.arange(n_points) % len(points)]


def place(points: np.ndarray) -> Placed:
    """Center and scale a cloud.

    Parameters
    ----------
    points : ndarray of shape (n_points, 3 + n_features), float64
        A cloud of at least one point.

    Returns
    -------
    placed : Placed
        Scaled points, center and size.
    """
    xyz = points[:, :3]
    center = xyz.mean(axis=0)
    offsets = xyz - center
    size = float(np.sqrt((offsets**2).sum(axis=1).mean()))
    # Points that differ by rounding errors only are equal.
    if size <= 1e-12 * np.abs(xyz).max():
        size, offsets = 0.0, np.zeros_like(offsets)
    scaled = offsets / size if size else offsets
    return Placed(np.concatenate([scaled, points[:, 3:]], axis=1), center, size)


def pad_clouds(clouds: Sequence[np.ndarray], n_columns: int) -> tuple[Tensor, Tensor]:
    """Pad clouds with zeros to the largest and stack them.

    Parameters
    ----------
    clouds : sequence of ndarray of shape (n_points, n_columns)
        Clouds of any size.
    n_columns : int
        Number of columns.

    Returns
    -------
    points : Tensor of shape (n_clouds, n_longest, n_columns), float32
        Padded clouds.
    mask : BoolTensor of shape (n_clouds, n_longest)
        True for points of the cloud, False for padding.
    """
    longest = max((len(cloud) for cloud in clouds), default=1)
    points = np.zeros((len(clouds), longest, n_columns), dtype=np.float32)
    mask = np.zeros((len(clouds), longest), dtype=bool)
    for i, cloud in enumerate(clouds):
        points[i, : len(cloud)] = cloud
        mask[i, : len(cloud)] = True
    return torch.from_numpy(points), torch.from_numpy(mask)
