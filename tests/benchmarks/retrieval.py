"""Search among a million vectors: time, memory, and what an approximate index misses.

Each case runs in a process of its own. ``--rows 100000`` measures another number of rows, and
``--cases hnsw`` some of the cases, which get a section of their own::

    python tests/benchmarks/retrieval.py --rows 1000000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from memory import AnonymousPeak, kilobytes
from report import table, write_section
from sklearn.base import BaseEstimator

WIDTH, LATENT, N_QUERIES, N_SINGLE, K = 256, 32, 1000, 50, 10
CASES = {
    "exact": {"index": "exact"},
    "faiss (IVF)": {"index": "faiss"},
    "hnsw": {"index": "hnsw"},
}
PEER = "scikit-learn NearestNeighbors"
ALL = ["exact", PEER, "faiss (IVF)", "hnsw"]  # the slowest to build comes last


class Ready(BaseEstimator):
    """A space in which the images lie already; only queries have texts."""

    def __init__(self, folder):
        self.folder = folder

    def fit(self, X, y=None):
        self.modalities_ = [(name, "passthrough", [name]) for name in ("text", "image")]
        return self

    def transform_modality(self, X, modality):
        if modality == "image":  # read in blocks
            return np.load(Path(self.folder) / "image.npy", mmap_mode="r")
        if len(X) == N_QUERIES:
            return np.load(Path(self.folder) / "text.npy")
        if len(X) == 1:
            return np.load(Path(self.folder) / "text.npy")[X["row"]]
        return np.broadcast_to(np.float32(np.nan), (len(X), WIDTH))


def make(n_rows, folder):
    """Write image vectors near a subspace, and noisy text vectors of some of them."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((LATENT, WIDTH)).astype(np.float32)
    shape = (n_rows, WIDTH)
    rows = np.lib.format.open_memmap(folder / "image.npy", "w+", dtype=np.float32, shape=shape)
    latent = rng.standard_normal((n_rows, LATENT), dtype=np.float32)
    for begin in range(0, n_rows, 50_000):
        part = latent[begin : begin + 50_000] @ mixing
        rows[begin : begin + 50_000] = part + rng.standard_normal(part.shape, dtype=np.float32)
    rows.flush()
    asked = latent[rng.choice(n_rows, N_QUERIES, replace=False)]
    noise = 0.3 * rng.standard_normal(asked.shape, dtype=np.float32)
    np.save(folder / "text.npy", (asked + noise) @ mixing)


def timed(run):
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def searcher(case, folder, n_rows):
    """Fit in this process; return how to search for queries of these rows of the query set."""
    if case == PEER:
        from sklearn.neighbors import NearestNeighbors

        model = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute")
        model.fit(np.load(folder / "image.npy"))
        texts = np.load(folder / "text.npy")
        return lambda rows: model.kneighbors(texts[rows], return_distance=False)
    from skmm import CrossModalRetriever

    model = CrossModalRetriever(Ready(str(folder)), targets=["image"], **CASES[case])
    model.fit(pd.DataFrame({"row": np.arange(n_rows)}))
    return lambda rows: model.kneighbors(
        pd.DataFrame({"row": rows}), K, "text", "image", return_distance=False
    )


def child(case, n_rows, folder):
    """Measure one case, and write the measures to standard output."""
    from skmm import CrossModalRetriever  # noqa: F401  # its imports are not part of the search

    before, peak = kilobytes("RssAnon"), AnonymousPeak()
    peak.start()
    cpu = time.process_time()  # of all threads, whatever else the machine does
    fitting, search = timed(lambda: searcher(case, folder, n_rows))
    cpu = time.process_time() - cpu
    held = kilobytes("RssAnon")
    everything = np.arange(N_QUERIES)
    search(everything[:1])
    batch, numbers = timed(lambda: search(everything))
    singles = [timed(lambda i=i: search(everything[i : i + 1]))[0] for i in range(N_SINGLE)]
    peak.ended.set()
    peak.join()
    truth = folder / "truth.npy"
    if case == "exact":
        np.save(truth, numbers)
    pairs = zip(numbers, np.load(truth), strict=True)
    figures = {
        "fit (s)": f"{fitting:.0f}",
        "fit (CPU s)": f"{cpu:.0f}",
        "held (GB)": f"{(held - before) / 2**20:.2f}",
        "peak (GB)": f"{(peak.value - before) / 2**20:.2f}",
        f"a query of {N_QUERIES} (ms)": f"{1000 * batch / N_QUERIES:.2f}",
        "a single query (ms)": f"{1000 * median(singles):.1f}",
        "recall@10": f"{np.mean([len(set(a) & set(b)) / K for a, b in pairs]):.4f}",
    }
    print(json.dumps(figures))


def main(n_rows, cases):
    rows = {}
    cases = [case for case in ALL if case in {"exact", *cases}]  # the truth comes first
    with tempfile.TemporaryDirectory() as folder:
        make(n_rows, Path(folder))
        for case in cases:
            command = [sys.executable, __file__, "--child", case, str(n_rows), folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows[case] = json.loads(done.stdout.splitlines()[-1])
            print(f"  {case}: {rows[case]}", flush=True)
            write(n_rows, rows, "Retrieval" if cases == ALL else f"Retrieval: {', '.join(cases)}")


def write(n_rows, rows, title):
    text = (
        f"{n_rows:,} vectors of {WIDTH} numbers, {n_rows * WIDTH * 4 / 2**30:.2f} GB as float32,"
        f" about a subspace of {LATENT} dimensions; {N_QUERIES} queries of the other modality, the"
        f" {K} nearest rows. Memory is what is not backed by a file, above that of the imports:"
        " after fit, and at its peak in fit or search; the input vectors are a file. Time of one"
        f" query: among a batch, and alone, on {torch.get_num_threads()} thread(s). Recall@10 is"
        " against exact search.\n\n"
    )
    write_section(title, "retrieval.py", text + table(pd.DataFrame(rows).T))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        parser = argparse.ArgumentParser(description="Search among many vectors.")
        parser.add_argument("--rows", type=int, default=1_000_000)
        parser.add_argument("--cases", nargs="+", choices=ALL, default=ALL)
        options = parser.parse_args()
        main(options.rows, options.cases)
