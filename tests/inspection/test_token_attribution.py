"""Occlusion finds the words, patches and segments that carry the label."""

import io
import wave

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from skmm import ImageEncoder, JointFusionMultiTask, LateFusionClassifier, LateFusionRegressor
from skmm.inspection import token_attribution

WORDS = ["red", "warm", "coat", "with", "a", "long", "belt", "and", "two", "pockets"]


def texts(n=200, seed=0, words=WORDS):
    """Return texts with an informative word at a random position."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    rows, places = [], rng.integers(0, 6, n)
    for label, place in zip(y, places, strict=True):
        row = list(rng.choice(words, 5))
        row.insert(place, ["awful", "lovely"][label])
        rows.append(" ".join(row))
    return pd.DataFrame({"review": rows, "size": rng.normal(size=n)}), y, places


TRIPLES = [
    ("review", make_pipeline(FunctionTransformer(np.ravel), CountVectorizer()), ["review"]),
    ("size", "passthrough", ["size"]),
]
TEXT_MODELS = {
    "plain": make_pipeline(
        ColumnTransformer(
            [("review", CountVectorizer(), "review"), ("size", StandardScaler(), ["size"])]
        ),
        LogisticRegression(),
    ),
    "late": LateFusionClassifier(TRIPLES),
    "search": GridSearchCV(LateFusionClassifier(TRIPLES), {"rule": ["mean"]}, cv=2),
    "margins": make_pipeline(
        ColumnTransformer([("review", CountVectorizer(), "review")]), LinearSVC()
    ),
}


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_informative_word_is_found(name):
    X, y, places = texts()
    model = TEXT_MODELS[name].fit(X[:150], y[:150])
    new = X[150:170]
    found = token_attribution(model, new, "review")
    for row, one in enumerate(found):
        assert one.tokens == new["review"].iloc[row].split()
        assert one.scores.shape == (6,) and one.scores.argmax() == places[150 + row]
        assert one.target == y[150 + row] and one.kind == "text"
        assert (one.method, one.modality) == ("occlusion", "review")
    # The scores for the other class have the opposite sign.
    other = token_attribution(model, new, "review", target=0)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_allclose(two.scores, one.scores if one.target == 0 else -one.scores)
        assert two.target == 0


def test_scores_are_decreases_of_the_prediction():
    X, y, _ = texts()
    model = TEXT_MODELS["plain"].fit(X, y)
    row = pd.DataFrame({"review": [" lovely  warm\ncoat "], "size": [1.0]}, index=["r"])
    (found,) = token_attribution(model, row, "review")
    without = ["warm\ncoat", "lovely  coat", "lovely  warm"]
    changed = pd.concat([row] * 3).assign(review=without)
    full = model.predict_proba(row)[0, 1]
    assert found.prediction == pytest.approx(full)
    np.testing.assert_allclose(found.scores, full - model.predict_proba(changed)[:, 1], atol=1e-9)
    assert found.tokens == ["lovely", "warm", "coat"]


def squares(n=160, seed=0):
    """Return noise with a bright square in the upper or the lower half."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    places = np.column_stack([rng.integers(0, 2, n) + 2 * y, rng.integers(0, 4, n)])
    images = rng.integers(80, 120, (n, 32, 32, 3)).astype(np.uint8)
    for image, (row, column) in zip(images, places, strict=True):
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 100
    return pd.DataFrame({"photo": list(images)}), y, places


def cells_of_a_grid(X):
    photos = (np.asarray(cell, dtype=float) for cell in np.ravel(X))
    return [np.array(p).reshape(4, 8, 4, 8, 3).mean(axis=(1, 3, 4)).ravel() / 50 for p in photos]


@pytest.mark.parametrize("form", ["array", "pil", "file"])
def test_informative_patch_is_found(tmp_path, form):
    X, y, places = squares()
    encoder = FunctionTransformer(cells_of_a_grid)
    model = LateFusionClassifier([("photo", encoder, ["photo"])]).fit(X[:120], y[:120])
    new = X[120:140].copy()
    if form == "pil":
        new["photo"] = [Image.fromarray(cell) for cell in new["photo"]]
    elif form == "file":
        paths = [str(tmp_path / f"{i}.png") for i in range(len(new))]
        for path, cell in zip(paths, new["photo"], strict=True):
            Image.fromarray(cell).save(path)
        new["photo"] = paths
    for row, one in enumerate(token_attribution(model, new, "photo", n_parts=4)):
        assert one.scores.shape == (4, 4) and one.tokens is None and one.kind == "image"
        assert np.unravel_index(one.scores.argmax(), (4, 4)) == tuple(places[120 + row])


