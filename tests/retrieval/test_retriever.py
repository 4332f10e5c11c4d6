"""Retriever: neighbors across modalities, rows that are added and removed, missing cells."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import NearestNeighbors
from spaces import ReadySpace, brute_force, ready_frame, without_cells

from skmm import CrossModalRetriever
from skmm.metrics import recall_at_k

PAIR = {"source": "text", "target": "image"}


def vectors_of(X, name):
    return ReadySpace().fit(X).transform_modality(X, name)


@pytest.fixture(name="X")
def frame():
    return ready_frame(40)


@pytest.fixture
def retriever(X):
    return CrossModalRetriever(ReadySpace()).fit(X)


# --- neighbors ----------------------------------------------------------------------------


def test_kneighbors_equals_brute_force(X, retriever):
    queries = ready_frame(11, seed=1)
    distances, numbers = retriever.kneighbors(queries, 7, **PAIR)
    expected, cosines = brute_force(vectors_of(queries, "text"), vectors_of(X, "image"), 7)
    assert np.array_equal(numbers, expected)
    assert distances == pytest.approx(1 - cosines, abs=1e-12)
    assert numbers.dtype == np.int64
    assert (np.diff(distances, axis=1) >= 0).all()
    alone = retriever.kneighbors(queries, 7, **PAIR, return_distance=False)
    assert np.array_equal(alone, numbers)
    back = retriever.kneighbors(queries, 3, source="image", target="text", return_distance=False)
    expected, _ = brute_force(vectors_of(queries, "image"), vectors_of(X, "text"), 3)
    assert np.array_equal(back, expected)


def test_neighbors_within_a_modality_equal_scikit_learn(X, retriever):
    same = {"source": "image", "target": "image"}
    nearest = NearestNeighbors(n_neighbors=4, metric="cosine").fit(vectors_of(X, "image"))
    for query, vectors in ((X, vectors_of(X, "image")), (None, None)):
        distances, numbers = retriever.kneighbors(query, 4, **same)
        theirs, indices = nearest.kneighbors(vectors)
        assert np.array_equal(numbers, indices)
        assert distances == pytest.approx(theirs, abs=1e-6)


def test_without_queries_the_rows_are_queries(X, retriever):
    """Across modalities a row can find itself."""
    assert np.array_equal(retriever.kneighbors(None, 3, **PAIR)[1], retriever.kneighbors(X, 3)[1])
    found = retriever.kneighbors(None, 1, **PAIR, return_distance=False)
    assert (found.ravel() == np.arange(40)).mean() > 0.9


def test_a_row_among_equal_ones_does_not_find_itself():
    X = pd.concat([ready_frame(1)] * 5, ignore_index=True)
    retriever = CrossModalRetriever(ReadySpace()).fit(X)
    numbers = retriever.kneighbors(None, 2, "image", "image", return_distance=False)
    assert numbers.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    with pytest.raises(ValueError, match="n_neighbors=5 and 4 rows"):
        retriever.kneighbors(None, 5, "image", "image")


@pytest.mark.parametrize("container", ["frame", "dict", "polars"])
def test_queries_need_the_source_only(X, retriever, container):
    queries = X[["text"]].iloc[:5]
    expected = retriever.kneighbors(X.iloc[:5], 3, **PAIR)[1]
    if container == "dict":
        queries = {"text": queries["text"].to_list()}
    if container == "polars":
        polars = pytest.importorskip("polars")
        queries = polars.DataFrame({"text": [list(map(float, cell)) for cell in queries["text"]]})
    assert np.array_equal(retriever.kneighbors(queries, 3, **PAIR)[1], expected)


def test_search_returns_the_rows(X, retriever):
    queries = ready_frame(3, seed=1, first_label=100)
    distances, numbers = retriever.kneighbors(queries, 4, **PAIR)
    found = retriever.search(queries, 4, **PAIR)
    assert found.columns.tolist() == ["query", "rank", "score", *X.columns]
    assert found["query"].tolist() == ["r100"] * 4 + ["r101"] * 4 + ["r102"] * 4
    assert found["rank"].tolist() == [1, 2, 3, 4] * 3
    assert found["score"].to_numpy() == pytest.approx(1 - distances.ravel())
    assert found.index.tolist() == X.index[numbers.ravel()].tolist()
    pd.testing.assert_frame_equal(found[X.columns], X.iloc[numbers.ravel()])


def test_search_returns_fewer_rows_if_there_are_fewer(retriever):
    assert len(retriever.search(ready_frame(2), 1000, **PAIR)) == 80
    assert retriever.search(ready_frame(2), 1000, **PAIR)["rank"].max() == 40


def test_search_keeps_columns_of_equal_names():
    X = ready_frame(4).assign(score=[5.0, 4.0, 3.0, 2.0], rank="high")
    found = CrossModalRetriever(ReadySpace()).fit(X).search(X[:1], 2, **PAIR)
    assert {"score", "rank", "score_row", "rank_row"} <= set(found.columns)
    assert found["score_row"].tolist() == X.loc[found.index, "score"].tolist()


def test_polars_rows():
    polars = pytest.importorskip("polars")
    frame = ready_frame(6)
    X = polars.DataFrame({c: [*map(list, frame[c])] for c in ("text", "image")})
    X = X.with_columns(title=polars.Series(frame["title"].to_list()))
    retriever = CrossModalRetriever(ReadySpace()).fit(X[:4]).partial_fit(X[4:])
    found = retriever.search(X[5:], 2, **PAIR)
    _, numbers = retriever.kneighbors(X[5:], 2, **PAIR)
    assert found["title"].tolist() == [frame["title"].iloc[i] for i in numbers[0]]
    assert found["query"].tolist() == [0, 0]
    retriever.remove([5])
    assert len(retriever.rows_) == 5


# --- source and target --------------------------------------------------------------------


def test_defaults_of_source_and_target(X, retriever):
    there = retriever.kneighbors(X, 2, **PAIR)[1]
    assert np.array_equal(retriever.kneighbors(X, 2)[1], there)
    assert np.array_equal(retriever.kneighbors(X, 2, source="text")[1], there)
    assert np.array_equal(retriever.kneighbors(X, 2, target="image")[1], there)
    back = retriever.kneighbors(X, 2, source="image", target="text")[1]
    assert np.array_equal(retriever.kneighbors(X, 2, source="image")[1], back)
    assert np.array_equal(retriever.kneighbors(X, 2, target="text")[1], back)


def test_three_modalities():
    names = ("text", "image", "audio")
    X = ready_frame(30, names=names)
    retriever = CrossModalRetriever(ReadySpace(names)).fit(X)
    numbers = retriever.kneighbors(X, 1, source="audio", target="image", return_distance=False)
    assert (numbers.ravel() == np.arange(30)).mean() > 0.9
    with pytest.raises(ValueError, match="needs source and target.*3 modalities, 'text', 'image'"):
        retriever.kneighbors(X, 1, source="audio")


def test_only_targets_can_be_searched(X):
    retriever = CrossModalRetriever(ReadySpace(), targets=["image"]).fit(X)
    assert retriever.kneighbors(X, 2, **PAIR)[1].shape == (40, 2)
    with pytest.raises(ValueError, match="cannot search modality 'text'.*targets=\\['image'\\]"):
        retriever.kneighbors(X, 2, source="image", target="text")
    with pytest.raises(ValueError, match="no modality 'images'.*are 'text', 'image'"):
        CrossModalRetriever(ReadySpace(), targets=["images"]).fit(X)


# --- the alignment ------------------------------------------------------------------------


def test_the_alignment_is_cloned_and_fitted(X):
    space = ReadySpace()
    retriever = CrossModalRetriever(space).fit(X)
    assert not hasattr(space, "modalities_")
    assert retriever.alignment_.n_fits_ == 1
    assert retriever.modalities_ == [
        ("text", "passthrough", ["text"]),
        ("image", "passthrough", ["image"]),
    ]


def test_an_alignment_that_lists_names_instead_of_triples_is_refused(X):
    class Names(ReadySpace):
        def fit(self, X, y=None):
            self.modalities_ = ["text", "image"]
            return self

    with pytest.raises(TypeError, match="Names.modalities_ must be a list of .* got 'text'"):
        CrossModalRetriever(Names()).fit(X)


def test_a_frozen_alignment_stays_as_it_is(X):
    space = ReadySpace().fit(X)
    retriever = CrossModalRetriever(FrozenEstimator(space)).fit(X[:20])
    assert retriever.alignment_.estimator is space and space.n_fits_ == 1
    assert np.array_equal(
        retriever.kneighbors(X, 3)[1],
        CrossModalRetriever(ReadySpace()).fit(X[:20]).kneighbors(X, 3)[1],
    )
    assert clone(retriever).alignment.estimator is space


def test_not_fitted(X):
    for method in ("kneighbors", "search", "score", "remove"):
        with pytest.raises(NotFittedError):
            getattr(CrossModalRetriever(ReadySpace()), method)(X)


def test_score_is_the_mean_recall_of_both_directions():
    X = ready_frame(60, noise=1.0)
    vectors = [vectors_of(X, name).astype(float) for name in ("text", "image")]
    text, image = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    for k in (1, 5):
        expected = (recall_at_k(text @ image.T, k=k) + recall_at_k(image @ text.T, k=k)) / 2
        score = CrossModalRetriever(ReadySpace(), k=k).fit(X[:10]).score(X)
        assert score == pytest.approx(expected)
        assert k / 60 < score < 1


def test_cross_validation_and_grid_search(X):
    scores = cross_val_score(CrossModalRetriever(ReadySpace()), X, cv=4)
    assert scores.min() > 0.9
    grid = {"k": [1, 3], "alignment__width": [8]}
    search = GridSearchCV(CrossModalRetriever(ReadySpace()), grid, cv=2).fit(X)
    assert search.best_estimator_.alignment_.width == 8


# --- missing cells ------------------------------------------------------------------------


def test_rows_without_the_target_are_not_found(X):
    X = without_cells(X, image=[0, 3, 39], text=[1])
    retriever = CrossModalRetriever(ReadySpace(), missing_query="nan").fit(X)
    distances, numbers = retriever.kneighbors(X, 37, **PAIR)
    assert set(numbers[0]) == set(range(40)) - {0, 3, 39}
    expected, cosines = brute_force(vectors_of(X, "text")[[0, 2]], vectors_of(X, "image"), 37)
    assert np.array_equal(numbers[[0, 2]], expected)
    with pytest.raises(ValueError, match="n_neighbors=38 and 37 rows that can be found by 'image'"):
        retriever.kneighbors(X, 38, **PAIR)
    assert set(retriever.kneighbors(X, 39, "image", "text")[1][1]) == set(range(40)) - {1}


def test_queries_without_the_source(X):
    queries = without_cells(X[:4], text=[1, 3])
    strict = CrossModalRetriever(ReadySpace()).fit(X)
    with pytest.raises(
        ValueError, match="'text' is missing in query 'r1', and in 2 queries .*missing_query='nan'"
    ):
        strict.kneighbors(queries, 2, **PAIR)
    lenient = CrossModalRetriever(ReadySpace(), missing_query="nan").fit(X)
    distances, numbers = lenient.kneighbors(queries, 2, **PAIR)
    assert numbers[[1, 3]].tolist() == [[-1, -1]] * 2
    assert np.isnan(distances[[1, 3]]).all()
    assert np.array_equal(numbers[[0, 2]], strict.kneighbors(X.iloc[[0, 2]], 2, **PAIR)[1])
    found = lenient.search(queries, 2, **PAIR)
    assert found["query"].tolist() == ["r0", "r0", "r2", "r2"]
    nothing = lenient.search(without_cells(X[:2], text=[0, 1]), 2, **PAIR)
    assert len(nothing) == 0 and nothing.columns.tolist() == ["query", "rank", "score", *X.columns]


def test_no_row_has_the_target(X):
    retriever = CrossModalRetriever(ReadySpace()).fit(without_cells(X, image=range(40)))
    with pytest.raises(ValueError, match="n_neighbors=1 and 0 rows"):
        retriever.kneighbors(X, 1, **PAIR)
    assert len(retriever.search(X, 1, **PAIR)) == 0


# --- rows are added and removed -----------------------------------------------------------


def test_partial_fit_equals_fit_on_all_rows(X):
    X = without_cells(X, image=[0, 12], text=[39])
    whole = CrossModalRetriever(ReadySpace(), missing_query="nan").fit(X)
    parts = CrossModalRetriever(ReadySpace(), missing_query="nan").partial_fit(X[:10])
    for begin in range(10, 40, 3):
        parts.partial_fit(X[begin : begin + 3])
    for found, expected in zip(
        parts.kneighbors(X, 20, **PAIR), whole.kneighbors(X, 20, **PAIR), strict=True
    ):
        assert np.array_equal(found, expected, equal_nan=True)
    pd.testing.assert_frame_equal(parts.rows_, whole.rows_)
    assert parts.alignment_.n_fits_ == 1
    assert parts.numbers_.tolist() == list(range(40))


def test_removed_rows_are_not_found_and_the_others_keep_their_numbers(X):
    retriever = CrossModalRetriever(ReadySpace()).fit(X)
    first = retriever.kneighbors(X, 40, **PAIR)[1]
    retriever.remove([3, 20, 20])
    numbers = retriever.kneighbors(X, 38, **PAIR)[1]
    expected = [[n for n in row if n not in (3, 20)] for row in first]
    assert numbers.tolist() == expected
    assert retriever.numbers_.tolist() == [i for i in range(40) if i not in (3, 20)]
    assert retriever.rows_.index.tolist() == [f"r{i}" for i in retriever.numbers_]
    found = retriever.search(X[:1], 38, **PAIR)
    assert found["title"].tolist() == [f"row {n}" for n in numbers[0]]
    # New rows do not get the numbers of removed ones.
    retriever.partial_fit(X[3:4])
    assert retriever.numbers_[-1] == 40
    assert retriever.kneighbors(X[3:4], 1, **PAIR)[1] == [[40]]


def test_remove_by_label_number_and_mask(X):
    by_label = CrossModalRetriever(ReadySpace()).fit(X).remove(labels=["r2", "r5"])
    by_number = CrossModalRetriever(ReadySpace()).fit(X).remove([5, 2])
    by_mask = CrossModalRetriever(ReadySpace()).fit(X).remove(np.isin(np.arange(40), [2, 5]))
    for other in (by_number, by_mask):
        assert np.array_equal(other.numbers_, by_label.numbers_)
        assert np.array_equal(other.kneighbors(X, 9)[1], by_label.kneighbors(X, 9)[1])
    by_mask.remove(by_mask.numbers_ == 39)  # a mask of the rows that are left
    assert by_mask.numbers_[-1] == 38
    assert len(by_label.remove([]).numbers_) == 38
    twice = CrossModalRetriever(ReadySpace()).fit(pd.concat([X, X])).remove(labels=["r0"])
    assert len(twice.numbers_) == 78


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "takes either numbers or labels"),
        ({"numbers": [1], "labels": ["r1"]}, "takes either numbers or labels"),
        ({"numbers": [40]}, "no row of number 40"),
        ({"numbers": [-1]}, "no row of number -1"),
        ({"numbers": [True, False]}, r"bools for 40 rows; got bool of shape \(2,\)"),
        ({"numbers": ["r1"]}, "numbers must be ints"),
        ({"labels": ["x"]}, "no row is labeled 'x'"),
    ],
)
def test_invalid_removals(retriever, how, message):
    with pytest.raises(ValueError, match=message):
        retriever.remove(**how)
    assert len(retriever.numbers_) == 40


def test_all_rows_removed_and_others_added(X, retriever):
    retriever.remove(np.arange(40))
    assert len(retriever.search(X, 3, **PAIR)) == 0
    retriever.partial_fit(X[:5])
    assert retriever.kneighbors(X[:5], 1, **PAIR)[1].ravel().tolist() == [40, 41, 42, 43, 44]


def test_frames_of_other_columns_or_types(X, retriever):
    with pytest.raises(ValueError, match="X has no column 'title'"):
        retriever.partial_fit(X.drop(columns="title"))
    with pytest.raises(TypeError, match="partial_fit got a ndarray, and fit a DataFrame"):
        retriever.partial_fit(X.to_numpy())
    assert len(retriever.numbers_) == len(retriever.rows_) == 40
    retriever.partial_fit(X[X.columns[::-1]])  # in another order is fine
    assert retriever.rows_.columns.tolist() == X.columns.tolist()


def test_a_copy_has_its_own_rows(X, retriever):
    before = retriever.kneighbors(X, 5)[1]
    copy.deepcopy(retriever).partial_fit(X[:7]).remove([0, 1])
    assert np.array_equal(retriever.kneighbors(X, 5)[1], before)


# --- containers, pickles, parameters ------------------------------------------------------


def test_arrays_as_rows():
    class Halves(ReadySpace):
        def transform_modality(self, X, modality):
            return X[:, :3] if modality == "text" else X[:, 3:]

    rng = np.random.default_rng(0)
    X = np.tile(rng.standard_normal((20, 3)), 2)
    retriever = CrossModalRetriever(Halves()).fit(X[:15]).partial_fit(X[15:])
    assert retriever.kneighbors(X, 1)[1].ravel().tolist() == list(range(20))
    found = retriever.search(X[7:8], 2)
    assert found.columns.tolist() == ["query", "rank", "score", *(f"x{i}" for i in range(6))]
    assert found.index[0] == 7
    retriever.remove([7])
    assert retriever.rows_.shape == (19, 6)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
        CrossModalRetriever(Halves()).fit(X[0])


def test_pickle(X, retriever):
    retriever.partial_fit(X[:3]).remove([4])
    twin = pickle.loads(pickle.dumps(retriever))
    for found, expected in zip(twin.kneighbors(X, 9), retriever.kneighbors(X, 9), strict=True):
        assert np.array_equal(found, expected)
    twin.partial_fit(X[5:6])
    assert twin.numbers_[-1] == 43


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"index": "annoy"}, "'index' parameter"),
        ({"missing_query": "skip"}, "'missing_query' parameter"),
        ({"k": 0}, "'k' parameter"),
        ({"block_size": 0}, "'block_size' parameter"),
        ({"alignment": object()}, "'alignment' parameter"),
    ],
)
def test_invalid_parameters(X, params, message):
    with pytest.raises(ValueError, match=message):
        CrossModalRetriever(**{"alignment": ReadySpace(), **params}).fit(X)


@pytest.mark.parametrize("n_neighbors", [0, -1, 1.5])
def test_invalid_number_of_neighbors(X, retriever, n_neighbors):
    for method in (retriever.kneighbors, retriever.search):
        with pytest.raises(ValueError, match="n_neighbors must be an int of at least 1"):
            method(X, n_neighbors, **PAIR)


def test_unknown_modality(X, retriever):
    with pytest.raises(ValueError, match="no modality 'audio'.*are 'text', 'image'"):
        retriever.kneighbors(X, 1, source="audio")


def test_verbose_prints_what_was_encoded(X, capsys):
    retriever = CrossModalRetriever(ReadySpace()).fit(X)
    assert capsys.readouterr().out == ""
    retriever.set_params(verbose=1).fit(X).partial_fit(X[:5])
    lines = capsys.readouterr().out.splitlines()
    expected = [f"encoded {n} rows by '{name}'" for n in (40, 5) for name in ("text", "image")]
    assert [line.partition(" in ")[0] for line in lines] == [
        f"CrossModalRetriever: {text}" for text in expected
    ]


def test_html(retriever):
    assert "ReadySpace" in retriever._repr_html_()
