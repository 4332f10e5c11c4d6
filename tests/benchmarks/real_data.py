"""Does fusion pay on real data? Each modality alone against early, late and joint fusion.

Three seeds, each another split of the rows in 3 : 1. Embeddings are encoded once for all of it.
"""

import sys

import numpy as np
import pandas as pd
from report import load_real, table, write_section
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    LateFusionClassifier,
    TabularEncoder,
    TextEncoder,
    set_config,
)

SEEDS = (0, 1, 2)
STRATEGIES = ("concat", "mean", "max", "gated", "attention", "low_rank")
N_CLOTHING = 6000


def emoji():
    frame = load_real("emoji")
    triples = [
        ("image", ImageEncoder(verbose=1), ["image"]),
        ("name", TextEncoder(verbose=1), ["name"]),
    ]
    return frame[["image", "name"]], frame["label"], triples, "accuracy"


def clothing():
    frame = load_real("clothing").sample(N_CLOTHING, random_state=0)
    table_columns = ["age", "positive_feedback_count", "division", "department", "class_name"]
    triples = [
        ("title", TextEncoder(verbose=1), ["title"]),
        ("review", TextEncoder(verbose=1), ["review_text"]),
        ("table", TabularEncoder(), table_columns),
    ]
    columns = ["title", "review_text", *table_columns]
    return frame[columns], frame["label"], triples, "ROC AUC"


def models(triples, seed):
    for triple in triples:
        yield f"{triple[0]} alone", LateFusionClassifier([triple], rule="mean")
    yield "early", make_pipeline(EarlyFusion(triples), LogisticRegression(C=0.1, max_iter=1000))
    for rule in ("mean", "weighted", "stacking"):
        yield f"late, {rule}", LateFusionClassifier(triples, rule=rule)
    for strategy in STRATEGIES:
        model = JointFusionClassifier(triples, strategy=strategy, random_state=seed)
        yield f"joint, {strategy}", model


def score(model, X, y, metric):
    if metric == "accuracy":
        return accuracy_score(y, model.predict(X))
    return roc_auc_score(y, model.predict_proba(X)[:, 1])


def measure(load):
    X, y, triples, metric = load()
    scores = {}
    for seed in SEEDS:
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.25, stratify=y, random_state=seed
        )
        for name, model in models(triples, seed):
            fitted = clone(model).fit(X_train, y_train)
            scores.setdefault(name, []).append(score(fitted, X_test, y_test, metric))
            print(f"{load.__name__}, seed {seed}, {name}: {scores[name][-1]:.4f}", flush=True)
    result = pd.DataFrame(
        {
            metric: {name: float(np.mean(values)) for name, values in scores.items()},
            "+-": {name: float(np.std(values)) for name, values in scores.items()},
        }
    )
    alone = max(value for name, value in result[metric].items() if name.endswith("alone"))
    result["against the best alone"] = [f"{v - alone:+.3f}" for v in result[metric]]
    text = (
        f"{len(X)} rows, mean and standard deviation over seeds {', '.join(map(str, SEEDS))}."
        f" A modality alone is a logistic regression on its standardized features.\n\n"
    )
    write_section(f"Fusion on real data: {load.__name__}", "real_data.py", text + table(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_config(store=sys.argv[1])  # a folder that stays, to measure again
    for load in (emoji, clothing):
        measure(load)
