"""A search whose workers share the encoding, against encoding the column by hand first.

Both sides use the same pool. Two models: all-MiniLM-L6-v2, and one that sleeps a known time for
every cell and writes a line for it.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import product
from logging import ERROR
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from calibrated import CalibratedModule, import_all, lines
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from material import mixed_texts
from report import table, versions, write_section
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from timing import interleaved, verdict

from skmm import ModuleEncoder, TextEncoder
from skmm.encoders import EmbeddingStore

N_TEXTS, N_VECTORS, SECONDS_A_CELL, N_FOLDS, REPEATS = 2000, 400, 0.005, 5, 2
GRID = {"head__C": np.logspace(-3, 1, 12).tolist()}
CASES = {
    "pools of joblib": [("none", 1), *product(["loky", "threading"], [2, 4])],
    "dask": [("dask", 2), ("dask", 4)],
}
BAR = 1.15


@contextmanager
def pool(backend, n_jobs):
    """Make workers of the kind and have them import what they need."""
    if backend == "none":
        yield
        return
    if backend == "dask":
        import dask
        from distributed import Client, LocalCluster

        # As the guide's page on tuning advises: else models run slower in dask's workers.
        dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})
        options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": ERROR}
        with LocalCluster(n_workers=n_jobs, **options) as cluster, Client(cluster):
            with parallel_config("dask"):
                Parallel(n_jobs=n_jobs)(delayed(import_all)(1.0) for _ in range(n_jobs))
                yield
        return
    with parallel_config(backend):
        Parallel(n_jobs=n_jobs)(delayed(import_all)(1.0) for _ in range(n_jobs))
        yield


def end_loky():
    # The current pool, of any size; to end by itself it would take seconds.
    get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def texts():
    found, y = mixed_texts(N_TEXTS)
    return pd.DataFrame({"text": found}), y, lambda _: TextEncoder(device="cpu")


def vectors():
    cells = np.random.default_rng(0).normal(size=(N_VECTORS, 4)).astype(np.float32)

    def encoder(folder):
        module = CalibratedModule(folder / "log", seconds_a_cell=SECONDS_A_CELL)
        return ModuleEncoder(module, batch_size=8)

    return pd.DataFrame({"vector": list(cells)}), np.arange(N_VECTORS) % 2, encoder


def search(steps, X, y, n_jobs):
    pipeline = Pipeline([*steps, ("head", LogisticRegression(max_iter=1000))])
    GridSearchCV(pipeline, GRID, cv=N_FOLDS, n_jobs=n_jobs).fit(X, y)


def sides(X, y, make, n_jobs, counts):
    """Return both ways as functions that give their seconds; ``counts`` gets the cells encoded."""

    def run(name, work):
        with tempfile.TemporaryDirectory() as folder:
            encoder = make(Path(folder)).set_params(store=str(Path(folder) / "store"))
            begin = time.perf_counter()
            work(encoder)
            seconds = time.perf_counter() - begin
            store = EmbeddingStore(Path(folder) / "store")
            counts.setdefault(name, []).append(store.stats()["encoded"])
            store.close()
            if (Path(folder) / "log").exists():  # the module's own count of the same
                counts[name].append(len(lines(Path(folder) / "log")))
        return seconds

    def shared(encoder):
        search([("encoder", encoder)], X, y, n_jobs)

    def by_hand(encoder):
        search([], encoder.fit_transform(X), y, n_jobs)

    return {"skmm": lambda: run("skmm", shared), "by hand": lambda: run("by hand", by_hand)}


def measure(load, cases):
    X, y, make = load()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        # Have the main process load the weights, or the first side would pay for both.
        make(Path(folder)).set_params(store=False).fit_transform(X[:2])
    for backend, n_jobs in cases:
        print(f"{load.__name__}, {backend}, {n_jobs} workers", flush=True)
        counts = {}
        with pool(backend, n_jobs):
            seconds = interleaved(sides(X, y, make, n_jobs, counts), repeats=REPEATS)
        ours, theirs = seconds["skmm"], seconds["by hand"]
        ratio = min(ours) / min(theirs)
        if backend == "loky":
            end_loky()
        rows[f"{backend}, {n_jobs}" if n_jobs > 1 else "n_jobs=1"] = {
            "cells encoded": ", ".join(map(str, sorted(set(counts["skmm"])))),
            "by hand (s)": min(theirs),
            "skmm (s)": min(ours),
            "ratio": f"{ratio:.2f}",
            "first run": f"{ours[0] / theirs[0]:.2f}",
            "bar": verdict(ratio <= BAR, f"at most {BAR}"),
        }
    return f"{len(X)} {load.__name__}:\n\n{table(pd.DataFrame(rows).T, 2)}"


def main():
    text = (
        f"{len(GRID['head__C'])} candidates x {N_FOLDS} folds of logistic regression and a refit,"
        " behind an encoder with an empty store (skmm), or on the matrix of the column encoded"
        " once in the main process (by hand): wall time of the whole, smaller is better. Pools"
        " have started and have imported skmm and transformers; in the first run their workers"
        " load the weights, which the main process has. Dask's workers keep the"
        " memory that they free (`MALLOC_TRIM_THRESHOLD_` unset)."
        f" {torch.get_num_threads()} torch threads in the main process,"
        f" {versions(['joblib', 'distributed'])}. Fastest of {REPEATS} interleaved runs.\n\n"
    )
    loads = {
        "texts": (texts, "all-MiniLM-L6-v2"),
        "vectors": (vectors, f"{SECONDS_A_CELL * 1000:g} ms of sleep a cell"),
    }
    # Some of them, if asked: each takes minutes.
    for (load, model), (pools, cases) in product(loads.items(), CASES.items()):
        if {load, pools.split()[0]} >= set(sys.argv[1:]):
            title = f"Workers share the encoding: {model[1]}, {pools}"
            write_section(title, "workers.py", text + measure(model[0], cases))


if __name__ == "__main__":
    main()
