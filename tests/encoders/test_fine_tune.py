"""Fine-tuning of text and image models: trained weights, stored outputs, pickles."""

import copy
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn
from tuning import LORA, N_BLOCKS, deepened, noise_images, parity_texts

from skmm import ImageEncoder, TextEncoder, Trainer
from skmm.exceptions import CheckpointError
from skmm.testing import check_encoder

HOW = ["last", 2, "full", LORA]
TEXTS = pd.DataFrame({"t": ["good shoes", "bad", None, "a much longer text of shoes", "bad"]})
Y = np.array([0, 1, 0, 1, 0])


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    def get(kind):
        if kind not in built:
            place = tmp_path_factory.mktemp("deep") / kind
            built[kind] = deepened(tiny_checkpoint(kind), place, initializer_range=0.1)
        return built[kind]

    built = {}
    return get


def fitted(folder, how, X=TEXTS, y=Y, **options):
    training = {} if how == "frozen" else {"max_epochs": 3}
    options = {"batch_size": 2, "random_state": 0, **training, **options}
    kind = TextEncoder if X is TEXTS else ImageEncoder
    return kind(folder, fine_tune=how, **options).fit(X, y)


def original(folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def weights_of(encoder):
    """Trained weights by their names in the checkpoint."""
    backbone = encoder._engine.backbone
    pairs = zip(backbone.names, backbone.weights, strict=True)
    return {name.removeprefix("model."): weight.detach() for name, weight in pairs}


# --- which weights change ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_only_the_chosen_weights_are_trained(folder, store, how):
    frozen = TextEncoder(folder("bert")).fit_transform(TEXTS)
    encoder = fitted(folder("bert"), how)
    first = {"last": N_BLOCKS - 1, 2: N_BLOCKS - 2}.get(how)
    names = [name for name, _ in original(folder("bert")).named_parameters()]
    trained = weights_of(encoder)
    if first is not None:
        blocks = tuple(f"encoder.layer.{i}." for i in range(first, N_BLOCKS))
        assert list(trained) == [name for name in names if name.startswith(blocks)]
    elif how == "full":  # the vectors do not depend on the pooler
        assert list(trained) == [name for name in names if not name.startswith("pooler")]
    else:
        assert all(".lora_" in name for name in trained)
    before = dict(original(folder("bert")).named_parameters())
    for name, weight in trained.items():
        if how == "lora":
            assert weight.abs().max() > 0
        else:
            # A bias of the keys shifts all scores equally, so its gradient is rounding only.
            moved = not torch.equal(weight, before[name])
            assert moved or name.endswith(("key.bias", "token_type_embeddings.weight"))
    # The shared weights of the checkpoint are unchanged.
    again = TextEncoder(folder("bert"), store=False).fit_transform(TEXTS)
    np.testing.assert_allclose(again, frozen, atol=1e-6)
    assert not np.allclose(encoder.transform(TEXTS), frozen, atol=1e-4, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["last", 2, "full"])
def test_training_equals_a_plain_loop(folder, store, how):
    """A loop over the whole model, with frozen first layers and the same order of rows."""
    encoder = fitted(folder("bert"), how, batch_size=3)
    model, names = original(folder("bert")), set(weights_of(encoder))
    tokenizer = encoder._engine.backbone.pretrained().tokenizer
    texts, y = TEXTS["t"].dropna().tolist(), torch.tensor(Y[[0, 1, 3, 4]])
    tensors = tokenizer.tensors(texts, 64)

    def pooled(rows):
        batch = {name: tensor[rows] for name, tensor in tensors.items()}
        tokens, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
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
            for rows in torch.randperm(4).tensor_split(2):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(pooled(rows)), y[rows]).backward()
                nn.utils.clip_grad_norm_([*own, *head.parameters()], 1.0)
                optimizer.step()
    expected = pooled(slice(None)).detach().numpy()
    np.testing.assert_allclose(encoder.transform(TEXTS)[[0, 1, 3, 4]], expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "dinov2", "resnet", "convnext"])
@pytest.mark.parametrize("how", ["last", "full"])
def test_images_are_fine_tuned(folder, tiny_checkpoint, store, kind, how):
    place = tiny_checkpoint(kind) if kind in ("resnet", "convnext") else folder(kind)
    X = noise_images(5)
    X.loc[1, "photo"] = None
    frozen = ImageEncoder(place).fit_transform(X)
    encoder = fitted(place, how, X)
    features = encoder.transform(X)
    assert np.isnan(features).any(axis=1).tolist() == [False, True, False, False, False]
    assert not np.allclose(features, frozen, atol=1e-5, equal_nan=True)
    assert encoder.set_params(fine_tune=how)._engine.backbone.training is False


