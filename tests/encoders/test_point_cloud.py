"""PointCloudEncoder: kinds of cells, invariances, store, and learning."""

import io
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from columns import column_of
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    PointCloudEncoder,
    Trainer,
    config_context,
    infer_modalities,
    make_multimodal_pipeline,
)
from skmm.datasets import make_point_clouds
from skmm.exceptions import CellTypeError, MediaDecodeError, ModalityWarning

column = partial(column_of, "scan")


class Largest(nn.Module):
    """Largest outputs of a linear map over points of 3 columns."""

    def __init__(self, n_columns=3):
        super().__init__()
        self.linear = nn.Linear(n_columns, 16)

    def forward(self, points):
        return self.linear(points).relu().amax(1)


MODELS = ["geometric", "pointnet", Largest()]
IDS = ["geometric", "pointnet", "module"]


@pytest.fixture
def cloud():
    return np.random.default_rng(0).normal(size=(60, 3)) * [1, 2, 3]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def small(model, **options):
    options = {"n_points": 50, "random_state": 0, **options}
    if model != "geometric":
        options = {"max_epochs": 1, **options}
    if model == "pointnet":
        options = {"n_components": 8, **options}
    return PointCloudEncoder(model, **options)


def turn(seed=0):
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return matrix * np.linalg.det(matrix)


class TestCells:
    def test_kinds_of_cells(self, cloud, tmp_path):
        path = tmp_path / "scan.npy"
        path.write_bytes(npy(cloud))
        text = "\n".join(" ".join(map(repr, row)) for row in cloud.tolist())
        holed = np.insert(cloud, 7, np.nan, axis=0)
        cells = [cloud, cloud.tolist(), str(path), path, npy(cloud), text.encode(), holed]
        features = PointCloudEncoder().fit_transform(column(*cells, cloud[::-1]))
        assert features.dtype == np.float32 and features.std() > 0
        np.testing.assert_allclose(features, features[[0] * len(features)], atol=1e-6)

    @pytest.mark.parametrize("model", MODELS, ids=IDS)
    @pytest.mark.parametrize("rotation_invariant", [True, False])
    def test_any_number_of_points(self, model, rotation_invariant, cloud):
        if isinstance(model, nn.Module) and rotation_invariant:
            model = Largest(19)
        cells = [cloud, cloud[:2], cloud[:1], np.ones((9, 3)), None, cloud[:7]]
        X = column(*cells)
        encoder = small(model, rotation_invariant=rotation_invariant).fit(X)
        features = encoder.transform(X)
        assert features.shape == (6, encoder.n_outputs_)
        assert np.isnan(features).all(axis=1).tolist() == [False] * 4 + [True, False]
        assert np.isfinite(np.delete(features, 4, axis=0)).all()
        tokens, mask = encoder.transform_sequence(X)
        counts = [50, 2, 1, 9, 0, 7] if model == "pointnet" else [1, 1, 1, 1, 0, 1]
        assert mask.sum(axis=1).tolist() == counts
        assert tokens.shape == (*mask.shape, encoder.n_outputs_)
        if model == "pointnet":
            np.testing.assert_allclose(tokens[0][mask[0]].max(axis=0), features[0], atol=1e-6)
        else:
            np.testing.assert_allclose(tokens[0, 0], features[0], atol=1e-6)

    @pytest.mark.parametrize("model", MODELS, ids=IDS)
    def test_order_and_batch_do_not_matter(self, model):
        cells = list(make_point_clouds(12, n_points=(5, 90), random_state=0)[0]["points"])
        rng = np.random.default_rng(0)
        encoder = small(model, store=False).fit(column(*cells))
        features = encoder.transform(column(*cells))
        shuffled = encoder.transform(column(*(rng.permutation(cell) for cell in cells)))
        np.testing.assert_allclose(shuffled, features, atol=1e-5)
        one_by_one = encoder.set_params(batch_size=1).transform(column(*cells))
        np.testing.assert_allclose(one_by_one, features, atol=1e-5)

    @pytest.mark.parametrize("model", MODELS, ids=IDS)
    def test_invariances(self, model, cloud):
        if isinstance(model, nn.Module):
            model = Largest(19)
        cells = {"turned": cloud @ turn(), "moved": cloud + 5, "larger": cloud * 3}
        encoder = small(model, rotation_invariant=True, n_points=60).fit(column(cloud, cloud[:30]))
        plain, *others = encoder.transform(column(cloud, *cells.values()))
        assert plain.std() > 0.01
        np.testing.assert_allclose(others, np.tile(plain, (3, 1)), atol=2e-3)
        for name, other in [("moved", {"center": False}), ("larger", {"scale": False})]:
            encoder = small(model, rotation_invariant=True, n_points=60, **other)
            if isinstance(model, nn.Module):
                encoder.set_params(model=Largest(19 + (name == "moved")))
            a, b = encoder.fit(column(cloud, cloud[:30])).transform(column(cloud, cells[name]))
            assert np.abs(a - b).max() > 0.03, name

    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            (object(), "type object"),
            (3.5, "type float"),
            ("text" * 3000, "cannot be a path|such file|too long"),
            (np.ones((4, 2)), r"shape \(4, 2\)"),
            (np.ones((4, 5, 3)), r"shape \(4, 5, 3\)"),
            (np.ones((4, 5)), r"shape \(4, 5\) does not fit .* have 3 values.*use_features"),
        ],
    )
    @pytest.mark.parametrize("model", ["geometric", "pointnet"])
    def test_an_opaque_cell_is_named(self, model, cell, message, cloud):
        X = column(cloud, cell).set_axis(["first", "second"])
        with pytest.raises(
            (CellTypeError, MediaDecodeError),
            match=f"PointCloudEncoder: Column 'scan', row 'second': .*({message})",
        ):
            small(model).fit(X).transform(X)

    @pytest.mark.parametrize("model", ["geometric", "pointnet"])
    def test_features_must_agree(self, model, cloud):
        wide = np.column_stack([cloud, np.arange(60), np.arange(60) ** 2])
        with_one = column(wide[:, :4], None, wide[5:, :4])
        encoder = small(model).fit(with_one)
        assert encoder.n_point_features_ == 1
        for other in (cloud, wide):
            with pytest.raises(CellTypeError, match="row 0: .*does not fit.* 4 values"):
                encoder.transform(column(other))
        assert encoder.fit(column(None, wide)).n_point_features_ == 2
        plain = small(model, use_features=False).fit(column(wide, cloud))
        assert plain.n_point_features_ == 0
        a, b = plain.transform(column(cloud, cloud[:, [0, 1, 2, 0]]))
        np.testing.assert_allclose(a, b, atol=1e-6)

    def test_features_distinguish_equal_shapes(self):
        rng = np.random.default_rng(0)
        cells = [rng.normal(size=(60, 4)) + [0, 0, 0, 2 * (i % 2)] for i in range(80)]
        y = np.arange(80) % 2
        scores = []
        for use_features in (True, False):
            encoder = PointCloudEncoder(use_features=use_features)
            features = StandardScaler().fit_transform(encoder.fit_transform(column(*cells)))
            scores.append(
                LogisticRegression().fit(features[:40], y[:40]).score(features[40:], y[40:])
            )
        assert scores[0] > 0.9 and scores[1] < 0.75

    def test_names_and_two_columns(self, cloud):
        X = column(cloud, None).assign(other=column(cloud[:9], cloud)["scan"])
        encoder = PointCloudEncoder(rotation_invariant=True).set_output(transform="pandas")
        features = encoder.fit_transform(X)
        assert features.shape == (2, 236)
        assert list(features.columns[[0, 118]]) == ["scan_000", "other_000"]
        np.testing.assert_array_equal(features.iloc[0, :118], features.iloc[1, 118:])
        assert features.isna().any(axis=1).tolist() == [False, True]


