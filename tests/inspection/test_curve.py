"""Curves of planted data: a is most informative, b uninformative, c partly redundant with a."""

import numpy as np
import pandas as pd
import pytest
from counting import CountingModule, lines
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    LateFusionClassifier,
    LateFusionRegressor,
    ModuleEncoder,
)
from skmm.datasets import make_multimodal_classification, make_multimodal_regression
from skmm.inspection import missing_modality_curve

TRIPLES = [(name, "passthrough", [name]) for name in "abc"]
FOLDS = StratifiedKFold(3, shuffle=True, random_state=0)


@pytest.fixture(scope="module")
def data():
    return make_multimodal_classification(
        400,
        modalities={"a": "vector", "b": "vector", "c": "vector"},
        redundant=0,
        shared={("a", "c"): 0.4},
        private={"a": 0.6},
        random_state=0,
    )


@pytest.fixture(scope="module")
def fitted(data):
    X, y = data
    return LateFusionClassifier(TRIPLES).fit(X[:250], y[:250])


def means(curve):
    return curve.pivot_table("score", "fraction", "modality")


@pytest.mark.slow
def test_score_falls_only_without_informative_modalities(data, fitted):
    X, y = data
    curve = means(missing_modality_curve(fitted, X[250:], y[250:], random_state=0))
    assert (np.diff(curve["a"]) < -0.03).all()
    assert curve["a"][0] - curve["a"][1] > 0.2
    assert np.ptp(curve["b"]) < 0.02
    # The information of c is also in a.
    assert curve["c"][0] - curve["c"][1] < 0.05
    assert (curve.loc[0] == fitted.score(X[250:], y[250:])).all()
    assert curve["a"][1] == fitted.score(X[250:].assign(a=None), y[250:])


