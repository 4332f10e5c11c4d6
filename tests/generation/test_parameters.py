"""Every parameter of every generator has an effect: another value changes an outcome."""

import importlib.util
import inspect
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sequences import Tokens
from sklearn.base import BaseEstimator, TransformerMixin, clone

from skmm import Trainer, config_context, generation
from skmm.encoders import TextEncoder
from skmm.generation import (
    CaptionGenerator,
    ImageGenerator,
    PretrainedCaptionGenerator,
    PretrainedImageGenerator,
    QuestionAnswerer,
    SeriesGenerator,
)

N = 24
# Parameters that change where, how fast or with how much output a generator runs, not its results.
RUNTIME = {
    "device": "the results of devices are equal up to rounding",
    "verbose": "reports progress",
    "batch_size": "of pretrained generators: memory and speed",
}


class Means(TransformerMixin, BaseEstimator):
    """Encoder of images by the means of their columns, and an alignment of images and vectors."""

    modality_names_ = ("image", "place")
    modalities_ = (("image", None, ["image"]), ("place", None, ["left"]))

    def __init__(self, scale=1.0):
        self.scale = scale

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        cells = np.stack([np.asarray(cell, dtype=float) for cell in X])
        return self.scale * cells.reshape(*cells.shape[:3], -1).mean(axis=(1, 3))[:, :3] / 255

    def transform_modality(self, X, modality):
        if modality == "image":
            return self.transform(X) - 0.5
        cells = [np.zeros(3) if cell is None else cell for cell in X["left"]]
        return self.scale * np.stack(cells) + [0, 0, self.scale]

    def __sklearn_is_fitted__(self):
        return hasattr(self, "fitted_") or self.scale < 0


def seven(estimator, X, y):
    return 7.0


def eight(estimator, X, y):
    return 8.0


