"""Losses by epoch or step, wherever an estimator keeps them."""

import warnings

import matplotlib
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import (
    AdversarialAlignment,
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    LateFusionClassifier,
)
from skmm.datasets import make_multimodal_classification
from skmm.inspection import TrainingHistoryDisplay

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def data():
    return make_multimodal_classification(
        60, modalities={"photo": "image", "voice": "vector"}, random_state=0
    )


def triples(max_epochs=3):
    encoder = ImageEncoder(
        "cnn", image_size=8, n_components=4, max_epochs=max_epochs, random_state=0
    )
    return [("photo", encoder, ["photo"]), ("voice", "passthrough", ["voice"])]


def test_draws_the_losses():
    history = {"train_loss": [0.9, 0.5, 0.3], "valid_loss": [0.8, 0.6, 0.7], "time": [1, 1, 1]}
    display = TrainingHistoryDisplay({"fusion": history}).plot()
    assert set(display.lines_) == {("fusion", "train_loss"), ("fusion", "valid_loss")}
    for (_, kind), line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), history[kind])
    assert display.best_["fusion"].get_xydata().tolist() == [[2.0, 0.6]]
    legend = [text.get_text() for text in display.legend_.get_texts()]
    assert legend == ["training", "validation", "lowest validation\nloss"]
    assert display.ax_.get_ylabel() == "loss"


def test_one_line_needs_no_legend():
    display = TrainingHistoryDisplay.from_predictions([3.0, 2.0])
    assert display.legend_ is None
    assert display.ax_.get_ylabel() == "training loss"
    assert display.lines_["", "train_loss"].get_ydata().tolist() == [3.0, 2.0]


def test_legend_shows_parts_by_color_and_kinds_by_dash():
    own = {"train_loss": [2.0, 1.0], "valid_loss": [2.0, 1.5]}
    display = TrainingHistoryDisplay({"a": own, "b": {"train_loss": [3.0]}}).plot()
    legend = [text.get_text() for text in display.legend_.get_texts()]
    assert legend == ["a", "b", "training", "validation", "lowest validation\nloss"]
    colors = {key: line.get_color() for key, line in display.lines_.items()}
    assert colors["a", "train_loss"] == colors["a", "valid_loss"] != colors["b", "train_loss"]
    dashes = {key: line.get_linestyle() for key, line in display.lines_.items()}
    assert dashes["a", "train_loss"] == dashes["b", "train_loss"] != dashes["a", "valid_loss"]
    drawn = display.legend_.get_lines()
    assert [line.get_color() for line in drawn[:2]] == [
        colors["a", "train_loss"], colors["b", "train_loss"],
    ]  # fmt: skip


def test_epochs_without_a_loss_are_gaps():
    display = TrainingHistoryDisplay.from_predictions(
        [{"train_loss": 2.0}, {"train_loss": 1.0, "valid_loss": 1.5}]
    )
    (line,) = [line for (_, kind), line in display.lines_.items() if kind == "valid_loss"]
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, 1.5])
    assert display.best_[""].get_xydata().tolist() == [[2.0, 1.5]]


def test_losses_lie_at_their_epochs():
    display = TrainingHistoryDisplay.from_predictions(
        [{"epoch": 4, "train_loss": 2.0}, {"epoch": 5, "train_loss": 1.0, "valid_loss": 1.5}]
    )
    assert display.lines_["", "train_loss"].get_xydata().tolist() == [[4.0, 2.0], [5.0, 1.0]]
    assert display.best_[""].get_xydata().tolist() == [[5.0, 1.5]]
    assert display.ax_.get_xlabel() == "epoch"


def test_modalities_of_an_adversarial_alignment_are_parts_by_step():
    X, _ = make_multimodal_classification(
        80, modalities={"voice": "vector", "face": "vector", "gait": "vector"}, random_state=0
    )
    alignment = AdversarialAlignment(
        [(name, "passthrough", [name]) for name in X], target="voice", n_components=2,
        max_iter=30, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few steps align nothing
        alignment.fit(X)
    display = TrainingHistoryDisplay.from_estimator(alignment)
    assert list(display.lines_) == [("face", "train_loss"), ("gait", "train_loss")]
    assert display.lines_["face", "train_loss"].get_xdata().tolist() == [10.0, 20.0, 30.0]
    losses = [row["train_loss"] for row in alignment.history_ if row["modality"] == "gait"]
    np.testing.assert_allclose(display.lines_["gait", "train_loss"].get_ydata(), losses)
    assert display.ax_.get_xlabel() == "training step"


def test_joint_fusion(data):
    fusion = JointFusionClassifier(triples(), max_epochs=4, random_state=0).fit(*data)
    display = TrainingHistoryDisplay.from_estimator(fusion)
    assert {name for name, _ in display.lines_} == {"JointFusionClassifier"}
    drawn = display.lines_["JointFusionClassifier", "train_loss"].get_ydata()
    np.testing.assert_allclose(drawn, [epoch["train_loss"] for epoch in fusion.history_])


@pytest.mark.slow
def test_encoders_inside_fusions_have_the_names_of_their_modalities(data):
    X, y = data
    early = make_pipeline(EarlyFusion(triples()), LogisticRegression()).fit(X, y)
    late = LateFusionClassifier(triples(), cv=2).fit(X, y)
    encoder = ImageEncoder("cnn", image_size=8, n_components=4, max_epochs=3, random_state=0)
    encoder.fit(X[["photo"]], y)
    for model, name in [(early, "photo"), (late, "photo"), (encoder, "ImageEncoder")]:
        display = TrainingHistoryDisplay.from_estimator(model)
        assert list(display.lines_) == [(name, "train_loss")]
        assert len(display.lines_[name, "train_loss"].get_ydata()) == 3


class Kept(BaseEstimator):
    def __init__(self, losses=()):
        self.history_ = [{"train_loss": loss} for loss in losses]


def test_some_of_the_parts():
    model = BaseEstimator()
    model.estimators_ = {"a": Kept([2, 1]), "b": [Kept([4.0]), Kept([5.0])], "c": Kept()}
    display = TrainingHistoryDisplay.from_estimator(model)
    assert [name for name, _ in display.lines_] == ["a", "b", "b'"]
    some = TrainingHistoryDisplay.from_estimator(model, names=["b'"])
    assert some.lines_["b'", "train_loss"].get_ydata().tolist() == [5.0]
    with pytest.raises(ValueError, match="no part is named 'c'. The trained parts are 'a', 'b'"):
        TrainingHistoryDisplay.from_estimator(model, names=["c"])


def test_nothing_was_trained():
    with pytest.raises(ValueError, match="nothing in LogisticRegression has a history_"):
        TrainingHistoryDisplay.from_estimator(LogisticRegression())
    with pytest.raises(ValueError, match=r"histories\['a'\] must be a dict with 'train_loss'"):
        TrainingHistoryDisplay({"a": [1.0]}).plot()
    with pytest.raises(ValueError, match="histories is empty"):
        TrainingHistoryDisplay({}).plot()
    with pytest.raises(ValueError, match="'train_loss'"):
        TrainingHistoryDisplay.from_predictions([])