MODELS = {
    "late": LateFusionClassifier(TRIPLES),
    "weighted": LateFusionClassifier(TRIPLES, rule="weighted", weights=[1, 2, 3]),
    "early": make_pipeline(EarlyFusion(TRIPLES), LogisticRegression()),
    "joint": JointFusionClassifier(TRIPLES, max_epochs=2, random_state=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("modality", ["a"])
def test_modality_removed_everywhere_equals_estimator_without_it(data, name, modality):
    X, y = data[0][:150], data[1][:150]
    model = MODELS[name]
    curve = missing_modality_curve(
        model, X, y, modalities=[modality], fractions=[0, 1], when="both", cv=FOLDS, n_repeats=1
    )
    dropped = f"earlyfusion__{modality}" if name == "early" else modality
    without = clone(model).set_params(**{dropped: "drop"})
    for fraction, expected in ((0, model), (1, without)):
        scores = curve[curve["fraction"] == fraction].sort_values("split")["score"]
        assert scores.tolist() == cross_val_score(expected, X, y, cv=FOLDS).tolist()


def test_columns_and_shares_of_the_table(data):
    X, y = data
    X = X.assign(b=X["b"].where(np.arange(len(X)) % 4 > 0))  # a quarter is missing before
    model = LateFusionClassifier(TRIPLES, rule="mean")
    curve = missing_modality_curve(
        model, X, y, fractions=[0, 0.5, 1], cv=FOLDS, n_repeats=2, random_state=0
    )
    assert curve.columns.tolist() == [
        *("modality", "fraction", "split", "repeat", "missing", "score")
    ]
    keys = ["modality", "fraction", "split", "repeat"]
    assert len(curve) == len(curve[keys].drop_duplicates()) == 3 * 3 * 3 * 2
    shares = curve.groupby(["modality", "fraction"])["missing"].mean().round(2)
    assert shares["a"].tolist() == [0, 0.5, 1]
    # The fraction is of the rows with the modality: 1/4 + 3/4 * 1/2.
    np.testing.assert_allclose(shares["b"], [0.25, 0.62, 1], atol=0.02)
    # Only fractions between 0 and 1 are random.
    spread = curve.groupby(["modality", "fraction", "split"])["score"].nunique()
    assert (spread.unstack("fraction")[[0, 1]] == 1).all(axis=None)
    assert (spread.unstack("fraction")[0.5] > 1).any()


@pytest.mark.slow
def test_n_jobs_does_not_change_the_scores(data):
    X, y = data
    options = {"fractions": [0.5, 1], "when": "both", "cv": 2, "n_repeats": 2, "random_state": 3}
    model = LateFusionClassifier(TRIPLES, rule="mean")
    alone = missing_modality_curve(model, X[:100], y[:100], **options)
    shared = missing_modality_curve(model, X[:100], y[:100], n_jobs=2, **options)
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)


class Seen(ClassifierMixin, BaseEstimator):
    """Keeps the frames that it receives."""

    frames = []

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.frames.append(("fit", X))
        return self

    def predict(self, X):
        self.frames.append(("predict", X))
        return np.full(len(X), self.classes_[0])


def shown(X, y, **options):
    Seen.frames = []
    missing_modality_curve(
        Seen(), X, y, modalities={"pair": ["one", "two"]}, random_state=0, **options
    )
    return Seen.frames


def pairs(n=100):
    X = pd.DataFrame({"one": np.arange(n) * 1.0, "two": "text", "other": 1.0})
    return X, np.arange(n) % 2


def test_columns_given_by_name_for_any_estimator():
    X, y = pairs()
    frames = shown(X, y, fractions=[0.3], cv=2, n_repeats=1)
    assert [what for what, _ in frames] == ["fit", "predict"] * 2
    for what, frame in frames:
        expected = 15 if what == "predict" else 0
        assert frame["one"].isna().sum() == expected
        # All columns of the modality are removed together, and no other column.
        assert (frame["one"].isna() == frame["two"].isna()).all()
        assert frame["other"].notna().all()
    assert X.notna().all(axis=None)


def test_removal_from_training_rows():
    X, y = pairs()
    frames = shown(X, y, fractions=[0.3], cv=2, n_repeats=1, when="both")
    assert [frame["one"].isna().sum() for _, frame in frames] == [15] * 4


def test_rows_of_higher_fractions_include_those_of_lower_ones():
    X, y = pairs()
    frames = shown(X, y, fractions=[0.2, 0.5, 0.9], cv=2, n_repeats=2)
    lost = [set(f.index[f["one"].isna()]) for what, f in frames if what == "predict"]
    # Each split has two repeats of each fraction.
    for split in (lost[:6], lost[6:]):
        assert split[0] < split[2] < split[4] and split[1] < split[3] < split[5]
        assert split[0] != split[1]


def test_callable_removal_orders_the_rows():
    X, y = pairs()
    (_, fit), (_, frame), *_ = shown(
        X, y, fractions=[0.5], cv=2, n_repeats=1, removal=lambda X, y: X["one"] % 10, when="both"
    )
    for half in (fit, frame):
        gone = half["one"].isna()
        assert gone.mean() == 0.5
        assert (X.loc[half.index[gone], "one"] % 10).min() >= 5
    # Ties are broken at random: half the rows of the first class lose the modality.
    frames = shown(X, y, fractions=[0.25], cv=2, n_repeats=2, removal=lambda X, y: y)
    first, second = (f["one"].isna() for what, f in frames[:3] if what == "predict")
    assert set(y[first.index[first]]) == {1}
    assert (first != second).any()


def test_column_transformer_without_fusion():
    X, y = make_multimodal_classification(
        300, modalities={"t": "tabular", "u": "tabular"}, redundant=0, private={"t": 1.0},
        random_state=0,
    )  # fmt: skip
    X = X.select_dtypes("number")
    blocks = [(n, SimpleImputer(), [c for c in X if c.startswith(n)]) for n in "tu"]
    model = make_pipeline(ColumnTransformer(blocks), LogisticRegression()).fit(X[:200], y[:200])
    curve = means(missing_modality_curve(model, X[200:], y[200:], fractions=[0, 1]))
    assert curve.loc[0, "t"] - curve.loc[1, "t"] > 0.2
    assert abs(curve.loc[0, "u"] - curve.loc[1, "u"]) < 0.05


def test_integers_booleans_and_arrays():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"n": rng.integers(0, 9, 120), "flag": rng.random(120) > 0.5})
    y = (X["n"] > 4).to_numpy()
    model = HistGradientBoostingClassifier(max_iter=5)
    modalities = {"n": [0], "flag": [1]}
    options = {"modalities": modalities, "fractions": [0, 0.5, 1], "cv": 2, "random_state": 0}
    got = missing_modality_curve(model, X.astype(int), y, **options)
    of_array = missing_modality_curve(model, X.astype(int).to_numpy(), y, **options)
    pd.testing.assert_frame_equal(got, of_array)
    assert (np.diff(means(got)["n"]) < -0.1).all()


