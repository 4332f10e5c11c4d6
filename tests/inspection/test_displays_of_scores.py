"""Displays of importance, Shapley shares, curves and reports show the right numbers."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from skmm import LateFusionClassifier
from skmm.datasets import make_multimodal_classification
from skmm.exceptions import FusionWarning
from skmm.inspection import (
    FusionReport,
    FusionReportDisplay,
    MissingModalityCurveDisplay,
    ModalityImportanceDisplay,
    ModalityShapleyDisplay,
    fusion_report,
    missing_modality_curve,
    modality_importance,
    modality_shapley,
)

matplotlib.use("Agg")
from matplotlib import colors  # noqa: E402

VALUES = np.array([[0.01, -0.02, 0.0], [0.3, 0.2, 0.1]])


@pytest.fixture(scope="module")
def fitted():
    X, y = make_multimodal_classification(
        240, modalities={"voice": "vector", "face": "vector"}, redundant=0.2,
        private={"voice": 0.6, "face": 0.2}, missing_rate=0.2, random_state=0,
    )  # fmt: skip
    triples = [(name, "passthrough", [name]) for name in X.columns]
    model = LateFusionClassifier(triples, rule="mean").fit(X[:120], y[:120])
    return model, X[120:], y[120:]


def labels(display):
    return [label.get_text() for label in display.ax_.get_yticklabels()]


# --- importance -------------------------------------------------------------------------------


def test_bars_are_the_importances():
    display = ModalityImportanceDisplay(VALUES, ["a", "b"], score=0.9, score_name="accuracy").plot()
    assert labels(display) == ["b", "a"]
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], VALUES[::-1].mean(1))
    np.testing.assert_allclose([p.get_xdata() for p in display.points_], VALUES[::-1])
    # Each repeat is in the row of its bar.
    for row, points in enumerate(display.points_):
        assert np.abs(points.get_ydata() - row).max() < 0.3
    assert "accuracy lost" in display.ax_.get_xlabel()
    assert "0.9 as it is" in display.ax_.get_xlabel()
    lower, upper = sorted(display.ax_.get_ylim())
    assert lower < 0
    assert upper > 1
    assert display.ax_.yaxis_inverted()  # the first row on top


def test_importance_in_the_order_given():
    display = ModalityImportanceDisplay(VALUES, ["a", "b"]).plot(sort=False)
    assert labels(display) == ["a", "b"]
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], VALUES.mean(1))


def test_importance_of_many_repeats_has_deviations():
    values = np.random.default_rng(0).normal(size=(2, 40))
    display = ModalityImportanceDisplay(values, ["a", "b"]).plot(sort=False)
    assert display.points_ == []
    segments = display.errors_[2][0].get_segments()
    reach = [segment[1, 0] - segment[0, 0] for segment in segments]
    np.testing.assert_allclose(reach, 2 * values.std(axis=1))
    assert ModalityImportanceDisplay(values[:, :1], ["a", "b"]).plot().points_ == []


def test_importance_from_an_estimator(fitted):
    display = ModalityImportanceDisplay.from_estimator(
        *fitted, scoring="roc_auc", n_repeats=4, random_state=0, sort=False
    )
    expected = modality_importance(*fitted, scoring="roc_auc", n_repeats=4, random_state=0)
    np.testing.assert_array_equal(display.importances, expected.importances)
    assert "roc auc lost" in display.ax_.get_xlabel()
    assert "accuracy" in ModalityImportanceDisplay.from_estimator(*fitted).ax_.get_xlabel()


def test_importance_refuses_several_metrics(fitted):
    several = modality_importance(*fitted, scoring=["accuracy", "roc_auc"], n_repeats=1)
    with pytest.raises(ValueError, match=r"pass result\['accuracy'\]"):
        ModalityImportanceDisplay.from_predictions(several)
    display = ModalityImportanceDisplay.from_predictions(several["roc_auc"], score_name="AUC")
    assert display.ax_.get_xlabel().startswith("AUC lost")


def test_importance_of_wrong_shape():
    with pytest.raises(ValueError, match=r"for 2 modalities, got \(3,\)"):
        ModalityImportanceDisplay([1, 2, 3], ["a", "b"]).plot()


# --- Shapley ----------------------------------------------------------------------------------


def test_bars_lead_from_the_base_to_the_score():
    display = ModalityShapleyDisplay(
        ["a", "b", "c"], score_values=[0.1, 0.3, -0.05], base_score=0.5, score=0.85
    ).plot()
    assert display.order_ == ["b", "a", "c"]
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], [0.3, 0.1, -0.05])
    np.testing.assert_allclose([bar.get_x() for bar in display.bars_], [0.5, 0.8, 0.9])
    faces = {colors.to_hex(bar.get_facecolor()) for bar in display.bars_}
    assert len(faces) == 2  # positive and negative shares
    assert "0.500 without any modality, 0.850 with all" in display.ax_.get_xlabel()


def shares(n=40, n_outputs=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2, n_outputs)), rng.dirichlet(np.ones(n_outputs), size=n)


@pytest.mark.parametrize("target, column", [("x", 0), ("z", 2), (None, None)])
def test_each_row_is_a_point(target, column):
    values, predictions = shares()
    display = ModalityShapleyDisplay(
        ["a", "b"], row_values=values, predictions=predictions, classes=["x", "y", "z"]
    ).plot(target=target, sort=False)
    columns = predictions.argmax(axis=1) if column is None else np.full(40, column)
    for m, points in enumerate(display.points_):
        offsets = points.get_offsets()
        np.testing.assert_allclose(offsets[:, 0], values[np.arange(40), m, columns])
        assert np.abs(offsets[:, 1] - m).max() < 0.5  # swarms do not overlap
        np.testing.assert_allclose(points.get_array(), predictions[np.arange(40), columns])
    assert display.colorbar_ is not None
    assert all(len(points.get_offsets()) == 0 for points in display.absent_points_)


def test_rows_without_the_modality_are_hollow():
    values, predictions = shares(n_outputs=1)
    present = np.ones((40, 2), dtype=bool)
    present[:7, 1] = False
    display = ModalityShapleyDisplay(
        ["a", "b"], row_values=values, predictions=predictions, present=present
    ).plot(sort=False)
    assert [len(p.get_offsets()) for p in display.points_] == [40, 33]
    assert [len(p.get_offsets()) for p in display.absent_points_] == [0, 7]
    np.testing.assert_allclose(display.absent_points_[1].get_offsets()[:, 0], values[:7, 1, 0])
    assert len(display.absent_points_[1].get_facecolors()) == 0
    assert display.ax_.get_legend().get_texts()[0].get_text() == "modality missing in the row"


def test_equal_shares_are_side_by_side():
    display = ModalityShapleyDisplay(["a"], row_values=np.zeros((9, 1, 1))).plot()
    heights = display.points_[0].get_offsets()[:, 1]
    assert len(np.unique(heights.round(6))) == 9


def test_shapley_from_an_estimator(fitted):
    model, X, y = fitted
    display = ModalityShapleyDisplay.from_estimator(model, X, y)
    expected = modality_shapley(model, X, y)
    np.testing.assert_allclose(
        sorted(bar.get_width() for bar in display.bars_), sorted(expected.score_values)
    )
    rows = ModalityShapleyDisplay.from_estimator(model, X, sort=False)
    assert [len(p.get_offsets()) for p in rows.points_] == X.notna().sum().tolist()
    found = rows.points_[0].get_offsets()[:, 0]
    np.testing.assert_allclose(found, expected.row_values[X["voice"].notna(), 0, 1])


def test_shapley_of_renamed_columns(fitted):
    model, X, y = fitted
    display = ModalityShapleyDisplay.from_estimator(
        model, X, y, modalities={"heard": ["voice"]}, kind="beeswarm"
    )
    assert display.order_ == ["heard"]
    assert len(display.absent_points_[0].get_offsets()) == X["voice"].isna().sum()


def test_columns_of_the_modalities_in_any_order(fitted):
    model, X, y = fitted
    result = modality_shapley(model, X)
    columns = {"face": [1], "voice": [0]}
    display = ModalityShapleyDisplay.from_predictions(result, X=X, modalities=columns, sort=False)
    assert display.order_ == ["voice", "face"]
    assert [len(p.get_offsets()) for p in display.points_] == X.notna().sum().tolist()
    with pytest.raises(ValueError, match="has no columns of 'voice'"):
        ModalityShapleyDisplay.from_predictions(result, X=X, modalities={"face": [1]})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "pie"}, "kind must be one of None, 'bar', 'beeswarm', got 'pie'"),
        ({"kind": "bar"}, r"needs score_values, which is None. Give y"),
        ({"kind": "beeswarm", "target": "w"}, "target must be one of 'x', 'y', 'z', got 'w'"),
    ],
)
def test_invalid_shapley(options, message):
    values, predictions = shares()
    display = ModalityShapleyDisplay(
        ["a", "b"], row_values=values, predictions=predictions, classes=["x", "y", "z"]
    )
    with pytest.raises(ValueError, match=message):
        display.plot(**options)


def test_shapley_of_wrong_shape_or_kind():
    with pytest.raises(ValueError, match=r"3 dimensions and 1 modalities, got the shape \(4, 2\)"):
        ModalityShapleyDisplay(["a"], row_values=np.zeros((4, 2))).plot()
    with pytest.raises(ValueError, match="must be what modality_shapley returns, got a list"):
        ModalityShapleyDisplay.from_predictions([1.0])
    score_only = Bunch(modalities=["a"], score_values=[0.1], row_values=None)
    with pytest.raises(ValueError, match=r"needs row_values, which is None. Use kind='bar'"):
        ModalityShapleyDisplay.from_predictions(score_only, kind="beeswarm")


# --- curves -----------------------------------------------------------------------------------


def test_curve_shows_means_and_deviations(fitted):
    model, X, y = fitted
    found = missing_modality_curve(model, X, y, fractions=[0, 0.5, 1], random_state=0)
    display = MissingModalityCurveDisplay.from_predictions(found)
    for name, line, band in zip(["voice", "face"], display.lines_, display.bands_, strict=True):
        own = found[found["modality"] == name].groupby("fraction")
        np.testing.assert_allclose(line.get_xdata(), 100 * own["missing"].mean())
        np.testing.assert_allclose(line.get_ydata(), own["score"].mean())
        corners = band.get_paths()[0].vertices
        mean, spread = own["score"].mean()[0.5], own["score"].std()[0.5]
        middle = corners[np.isclose(corners[:, 0], 100 * own["missing"].mean()[0.5])]
        np.testing.assert_allclose(
            np.unique(middle[:, 1].round(9)), np.round([mean - spread, mean + spread], 9)
        )
    by_fraction = display.plot(x="fraction")
    np.testing.assert_allclose(by_fraction.lines_[0].get_xdata(), [0, 50, 100])


def test_curve_from_an_estimator(fitted):
    options = {"fractions": [0, 1], "n_repeats": 2, "scoring": "neg_log_loss", "random_state": 0}
    display = MissingModalityCurveDisplay.from_estimator(*fitted, **options)
    pd.testing.assert_frame_equal(display.curve, missing_modality_curve(*fitted, **options))
    assert display.ax_.get_ylabel() == "negative log loss"
    assert display.bands_ == []  # no row is sampled at 0 and 1


def test_lines_differ_in_dashes_and_markers():
    names = [f"m{i}" for i in range(9)]
    rows = [(n, f, 0, 0, f, 0.5) for n in names for f in (0.0, 1.0)]
    columns = ["modality", "fraction", "split", "repeat", "missing", "score"]
    display = MissingModalityCurveDisplay(pd.DataFrame(rows, columns=columns)).plot()
    looks = {(line.get_color(), line.get_linestyle()) for line in display.lines_}
    assert len(looks) == 9


def test_invalid_curve():
    with pytest.raises(ValueError, match="got a DataFrame without fraction, split, repeat"):
        MissingModalityCurveDisplay(pd.DataFrame({"modality": [1], "score": [1]})).plot()
    with pytest.raises(ValueError, match="got a list without modality"):
        MissingModalityCurveDisplay.from_predictions([1])


# --- report -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FusionWarning)
        return fusion_report(*fitted, scoring="roc_auc", cv=3, confidence_level=0.9)


@pytest.mark.slow
def test_report_shows_scores_and_intervals(report):
    display = FusionReportDisplay.from_predictions(report)
    by_name = report.summary_.set_index(["kind", "modalities"])["score"]
    points = [float(point.get_xdata()[0]) for point in display.points_]
    fused = by_name["fused"].iloc[0]
    singles = by_name["single"].sort_values(ascending=False)
    assert labels(display) == ["fused", "best single", *singles.index]
    np.testing.assert_allclose(points, [fused, by_name["best single"].iloc[0], *singles])
    np.testing.assert_allclose(display.fused_line_.get_xdata(), fused)
    # A line reaches that of the fusion if the interval of the difference contains zero.
    against = report.differences_.set_index(["kind", "modalities"])
    for name, drawn in zip(singles.index, display.intervals_[1:], strict=True):
        (segment,) = drawn.get_segments()
        own = against.loc[("single", name)]
        np.testing.assert_allclose(segment[:, 0], [fused - own["upper"], fused - own["lower"]])
        assert (segment[:, 0] > fused).any() == (own["lower"] < 0)
        np.testing.assert_allclose(segment[:, 0].mean(), by_name["single", name])
    assert display.ax_.get_xlabel() == "roc auc\n(lines: 90% interval of the difference to fused)"
    assert display.ax_.get_title(loc="left").startswith(report.verdict_.partition(":")[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skmm.exceptions.FusionWarning")
def test_report_from_an_estimator(fitted):
    display = FusionReportDisplay.from_estimator(*fitted, cv=3)
    assert len(display.points_) == 4
    assert len(display.report.scores_) == 4 * 3


@pytest.mark.slow
def test_report_shows_the_best_subsets():
    names = list("abcd")
    subsets = {"a + b": 0.9, "b + c": 0.6, "a + b + c": 0.8}
    rows = [("single", n, 1, s, 0.5) for n in names for s in range(3)]
    rows += [("subset", n, n.count("+") + 1, s, v) for n, v in subsets.items() for s in range(3)]
    rows += [("best single", "a", 1, s, 0.5) for s in range(3)]
    rows += [("fused", "a + b + c + d", 4, s, 0.9) for s in range(3)]
    columns = ["kind", "modalities", "n_modalities", "split", "score"]
    scores = pd.DataFrame(rows, columns=columns).assign(fit_seconds=0.1, score_seconds=0.1)
    display = FusionReportDisplay(FusionReport(scores, test_per_train=0.5))
    assert labels(display.plot())[-3:] == ["a + b", "all but d", "b + c"]
    assert labels(display.plot(n_shown=1))[-2:] == ["d", "a + b"]
    assert labels(display.plot(n_shown=0))[-1] == "d"
    assert len(labels(display.plot(n_shown=None))) == 9
    with pytest.raises(ValueError, match="n_shown must be None or at least 0, got -1"):
        display.plot(n_shown=-1)


def test_invalid_report():
    with pytest.raises(TypeError, match="report must be a FusionReport, got a dict"):
        FusionReportDisplay({}).plot()
