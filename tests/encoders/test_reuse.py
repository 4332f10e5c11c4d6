"""A stored vector is reused if and only if nothing differs that could change it.

Every parameter of an encoder with a frozen model is in one of the tables below: ``changes``
(another value gives other vectors, so it must miss) or ``keeps`` (another value gives the same
vectors, so it must hit). A new parameter needs a line there. Hypothesis samples settings, cells
and containers; all examples share one store, so that the number of vectors that could be reused
by mistake grows.
"""

import copy
import inspect
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import skmm
from skmm import (
    AudioEncoder,
    ImageEncoder,
    ModuleEncoder,
    PointCloudEncoder,
    TextEncoder,
    VideoEncoder,
    config_context,
    encoders,
)
from skmm.backbones._pretrained import _loading
from skmm.encoders import EmbeddingStore
from skmm.encoders._cell_encoder import CellEncoder

# --- changes of a model -------------------------------------------------------------------------


def unchanged(folder):
    """The original weights and preprocessing."""


def one_bit(folder):
    """The last weight differs by its lowest bit."""
    _flip(folder / "model.safetensors", -4, 0)


def another_bit(folder):
    """A weight in the middle differs by one bit."""
    file = folder / "model.safetensors"
    start = 8 + int.from_bytes(file.read_bytes()[:8], "little")  # after the header
    _flip(file, start + (file.stat().st_size - start) // 8 * 4, 3)


def other_config(folder):
    """The network computes something else with the same weights."""
    _edit(folder / "config.json", hidden_act="relu")


def other_mean(folder):
    """Images are normalized by another mean."""
    _edit(folder / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])


def other_resampling(folder):
    """Images are resized by another method."""
    _edit(folder / "preprocessor_config.json", resample=0)


def other_vocabulary(folder):
    """Two tokens of the tokenizer are exchanged."""
    tokens = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["a"], vocabulary["##e"] = vocabulary["##e"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(tokens))


def _flip(file, at, bit):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def _edit(file, **changes):
    held = json.loads(file.read_text())
    assert any(held.get(name) != value for name, value in changes.items())
    file.write_text(json.dumps(held | changes))


class Scale(nn.Module):
    """A module with weights, a buffer, an attribute and code."""

    def __init__(self, *, bit=None, offset=0.0, power=1):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
            if bit is not None:
                row, column = bit
                self.linear.weight[row, column : column + 1].view(torch.int32).bitwise_xor_(1)
        self.register_buffer("offset", torch.tensor(offset))
        self.power = power

    def forward(self, x):
        return self.linear(x) ** self.power + self.offset


class Scaled(Scale):
    """The same weights with other code."""

    def forward(self, x):
        return 2 * self.linear(x)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "unchanged": Scale,
    "one bit": lambda: Scale(bit=(0, 0)),
    "another bit": lambda: Scale(bit=(2, 3)),
    "buffer": lambda: Scale(offset=1.0),
    "attribute": lambda: Scale(power=2),
    "code": Scaled,
    "another layer": lambda: nn.Sequential(Scale(), nn.Tanh()),
}


def doubled(cell):
    return 2 * np.asarray(cell)


def negated(cell):
    return -np.asarray(cell)


def stacked(cells):
    return torch.tensor(np.stack(cells), dtype=torch.float32)


def stacked_and_turned(cells):
    return torch.tensor(np.stack(cells)[:, ::-1].copy(), dtype=torch.float32)


# --- the tables ---------------------------------------------------------------------------------

# Parameters of every encoder that do not change the output of a frozen model.
RUNTIME = {
    "batch_size": [1, 3, 64],
    "on_error": ["raise", "missing"],
    "device": ["auto", "cpu", "cpu:0"],
    "store": ["str", "path", "object"],
    "random_state": [None, 0, 7],
    "verbose": [0, False],
}
# Parameters of trained models, which frozen ones refuse.
TRAINING = {
    "max_epochs": [1],
    "learning_rate": [0.1],
    "warmup": [1],
    "early_stopping": [True],
}
TUNING = {"lora_params": [{"r": 2}], "augment": [doubled]}
# Another precision changes at least the last digits.
DTYPE = ["float32", "bfloat16"]


