"""Each parameter of each encoder does something with each kind of model, or is refused by name."""

import inspect
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from columns import objects
from torch import nn
from tuning import needs_peft

from skmm import config_context, encoders
from skmm.encoders import EmbeddingStore
from skmm.encoders._engines._base import Runtime

# Taken by every encoder with every model, for a pipeline sets them everywhere: they say how the
# work is done (seed, device, portions, reports, unreadable cells), not what is computed.
ALWAYS = {"random_state", "device", "batch_size", "verbose", "on_error"}


def first_half(cell, rng):
    """Augments cells of any kind."""
    return cell[: max(1, len(cell) // 2)]


def doubled(cell):
    return 2 * np.asarray(cell)


def turned(cells):
    return torch.tensor(np.stack(cells)[:, ::-1].copy())


# For each parameter a value that is not its default.
OTHERS: dict[str, Any] = {
    "pooling": "max",
    "normalize": True,
    "max_length": 3,
    "sampling_rate": 8_000,
    "window": 0.05,
    "draft": True,
    "image_size": 12,
    "fine_tune": "last",
    "lora_params": {"r": 2},
    "augment": first_half,
    "n_components": 6,
    "n_kernels": 84,
    "n_points": 8,
    "rotation_invariant": True,
    "center": False,
    "scale": False,
    "use_features": False,
    "sampling": "keyframes",
    "n_frames": 2,
    "frame_rate": 5.0,
    "temporal_pooling": "max",
    "max_categories": 1,
    "read": doubled,
    "collate": turned,
    "trainable": True,
    "max_epochs": 3,
    "learning_rate": 0.5,
    "dtype": "bfloat16",
    "compile": True,
    "store": "a folder",
}
# What small encoders start from, as far as they do not refuse it.
SMALL = {
    "sampling_rate": 16_000,
    "image_size": 8,
    "n_components": 4,
    "n_kernels": 168,
    "n_points": 16,
    "max_epochs": 2,
}

# --- the table: what is refused with which model ------------------------------------------------


class Case(NamedTuple):
    """One kind of model of an encoder, and the parameters that do nothing with it."""

    encoder: str
    refused: set[str]
    setting: dict[str, Any]
    cause: str | None  # the parameter that is told to make the others useless

    @property
    def name(self) -> str:
        words = [w if isinstance(w, str | int) else "module" for w in self.setting.values()]
        return "-".join([self.encoder.removesuffix("Encoder"), *map(str, words)])


def case(encoder, refused="", cause=None, **setting):
    return Case(encoder, set(refused.split()), setting, cause)


# A user's own modules; each takes cells of any size.
OWN_IMAGE = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU())
OWN_AUDIO = nn.Sequential(nn.AdaptiveAvgPool1d(16), nn.Linear(16, 3))
OWN_POINTS = nn.Sequential(nn.AdaptiveMaxPool1d(4), nn.Linear(4, 3))
TRAINING = "max_epochs learning_rate"
FROZEN = f"{TRAINING} augment lora_params"
CHECKPOINT = "pooling normalize fine_tune lora_params"
KEPT = "dtype store"  # of what is frozen
WIDTH = "n_components"
SIZE = "n_components image_size"
FRAMES = f"{SIZE} frame_rate"
CLIPS = f"{FRAMES} n_frames temporal_pooling"
CASES = [
    case("TextEncoder", f"{FROZEN} {WIDTH}", model="bert"),
    case("TextEncoder", f"lora_params {WIDTH} compile", model="bert", fine_tune="last"),
    case("TextEncoder", f"lora_params {KEPT} {WIDTH} compile", model="bert", fine_tune="full"),
    case("TextEncoder", f"{KEPT} {WIDTH} compile", model="bert", fine_tune="lora"),
    case("TextEncoder", f"{CHECKPOINT} {KEPT} compile", "model", model="gru"),
    case(
        "TextEncoder",
        f"{CHECKPOINT} {KEPT} compile {TRAINING} augment max_length",
        "model",
        model="tfidf",
    ),
    case("ImageEncoder", f"{FROZEN} {SIZE}", model="vit"),
    case("ImageEncoder", f"lora_params {SIZE} compile", model="vit", fine_tune=1),
    case("ImageEncoder", f"lora_params {KEPT} {SIZE} compile", model="vit", fine_tune="full"),
    case("ImageEncoder", f"{KEPT} {SIZE} compile", model="vit", fine_tune="lora"),
    case("ImageEncoder", f"{CHECKPOINT} {KEPT} compile", "model", model="cnn"),
    case("ImageEncoder", f"{CHECKPOINT} {KEPT} compile {WIDTH}", "model", model=OWN_IMAGE),
    case("AudioEncoder", f"{FROZEN} fine_tune {WIDTH}", "model", model="mfcc"),
    case("AudioEncoder", f"{FROZEN} {WIDTH}", model="wav2vec2"),
    case("AudioEncoder", f"lora_params {WIDTH}", model="wav2vec2", fine_tune="last"),
    case("AudioEncoder", f"lora_params {KEPT} {WIDTH}", model="wav2vec2", fine_tune="full"),
    case("AudioEncoder", f"{KEPT} {WIDTH}", model="wav2vec2", fine_tune="lora"),
    case("AudioEncoder", f"{CHECKPOINT} {KEPT}", "model", model="cnn"),
    case("AudioEncoder", f"{CHECKPOINT} {KEPT} {WIDTH}", "model", model=OWN_AUDIO),
    case("VideoEncoder", f"{FROZEN} {FRAMES}", model="vit"),
    case("VideoEncoder", f"{FROZEN} {FRAMES} n_frames", model="vit", sampling="keyframes"),
    case("VideoEncoder", f"{FROZEN} {SIZE} n_frames", model="vit", sampling="rate", frame_rate=4.0),
    case("VideoEncoder", f"lora_params {FRAMES}", model="vit", fine_tune="last"),
    case("VideoEncoder", f"lora_params {KEPT} {FRAMES}", model="vit", fine_tune="full"),
    case("VideoEncoder", f"{KEPT} {FRAMES}", model="vit", fine_tune="lora"),
    case("VideoEncoder", f"{FROZEN} {CLIPS}", model="videomae"),
    case("VideoEncoder", f"{FROZEN} {FRAMES} n_frames", model="videomae", sampling="keyframes"),
    case("VideoEncoder", f"lora_params {CLIPS}", model="videomae", fine_tune="last"),
    case("VideoEncoder", f"{CHECKPOINT} {KEPT} frame_rate", model="cnn"),
    case("VideoEncoder", f"{CHECKPOINT} {KEPT} frame_rate {WIDTH}", model=OWN_IMAGE),
    case("PointCloudEncoder", f"{TRAINING} {WIDTH}", "model", model="geometric"),
    case("PointCloudEncoder", "store", "model", model="pointnet"),
    case("PointCloudEncoder", f"store {WIDTH}", "model", model=OWN_POINTS),
    case("TimeSeriesEncoder", f"{TRAINING} {WIDTH}", "model", model="minirocket"),
    case("TimeSeriesEncoder", "n_kernels", "model", model="inception"),
    case("TimeSeriesEncoder", "n_kernels", "model", model="gru"),
    case("TimeSeriesEncoder", f"n_kernels {WIDTH}", "model", model=nn.Linear(2, 3)),
    case("TabularEncoder", TRAINING, "model", model="onehot"),
    case("TabularEncoder", model="tokens"),
    case("ModuleEncoder", TRAINING, "trainable", module=nn.Linear(6, 3)),
    case("ModuleEncoder", KEPT, "trainable", module=nn.Linear(6, 3), trainable=True),
]
BY_CASE = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=needs_peft if case.setting.get("fine_tune") == "lora" else ())
        for case in CASES
    ],
    ids=lambda case: case.name,
)