class TestUnreadable:
    @pytest.fixture(name="X")
    def frame(self, cloud, tmp_path):
        path = tmp_path / "cut.npy"
        path.write_bytes(npy(cloud)[:200])
        cells = [cloud, path, b"ply\nnothing", tmp_path / "gone.ply", cloud * np.nan, [], cloud + 1]
        return column(*cells).set_axis(list("abcdefg"))

    @pytest.mark.parametrize("row", list("bcdef"))
    @pytest.mark.parametrize("model", ["geometric", "pointnet"])
    def test_is_named(self, row, model, X):
        encoder = small(model).fit(X.loc[["a", "g"]])
        with pytest.raises(MediaDecodeError, match="PointCloudEncoder: .*on_error") as caught:
            encoder.transform(X.loc[["a", row, "g"]])
        assert (caught.value.column, caught.value.row) == ("scan", row)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.row) == (str(caught.value), row)

    @pytest.mark.parametrize("model", ["geometric", "pointnet"])
    def test_counts_as_missing_if_asked(self, model, X):
        encoder = small(model, on_error="missing").set_output(transform="pandas")
        with pytest.warns(ModalityWarning, match="5 unreadable cells as absent: row 'b' of 'scan'"):
            features = encoder.fit(X.loc[list("bacdefg")]).transform(X)
        assert features.isna().all(axis=1).tolist() == [False] + [True] * 5 + [False]
        pd.testing.assert_frame_equal(
            features.loc[["a", "g"]], encoder.transform(X.loc[["a", "g"]])
        )

    def test_a_column_without_clouds(self, cloud):
        encoder = PointCloudEncoder().fit(column(None, None))
        assert np.isfinite(encoder.transform(column(cloud))).all()
        with pytest.raises(ValueError, match="'scan' is empty in every training row"):
            small("pointnet").fit(column(None, None))


