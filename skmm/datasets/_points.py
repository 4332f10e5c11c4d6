"""Made point clouds: noisy samples of the surfaces of five shapes, turned and stretched."""

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
    draw_missing,
)

__all__ = [
    "SHAPES",
    "make_point_clouds",
    "sample_shape",
]

# --- Surfaces of simple shapes, stretched along their axes and sampled evenly by area ---

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
# Of one modality a row cannot keep "at least one" cell and lack some.
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
    """Make point clouds of simple shapes, to be told apart.

    A cloud is a sample, even by area, of the surface of a shape that fits into a unit sphere or a
    little more. It is stretched along its own axes, turned, moved, and every point is moved a
    little.

    Parameters
    ----------
    n_samples : int, default=200
        Number of rows.
    shapes : sequence of str, default=("sphere", "cube", "cylinder", "cone", "torus")
        The classes, about equally frequent. Cylinder, cone and torus stand upright along z.
    n_points : int or tuple of int, default=(128, 512)
        Points in a cloud; of a pair, the lowest and the highest number, both included.
    noise : float, default=0.02
        Standard deviation of the noise on each coordinate, where shapes have a radius of about 1.
    stretch : float, default=0.3
        How much proportions vary: each axis is stretched by a factor between ``exp(-stretch)``
        and ``exp(stretch)``. With 0 the extents of a cloud that is not turned give its class away.
    rotation : {"none", "vertical", "any"}, default="any"
        How clouds are turned: not at all, about the z-axis, or in any direction, uniformly.
    features : sequence of {"normals", "intensity"}, default=()
        What a point has beside its coordinates, in this order: ``"normals"``, three columns, the
        unit vector that leaves the surface, without noise; ``"intensity"``, one column, the
        cosine between surface and a beam from above, from 0 to 1, with noise.
    missing_rate : float, default=0.0
        Rate of missing clouds, met to the row.
    missing_pattern : {"random", "train_complete", "dependent"}, default="random"
        Which clouds are missing: any; none in the first half of the rows; or with odds that grow
        with the class, by a factor of 20 from the first of ``shapes`` to the last.
    return_parameters : bool, default=False
        Whether to return a Bunch that holds what was drawn too.
    random_state : int, RandomState instance or None, default=None
        Draws everything. The same int gives the same clouds whatever is missing.

    Returns
    -------
    X : DataFrame of shape (n_samples, 1)
        Column ``points``: float32 arrays (n_points, 3 + n_features), None where missing.
    y : ndarray of shape (n_samples,)
        Name of the shape.
    dataset : :class:`~sklearn.utils.Bunch`
        In place of ``(X, y)`` with ``return_parameters=True``: ``data`` and ``target`` are X and
        y, ``frame`` both of them; ``stretches`` (n_samples, 3), ``rotations`` (n_samples, 3, 3)
        and ``positions`` (n_samples, 3) say how a point p of the shape became
        ``rotations @ (stretches * p) + positions``, before the noise.

    See Also
    --------
    make_multimodal_classification : Other modalities, with a chosen amount of information.

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

    # A generator for each part: what one part draws does not shift the others.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=4)
    layout, placing, surface, gaps = (np.random.RandomState(seed) for seed in seeds)
    codes = layout.permutation(np.arange(n_samples) % len(names))
    counts = layout.randint(fewest, most + 1, size=n_samples)
    stretches = np.exp(placing.uniform(-stretch, stretch, (n_samples, 3)))
    rotations = _rotations(rotation, n_samples, placing)
    positions = placing.uniform(-1, 1, (n_samples, 3))
    absent = draw_missing(missing_pattern, rates, codes, gaps)[:, 0]

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
    """Different words out of some, in their order."""
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise TypeError(
            f"{function}: {parameter} must be a sequence of {list(choices)}, got {words!r}."
        )
    checked = tuple(check_choice(function, f"an entry of {parameter}", w, choices) for w in words)
    if len(set(checked)) < len(checked):
        raise ValueError(f"{function}: {parameter} names something twice, got {list(words)}.")
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
    """Rotation matrices (n, 3, 3)."""
    if rotation == "none":
        return np.tile(np.eye(3), (n, 1, 1))
    if rotation == "vertical":
        rotations = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (n, 1)))
    else:
        # The direction of four normal numbers is uniform, and so is the rotation it stands for.
        rotations = Rotation.from_quat(rng.standard_normal((n, 4)))
    return np.asarray(rotations.as_matrix())
