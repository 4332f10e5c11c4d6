"""Base of the alignments, by one with a known space: the first two numbers of each modality."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.utils import estimator_html_repr

from skmm._training._batches import EncoderInputs, FeatureInputs
from skmm.alignment._blocks import BaseBlockAlignment, BaseDecodingAlignment
from skmm.alignment._recall import encode_contents, recall
from skmm.encoders._training_inputs import CellTensors, TrainingInputs
from skmm.exceptions import ModalityMissingError, ModalityWarning

TRIPLES = [
    ("left", "passthrough", ["a", "b"]),
    ("right", "passthrough", ["c"]),
    ("more", "passthrough", ["d"]),
]


class OneWay(BaseBlockAlignment):
    """Each modality's first two features, standardized."""

    def __init__(self, modalities="auto", *, all_missing="zeros", missing_columns="raise"):
        self.modalities = modalities
        self.all_missing = all_missing
        self.missing_columns = missing_columns

    def _fit_blocks(self, blocks, present, y):
        self.given_ = blocks, present, y
        self.n_components_ = 2

    def _project(self, name, values):
        return values[:, :2]


class FirstNumbers(OneWay, BaseDecodingAlignment):
    """The same, which predicts a modality by the mean of these features."""

    def _predict_block(self, modality, blocks, present):
        assert modality not in blocks and all(
            mask.shape == (len(mask),) for mask in present.values()
        )
        total = sum(np.where(present[n][:, None], blocks[n][:, :2], 0.0) for n in blocks)
        return total / sum(present.values())[:, None]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    points = 5.0 + 3.0 * rng.normal(size=(40, 2))
    X = pd.DataFrame({"a": points[:, 0], "b": points[:, 1]}, index=[f"r{i}" for i in range(40)])
    for column in ("c", "d"):
        X[column] = pd.Series(list(points), index=X.index, dtype=object)
    X.loc["r3", ["a", "b"]] = np.nan
    X.loc["r4", "c"] = None
    X.loc["r5"] = None
    return X


def test_arguments_of_fit_blocks(frame):
    alignment = FirstNumbers(TRIPLES).fit(frame)
    blocks, present, y = alignment.given_
    assert y is None and list(blocks) == ["left", "right", "more"]
    for name, missing in (("left", [3, 5]), ("right", [4, 5]), ("more", [5])):
        assert blocks[name].dtype == np.float32 and blocks[name].shape == (40, 2)
        assert np.flatnonzero(~present[name]).tolist() == missing
        own = blocks[name][present[name]]
        np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(own.std(axis=0), 1, atol=1e-5)
        assert not blocks[name][missing].any()


def test_vectors(frame):
    alignment = FirstNumbers(TRIPLES).fit(frame)
    vectors = {n: alignment.transform_modality(frame, n) for n, _, _ in alignment.modalities_}
    there = ~np.isnan(vectors["left"]).any(axis=1)
    assert np.flatnonzero(~there).tolist() == [3, 5]
    np.testing.assert_allclose(np.linalg.norm(vectors["left"][there], axis=1), 1, rtol=1e-6)
    mean = np.nanmean(np.stack(list(vectors.values()))[:, np.arange(40) != 5], axis=0)
    shared = alignment.transform(frame)
    assert shared.dtype == np.float32 and not shared[5].any()
    np.testing.assert_allclose(np.delete(shared, 5, axis=0), mean, rtol=1e-6)
    assert alignment.get_feature_names_out().tolist() == ["firstnumbers0", "firstnumbers1"]
    table = alignment.set_output(transform="pandas").transform(frame)
    assert table.index.tolist() == frame.index.tolist() and table.shape == (40, 2)