class Known(RegressorMixin, BaseEstimator):
    """Model that is a known function of the cells of the first column."""

    def __init__(self, function):
        self.function = function

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.array([self.function(cell) for cell in X.iloc[:, 0]])


def explain(cell, function, **options):
    X = pd.DataFrame({"cell": pd.Series([cell], dtype=object)})
    (found,) = token_attribution(Known(function).fit(X), X, "cell", **options)
    return found


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (3, 20, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_any_shape_and_dtype(shape, dtype):
    """Squares begin at the top left, the last ones are smaller; the form of the cell is kept."""
    cell = np.zeros(shape, dtype)
    last = (..., slice(16, 20), slice(24, 30))
    last = last if len(shape) == 2 or shape[0] == 3 else (*last[1:], slice(None))
    cell[last] = 1
    before = cell.copy()

    def light(image):
        assert image.shape == shape and image.dtype == dtype
        return float(image[last].sum())

    found = explain(cell, light, n_parts=4, kind="image")
    assert found.scores.shape == (3, 4)  # squares of 8
    assert np.unravel_index(found.scores.argmax(), (3, 4)) == (2, 3)
    assert np.count_nonzero(found.scores) == 1
    np.testing.assert_array_equal(cell, before)


def test_segments_of_a_series():
    series = np.sin(np.arange(100.0)) + 5
    series[41:44] = 20
    for cell in (series, list(series), series[:, None] * [1.0, 2.0]):
        found = explain(cell, lambda c: float(np.max(c)), kind="timeseries", n_parts=10)
        assert found.scores.argmax() == 4 and found.scores[4] > 10
        assert np.count_nonzero(found.scores) == 1
        assert found.tokens[4] == (40.0, 50.0) and len(found.tokens) == 10
    (*_, last) = explain(series, np.max, kind="timeseries", n_parts=7, sampling_rate=50).tokens
    assert last == (pytest.approx(86 / 50), 2.0)
    assert explain(series[:3], np.max, kind="timeseries").scores.shape == (3,)
    with_gap = np.where(np.arange(100) < 10, np.nan, series)
    assert explain(with_gap, np.nanmax, kind="timeseries", n_parts=10).scores.argmax() == 4


def test_segments_of_audio():
    rate = 16_000
    samples = 0.01 * np.ones(2 * rate)
    samples[20_000:24_000] = 0.8

    def loud(cell):
        if isinstance(cell, bytes):
            with wave.open(io.BytesIO(cell)) as file:
                assert file.getframerate() == rate
                cell = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        return float(np.abs(cell).mean())

    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((32767 * samples).astype("<i2").tobytes())
    of_file = explain(stream.getvalue(), loud, n_parts=8)
    assert of_file.kind == "audio" and of_file.scores.argmax() == 5
    assert of_file.tokens[5] == (1.25, 1.5)
    of_array = explain(samples, loud, kind="audio", n_parts=8, sampling_rate=rate)
    assert of_array.tokens == of_file.tokens
    np.testing.assert_allclose(of_array.scores, of_file.scores, atol=1e-4)


def test_frames_of_a_video():
    clip = np.full((12, 8, 8, 3), 100, np.uint8)
    clip[7] = 250
    found = explain(clip, lambda c: float(c.max()), n_parts=6)
    assert found.kind == "video" and found.scores.argmax() == 3
    assert found.tokens[3] == (6.0, 8.0) and found.scores[3] > 100


def test_kind_is_that_of_the_encoder():
    """A path is an image and not a text, and an array has the modality of its encoder."""
    X, y, places = squares(60)
    encoder = ImageEncoder(model="cnn", image_size=16, max_epochs=1, random_state=0)
    model = LateFusionClassifier([("photo", encoder, ["photo"])], rule="mean").fit(X, y)
    (found,) = token_attribution(model, X[:1], "photo", n_parts=2)
    assert found.kind == "image" and found.scores.shape == (2, 2)


def test_rows_without_the_modality_have_no_parts():
    X, y, _ = texts()
    model = LateFusionRegressor(TRIPLES).fit(X, y.astype(float))
    X = X[:3].assign(review=X["review"].where(X.index != 1))
    first, second, third = token_attribution(model, X, "review")
    assert len(first.scores) == len(third.scores) == 6
    assert second.scores.shape == (0,) and second.tokens == [] and np.isnan(second.prediction)
    assert first.target == 0 and first.prediction == pytest.approx(model.predict(X)[0])
    nothing = token_attribution(model, X[1:2], "review")
    assert len(nothing) == 1 and not nothing[0].scores.size
    assert token_attribution(model, X[:1].assign(review=" "), "review")[0].tokens == []


def test_many_words_are_predicted_in_batches():
    calls = []

    class Watched(Known):
        def predict(self, X):
            calls.append(len(X))
            return super().predict(X)

    X = pd.DataFrame({"cell": ["a b " * 200, "c " * 100]})
    model = Watched(lambda text: float(text.count("b"))).fit(X)
    first, second = token_attribution(model, X, "cell")
    assert first.scores.tolist() == [0.0, 1.0] * 200 and not second.scores.any()
    assert len(second.scores) == 100 and max(calls) <= 256 and sum(calls) == 502


@pytest.mark.slow
def test_arrays_and_polars():
    pl = pytest.importorskip("polars", reason="needs the extra 'polars'")
    X, y, _ = texts()
    expected = [o.scores for o in token_attribution(TEXT_MODELS["late"].fit(X, y), X[:4], "review")]
    model = LateFusionClassifier([("review", TRIPLES[0][1], [0]), ("size", "passthrough", [1])])
    for frame in (X.to_numpy(dtype=object), pl.DataFrame(X.to_dict("list"))):
        found = token_attribution(model.fit(frame, y), frame[:4], "review")
        np.testing.assert_allclose([one.scores for one in found], expected, atol=1e-6)


class Two(RegressorMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.array([[len(cell), -len(cell)] for cell in X.iloc[:, 0]], dtype=float)


def test_targets():
    X = pd.DataFrame({"cell": ["one three"]})
    model = Two().fit(X)
    (found,) = token_attribution(model, X, "cell", target=1)
    assert found.scores.tolist() == [-4.0, -6.0] and found.target == 1 and found.prediction == -9
    with pytest.raises(ValueError, match="there are 2 outputs. Set target"):
        token_attribution(model, X, "cell")
    with pytest.raises(ValueError, match="from 0 to 1, got 'x'"):
        token_attribution(model, X, "cell", target="x")
    X, y, _ = texts(40)
    model = TEXT_MODELS["plain"].fit(X, y)
    with pytest.raises(ValueError, match="target 5 is not a class"):
        token_attribution(model, X[:1], "review", target=5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "lime"}, "'occlusion', 'gradient' or 'rollout', got 'lime'"),
        ({"kind": "photo"}, "kind must be one of .* got 'photo'"),
        ({"n_parts": 0}, "n_parts must be an int of at least 1, got 0"),
        ({"n_steps": 1.5}, "n_steps must be an int of at least 1, got 1.5"),
        ({"sampling_rate": -1}, "sampling_rate must be above 0 or None, got -1"),
        ({"modality": "image"}, "has no modality 'image'"),
        ({"modality": "both"}, r"modality 'both' has 2 columns. Name the column .*'u', 'v'"),
        ({"modality": "u"}, r"in row 0 \(by position\) is a float without words"),
        ({"modality": "vector"}, "is a ndarray without words, patches or segments"),
    ],
)
def test_bad_options(options, message):
    X = pd.DataFrame({"u": [1.0, 2.0], "v": 1.0, "w": [np.ones(3), np.zeros(3)]})
    triples = [("both", "passthrough", ["u", "v"]), ("vector", "passthrough", ["w"])]
    model = LateFusionClassifier(triples, rule="mean").fit(X, [0, 1])
    with pytest.raises(ValueError, match=message):
        token_attribution(model, X, **{"modality": "vector"} | options)


