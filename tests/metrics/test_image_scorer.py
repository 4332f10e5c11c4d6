"""Scorers of generated images, also in a search."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV

from skmm.alignment import CCAAlignment
from skmm.encoders import ImageEncoder
from skmm.metrics import frechet_distance, make_image_scorer, paired_cosine

SIZE = 8


def draw(brightness, seed=0):
    """Make a gray image with a little noise for each row, (n, SIZE, SIZE)."""
    noise = np.random.default_rng(seed).integers(0, 20, (len(brightness), SIZE, SIZE))
    return (np.asarray(brightness)[:, None, None] + noise).astype(np.uint8)


class Gray(BaseEstimator):
    """Generator of images as bright as the row says, plus an error."""

    def __init__(self, error=0, shuffled=False):
        self.error = error
        self.shuffled = shuffled

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        wanted = np.asarray(X["wanted"], dtype=float)
        return draw((np.roll(wanted, 1) if self.shuffled else wanted) + self.error, seed=1)


class Flat:
    """Encoder of images by their first pixels, which needs no fit."""

    def transform(self, X):
        return np.stack([np.asarray(cell, dtype=float).ravel()[:5] for cell in X])


@pytest.fixture
def rows():
    X = pd.DataFrame({"wanted": np.random.default_rng(0).integers(0, 180, 60).astype(float)})
    return X, list(draw(X["wanted"]))


def test_distance_of_pixels(rows):
    X, y = rows
    scorer = make_image_scorer()
    values = [scorer(Gray(error), X, y) for error in (0, 5, 40)]
    assert 0 > values[0] > values[1] > values[2]
    made = Gray(5).predict(X).reshape(60, -1) / 255
    real = np.stack(y).reshape(60, -1) / 255
    assert values[1] == -frechet_distance(real, made)
    # A search picks the generator without an error.
    search = GridSearchCV(Gray(), {"error": [40, 0, 5]}, scoring=scorer, cv=3).fit(X, y)
    assert search.best_params_ == {"error": 0}


def test_distance_by_an_encoder(rows):
    X, y = rows
    made = Gray(5).predict(X)
    wanted = -frechet_distance(Flat().transform(y), Flat().transform(made))
    scorer = make_image_scorer("frechet", encoder=Flat())
    assert scorer(Gray(5), X, y) == wanted
    assert scorer(Gray(5), X, pd.Series(y, index=X.index[::-1])) == wanted  # by position
    assert pickle.loads(pickle.dumps(scorer))(Gray(5), X, y) == wanted


def test_distance_by_a_fitted_encoder_of_images(rows):
    X, y = rows
    frame = pd.DataFrame({"image": y})
    encoder = ImageEncoder("cnn", n_components=8, image_size=16, max_epochs=1, random_state=0)
    scorer = make_image_scorer(encoder=encoder.fit(frame, X["wanted"] > 90))
    assert 0 > scorer(Gray(), X, y) > scorer(Gray(60), X, y)


def test_a_missing_image_does_not_count(rows):
    X, y = rows
    scorer = make_image_scorer()
    some = [None, np.nan, *y[2:]]
    known = scorer(Gray(3), X, some)
    made = Gray(3).predict(X)[2:].reshape(58, -1) / 255
    assert known == -frechet_distance(np.stack(y[2:]).reshape(58, -1) / 255, made)


@pytest.fixture
def alignment(rows):
    X, y = rows
    flat = [cell.ravel()[:12].astype(float) for cell in y]
    frame = X.assign(image=flat, more=-X["wanted"] + np.arange(60) % 7)
    triples = [("text", "passthrough", ["wanted", "more"]), ("image", "passthrough", ["image"])]
    return CCAAlignment(triples, n_components=2).fit(frame)


class Vectors(Gray):
    """Generator of images as vectors of their first pixels."""

    def predict(self, X):
        return super().predict(X).reshape(len(X), -1)[:, :12].astype(float)


def test_agreement(rows, alignment):
    X, y = rows
    X = X.assign(more=-X["wanted"])
    scorer = make_image_scorer("alignment", alignment=alignment)
    right, wrong = scorer(Vectors(), X, None), scorer(Vectors(shuffled=True), X, y)
    assert right > 0.8 > wrong + 0.2
    wanted = paired_cosine(
        alignment.transform_modality(X, "text"),
        alignment.transform_modality(list(Vectors().predict(X)), "image"),
    )
    assert right == wanted


def test_frechet_distance_ignores_shuffled_images(rows, alignment):
    X, y = rows
    flat = [cell.ravel()[:12].astype(float) for cell in y]
    distance = make_image_scorer(encoder=PCA(3).fit(np.stack(flat)))
    right, wrong, dark = (
        distance(model, X, flat) for model in (Vectors(), Vectors(shuffled=True), Vectors(40))
    )
    assert abs(right - wrong) < 0.1 * abs(right - dark)


def test_bad_input_is_refused(rows, alignment):
    X, y = rows
    with pytest.raises(ValueError, match=r"metric must be one of \['alignment', 'frechet'\], got"):
        make_image_scorer("fid")
    with pytest.raises(TypeError, match="encoder must have transform, and str has none"):
        make_image_scorer(encoder="efficientnet")
    with pytest.raises(ValueError, match="metric='alignment' needs alignment="):
        make_image_scorer("alignment")
    with pytest.raises(TypeError, match="Gray has no transform_modality"):
        make_image_scorer("alignment", alignment=Gray())
    with pytest.raises(ValueError, match="the alignment has no modality 'photo'"):
        make_image_scorer("alignment", alignment=alignment, image="photo")
    triples = [(name, None, [name]) for name in ("image", "text", "audio")]
    several = type("Space", (), {"modalities_": triples})
    several.transform_modality = lambda self, X, name: X
    with pytest.raises(ValueError, match="Name the one that .* by source="):
        make_image_scorer("alignment", alignment=several())
    assert make_image_scorer("alignment", alignment=several(), source="text").source == "text"
    scorer = make_image_scorer()
    with pytest.raises(ValueError, match="compares with real images and got no y"):
        scorer(Gray(), X)
    with pytest.raises(ValueError, match="y has 3 rows and X has 60"):
        scorer(Gray(), X, y[:3])
    with pytest.raises(ValueError, match="are no arrays of one size.*Give an encoder"):
        scorer(Gray(), X, [y[0][:4], *y[1:]])