OTHERS = [
    {"n_points": 20},
    {"rotation_invariant": True},
    {"center": False},
    {"scale": False},
    {"use_features": False},
]


class TestStore:
    def test_encoded_once(self, store, cloud, tmp_path):
        (tmp_path / "scan.npy").write_bytes(npy(cloud))
        X = column(cloud, cloud.copy(), None, cloud.tolist(), tmp_path / "scan.npy", npy(cloud))
        for _ in range(2):
            PointCloudEncoder(random_state=None).fit_transform(X)
        assert store.stats()["encoded"] == 2  # an array, and a file
        PointCloudEncoder(batch_size=1, random_state=1).fit_transform(X)
        assert store.stats()["encoded"] == 2

    @pytest.mark.parametrize("other", OTHERS)
    def test_other_parameters_give_other_vectors(self, store, other, cloud):
        X = column(np.column_stack([cloud + 3, cloud[:, 0]]))
        first = PointCloudEncoder().fit_transform(X)
        second = PointCloudEncoder(**other).fit_transform(X)
        assert store.stats()["encoded"] == 2
        fresh = PointCloudEncoder(store=False, **other).fit_transform(X)
        np.testing.assert_array_equal(second, fresh)
        assert first.shape != second.shape or not np.allclose(first, second, atol=1e-3)

    def test_points_of_a_surface(self, store):
        pytest.importorskip("trimesh", reason="meshes need the extra 'points'")
        mesh = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n"
        few, many = (PointCloudEncoder(n_points=n).fit_transform(column(mesh)) for n in (30, 300))
        assert store.stats()["encoded"] == 2 and not np.array_equal(few, many)
        fresh = PointCloudEncoder(n_points=30, store=False).fit_transform(column(mesh))
        np.testing.assert_array_equal(few, fresh)

    def test_a_changed_file_is_encoded_again(self, store, cloud, tmp_path):
        path = tmp_path / "scan.npy"
        results = []
        for points in (cloud, cloud**2, cloud):
            path.write_bytes(npy(points))
            results.append(PointCloudEncoder().fit_transform(column(path)))
        np.testing.assert_array_equal(results[0], results[2])
        assert not np.allclose(results[0], results[1], atol=1e-2)
        assert store.stats()["encoded"] == 2

    def test_a_pickle_is_small_and_works(self, store, cloud):
        encoder = PointCloudEncoder().fit(column(cloud))
        pickled = pickle.dumps(encoder)
        assert len(pickled) < 5_000
        expected = encoder.transform(column(cloud))
        with config_context(store=False):
            again = pickle.loads(pickled).transform(column(cloud))
        np.testing.assert_allclose(again, expected, atol=1e-6)


def score(features, y, n_train):
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return head.fit(features[:n_train], y[:n_train]).score(features[n_train:], y[n_train:])


