"""Every parameter of every alignment changes what it does, or is refused by name."""

import inspect
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skmm import (
    AdversarialAlignment,
    AutoencoderAlignment,
    CCAAlignment,
    ContrastiveAlignment,
    PretrainedAlignment,
    Trainer,
    alignment,
)


class Requires(NamedTuple):
    """A value of a parameter, and settings of other parameters that it requires."""

    settings: dict[str, Any]
    value: Any


VECTORS = [("left", "passthrough", ["left"]), ("right", "passthrough", ["right"])]
ONE_TWICE = [("left", "passthrough", ["left"]), ("right", "passthrough", ["left"])]
CELLS = [("words", "text", ["words"]), ("photo", "image", ["photo"])]
FEW = {"modalities": VECTORS, "random_state": 0, "max_epochs": 2}

# Parameters of each alignment, in addition to those that an entry of OTHER requires.
BASE = {
    ContrastiveAlignment: FEW,
    AutoencoderAlignment: FEW,
    CCAAlignment: {"modalities": VECTORS, "random_state": 0},
    AdversarialAlignment: {"modalities": VECTORS, "random_state": 0, "max_iter": 10},
    PretrainedAlignment: {"modalities": CELLS},
}
DEEP, KERNEL = {"method": "deep", "max_epochs": 2}, {"method": "kernel"}
POLYNOMIAL = {"method": "kernel", "kernel": "poly"}
UNPAIRED = {"paired": False, "n_init": 2}
# Another value of each parameter.
COMMON = {"all_missing": "raise", "missing_columns": "absent"}
TRAINED = {**COMMON, "modalities": ONE_TWICE, "random_state": 1, "max_epochs": 1}
OTHER = {
    ContrastiveAlignment: {
        **TRAINED,
        "n_components": 5,
        "loss": "triplet",
        "projection": "mlp",
        "dropout": 0.0,
        "trainer": Trainer(learning_rate=0.1),
    },
    AutoencoderAlignment: {
        **TRAINED,
        "n_components": 3,
        "hidden_sizes": (8,),
        "dropout": 0.5,
        "reconstruction_weight": 0.0,
        "cross_weight": 0.0,
        "contrastive_weight": 0.0,
        "temperature": 1.0,
        "variational": True,
        "kl_weight": Requires({"variational": True}, 5.0),
        "trainer": Trainer(learning_rate=0.1),
    },
    CCAAlignment: {
        **COMMON,
        "modalities": ONE_TWICE,
        "n_components": 2,
        "method": "kernel",
        "regularization": 0.7,
        "correlation_power": 0.0,
        "kernel": Requires(KERNEL, "linear"),
        "gamma": Requires(KERNEL, 0.5),
        "degree": Requires(POLYNOMIAL, 2.0),
        "coef0": Requires(POLYNOMIAL, 3.0),
        "n_landmarks": Requires(KERNEL, 20),
        "hidden_sizes": Requires(DEEP, (8,)),
        "dropout": Requires(DEEP, 0.5),
        "max_epochs": Requires(DEEP, 1),
        "trainer": Requires(DEEP, Trainer(learning_rate=0.1)),
        "random_state": Requires(DEEP, 1),
    },
    AdversarialAlignment: {
        **COMMON,
        "modalities": ONE_TWICE,
        "n_components": 2,
        "target": "right",
        "paired": False,
        "pair_weight": 0.0,
        "max_iter": 3,
        "learning_rate": 0.1,
        "batch_size": 8,
        "n_init": Requires(UNPAIRED, 1),
        "orthogonality": 0.4,
        "hidden_sizes": (8,),
        "n_refinements": Requires(UNPAIRED, 0),
        "random_state": 1,
    },
    PretrainedAlignment: {
        **COMMON,
        "model": "siglip",  # which tiny checkpoint
        "modalities": CELLS[:1],
        "dtype": "bfloat16",
    },
}
# Parameters that do not change the results.
RUNTIME = {
    "device": "where it computes",
    "verbose": "what it prints",
    "store": "where vectors are kept",
}
CASES = [(cls, name) for cls, others in OTHER.items() for name in others]


