"""How many cells go through the model in one grid search. Counted on disk, not timed."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from report import table, write_section
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skmm import ModuleEncoder

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # workers take this path over
from counting import CountingModule, lines

N_ROWS, N_FOLDS, GRID = 30, 5, {"head__C": [0.1, 1.0, 10.0]}


def cells_encoded(folder, *, store, n_jobs=1):
    """Run the search and count the lines that the module wrote."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"cell": list(rng.normal(size=(N_ROWS, 4)).astype(np.float32))})
    y = np.arange(N_ROWS) % 2
    log = folder / "log"
    encoder = ModuleEncoder(CountingModule(log), batch_size=4, store=store)
    pipeline = Pipeline([("encoder", encoder), ("head", LogisticRegression())])
    GridSearchCV(pipeline, GRID, cv=N_FOLDS, n_jobs=n_jobs).fit(X, y)
    # A fit without a store looks at one cell to learn the module's width; that is ours, not
    # what a plain transformer does, and is left out of its count.
    n_fits = len(GRID["head__C"]) * N_FOLDS + 1
    width_looks = n_fits if store is False else 0
    return len(lines(log)) - width_looks


def main():
    rows = {}
    for name, stored, n_jobs in (
        ("plain Pipeline", False, 1),
        ("skmm", True, 1),
        ("skmm, 2 workers", True, 2),
    ):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store" if stored else False
            n = cells_encoded(Path(folder), store=store, n_jobs=n_jobs)
        rows[name] = {"cells encoded": n, "times the rows": n // N_ROWS}
    text = (
        f"{N_ROWS} rows, {len(GRID['head__C'])} candidates x {N_FOLDS} folds and a refit; every"
        " cell that goes through the module writes a line to a file.\n\n"
    )
    write_section("Cells encoded in one search", "encodings.py", text + table(pd.DataFrame(rows).T))


if __name__ == "__main__":
    main()