class TestLearning:
    def test_geometry_distinguishes_shapes_of_equal_extents(self):
        X, y = make_point_clouds(300, n_points=(64, 256), random_state=0)
        extents = np.sort([np.ptp(cloud, axis=0) for cloud in X["points"]], axis=1)
        assert score(extents, y, 200) < 0.65
        features = PointCloudEncoder(rotation_invariant=True).fit_transform(X)
        assert score(features, y, 200) > 0.9

    def test_rotation_invariance_helps_with_random_orientations(self):
        options = {"n_points": (64, 200), "random_state": 0}
        upright, y = make_point_clouds(100, rotation="none", **options)
        turned, y_turned = make_point_clouds(100, rotation="any", **options)
        X = pd.concat([upright, turned], ignore_index=True)
        y = np.concatenate([y, y_turned])
        scores = {
            i: score(PointCloudEncoder(rotation_invariant=i).fit_transform(X), y, 100)
            for i in (True, False)
        }
        assert scores[True] > 0.93 and scores[False] < scores[True] - 0.1

    def test_orientation_is_used_without_rotation_invariance(self):
        # The same shape, upright or lying on its side.
        X, _ = make_point_clouds(
            120, shapes=["cone"], rotation="vertical", n_points=(64, 128), random_state=0
        )
        y = np.arange(120) % 2
        cells = [c[:, [1, 2, 0]] if lies else c for c, lies in zip(X["points"], y, strict=True)]
        with_orientation, without = (
            score(PointCloudEncoder(rotation_invariant=i).fit_transform(column(*cells)), y, 80)
            for i in (False, True)
        )
        assert with_orientation > 0.95 and without < 0.7

    @pytest.mark.slow
    def test_pointnet_learns_from_scratch(self):
        X, y = make_point_clouds(300, rotation="none", n_points=(64, 128), random_state=0)
        encoder = PointCloudEncoder(
            "pointnet", n_points=64, n_components=32, max_epochs=15, random_state=0
        )
        features = encoder.fit(X[:200], y[:200]).transform(X)
        assert score(features, y, 200) > 0.85
        assert encoder.history_[-1]["train_loss"] < 0.4 * encoder.history_[0]["train_loss"]
        extents = np.stack([np.ptp(cloud, axis=0) for cloud in X["points"]])
        assert score(extents, y, 200) < 0.75

    @pytest.mark.slow
    def test_pointnet_learns_without_y(self):
        X, _ = make_point_clouds(150, rotation="none", stretch=0.8, n_points=60, random_state=0)
        encoder = PointCloudEncoder(
            "pointnet", n_points=40, n_components=16, max_epochs=7, batch_size=16, random_state=0
        ).fit(X)
        assert encoder.history_[-1]["train_loss"] < 0.6 * encoder.history_[0]["train_loss"]

    def test_random_state(self, cloud):
        X, y = column(cloud, cloud[:20], cloud[20:]), [0, 1, 1]
        first, second = (small("pointnet").fit(X, y).transform(X) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_a_module_is_copied(self, cloud):
        module = Largest()
        before = module.linear.weight.detach().clone()
        encoder = small(module, max_epochs=3, learning_rate=0.1).fit(
            column(cloud, cloud[:9]), [0, 1]
        )
        assert (module.linear.weight == before).all()
        assert (encoder._engine.backbone.module.linear.weight != before).any()


class TestInFusions:
    @pytest.fixture
    def scans(self):
        X, y = make_point_clouds(
            120, shapes=["sphere", "cube"], n_points=(30, 60), missing_rate=0.1, random_state=0
        )
        return X.rename(columns={"points": "lidar_points"}), y

    def test_modality_is_inferred(self, scans):
        assert infer_modalities(scans[0]) == {"lidar_points": "pointcloud"}
        assert infer_modalities(pd.DataFrame({"scan": ["a.ply", "b.pcd"]})) == {
            "scan": "pointcloud"
        }

    @pytest.mark.parametrize("modalities", ["auto", [("shape", "pointcloud", ["lidar_points"])]])
    def test_early_fusion(self, scans, modalities):
        X, y = scans
        model = make_multimodal_pipeline("classifier", modalities=modalities)
        model.fit(X[:80], y[:80])
        present = ~X["lidar_points"].isna()
        assert model.score(X[80:][present[80:]], y[80:][present[80:]]) > 0.9
        features = EarlyFusion(modalities).fit_transform(X)
        assert np.isfinite(np.asarray(features)).all()

    def test_joint_fusion_trains_a_pointnet(self):
        X, y = make_point_clouds(
            120,
            shapes=["sphere", "cone"],
            rotation="none",
            n_points=(40, 60),
            missing_rate=0.1,
            random_state=0,
        )
        X = X.assign(weight=np.random.default_rng(0).normal(size=len(X)))
        encoder = PointCloudEncoder("pointnet", n_points=40, n_components=16)
        fusion = JointFusionClassifier(
            [("shape", encoder, ["points"]), ("weight", "passthrough", ["weight"])],
            n_components=16,
            max_epochs=15,
            trainer=Trainer(batch_size=16),
            random_state=0,
        )
        fusion.fit(X[:80], y[:80])
        present = ~X["points"].isna()
        assert fusion.score(X[80:][present[80:]], y[80:][present[80:]]) > 0.8
        assert fusion.predict(X.assign(points=None)).shape == (120,)


def test_a_depth_map_as_a_cloud():
    """The recipe of the user guide, for a ball."""
    fx = fy = 100.0
    cx = cy = 32.0
    v, u = np.mgrid[:64, :64]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], axis=-1)
    # Depth at which a ray hits a ball of radius 0.5 around (0, 0, 2), NaN if it misses.
    a, b, c = (rays**2).sum(-1), -4 * rays[..., 2], 4 - 0.25
    within = b**2 - 4 * a * c
    depth = np.where(within > 0, (-b - np.sqrt(within.clip(0))) / (2 * a), np.nan)

    points = np.stack([(u - cx) * depth / fx, (v - cy) * depth / fy, depth], axis=-1)
    cloud = points.reshape(-1, 3)

    points = cloud[np.isfinite(cloud).all(axis=1)]
    np.testing.assert_allclose(np.linalg.norm(points - [0, 0, 2], axis=1), 0.5, atol=1e-9)
    encoder = PointCloudEncoder().fit(column(cloud))
    a, b = encoder.transform(column(cloud, points))
    np.testing.assert_array_equal(a, b)