def test_transform_modality_needs_the_columns_of_the_modality_only(frame):
    alignment = FirstNumbers(TRIPLES).fit(frame)
    whole = {name: alignment.transform_modality(frame, name) for name in ("left", "right")}
    for part in (
        frame[["a", "b"]],
        frame[["b", "a"]],
        frame[["a", "b"]].to_numpy(),
        frame[["d", "b", "a"]],
    ):
        np.testing.assert_array_equal(alignment.transform_modality(part, "left"), whole["left"])
    cells = frame["c"]
    for part in (frame[["c"]], cells, list(cells), cells.to_numpy()):
        np.testing.assert_array_equal(alignment.transform_modality(part, "right"), whole["right"])
    with pytest.raises(ValueError, match="no column 'b'"):
        alignment.transform_modality(frame[["a", "c"]], "left")
    with pytest.raises(ValueError, match="1 columns without names.*needs the 2 columns 'a', 'b'"):
        alignment.transform_modality(list(frame["a"]), "left")
    with pytest.raises(ValueError, match="no modality 'top'. Its modalities are 'left', 'right'"):
        alignment.transform_modality(frame, "top")


def test_columns_without_names():
    X = np.random.default_rng(0).normal(size=(20, 4))
    triples = [("left", "passthrough", [0, 1]), ("right", "passthrough", [2, 3])]
    alignment = FirstNumbers(triples).fit(X)
    whole = alignment.transform_modality(X, "right")
    np.testing.assert_array_equal(alignment.transform_modality(X[:, 2:], "right"), whole)
    with pytest.raises(ValueError, match="3 columns without names"):
        alignment.transform_modality(X[:, :3], "right")


def test_polars(frame):
    polars = pytest.importorskip("polars")
    rows = frame.drop(index=["r4", "r5"])
    cells = {c: [None if v is None else list(v) for v in rows[c]] for c in ("c", "d")}
    other = polars.DataFrame({"a": rows["a"].to_list(), "b": rows["b"].to_list(), **cells})
    alignment = FirstNumbers(TRIPLES).fit(rows)
    expected = alignment.transform_modality(rows, "right")
    for part in (other, other.select("c"), other["c"]):
        np.testing.assert_allclose(alignment.transform_modality(part, "right"), expected, rtol=1e-6)


def test_predict_modality(frame):
    alignment = FirstNumbers(TRIPLES).fit(frame)
    expected = np.stack([cell if cell is not None else [np.nan] * 2 for cell in frame["d"]])
    without = frame.drop(columns="c")
    predicted = alignment.predict_modality(without, "right")
    kept = np.setdiff1d(np.arange(40), [5])
    np.testing.assert_allclose(predicted[kept], expected[kept], atol=0.8)  # other rows, other scale
    average = np.stack([c for c in frame["c"] if c is not None]).mean(axis=0)
    np.testing.assert_allclose(predicted[5], average, rtol=1e-5)
    assert predicted.dtype == np.float32
    np.testing.assert_array_equal(alignment.predict_modality(frame, "right"), predicted)
    with pytest.raises(ValueError, match="no modality 'x'"):
        alignment.predict_modality(frame, modality="x")
    with pytest.raises(ValueError, match="no column 'd'"):
        alignment.predict_modality(frame.drop(columns="d"), "right")
    assert not hasattr(OneWay(TRIPLES).fit(frame), "predict_modality")


def test_score(frame):
    alignment = FirstNumbers(TRIPLES).fit(frame)
    # Each view is standardized by its own rows, so the numbers are nearly equal only.
    assert alignment.score(frame, k=3) > 0.95
    shuffled = frame.assign(c=frame["c"].iloc[::-1].to_numpy(), d=frame["d"].iloc[::-1].to_numpy())
    assert alignment.score(shuffled[["a", "b", "c", "d"]]) < 0.5
    assert alignment.score(frame.iloc[:1]) == 1.0
    with pytest.raises(ValueError, match="needs rows that have two modalities, and none of the 1"):
        alignment.score(frame.iloc[5:6])
    with pytest.raises(ValueError, match="k must be an int of at least 1, got 0"):
        alignment.score(frame, k=0)


def sampled_recall(queries, targets, contents, k, n_samples=4000):
    """Compute the recall with random orders of tied rows."""
    rng = np.random.default_rng(0)
    found = 0
    for i, similarity in enumerate(queries @ targets.T):
        for _ in range(n_samples):
            order = np.lexsort((rng.random(len(similarity)), -similarity))
            found += bool((contents[order[:k]] == contents[i]).any())
    return found / n_samples / len(queries)


