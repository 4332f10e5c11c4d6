"""Synthetic point clouds: noisy samples of the surfaces of five shapes, rotated and stretched."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation
from sklearn.utils import Bunch, check_random_state

from skmm.datasets._latent import (
    PATTERNS,
    check_choice,
    check_integer,
    check_rates,
    check_real,
    sample_missing,
)

__all__ = [
    "SHAPES",
    "make_point_clouds",
    "sample_shape",
]

# --- Surfaces of simple shapes, stretched along their axes and sampled uniformly by area ---

# Points (n, 3), normals (n, 3), and the probability of keeping each point (n,).
Surface = tuple[np.ndarray, np.ndarray, np.ndarray]

_TUBE = 0.35  # radius of the torus' tube; that of its ring is 1 - 0.35


def sample_shape(
    name: str, n: int, stretches: np.ndarray, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Sample points of the surface of a stretched shape, uniformly by area.

    Parameters
    ----------
    name : str
        One of `SHAPES`.
    n : int
        Number of points.
    stretches : ndarray of shape (3,)
        Factor along each axis.
    rng : RandomState
        Source of the points.

    Returns
    -------
    points, normals : ndarray of shape (n, 3)
        Points and their outward unit normals.
    """
    points, normals = np.empty((0, 3)), np.empty((0, 3))
    while len(points) < n:
        p, q, kept = SHAPES[name](2 * n, rng)
        # Rejection sampling: stretching multiplies an area by the norm of its scaled normal.
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
    """Sample a closed cylinder of radius 0.7, from z = -0.8 to 0.8."""
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
    """Sample a closed cone of radius 0.8, from its base at z = -0.6 to its tip at z = 1."""
    radius, height = 0.8, 1.6
    slant = np.hypot(radius, height)
    ring = _ring(n, rng)
    down = np.sqrt(rng.random_sample((n, 1)))  # distance from the tip: the area is its square
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
    """Sample points of the unit circle."""
    angles = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _disk(radius: float, ring: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    return np.asarray(radius * np.sqrt(rng.random_sample((len(ring), 1))) * ring)


def _with_z(plane: np.ndarray, z: "float | np.ndarray") -> np.ndarray:
    return np.column_stack([plane, np.broadcast_to(z, len(plane))])


SHAPES: dict[str, Callable[[int, np.random.RandomState], Surface]] = {
    "sphere": _sphere,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}

_ROTATIONS = ("none", "vertical", "any")
_FEATURES = ("normals", "intensity")
# "never_all" needs several modalities.
_PATTERNS = tuple(pattern for pattern in PATTERNS if pattern != "never_all")


def make_point_clouds(
    n_samples: int = 200,
    *,
    shapes: Sequence[str] = tuple(SHAPES),
    n_points: int | tuple[int, int] = (128, 512),
    noise: float = 0.02,
    stretch: float = 0.3,
    rotation: Literal["none", "vertical", "any"] = "any",
    features: Sequence[str] = (),
    missing_rate: float = 0.0,
    missing_pattern: Literal["random", "train_complete", "dependent"] = "random",
    return_parameters: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[pd.DataFrame, np.ndarray] | Bunch:
    """Generate point clouds of simple shapes (classification).

    Each cloud is sampled uniformly by area from the surface of a shape with a radius of about 1.
    The shape is stretched along its own axes, rotated and translated, and noise is added to the
    points.

    Parameters
    ----------
    n_samples : int, default=200
        Number of rows.
    shapes : sequence of str, default=("sphere", "cube", "cylinder", "cone", "torus")
        The classes, about equally frequent. The axis of cylinder, cone and torus is z.
    n_points : int or tuple of int, default=(128, 512)
        Number of points of a cloud, or the lowest and the highest number, both included.
    noise : float, default=0.02
        Standard deviation of the noise added to each coordinate.
    stretch : float, default=0.3
        Range of the proportions: each axis is multiplied by a factor between ``exp(-stretch)``
        and ``exp(stretch)``. With ``stretch=0`` and ``rotation="none"`` the extents of a cloud
        determine its class.
    rotation : {"none", "vertical", "any"}, default="any"
        Rotation of the clouds: none, about the z-axis, or uniform over all rotations.
    features : sequence of {"normals", "intensity"}, default=()
        Features of a point that follow its coordinates, in the given order: ``"normals"``, three
        columns, the outward unit normal, without noise; ``"intensity"``, one column, the absolute
        cosine between the normal and the z-axis with noise, clipped to [0, 1], as in a scan from
        above.
    missing_rate : float, default=0.0
        Exact share of missing clouds, rounded to a number of rows.
    missing_pattern : {"random", "train_complete", "dependent"}, default="random"
        Which clouds are missing: any; none in the first half of the rows; or with odds that
        increase with the class, by a factor of 20 from the first of ``shapes`` to the last.
    return_parameters : bool, default=False
        If True, return a Bunch that includes stretches, rotations and positions instead of
        ``(X, y)``.
    random_state : int, RandomState instance or None, default=None
        Determines all random numbers. Pass an int for the same data in every process.
        The clouds do not depend on ``missing_rate`` and ``missing_pattern``.

    Returns
    -------
    X : DataFrame of shape (n_samples, 1)
        Column ``points``: float32 arrays (n_points, 3 + n_features), None where missing.
    y : ndarray of shape (n_samples,)
        Names of the shapes.
    dataset : :class:`~sklearn.utils.Bunch`
        If ``return_parameters=True``, instead of ``(X, y)``:

        - ``data``, ``target``: X and y;
        - ``frame``: DataFrame, ``data`` and the target;
        - ``stretches`` (n_samples, 3), ``rotations`` (n_samples, 3, 3) and ``positions``
          (n_samples, 3): a point ``p`` of the shape is mapped to
          ``rotations @ (stretches * p) + positions`` before noise is added.

    See Also
    --------
    make_multimodal_classification : Generate other modalities with chosen information.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.datasets import make_point_clouds
    >>> X, y = make_point_clouds(100, n_points=64, features=["intensity"], random_state=0)
    >>> X["points"].iloc[0].shape
    (64, 4)
    >>> np.unique(y).tolist()
    ['cone', 'cube', 'cylinder', 'sphere', 'torus']
    """
    function = "make_point_clouds"
    n_samples = check_integer(function, "n_samples", n_samples, 1)
    names = _check_words(function, "shapes", shapes, tuple(SHAPES))
    columns = _check_words(function, "features", features, _FEATURES)
    fewest, most = _check_n_points(function, n_points)
    noise = check_real(function, "noise", noise, 0)
    stretch = check_real(function, "stretch", stretch, 0, 2)
    check_choice(function, "rotation", rotation, _ROTATIONS)
    check_choice(function, "missing_pattern", missing_pattern, _PATTERNS)
    if not names:
        raise ValueError(f"{function}: shapes is empty. Name at least one of {list(SHAPES)}.")
    rates = check_rates(function, missing_rate, ("points",), missing_pattern)

    # Each part has its own random generator, so that no part depends on another's options.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=4)
    layout, placing, surface, gaps = (np.random.RandomState(seed) for seed in seeds)
    codes = layout.permutation(np.arange(n_samples) % len(names))
    counts = layout.randint(fewest, most + 1, size=n_samples)
    stretches = np.exp(placing.uniform(-stretch, stretch, (n_samples, 3)))
    rotations = _rotations(rotation, n_samples, placing)
    positions = placing.uniform(-1, 1, (n_samples, 3))
    absent = sample_missing(missing_pattern, rates, codes, gaps)[:, 0]

    cells = np.empty(n_samples, dtype=object)
    for i, code in enumerate(codes):
        points, normals = sample_shape(names[code], counts[i], stretches[i], surface)
        points = points @ rotations[i].T + positions[i]
        points += noise * surface.standard_normal(points.shape)
        normals = normals @ rotations[i].T
        beam = np.abs(normals[:, 2]) + 0.1 * surface.standard_normal(len(points))
        shown = {"normals": normals, "intensity": beam.clip(0, 1)[:, None]}
        parts = [points, *(shown[name] for name in columns)]
        cells[i] = None if absent[i] else np.concatenate(parts, axis=1).astype(np.float32)
    X = pd.DataFrame({"points": pd.Series(cells, dtype=object)})
    y = np.array(names)[codes]
    if not return_parameters:
        return X, y
    return Bunch(
        data=X,
        target=y,
        frame=X.assign(target=y),
        stretches=stretches,
        rotations=rotations,
        positions=positions,
    )


def _check_words(
    function: str, parameter: str, words: object, choices: tuple[str, ...]
) -> tuple[str, ...]:
    """Check that words are distinct and among the choices; return them in their order."""
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise TypeError(
            f"{function}: {parameter} must be a sequence of {list(choices)}, got {words!r}."
        )
    checked = tuple(check_choice(function, f"an entry of {parameter}", w, choices) for w in words)
    if len(set(checked)) < len(checked):
        raise ValueError(f"{function}: {parameter} must not repeat a name, got {list(words)}.")
    return checked


def _check_n_points(function: str, n_points: object) -> tuple[int, int]:
    pair = n_points if isinstance(n_points, tuple | list) else (n_points, n_points)
    if len(pair) != 2:
        raise ValueError(
            f"{function}: n_points must be an integer or a pair of the lowest and the highest"
            f" number, got {n_points!r}."
        )
    fewest = check_integer(function, "n_points", pair[0], 1)
    return fewest, check_integer(function, "the highest n_points", pair[1], fewest)


def _rotations(rotation: str, n: int, rng: np.random.RandomState) -> np.ndarray:
    """Sample rotation matrices (n, 3, 3)."""
    if rotation == "none":
        return np.tile(np.eye(3), (n, 1, 1))
    if rotation == "vertical":
        rotations = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (n, 1)))
    else:
        # A normalized vector of four normal numbers is a uniformly distributed quaternion.
        rotations = Rotation.from_quat(rng.standard_normal((n, 4)))
    return np.asarray(rotations.as_matrix())
