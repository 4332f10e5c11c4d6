"""Grids, maps and attributions, which show raw cells."""

import io
import wave

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import CCAAlignment, CrossModalRetriever
from skmm.inspection import (
    AlignmentMapDisplay,
    RetrievalDisplay,
    TokenAttributionDisplay,
    token_attribution,
)

matplotlib.use("Agg")

GREEN = "#009E73"


def image(value, height=8, width=8):
    return np.full((height, width, 3), value, dtype=np.uint8)


class Ready(BaseEstimator):
    """Alignment whose vectors are columns of the frame."""

    def fit(self, X, y=None):
        self.modalities_ = [(name, None, None) for name in ("text", "photo")]
        return self

    def transform_modality(self, X, modality):
        absent = np.full(2, np.nan)
        vectors = [absent if v is None else np.asarray(v, float) for v in X[f"{modality}_vector"]]
        return np.stack(vectors)


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "text": ["a cat", "a dog", "a car"],
            "photo": [image(10), image(100), image(200)],
            "text_vector": [[1.0, 0.1], [0.8, 0.6], [0.0, 1.0]],
            "photo_vector": [[1.0, 0.0], [0.6, 0.8], [0.1, 1.0]],
        },
        index=["cat", "dog", "car"],
    )


# --- retrieval --------------------------------------------------------------------------------


def test_grid_shows_the_answers(frame):
    retriever = CrossModalRetriever(Ready()).fit(frame)
    queries = frame.iloc[[2, 0]]
    display = RetrievalDisplay.from_estimator(
        retriever, queries, 2, source="text", target="photo", correct="index"
    )
    assert [text.get_text() for text in display.queries_] == ["a car", "a cat"]
    expected = retriever.kneighbors(queries, 2, "text", "photo", return_distance=False)
    for row, numbers in zip(display.answers_, expected, strict=True):
        for image, number in zip(row, numbers, strict=True):
            np.testing.assert_array_equal(image.get_array(), frame["photo"].iloc[number])
    right = [[f.get_color() == GREEN for f in row] for row in display.frames_]
    assert right == [[True, False], [True, False]]
    assert display.scores[0][0] == pytest.approx(1 - 0.0049, abs=1e-3)
    shown = [text.get_text() for text in display.ax_.texts]
    assert f"{display.scores[1][1]:.2f}" in shown
    assert "photo, the nearest first" in shown


def test_correct_may_be_a_callable(frame):
    retriever = CrossModalRetriever(Ready()).fit(frame.assign(wild=[0, 0, 1]))
    queries = frame.assign(wild=[0, 0, 1]).iloc[[0]]
    display = RetrievalDisplay.from_estimator(
        retriever, queries, 3, source="photo", target="text",
        correct=lambda query, answer: query["wild"] == answer["wild"],
    )  # fmt: skip
    assert display.correct == [[True, True, False]]
    nothing = RetrievalDisplay.from_estimator(retriever, queries, 3)
    assert nothing.correct is None
    assert not any(frame.get_color() == GREEN for frame in nothing.frames_[0])


def test_row_without_the_query_has_no_answers(frame):
    retriever = CrossModalRetriever(Ready(), missing_query="nan").fit(frame)
    queries = frame.copy()
    queries.at["dog", "text_vector"] = queries.at["dog", "text"] = None
    display = RetrievalDisplay.from_estimator(
        retriever, queries, 2, source="text", target="photo", correct="index"
    )
    assert [len(row) for row in display.answers_] == [2, 0, 2]
    assert display.queries_[1].get_text() == "—"