@pytest.mark.slow
def test_recall_with_ties_and_equal_contents():
    queries = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    targets = np.eye(3, dtype=np.float32)[[0, 0, 2, 0, 1]]
    contents = np.array([0, 1, 2, 0, 4])
    for k in (1, 2, 3):
        expected = sampled_recall(queries, targets, contents, k)
        assert recall(queries, targets, contents, k) == pytest.approx(expected, abs=0.02)


def test_recall_of_a_collapsed_space_is_chance():
    one = np.ones((50, 2), dtype=np.float32)
    assert recall(one, one, np.arange(50), 1) == pytest.approx(1 / 50)
    assert recall(one, one, np.arange(50), 10) == pytest.approx(10 / 50)
    assert recall(one, one, np.zeros(50), 1) == 1.0


def test_encode_contents():
    values = np.array([[1.0, 0.0], [1.0, -0.0], [2.0, 0.0], [1.0, 0.0]])
    assert encode_contents(values).tolist() == [0, 0, 1, 0]
    every = torch.ones(4, dtype=torch.bool)
    features = FeatureInputs(torch.from_numpy(values), every)
    assert encode_contents(features).tolist() == [0, 0, 1, 0]


def test_encode_contents_of_encoder_inputs():
    """Each tensor of each column counts, and whether the column has a cell."""
    values = torch.tensor([[1.0, 0.0], [1.0, -0.0], [2.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    other = torch.tensor([0, 0, 0, 1, 0])
    every = torch.ones(5, dtype=torch.bool)
    partly = torch.tensor([True, True, True, True, False])
    first = CellTensors(every, {"x": values})
    second = CellTensors(partly, {"y": other})
    inputs = EncoderInputs(TrainingInputs((first, second)), every)
    assert encode_contents(inputs).tolist() == [0, 0, 1, 2, 3]


def test_all_missing_and_missing_columns(frame):
    with pytest.raises(ModalityMissingError, match="row 5 .*all_missing='zeros'"):
        FirstNumbers(TRIPLES, all_missing="raise").fit(frame)
    with pytest.raises(ValueError, match="'all_missing' parameter of FirstNumbers must be"):
        FirstNumbers(TRIPLES, all_missing="prior").fit(frame)
    alignment = FirstNumbers(TRIPLES, all_missing="raise").fit(frame.drop(index="r5"))
    with pytest.raises(ModalityMissingError, match="row 5"):
        alignment.transform(frame)
    with pytest.raises(ValueError, match="feature names"):
        alignment.transform(frame.drop(columns="c"))
    alignment = FirstNumbers(TRIPLES, missing_columns="absent").fit(frame)
    absent = alignment.transform(frame.assign(c=None))
    np.testing.assert_array_equal(alignment.transform(frame.drop(columns="c")), absent)


def test_errors(frame):
    with pytest.raises(ValueError, match="FirstNumbers aligns .* one modality only, 'left'"):
        FirstNumbers(TRIPLES[:1]).fit(frame)
    with pytest.warns(ModalityWarning, match="'right' is absent in every training row"):
        with pytest.raises(ValueError, match="one usable modality only, 'left'"):
            FirstNumbers(TRIPLES[:2]).fit(frame.assign(c=None))
    halves = frame.drop(index="r5")
    halves.iloc[:20, :2] = np.nan
    halves.iloc[20:, 2] = None
    with pytest.raises(ValueError, match="rows that have two modalities.* 0 of n_samples=39"):
        FirstNumbers(TRIPLES[:2]).fit(halves)

    class Unpaired(FirstNumbers):
        _needs_pairs = False

    unpaired = Unpaired(TRIPLES[:2])
    assert unpaired.fit(halves).transform(halves).shape == (39, 2)


def test_diagram_clone_and_pickle(frame):
    alignment = FirstNumbers(TRIPLES)
    for name in ("left", "right", "more"):
        assert name in estimator_html_repr(alignment)
    alignment.fit(frame)
    assert "left" in estimator_html_repr(alignment)
    assert alignment.modalities_ == [
        ("left", "passthrough", ["a", "b"]),
        ("right", "passthrough", ["c"]),
        ("more", "passthrough", ["d"]),
    ]
    assert not hasattr(clone(alignment), "modalities_")
    loaded = pickle.loads(pickle.dumps(alignment))
    np.testing.assert_array_equal(loaded.transform(frame), alignment.transform(frame))