@dataclass
class Case:
    """An encoder with a frozen model."""

    encoder: type
    changes: dict[str, list]  # parameter -> values that all give different vectors
    keeps: dict[str, list]  # parameter -> values that all give the same vectors
    refused: dict[str, list]  # parameter -> values without effect
    cells: list  # distinct contents
    checkpoint: str | None = (
        None  # kind of tiny checkpoint; ``model`` lists functions that change a copy
    )
    # Parameters that make the model frozen, or that decide which others have an effect.
    fixed: dict[str, Any] = field(default_factory=dict)


VECTORS = list(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
IMAGES = list(np.random.default_rng(1).integers(0, 256, (5, 9, 12, 3)).astype(np.uint8))
RECORDINGS = [
    np.sin(np.linspace(0, 90 * (i + 1), 8000 + 500 * i, dtype=np.float32)) for i in range(4)
]
CLIPS = list(np.random.default_rng(2).integers(0, 256, (3, 6, 10, 12, 3)).astype(np.uint8))
CLOUDS = list(np.random.default_rng(3).normal(size=(4, 40, 5)).astype(np.float32))
CASES = {
    "text": Case(
        TextEncoder,
        checkpoint="bert",
        changes={
            "model": [unchanged, one_bit, another_bit, other_config, other_vocabulary],
            "pooling": ["mean", "max", "cls", "pooler"],
            "normalize": [False, True],
            "max_length": [5, 12, None],
            "dtype": DTYPE,
            "compile": [False, True],
        },
        keeps=RUNTIME,
        refused={**TRAINING, **TUNING, "n_components": [2]},
        cells=["a", "two hats", "a warm red coat", "shoes that fell apart", "", "A"],
        fixed={"fine_tune": "frozen"},  # test_fine_tune*.py test the other values
    ),
    "image": Case(
        ImageEncoder,
        checkpoint="vit",
        changes={
            "model": [unchanged, one_bit, another_bit, other_config, other_mean, other_resampling],
            "pooling": ["mean", "max", "cls", "pooler"],
            "normalize": [False, True],
            "draft": [False, True],
            "dtype": DTYPE,
            "compile": [False, True],
        },
        keeps=RUNTIME,
        refused={**TRAINING, **TUNING, "n_components": [2], "image_size": [16]},
        cells=IMAGES,
        fixed={"fine_tune": "frozen"},
    ),
    "module": Case(
        ModuleEncoder,
        changes={
            "module": list(MODULES),
            "read": [None, doubled, negated],
            "collate": [None, stacked, stacked_and_turned],
            "dtype": DTYPE,
        },
        keeps=RUNTIME,
        refused=TRAINING,
        cells=VECTORS,
        fixed={"fine_tune": "frozen"},
    ),
    "audio": Case(
        AudioEncoder,
        changes={
            "pooling": ["mean", "max", "statistics"],
            "normalize": [False, True],
            "sampling_rate": [16_000, 8_000],
            "window": [30.0, 0.2],
            "dtype": DTYPE,
        },
        keeps=RUNTIME,
        refused={**TRAINING, **TUNING, "n_components": [2], "fine_tune": ["last"]},
        cells=RECORDINGS,
        fixed={"model": "mfcc"},
    ),
    "speech": Case(
        AudioEncoder,
        checkpoint="wav2vec2",
        changes={
            "model": [unchanged, one_bit, another_bit, other_config],
            "pooling": ["mean", "max", "statistics"],
            "normalize": [False, True],
            "sampling_rate": [16_000, 8_000],
            "window": [30.0, 0.2],
            "dtype": DTYPE,
        },
        keeps=RUNTIME,
        refused={**TRAINING, **TUNING, "n_components": [2]},
        cells=RECORDINGS,
        fixed={"fine_tune": "frozen"},
    ),
    "video": Case(
        VideoEncoder,
        checkpoint="vit",
        changes={
            "model": [unchanged, one_bit, another_bit, other_config, other_mean, other_resampling],
            "n_frames": [2, 3, 6],
            "temporal_pooling": ["mean", "max"],
            "pooling": ["mean", "cls"],
            "normalize": [False, True],
            "dtype": DTYPE,
        },
        keeps=RUNTIME,
        refused={**TRAINING, **TUNING, "n_components": [2], "image_size": [16]},
        cells=CLIPS,
        # Arrays have no timestamps.
        fixed={"fine_tune": "frozen", "sampling": "uniform", "frame_rate": None},
    ),
    "points": Case(
        PointCloudEncoder,
        changes={
            "n_points": [16, 30, 1024],
            "rotation_invariant": [False, True],
            "center": [True, False],
            "scale": [True, False],
            "use_features": [True, False],
        },
        keeps=RUNTIME,
        refused={**TRAINING, "n_components": [2]},
        cells=CLOUDS,
        fixed={"model": "geometric"},
    ),
}


# Encoders without a store are fitted on the training cells, so they reuse nothing.
STORED = [
    encoder
    for encoder in map(vars(encoders).get, encoders.__all__)
    if issubclass(encoder, CellEncoder) and "store" in inspect.signature(encoder).parameters
]


@pytest.mark.parametrize("encoder", STORED)
def test_every_parameter_is_in_a_table(encoder):
    """A parameter that is in no table might change the output and not the key."""
    cases = [case for case in CASES.values() if case.encoder is encoder]
    assert cases, f"Write a case for {encoder.__name__} into CASES."
    for case in cases:
        decided = [*case.changes, *case.keeps, *case.refused, *case.fixed]
        assert sorted(decided) == sorted(inspect.signature(encoder).parameters), (
            f"Write each parameter of {encoder.__name__} into a table of its case."
        )
        for values in (case.changes | case.keeps).values():
            assert len(values) > 1


# --- settings, cells and containers -------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tiny_checkpoint, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # Compiling takes a minute for each model; these tests only need the key.
        patch.setattr(torch, "compile", lambda module, **_: module)
        patch.setattr(_loading, "_COMPILED", type(_loading._COMPILED)(4))
        yield World(tiny_checkpoint, tmp_path_factory.mktemp("reuse"))


class World:
    """Changed checkpoints, one store, and the settings whose vectors it has."""

    def __init__(self, tiny_checkpoint, folder):
        self.tiny_checkpoint = tiny_checkpoint
        self.folder = folder
        self.store = EmbeddingStore(folder / "store")
        self.known: set[tuple] = set()

    def model(self, kind, change, place):
        """Return the folder of a changed checkpoint; each change has copies in two places."""
        folder = self.folder / f"{kind}-{change.__name__}-{place}"
        if not folder.exists():
            shutil.copytree(self.tiny_checkpoint(kind), folder)
            change(folder)
        return folder

    def build(self, case, chosen, place):
        """Return an encoder with a setting; equal settings have different objects each time."""
        given = dict(chosen)
        if case.checkpoint is not None:
            given["model"] = self.model(case.checkpoint, given["model"], place)
        if "module" in given:
            given["module"] = copy.deepcopy(MODULES[given["module"]]())
        given["store"] = {
            "str": str(self.store.folder),
            "path": Path(self.store.folder),
            "object": self.store,
        }[given["store"]]
        return case.encoder(**given, **case.fixed)

    def encoded(self):
        return self.store.stats()["encoded"]


@st.composite
def requests(draw, case):
    """A setting, indices of cells, and their container."""
    chosen = {
        name: draw(st.sampled_from(values), label=name)
        for name, values in (case.changes | case.keeps).items()
    }
    rows = draw(st.lists(st.integers(0, len(case.cells) - 1), min_size=1, max_size=6))
    container = draw(st.sampled_from(list(CONTAINERS)))
    return chosen, rows, container, draw(st.integers(0, 1), label="place")


def _objects(cells):
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


def _polars(cells):
    polars = pytest.importorskip("polars")
    text = isinstance(cells[0], str)
    return polars.DataFrame({"p": polars.Series(cells, dtype=None if text else polars.Object)})


# The same cells in other containers, with other names and in other rows.
CONTAINERS: dict[str, Callable[[list], Any]] = {
    "frame": lambda cells: pd.DataFrame({"a": pd.Series(_objects(cells))}),
    "frame with labels": lambda cells: pd.DataFrame(
        {"b": pd.Series(_objects(cells))}, index=pd.RangeIndex(len(cells))
    ).set_axis([f"row {i}" for i in range(len(cells))]),
    "two columns": lambda cells: pd.DataFrame(
        {"c": pd.Series(_objects(cells)), "d": pd.Series(_objects(cells[::-1]))}
    ),
    "with gaps": lambda cells: pd.DataFrame({"e": pd.Series(_objects([None, *cells, None]))}),
    "series": lambda cells: pd.Series(_objects(cells), name="f"),
    "list": list,
    "array": lambda cells: _objects(cells)[:, None],
    "polars": _polars,
}


# Models of media take most of the time.
FAST = ["text", "module", "points"]
BY_NAME = pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)


