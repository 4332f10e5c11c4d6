import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from skmm.datasets import make_multimodal_classification, make_multimodal_regression

KINDS = ("text", "image", "tabular", "vector", "timeseries")
MAKERS = [make_multimodal_classification, make_multimodal_regression]
N_TRAIN = 2000


@pytest.fixture(params=MAKERS, ids=["classification", "regression"])
def make(request):
    return request.param


def features(dataset, *names):
    """Concatenate simple features of modalities: counts, pixels, numbers and dummies."""
    blocks = []
    for name in names:
        cells = dataset.data[dataset.columns[name]]
        kind = dataset.modalities[dataset.columns[name][0]]
        if kind == "text":
            block = CountVectorizer().fit_transform(cells[name]).toarray()
        elif kind == "tabular":
            block = StandardScaler().fit_transform(pd.get_dummies(cells).astype(float))
        else:
            block = np.stack(list(cells[name])).reshape(len(cells), -1).astype(float)
            # On the scale of the other blocks, so that one penalty is right for all.
            block = block - block.mean(axis=0)
            block *= 5 / np.sqrt((block**2).sum(axis=1).mean())
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def r2(X, y, *, alpha=(1.0, 10.0, 100.0)):
    """Return R2 of a ridge regression on the rows after the first `N_TRAIN`."""
    y = np.asarray(y, dtype=float).reshape(len(y), -1)
    predicted = RidgeCV(np.atleast_1d(alpha)).fit(X[:N_TRAIN], y[:N_TRAIN]).predict(X[N_TRAIN:])
    error = ((predicted.reshape(-1, y.shape[1]) - y[N_TRAIN:]) ** 2).mean(axis=0)
    return 1 - error / y[N_TRAIN:].var(axis=0)


def accuracy(X, y):
    """Return the accuracy of logistic regression on the rows after the first `N_TRAIN`."""
    model = LogisticRegression(C=0.1, max_iter=1000).fit(X[:N_TRAIN], y[:N_TRAIN])
    return model.score(X[N_TRAIN:], y[N_TRAIN:])


def best_accuracy(share, noise=0.0):
    """Return the bound in the notes of `make_multimodal_classification`."""
    return 1 - np.arccos(np.sqrt(share / (1 + noise**2))) / np.pi


def regression(**options):
    return make_multimodal_regression(
        N_TRAIN + 2000, return_latent=True, random_state=0, **({"noise": 0.0} | options)
    )


def classification(**options):
    return make_multimodal_classification(
        N_TRAIN + 2000, return_latent=True, random_state=0, **({"noise": 0.0} | options)
    )


# --- cells, targets and the Bunch -------------------------------------------------------


def test_types_and_shapes_of_cells(make):
    X, y = make(50, modalities=KINDS, random_state=0)
    assert len(X) == len(y) == 50
    assert all(isinstance(text, str) and len(text.split()) > 10 for text in X["text"])
    for cell in X["image"]:
        assert cell.dtype == np.uint8 and cell.shape == (16, 16, 3) and cell.flags.owndata
    for column, shape in (("vector", (16,)), ("timeseries", (64,))):
        assert all(c.dtype == np.float32 and c.shape == shape for c in X[column])
    numbers = [column for column in X if column.startswith("tabular_number_")]
    categories = [column for column in X if column.startswith("tabular_category_")]
    assert len(numbers) >= 2 and len(categories) >= 2
    assert all(X[column].dtype == np.float64 for column in numbers)
    assert all(isinstance(X[column].dtype, pd.CategoricalDtype) for column in categories)
    assert X.shape[1] == 4 + len(numbers) + len(categories)


def test_distribution_of_targets(make):
    if make is make_multimodal_classification:
        for n_classes in (2, 3, 5):
            _, y = make(2000, modalities=["vector"], n_classes=n_classes, random_state=0)
            assert y.shape == (2000,) and y.dtype.kind == "i"
            np.testing.assert_allclose(np.bincount(y) / 2000, 1 / n_classes, atol=0.04)
    else:
        assert make(20, modalities=["vector"])[1].shape == (20,)
        _, y = make(5000, modalities=["vector"], n_targets=3, random_state=0)
        assert y.shape == (5000, 3)
        np.testing.assert_allclose(np.cov(y.T), np.eye(3), atol=0.08)


