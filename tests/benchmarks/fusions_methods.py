"""What is compared: the fusions of skmm, and others over the same features.

A method is a function of (training frame, target, test frame, seed) that gives a `Result`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import EarlyFusion, JointFusionClassifier, LateFusionClassifier
from skmm.fusion._strategies import STRATEGIES

# Of every logistic regression over standardized features; chosen on folds of the training rows.
PENALTIES = [0.001, 0.01, 0.1, 1.0]
# With 255 bins of each of 1,664 features in each node and 9 classes a fit would take minutes.
TREES = {"max_features": 0.1, "max_bins": 31}
RULES = ("mean", "product", "max", "vote", "weighted", "stacking")
BEST_SINGLE = "best single modality"


class Result(NamedTuple):
    """Score on the test rows, cost of the fit, and the score on folds of the training rows."""

    score: float
    seconds: float  # of the processor, in fit alone
    parameters: int | None
    promised: float = np.nan


def score(probabilities, y, classes, metric):
    """Return the accuracy, or the area under the curve of the second class."""
    if metric == "roc_auc":
        return float(roc_auc_score(y == classes[1], probabilities[:, 1]))
    return float(accuracy_score(y, np.asarray(classes)[probabilities.argmax(axis=1)]))


def fitted(model, data, train, test):
    """Fit on the training rows and score on the test rows."""
    X_train, X_test = train[0], test[0]
    started = time.process_time()
    model = clone(model).fit(X_train, train[1])
    seconds = time.process_time() - started
    value = score(model.predict_proba(X_test), test[1], model.classes_, data.metric)
    return Result(value, seconds, n_parameters(model), getattr(model, "best_score_", np.nan))


def n_parameters(model):
    """Numbers learned from the target, frozen encoders aside; None for trees."""
    if hasattr(model, "best_estimator_"):
        return n_parameters(model.best_estimator_)
    if hasattr(model, "steps"):
        return n_parameters(model.steps[-1][1])
    if hasattr(model, "module_"):
        return sum(p.numel() for p in model.module_.parameters())
    if hasattr(model, "estimators_"):
        parts = [*model.estimators_.values(), model.final_estimator_]
        weights = 0 if model.weights_ is None else len(model.weights_)
        return weights + sum(n_parameters(part) for part in parts if part is not None)
    return model.coef_.size + model.intercept_.size if hasattr(model, "coef_") else None


def linear(first, metric, folds):
    """Logistic regression behind ``first``, its penalty chosen inside the training rows."""
    model = make_pipeline(*first, LogisticRegression(max_iter=1000))
    return GridSearchCV(
        model, {"logisticregression__C": PENALTIES}, cv=folds, scoring=metric, error_score="raise"
    )


def ours(data, folds, seed, max_epochs):
    """Return the name and estimator of each modality alone and of each fusion of skmm."""
    for triple in data.triples:
        yield f"{triple[0]} alone", linear([EarlyFusion([triple])], data.metric, folds)
    yield "early, logistic regression", linear([EarlyFusion(data.triples)], data.metric, folds)
    for rule in RULES:
        yield f"late, {rule}", LateFusionClassifier(data.triples, rule=rule)
    if data.groups is not None:
        for rule in ("weighted", "stacking"):
            name = f"late, {rule}, folds of whole groups"
            yield name, LateFusionClassifier(data.triples, rule=rule, cv=folds)
    options = {"max_epochs": max_epochs, "random_state": seed}
    for strategy in STRATEGIES:
        yield (
            f"joint, {strategy}",
            JointFusionClassifier(data.triples, strategy=strategy, **options),
        )
    if data.tokens:
        yield (
            "joint, attention over tokens",
            JointFusionClassifier(
                data.triples,
                strategy="attention",
                granularity="sequence",
                max_tokens=16,
                **options,
            ),
        )


def marked(train, test):
    """Matrices of a modality; where rows of the training part lack it, a column more says so."""
    absent = [np.isnan(part).all(axis=1, keepdims=True) for part in (train, test)]
    if not absent[0].any():
        return train, test
    return tuple(np.hstack(pair) for pair in zip((train, test), absent, strict=True))


def of_scikit_learn(data, blocks, y_train, y_test, folds, seed, n_trees):
    """Yield (name, result) of scikit-learn's estimators over the features side by side."""
    pairs = [marked(*block) for block in blocks.values()]
    X_train, X_test = (np.hstack(parts) for parts in zip(*pairs, strict=True))
    first = [SimpleImputer(keep_empty_features=True), StandardScaler()]
    trees = HistGradientBoostingClassifier(max_iter=n_trees, random_state=seed, **TREES)
    rows = (X_train, y_train), (X_test, y_test)
    name = "scikit-learn: concat, logistic regression"
    yield name, fitted(linear(first, data.metric, folds), data, *rows)
    yield "scikit-learn: concat, gradient boosting", fitted(trees, data, *rows)


class NotThereError(Exception):
    """Says why pytorch-widedeep does not run."""


def of_widedeep(data, blocks, y_train, y_test, seed, max_epochs):
    """Yield (name, result) of pytorch-widedeep's fusers, from a process of their own."""
    classes, target = np.unique(y_train, return_inverse=True)
    arrays = {"y": target, "n_classes": len(classes), "seed": seed, "max_epochs": max_epochs}
    for name, (train, test) in blocks.items():
        train, test = marked(train, test)
        first = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
        arrays[f"train_{name}"] = first.fit_transform(train).astype(np.float32)
        arrays[f"test_{name}"] = first.transform(test).astype(np.float32)
    python = os.environ.get("WIDEDEEP_PYTHON", sys.executable)
    script = Path(__file__).with_name("fusions_widedeep.py")
    with tempfile.TemporaryDirectory() as folder:
        source, results = Path(folder, "features.npz"), Path(folder, "results.json")
        np.savez(source, **arrays)
        done = subprocess.run(
            [python, str(script), str(source), str(results)], capture_output=True, text=True
        )
        if done.returncode:
            raise NotThereError(done.stderr.strip().splitlines()[-1])
        found = json.loads(results.read_text())
    for method, own in found.items():
        value = score(np.array(own["probabilities"]), y_test, classes, data.metric)
        yield f"widedeep: {method}", Result(value, own["seconds"], own["parameters"])
