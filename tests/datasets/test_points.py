"""Shapes, areas, rotations, noise and missing clouds follow the parameters."""

import numpy as np
import pandas as pd
import pytest

from skmm.datasets import make_point_clouds

SHAPES = ("sphere", "cube", "cylinder", "cone", "torus")


def one(shape, **options):
    """Return centered points, normals and stretches of one shape, in float64."""
    options = {"rotation": "none", "noise": 0, "stretch": 0, "random_state": 0, **options}
    made = make_point_clouds(
        1, shapes=[shape], n_points=20_000, features=["normals"],
        return_parameters=True, **options,
    )  # fmt: skip
    cloud = made.data["points"].iloc[0].astype(np.float64)
    return cloud[:, :3] - made.positions[0], cloud[:, 3:], made.stretches[0]


def distance(shape, p):
    """Return a measure of the distance of points from the surface of an unstretched shape."""
    radius = np.hypot(p[:, 0], p[:, 1])
    if shape == "sphere":
        return np.abs(np.linalg.norm(p, axis=1) - 1)
    if shape == "cube":
        return np.abs(np.abs(p).max(axis=1) - 0.8)
    if shape == "cylinder":
        return np.abs(np.maximum(radius / 0.7, np.abs(p[:, 2]) / 0.8) - 1)
    if shape == "cone":
        return np.minimum(np.abs(p[:, 2] + 0.6), np.abs(radius - 0.5 * (1 - p[:, 2])))
    return np.abs(np.hypot(radius - 0.65, p[:, 2]) - 0.35)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stretch", [0, 0.8])
def test_points_are_on_the_surface_and_normals_point_outward(shape, stretch):
    points, normals, stretches = one(shape, stretch=stretch)
    assert distance(shape, points / stretches).max() < 1e-5
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    # A step along the normal leaves the surface. It points outward where its product with the
    # point is positive: all shapes but the torus are star-shaped about the origin.
    away = distance(shape, (points + 1e-3 * normals) / stretches)
    assert np.median(away) > 1e-4
    if shape != "torus":
        assert (np.einsum("ij,ij->i", points, normals) > -1e-5).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_points_are_uniform_by_area(shape):
    # Divergence theorem: the mean normal of a closed surface is zero.
    for stretch in (0, 0.8):
        _, normals, _ = one(shape, stretch=stretch)
        assert np.abs(normals.mean(axis=0)).max() < 4 / np.sqrt(len(normals))


def test_shares_of_points_are_shares_of_areas():
    points, normals, _ = one("cylinder")
    assert np.mean(np.abs(normals[:, 2]) < 0.5) == pytest.approx(1.6 / 2.3, abs=0.01)
    points, normals, _ = one("cone")
    assert np.mean(normals[:, 2] < -0.5) == pytest.approx(
        0.8 / (0.8 + np.hypot(0.8, 1.6)), abs=0.01
    )
    points, _, _ = one("torus")
    outside = np.hypot(points[:, 0], points[:, 1]) > 0.65
    assert outside.mean() == pytest.approx(0.5 + 0.35 / (np.pi * 0.65), abs=0.01)


@pytest.mark.parametrize("rotation", ["none", "vertical", "any"])
def test_parameters_map_the_shape_to_the_cloud(rotation):
    made = make_point_clouds(60, rotation=rotation, noise=0, return_parameters=True, random_state=1)
    for i, (cloud, shape) in enumerate(zip(made.data["points"], made.target, strict=True)):
        own = (cloud[:, :3] - made.positions[i]) @ made.rotations[i] / made.stretches[i]
        assert distance(shape, own).max() < 1e-5
    rotations = made.rotations
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (60, 1, 1)), atol=1e-12
    )
    axis = rotations[:, :, 2]  # the rotated z-axis
    if rotation == "any":
        assert np.abs(axis.mean(axis=0)).max() < 0.35 and np.abs(axis[:, 2]).min() < 0.1
    else:
        np.testing.assert_allclose(axis, np.tile([0, 0, 1], (60, 1)), atol=1e-12)
    assert (np.ptp(rotations[:, 0, 0]) > 1) == (rotation != "none")


