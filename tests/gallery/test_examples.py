"""Every example of the gallery runs, with short trainings: `make test-examples`.

The documentation is built from them in full, and fails where one of them does.
"""

from pathlib import Path

import pytest
from brief import run_briefly

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("plot_*.py"))
BY_DEMO = FOLDER / "plot_quickstart.py"  # `make demo` runs it in full, and takes a minute


@pytest.mark.parametrize(
    "path", sorted({*EXAMPLES} - {BY_DEMO}), ids=lambda path: path.stem.removeprefix("plot_")
)
def test_example_runs(path, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)  # some save an image
    run_briefly(path, [], monkeypatch)
    matplotlib.pyplot.close("all")


def test_there_are_examples():
    assert len(EXAMPLES) > 10 and BY_DEMO in EXAMPLES
