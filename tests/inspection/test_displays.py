"""Common behavior of all displays: axes, figures, names, dependencies."""

import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from skmm.exceptions import MissingExtraError
from skmm.inspection import (
    AlignmentMapDisplay,
    FusionReport,
    FusionReportDisplay,
    MissingModalityCurveDisplay,
    ModalityImportanceDisplay,
    ModalityShapleyDisplay,
    RetrievalDisplay,
    TokenAttributionDisplay,
    TrainingHistoryDisplay,
)

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

LONG = "left_shoulder_accelerometer_of_the_watch"
NAMES = ["voice", "_hidden", "$price$", LONG, "room temperature and humidity", "f", "g", "h"]
IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)


def report(names):
    rows = [("single", name, 1, s, 0.5 + s / 50) for name in names for s in range(3)]
    rows += [("best single", names[0], 1, s, 0.5 + s / 50) for s in range(3)]
    rows += [("fused", " + ".join(names), len(names), s, 0.8 + s / 40) for s in range(3)]
    columns = ["kind", "modalities", "n_modalities", "split", "score"]
    scores = pd.DataFrame(rows, columns=columns).assign(fit_seconds=0.1, score_seconds=0.1)
    return FusionReport(scores, test_per_train=0.5)


def curve(names):
    rows = [
        (name, share, 0, repeat, share, 0.9 - share / 3 + repeat * share / 20)
        for name in names
        for share in (0.0, 0.5, 1.0)
        for repeat in range(2)
    ]
    return pd.DataFrame(
        rows, columns=["modality", "fraction", "split", "repeat", "missing", "score"]
    )


def swarm(names):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, len(names), 2))
    present = rng.random((30, len(names))) < 0.8
    return ModalityShapleyDisplay(
        names, row_values=values, predictions=rng.random((30, 2)), classes=["a", "b"],
        present=present,
    )  # fmt: skip


def attribution(tokens, scores):
    return {"scores": scores, "tokens": tokens, "method": "occlusion", "target": "$a$"}


DISPLAYS = {
    "importance": lambda n: ModalityImportanceDisplay(np.ones((len(n), 3)), n, score=0.9),
    "shapley bars": lambda n: ModalityShapleyDisplay(n, score_values=np.arange(len(n)) - 1.0),
    "shapley swarms": swarm,
    "curve": lambda n: MissingModalityCurveDisplay(curve(n)),
    "report": lambda n: FusionReportDisplay(report(n)),
    "history": lambda n: TrainingHistoryDisplay(
        {name: {"train_loss": [2.0, 1.0], "valid_loss": [2.0, 3.0]} for name in n}
    ),
    "retrieval": lambda n: RetrievalDisplay(n, [[IMAGE, None]] * len(n), source=n[-1]),
    "map": lambda n: AlignmentMapDisplay(
        {name: np.random.default_rng(i).random((4, 2)) for i, name in enumerate(n)},
        cells={n[0]: [IMAGE, "$words$ of text", None, np.sin(np.arange(90.0))]},
    ),
    "words": lambda n: TokenAttributionDisplay(attribution(n, np.linspace(-1, 1, len(n)))),
    "image": lambda n: TokenAttributionDisplay(attribution(None, np.ones((2, 3))), IMAGE),
    "times": lambda n: TokenAttributionDisplay(
        attribution([(i, i + 1) for i in range(len(n))], np.ones(len(n))), np.arange(50.0)
    ),
}


@pytest.mark.parametrize("kind", DISPLAYS)
@pytest.mark.parametrize("n", [1, 8])
def test_only_the_given_axes_are_used(kind, n):
    names = (NAMES * 2)[:n] if n > 1 else ["one"]
    figure = Figure()  # unknown to pyplot
    ax = figure.subplots()
    display = DISPLAYS[kind](names)
    assert display.plot(ax=ax) is display
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert plt.get_fignums() == []
    figure.canvas.draw()  # with every warning an error


@pytest.mark.parametrize("kind", DISPLAYS)
def test_axes_of_a_subfigure(kind):
    part = Figure(layout="constrained").subfigures(1, 2)[1]
    display = DISPLAYS[kind](NAMES[:2]).plot(ax=part.subplots())
    assert display.figure_ is part
    assert plt.get_fignums() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", DISPLAYS)
def test_new_figure_without_axes(kind):
    display = DISPLAYS[kind](NAMES[:3])
    display.plot()
    assert len(plt.get_fignums()) == 1
    display.figure_.canvas.draw()
    first = display.ax_
    assert display.plot().ax_ is not first


@pytest.mark.slow
@pytest.mark.parametrize("kind", DISPLAYS)
@pytest.mark.parametrize("n", [1, 8])
def test_all_parts_are_inside_a_new_figure(kind, n):
    display = DISPLAYS[kind](NAMES[:n]).plot()
    figure = display.figure_
    figure.canvas.draw()
    drawn = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    slack = 0.06  # inches
    assert drawn.x0 > -slack
    assert drawn.y0 > -slack
    assert drawn.x1 < width + slack
    assert drawn.y1 < height + slack


@pytest.mark.slow
@pytest.mark.parametrize("kind", DISPLAYS)
def test_names_are_not_read_as_formulas(kind):
    display = DISPLAYS[kind](NAMES[:3]).plot()
    figure = display.figure_
    figure.canvas.draw()
    with_dollars = [
        text for text in figure.findobj(matplotlib.text.Text) if "$" in text.get_text()
        and "mathdefault" not in text.get_text()  # tick labels of matplotlib
    ]  # fmt: skip
    assert not any(text.get_parse_math() for text in with_dollars)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DISPLAYS)
def test_axes_must_be_axes(kind):
    figure = Figure()
    with pytest.raises(TypeError, match=r"ax must be one matplotlib Axes or None, got a ndarray"):
        DISPLAYS[kind](["a", "b"]).plot(ax=figure.subplots(2))


@pytest.mark.parametrize("kind", DISPLAYS)
def test_missing_matplotlib_names_the_extra(kind, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"Display.plot needs .*skmm\[plot\]"):
        DISPLAYS[kind](["a", "b"]).plot()


def test_long_names_are_broken_and_cut():
    display = ModalityImportanceDisplay(np.ones((3, 2)), [LONG, "short", "x" * 70]).plot()
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[0] == "left_shoulder_\naccelerometer_of_…"
    assert labels[1] == "short"
    assert all(len(line) <= 20 for label in labels for line in label.split("\n"))


def test_name_with_an_underscore_is_in_the_legend():
    display = MissingModalityCurveDisplay(curve(["_hidden"])).plot()
    assert [text.get_text().strip() for text in display.legend_.get_texts()] == ["_hidden"]
