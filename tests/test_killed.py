"""Processes that are really killed, with signal 9, in the middle of an encoding.

What was stored stays, what was claimed is free again: the next run encodes only what was not
stored yet, and that is at most one batch for each worker that died.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from counting import CountingModule, KillerModule, lines
from joblib.externals.loky.process_executor import TerminatedWorkerError
from processes import start
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmm import ModuleEncoder
from skmm.encoders import EmbeddingStore

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no signal 9")

BATCH = 2


def data(n=48):
    """Distinct vectors, and what they tell."""
    cells = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    X = pd.DataFrame({"cell": pd.Series(list(cells), dtype=object)})
    return X, (cells[:, 0] > 0).astype(int)


def search(module, store, **options):
    encoder = ModuleEncoder(module, batch_size=BATCH, store=store)
    pipeline = make_pipeline(encoder, LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0, 10.0]}
    return GridSearchCV(pipeline, grid, cv=3, error_score="raise", **options)


def workers(log):
    """Processes that have encoded something."""
    return {int(line.split()[0]) for line in lines(log)}


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):  # one that has ended and that nobody has asked after
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    return not status.parent.parent.exists()


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def check_vectors(store, found):
    """All is stored, and right."""
    X, _ = data()
    assert store.stats()["n_embeddings"] == len(X)
    encoder = found.best_estimator_[0]
    expected = np.stack(X["cell"]) @ encoder.module.weight.detach().numpy()
    np.testing.assert_allclose(encoder.transform(X), expected, atol=1e-6)


@pytest.mark.slow
def test_encoder_loses_at_most_a_batch(tmp_path):
    log, store = tmp_path / "log", EmbeddingStore(tmp_path / "store")
    X, _ = data()
    module = KillerModule(log, at_batch=13, flag=tmp_path / "flag")
    encoder = ModuleEncoder(module, batch_size=BATCH, store=store)
    with open(tmp_path / "job.pkl", "wb") as file:
        pickle.dump((encoder, X), file)
    code = "import pickle; e, X = pickle.load(open(sys.argv[1], 'rb')); e.fit_transform(X)"
    with start(code, arguments=[tmp_path / "job.pkl"]) as process:
        assert process.wait(timeout=300) == -signal.SIGKILL
    n_before, kept = len(lines(log)), store.stats()["n_embeddings"]
    assert 0 < n_before - kept <= BATCH
    features = encoder.fit_transform(X)
    assert len(lines(log)) - n_before == len(X) - kept
    expected = np.stack(X["cell"]) @ module.weight.detach().numpy()
    np.testing.assert_allclose(features, expected, atol=1e-6)


@pytest.mark.slow
def test_worker_of_a_search(tmp_path):
    """The search ends with loky's error; the next one continues where it was."""
    log, store = tmp_path / "log", EmbeddingStore(tmp_path / "store")
    X, y = data()
    module = KillerModule(log, at_batch=21, flag=tmp_path / "flag", pause=0.05)
    with joblib.parallel_backend("loky"), pytest.raises(TerminatedWorkerError):
        search(module, store, n_jobs=2).fit(X, y)
    assert (tmp_path / "flag").exists()
    wait_until(lambda: not any(map(is_alive, workers(log))))  # loky ends the others too
    n_before, kept = len(lines(log)), store.stats()["n_embeddings"]
    # The one that was killed and the one that loky ended were each at a batch.
    assert 0 < kept and 0 < n_before - kept <= 2 * BATCH
    found = search(module, store, n_jobs=2).fit(X, y)  # with workers again
    assert len(lines(log)) - n_before == len(X) - kept
    check_vectors(store, found)


SEARCH = """
import pickle
import joblib
search, X, y = pickle.load(open(sys.argv[1], "rb"))
with joblib.parallel_config("loky", n_jobs=2, idle_worker_timeout=2):
    search.fit(X, y)
"""


def slow_module(log):
    return CountingModule(log, pause=0.1)


@contextlib.contextmanager
def running_search(folder, log, store):
    """A process with two workers, all of which have encoded something."""
    X, y = data()
    with open(folder / "job.pkl", "wb") as file:
        pickle.dump((search(slow_module(log), store, n_jobs=2), X, y), file)
    process = start(
        SEARCH,
        arguments=[folder / "job.pkl"],
        start_new_session=True,
        stderr=subprocess.DEVNULL,  # of the workers' tracker, when they are gone
    )
    try:
        wait_until(lambda: len(workers(log)) == 2 or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


@pytest.mark.slow
def test_main_process_of_a_search(tmp_path):
    """Its workers finish their tasks; a search that starts meanwhile shares their work."""
    log, store = tmp_path / "log", EmbeddingStore(tmp_path / "store")
    X, y = data()
    with running_search(tmp_path, log, store) as process:
        process.kill()
        process.wait()
        orphans = workers(log)
        assert len(lines(log)) < len(X)
        found = search(slow_module(log), store).fit(X, y)
        assert len(lines(log)) == len(X)  # nobody who encoded has died: nothing is lost
        assert workers(log) == {*orphans, os.getpid()}
    # They end half a minute after their last task, which is loky's doing; here they are killed.
    assert store.stats()["encoded"] == len(X)
    check_vectors(store, found)


@pytest.mark.slow
def test_search_with_all_its_workers(tmp_path):
    """As when a machine stops: nobody is left, and nobody has cleaned up."""
    log, store = tmp_path / "log", EmbeddingStore(tmp_path / "store")
    X, y = data()
    with running_search(tmp_path, log, store) as process:
        os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers(log))))
    n_before, kept = len(lines(log)), store.stats()["n_embeddings"]
    assert 0 < kept <= n_before <= kept + 2 * BATCH
    assert n_before < len(X)
    found = search(slow_module(log), store).fit(X, y)
    assert len(lines(log)) - n_before == len(X) - kept
    check_vectors(store, found)