def test_the_tables_have_every_parameter():
    public = {getattr(alignment, name) for name in alignment.__all__}
    assert set(OTHER) == {cls for cls in public if cls.__name__.endswith("Alignment")}
    for cls, others in OTHER.items():
        assert set(inspect.signature(cls).parameters) - set(RUNTIME) == set(others)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(50, 3)) ** 3
    views = {"left": latent @ rng.normal(size=(3, 4)), "right": latent @ rng.normal(size=(3, 5))}
    return pd.DataFrame({name: list(v + rng.normal(size=v.shape)) for name, v in views.items()})


@pytest.fixture(scope="module")
def cells():
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    return pd.DataFrame({"words": ["a red coat", "two hats", "shoes"], "photo": list(photos)})


def results(model, X):
    """Return the results of all methods of an alignment, or the messages of their errors."""
    model = clone(model).fit(X)
    last = X.columns[-1]
    nothing = X.copy()
    nothing.iloc[0] = None
    calls = [
        lambda: model.transform(X),
        lambda: model.transform(nothing),
        lambda: model.transform(X.drop(columns=last)),
    ]
    if hasattr(model, "predict_modality"):
        calls.append(lambda: model.predict_modality(X, last))
    return [_result(call) for call in calls]


def _result(call):
    try:
        return call()
    except ValueError as error:
        return str(error)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str)
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("cls", "name"), CASES)
def test_every_parameter_changes_something(cls, name, vectors, cells, request):
    entry = OTHER[cls][name]
    settings, value = entry if isinstance(entry, Requires) else Requires({}, entry)
    X, base = vectors, {**BASE[cls], **settings}
    if cls is PretrainedAlignment:
        tiny_checkpoint = request.getfixturevalue("tiny_checkpoint")
        X, base = cells, {**base, "model": tiny_checkpoint("clip")}
        value = tiny_checkpoint(value) if name == "model" else value
    assert value != inspect.signature(cls).parameters[name].default
    plain, other = cls(**base), cls(**{**base, name: value})
    pairs = zip(results(plain, X), results(other, X), strict=True)
    assert not all(same(*pair) for pair in pairs)


DEEP_ONLY = {
    "hidden_sizes": (8,),
    "dropout": 0.5,
    "max_epochs": 7,
    "trainer": Trainer(),
}
ACCUMULATE = {"trainer": Trainer(accumulate=2)}
UNUSED = [
    (ContrastiveAlignment, {}, ACCUMULATE),
    (AutoencoderAlignment, {}, ACCUMULATE),
    (AutoencoderAlignment, {}, {"kl_weight": 0.5}),
    (AutoencoderAlignment, {"contrastive_weight": 0.0}, {"temperature": 0.5}),
    (CCAAlignment, {"method": "cca"}, {"regularization": 0.1}),
    (CCAAlignment, {"method": "deep"}, ACCUMULATE),
    *((CCAAlignment, {"method": method}, {"n_landmarks": 9}) for method in ("regularized", "deep")),
    *((CCAAlignment, {}, {name: 2.0}) for name in ("gamma", "degree", "coef0")),
    (CCAAlignment, {}, {"kernel": "poly"}),
    *((CCAAlignment, {"method": "kernel"}, {name: 2.0}) for name in ("degree", "coef0")),
    (CCAAlignment, {"method": "kernel", "kernel": "linear"}, {"gamma": 2.0}),
    *(
        (CCAAlignment, {"method": method}, {name: value})
        for method in ("regularized", "kernel")
        for name, value in DEEP_ONLY.items()
    ),
    *((AdversarialAlignment, {}, {name: 3}) for name in ("n_init", "n_refinements")),
    (AdversarialAlignment, {"paired": False}, {"pair_weight": 0.5}),
]


@pytest.mark.parametrize(("cls", "setting", "unused"), UNUSED)
def test_unused_parameters_are_refused_before_the_frame_is_read(cls, setting, unused):
    ((name, _),) = unused.items()
    message = rf": {name}=.* has no effect with "
    if unused is ACCUMULATE:
        message = "Trainer: accumulate=2 is not supported with "
    with pytest.raises(ValueError, match=message):
        cls(VECTORS, **setting, **unused).fit(None)


def test_accumulate_without_a_contrastive_loss(vectors):
    plain = AutoencoderAlignment(**FEW, contrastive_weight=0.0, trainer=Trainer(batch_size=10))
    added = clone(plain).set_params(trainer__batch_size=5, trainer__accumulate=2)
    np.testing.assert_allclose(
        added.fit(vectors).transform(vectors), plain.fit(vectors).transform(vectors), atol=1e-4
    )
