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
from skmm.encoders._engines import _trained
from skmm.encoders._engines._base import Runtime

# Accepted by every encoder with every model: they define how cells are encoded (seed, device, batch
# size, reports, unreadable cells), not what is computed.
ALWAYS = {"random_state", "device", "batch_size", "verbose", "on_error"}


def first_half(cell, rng):
    """Augment cells of any kind."""
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
    "max_epochs": 3,
    "learning_rate": 0.5,
    "warmup": 2,
    "early_stopping": True,
    "dtype": "bfloat16",
    "compile": True,
    "store": "a folder",
}


def other_value(case, name):
    if case.encoder == "ModuleEncoder" and name == "fine_tune":
        return "full"  # a module has no known last block
    return OTHERS[name]


# Parameters of small encoders, as far as they do not refuse them.
SMALL = {
    "sampling_rate": 16_000,
    "image_size": 8,
    "n_components": 4,
    "n_kernels": 168,
    "n_points": 16,
    "max_epochs": 2,
}

# --- the table: refused parameters by model -----------------------------------------------------


class Case(NamedTuple):
    """One kind of model of an encoder, and the parameters without effect."""

    encoder: str
    refused: set[str]
    setting: dict[str, Any]
    cause: str | None  # the parameter that the message names as the reason

    @property
    def name(self) -> str:
        words = [w if isinstance(w, str | int) else "module" for w in self.setting.values()]
        return "-".join([self.encoder.removesuffix("Encoder"), *map(str, words)])


def case(encoder, refused="", cause=None, **setting):
    return Case(encoder, set(refused.split()), setting, cause)


# User modules; each takes cells of any size.
OWN_IMAGE = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU())
OWN_AUDIO = nn.Sequential(nn.AdaptiveAvgPool1d(16), nn.Linear(16, 3))
OWN_POINTS = nn.Sequential(nn.AdaptiveMaxPool1d(4), nn.Linear(4, 3))
TRAINING = "max_epochs learning_rate warmup early_stopping"
FROZEN = f"{TRAINING} augment lora_params"
CHECKPOINT = "pooling normalize fine_tune lora_params"
KEPT = "dtype store"  # of frozen models
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
    case("ModuleEncoder", TRAINING, "fine_tune", module=nn.Linear(6, 3)),
    case("ModuleEncoder", KEPT, "fine_tune", module=nn.Linear(6, 3), fine_tune="full"),
]
BY_CASE = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=needs_peft if case.setting.get("fine_tune") == "lora" else ())
        for case in CASES
    ],
    ids=lambda case: case.name,
)


def cases_to_fit():
    """Cases whose parameters are all tried; fine-tuned models of all modalities are the same."""
    for case in CASES:
        how = case.setting.get("fine_tune")
        if how in ("full", "lora") and case.encoder in ("AudioEncoder", "VideoEncoder"):
            continue
        is_pretrained = case.setting.get("model") in ("bert", "vit", "wav2vec2", "videomae")
        is_fast = not is_pretrained or (case.encoder, how) == ("TextEncoder", "last")
        yield pytest.param(case, id=case.name, marks=() if is_fast else pytest.mark.slow)


def tried(case):
    """Parameters whose other values are tried: all but those that define the case."""
    names = inspect.signature(getattr(encoders, case.encoder)).parameters
    fixed = {*ALWAYS, *case.setting} - {"frame_rate"}
    if case.setting.get("model") == "videomae":
        # Each is tried without the other; test_fine_tune_video.py tests both together.
        fixed |= {"sampling"} if "fine_tune" in case.setting else set()
        fixed |= {"fine_tune"} if "sampling" in case.setting else set()
    return [name for name in names if name not in fixed]


def test_parameters_have_one_order():
    first = ["max_epochs", "learning_rate", "batch_size", "warmup", "early_stopping"]
    last = ["on_error", "device", "dtype", "compile", "store", "random_state", "verbose"]
    for name in encoders.__all__:
        if not name.endswith("Encoder"):
            continue
        names = list(inspect.signature(getattr(encoders, name)).parameters)
        expected = [name for name in first + last if name in names]
        assert names[-len(expected) :] == expected, name


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
    """A folder with JPEG files, which can be decoded as drafts."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("files")
    for i in range(4):
        # Details finer than a draft has.
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
    """``build(case, pooling="max")``: a small encoder of the case with other parameters."""

    def get(case, **others):
        kind = getattr(encoders, case.encoder)
        setting = dict(case.setting)
        if setting.get("model") in ("bert", "vit", "wav2vec2", "videomae"):
            setting["model"] = tiny_checkpoint(setting["model"])
        taken = set(inspect.signature(kind).parameters) - case.refused
        small = {name: value for name, value in SMALL.items() if name in taken}
        return kind(**{**small, "random_state": 0, **setting, **others})

    return get


# --- tests of the table -------------------------------------------------------------------------


@BY_CASE
def test_what_has_no_effect_is_refused_by_name(case, build, cells):
    X = cells(case)
    for name in sorted(case.refused):
        encoder = build(case, **{name: OTHERS[name]})
        message = (
            f"^{case.encoder}: {name}=.* has no effect with {case.cause or '[a-z_]+'}=.*Leave it"
        )
        with pytest.raises(ValueError, match=message):
            encoder.fit(X, Y)
        if encoder.needs_training:
            with pytest.raises(ValueError, match=message):
                encoder.start_training(X, Y)


@pytest.mark.slow
@BY_CASE
def test_harmless_values_are_accepted(case, build, cells):
    harmless = {"dtype": "float32", "store": False}
    harmless = {name: value for name, value in harmless.items() if name in case.refused}
    if harmless:
        build(case, **harmless).fit(cells(case), Y)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(cases_to_fit()))
def test_all_other_parameters_have_an_effect(case, build, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(_trained, "_FEWEST_TO_HOLD_OUT", 4)  # early_stopping holds out a cell
    X = cells(case)
    with config_context(device="cpu", store=False):
        usual = build(case).fit(X, Y)
        for name in tried(case):
            if name in case.refused:
                continue
            if case.name == "Tabular-onehot" and name == "n_components":
                continue  # scikit-learn's checks set it on every estimator that has it
            if name == "store":
                build(case, store=tmp_path).fit(X, Y).transform(X)
                assert EmbeddingStore(tmp_path).stats()["n_embeddings"] > 0
                continue
            value = other_value(case, name)
            other = build(case, **{name: value}).fit(X, Y)
            assert differ(usual, other, X), f"{case.name}: {name}={value!r} does nothing."


def differ(one, other, X):
    """Whether two fitted encoders differ in history, fingerprint or output."""
    if facts(one) != facts(other):
        return True
    a, b = one.transform(X), other.transform(X)
    return a.shape != b.shape or not np.array_equal(a, b, equal_nan=True)


def facts(encoder):
    """Facts in which fitted encoders may differ, without running them."""
    learned = [getattr(encoder, "history_", None), encoder.n_outputs_]
    engine = getattr(encoder, "_engine", None)
    if engine is None:
        return learned
    runtime = Runtime.of(encoder)
    trunk = getattr(engine, "trunk", None) or engine
    return [*learned, trunk.fingerprint(runtime), encoder._reading()]
