"""How many cells go through the model in one grid search. Counted on disk, not timed."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from report import table, versions, write_section
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skmm import ModuleEncoder

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # workers take this path over
from counting import CountingModule, lines

N_ROWS, N_FOLDS, CANDIDATES = 30, 5, [0.1, 1.0, 10.0]


class PlainEncoder(TransformerMixin, BaseEstimator):
    """An encoder as one writes it without skmm; its state is the name of the model alone.

    A cache of calls can then know it again. One that holds a module it cannot: equal modules
    have different hashes.
    """

    def __init__(self, log=None):
        self.log = log

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        cells = torch.from_numpy(np.stack(X["cell"].tolist()))
        vectors = CountingModule(self.log)(cells).detach().numpy()
        return pd.DataFrame(vectors, index=X.index, columns=["0", "1", "2"])


def problem():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"cell": list(rng.normal(size=(N_ROWS, 4)).astype(np.float32))})
    return X, pd.Series(np.arange(N_ROWS) % 2)


def search(encoder, *, memory=None, n_jobs=1):
    steps = [("encoder", encoder), ("head", LogisticRegression())]
    pipeline = Pipeline(steps, memory=memory)
    GridSearchCV(pipeline, {"head__C": CANDIDATES}, cv=N_FOLDS, n_jobs=n_jobs).fit(*problem())


def plain(folder):
    search(PlainEncoder(str(folder / "log")))


def with_memory(folder):
    search(PlainEncoder(str(folder / "log")), memory=str(folder / "memory"))


def skrub_search(folder, *, refit=True):
    """Run the same search as a plan of skrub with its cache of calls switched on."""
    import skrub

    options = {"cache": str(folder / "cache"), "target_cache_size": None, "eager_data_ops": False}
    X, y = problem()
    with skrub.config_context(**options):
        head = LogisticRegression(C=skrub.choose_from(CANDIDATES, name="C"))
        target = skrub.var("y").skb.mark_as_y()
        vectors = skrub.var("X").skb.mark_as_X().skb.apply(PlainEncoder(str(folder / "log")))
        plan = vectors.skb.apply(head, y=target)
        plan.skb.make_grid_search(cv=N_FOLDS, refit=refit).fit({"X": X, "y": y})


def skmm_search(folder, *, n_jobs=1):
    module = CountingModule(folder / "log")
    search(ModuleEncoder(module, batch_size=4, store=folder / "store"), n_jobs=n_jobs)


def main():
    rows = {}
    for name, run in (
        ("plain Pipeline", plain),
        ("Pipeline(memory=)", with_memory),
        ("skrub's cache", skrub_search),
        ("skrub's cache, without the refit", lambda f: skrub_search(f, refit=False)),
        ("skmm", skmm_search),
        ("skmm, 2 workers", lambda f: skmm_search(f, n_jobs=2)),
        ("skmm, 4 workers", lambda f: skmm_search(f, n_jobs=4)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))
            n = len(lines(Path(folder) / "log"))
        rows[name] = {"cells encoded": n, "times the rows": f"{n / N_ROWS:g}"}
    text = (
        f"{N_ROWS} rows, {len(CANDIDATES)} candidates x {N_FOLDS} folds and a refit; every"
        " cell that goes through the module writes a line to a file. The encoder of the others is"
        " built so that their caches work: it holds the model's name, not the model."
        f" {versions(['skrub', 'joblib'])}.\n\n"
    )
    result = table(pd.DataFrame(rows).T)
    write_section("Cells encoded in one search", "encodings.py", text + result)


if __name__ == "__main__":
    main()