def test_modalities_given_as_a_dict(make):
    truth = make(
        30,
        modalities={"review": "text", "title": "text", "photo": "image", "shop": "tabular"},
        image_size=8,
        return_latent=True,
        random_state=0,
    )
    assert truth.feature_names[:3] == ["review", "title", "photo"]
    assert truth.columns["shop"] == [c for c in truth.data if c.startswith("shop_")]
    assert truth.modalities["title"] == "text" and truth.modalities["shop_number_0"] == "tabular"
    assert truth.data["photo"].iloc[0].shape == (8, 8, 3)
    assert set(truth.data["review"].iloc[0].split()) != set(truth.data["title"].iloc[0].split())


@pytest.mark.slow
def test_bunch_equals_the_tuple(make):
    X, y = make(40, random_state=3)
    truth = make(40, random_state=3, return_latent=True)
    assert X.astype(str).equals(truth.data.astype(str))
    np.testing.assert_array_equal(y, truth.target)
    assert list(truth.frame) == [*X.columns, "target"]
    np.testing.assert_array_equal(truth.frame["target"], y)
    assert not truth.absent.to_numpy().any()


def test_single_row_and_modality_without_latents(make):
    for kind in KINDS:
        X, y = make(1, modalities=[kind], random_state=0)
        assert len(X) == len(y) == 1
        # A modality without latents has cells all the same.
        X, _ = make(
            5,
            modalities={"useless": kind, "other": "vector"},
            redundant=0,
            private={"other": 1},
            n_nuisance=0,
            random_state=0,
        )
        assert X.notna().to_numpy().all()


# --- information in the cells -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "least"),
    [("text", 0.95), ("image", 0.97), ("tabular", 0.93), ("vector", 0.99), ("timeseries", 0.97)],
)
def test_linear_models_recover_every_latent(kind, least):
    truth = regression(modalities={"a": kind, "b": "vector"}, redundant=0.4, synergy=0.2)
    assert len(truth.seen["a"]) == 4  # redundant, private, a sign, nuisance
    found = r2(features(truth, "a"), truth.latent[truth.seen["a"]])
    assert found.min() > least
    # The cells are independent of the other latents.
    unseen = [column for column in truth.latent if column not in truth.seen["a"]]
    assert r2(features(truth, "a"), truth.latent[unseen], alpha=100).max() < 0.02


@pytest.mark.slow
def test_information_of_a_modality_is_its_share():
    truth = regression(
        redundant=0.2, shared={("image", "tabular"): 0.1}, private={"text": 0.4, "image": 0.3}
    )
    assert truth.information == pytest.approx({"text": 0.6, "image": 0.6, "tabular": 0.3})
    for name, share in truth.information.items():
        # The score of a linear model of the true latents on these rows is near the share.
        best = r2(truth.latent[truth.seen[name]].to_numpy(), truth.target)
        assert best == pytest.approx(share, abs=0.05)
        assert best - 0.05 < r2(features(truth, name), truth.target) < best + 0.01
    assert r2(features(truth, "text", "image"), truth.target) > 0.93


@pytest.mark.slow
def test_accuracy_of_two_classes():
    truth = classification(redundant=0.3, private={"text": 0.6, "image": 0.1})
    for name, share in truth.information.items():
        found = accuracy(features(truth, name), truth.target)
        assert found == pytest.approx(best_accuracy(share), abs=0.035)
    assert accuracy(features(truth, "text", "image"), truth.target) > 0.93


@pytest.mark.slow
def test_accuracies_of_many_classes_are_in_the_order_of_the_shares():
    truth = classification(
        modalities=("text", "vector", "tabular"),
        n_classes=4,
        redundant=0.0,
        private={"text": 0.7, "vector": 0.3},
    )
    text, vector, tabular = (
        accuracy(features(truth, name), truth.target) for name in truth.columns
    )
    fused = accuracy(features(truth, "text", "vector"), truth.target)
    assert tabular < 0.3 < vector - 0.1 < text - 0.2 < fused - 0.25


@pytest.mark.slow
def test_uninformative_modality_is_at_chance_level():
    shares = {"redundant": 0.0, "private": {"text": 0.5, "tabular": 0.5}}
    assert (
        r2(features(regression(**shares), "image"), regression(**shares).target, alpha=1e3) < 0.01
    )
    truth = classification(**shares)
    assert truth.information["image"] == 0
    assert accuracy(features(truth, "image"), truth.target) == pytest.approx(0.5, abs=0.04)


