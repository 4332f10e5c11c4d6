"""Approximate indices: near to exact search, also after rows were added and removed."""

import pickle

import numpy as np
import pytest
from processes import run
from spaces import ReadySpace, ready_frame, without_cells

import skmm._environment._optional as optional
from skmm import CrossModalRetriever
from skmm.exceptions import MissingExtraError
from skmm.retrieval._search import ApproximateIndex

pytest.importorskip("faiss", reason="approximate search needs the extra 'index'")

PAIR = {"source": "text", "target": "image"}
INDICES = {
    "hnsw": {"index": "hnsw"},
    "ivf": {"index": "faiss", "index_params": {"factory": "IVF10,Flat", "search": "nprobe=5"}},
    "default": {"index": "faiss"},
    "quantized": {"index": "faiss", "index_params": {"factory": "SQ8"}},
}
each_index = pytest.mark.parametrize("name", INDICES)


@pytest.fixture(scope="module", name="X")
def frame():
    return ready_frame(600, width=16)


def make(name, **params):
    return CrossModalRetriever(ReadySpace(width=16), **{**INDICES.get(name, {}), **params})


def overlap(found, expected):
    """Return the mean fraction of the true neighbors that are found."""
    pairs = zip(found, expected, strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


@each_index
def test_finds_most_of_the_nearest_rows(X, name):
    retriever = make(name).fit(X)
    queries = ready_frame(100, width=16, seed=1)
    distances, numbers = retriever.kneighbors(queries, 10, **PAIR)
    exact, expected = make("exact").fit(X).kneighbors(queries, 10, **PAIR)
    assert overlap(numbers, expected) > 0.8
    # Rows that are found have their true distances, nearest first.
    assert (np.diff(distances, axis=1) >= 0).all()
    known = numbers == expected
    assert known.mean() > 0.5
    assert np.array_equal(distances[known], exact[known])
    assert len(np.unique(numbers[0])) == 10
    assert type(retriever._indices["image"]) is ApproximateIndex


@each_index
def test_exact_search_adds_neighbors_that_the_index_does_not_find(X, name):
    few = X[:30]
    retriever = make(name).fit(few)
    numbers = retriever.kneighbors(few, 30, **PAIR)[1]
    assert np.array_equal(numbers, make("exact").fit(few).kneighbors(few, 30, **PAIR)[1])
    with pytest.raises(ValueError, match="n_neighbors=31 and 30 rows"):
        retriever.kneighbors(few, 31, **PAIR)


@each_index
def test_rows_without_the_target_are_not_in_the_index(X, name):
    X = without_cells(X[:100], image=range(0, 100, 2))
    numbers = make(name).fit(X).kneighbors(X, 50, **PAIR)[1]
    assert set(numbers.ravel()) == set(range(1, 100, 2))
    assert np.array_equal(numbers, make("exact").fit(X).kneighbors(X, 50, **PAIR)[1])


@each_index
def test_rows_are_added_and_removed(X, name):
    retriever = make(name).fit(X[:400]).partial_fit(X[400:500]).partial_fit(X[500:])
    exact = make("exact").fit(X)
    rng = np.random.default_rng(0)
    for _ in range(3):  # the last round leaves so few that the index is built again
        gone = rng.choice(exact.numbers_, size=150, replace=False)
        retriever.remove(gone), exact.remove(gone)
        numbers = retriever.kneighbors(X, 10, **PAIR)[1]
        assert not np.isin(numbers, gone).any() and (numbers >= 0).all()
        assert overlap(numbers, exact.kneighbors(X, 10, **PAIR)[1]) > 0.8
    new = ready_frame(5, width=16, noise=0.01, seed=9)
    found = retriever.partial_fit(new).kneighbors(new, 1, **PAIR, return_distance=False)
    assert found.ravel().tolist() == [600, 601, 602, 603, 604]


def test_removed_rows_leave_the_index_when_they_are_the_majority(X):
    retriever = make("hnsw").fit(X)
    first = retriever._indices["image"]
    assert retriever.remove(np.arange(300))._indices["image"] is first
    assert retriever.remove([300])._indices["image"] is not first
    assert retriever._indices["image"]._faiss.ntotal == 299
    retriever.remove(np.arange(301, 600))
    assert len(retriever.search(X, 3, **PAIR)) == 0
    retriever.partial_fit(X[:2])
    assert retriever.kneighbors(X[:2], 1, **PAIR)[1].ravel().tolist() == [600, 601]


def test_all_nearest_rows_are_removed():
    """Removed rows fill the result of a graph, and exact search finds the rest."""
    near = ready_frame(300, width=16, noise=0.0)
    for name in ("text", "image"):
        near[name] = [near[name].iloc[0] + 1e-3 * cell for cell in near[name]]
    rows = ready_frame(400, width=16, seed=1)
    retriever = make("hnsw", index_params={"ef_search": 1, "M": 4}).fit(rows).partial_fit(near)
    exact = make("exact").fit(rows).partial_fit(near)
    gone = np.arange(400, 690)
    retriever.remove(gone), exact.remove(gone)
    numbers = retriever.kneighbors(near[:5], 40, **PAIR)[1]
    assert (numbers >= 0).all() and not np.isin(numbers, gone).any()
    assert np.isin(np.arange(690, 700), numbers[0]).all()


@each_index
def test_pickle(X, name):
    retriever = make(name).fit(X).remove(np.arange(50)).partial_fit(X[:20])
    stored = pickle.dumps(retriever)
    twin = pickle.loads(stored)
    again = pickle.loads(pickle.dumps(twin))  # before its index was used
    expected = retriever.kneighbors(X, 10, **PAIR)
    for other in (twin, again):
        for found, true in zip(other.kneighbors(X, 10, **PAIR), expected, strict=True):
            assert np.array_equal(found, true)
    twin.partial_fit(X[20:30]).remove([100])
    assert 100 not in twin.kneighbors(X, 10, **PAIR)[1]
    assert twin.kneighbors(X[29:30], 1, **PAIR)[1] == [[629]]


@pytest.mark.slow
def test_pickle_in_another_process(X, tmp_path):
    retriever = make("hnsw").fit(X)
    path = tmp_path / "retriever.pickle"
    path.write_bytes(pickle.dumps((retriever, X[:50])))
    code = """
        import pathlib, pickle

        retriever, X = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
        print(retriever.kneighbors(X, 3, "text", "image")[1].tolist())
    """
    printed = run(code, arguments=[path])
    assert printed.strip() == str(retriever.kneighbors(X[:50], 3, **PAIR)[1].tolist())


def test_only_targets_are_indexed(X):
    assert list(make("hnsw", targets=["image"]).fit(X)._indices) == ["image"]
    assert sorted(make("hnsw").fit(X)._indices) == ["image", "text"]


def test_parameters_of_the_index(X):
    retriever = make("hnsw", index_params={"M": 8, "ef_construction": 20, "ef_search": 30}).fit(X)
    graph = retriever._indices["image"]._faiss.hnsw
    assert (graph.efConstruction, graph.efSearch) == (20, 30)
    assert graph.nb_neighbors(1) == 8
    index = make("ivf").fit(X)._indices["image"]._faiss
    assert (index.nlist, index.nprobe) == (10, 5)


def test_default_of_faiss_for_many_rows_is_an_inverted_file():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((12_000, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = ApproximateIndex("faiss", None, "A test")
    index.build(np.arange(12_000), vectors)
    assert index._faiss.nlist == 218 and index._faiss.nprobe == 27
    expected = np.argsort(-(vectors[:50] @ vectors.T), axis=1)[:, :10]
    assert overlap(index.search(vectors[:50], 10), expected) > 0.9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"index": "hnsw", "index_params": {"m": 3}}, r"are \['M', 'ef_.*\], got 'm'"),
        (
            {"index": "faiss", "index_params": {"factory": "IVF4096,Flat"}},
            "faiss refuses index_params=.* for 600 vectors: .*4096",
        ),
        ({"index": "faiss", "index_params": {"factory": "nonsense"}}, "could not parse"),
        ({"index": "faiss", "index_params": {"search": "speed=3"}}, "could not set parameter"),
    ],
)
def test_invalid_parameters(X, params, message):
    with pytest.raises(ValueError, match=f"CrossModalRetriever: .*{message}"):
        make("exact", **params).fit(X)


def test_faiss_is_not_installed(X, monkeypatch):
    def not_found(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(optional.importlib, "import_module", not_found)
    monkeypatch.setattr(optional, "is_installed", lambda name: False)
    with pytest.raises(MissingExtraError, match=r"index='hnsw' needs.*'faiss'.*skmm\[index\]"):
        make("hnsw").fit(X)
    make("exact").fit(X)
