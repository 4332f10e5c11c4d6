"""Checkpoints with two towers: their own projections, with missing cells and columns."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from skmm import AudioEncoder, ImageEncoder, PretrainedAlignment
from skmm.exceptions import ModalityMissingError
from skmm.testing._toys import toy_cells

TEXTS = ["a red coat", "two hats", None, "shoes", "blue", "scarf"]


@pytest.fixture
def frame():
    images = list(toy_cells("image")["photo"][: len(TEXTS)])
    images[4] = None
    return pd.DataFrame({"caption": TEXTS, "photo": pd.Series(images, dtype=object)})


TRIPLES = [("caption", "text", ["caption"]), ("photo", "image", ["photo"])]


def unit(vectors):
    vectors = vectors.detach().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def own_vectors(folder, frame):
    """Return the vectors of the model itself, of the rows that have a cell."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    texts, images = list(frame["caption"].dropna()), list(frame["photo"].dropna())
    length = model.config.text_config.max_position_embeddings
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts,
        padding="max_length" if "siglip" in model.config.model_type else True,
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
    accepted = ("input_ids", "attention_mask")[: 1 if "siglip" in model.config.model_type else 2]
    with torch.inference_mode():
        text = model.get_text_features(**{key: tokens[key] for key in accepted})
        image = model.get_image_features(pixel_values=pixels["pixel_values"])
    return [unit(getattr(found, "pooler_output", found)) for found in (text, image)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_are_the_models_own(kind, frame, tiny_checkpoint):
    folder = tiny_checkpoint(kind)
    alignment = PretrainedAlignment(folder, TRIPLES, store=False).fit(frame)
    texts, images = own_vectors(folder, frame)
    for name, expected in (("caption", texts), ("photo", images)):
        vectors = alignment.transform_modality(frame, name)
        there = frame[name].notna().to_numpy()
        assert np.isnan(vectors[~there]).all() and vectors.dtype == np.float32
        np.testing.assert_allclose(vectors[there], expected, atol=2e-6)
    assert [name for name, _, _ in alignment.modalities_] == ["caption", "photo"]
    assert alignment.n_components_ == vectors.shape[1]
    shared = alignment.transform(frame)
    np.testing.assert_allclose(shared[2], vectors[2], atol=1e-6)  # an image alone
    both = (alignment.transform_modality(frame, "caption")[0] + vectors[0]) / 2
    np.testing.assert_allclose(shared[0], both, atol=1e-6)
    assert 0 <= alignment.score(frame) <= 1


@pytest.mark.slow
def test_texts_and_audio(tiny_checkpoint):
    from transformers import AutoFeatureExtractor, AutoModel

    folder = tiny_checkpoint("clap")
    recordings = [
        np.sin(2 * np.pi * pitch * np.arange(16_000) / 16_000).astype(np.float32)
        for pitch in (200, 400, 800)
    ]
    X = pd.DataFrame(
        {"clip": pd.Series(recordings, dtype=object), "text": ["low", "middle", "high"]}
    )
    own = AudioEncoder(sampling_rate=16_000)  # of the arrays
    triples = [("clip", own, ["clip"]), ("text", "text", ["text"])]
    alignment = PretrainedAlignment(folder, triples, store=False).fit(X)
    model = AutoModel.from_pretrained(folder).eval()
    spectra = AutoFeatureExtractor.from_pretrained(folder)(
        recordings, sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model.get_audio_features(
            input_features=spectra["input_features"], is_longer=torch.zeros(3, 1, dtype=torch.bool)
        )
    expected = unit(getattr(expected, "pooler_output", expected))
    np.testing.assert_allclose(alignment.transform_modality(X, "clip"), expected, atol=1e-5)
    assert alignment.transform(X).shape == (3, 12)


def test_a_tower_without_a_column(frame, tiny_checkpoint):
    """The frame has images only, and texts can be encoded all the same."""
    folder = tiny_checkpoint("clip")
    alignment = PretrainedAlignment(folder).fit(frame[["photo"]])
    ((name, tower, columns),) = alignment.modalities_
    assert (name, type(tower), columns) == ("photo", ImageEncoder, ["photo"])
    whole = PretrainedAlignment(folder, TRIPLES).fit(frame)
    expected = whole.transform_modality(frame, "caption")
    for cells in (TEXTS, frame["caption"], frame[["caption"]]):
        np.testing.assert_array_equal(alignment.transform_modality(cells, "text"), expected)
    with pytest.raises(ValueError, match="no modality 'video'. Its modalities are 'photo'"):
        alignment.transform_modality(TEXTS, "video")
    with pytest.raises(ValueError, match="encodes image and text, not audio"):
        alignment.transform_modality(TEXTS, "audio")


def test_auto_uses_modalities_that_have_a_tower(frame, tiny_checkpoint):
    X = frame.assign(price=np.arange(6.0))
    alignment = PretrainedAlignment(tiny_checkpoint("clip")).fit(X)
    assert [name for name, _, _ in alignment.modalities_] == ["caption", "photo"]
    assert alignment.transform_modality(X[["photo"]], "photo").shape == (6, 12)


def test_an_encoder_of_the_user_keeps_its_options(frame, tiny_checkpoint):
    given = ImageEncoder(on_error="missing", batch_size=2)
    triples = [TRIPLES[0], ("photo", given, ["photo"])]
    alignment = PretrainedAlignment(tiny_checkpoint("clip"), triples, store=False).fit(frame)
    tower = {name: tower for name, tower, _ in alignment.modalities_}["photo"]
    assert (tower.on_error, tower.batch_size, tower.pooling) == ("missing", 2, "pooler")
    assert given.model == "efficientnet-lite0" and not hasattr(given, "n_outputs_")


def test_verbose_prints_what_the_towers_encode(frame, tiny_checkpoint, capsys):
    alignment = PretrainedAlignment(tiny_checkpoint("clip"), TRIPLES, store=False, verbose=1)
    alignment.fit(frame).transform(frame)
    printed = capsys.readouterr().err
    assert "TextEncoder: 5/5 cells" in printed and "ImageEncoder: 5/5 cells" in printed
    alignment.set_params(verbose=0).fit(frame).transform(frame)
    assert capsys.readouterr().err == ""


def test_pickles_copies_and_clones(frame, tiny_checkpoint):
    alignment = PretrainedAlignment(tiny_checkpoint("clip"), TRIPLES).fit(frame)
    expected = alignment.transform(frame)
    for other in (pickle.loads(pickle.dumps(alignment)), copy.deepcopy(alignment)):
        np.testing.assert_array_equal(other.transform(frame), expected)
    assert len(pickle.dumps(alignment)) < 30_000  # no weights
    np.testing.assert_array_equal(clone(alignment).fit(frame).transform(frame), expected)
    table = clone(alignment).set_output(transform="pandas").fit_transform(frame)
    assert table.shape == (6, 12) and table.columns[0] == "pretrainedalignment0"


def test_errors(frame, tiny_checkpoint):
    folder = tiny_checkpoint("clip")
    with pytest.raises(ValueError, match="modality 'price' must be an encoder of texts, images"):
        PretrainedAlignment(folder, [("price", "passthrough", ["photo"])]).fit(frame)
    with pytest.raises(ValueError, match="modality 'texts' has 2 columns"):
        PretrainedAlignment(folder, [("texts", "text", ["caption", "photo"])]).fit(frame)
    with pytest.raises(ValueError, match="found no texts, images or audio in X"):
        PretrainedAlignment(folder).fit(pd.DataFrame({"price": [1.0, 2.0, 3.0]}))
    empty = pd.concat([frame, pd.DataFrame({"caption": [None], "photo": [None]})])
    with pytest.raises(ModalityMissingError, match="row 6"):
        PretrainedAlignment(folder, TRIPLES, all_missing="raise").fit(empty)
    assert not PretrainedAlignment(folder, TRIPLES).fit(empty).transform(empty)[6].any()
