"""Benchmarks that are too long for a test suite, on a few rows: they must not rot."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from skmm.nets import STRATEGIES

BENCHMARKS = Path(__file__).with_name("benchmarks")


@pytest.mark.slow
def test_every_fusion_is_compared(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "fusions.py"), "--small"],
        env={**os.environ, "SKMM_RESULTS": str(tmp_path / "results.md")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = pd.read_csv(tmp_path / "tables" / "figures.csv").set_index("method")
    assert {f"joint, {strategy}" for strategy in STRATEGIES} <= set(figures.index)
    assert {"best single modality", "early, logistic regression", "late, stacking"} <= set(
        figures.index
    )
    assert figures["score"].between(0, 1).all()
    assert (figures["parameters"].dropna() > 0).all()
    # A few rows and epochs are enough for what needs no network.
    assert figures.loc["late, stacking", "score"] > 0.3
    assert "## Every fusion: glyphs" in (tmp_path / "results.md").read_text()
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv", index_col="method")
    assert list(scores.columns) == ["glyphs"]
