"""Every parameter of every fusion changes what it gives, or is refused by name."""

import inspect
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import views
from sequences import Tokens, sequences
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from skmm import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionMultiTask,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
    Trainer,
    fusion,
)
from skmm.testing import all_estimators


class Beside(NamedTuple):
    """A value of a parameter, and settings of others with which alone it counts."""

    settings: dict[str, Any]
    value: Any


TRIPLES = [
    ("photo", "passthrough", ["photo"]),
    ("words", Tokens(), ["words"]),
    ("numbers", "passthrough", ["size", "price"]),
]
SMALL = {"modalities": TRIPLES, "n_components": 8, "max_epochs": 2, "random_state": 0}
# Another value of each parameter.
COMMON = {"modalities": TRIPLES[:2], "all_missing": "raise", "missing_columns": "absent"}
LATE = {
    **COMMON,
    "rule": "mean",
    "weights": Beside({"rule": "weighted"}, [1.0, 0.0, 0.0]),
    "cv": 2,
    "random_state": Beside({"estimator": RandomForestClassifier(n_estimators=2)}, 1),
}
SEQUENCE = {"granularity": "sequence", "strategy": "attention"}
JOINT = {
    **COMMON,
    "strategy": "mean",
    "granularity": Beside({"strategy": "attention"}, "sequence"),
    "max_tokens": Beside(SEQUENCE, 1),
    "n_components": 4,
    "dropout": 0.5,
    "modality_dropout": 0.5,
    "missing": "token",
    "balance": "auxiliary",
    "balance_params": Beside({"balance": "auxiliary"}, {"weight": 9.0}),
    "max_epochs": 1,
    "trainer": Trainer(learning_rate=0.1),
    "warm_start": True,
    "random_state": 1,
}
OTHER = {
    EarlyFusion: {**COMMON, "scaling": "block", "add_indicator": False},
    LateFusionClassifier: {
        **LATE,
        "estimator": LogisticRegression(C=1e-3),
        "final_estimator": LogisticRegression(C=1e-3),
    },
    LateFusionRegressor: {
        **LATE,
        "estimator": Ridge(alpha=1e3),
        "final_estimator": Ridge(alpha=1e3),
        "random_state": Beside({"estimator": RandomForestRegressor(n_estimators=2)}, 1),
    },
    JointFusionClassifier: {
        **JOINT,
        "loss": "focal",
        "loss_params": Beside({"loss": "focal"}, {"gamma": 5.0}),
        "class_weight": {"no": 1.0, "yes": 9.0},
    },
    JointFusionRegressor: {
        **JOINT,
        "loss": "absolute_error",
        "loss_params": Beside({"loss": "huber"}, {"delta": 0.01}),
    },
    JointFusionMultiTask: {
        **JOINT,
        "tasks": {"mood": "classification"},
        "loss_weights": {"score": 0.0},
        "gradnorm_alpha": Beside({"loss_weights": "gradnorm"}, 9.0),
        "loss": {"score": "absolute_error"},
        "loss_params": Beside({"loss": {"score": "huber"}}, {"score": {"delta": 0.01}}),
        "class_weight": {"mood": {"no": 1.0, "yes": 9.0}},
    },
}
RUNTIME = {
    "n_jobs": "how many processes share the work",
    "device": "where it computes, the numbers are the same",
    "verbose": "what it prints",
}
PARAMETERS = [(kind, name) for kind, table in OTHER.items() for name in table]


@pytest.fixture(scope="module")
def data():
    X, score = views(60, missing=0.2)
    X = X.drop(columns="text")
    X["words"] = sequences(60, 3).to_numpy()
    X.iloc[7] = None  # has no modality
    mood = np.where(score > 0, "yes", "no")
    targets = pd.DataFrame({"mood": mood, "score": score}, index=X.index)
    return X, {"classifier": mood, "regressor": score, "several": targets}


def target_of(kind, y):
    if kind is JointFusionMultiTask:
        return y["several"]
    return y["regressor" if kind.__name__.endswith("Regressor") else "classifier"]


def outcome(call):
    """What a call gives, or the error that it raises: both are what a user sees."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def observed(model, X, y):
    """All that two fits give for a frame, and for one without a column."""

    def answers(frame):
        verbs = ("predict", "predict_proba", "transform")
        return [np.asarray(getattr(model, v)(frame)).tolist() for v in verbs if hasattr(model, v)]

    def fitted():
        model.fit(X, y).fit(X, y)  # twice: a warm start continues
        return answers(X), outcome(lambda: answers(X.drop(columns="size")))

    return repr(outcome(fitted))


def built(kind, name):
    """Two estimators that differ in one parameter."""
    entry = OTHER[kind][name]
    settings, value = entry if isinstance(entry, Beside) else ({}, entry)
    base = SMALL if issubclass(kind, fusion._joint.BaseJointFusion) else {"modalities": TRIPLES}
    if kind.__name__.startswith("Late"):
        base = {**base, "random_state": 0}
    plain = kind(**{**base, **settings})
    return plain, clone(plain).set_params(**{name: value})


def test_the_tables_name_every_parameter_of_every_fusion():
    assert set(OTHER) == {cls for _, cls in all_estimators("fusion")}
    for kind, table in OTHER.items():
        assert {*table, *RUNTIME} >= set(inspect.signature(kind).parameters), kind
        assert set(table) <= set(inspect.signature(kind).parameters), kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, name", PARAMETERS, ids=[f"{kind.__name__}-{name}" for kind, name in PARAMETERS]
)
def test_every_parameter_changes_what_a_fusion_gives(kind, name, data):
    X, y = data[0], target_of(kind, data[1])
    plain, other = built(kind, name)
    assert observed(plain, X, y) != observed(other, X, y)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [JointFusionClassifier, LateFusionClassifier, EarlyFusion])
def test_equal_parameters_give_the_same(kind, data):
    """So that a difference above is the parameter's."""
    X, y = data[0], target_of(kind, data[1])
    plain, _ = built(kind, "modalities")
    assert observed(plain, X, y) == observed(clone(plain), X, y)


@pytest.mark.parametrize(
    "model, message",
    [
        (JointFusionClassifier(max_tokens=3), "max_tokens=3 has no effect with granularity="),
        (JointFusionMultiTask(gradnorm_alpha=2.0), "gradnorm_alpha=2.0 has no effect without"),
        (LateFusionClassifier(weights=[1, 1, 1]), r"weights=\[1, 1, 1\] has no effect with rule"),
        (
            LateFusionRegressor(rule="mean", final_estimator=Ridge()),
            r"final_estimator=Ridge\(\) has no effect with rule='mean'",
        ),
        (JointFusionClassifier(balance_params={"alpha": 1.0}), "takes no parameter 'alpha'"),
        (
            JointFusionClassifier(loss_params={"gamma": 1.0}),
            "loss 'cross_entropy' takes no (option|parameter) 'gamma'",
        ),
    ],
)
def test_what_a_setting_makes_useless_is_refused_by_name(model, message, data):
    X, y = data
    with pytest.raises(ValueError, match=message):
        clone(model).set_params(modalities=TRIPLES).fit(X, target_of(type(model), y))


def test_seeds_are_left_alone(data):
    state = torch.random.get_rng_state()
    built(JointFusionClassifier, "modalities")[0].fit(data[0], data[1]["classifier"])
    assert torch.equal(torch.random.get_rng_state(), state)
