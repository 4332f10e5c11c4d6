"""TimeSeriesEncoder: kinds of cells, parameters, learning, real motions."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from real_data import load_real
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    LateFusionClassifier,
    ModuleEncoder,
    TimeSeriesEncoder,
    Trainer,
    infer_modalities,
    make_multimodal_pipeline,
)
from skmm._compose._default_encoder import default_encoder
from skmm.exceptions import CellTypeError, MediaDecodeError, ModalityWarning

SHORT = {"max_epochs": 2, "random_state": 0}
SMALL = {"n_components": 6, **SHORT}


def projection():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(2, 5)


MODELS = {
    "minirocket": lambda **options: TimeSeriesEncoder(n_kernels=168, random_state=0, **options),
    "inception": lambda **options: TimeSeriesEncoder("inception", **SMALL, **options),
    "gru": lambda **options: TimeSeriesEncoder("gru", **SMALL, **options),
    "module": lambda **options: TimeSeriesEncoder(projection(), **SHORT, **options),
}


def column(*cells, name="motion"):
    return pd.DataFrame({name: pd.Series(list(cells), dtype=object)})


def noise(n=8, seed=0, n_channels=2):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(10 + 3 * (i % 5), n_channels)) for i in range(n)]


def bursts(n, seed=0):
    """Series of several lengths; those of class 1 have a burst in the second channel."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    cells = []
    for label in y:
        cell = rng.normal(size=(rng.integers(30, 50), 2))
        start = rng.integers(0, len(cell) - 8)
        cell[start : start + 8, 1] += 4 * label
        cells.append(cell)
    return column(*cells), y


@pytest.fixture(params=MODELS)
def build(request):
    return MODELS[request.param]


# ---- cells -----------------------------------------------------------------------------------


def test_kinds_of_cells(build):
    array = noise(1)[0].astype(np.float32)
    array[2, 0] = np.nan
    frame = pd.DataFrame(array, index=pd.date_range("2026-01-01", periods=len(array)))
    cells = (array, array.astype(float), frame, array.tolist(), torch.from_numpy(array))
    X = column(*noise(), *cells)
    vectors = build().fit_transform(X)[8:]
    for vector in vectors:
        np.testing.assert_array_equal(vector, vectors[0])


def test_a_series_of_one_channel_needs_no_second_axis():
    flat = [cell[:, 0] for cell in noise()]
    X = column(*flat)
    encoder = MODELS["minirocket"]()
    expected = encoder.fit_transform(X)
    assert encoder.n_channels_ == 1
    np.testing.assert_array_equal(encoder.transform(column(*map(pd.Series, flat))), expected)
    np.testing.assert_array_equal(encoder.transform(column(*[c[:, None] for c in flat])), expected)


def test_an_array_of_series_is_a_column(build):
    stack = np.stack([cell[:10] for cell in noise()])
    np.testing.assert_array_equal(
        build().fit_transform(stack), build().fit_transform(column(*stack))
    )


def test_missing(build):
    X = column(*noise(), None, float("nan"), pd.NA)
    features = build().fit_transform(X, [0, 1] * 5 + [0])
    assert np.isnan(features).all(axis=1).tolist() == [False] * 8 + [True] * 3
    assert np.isfinite(features[:8]).all()


def test_extreme_cells(build):
    encoder = build().fit(column(*noise()))
    one = np.array([[0.5, -1.0]])
    dead = np.array([[0.5, np.nan], [1.0, np.nan]])  # a channel without any value
    constant = np.full((40, 2), 7.0)
    large = 1e6 * noise(1)[0]
    features = encoder.transform(column(one, dead, constant, large, noise(1)[0][:8]))
    assert np.isfinite(features).all()
    assert encoder.transform_sequence(column(one)).mask.sum() == 1