@pytest.mark.slow
def test_fine_tuning_solves_what_frozen_vectors_cannot(folder, store):
    """The parity of two letters is not a linear function of their counts."""
    from fusing import Total

    from skmm import JointFusionClassifier

    X, y = parity_texts(400)
    scores = {}
    for how, rate in (("frozen", "auto"), ("full", 1e-2)):
        fusion = JointFusionClassifier(
            [("text", TextEncoder(folder("bert"), fine_tune=how), ["text"])],
            strategy=Total,
            n_components=8,
            dropout=0.0,
            max_epochs=25,
            trainer=Trainer(learning_rate=1e-2, encoder_learning_rate=rate, early_stopping=False),
            random_state=0,
        )
        fusion.fit(X[:300], y[:300])
        scores[how] = fusion.score(X[300:], y[300:])
    vectors = fusion.encoder_for("text").transform(X)
    linear = LogisticRegression(max_iter=1000).fit(vectors[:300], y[:300])
    assert linear.score(vectors[300:], y[300:]) > 0.9
    assert scores["frozen"] < 0.7
    assert scores["full"] > 0.9


# --- what is stored ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_trunk_encodes_each_cell_once(folder, store):
    """For all epochs, clones and calls: four texts, of which three differ."""
    encoder = fitted(folder("bert"), "last", max_epochs=7)
    assert store.stats()["encoded"] == 3
    clone(encoder).set_params(max_epochs=1, fine_tune=1).fit(TEXTS, Y).transform(TEXTS)
    encoder.set_params(pooling="max").fit(TEXTS, Y).transform_sequence(TEXTS)
    assert store.stats()["encoded"] == 3


@pytest.mark.slow
def test_another_split_has_other_keys(folder, store):
    n = 0
    for how in ("last", 2, 3, "frozen"):
        vectors = fitted(folder("bert"), how).transform(TEXTS)
        n += 3
        assert store.stats()["encoded"] == n
        fresh = fitted(folder("bert"), how, store=False).transform(TEXTS)
        np.testing.assert_allclose(vectors, fresh, atol=1e-6)
    fitted(folder("bert"), "last", max_length=5)
    assert store.stats()["encoded"] == n + 3
    fitted(folder("bert"), "last", dtype="bfloat16")
    assert store.stats()["encoded"] == n + 6


def test_images_are_not_decoded_again(folder, store, monkeypatch):
    X = noise_images(4)
    encoder = fitted(folder("vit"), "last", X, Y[:4])
    monkeypatch.setattr(encoder, "_read_with_digest", None)
    monkeypatch.setattr(encoder, "_read", None)
    assert np.isfinite(encoder.transform(X)).all()


# --- pickles, clones and batches -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_pickle_holds_the_trained_weights_only(folder, store, how):
    encoder = fitted(folder("bert"), how)
    stored = pickle.dumps(encoder)
    n_trained = sum(weight.numel() for weight in weights_of(encoder).values())
    # Small enough to show two copies of a model of 11,000 weights.
    assert len(stored) < 4 * n_trained + 25_000
    again = pickle.loads(stored)
    np.testing.assert_allclose(again.transform(TEXTS), encoder.transform(TEXTS), atol=1e-6)
    assert again.checkpoint_["digest"] == encoder.checkpoint_["digest"]
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(again))):
        np.testing.assert_allclose(twin.transform(TEXTS), encoder.transform(TEXTS), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["last", LORA])
def test_other_weights_are_refused_and_the_same_weights_elsewhere_accepted(
    folder, tmp_path, store, how
):
    place = shutil.copytree(folder("bert"), tmp_path / "here")
    encoder = fitted(place, how)
    expected, stored = encoder.transform(TEXTS), pickle.dumps(encoder)
    elsewhere = shutil.copytree(place, tmp_path / "elsewhere")
    other = deepened(folder("bert"), tmp_path / "other", seed=5)
    shutil.rmtree(place)
    again = pickle.loads(stored)
    with pytest.raises(CheckpointError, match="no folder that exists"):
        again.transform(TEXTS)
    again.set_params(model=other)
    with pytest.raises(CheckpointError, match="was fitted with other weights"):
        again.transform(TEXTS)
    again.set_params(model=elsewhere)
    np.testing.assert_allclose(again.transform(TEXTS), expected, atol=1e-6)


@pytest.mark.slow
def test_a_clone_starts_from_the_checkpoint(folder, store):
    encoder = fitted(folder("bert"), "last")
    again = clone(encoder)
    assert not hasattr(again, "n_outputs_")
    np.testing.assert_array_equal(again.fit(TEXTS, Y).transform(TEXTS), encoder.transform(TEXTS))
    np.testing.assert_array_equal(encoder.fit(TEXTS, Y).transform(TEXTS), again.transform(TEXTS))


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_rows_do_not_depend_on_their_batch(folder, store, how):
    encoder = fitted(folder("bert"), how)
    together = encoder.set_params(batch_size=64).transform(TEXTS)
    alone = np.vstack([encoder.transform(TEXTS.iloc[[i]]) for i in range(len(TEXTS))])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.isnan(together).any(axis=1).tolist() == [False, False, True, False, False]
    tokens, mask = encoder.transform_sequence(TEXTS)
    mean = (tokens * mask[..., None]).sum(1)[[0, 3]] / mask.sum(1)[[0, 3], None]
    np.testing.assert_allclose(mean, together[[0, 3]], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["last", "full"])