def test_bad_data():
    X, y, _ = texts(40)
    with pytest.raises(NotFittedError):
        token_attribution(TEXT_MODELS["plain"].__class__(TEXT_MODELS["plain"].steps[:0] or [
            ("late", LateFusionClassifier(TRIPLES))]), X, "review")  # fmt: skip
    broken = pd.DataFrame({"review": ["no-such-file.png"], "size": [1.0]})
    model = LateFusionClassifier(TRIPLES).fit(X, y)
    with pytest.raises(ValueError, match="no-such-file") as caught:
        token_attribution(model, broken, "review")
    assert "modality 'review', row 0 (by position), as image" in caught.value.__notes__[-1]
    tasks = JointFusionMultiTask(TRIPLES, max_epochs=1, random_state=0)
    tasks.fit(X, pd.DataFrame({"t": y, "s": np.where(y, "x", "z")}))
    with pytest.raises(TypeError, match="not one table of numbers. Explain an estimator of one"):
        token_attribution(tasks, X[:1], "review")


class Choices(ClassifierMixin, Known):
    def fit(self, X, y=None):
        self.classes_ = np.array(["no", "yes"])
        return self

    def predict(self, X):
        return self.classes_[[int(self.function(cell)) for cell in X.iloc[:, 0]]]


def test_classifier_without_probabilities_and_scores():
    X = pd.DataFrame({"cell": ["do it now"]})
    (found,) = token_attribution(Choices(lambda text: "it" in text.split()).fit(X), X, "cell")
    assert found.target == "yes" and found.scores.tolist() == [0, 1, 0]
