"""Zero-shot classification: nearest texts, averages of texts, and no use of labels."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.validation import check_is_fitted

from skmm import ZeroShotClassifier
from skmm.exceptions import ModalityMissingError

WORDS = {"cat": 0, "dog": 1, "car": 2, "animal": [0, 1], "the": 3}


class Words(BaseEstimator):
    """Alignment whose texts have the vectors of their words; other cells are such vectors."""

    def __init__(self, columns=("image",), text=None, scale=1.0):
        self.columns = columns
        self.text = text
        self.scale = scale

    def fit(self, X, y=None):
        assert y is None, "a zero-shot classifier must not pass labels"
        self.modalities_ = [(name, None, [name]) for name in self.columns]
        self.modalities_.append(("text", None, self.text or ["text"]))
        if self.text is not None:
            self.feature_names_in_ = np.array([*self.columns, *self.text], dtype=object)
        return self

    def transform_modality(self, X, modality):
        check_is_fitted(self)
        if modality != "text":
            cells = X[modality].to_list()
            absent = np.full(4, np.nan)
            return np.array([absent if cell is None else cell for cell in cells])
        column = self.text[0] if self.text else "text"
        vectors = np.zeros((len(X), 4))
        for vector, text in zip(vectors, X[column], strict=True):
            for word in text.split():
                vector[WORDS.get(word, [])] += self.scale
        return vectors


def make(n=60, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 3, size=n)
    y = np.array(["car", "cat", "dog"])[[[1, 2, 0][i] for i in indices]]
    return pd.DataFrame({"image": [*(np.eye(4)[indices] + noise * rng.random((n, 4)))]}), y


def zero_shot(**params):
    params = {"alignment": Words(), "prompt_column": "text", **params}
    return ZeroShotClassifier(**params)


def test_predicts_the_class_of_the_nearest_text():
    X, y = make()
    model = zero_shot(prompts="the {}").fit(X, y)
    assert model.classes_.tolist() == ["car", "cat", "dog"]
    assert model.score(X, y) > 0.95
    assert model.prompts_["cat"] == ["the cat"]
    rows = np.stack(X["image"])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ model.class_vectors_.T
    assert model.decision_function(X) == pytest.approx(cosines / 0.01, rel=1e-4)
    odds = np.exp(cosines / 0.01 - (cosines / 0.01).max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    assert model.predict_proba(X) == pytest.approx(expected, abs=1e-4)


def test_classes_from_y_from_a_parameter_and_from_prompts():
    X, y = make()
    by_y = zero_shot().fit(X, y)
    by_classes = zero_shot(classes=["dog", "car", "cat"]).fit(X)
    by_prompts = zero_shot(prompts={"dog": "dog", "cat": ["cat"], "car": ("car",)}).fit(X)
    for other in (by_classes, by_prompts):
        assert np.array_equal(other.classes_, by_y.classes_)
        assert np.array_equal(other.predict(X), by_y.predict(X))
    more = zero_shot(classes=["car", "cat", "dog", "the"]).fit(X, y)
    assert more.predict_proba(X).shape == (60, 4)
    numbers = zero_shot(prompts={0: "cat", 1: "dog", 2: "car"}).fit(X)
    assert numbers.predict(X).dtype.kind == "i"
    assert np.mean(np.array(["cat", "dog", "car"])[numbers.predict(X)] == y) > 0.95


def test_several_texts_are_averaged():
    X, _ = make()
    model = zero_shot(prompts={"pet": ["cat", "dog dog"], "car": "car"}).fit(X)
    # Each text has the same weight, for any length of its vector.
    assert model.class_vectors_[1] == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])
    templates = zero_shot(prompts=["{}", "the {}"], classes=["cat", "dog"]).fit(X)
    assert templates.prompts_["cat"] == ["cat", "the cat"]
    both = np.array([1, 0, 0, 0]) + np.array([1, 0, 0, 1]) / 2**0.5
    assert templates.class_vectors_[0] == pytest.approx(both / np.linalg.norm(both))


def test_two_classes():
    X, y = make()
    X, y = X[y != "car"], y[y != "car"]
    model = zero_shot(temperature=0.5).fit(X, y)
    scores = model.decision_function(X)
    assert scores.shape == y.shape
    assert np.array_equal(scores > 0, model.predict(X) == "dog")
    assert model.predict_proba(X)[:, 1] == pytest.approx(1 / (1 + np.exp(-scores)))


def test_temperature():
    X, y = make()
    soft = zero_shot(temperature=10.0).fit(X, y)
    assert soft.predict_proba(X).max() < 0.4
    assert np.array_equal(soft.predict(X), zero_shot().fit(X, y).predict(X))

    class Learned(Words):
        temperature_ = 0.07

    assert zero_shot(alignment=Learned()).fit(X, y).temperature_ == 0.07
    assert zero_shot(alignment=Learned(), temperature=0.2).fit(X, y).temperature_ == 0.2
    assert zero_shot().fit(X, y).temperature_ == 0.01


def test_rows_without_the_source():
    X, y = make(6)
    X["image"] = [None, *X["image"][1:]]
    model = zero_shot().fit(X, y)
    assert model.predict_proba(X)[0] == pytest.approx(np.full(len(model.classes_), 1 / 3))
    assert np.isfinite(model.predict_proba(X)).all()
    with pytest.raises(ModalityMissingError, match="'image' missing in row 0 .* and in 1 rows"):
        model.set_params(all_missing="raise").predict(X)


def test_several_sources():
    X, y = make(200, noise=1.5)
    X["audio"] = make(200, noise=1.5, seed=0)[0]["image"].to_list()
    rng = np.random.default_rng(5)
    for name in X:
        X[name] = [cell + 1.0 * rng.standard_normal(4) for cell in X[name]]
    space = Words(columns=("image", "audio"))
    both = zero_shot(alignment=space).fit(X, y)
    one = zero_shot(alignment=space, source="audio").fit(X, y)
    assert both.score(X, y) > one.score(X, y) + 0.03
    assert one.predict(X[["audio"]]).shape == (200,)  # its columns are enough
    X.loc[0, "image"] = None
    assert both.predict_proba(X)[:1] == pytest.approx(one.predict_proba(X)[:1])


def test_a_frozen_alignment_needs_no_rows_in_fit():
    X, y = make()
    space = Words().fit(X)
    model = zero_shot(alignment=FrozenEstimator(space), classes=["car", "cat", "dog"]).fit(None)
    assert model.alignment_.estimator is space
    assert model.score(X, y) > 0.95
    assert not hasattr(model, "n_features_in_")


def test_prompt_column_is_inferred_from_the_alignment():
    X, y = make()
    assert (
        zero_shot(alignment=Words(text=["title"]), prompt_column=None).fit(X, y).score(X, y) > 0.95
    )
    two = Words(text=["title", "body"])
    with pytest.raises(ValueError, match="'text' has the columns .*'title', 'body'.*prompt_column"):
        zero_shot(alignment=two, prompt_column=None).fit(X, y)
    assert zero_shot(alignment=two, prompt_column="title").fit(X, y).score(X, y) > 0.95


def test_cross_validation_and_grid_search():
    X, y = make(90)
    assert cross_val_score(zero_shot(), X, y, cv=3).min() > 0.9
    grid = {"prompts": ["{}", "the the the {}"], "alignment__scale": [1.0, 2.0]}
    search = GridSearchCV(zero_shot(), grid, cv=2, scoring="neg_log_loss").fit(X, y)
    assert search.best_score_ > -0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prompts": "a photo"}, r"template 'a photo' has no \{\}"),
        ({"prompts": {"cat": "cat"}}, "no text for class 'car'"),
        ({"prompts": {"cat": "cat", "dog": [], "car": "car"}}, "class 'dog' must be one or more"),
        ({"prompts": {"cat": "", "dog": "x", "car": "car"}}, "class 'cat' must be one or more"),
        ({"prompts": [3]}, "must be one or more texts"),
        ({"classes": ["cat", "dog"]}, "y has the label 'car', which is not in classes"),
        ({"source": "audio"}, "source='audio': no modality 'audio'.*are 'image', 'text'"),
        ({"target": "words"}, "target='words': no modality 'words'"),
        ({"temperature": 0.0}, "must be a float in the range"),
        ({"alignment": BaseEstimator()}, "implementing 'fit' and 'transform_modality'"),
    ],
)
def test_invalid_input(params, message):
    X, y = make()
    with pytest.raises(ValueError, match=f"ZeroShotClassifier.*{message}"):
        zero_shot(**params).fit(X, y)


def test_no_classes():
    X, _ = make()
    with pytest.raises(ValueError, match="got no classes. Give y, or set classes, or set prompts"):
        zero_shot().fit(X)
    with pytest.raises(ValueError, match="classes is empty"):
        zero_shot(classes=[]).fit(X)
    with pytest.raises(ValueError, match="Unknown label type"):
        zero_shot().fit(X, np.linspace(0, 1, 60))


def test_texts_without_a_vector():
    class Silent(Words):
        def transform_modality(self, X, modality):
            return np.full((len(X), 4), np.nan)

    X, y = make()
    with pytest.raises(ValueError, match="Silent returned no vector for the prompt 'car'"):
        zero_shot(alignment=Silent()).fit(X, y)