@pytest.mark.slow
@BY_NAME
def test_a_vector_is_reused_if_and_only_if_nothing_differs(world, name):
    case = CASES[name]

    @given(requests(case))
    @settings(max_examples=20 if name in FAST else 6, deadline=None)
    def check(drawn):
        chosen, rows, container, place = drawn
        X = CONTAINERS[container]([copy.deepcopy(case.cells[row]) for row in rows])
        setting = (name, *(str(chosen[parameter]) for parameter in case.changes))
        needed = {(*setting, row) for row in rows}
        before = world.encoded()
        encoder = world.build(case, chosen, place)
        features = encoder.fit_transform(X)
        # Exactly the new ones: an additional hit is a wrong vector, a missing one repeated work.
        assert world.encoded() - before == len(needed - world.known)
        world.known |= needed
        fresh = world.build(case, chosen, place).set_params(store=False).fit_transform(X)
        precision = 1e-5 if chosen.get("dtype", "float32") == "float32" else 0.05
        np.testing.assert_allclose(features, fresh, rtol=precision, atol=precision)

    check()


@BY_NAME
def test_each_change_misses_and_each_other_value_hits(world, name):
    """Parameter by parameter, without random choices."""
    case = CASES[name]
    X = CONTAINERS["frame"](case.cells)
    start = {key: values[0] for key, values in (case.changes | case.keeps).items()}
    world.store.clear()
    world.known.clear()
    first = world.build(case, start, 0).fit_transform(X)
    assert world.encoded() == len(case.cells)
    for parameter, values in case.keeps.items():
        for value in values[1:]:
            again = world.build(case, start | {parameter: value}, 1).fit_transform(X)
            np.testing.assert_array_equal(again, first, err_msg=f"{parameter}={value}")
            assert world.encoded() == len(case.cells), f"{parameter}={value} was encoded again"
    for parameter, values in case.refused.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{parameter}=.* has no effect with"):
                world.build(case, start | {parameter: value}, 1).fit(X)
    for parameter, values in case.changes.items():
        for value in values[1:]:
            before = world.encoded()
            other = world.build(case, start | {parameter: value}, 0)
            features = other.fit_transform(X)
            assert world.encoded() - before == len(case.cells), f"{parameter}={value} was reused"
            np.testing.assert_allclose(
                features, other.set_params(store=False).fit_transform(X), rtol=1e-2, atol=1e-2
            )
    world.store.clear()


