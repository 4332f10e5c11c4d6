"""Benchmarks that are too long for a test suite, on a few rows: they must not rot."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from real_data import load_real

from skmm.nets import STRATEGIES

BENCHMARKS = Path(__file__).with_name("benchmarks")


@pytest.mark.slow
def test_every_fusion_is_compared(tmp_path):
    written = _run("fusions.py", tmp_path, "--small")
    figures = pd.read_csv(tmp_path / "tables" / "figures.csv").set_index("method")
    assert {f"joint, {strategy}" for strategy in STRATEGIES} <= set(figures.index)
    assert {"best single modality", "early, logistic regression", "late, stacking"} <= set(
        figures.index
    )
    assert figures["score"].between(0, 1).all()
    assert (figures["parameters"].dropna() > 0).all()
    # A few rows and epochs are enough for what needs no network.
    assert figures.loc["late, stacking", "score"] > 0.3
    assert "## Every fusion: glyphs" in written
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv", index_col="method")
    assert list(scores.columns) == ["glyphs"]


@pytest.mark.slow
def test_a_search_among_many_vectors_is_measured(tmp_path):
    pytest.importorskip("faiss")
    recall = _table_of("retrieval.py", tmp_path, "--rows", "2000")["recall@10"]
    assert recall.pop("exact") == recall.pop("scikit-learn NearestNeighbors") == 1.0
    assert set(recall.index) == {"faiss (IVF)", "hnsw"}
    assert recall.min() > 0.8


@pytest.mark.slow
@pytest.mark.data
def test_networks_from_scratch_are_compared(tmp_path):
    load_real("emoji")
    accuracy = _table_of("from_scratch.py", tmp_path, "--small")["accuracy"]
    assert {"CNN alone", "GRU alone", "CNN + GRU, trained together"} <= set(accuracy.index)
    assert accuracy.between(0, 1).all()
    # Two epochs are enough where nothing of the encoders has to be learned.
    assert accuracy["pretrained and frozen"] > accuracy["most frequent group"] + 0.1


def _run(script, folder, *options):
    """Run a benchmark; return what it wrote."""
    results = folder / "results.md"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env={**os.environ, "SKMM_RESULTS": str(results)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return results.read_text()


def _table_of(script, folder, *options):
    """Run a benchmark; return the table that it wrote."""
    written = _run(script, folder, *options)
    lines = [line for line in written.splitlines() if line.startswith("| ")]
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return pd.DataFrame(rows, columns=head).set_index("").apply(pd.to_numeric, errors="coerce")
