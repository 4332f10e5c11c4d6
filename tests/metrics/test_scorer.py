"""Scorers: the metric of the pairs of modalities, as GridSearchCV and cross_val_score call it."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, cross_validate

from skmm.metrics import make_retrieval_scorer, mean_average_precision, mean_rank, recall_at_k


class Turned(BaseEstimator):
    """Alignment in which the second modality has noise of a given size."""

    def __init__(self, noise=0.0):
        self.noise = noise

    def fit(self, X, y=None):
        self.modalities_ = [("image", "passthrough", ["image"]), ("text", None, ["text"])]
        return self

    def transform_modality(self, X, modality):
        cells = X[modality]
        width = max(len(cell) for cell in cells if cell is not None)
        values = np.stack([np.full(width, np.nan) if c is None else c for c in cells])
        if modality == "text":
            values = values + self.noise * np.random.default_rng(99).standard_normal(values.shape)
        return values.astype(np.float32)


def make_frame(n=60, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, 8))
    return pd.DataFrame({"image": list(vectors), "text": list(vectors.copy())})


def similarities(model, X, source, target):
    units = []
    for name in (source, target):
        values = model.transform_modality(X, name).astype(float)
        units.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    return units[0] @ units[1].T


def test_is_the_metric_of_the_similarities():
    X, model = make_frame(), Turned(1.0).fit(None)
    there, back = (similarities(model, X, *p) for p in (("image", "text"), ("text", "image")))
    scorer = make_retrieval_scorer("recall_at_k", k=3)
    assert scorer(model, X) == pytest.approx((recall_at_k(there, k=3) + recall_at_k(back, k=3)) / 2)
    assert 0.2 < scorer(model, X) < 1
    one_way = make_retrieval_scorer("mean_rank", source="text")
    assert one_way(model, X) == pytest.approx(-mean_rank(back))
    label = make_retrieval_scorer("mean_average_precision", target="text", relevance="label")
    y = np.arange(60) % 7
    expected = mean_average_precision(there, y[:, None] == y)
    assert label(model, X, y) == pytest.approx(expected)


def test_parts_change_nothing(monkeypatch):
    X, model = make_frame(), Turned(1.0).fit(None)
    scorer = make_retrieval_scorer("median_rank")
    whole = scorer(model, X)
    monkeypatch.setattr("skmm.metrics._scorers._PART", 100)
    assert scorer(model, X) == whole


@pytest.mark.slow
def test_a_search_finds_the_space_without_noise():
    X = make_frame()
    scoring = {"found": make_retrieval_scorer(k=1), "rank": make_retrieval_scorer("mean_rank")}
    search = GridSearchCV(Turned(), {"noise": [3.0, 0.0]}, scoring=scoring, refit="found", cv=3)
    assert search.fit(X).best_params_ == {"noise": 0.0}
    assert search.best_score_ == 1
    assert search.cv_results_["mean_test_rank"][1] == -1 > search.cv_results_["mean_test_rank"][0]
    scores = cross_validate(Turned(), X, scoring=make_retrieval_scorer(), cv=3, n_jobs=2)
    assert scores["test_score"].tolist() == [1, 1, 1]


def test_rows_without_a_modality():
    X = make_frame(6)
    X.loc[[1, 2], "text"] = None
    X.loc[3, "image"] = None
    # Rows 0, 4 and 5 retrieve each other; missing cells are no queries and no items.
    assert make_retrieval_scorer()(Turned().fit(None), X) == 1
    X["text"] = [None, None, None, *X["text"][3:]]
    X["image"] = [*X["image"][:3], None, None, None]
    with pytest.raises(ValueError, match="no row has two modalities"):
        make_retrieval_scorer()(Turned().fit(None), X)


def test_equal_rows_are_tied():
    X = pd.concat([make_frame(1)] * 4, ignore_index=True)
    assert make_retrieval_scorer(k=1)(Turned().fit(None), X) == pytest.approx(1 / 4)


def test_zero_vectors_retrieve_nothing():
    X = make_frame(4)
    X.at[0, "text"] = np.zeros(8)
    assert 0 <= make_retrieval_scorer()(Turned().fit(None), X) < 1


def test_pickle_and_repr():
    scorer = pickle.loads(pickle.dumps(make_retrieval_scorer(k=2, source="text")))
    assert repr(scorer) == "make_retrieval_scorer('recall_at_k', source='text', k=2)"
    assert scorer(Turned().fit(None), make_frame()) == 1


def test_bad_input_is_refused():
    X, model = make_frame(5), Turned().fit(None)
    with pytest.raises(ValueError, match="metric must be one of .*'ndcg'.*got 'accuracy'"):
        make_retrieval_scorer("accuracy")
    with pytest.raises(ValueError, match="relevance must be 'row' or 'label', got 'class'"):
        make_retrieval_scorer(relevance="class")
    with pytest.raises(TypeError, match="mean_rank has no parameter 'k': it takes no parameters"):
        make_retrieval_scorer("mean_rank", k=3)
    with pytest.raises(ValueError, match="k must be an int of at least 1, got 0"):
        make_retrieval_scorer(k=0)
    with pytest.raises(ValueError, match="no modality is named 'audio'"):
        make_retrieval_scorer(source="audio")(model, X)
    with pytest.raises(ValueError, match="needs y"):
        make_retrieval_scorer(relevance="label")(model, X)
    with pytest.raises(TypeError, match="BaseEstimator has no transform_modality"):
        make_retrieval_scorer()(BaseEstimator(), X)