@pytest.fixture(scope="module")
def rows():
    """Make cells of all kinds, a row without any, and a target for each generator."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "left": list(rng.normal(size=(N, 3))),
            "pair": list(rng.normal(size=(N, 3, 2))),
            "asked": rng.choice(["what is it ?", "how large is it ?"], N),
            "also": rng.choice(["is that all ?", "and now ?"], N),
            "seen": list(rng.integers(0, 256, (N, 16, 16, 3)).astype(np.uint8)),
        }
    )
    X = X.astype(object)
    X.loc[1] = None
    words = rng.choice(["red", "green", "blue"], N)
    y = {
        "texts": np.array([f"one {word} thing" for word in words], dtype=object),
        "answers": words.astype(object),
        "series": [rng.normal(size=n) for n in rng.integers(3, 6, N)],
        "images": list(rng.integers(0, 256, (N, 8, 8, 3)).astype(np.uint8)),
    }
    return X, y


MODALITIES = [("one", "passthrough", ["left"]), ("two", Tokens(), ["pair"])]
SMALL = {"modalities": MODALITIES, "n_components": 8, "max_epochs": 1, "random_state": 0}
SEQUENCE = {"granularity": "sequence"}
WORDS = TextEncoder("tfidf", n_components=2, random_state=0)
OPEN = {"answers": "open", "question_encoder": None}
COMMON = {
    "modalities": MODALITIES[:1],
    "granularity": "sequence",
    "max_tokens": (SEQUENCE, 1),
    "n_components": 16,
    "dropout": 0.5,
    "modality_dropout": 0.5,
    "max_epochs": 2,
    "trainer": Trainer(batch_size=8),
    "all_missing": "raise",
    "missing_columns": "absent",
    "random_state": 1,
}
# For each generator: its target, the base parameters, and other values. A pair holds what must be
# set for the parameter to have an effect, and its value.
TRAINED = {
    CaptionGenerator: (
        "texts",
        {**SMALL, "n_layers": 1, "scoring": seven},
        {
            **COMMON,
            "prefix_column": "asked",
            "decoder": "gru",
            "tokenizer": "character",
            "max_vocabulary": 2,
            "n_heads": 2,
            "n_layers": 2,
            "label_smoothing": 0.5,
            "decoding": "nucleus",
            "max_length": 2,
            "scoring": eight,
        },
    ),
    SeriesGenerator: (
        "series",
        {**SMALL, "n_layers": 1},
        {
            **COMMON,
            "decoder": "gru",
            "position": "share",
            "n_heads": 2,
            "n_layers": 2,
            "max_length": 2,
        },
    ),
    ImageGenerator: (
        "images",
        # A U-Net begins with zeros, so that its condition counts from the second step on.
        {
            **SMALL,
            "image_size": 8,
            "n_channels": 4,
            "scoring": seven,
            "trainer": Trainer(batch_size=4),
        },
        {
            **COMMON,
            "granularity": ({"strategy": "attention"}, "sequence"),
            "max_tokens": ({"strategy": "attention", **SEQUENCE}, 1),
            "method": "gan",
            "image_size": 12,
            "mode": "L",
            "strategy": "mean",
            "n_channels": 8,
            "unconditional_fraction": 0.5,
            "scoring": eight,
            "feature_encoder": (
                {"scoring": "frechet", "feature_encoder": Means(-1.0)},
                Means(-2.0),
            ),
            "alignment": ({"scoring": "alignment", "alignment": Means(-1.0)}, Means(-9.0)),
        },
    ),
    QuestionAnswerer: (
        "answers",
        {
            **SMALL,
            "n_layers": 1,
            "question_column": "asked",
            "question_encoder": WORDS,
            "scoring": seven,
        },
        {
            **COMMON,
            "question_column": "also",
            "answers": (
                {
                    "modalities": [*MODALITIES, ("words", WORDS, ["asked"])],
                    "question_encoder": None,
                },
                "open",
            ),
            "question_encoder": TextEncoder("tfidf", n_components=3, random_state=0),
            "max_answers": 2,
            "strategy": "attention",
            "decoder": (OPEN, "gru"),
            "decoding": (OPEN, "beam"),
            "max_length": (OPEN, 1),
            "n_heads": 2,
            "n_layers": 2,
            "scoring": eight,
        },
    ),
}
PRETRAINED = {
    PretrainedCaptionGenerator: (
        "texts",
        {"modalities": [("seen", "image", ["seen"])], "max_length": 6, "scoring": seven},
        {
            "model": "other",
            "modalities": [("seen", "image", ["other"])],
            "prompt": "a photo of",
            "prompt_column": "asked",
            "decoding": "nucleus",
            "max_length": 2,
            "scoring": eight,
            "all_missing": "raise",
            "missing_columns": "absent",
            "dtype": "bfloat16",
            "random_state": ({"decoding": "nucleus", "random_state": 0}, 1),
        },
    ),
    PretrainedImageGenerator: (
        "images",
        {
            "modalities": [("asked", "text", ["asked"])],
            "image_size": 16,
            "n_steps": 1,
            "scoring": seven,
            "random_state": 0,
        },
        {
            "model": "other",
            "modalities": [("also", "text", ["also"])],
            "prompt": "a photo of {}",
            "image_size": 32,
            "mode": "L",
            "n_steps": 2,
            "guidance_scale": 1.0,
            "scoring": eight,
            "feature_encoder": TRAINED[ImageGenerator][2]["feature_encoder"],
            "alignment": TRAINED[ImageGenerator][2]["alignment"],
            "all_missing": "raise",
            "missing_columns": "absent",
            "dtype": "bfloat16",
            "random_state": 1,
        },
    ),
}
ALL = TRAINED | PRETRAINED


def outcome(call):
    """Return a hash of what a call returns, or the error that it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return joblib.hash(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def observed(generator, X, y):
    """Fit a generator and return its observable outcomes."""
    known = X["left"].notna().to_numpy()  # the empty row is for prediction only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator.fit(X[known], [own for own, k in zip(y, known, strict=True) if k])
    module = getattr(getattr(generator, "estimator_", generator), "module_", None)
    calls = {
        "predict": lambda: list(generator.predict(X)),
        "narrow": lambda: list(generator.predict(X.drop(columns=["also", "pair", "other"]))),
        "score": lambda: generator.score(X, y),
        "epochs": lambda: generator.n_iter_,
        "likelihood": lambda: generator.score_samples(X, generator.predict(X)),
        "weights": lambda: [p.detach().numpy() for p in module.parameters()],
    }
    return {name: outcome(call) for name, call in calls.items()}


def test_the_tables_name_every_parameter_of_every_generator():
    public = [getattr(generation, name) for name in generation.__all__]
    assert set(ALL) == {kind for kind in public if hasattr(kind, "predict")}
    for kind, (_, _, others) in ALL.items():
        left_out = set(inspect.signature(kind).parameters) - set(others)
        assert left_out <= set(RUNTIME), kind
        assert len(inspect.signature(kind).parameters) <= 24


@pytest.fixture(scope="module")
def differs(rows):
    """Return whether a parameter changes what is observed; plain fits are shared by the tests."""
    plain_fits = {}

    def observed_once(generator, X, y):
        key = joblib.hash((type(generator), generator.get_params()))
        if key not in plain_fits:
            plain_fits[key] = observed(generator, X, y)
        return plain_fits[key]

    def differs(make, kind, name, n_rows=N):
        X, y = rows[0][:n_rows], {target: own[:n_rows] for target, own in rows[1].items()}
        target, base, others = ALL[kind]
        needed, value = others[name] if isinstance(others[name], tuple) else ({}, others[name])
        plain = make(kind).set_params(**{**base, **needed})
        other = clone(plain).set_params(**{name: value})
        X = X.assign(other=list(X["seen"][::-1]))
        with config_context(device="cpu"):
            return observed_once(plain, X, y[target]) != observed(other, X, y[target])

    return differs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, _, others) in TRAINED.items() for name in others]
)
def test_every_parameter_changes_what_a_trained_generator_gives(kind, name, differs):
    assert differs(lambda kind: kind(), kind, name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINED)
def test_the_same_parameters_change_nothing(kind, rows):
    target, base, _ = TRAINED[kind]
    first, second = (observed(kind(**base), rows[0].assign(other=0), rows[1][target]) for _ in "ab")
    assert first == second


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Build two tiny checkpoints of each kind."""
    if not all(map(importlib.util.find_spec, ("transformers", "diffusers"))):
        pytest.skip("checkpoints need the extras 'hub' and 'diffusion'")
    import tiny_captioners
    import tiny_diffusion

    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_captioners.vit_gpt2(folder / "captioner")
    tiny_captioners.git(folder / "other_captioner")
    tiny_diffusion.stable_diffusion(folder / "pipeline")
    tiny_diffusion.stable_diffusion(folder / "other_pipeline", seed=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, (_, _, others) in PRETRAINED.items() for name in others],
)
def test_every_parameter_changes_what_a_pretrained_generator_gives(
    kind, name, differs, checkpoints, monkeypatch
):
    model = {PretrainedCaptionGenerator: "captioner", PretrainedImageGenerator: "pipeline"}[kind]
    if name == "model":
        other = str(checkpoints / f"other_{model}")
        monkeypatch.setitem(PRETRAINED[kind][2], "model", other)
    assert differs(lambda kind: kind(str(checkpoints / model)), kind, name, n_rows=6)
