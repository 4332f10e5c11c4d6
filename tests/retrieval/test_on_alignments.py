"""Retrieval, zero-shot and few-shot classification with fitted alignments."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skmm import (
    CCAAlignment,
    CrossModalRetriever,
    PrototypeClassifier,
    TextEncoder,
    ZeroShotClassifier,
)
from skmm.metrics import make_retrieval_scorer
from skmm.model_selection import FewShotSplit

COLORS = np.array(["red", "green", "blue"])
SIZES, PLACES = np.array(["small", "large"]), np.array(["bed", "car", "sea", "sky"])


def make(n=200, seed=0):
    """Return captions and image features, which have a color, a size and a place."""
    rng = np.random.default_rng(seed)
    color, size, place = (rng.integers(0, k, n) for k in (3, 2, 4))
    words = zip(SIZES[size], COLORS[color], PLACES[place], strict=True)
    features = np.column_stack([np.eye(3)[color], size, np.eye(4)[place]])
    X = pd.DataFrame({
        "caption": [f"one {s} {c} thing in the {p}" for s, c, p in words],
        "camera": list(features + 0.1 * rng.standard_normal(features.shape)),
    })  # fmt: skip
    return X, color, color * 8 + size * 4 + place


def aligned(**params):
    text = TextEncoder("tfidf", n_components=10, random_state=0)
    return CCAAlignment(
        [("text", text, ["caption"]), ("image", "passthrough", ["camera"])], **params
    )


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_a_caption_finds_images_of_equal_attributes(index):
    if index == "hnsw":
        pytest.importorskip("faiss", reason="approximate search needs the extra 'index'")
    X, _, kind = make()
    X.loc[[0, 1], "camera"] = None
    new, _, new_kind = make(50, seed=1)
    retriever = CrossModalRetriever(aligned(), index=index).fit(X)
    numbers = retriever.kneighbors(new[["caption"]], 3, source="text", target="image")[1]
    assert (kind[numbers] == new_kind[:, None]).mean() > 0.9
    back = retriever.kneighbors(new[["camera"]], 3, source="image", target="text")[1]
    assert (kind[back] == new_kind[:, None]).mean() > 0.9
    assert not np.isin(numbers, [0, 1]).any()
    alone = retriever.kneighbors(new["caption"].to_list(), 3, source="text", target="image")[1]
    assert np.array_equal(alone, numbers)  # cells alone are enough for one column


@pytest.mark.slow
def test_a_search_over_the_alignment():
    X, _, kind = make()
    grid = {"alignment__n_components": [1, 6]}
    search = GridSearchCV(CrossModalRetriever(aligned(), k=10), grid, cv=2).fit(X)
    assert search.best_params_ == {"alignment__n_components": 6}
    scoring = make_retrieval_scorer("mean_average_precision", relevance="label")
    scores = cross_val_score(aligned(), X, kind, scoring=scoring, cv=3)
    assert scores.min() > 0.85


def test_a_frozen_alignment():
    X, _, _ = make()
    alignment = aligned().fit(X)
    retriever = CrossModalRetriever(FrozenEstimator(alignment)).fit(X[:50])
    assert retriever.alignment_.estimator is alignment
    assert clone(retriever).fit(X[:50]).kneighbors(X, 2)[1].max() < 50


def test_classes_from_texts():
    X, color, _ = make()
    new, new_color, _ = make(100, seed=1)
    # Texts as in training; what they say besides the color averages out.
    templates = [f"one {s} {{}} thing in the {p}" for s in SIZES for p in PLACES]
    model = ZeroShotClassifier(aligned(), prompts=templates, classes=COLORS).fit(X)
    assert model.score(new, COLORS[new_color]) > 0.9
    assert model.score(new[["camera"]], COLORS[new_color]) > 0.9
    frozen = FrozenEstimator(aligned().fit(X))
    again = ZeroShotClassifier(frozen, prompts=model.prompts_).fit(None)
    assert np.array_equal(again.predict(new), model.predict(new))


@pytest.mark.slow
def test_classes_from_a_few_rows():
    X, color, _ = make()
    model = make_pipeline(aligned(), PrototypeClassifier())
    shots = {k: FewShotSplit(k, n_splits=8, random_state=0) for k in (2, 20)}
    accuracy = {k: cross_val_score(model, X, color, cv=cv).mean() for k, cv in shots.items()}
    assert accuracy[20] > 0.75 and accuracy[20] > accuracy[2] + 0.05