@pytest.mark.slow
def test_fusion_gains_with_private_information():
    truth = classification(modalities=("text", "image"), redundant=0.0)
    alone = [accuracy(features(truth, name), truth.target) for name in ("text", "image")]
    fused = accuracy(features(truth, "text", "image"), truth.target)
    np.testing.assert_allclose(alone, 0.75, atol=0.04)
    assert fused > max(alone) + 0.15


@pytest.mark.slow
def test_fusion_gains_nothing_with_redundant_information():
    truth = classification(modalities=("text", "image", "vector"), redundant=1.0)
    alone = [accuracy(features(truth, name), truth.target) for name in truth.columns]
    fused = accuracy(features(truth, *truth.columns), truth.target)
    assert min(alone) > 0.92 and max(alone) - min(alone) < 0.05
    assert fused < max(alone) + 0.02


def test_synergy_is_encoded_jointly_only():
    truth = regression(modalities=("text", "vector"), redundant=0.0, synergy=1.0)
    assert truth.information == {"text": 0, "vector": 0}
    # A linear model predicts nothing from one modality or from both.
    for names in (("text",), ("vector",), ("text", "vector")):
        assert r2(features(truth, *names), truth.target, alpha=1e3) < 0.01
    # The product of the recovered signs predicts the target.
    signs = []
    for name in ("text", "vector"):
        sign = truth.latent[[c for c in truth.seen[name] if c.startswith("synergy")]]
        model = Ridge(1.0).fit(features(truth, name)[:N_TRAIN], sign[:N_TRAIN])
        signs.append(model.predict(features(truth, name)).reshape(-1, 1))
    assert r2(signs[0] * signs[1], truth.target) > 0.95


def test_synergy_of_three_requires_all_three():
    truth = regression(
        modalities={"a": "vector", "b": "vector", "c": "vector"},
        redundant=0.0,
        synergy={("a", "b", "c"): 1.0},
    )
    signs = truth.latent[[c for c in truth.latent if c.startswith("synergy")]].to_numpy()
    np.testing.assert_array_equal(signs.prod(axis=1), truth.target)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(signs[:, i] * signs[:, j], truth.target)[0, 1]) < 0.05


def test_noise_lowers_the_information_of_a_modality():
    truth = regression(
        modalities={"good": "vector", "bad": "vector"}, redundant=1.0, noise={"bad": 1}
    )
    good, bad = (r2(features(truth, name), truth.target)[0] for name in ("good", "bad"))
    assert good > 0.98
    assert bad == pytest.approx(1 / (1 + 1**2), abs=0.05)


def test_target_noise_lowers_the_best_score():
    truth = regression(modalities=("vector",), target_noise=1.0)
    assert r2(features(truth, "vector"), truth.target)[0] == pytest.approx(0.5, abs=0.05)
    assert r2(features(truth, "vector"), truth.scores)[0] > 0.98
    noisy = classification(modalities=("vector",), target_noise=1.0)
    found = accuracy(features(noisy, "vector"), noisy.target)
    assert found == pytest.approx(best_accuracy(1, 1), abs=0.04)


# --- reproducibility --------------------------------------------------------------------


def as_bytes(X):
    return [
        cell.tobytes() if isinstance(cell, np.ndarray) else repr(cell)
        for column in X
        for cell in X[column]
    ]


def test_random_state_determines_all(make):
    options = {"modalities": KINDS, "missing_rate": 0.2}
    (X, y), (again, y_again), (other, _) = (make(30, random_state=s, **options) for s in (1, 1, 2))
    assert as_bytes(X) == as_bytes(again) and y.tolist() == y_again.tolist()
    assert as_bytes(X) != as_bytes(other)
    state, _ = make(30, random_state=np.random.RandomState(1), **options)
    assert as_bytes(X) == as_bytes(state)


