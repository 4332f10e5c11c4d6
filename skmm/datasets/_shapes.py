"""Surfaces of simple shapes, stretched along their axes and sampled evenly by area."""

from collections.abc import Callable

import numpy as np

__all__ = ["SHAPES", "sample_shape"]

# Points (n, 3), normals (n, 3), and the share of candidates to be kept there, in [0, 1].
Surface = tuple[np.ndarray, np.ndarray, np.ndarray]

_TUBE = 0.35  # radius of the torus' tube; its ring has 1 - 0.35


def sample_shape(
    name: str, n: int, stretches: np.ndarray, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points of a stretched shape.

    Parameters
    ----------
    name : str
        One of `SHAPES`.
    n : int
        How many.
    stretches : ndarray of shape (3,)
        Factor on each axis.
    rng : RandomState
        Draws them.

    Returns
    -------
    points, normals : ndarray of shape (n, 3)
        Points, and the unit vectors that leave the surface there.
    """
    points, normals = np.empty((0, 3)), np.empty((0, 3))
    while len(points) < n:
        p, q, kept = SHAPES[name](2 * n, rng)
        # A stretched patch has the area times the length of its stretched normal.
        q = q / stretches
        growth = np.linalg.norm(q, axis=1)
        accepted = rng.random_sample(2 * n) < kept * growth * stretches.min()
        points = np.concatenate([points, p[accepted] * stretches])
        normals = np.concatenate([normals, (q / growth[:, None])[accepted]])
    return points[:n], normals[:n]


def _sphere(n: int, rng: np.random.RandomState) -> Surface:
    points = rng.standard_normal((n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, points, np.ones(n)


def _cube(n: int, rng: np.random.RandomState) -> Surface:
    rows, axes = np.arange(n), rng.randint(3, size=n)
    normals = np.zeros((n, 3))
    normals[rows, axes] = rng.choice([-1.0, 1.0], n)
    points = rng.uniform(-0.8, 0.8, (n, 3))
    points[rows, axes] = 0.8 * normals[rows, axes]
    return points, normals, np.ones(n)


def _cylinder(n: int, rng: np.random.RandomState) -> Surface:
    """Radius 0.7, from z = -0.8 to 0.8, closed."""
    radius, height = 0.7, 1.6
    ring = _ring(n, rng)
    side = np.column_stack([radius * ring, rng.uniform(-height / 2, height / 2, n)])
    up = rng.choice([-1.0, 1.0], n)
    lid = np.column_stack([_disk(radius, ring, rng), up * height / 2])
    # Areas: 2 pi radius height, and twice pi radius ** 2.
    on_side = rng.random_sample((n, 1)) < height / (height + radius)
    normals = np.where(on_side, _with_z(ring, 0.0), _with_z(0 * ring, up))
    return np.where(on_side, side, lid), normals, np.ones(n)


def _cone(n: int, rng: np.random.RandomState) -> Surface:
    """Radius 0.8, from its base at z = -0.6 to its tip at z = 1."""
    radius, height = 0.8, 1.6
    slant = np.hypot(radius, height)
    ring = _ring(n, rng)
    down = np.sqrt(rng.random_sample((n, 1)))  # from the tip: the area grows with its square
    side = np.column_stack([radius * down * ring, 1 - height * down])
    base = _with_z(_disk(radius, ring, rng), 1 - height)
    # Areas: pi radius slant, and pi radius ** 2.
    on_side = rng.random_sample((n, 1)) < slant / (slant + radius)
    out = _with_z(height * ring, radius) / slant
    return np.where(on_side, side, base), np.where(on_side, out, [0.0, 0.0, -1.0]), np.ones(n)


def _torus(n: int, rng: np.random.RandomState) -> Surface:
    ring, across = _ring(n, rng), _ring(n, rng)
    normals = _with_z(across[:, :1] * ring, across[:, 1])
    points = _with_z((1 - _TUBE) * ring, 0.0) + _TUBE * normals
    return points, normals, 1 - _TUBE + _TUBE * across[:, 0]  # more area outside than inside


def _ring(n: int, rng: np.random.RandomState) -> np.ndarray:
    """Points of the unit circle."""
    angles = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _disk(radius: float, ring: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    return radius * np.sqrt(rng.random_sample((len(ring), 1))) * ring


def _with_z(plane: np.ndarray, z: "float | np.ndarray") -> np.ndarray:
    return np.column_stack([plane, np.broadcast_to(z, len(plane))])


SHAPES: dict[str, Callable[[int, np.random.RandomState], Surface]] = {
    "sphere": _sphere,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}
