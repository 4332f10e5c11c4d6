"""Output of verbose: cells, speed and time left; nothing by default."""

import re

import numpy as np
import pandas as pd
import pytest
from torch import nn

from skmm import ImageEncoder, ModuleEncoder, TabularEncoder
from skmm._environment import _progress

LINE = re.compile(r"(\S.*): (\d+)/(\d+) cells, \d+/s, \d+ s left *$")


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a second and a half per call."""
    now = iter(np.arange(0, 1e6, 1.5))
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: float(next(now)))


@pytest.mark.usefixtures("clock")
def test_transform_reports_all_cells(capsys):
    cells = pd.Series([np.full(4, i) for i in range(10)] + [None], dtype=object)
    encoder = ModuleEncoder(nn.Linear(4, 2), batch_size=3, verbose=1, store=False)
    encoder.fit(cells.to_frame("cell"))
    capsys.readouterr()
    encoder.transform(cells.to_frame("cell"))
    shown = [LINE.match(line).groups() for line in capsys.readouterr().err.splitlines()]
    assert shown[-1] == ("ModuleEncoder", "10", "10")
    done = [int(n) for _, n, _ in shown]
    assert done == sorted(set(done)) and len(done) > 2


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("encoder", "cell"),
    [
        (ImageEncoder("cnn", image_size=8, n_components=8), np.zeros((8, 8), np.uint8)),
        (TabularEncoder("tokens", n_components=4), 1.0),
    ],
)
def test_training_reports_all_epochs(encoder, cell, capsys):
    X = pd.DataFrame({"cell": pd.Series([cell] * 4, dtype=object)})
    encoder.set_params(max_epochs=3, verbose=1, random_state=0).fit(X, [0, 1, 0, 1])
    name, done, total = LINE.match(capsys.readouterr().err.splitlines()[-1]).groups()
    assert (name, done, total) == (f"{type(encoder).__name__}, training", "12", "12")


def test_silent_by_default(capsys):
    X = pd.DataFrame({"cell": [np.ones(4)] * 3})
    ModuleEncoder(nn.Linear(4, 2), store=False).fit_transform(X)
    assert capsys.readouterr() == ("", "")