def test_grid_uses_the_columns_of_a_fitted_alignment():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(30, 3))
    X = pd.DataFrame({"left_cells": list(hidden), "right_cells": list(hidden + 0.01)})
    alignment = CCAAlignment(
        [("a", "passthrough", ["left_cells"]), ("b", "passthrough", ["right_cells"])],
        n_components=2,
    ).fit(X)
    retriever = CrossModalRetriever(FrozenEstimator(alignment)).fit(X)
    display = RetrievalDisplay.from_estimator(
        retriever, X[["left_cells"]].iloc[:2], 3, source="a", target="b"
    )
    (line,) = display.queries_[0]
    assert len(line.get_xdata()) == 3  # a vector is drawn as a line
    by_itself = AlignmentMapDisplay.from_estimator(alignment, X)
    assert set(by_itself.points_) == {"a", "b"}


@pytest.mark.slow
def test_grid_of_the_result_of_search(frame):
    retriever = CrossModalRetriever(Ready()).fit(frame)
    found = retriever.search(frame, 2, source="text", target="photo")
    display = RetrievalDisplay.from_predictions(
        frame, found, source="text", target="photo", correct="index"
    )
    other = RetrievalDisplay.from_estimator(
        retriever, frame, 2, source="text", target="photo", correct="index"
    )
    assert display.correct == other.correct
    np.testing.assert_allclose(display.scores, other.scores)
    with pytest.raises(ValueError, match="there is no column 'texts'"):
        RetrievalDisplay.from_predictions(frame, found, source="texts", target="photo")
    with pytest.raises(ValueError, match="the index of queries holds a label twice"):
        RetrievalDisplay.from_predictions(
            frame.set_axis([1, 1, 2]), found, source="text", target="photo"
        )


def audio_file():
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(8000)
        samples = 10000 * np.sin(np.arange(4000) / 10)
        audio.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def png_file(path, size):
    Image.new("RGB", size, (255, 0, 0)).save(path)
    return path


@pytest.mark.slow
def test_each_kind_of_cell_is_drawn(tmp_path):
    pytest.importorskip("soundfile", reason="audio clips need the extra 'audio'")
    rng = np.random.default_rng(0)
    large = png_file(tmp_path / "large.png", (2000, 1000))
    cells = {
        "a path of an image": (large, AxesImage),
        "a PIL image": (Image.new("L", (4, 4)), AxesImage),
        "an audio clip": (audio_file(), list),
        "a series": (rng.normal(size=(5000, 2)), list),
        "a video": (rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8), AxesImage),
        "a number": (1.5, Text),
        "several columns": ({"price": 2, "photo": image(0)}, AxesImage),
        "none of several": ({"price": None, "photo": np.nan}, Text),
    }
    display = RetrievalDisplay(list(cells), [[cell] for cell, _ in cells.values()]).plot()
    drawn = [row[0] for row in display.answers_]
    for artist, (_, kind) in zip(drawn, cells.values(), strict=True):
        assert isinstance(artist, kind)
    assert max(drawn[0].get_array().shape) < 512  # the photo is reduced
    left, right, bottom, top = drawn[0].get_extent()
    assert (right - left) / abs(top - bottom) == pytest.approx(2, rel=0.01)
    assert all(len(line.get_xdata()) <= 1000 for line in drawn[3])
    display.figure_.canvas.draw()


def test_unreadable_cells_are_shown_as_words(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG nonsense")
    display = RetrievalDisplay(["?"], [[broken, "gone.jpg", object()]]).plot()
    words = [text.get_text() for text in display.answers_[0]]
    assert words == ["broken.png", "gone.jpg", "(object)"]


def test_words_stay_in_their_cell():
    words = "a very long review of a coat that nobody would ever want to read " * 10
    display = RetrievalDisplay([words], [[words, words]]).plot()
    display.figure_.canvas.draw()
    for text, frame in zip(display.answers_[0], display.frames_[0], strict=True):
        inner, outer = text.get_window_extent(), frame.get_window_extent()
        assert inner.x0 >= outer.x0
        assert inner.x1 <= outer.x1
        assert inner.y0 >= outer.y0
        assert inner.y1 <= outer.y1
        assert text.get_text().endswith("…")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"answers": [["a"]]}, r"answers must hold a list for each of the 2 queries"),
        ({"scores": [[1.0], [1.0, 2.0]]}, r"scores must hold .* got lists of lengths \[1, 2\]"),
        ({"correct": [[True]]}, r"correct must hold a list for each of the 2 queries"),
        ({"answers": [[], []]}, "no query has an answer"),
    ],
)
def test_invalid_grid(options, message):
    whole = {"queries": ["q", "r"], "answers": [["a"], ["b"]], **options}
    with pytest.raises(ValueError, match=message):
        RetrievalDisplay(**whole).plot()


