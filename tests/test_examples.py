"""Every example of the gallery runs; the documentation is built from them in full."""

from pathlib import Path

import pytest
from brief import run_briefly

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("plot_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem.removeprefix("plot_"))
def test_example_runs(path, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)  # some save an image
    run_briefly(path, [], monkeypatch)
    matplotlib.pyplot.close("all")


def test_there_are_examples():
    assert len(EXAMPLES) > 10