def test_fitted_on_series_of_one_timestamp(build):
    X = column(*np.random.default_rng(0).normal(size=(6, 1, 2)))
    features = build().fit_transform(X, [0, 1] * 3)
    assert np.isfinite(features).all() and len(np.unique(features, axis=0)) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        ([0.0, np.inf], MediaDecodeError, "inf at timestamp 1"),
        (np.zeros((0, 2)), MediaDecodeError, "no timestamps"),
        (np.full((3, 2), np.nan), MediaDecodeError, "nothing but NaN"),
        ("walk.csv", CellTypeError, "a cell of type str. Load the file"),
        (np.zeros((2, 2, 2)), CellTypeError, r"shape \(2, 2, 2\)"),
        (noise(1, n_channels=3)[0], CellTypeError, r"shape \(10, 3\).*has 2 channels"),
    ],
)
def test_bad_cells(cell, error, message):
    where = "TimeSeriesEncoder: Column 'motion', row 'b': "
    good = noise(3)
    bad = column(good[0], cell, good[2]).set_axis(["a", "b", "c"])
    encoder = MODELS["minirocket"]()
    for verb in (encoder.fit, encoder.fit(column(*good)).transform):
        with pytest.raises(error, match=where + ".*" + message):
            verb(bad)
    tolerant = MODELS["minirocket"](on_error="missing").fit(column(*good))
    if error is CellTypeError:
        with pytest.raises(error, match=message):
            tolerant.transform(bad)
        return
    with pytest.warns(ModalityWarning, match="1 unreadable cell as absent: row 'b' of 'motion'"):
        features = tolerant.transform(bad)
    assert np.isnan(features).all(axis=1).tolist() == [False, True, False]
    with pytest.warns(ModalityWarning):
        tolerant.fit(column(cell, *good))  # the number of channels is that of the others
    assert tolerant.n_channels_ == 2


def test_nothing_to_train_on():
    for model in MODELS.values():
        with pytest.raises(ValueError, match="TimeSeriesEncoder has no cell to train on: .*motion"):
            model().fit(column(None, None))
    with pytest.warns(ModalityWarning), pytest.raises(ValueError, match="no cell to train on"):
        MODELS["minirocket"](on_error="missing").fit(column([np.inf], [np.nan]))


def test_a_matrix_is_refused():
    with pytest.raises(CellTypeError, match="Put each series into one cell.*list"):
        MODELS["minirocket"]().fit(np.random.default_rng(0).normal(size=(5, 20)))


def test_columns_need_one_number_of_channels():
    X = column(*noise(), name="acc").assign(gyr=noise(n_channels=3))
    with pytest.raises(CellTypeError, match="Column 'gyr', row 0: .* Use another encoder"):
        MODELS["minirocket"]().fit(X)


# ---- parameters --------------------------------------------------------------------------


def test_max_length(build):
    X = column(*noise())
    cut = column(*[cell[:7] for cell in noise()])
    encoder = build(max_length=7)
    np.testing.assert_array_equal(encoder.fit_transform(X), build().fit_transform(cut))
    assert encoder.transform_sequence(X).tokens.shape[1] <= 7
    with pytest.raises(MediaDecodeError, match="nothing but NaN"):
        encoder.transform(column(np.vstack([np.full((7, 2), np.nan), np.ones((5, 2))])))


def test_widths():
    X = column(*noise())
    for n_kernels, width in ((1, 84), (84, 84), (500, 420)):
        encoder = TimeSeriesEncoder(n_kernels=n_kernels, random_state=0).fit(X)
        assert encoder.n_outputs_ == width == len(encoder.get_feature_names_out())
    assert TimeSeriesEncoder().fit(X).n_outputs_ == 9996
    assert MODELS["gru"]().fit(X, [0, 1] * 4).n_outputs_ == 6