def test_invalid_correct(frame):
    retriever = CrossModalRetriever(Ready()).fit(frame)
    with pytest.raises(
        ValueError, match="correct must be 'index', a callable or None, got 'label'"
    ):
        RetrievalDisplay.from_estimator(retriever, frame, 1, correct="label")
    retriever = CrossModalRetriever(Ready()).fit(frame.rename(columns={"photo": "image"}))
    with pytest.raises(ValueError, match=r"has no columns of 'photo'. Give them, as in columns="):
        RetrievalDisplay.from_estimator(retriever, frame, 1)
    shown = RetrievalDisplay.from_estimator(retriever, frame, 1, columns={"photo": ["image"]})
    assert isinstance(shown.answers_[0][0], AxesImage)


# --- map --------------------------------------------------------------------------------------


def test_map_projects_all_modalities_together(frame):
    frame.at["dog", "photo"] = frame.at["dog", "photo_vector"] = None
    alignment = Ready().fit(frame)
    display = AlignmentMapDisplay.from_estimator(alignment, frame)
    vectors = {name: alignment.transform_modality(frame, name) for name in ("text", "photo")}
    together = np.concatenate([vectors["text"], vectors["photo"][[0, 2]]])
    placed = PCA(2).fit_transform(together)
    np.testing.assert_allclose(display.points_["text"].get_xydata(), placed[:3])
    np.testing.assert_allclose(display.points_["photo"].get_xydata()[[0, 2]], placed[3:])
    assert np.isnan(display.points_["photo"].get_xydata()[1]).all()
    segments = display.partners_.get_segments()
    assert len(segments) == 2  # the dog has no partner
    np.testing.assert_allclose(segments[0], [placed[0], placed[3]])
    assert "of the variance" in display.ax_.get_xlabel()
    assert 1 <= len(display.views_) <= 5


@pytest.mark.slow
def test_views_do_not_overlap():
    rng = np.random.default_rng(0)
    places = {"photo": rng.normal(size=(200, 2)), "text": rng.normal(size=(200, 2))}
    cells = {"photo": [image(i) for i in range(200)], "text": ["some words here"] * 200}
    display = AlignmentMapDisplay(places, cells=cells).plot(n_views=60)
    display.figure_.canvas.draw()
    assert 10 < len(display.views_) <= 60
    boxes = [view.get_window_extent() for view in display.views_]
    area = display.ax_.get_window_extent()
    for i, one in enumerate(boxes):
        assert one.x0 > area.x0 - 2
        assert one.x1 < area.x1 + 2
        for other in boxes[:i]:
            inside = min(one.x1, other.x1) - max(one.x0, other.x0)
            high = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(inside, high) < 2, "two views cover each other"
    assert len(AlignmentMapDisplay(places, cells=cells).plot(n_views=3).views_) == 3
    assert AlignmentMapDisplay(places, cells=cells).plot(n_views=0).views_ == []
    assert AlignmentMapDisplay(places).plot().views_ == []


class Shift(BaseEstimator):
    def fit_transform(self, X):
        return X[:, :2] + 1