@pytest.mark.slow
def test_any_bit_of_any_weight_changes_the_key(world):
    world.store.clear()
    seen = {None}
    X = CONTAINERS["frame"](VECTORS[:2])
    module = Scale()
    ModuleEncoder(module, store=world.store).fit_transform(X)
    n_numbers = sum(tensor.numel() for tensor in module.state_dict().values())

    @given(st.integers(0, n_numbers - 1), st.integers(0, 31))
    @settings(max_examples=30, deadline=None)
    def check(number, bit):
        seen.add((number, bit))
        flipped = Scale()
        for tensor in flipped.state_dict().values():
            if 0 <= number < tensor.numel():
                data = tensor.reshape(-1).numpy().view(np.uint32)
                data[number] ^= np.uint32(1 << bit)
            number -= tensor.numel()
        ModuleEncoder(flipped, store=world.store).fit_transform(X)
        assert world.encoded() == 2 * len(seen)
        ModuleEncoder(module, store=world.store).fit_transform(X)
        assert world.encoded() == 2 * len(seen)

    check()


def test_sequences_are_not_vectors(world):
    """A vector is never returned for tokens, nor tokens for a vector."""
    case = CASES["text"]
    start = {key: values[0] for key, values in (case.changes | case.keeps).items()}
    encoder = world.build(case, start, 0)
    X = CONTAINERS["frame"](case.cells)
    pooled = encoder.fit_transform(X)
    before = world.encoded()
    tokens, mask = encoder.transform_sequence(X)
    assert world.encoded() - before == len(case.cells)
    again, _ = world.build(case, start, 1).fit(X).transform_sequence(X)
    assert world.encoded() - before == len(case.cells)
    np.testing.assert_array_equal(again, tokens)
    mean = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(pooled, mean, atol=1e-5)


