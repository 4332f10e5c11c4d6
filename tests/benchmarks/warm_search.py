"""A search whose cells are all in the store, against the same search on the ready matrix."""

import tempfile

import numpy as np
import pandas as pd
from material import mixed_texts
from report import table, write_section
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from timing import interleaved, speeds

from skmm import EarlyFusion, TextEncoder
from skmm.encoders import EmbeddingStore

N_TEXTS, REPEATS, N_FOLDS = 2000, 3, 5
GRID = {"head__C": np.logspace(-3, 1, 12).tolist()}


def searches(frame, y, store):
    """Both pairs: (skmm's pipeline and its data, the ready matrix's pipeline and its data)."""

    def pipeline(*steps, tol=1e-4):
        return Pipeline([*steps, ("head", LogisticRegression(max_iter=1000, tol=tol))])

    encoder = TextEncoder(store=store)
    matrix = encoder.fit_transform(frame[["text"]])
    numbers = frame[["n_letters", "n_words"]].to_numpy(np.float32)
    triples = [
        ("text", TextEncoder(store=store), ["text"]),
        ("numbers", "passthrough", ["n_letters", "n_words"]),
    ]
    yield (
        "TextEncoder",
        (pipeline(("encoder", encoder)), frame[["text"]]),
        (pipeline(), matrix),
    )
    yield (
        "EarlyFusion of text and two numbers",
        # Scaled features: to the last digit a fit would take ten times as long on both sides.
        (pipeline(("fusion", EarlyFusion(triples)), tol=1e-2), frame),
        (pipeline(("scaler", StandardScaler()), tol=1e-2), np.hstack([matrix, numbers])),
    )


def main():
    texts, y = mixed_texts(N_TEXTS)
    frame = pd.DataFrame({"text": texts})
    frame["n_letters"] = frame["text"].str.len().astype(float)
    frame["n_words"] = frame["text"].str.split().str.len().astype(float)
    tables, scores = [], {}
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(folder)
        for name, *pair in searches(frame, y, store):
            before = store.stats()["encoded"]

            def search(side, case, name=name):
                model, X = case
                found = GridSearchCV(model, GRID, cv=N_FOLDS, refit=False).fit(X, y)
                scores[name, side] = found.cv_results_["mean_test_score"]

            sides = dict(zip((f"skmm, {name}", "ready matrix"), pair, strict=True))
            seconds = interleaved(
                {side: (lambda s=side, c=case: search(s, c)) for side, case in sides.items()},
                repeats=REPEATS,
            )
            ours = f"skmm, {name}"
            gap = np.abs(scores[name, ours] - scores[name, "ready matrix"]).max()
            if gap > 0.01:
                raise SystemExit(f"The two searches' scores differ by {gap:.3f}.")
            encoded = store.stats()["encoded"] - before
            result = speeds(seconds, ours, {"ready matrix": 0.9})
            tables.append(f"{encoded} cells encoded meanwhile.\n\n{table(result)}")
        store.close()
    text = (
        f"{N_TEXTS} texts, all stored before; {len(GRID['head__C'])} candidates x {N_FOLDS} folds"
        f" of logistic regression, n_jobs=1, no refit: {len(GRID['head__C']) * N_FOLDS} fits;"
        f" the same scores on both sides. {REPEATS} interleaved runs.\n\n"
    )
    write_section("Warm search", "warm_search.py", text + "\n\n".join(tables))


if __name__ == "__main__":
    main()