def test_noise_has_the_given_standard_deviation():
    clean, noisy = (
        make_point_clouds(5, noise=noise, n_points=4000, features=["normals"], random_state=0)[0]
        for noise in (0, 0.1)
    )
    for a, b in zip(clean["points"], noisy["points"], strict=True):
        np.testing.assert_array_equal(a[:, 3:], b[:, 3:])
        assert (b - a)[:, :3].std() == pytest.approx(0.1, rel=0.05)


def test_features():
    X, _ = make_point_clouds(4, features=["intensity", "normals"], noise=0, random_state=0)
    for cloud in X["points"]:
        assert cloud.shape[1] == 7 and cloud.dtype == np.float32
        assert cloud[:, 3].min() >= 0 and cloud[:, 3].max() <= 1
        assert np.corrcoef(cloud[:, 3], np.abs(cloud[:, 6]))[0, 1] > 0.8


def test_classes_and_sizes():
    X, y = make_point_clouds(103, n_points=(3, 9), random_state=0)
    assert X.shape == (103, 1) and list(X.columns) == ["points"]
    counts = pd.Series(y).value_counts()
    assert set(counts.index) == set(SHAPES) and counts.max() - counts.min() <= 1
    sizes = {len(cloud) for cloud in X["points"]}
    assert sizes == set(range(3, 10))
    X, y = make_point_clouds(4, shapes=["cone"], n_points=1, random_state=0)
    assert set(y) == {"cone"} and all(cloud.shape == (1, 3) for cloud in X["points"])


def test_missing_clouds():
    full, y = make_point_clouds(50, random_state=3)
    X, same = make_point_clouds(50, missing_rate=0.3, random_state=3)
    gone = X["points"].isna()
    assert gone.sum() == 15 and (same == y).all()
    for kept, cloud in zip(X["points"][~gone], full["points"][~gone], strict=True):
        np.testing.assert_array_equal(kept, cloud)
    X, _ = make_point_clouds(50, missing_rate=0.4, missing_pattern="train_complete", random_state=0)
    assert not X["points"][:25].isna().any() and X["points"][25:].isna().sum() == 10
    X, y = make_point_clouds(
        400, missing_rate=0.3, missing_pattern="dependent", shapes=["cube", "torus"], random_state=0
    )
    rates = X["points"].isna().groupby(y).mean()
    assert rates["torus"] > rates["cube"] + 0.2


def test_same_seed_same_clouds():
    first, second, other = (make_point_clouds(6, random_state=seed)[0] for seed in (0, 0, 1))
    for a, b, c in zip(first["points"], second["points"], other["points"], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape != c.shape or not np.allclose(a, c)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shapes": []}, ValueError, "shapes is empty"),
        ({"shapes": "cube"}, TypeError, "shapes must be a sequence"),
        ({"shapes": ["cube", "cube"]}, ValueError, "must not repeat a name"),
        ({"shapes": ["pyramid"]}, ValueError, "an entry of shapes must be one of 'sphere'"),
        ({"features": ["color"]}, ValueError, "an entry of features must be one of 'normals'"),
        ({"n_points": 0}, ValueError, "n_points must be at least 1"),
        ({"n_points": (9, 3)}, ValueError, "highest n_points must be at least 9, got 3"),
        ({"n_points": (1, 2, 3)}, ValueError, "pair of the lowest and the highest"),
        ({"noise": -1}, ValueError, "noise must be at least 0"),
        ({"rotation": "random"}, ValueError, "rotation must be one of"),
        ({"missing_rate": 1.5}, ValueError, "missing_rate must be between 0 and 1"),
        ({"missing_pattern": "never_all"}, ValueError, "missing_pattern must be one of"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=f"make_point_clouds: .*{message}"):
        make_point_clouds(5, **options)