def test_vectors_of_trained_networks_are_not_stored(world):
    """Every fit trains another network."""
    X, before = CONTAINERS["frame"](VECTORS), world.store.stats()
    for epochs in (1, 2):
        with config_context(store=world.store):
            ModuleEncoder(
                Scale(), fine_tune="full", max_epochs=epochs, random_state=0
            ).fit_transform(X)
    assert world.store.stats() == before


# --- files --------------------------------------------------------------------------------------

ENCODINGS = {
    "image": lambda i: _bitmap(IMAGES[i]),
    "module": lambda i: _saved(VECTORS[i]),
}


def _bitmap(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "bmp")  # not compressed: all have one size
    return file.getvalue()


def _saved(vector):
    file = io.BytesIO()
    np.save(file, vector)
    return file.getvalue()


def load(path):
    return np.load(path)


def files_encoder(world, name):
    if name == "image":
        return ImageEncoder(world.tiny_checkpoint("vit"), store=world.store)
    return ModuleEncoder(Scale(), read=load, store=world.store)


def rewrite(path, data):
    """Write other content under the same path, with the same size and time."""
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENCODINGS))
def test_file_that_changed_under_its_path(world, name):
    assert len({len(ENCODINGS[name](i)) for i in range(5)}) == 1
    paths = [world.folder / f"{name} {i}" for i in range(2)]
    world.store.clear()
    encoder, seen = files_encoder(world, name), set()
    fresh = files_encoder(world, name).set_params(store=False)

    @given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=4))
    @settings(max_examples=8, deadline=None)
    def check(contents):
        for pair in contents:
            for path, content in zip(paths, pair, strict=True):
                rewrite(path, ENCODINGS[name](content))
            X = pd.DataFrame({"file": list(map(str, paths))})
            features = encoder.fit_transform(X)
            seen.update(pair)
            assert world.encoded() == len(seen)
            np.testing.assert_allclose(features, fresh.fit_transform(X), atol=1e-5)

    check()


@pytest.mark.parametrize("changed", [one_bit, other_vocabulary, other_config])
def test_checkpoint_that_changed_under_its_path(world, changed):
    """Also if size and time of the file are unchanged."""
    folder = world.folder / f"changing-{changed.__name__}"
    shutil.copytree(world.tiny_checkpoint("bert"), folder)
    X = CONTAINERS["frame"](CASES["text"].cells)
    encoder = TextEncoder(folder, store=world.store)
    encoder.fit_transform(X)
    before = world.encoded()
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    changed(folder)
    for file, when in times.items():
        os.utime(file, ns=(when, when))
    features = encoder.fit_transform(X)
    assert world.encoded() - before == len(CASES["text"].cells)
    fresh = TextEncoder(folder, store=False).fit_transform(X)
    np.testing.assert_allclose(features, fresh, atol=1e-5)


def test_one_content_in_many_cells(world):
    """The bytes of a file are one content: by another path, in memory, or by a link."""
    data = _bitmap(IMAGES[0])
    places = [world.folder / "one.bmp", world.folder / "deep" / "two.dat"]
    places[1].parent.mkdir()
    for place in places:
        place.write_bytes(data)
    link = world.folder / "link.bmp"
    link.symlink_to(places[0])
    cells = [str(places[0]), places[1], link, data, bytearray(data), memoryview(data)]
    world.store.clear()
    for cell in cells:
        files_encoder(world, "image").fit_transform(CONTAINERS["frame"]([cell]))
        assert world.encoded() == 1
    features = files_encoder(world, "image").fit_transform(CONTAINERS["frame"](cells))
    assert world.encoded() == 1
    assert (features == features[0]).all()


def test_equal_bytes_of_two_modalities_have_different_keys(world):
    world.store.clear()
    clip = world.tiny_checkpoint("clip")
    path = world.folder / "same.bmp"
    path.write_bytes(_bitmap(IMAGES[1]))
    skmm.ImageEncoder(clip, store=world.store).fit_transform([str(path)])
    skmm.TextEncoder(clip, store=world.store).fit_transform([str(path)])
    assert world.encoded() == 2