def test_any_projection(frame):
    alignment = Ready().fit(frame)
    display = AlignmentMapDisplay.from_estimator(alignment, frame, projection=Shift())
    expected = np.stack(frame["text_vector"]) + 1
    np.testing.assert_allclose(display.points_["text"].get_xydata(), expected)
    assert display.ax_.get_xlabel() == ""
    with pytest.raises(ValueError, match=r"two numbers for each vector, got the shape \(6, 1\)"):
        AlignmentMapDisplay.from_estimator(alignment, frame, projection=PCA(1))


def test_invalid_map():
    with pytest.raises(ValueError, match=r"an array of one shape for each modality"):
        AlignmentMapDisplay.from_predictions({"a": np.zeros((2, 2)), "b": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"a map needs two vectors, got 1"):
        AlignmentMapDisplay.from_predictions({"a": [[np.nan, 1.0], [1.0, 1.0]]})
    with pytest.raises(ValueError, match=r"one shape \(n_samples, 2\), got \(2, 3\)"):
        AlignmentMapDisplay({"a": np.zeros((2, 3))}).plot()
    with pytest.raises(ValueError, match=r"cells\['a'\] must hold a cell for each of the 2 rows"):
        AlignmentMapDisplay({"a": np.zeros((2, 2))}, cells={"a": ["x"]}).plot()


# --- tokens -----------------------------------------------------------------------------------


def found(scores, tokens=None, **options):
    return {"scores": scores, "tokens": tokens, "method": "occlusion", **options}


def test_heat_lies_over_the_image():
    scores = np.array([[0.0, 0.4], [-0.2, 0.1]])
    display = TokenAttributionDisplay(found(scores), image(120, 10, 20)).plot()
    np.testing.assert_array_equal(display.heat_.get_array(), scores)
    np.testing.assert_allclose(display.heat_.get_alpha(), 0.75 * np.abs(scores) / 0.4)
    assert display.heat_.get_clim() == (-0.4, 0.4)  # symmetric around zero
    np.testing.assert_allclose(display.image_.get_array(), 120)
    assert tuple(display.image_.get_extent()) == (0, 20, 10, 0)
    assert tuple(display.heat_.get_extent()) == (0, 20, 10, 0)
    assert display.plot(limit=2).heat_.get_clim() == (-2, 2)


def test_squares_may_extend_beyond_an_image():
    # Squares of 3 pixels over an image of 8 x 7.
    display = TokenAttributionDisplay(found(np.ones((3, 3))), image(0, 8, 7)).plot()
    assert tuple(display.heat_.get_extent()) == (0, 9, 9, 0)
    assert display.ax_.get_xlim() == (0, 7)
    assert display.ax_.get_ylim() == (8, 0)


def test_words_have_the_colors_of_their_scores():
    scores = [0.0, -0.5, 1.0]
    entry = found(scores, ["not", "so", "good"], target="fine", prediction=0.75)
    display = TokenAttributionDisplay.from_predictions(entry)
    assert [word.get_text() for word in display.words_] == ["not", "so", "good"]
    bar = display.colorbar_.mappable
    for word, score in zip(display.words_, scores, strict=True):
        assert word.get_bbox_patch().get_facecolor() == pytest.approx(bar.to_rgba(score))
    red, _, blue, _ = display.words_[2].get_bbox_patch().get_facecolor()
    assert red > blue  # for the prediction
    assert display.ax_.get_title(loc="left") == "prediction of fine: 0.75"


@pytest.mark.slow
def test_words_are_set_in_lines_without_overlap():
    words = "several words of quite different lengths , some very long indeed".split() * 12
    display = TokenAttributionDisplay(found(np.ones(len(words)), words)).plot()
    display.figure_.canvas.draw()
    boxes = [word.get_bbox_patch().get_window_extent() for word in display.words_]
    area = display.figure_.bbox
    for i, one in enumerate(boxes):
        assert one.x1 <= area.x1 + 1
        assert one.y0 >= 0
        for other in boxes[:i]:
            wide = min(one.x1, other.x1) - max(one.x0, other.x0)
            assert wide < 1 or min(one.y1, other.y1) - max(one.y0, other.y0) < 1


def test_segments_of_time():
    edges = np.array([0.0, 0.5, 1.5, 2.0])
    tokens, scores = list(zip(edges[:-1], edges[1:], strict=True)), [0.1, 0.4, 0.0]
    series = np.sin(np.arange(100.0))
    display = TokenAttributionDisplay(found(scores, tokens), series).plot()
    assert [span.get_x() for span in display.spans_] == [0.0, 0.5, 1.5]
    assert [span.get_width() for span in display.spans_] == [0.5, 1.0, 0.5]
    (line,) = display.lines_
    assert line.get_xdata()[[0, -1]].tolist() == [0.0, 2.0]
    np.testing.assert_allclose(line.get_ydata(), series, atol=1e-6)
    assert display.ax_.get_xlabel() == "time (s)"
    bars = TokenAttributionDisplay(found(scores, tokens, kind="video")).plot()
    assert [bar.get_height() for bar in bars.spans_] == scores
    assert bars.ax_.get_xlabel() == "frame"
    counted = [(0.0, 40.0), (40.0, 100.0)]
    display = TokenAttributionDisplay(found([1, 2], counted), series).plot()
    assert display.ax_.get_xlabel() == "sample"


@pytest.fixture(scope="module")
def reviews():
    X = pd.DataFrame({"review": ["a fine coat", "a bad coat", "fine wool", "bad wool"] * 5})
    model = make_pipeline(
        ColumnTransformer([("words", CountVectorizer(), "review")]), LogisticRegression()
    ).fit(X, ["good", "poor", "good", "poor"] * 5)
    return model, X


@pytest.mark.parametrize("modality", ["words", "review"])
def test_tokens_from_an_estimator(reviews, modality):
    model, X = reviews
    display = TokenAttributionDisplay.from_estimator(model, X, modality, row=1, target="poor")
    (expected,) = token_attribution(model, X[1:2], modality, target="poor")
    assert [word.get_text() for word in display.words_] == expected.tokens
    np.testing.assert_array_equal(display.attribution.scores, expected.scores)
    assert display.ax_.get_title(loc="left").startswith("prediction of poor: 0.")
    with pytest.raises(ValueError, match="row must be a position in 20 rows, got 20"):
        TokenAttributionDisplay.from_estimator(model, X, modality, row=20)


def test_modality_takes_precedence_over_a_column_of_its_name(reviews):
    _, X = reviews
    X = X.assign(words="other words", count=range(len(X)))
    triples = [("words", CountVectorizer(), "review"), ("count", "passthrough", ["count"])]
    model = make_pipeline(ColumnTransformer(triples), LogisticRegression())
    model.fit(X, ["good", "poor", "good", "poor"] * 5)
    display = TokenAttributionDisplay.from_estimator(model, X, "words")
    assert display.cell == "a fine coat"
    assert [word.get_text() for word in display.words_] == ["a", "fine", "coat"]


@pytest.mark.parametrize(
    "attribution, cell, message",
    [
        (found(np.ones((2, 2))), None, "need an image, and cell is a"),
        (found(np.ones((2, 2))), "a text", "need an image, and cell is a"),
        (found(np.ones(3), ["a"]), None, "there are 3 scores and 1 tokens"),
        (found(np.ones((1, 1, 1))), None, r"or \(n_rows, n_columns\), got \(1, 1, 1\)"),
        (found([], []), None, "there are no scores: the row does not have the modality"),
        ([1, 2], None, "got a list without scores"),
    ],
)
def test_invalid_tokens(attribution, cell, message):
    with pytest.raises(ValueError, match=message):
        TokenAttributionDisplay(attribution, cell).plot()


def test_limit_of_zero_is_refused():
    with pytest.raises(ValueError, match="limit must be above 0, got 0"):
        TokenAttributionDisplay(found([1.0], ["a"])).plot(limit=0)