@pytest.mark.slow
def test_polars_frame_gives_the_same_table(data):
    pl = pytest.importorskip("polars", reason="needs the extra 'polars'")
    X, y = data
    frame = pl.DataFrame({name: list(X[name]) for name in X})
    options = {"fractions": [0, 0.5, 1], "cv": FOLDS, "n_repeats": 1, "random_state": 0}
    model = LateFusionClassifier(TRIPLES, rule="mean")
    expected = missing_modality_curve(model, X, y, **options)
    pd.testing.assert_frame_equal(missing_modality_curve(model, frame, y, **options), expected)


@pytest.mark.slow
def test_regression_scoring_and_groups(data):
    X, y = make_multimodal_regression(
        150, modalities={"a": "vector", "b": "vector"}, redundant=0, random_state=0
    )
    model = LateFusionRegressor(TRIPLES[:2], rule="mean")
    options = {"fractions": [1], "n_repeats": 1, "modalities": ["a"]}
    groups = np.arange(150) // 10
    by_name = missing_modality_curve(
        model, X, y, scoring="neg_mean_squared_error", cv=GroupKFold(3), groups=groups, **options
    )
    assert len(by_name) == 3 and (by_name["score"] < 0).all()
    assert (missing_modality_curve(model, X, y, **options)["score"] > 0).all()
    auc = make_scorer(roc_auc_score, response_method="predict_proba")
    model = LateFusionClassifier(TRIPLES, rule="mean")
    curve = missing_modality_curve(model, *data, scoring=auc, **options)
    assert curve["score"].max() <= 1


@pytest.mark.slow
def test_no_cell_is_encoded_again(tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"cell": list(rng.normal(size=(40, 4)).astype(np.float32)), "number": 1.0})
    y = np.arange(40) % 2
    encoder = ModuleEncoder(CountingModule(tmp_path / "log"), store=tmp_path / "store")
    model = LateFusionClassifier([("cell", encoder, ["cell"])], rule="mean")
    missing_modality_curve(model, X, y, when="both", fractions=[0, 0.5], cv=3, n_repeats=3)
    assert len(lines(tmp_path / "log")) == 40


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"modalities": ["photo"]}, ValueError, "has no modality 'photo'"),
        ({"fractions": [0, 1.2]}, ValueError, "number from 0 to 1, got 1.2"),
        ({"fractions": [-0.1]}, ValueError, "number from 0 to 1, got -0.1"),
        ({"fractions": [float("nan")]}, ValueError, "number from 0 to 1, got nan"),
        ({"fractions": ["half"]}, ValueError, "number from 0 to 1, got 'half'"),
        ({"fractions": []}, ValueError, "at least one number"),
        ({"fractions": [0.5, 0.5]}, ValueError, "no duplicates"),
        ({"removal": "rule"}, ValueError, "'random' or a callable"),
        ({"removal": lambda X, y: y[:3]}, ValueError, "one finite number for each"),
        ({"removal": lambda X, y: y * np.nan}, ValueError, "one finite number for each"),
        ({"when": "train"}, ValueError, "'test' or 'both', got 'train'"),
        ({"n_repeats": 0}, ValueError, "n_repeats must be an int of at least 1"),
        ({"scoring": ["accuracy", "roc_auc"]}, TypeError, "once for each metric"),
    ],
)
def test_bad_options(data, fitted, options, error, message):
    X, y = data
    with pytest.raises(error, match=message):
        missing_modality_curve(fitted, X, y, **options)


def test_bad_data(data, fitted):
    X, y = data
    with pytest.raises(ValueError, match="X has 400 rows and y has 3"):
        missing_modality_curve(fitted, X, y[:3])
    with pytest.raises(TypeError, match="DataFrame or an array of two dimensions, got Series"):
        missing_modality_curve(fitted, X["a"], y)
    with pytest.raises(ValueError, match="LogisticRegression holds neither a fusion nor"):
        missing_modality_curve(LogisticRegression(), X, y)


def test_error_of_an_estimator_names_the_removed_modality():
    X = pd.DataFrame({"a": np.arange(20.0), "b": 1.0})
    model = LogisticRegression().fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="NaN") as caught:
        missing_modality_curve(model, X, np.arange(20) % 2, modalities={"one": ["a"]})
    assert "modality 'one' was set to missing in 25%" in caught.value.__notes__[0]