def test_check_encoder(folder, how):
    options = {"max_epochs": 1, "batch_size": 4, "random_state": 0, "device": "cpu"}
    check_encoder(TextEncoder(folder("bert"), fine_tune=how, **options))


def test_vectors_of_columns_are_concatenated(folder, store):
    two = TEXTS.assign(u=["x", None, "y", "some words", "z"])
    encoder = TextEncoder(folder("bert"), fine_tune="last", max_epochs=1, random_state=0)
    features = encoder.fit(two, Y).transform(two)
    assert features.shape == (5, 32)
    assert np.isnan(features[1, 16:]).all() and np.isfinite(features[1, :16]).all()


# --- augmentation ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["last", "full"])
def test_augment_changes_each_cell_in_each_epoch(folder, store, how):
    seen = []

    def noted(cell, rng):
        seen.append((cell, rng.integers(1000)))
        return cell + " " + "x" * int(rng.integers(1, 5))

    encoder = fitted(folder("bert"), how, augment=noted, max_epochs=3)
    assert len(seen) == 3 * 4
    assert {cell for cell, _ in seen} == set(TEXTS["t"].dropna())
    assert len({number for _, number in seen}) > 6
    first, n_encoded = list(seen), store.stats()["encoded"]
    encoder.transform(TEXTS)
    assert seen == first  # never at prediction
    seen.clear()
    again = fitted(folder("bert"), how, augment=noted, max_epochs=3)
    assert seen == first
    np.testing.assert_array_equal(again.transform(TEXTS), encoder.transform(TEXTS))
    # Augmented cells are not stored.
    assert store.stats()["encoded"] == n_encoded == (3 if how == "last" else 0)
    plain = fitted(folder("bert"), how, max_epochs=3)
    assert not np.allclose(plain.transform(TEXTS), again.transform(TEXTS), equal_nan=True)


def test_augmented_images_from_scratch(store):
    shapes = []

    def turned(cell, rng):
        shapes.append((cell.shape, cell.dtype))
        return cell[:, ::-1] if rng.random() < 0.5 else cell

    X = noise_images(4)
    encoder = ImageEncoder("cnn", augment=turned, image_size=16, n_components=4, max_epochs=2)
    encoder.fit(X, Y[:4])
    assert shapes == [((40, 48, 3), np.uint8)] * 8
    lists = pd.DataFrame({"photo": [[cell, cell] for cell in X["photo"]]})
    shapes.clear()
    encoder.fit(lists, Y[:4])
    assert len(shapes) == 16 and {len(shape) for shape, _ in shapes} == {3}


def test_a_frozen_model_is_never_augmented(folder, store):
    def refused(cell, rng):
        raise AssertionError

    encoder = TextEncoder(folder("bert"), augment=refused)
    assert not encoder.augments
    with pytest.raises(ValueError, match="augment=.* has no effect with fine_tune='frozen'"):
        encoder.fit(TEXTS)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_impossible_settings_are_refused(folder, tiny_checkpoint, store):
    with pytest.raises(ValueError, match="fine_tune=9, but .* has 3 blocks"):
        fitted(folder("bert"), 9)
    with pytest.raises(ValueError, match="TextEncoder with fine_tune needs y"):
        fitted(folder("bert"), "last", y=None)
    with pytest.raises(CheckpointError, match="cannot split .* before its last blocks"):
        fitted(folder("t5"), "last")  # its first block passes positions to the others
    assert np.isfinite(fitted(folder("t5"), "full").transform(TEXTS)[0]).all()
    lists = pd.DataFrame({"photo": [[cell] for cell in noise_images(4)["photo"]]})
    with pytest.raises(ValueError, match="needs single images"):
        fitted(folder("vit"), "last", lists, Y[:4])
    with pytest.raises(ValueError, match="has no cell to train on"):
        TextEncoder(folder("bert"), fine_tune="last").fit(pd.DataFrame({"t": [None]}), [0])
    with pytest.raises(ValueError, match="fine_tune"):
        fitted(folder("bert"), "first")


def test_networks_from_scratch_refuse_fine_tune(store):
    with pytest.raises(ValueError, match="fine_tune='last' has no effect with model='gru'"):
        TextEncoder("gru", fine_tune="last").fit(TEXTS, Y)
