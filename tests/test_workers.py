"""Workers of one search: they encode every cell once together, and share the torch threads."""

import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from counting import CountingModule, lines
from meeting import MeetingModule, NotingStrategy, encode_and_train, notes
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmm import EarlyFusion, JointFusionClassifier, ModuleEncoder
from skmm.encoders import EmbeddingStore

N_CELLS = 48
# Two cores or more, as the parent process sees them: what there is to share.
CORES = max(2, joblib.cpu_count())


def frame(seed=0):
    """48 distinct vectors, half of them twice, and a number; y depends on both."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(N_CELLS, 4)).astype(np.float32)
    which = np.r_[np.arange(N_CELLS), rng.integers(0, N_CELLS, N_CELLS // 2)]
    number = rng.normal(size=len(which))
    y = (vectors[which, 0] + number > 0).astype(int)
    cells = pd.Series([vectors[i] for i in which], dtype=object)
    return pd.DataFrame({"cell": cells, "number": number}), y


def triples(encoder):
    return [("cell", encoder, ["cell"]), ("number", "passthrough", ["number"])]


def search(module, store, n_jobs):
    """12 candidates in 5 folds."""
    encoder = ModuleEncoder(module, batch_size=4, store=store)
    model = make_pipeline(EarlyFusion(triples(encoder)), LogisticRegression())
    grid = {"logisticregression__C": np.logspace(-3, 2, 12)}
    return GridSearchCV(model, grid, cv=5, n_jobs=n_jobs, error_score="raise")


@pytest.fixture(scope="module")
def expected():
    """The search in one process, without a store."""
    X, y = frame()
    return search(CountingModule(os.devnull), False, None).fit(X, y)


@pytest.fixture(scope="module")
def dask_cluster():
    """Two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    # The cluster limits its workers' threads, and leaves the limits in our environment.
    before = os.environ.copy()
    try:
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster:
            yield cluster
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def workers(request, backend, n_jobs):
    """Tell joblib to use so many workers."""
    if backend != "dask":
        with joblib.parallel_config(backend, n_jobs=n_jobs):
            yield
        return
    cluster = request.getfixturevalue("dask_cluster")
    import distributed

    with distributed.Client(cluster):
        some = [worker.worker_address for worker in cluster.workers.values()][:n_jobs]
        assert len(some) == n_jobs
        with joblib.parallel_config("dask", workers=some):
            yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "n_jobs"),
    [
        ("loky", 1),
        ("loky", 2),
        ("threading", 4),
        ("multiprocessing", 2),
        pytest.param("dask", 2, marks=pytest.mark.slow),
    ],
)
def test_a_search_encodes_every_cell_once(request, tmp_path, expected, backend, n_jobs):
    """12 candidates x 5 folds and the refit: 61 fits, and as many cells as there are."""
    X, y = frame()
    log, folder = tmp_path / "log", tmp_path / "store"
    with workers(request, backend, n_jobs):
        found = search(CountingModule(log, pause=0.002), folder, n_jobs).fit(X, y)
    encoded = lines(log)
    assert len({line.split()[1] for line in encoded}) == len(encoded) == N_CELLS
    stats = EmbeddingStore(folder).stats()
    assert stats["encoded"] == stats["n_embeddings"] == N_CELLS
    assert found.best_params_ == expected.best_params_
    for name in [f"split{i}_test_score" for i in range(5)]:
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-5)
    assert len(lines(log)) == N_CELLS


@pytest.fixture(
    scope="module",
    params=["loky", "threading", "multiprocessing", pytest.param("dask", marks=pytest.mark.slow)],
)
def two_workers(request, tmp_path_factory):
    """Folder of the notes of two workers that encode and then train, where they can in lockstep."""
    folder = tmp_path_factory.mktemp(request.param)
    X, y = frame()
    # The store is the private one of this process.
    encoder = ModuleEncoder(MeetingModule(folder / "log"), batch_size=2)
    model = JointFusionClassifier(
        triples(encoder),
        strategy=partial(NotingStrategy, log=str(folder / "training")),
        n_components=4,
        max_epochs=2,
        random_state=0,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    try:
        with workers(request, request.param, 2):
            first, second = joblib.Parallel(n_jobs=2)(
                joblib.delayed(encode_and_train)(encoder, model, X, y) for _ in range(2)
            )
        assert torch.get_num_threads() == CORES, "the main process has lost its threads"
    finally:
        torch.set_num_threads(before)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    return folder


class TestTwoWorkers:
    def test_every_cell_is_encoded_once(self, two_workers):
        encoded = lines(two_workers / "log")
        assert len({line.split()[1] for line in encoded}) == len(encoded) == N_CELLS

    def test_neither_waits_idle_for_the_other(self, two_workers):
        done = [worker for worker, _, _ in notes(two_workers / "log.meetings")]
        shares = [done.count(worker) for worker in set(done)]
        assert len(shares) == 2 and min(shares) >= 5, f"batches of each worker: {shares}"

    def test_encoding_takes_no_more_threads_than_cores(self, two_workers):
        encoding = both_at_work(notes(two_workers / "log.meetings"))
        assert len(encoding) >= 5
        assert 2 * max(n for _, n, _ in encoding) <= max(CORES, 2)

    def test_training_takes_one_thread(self, two_workers):
        training = notes(two_workers / "training")
        assert {what for _, _, what in training} == {"train", "predict"}
        assert {n for _, n, _ in training} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_worker_on_another_machine(tmp_path, shared):
    """It sees neither our folder for temporary files nor our settings, only what is pickled."""
    X, _ = frame()
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    elsewhere.mkdir()
    store = tmp_path / "store" if shared else None
    encoder = ModuleEncoder(CountingModule(log), batch_size=4, store=store)
    here = encoder.fit_transform(X[["cell"]])
    assert len(lines(log)) == N_CELLS
    with open(tmp_path / "job.pkl", "wb") as file:
        pickle.dump((encoder, X[["cell"]]), file)
    code = (
        "import pickle, sys, numpy; sys.path[:0] = eval(sys.argv[2]);"
        "e, X = pickle.load(open(sys.argv[1], 'rb'));"
        "numpy.save(sys.argv[3], e.fit_transform(X))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "job.pkl"), repr(sys.path)]
    environment = {**os.environ, "TMPDIR": str(elsewhere)}
    subprocess.run([*command, str(tmp_path / "there.npy")], check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), here, rtol=1e-5)
    assert len(lines(log)) == (1 if shared else 2) * N_CELLS
    assert list(elsewhere.iterdir()) == []  # its own session is gone with it


def both_at_work(encoding):
    """Leave out the batches that a worker may have begun while the other was not encoding.

    A batch is begun after the one before it of the same worker.
    """
    order = [worker for worker, _, _ in encoding]
    span = {w: (order.index(w), len(order) - 1 - order[::-1].index(w)) for w in set(order)}
    kept, last = [], {}
    for i, one in enumerate(encoding):
        others = [span[w] for w in span if w != one[0]]
        if any(start < last.get(one[0], -1) and i < end for start, end in others):
            kept.append(one)
        last[one[0]] = i
    return kept
