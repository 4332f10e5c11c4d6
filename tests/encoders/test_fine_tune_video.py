"""Fine-tuning of models of videos: frame by frame, and clip by clip."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from columns import column_of
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from tuning import N_BLOCKS, deepened, needs_peft, untrained

from skmm import ImageEncoder, JointFusionClassifier, Trainer, VideoEncoder
from skmm.exceptions import CheckpointError
from skmm.testing import check_encoder

# test_fine_tune.py has the fast tests of the same statements, with a text model.
pytestmark = pytest.mark.slow

column = partial(column_of, "clip")

HOW = ["last", 2, "full"]
RNG = np.random.default_rng(0)
# Of several lengths and sizes.
SHAPES = [(3, 20, 24, 3), (1, 16, 16, 3), None, (11, 9, 30, 3), (8, 18, 18, 1)]
Y = np.array([0, 1, 0, 1, 0])


X = column(*(s and RNG.integers(0, 256, s, dtype=np.uint8) for s in SHAPES))


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    def get(kind):
        if kind not in built:
            place = tmp_path_factory.mktemp("deep") / kind
            flat = kind in ("resnet", "clip")
            built[kind] = tiny_checkpoint(kind) if flat else deepened(tiny_checkpoint(kind), place)
        return built[kind]

    built = {}
    return get


_CLIP_MODELS = ("videomae", "timesformer")  # their number of frames is fixed


def video(model, how="frozen", **options):
    options = {"batch_size": 2, "random_state": 0, **options}
    if how != "frozen":
        options = {"max_epochs": 2, **options}
    if options.get("sampling", "uniform") == "uniform" and model.name not in _CLIP_MODELS:
        options = {"n_frames": 4, **options}
    return VideoEncoder(model, fine_tune=how, **options)


def tuned_part(encoder):
    backbone = encoder._engine.backbone
    return getattr(backbone, "images", backbone)


def weights_of(encoder):
    part = tuned_part(encoder)
    pairs = zip(part.names, part.weights, strict=True)
    return {name: weight.detach().clone() for name, weight in pairs}


# --- the untrained model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how", "options"),
    [
        *(("vit", how, {}) for how in HOW),
        *(("vit", how, {"temporal_pooling": "max", "normalize": True}) for how in (2, "full")),
        ("dinov2", 2, {"pooling": "mean"}),
        *(("videomae", how, {}) for how in (2, "full")),
        ("timesformer", 2, {"pooling": "max"}),
        pytest.param("vit", "lora", {}, marks=needs_peft),
        pytest.param("dinov2", "lora", {"pooling": "mean"}, marks=needs_peft),
        pytest.param("timesformer", "lora", {"pooling": "max"}, marks=needs_peft),
    ],
)
def test_before_training_it_equals_the_frozen_model(folder, store, kind, how, options):
    """Independently of the other videos of a batch and of their numbers of frames."""
    frozen = video(folder(kind), **options).fit(X)
    tuned = untrained(video(folder(kind), how, **options), X)
    expected = frozen.transform(X)
    np.testing.assert_allclose(tuned.transform(X), expected, atol=2e-5)
    for row in (0, 1, 3):
        alone = tuned.transform(X.iloc[[row]])
        np.testing.assert_allclose(alone[0], expected[row], atol=2e-5)
    for one, other in zip(tuned.transform_sequence(X), frozen.transform_sequence(X), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    (inputs,), rows = tuned.training_tensors(X).columns, torch.tensor([0, 1, 3, 4])
    with torch.no_grad():
        pooled = tuned._engine.backbone(**inputs.rows(rows).inputs).pooled
    np.testing.assert_allclose(pooled, expected[rows], atol=2e-5)


def test_convolutions_over_frames(folder, store):
    frozen = video(folder("resnet")).fit_transform(X)
    tuned = untrained(video(folder("resnet"), "last"), X)
    np.testing.assert_allclose(tuned.transform(X), frozen, atol=2e-5)
    assert not np.allclose(tuned.fit(X, Y).transform(X), frozen, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("sampling", ["rate", "keyframes"])
@pytest.mark.parametrize("how", ["last", "full"])
def test_frames_of_files(folder, store, tmp_path, sampling, how):
    pytest.importorskip("av", reason="video files need the extra 'video'")
    from clips import clip

    cells = []
    for i, n in enumerate((12, 20)):
        cells.append(tmp_path / f"{i}.mp4")
        cells[-1].write_bytes(clip(n, codec="libx264", codec_options={"g": "7"}))
    files, options = column(*cells), {"sampling": sampling}
    if sampling == "rate":
        options["frame_rate"] = 4.0
    untrained(video(folder("vit"), how), files).transform(files)  # other frames, same store
    expected = video(folder("vit"), **options).fit_transform(files)
    tuned = untrained(video(folder("vit"), how, **options), files)
    np.testing.assert_allclose(tuned.transform(files), expected, atol=2e-5)
    assert np.isfinite(tuned.fit(files, [0, 1]).transform(files)).all()


# --- which weights change ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *(("vit", how) for how in HOW),
        pytest.param("vit", "lora", marks=needs_peft),
        ("videomae", 2),
        ("videomae", "full"),
        ("timesformer", 2),
    ],
)
def test_only_the_chosen_weights_are_trained(folder, store, kind, how):
    frozen = video(folder(kind)).fit_transform(X)
    encoder = video(folder(kind), how)
    encoder.start_training(X)
    shared = dict(tuned_part(encoder).pretrained().tower.named_parameters())
    before = {name: weight.clone() for name, weight in shared.items()}
    start = weights_of(encoder)
    trained = weights_of(encoder.fit(X, Y))
    n_blocks = {"last": 1, 2: 2}.get(how)
    if n_blocks is not None:
        blocks = {name.partition("layer")[2].split(".")[1] for name in trained if ".layer" in name}
        numbers = {int(b) for b in blocks if b.isdigit()}
        assert numbers == set(range(N_BLOCKS - n_blocks, N_BLOCKS))
        assert not any("embeddings" in name for name in trained)
    elif how == "lora":
        assert all(".lora_" in name for name in trained)
    n_trained = sum(p.numel() for p in encoder._engine.backbone.parameters())
    assert n_trained == sum(w.numel() for w in trained.values())
    moved = [name for name in start if not torch.equal(start[name], trained[name])]
    assert len(moved) >= len(start) // 2
    for name, weight in shared.items():
        assert torch.equal(weight, before[name])
    features = encoder.transform(X)
    assert np.isnan(features).any(axis=1).tolist() == [s is None for s in SHAPES]
    assert not np.allclose(features, frozen, atol=1e-6, equal_nan=True)


def parity_clips(n, seed=0):
    """Four frames of gray tiles; class 1 if there are red ones or blue ones, but not both."""
    rng = np.random.default_rng(seed)
    colors = np.array([[0] * 3, [128] * 3, [255] * 3, [255, 0, 0], [0, 0, 255]], np.uint8)
    red, blue = rng.random(n) < 0.5, rng.random(n) < 0.5
    cells = []
    for r, b in zip(red, blue, strict=True):
        tiles = rng.integers(0, 3, (4, 16))
        for frame in tiles:
            places = rng.permutation(16)
            frame[places[:4]] = 3 if r else frame[places[:4]]
            frame[places[4:8]] = 4 if b else frame[places[4:8]]
        cells.append(colors[tiles].reshape(4, 4, 4, 3).repeat(8, 1).repeat(8, 2))
    return column(*cells), (red ^ blue).astype(int)


def test_fine_tuning_solves_what_frozen_vectors_cannot(tiny_checkpoint, tmp_path, store):
    from fusing import Total

    place = deepened(tiny_checkpoint("vit"), tmp_path / "vit", initializer_range=0.1)
    clips, y = parity_clips(260)
    scores = {}
    for how, rate in (("frozen", "auto"), (2, 5e-3)):
        fusion = JointFusionClassifier(
            [("clip", video(place, how, pooling="mean", batch_size=32), ["clip"])],
            strategy=Total,
            n_components=8,
            dropout=0.0,
            max_epochs=20,
            trainer=Trainer(
                learning_rate=1e-2, batch_size=32, encoder_learning_rate=rate, early_stopping=False
            ),
            random_state=0,
        )
        fusion.fit(clips[:180], y[:180])
        scores[how] = fusion.score(clips[180:], y[180:])
    vectors = fusion.encoder_for("clip").transform(clips)
    linear = LogisticRegression(max_iter=1000).fit(vectors[:180], y[:180])
    assert linear.score(vectors[180:], y[180:]) > 0.9
    assert scores[2] > 0.9 and scores["frozen"] < scores[2] - 0.05


# --- what is stored ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "videomae"])
def test_the_trunk_encodes_each_cell_once(folder, store, kind):
    encoder = video(folder(kind), "last", max_epochs=4).fit(X, Y)
    assert store.stats()["encoded"] == 4
    clone(encoder).set_params(max_epochs=1, fine_tune=1).fit(X, Y).transform(X)
    encoder.set_params(pooling="max")
    if kind == "vit":  # the other has one clip
        encoder.set_params(temporal_pooling="max")
    encoder.fit(X, Y).transform_sequence(X)
    assert store.stats()["encoded"] == 4
    encoder._read = encoder._read_with_digest = None  # nothing is decoded again
    assert np.isfinite(encoder.transform(X)).any()


def test_a_search_encodes_each_video_once(folder, store):
    clips = column(*RNG.integers(0, 256, (18, 4, 16, 16, 3), dtype=np.uint8))
    y = np.arange(18) % 2
    fusion = JointFusionClassifier(
        [("clip", video(folder("vit")), ["clip"])], n_components=4, max_epochs=3,
        trainer=Trainer(early_stopping=False), random_state=0,
    )  # fmt: skip
    search = GridSearchCV(fusion, {"clip__fine_tune": ["frozen", "last", 1]}, cv=3).fit(clips, y)
    assert store.stats()["encoded"] == 2 * 18  # as vectors, and as outputs of the trunk
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("kind", ["vit", "videomae"])
def test_every_change_of_the_trunk_has_another_key(folder, store, kind):
    n = 0
    variations = [{}, {"how": 2}, {"how": "frozen"}, {"dtype": "bfloat16"}]
    if kind == "vit":  # the number of frames of the other is fixed
        variations.append({"n_frames": 2})
    for options in variations:
        encoder = video(folder(kind), **{"how": "last", **options})
        again = clone(encoder).set_params(store=False)
        if encoder.fine_tune == "frozen":
            vectors, fresh = encoder.fit_transform(X), again.fit_transform(X)
        else:
            vectors, fresh = (untrained(e, X).transform(X) for e in (encoder, again))
        n += 4
        assert store.stats()["encoded"] == n
        np.testing.assert_allclose(vectors, fresh, atol=1e-5)


def test_an_image_and_a_video_of_it_have_different_keys(folder, store):
    cell = column(X["clip"][1][0])
    as_film = column(X["clip"][1])
    one = untrained(ImageEncoder(folder("vit"), fine_tune="last"), cell).transform(cell)
    other = untrained(video(folder("vit"), "last"), as_film).transform(as_film)
    assert store.stats()["encoded"] == 2
    np.testing.assert_allclose(one, other, atol=1e-5)


# --- pickles and clones --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("vit", "last"),
        pytest.param("vit", "lora", marks=needs_peft),
        ("videomae", "last"),
        ("videomae", "full"),
    ],
)
def test_pickle_and_clone(folder, store, kind, how, tmp_path):
    encoder = video(folder(kind), how).fit(X, Y)
    expected, stored = encoder.transform(X), pickle.dumps(encoder)
    assert len(stored) < 4 * sum(w.numel() for w in weights_of(encoder).values()) + 25_000
    again = pickle.loads(stored)
    np.testing.assert_allclose(again.transform(X), expected, atol=1e-6)
    assert again.checkpoint_ == encoder.checkpoint_
    np.testing.assert_allclose(clone(encoder).fit(X, Y).transform(X), expected, atol=1e-6)
    other = deepened(folder(kind), tmp_path / "other", seed=5)
    with pytest.raises(CheckpointError, match="was fitted with other weights"):
        again.set_params(model=other).transform(X)


def test_video_and_audio_models_are_trained_with_one_head(folder, tiny_checkpoint, store):
    from skmm import AudioEncoder

    rng = np.random.default_rng(0)
    recordings = [
        (0.1 * rng.normal(size=n)).astype(np.float32) for n in rng.integers(500, 3_000, 24)
    ]
    frame = column(*rng.integers(0, 256, (24, 3, 16, 16, 3), dtype=np.uint8))
    frame = frame.assign(audio=pd.Series(recordings, dtype=object))
    frame.loc[3, "audio"] = frame.loc[5, "clip"] = None
    options = {"sampling_rate": 16_000, "window": 0.3, "fine_tune": "last"}
    model = JointFusionClassifier(
        [
            ("frames", video(folder("vit"), "last"), ["clip"]),
            ("video", video(folder("videomae"), "last"), ["clip"]),
            ("speech", AudioEncoder(tiny_checkpoint("whisper"), **options), ["audio"]),
            ("waves", AudioEncoder(tiny_checkpoint("hubert"), **options), ["audio"]),
        ],
        strategy="attention", granularity="sequence", n_components=8, max_epochs=2, random_state=0,
    ).fit(frame, np.arange(24) % 2)  # fmt: skip
    proba = model.predict_proba(frame)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(
        pickle.loads(pickle.dumps(model)).predict_proba(frame), proba, atol=1e-5
    )
    np.testing.assert_allclose(model.predict_proba(frame.iloc[:1])[0], proba[0], atol=1e-4)
    for name, of in (("frames", "clip"), ("speech", "audio")):
        vectors = model.encoder_for(name).transform(frame[[of]])
        assert np.isnan(vectors).all(axis=1).sum() == 1
    assert np.isfinite(model.predict_proba(frame.assign(clip=None, audio=None))).all()


def test_check_encoder(folder):
    check_encoder(video(folder("vit"), "last", max_epochs=1, batch_size=4))


@pytest.mark.parametrize(("kind", "how"), [("vit", "last"), ("vit", "full"), ("videomae", "last")])
def test_augment_changes_each_video_in_each_epoch(folder, store, kind, how):
    seen = []

    def mirrored(frames, rng):
        seen.append((len(frames), frames[0].shape[2], rng.integers(1000)))
        return [frame[:, ::-1] for frame in frames] if rng.random() < 0.5 else frames

    encoder = video(folder(kind), how, augment=mirrored, max_epochs=3).fit(X, Y)
    assert len(seen) == 3 * 4 and {n for n, _, _ in seen} == {3, 1, 4}
    n_encoded = store.stats()["encoded"]
    encoder.transform(X)
    assert len(seen) == 12 and store.stats()["encoded"] == n_encoded == 4 * (how == "last")
    again = clone(encoder).fit(X, Y)
    assert seen[:12] == seen[12:]
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))


def test_augmented_videos_from_scratch(store):
    seen = []

    def noted(frames, rng):
        seen.append([frame.shape for frame in frames])
        return frames[::-1]

    encoder = VideoEncoder(
        "cnn", augment=noted, n_frames=4, image_size=8, n_components=4, max_epochs=2, random_state=0
    ).fit(X, Y)
    assert len(seen) == 2 * 4 and set(seen[0]) == {(8, 8, 3)}
    encoder.transform(X)
    assert len(seen) == 8


# --- errors --------------------------------------------------------------------------------------


def test_impossible_settings_are_refused(folder, store):
    with pytest.raises(ValueError, match="sampling='keyframes' gives several. Use sampling='uni"):
        video(folder("videomae"), "last", sampling="keyframes").fit(X, Y)
    with pytest.raises(
        ValueError, match="'gru' is trained from scratch.* small steps by fine_tune='full'"
    ):
        video(folder("vit"), "full", temporal_pooling="gru").fit(X, Y)
    with pytest.raises(ValueError, match="fine_tune=9, but .* has 3 blocks"):
        video(folder("vit"), 9).fit(X, Y)
    for kind in ("vit", "videomae"):
        with pytest.raises(ValueError, match="VideoEncoder with fine_tune needs y"):
            video(folder(kind), "last").fit(X)
    with pytest.raises(ValueError, match="has no cell to train on"):
        video(folder("vit"), "last").fit(column(None), [0])
    with pytest.raises(ValueError, match="fine_tune"):
        video(folder("vit"), "first").fit(X, Y)


def test_networks_from_scratch_refuse_fine_tune(store):
    with pytest.raises(ValueError, match="fine_tune='last' has no effect with model='cnn'"):
        VideoEncoder("cnn", fine_tune="last").fit(X, Y)
