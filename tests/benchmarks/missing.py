"""The cost of a missing modality in a joint fusion, against one that was trained without it.

Every modality in turn is removed from all rows of the test part. The bar: with ``missing="mask"``
and modality dropout, the mean loss against an estimator that was trained without the modality is at
most two points, beyond what seeds leave open, and no score is below that of the prior.

Three seeds, each another split of the rows in 3 : 1. Embeddings are encoded once for all of it.
"""

import sys

import numpy as np
import pandas as pd
from digits import PIXELS
from digits import frame as digits_frame
from real_data import score
from report import load_real, table, write_section
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from skmm import (
    AudioEncoder,
    ImageEncoder,
    JointFusionClassifier,
    TabularEncoder,
    TextEncoder,
    set_config,
)

SEEDS = (0, 1, 2)
POINTS = 0.02
DROPOUT = 0.3
N_CLOTHING = 3000
SETUPS = {
    "mask, no dropout": {"missing": "mask", "modality_dropout": 0.0},
    "mask, default dropout": {"missing": "mask"},
    "mask, dropout 0.3": {"missing": "mask", "modality_dropout": DROPOUT},
    "token, dropout 0.3": {"missing": "token", "modality_dropout": DROPOUT},
    "impute, dropout 0.3": {"missing": "impute", "modality_dropout": DROPOUT},
    "zero, dropout 0.3": {"missing": "zero", "modality_dropout": DROPOUT},
}
AT_THE_BAR = "mask, dropout 0.3"


def emoji():
    frame = load_real("emoji")
    triples = [("image", ImageEncoder(), ["image"]), ("name", TextEncoder(), ["name"])]
    return frame[["image", "name"]], frame["label"], triples, "accuracy"


def clothing():
    frame = load_real("clothing").sample(N_CLOTHING, random_state=0)
    columns = ["age", "positive_feedback_count", "division", "department", "class_name"]
    triples = [
        ("title", TextEncoder(), ["title"]),
        ("review", TextEncoder(), ["review_text"]),
        ("table", TabularEncoder(), columns),
    ]
    return frame[["title", "review_text", *columns]], frame["label"], triples, "ROC AUC"


def avdigits():
    data = digits_frame()
    triples = [("audio", AudioEncoder(), ["audio"]), PIXELS]
    return data[["audio", "pixels"]], data["label"], triples, "accuracy"


def chance(y_train, y_test, metric):
    """Return the score of the prior."""
    if metric == "ROC AUC":
        return 0.5
    return float((y_test == y_train.mode()[0]).mean())


def scores_of_a_seed(X, y, triples, metric, seed):
    """Yield (what is removed, set-up, score)."""
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.25, stratify=y, random_state=seed
    )
    fitted = {
        name: clone(JointFusionClassifier(triples, random_state=seed, **options)).fit(
            X_train, y_train
        )
        for name, options in SETUPS.items()
    }
    for name, model in fitted.items():
        yield "nothing", name, score(model, X_test, y_test, metric)
    for removed, _, columns in triples:
        others = [clone_triple(triple) for triple in triples if triple[0] != removed]
        without = JointFusionClassifier(others, random_state=seed).fit(X_train, y_train)
        yield removed, "trained without it", score(without, X_test, y_test, metric)
        yield removed, "prior", chance(y_train, y_test, metric)
        new = X_test.assign(**dict.fromkeys(columns))
        for name, model in fitted.items():
            yield removed, name, score(model, new, y_test, metric)


def clone_triple(triple):
    name, transformer, columns = triple
    return name, transformer if isinstance(transformer, str) else clone(transformer), columns


def measure(load):
    X, y, triples, metric = load()
    rows = []
    for seed in SEEDS:
        for removed, name, value in scores_of_a_seed(X, y, triples, metric, seed):
            rows.append((removed, name, seed, value))
            print(
                f"{load.__name__}, seed {seed}, without {removed}, {name}: {value:.4f}", flush=True
            )
    found = pd.DataFrame(rows, columns=["removed", "setup", "seed", "score"])
    by_seed = found.pivot(index=["removed", "seed"], columns="setup", values="score")
    means = by_seed.groupby("removed", sort=False).mean()
    order = ["nothing", *(triple[0] for triple in triples)]
    shown = means.loc[order, ["prior", "trained without it", *SETUPS]]
    text = (
        f"{len(X)} rows, {metric}, mean over seeds {', '.join(map(str, SEEDS))}; a row names the"
        " modality that is removed from the whole test part, a column how the fusion was trained."
        f"\n\n{table(shown).replace('nan', '')}\n\n{bar(by_seed, order[1:])}"
    )
    write_section(f"A modality removed: {load.__name__}", "missing.py", text)


def bar(by_seed, modalities):
    """Say of each modality whether the loss is within the bar."""
    lines = []
    for name in modalities:
        own = by_seed.loc[name]
        losses = own["trained without it"] - own[AT_THE_BAR]
        noise = 2 * losses.std(ddof=1) / np.sqrt(len(losses))
        above = (own[AT_THE_BAR] - own["prior"]).min()
        met = losses.mean() <= POINTS + noise and above >= 0
        lines.append(
            f"- without {name}: {100 * losses.mean():+.1f} points lost (+- {100 * noise:.1f}), at"
            f" least {100 * above:.1f} above the prior: {'met' if met else 'NOT MET'}"
        )
    return f"Bar ({AT_THE_BAR}; at most {100 * POINTS:.0f} points):\n\n" + "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_config(store=sys.argv[1])  # a folder that stays, to measure again
    wanted = sys.argv[2:]
    for load in (emoji, clothing, avdigits):
        if not wanted or load.__name__ in wanted:
            measure(load)