def test_global_random_state_is_unchanged(make):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    make(30, modalities=KINDS, missing_rate=0.3, random_state=0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_cells_do_not_depend_on_missing_cells_and_other_modalities(make):
    full, y = make(40, random_state=0)
    gaps, y_gaps = make(40, missing_rate=0.4, missing_pattern="never_all", random_state=0)
    np.testing.assert_array_equal(y, y_gaps)
    for column in full:
        for whole, cell in zip(full[column], gaps[column], strict=True):
            if isinstance(cell, np.ndarray) or not pd.isna(cell):
                np.testing.assert_array_equal(whole, cell)
    # Nor on another modality or its noise.
    fewer, _ = make(40, modalities=("text",), redundant=1.0, random_state=0)
    more, _ = make(40, modalities=("text", "vector"), redundant=1.0, random_state=0)
    noisier, _ = make(
        40,
        modalities=("text", "vector"),
        redundant=1.0,
        noise={"text": 0.1, "vector": 3},
        random_state=0,
    )
    assert more["text"].tolist() == noisier["text"].tolist()
    assert len(fewer) == len(more)


_DIGEST = """
import hashlib
from skmm.datasets import make_multimodal_classification
X, y = make_multimodal_classification(40, missing_rate=0.2, random_state=5)
pixels = [cell.sum() for cell in X["image"].dropna()]
text = X.drop(columns="image").to_csv() + str(y.tolist()) + str(pixels)
digest = hashlib.sha256(text.encode()).hexdigest()
"""


@pytest.mark.slow
def test_another_process_generates_the_same():
    here = {}
    exec(_DIGEST, here)
    done = subprocess.run(
        [sys.executable, "-c", _DIGEST + "print(digest)"],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == here["digest"]


# --- wrong arguments ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1, got 0"),
        ({"n_samples": 10.0}, TypeError, "n_samples must be an integer"),
        ({"modalities": "text"}, TypeError, "modalities must be a sequence of kinds"),
        ({"modalities": []}, ValueError, "modalities is empty"),
        ({"modalities": ["text", "text"]}, ValueError, "names a kind twice.*two names"),
        ({"modalities": ["smell"]}, ValueError, "kind of modality 'smell' must be one of 'text'"),
        ({"modalities": {1: "text"}}, TypeError, "names of modalities must be str, got 1"),
        (
            {"modalities": {"t": "tabular", "t_number_0": "text"}},
            ValueError,
            "two modalities have the column 't_number_0'",
        ),
        ({"redundant": 1.5}, ValueError, "redundant must be between 0 and 1, got 1.5"),
        ({"redundant": float("nan")}, ValueError, "redundant must be between 0 and 1"),
        ({"redundant": "all"}, TypeError, "redundant must be a number"),
        ({"redundant": 0.8, "shared": 0.4}, ValueError, "must sum to 1, got 1.2.*private=None"),
        ({"private": {"text": 0.1}}, ValueError, "must sum to 1, got 0.5"),
        ({"private": {"smell": 0.6}}, ValueError, "private names the modality 'smell'"),
        ({"private": {("text", "image"): 0.6}}, ValueError, "must name one modality"),
        ({"shared": {"text": 0.1}}, ValueError, "must name at least 2 modalities"),
        (
            {"shared": {("text", "image"): 0.1, ("image", "text"): 0.1}},
            ValueError,
            "each group once",
        ),
        ({"shared": [0.1]}, TypeError, "shared must be a number or a dict"),
        ({"modalities": ["text"], "synergy": 0.5}, ValueError, "needs at least 2 modalities"),
        ({"n_nuisance": -1}, ValueError, "n_nuisance must be at least 0"),
        ({"noise": -0.1}, ValueError, "noise must be at least 0"),
        ({"noise": float("inf")}, ValueError, "noise must be at least 0"),
        ({"noise": {"smell": 1}}, ValueError, "noise names the modality 'smell'"),
        ({"target_noise": None}, TypeError, "target_noise must be a number, got None"),
        ({"missing_rate": 1.2}, ValueError, "missing_rate must be between 0 and 1"),
        (
            {"missing_rate": {"text": -1}},
            ValueError,
            r"missing_rate\['text'\] must be between 0 and 1",
        ),
        ({"missing_rate": {"smell": 0.1}}, ValueError, "missing_rate names the modality 'smell'"),
        ({"missing_pattern": "often"}, ValueError, "missing_pattern must be one of 'random'"),
        (
            {"missing_rate": 0.9, "missing_pattern": "never_all"},
            ValueError,
            "sum to at most 2, got 2.7.*Lower missing_rate",
        ),
        ({"image_size": 2}, ValueError, "image_size must be at least 4"),
    ],
)
def test_wrong_arguments(make, options, error, message):
    with pytest.raises(error, match=message) as raised:
        make(**({"n_samples": 10} | options))
    assert str(raised.value).startswith(make.__name__ + ":")


def test_wrong_number_of_outputs():
    with pytest.raises(ValueError, match="n_classes must be at least 2, got 1"):
        make_multimodal_classification(n_classes=1)
    with pytest.raises(ValueError, match="n_targets must be at least 1, got 0"):
        make_multimodal_regression(n_targets=0)