def tried(case):
    """Parameters whose other values are tried: all but those that make the case what it is."""
    names = inspect.signature(getattr(encoders, case.encoder)).parameters
    fixed = {*ALWAYS, *case.setting} - {"frame_rate"}
    if case.setting.get("model") == "videomae":
        # One without the other is tried; together they have a sentence of their own, which
        # test_fine_tune_video.py looks at.
        fixed |= {"sampling"} if "fine_tune" in case.setting else set()
        fixed |= {"fine_tune"} if "sampling" in case.setting else set()
    return [name for name in names if name not in fixed]


def test_every_encoder_and_every_named_model_has_a_case():
    names = {name for name in encoders.__all__ if name.endswith("Encoder")}
    assert {case.encoder for case in CASES} == names - {"CellEncoder"}
    for name in names - {"CellEncoder"}:
        own = {str(case.setting.get("model")) for case in CASES if case.encoder == name}
        for constraint in getattr(encoders, name)._parameter_constraints.get("model", ()):
            assert set(getattr(constraint, "options", ())) <= own


# --- cells and encoders -------------------------------------------------------------------------

RNG = np.random.default_rng(0)
Y = [0, 1, 0, 1]
CELLS: dict[str, Any] = {
    "TextEncoder": ["a warm red coat", "two hats", "shoes that fell apart", "a coat"],
    "AudioEncoder": [np.sin(np.linspace(0, 90 * (i + 1), 3_000 + 500 * i)) for i in range(4)],
    "PointCloudEncoder": list(RNG.normal(size=(4, 40, 5)) + [2, 0, 0, 0, 0]),
    "TimeSeriesEncoder": list(RNG.normal(size=(4, 40, 2)).cumsum(axis=1)),
    "ModuleEncoder": list(RNG.normal(size=(4, 6)).astype(np.float32)),
    "TabularEncoder": pd.DataFrame({"size": [1, 2, None, 5], "color": ["a", "b", "a", "c"]}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What has drafts is a JPEG, what has key frames and a clock is an MP4."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("files")
    for i in range(4):
        # Lines finer than a draft can show.
        pixels = RNG.integers(0, 256, (160, 160, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
    return folder


@pytest.fixture
def cells(files, request):
    """``cells(case)``: a frame with four cells for its encoder."""

    def get(case):
        if case.encoder == "ImageEncoder":
            return pd.DataFrame({"cell": objects([str(files / f"{i}.jpg") for i in range(4)])})
        if case.encoder == "VideoEncoder":
            return pd.DataFrame({"cell": objects(request.getfixturevalue("films"))})
        known = CELLS[case.encoder]
        return known if isinstance(known, pd.DataFrame) else pd.DataFrame({"cell": objects(known)})

    return get


@pytest.fixture(scope="module")
def films(files):
    pytest.importorskip("av", reason="video files need the extra 'video'")
    from clips import clip

    paths = []
    for i in range(4):
        paths.append(str(files / f"{i}.mp4"))
        data = clip(12 + 4 * i, codec="libx264", codec_options={"g": "5"})
        (files / f"{i}.mp4").write_bytes(data)
    return paths


@pytest.fixture
def build(tiny_checkpoint):
    """``build(case, pooling="max")``: an encoder of the case, small, with other parameters."""

    def get(case, **others):
        kind = getattr(encoders, case.encoder)
        setting = dict(case.setting)
        if setting.get("model") in ("bert", "vit", "wav2vec2", "videomae"):
            setting["model"] = tiny_checkpoint(setting["model"])
        taken = set(inspect.signature(kind).parameters) - case.refused
        small = {name: value for name, value in SMALL.items() if name in taken}
        return kind(**{**small, "random_state": 0, **setting, **others})

    return get


# --- the table is true --------------------------------------------------------------------------


@BY_CASE
def test_what_has_no_effect_is_refused_by_name(case, build, cells):
    X = cells(case)
    for name in sorted(case.refused):
        encoder = build(case, **{name: OTHERS[name]})
        told = f"^{case.encoder}: {name}=.* has no effect with {case.cause or '[a-z_]+'}=.*Leave it"
        with pytest.raises(ValueError, match=told):
            encoder.fit(X, Y)
        if encoder.needs_training:
            with pytest.raises(ValueError, match=told):
                encoder.start_training(X, Y)


@BY_CASE
def test_what_says_no_more_than_what_is_done_is_taken(case, build, cells):
    true = {name: value for name, value in (("dtype", "float32"), ("store", False))}
    true = {name: value for name, value in true.items() if name in case.refused}
    if true:
        build(case, **true).fit(cells(case), Y)


@BY_CASE
def test_everything_else_has_an_effect(case, build, cells, tmp_path):
    X = cells(case)
    with config_context(device="cpu", store=False):
        usual = build(case).fit(X, Y)
        for name in tried(case):
            if name in case.refused:
                continue
            if case.name == "Tabular-onehot" and name == "n_components":
                continue  # scikit-learn's own checks set it on whatever has one
            if name == "store":
                build(case, store=tmp_path).fit(X, Y).transform(X)
                assert EmbeddingStore(tmp_path).stats()["n_embeddings"] > 0
                continue
            other = build(case, **{name: OTHERS[name]}).fit(X, Y)
            assert differ(usual, other, X), f"{case.name}: {name}={OTHERS[name]!r} does nothing."


def differ(one, other, X):
    """Whether two fitted encoders differ in what they have learned, are known by, or give."""
    if facts(one) != facts(other):
        return True
    a, b = one.transform(X), other.transform(X)
    return a.shape != b.shape or not np.array_equal(a, b, equal_nan=True)


def facts(encoder):
    """What tells one fitted encoder from another without running it."""
    learned = [getattr(encoder, "loss_curve_", None), encoder.n_outputs_]
    engine = getattr(encoder, "_engine", None)
    if engine is None:
        return learned
    runtime = Runtime.of(encoder)
    trunk = getattr(engine, "trunk", None) or engine
    return [*learned, trunk.fingerprint(runtime), encoder._reading()]