def test_random_state():
    X = column(*noise())
    same = [TimeSeriesEncoder(n_kernels=168, random_state=0).fit_transform(X) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    other = TimeSeriesEncoder(n_kernels=168, random_state=1).fit_transform(X)
    assert (other != same[0]).any()


def test_vectors_of_columns_are_concatenated(build):
    X = column(*noise(), name="left").assign(right=noise(seed=1))
    encoder = build().fit(X, [0, 1] * 4)
    features = encoder.transform(X)
    swapped = encoder.transform(pd.DataFrame({"left": X["right"], "right": X["left"]}))
    half = features.shape[1] // 2
    np.testing.assert_allclose(features[:, :half], swapped[:, half:], atol=1e-5)


def test_tokens(build):
    X = column(*noise())
    encoder = build().fit(X, [0, 1] * 4)
    tokens, mask = encoder.transform_sequence(X)
    if encoder.model == "minirocket":  # its features have no position in time
        assert mask.shape == (8, 1) and mask.all()
        np.testing.assert_array_equal(tokens[:, 0], encoder.transform(X))
    else:
        assert mask.sum(axis=1).tolist() == [len(cell) for cell in X["motion"]]


@pytest.mark.slow
def test_a_vector_does_not_depend_on_its_batch(build):
    X = column(*noise(20))
    encoder = build(batch_size=7).fit(X, [0, 1] * 10)
    together = encoder.transform(X)
    for i in (0, 4, 19):
        np.testing.assert_allclose(encoder.transform(X.iloc[[i]]), together[[i]], atol=1e-5)
    alone = encoder.set_params(batch_size=1).transform(X)
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_vectors_are_not_stored(build, store):
    X = column(*noise())
    build().fit(X, [0, 1] * 4).transform(X)
    assert store.stats()["n_embeddings"] == 0


def test_pickle(build):
    X = column(*noise())
    encoder = build().fit(X, [0, 1] * 4)
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    assert encoder.checkpoint_ is None


def test_a_copy_of_the_module_is_trained():
    module = projection()
    before = module.weight.clone()
    TimeSeriesEncoder(module, **SHORT).fit(column(*noise()), [0, 1] * 4)
    assert torch.equal(module.weight, before)


# ---- learning ------------------------------------------------------------------------------


class Peak(nn.Module):
    """A module without masks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 5, padding=2)

    def forward(self, x):
        return self.conv(x.transpose(1, 2)).amax(dim=2)


def learner(name):
    if name == "minirocket":
        return TimeSeriesEncoder(n_kernels=1000, random_state=0)
    model, width = (Peak(), {}) if name == "module" else (name, {"n_components": 16})
    return TimeSeriesEncoder(model, max_epochs=8, learning_rate=1e-2, random_state=0, **width)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "minirocket",
        "module",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("inception", "gru")),
    ],
)
def test_in_a_pipeline(name):
    X, y = bursts(200)
    model = make_pipeline(learner(name), StandardScaler(), LogisticRegression(max_iter=1000))
    assert model.fit(X[:120], y[:120]).score(X[120:], y[120:]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception", "gru"])
def test_without_y_it_learns_to_reconstruct(name):
    rng = np.random.default_rng(0)
    slopes = [
        np.linspace(-1, 1, rng.integers(10, 30))[:, None] * rng.normal(size=2) for _ in "x" * 80
    ]
    encoder = learner(name).fit(column(*slopes))
    assert encoder.history_[-1]["train_loss"] < 0.7 * encoder.history_[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"),
    [pytest.param("gru", "attention", marks=pytest.mark.slow), ("module", "attention")],
)
def test_in_a_joint_fusion(name, strategy):
    X, y = bursts(200)
    X["number"] = np.random.default_rng(0).normal(size=200)
    X.loc[::10, "motion"] = None
    model = JointFusionClassifier(
        [("motion", learner(name), ["motion"]), ("number", "passthrough", ["number"])],
        strategy=strategy,
        n_components=16,
        max_epochs=12,
        trainer=Trainer(learning_rate=5e-3),
        random_state=0,
    )
    model.fit(X[:140], y[:140])
    test = X[140:][X["motion"][140:].notna()]
    assert model.score(test, y[test.index]) > 0.85
    # The prediction of a row does not depend on the padding of its batch.
    longest = column(np.zeros((300, 2))).assign(number=0.0)
    with_long = model.predict_proba(pd.concat([test[:5], longest]))[:5]
    np.testing.assert_allclose(with_long, model.predict_proba(test[:5]), atol=1e-4)
    assert np.isfinite(model.predict_proba(X[140:])).all()


# ---- default encoder and other libraries -----------------------------------------------------


@pytest.mark.slow
def test_default_encoder():
    X, y = bursts(60)
    X["level"] = np.arange(60) % 7
    assert infer_modalities(X) == {"motion": "timeseries", "level": "tabular"}
    assert isinstance(default_encoder("timeseries"), TimeSeriesEncoder)
    model = make_multimodal_pipeline("classifier")
    assert model.fit(X, y).score(X, y) > 0.9


def as_cases(X):
    """A column of arrays in the format of aeon: (n_cases, n_channels, n_timestamps)."""
    return np.stack([cell.T for cell in X.iloc[:, 0]])


@pytest.mark.aeon
def test_an_aeon_transformer_in_a_triple():
    aeon = pytest.importorskip(
        "aeon.transformations.collection.feature_based",
        reason="aeon has an environment of its own, see `make test`",
    )
    X, y = bursts(120)
    X["motion"] = [cell[:30] for cell in X["motion"]]
    X.loc[3, "motion"] = None
    transformer = aeon.SevenNumberSummary()  # others compile for a minute
    encoder = make_pipeline(FunctionTransformer(as_cases), transformer)
    model = make_pipeline(EarlyFusion([("motion", encoder, ["motion"])]), LogisticRegression())
    assert model.fit(X[:80], y[:80]).score(X[80:], y[80:]) > 0.6


class Patches(nn.Module):
    """A time-series model of transformers as a module; its tokens are patches."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(past_values=x).last_hidden_state.mean(dim=1)  # over the channels


def test_a_model_of_transformers_in_a_module_encoder(store):
    transformers = pytest.importorskip("transformers")
    config = transformers.PatchTSTConfig(
        num_input_channels=2, context_length=10, patch_length=5, patch_stride=5,
        d_model=8, num_attention_heads=2, ffn_dim=8, num_hidden_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    module = Patches(transformers.PatchTSTModel(config).eval())
    X = column(*[cell[:10] for cell in noise()])
    encoder = ModuleEncoder(module)
    assert encoder.fit_transform(X).shape == (8, 8)
    assert encoder.transform_sequence(X).mask.shape == (8, 2)
    assert store.stats()["n_embeddings"] > 0  # frozen, so its vectors are stored


# ---- real motions ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def motions():
    frame = load_real("basicmotions")
    train = frame["split"] == "train"
    assert train.sum() == 40 and len(frame) == 80
    return frame, train


def motion_triples():
    return [
        (name, TimeSeriesEncoder(random_state=0), [name]) for name in ("accelerometer", "gyroscope")
    ]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("names", [["accelerometer"], ["accelerometer", "gyroscope"]])
def test_basic_motions(motions, names):
    frame, train = motions
    triples = [triple for triple in motion_triples() if triple[0] in names]
    classifier = RidgeClassifierCV(np.logspace(-3, 3, 10))
    model = make_pipeline(EarlyFusion(triples), StandardScaler(), classifier)
    model.fit(frame[train], frame["label"][train])
    assert model.score(frame[~train], frame["label"][~train]) == 1.0


@pytest.mark.data
@pytest.mark.slow
def test_basic_motions_of_any_length_with_gaps(motions):
    frame, train = motions
    rng = np.random.default_rng(0)
    X = frame[["accelerometer", "gyroscope"]].copy()
    for name in X:
        cells = []
        for cell in X[name]:
            cell = cell[: rng.integers(60, 101)].copy()
            cell[rng.random(cell.shape) < 0.1] = np.nan
            cells.append(cell)
        X[name] = cells
    X.loc[rng.choice(80, 8, replace=False), "gyroscope"] = None
    model = LateFusionClassifier(motion_triples(), rule="mean")
    model.fit(X[train], frame["label"][train])
    assert model.score(X[~train], frame["label"][~train]) >= 0.95
