"""The promise: one search, every distinct cell encoded once, whatever the workers."""

import time

import joblib
import numpy as np
import pandas as pd
import pytest
from counting import CountingModule, lines
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    LateFusionClassifier,
    ModuleEncoder,
    TextEncoder,
    config_context,
)
from skmm.encoders import EmbeddingStore


def frame(n=60, n_distinct=40, seed=0):
    """Vectors with duplicates and missing cells beside a number; y depends on both."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n_distinct, 4)).astype(np.float32)
    which = np.r_[np.arange(n_distinct), rng.integers(0, n_distinct, n - n_distinct)]
    number = rng.normal(size=n)
    y = (vectors[which, 0] + number > 0).astype(int)
    cells = [vectors[i] for i in which]
    gone = rng.random(n) < 0.15
    X = pd.DataFrame({"cell": pd.Series(cells, dtype=object), "number": number})
    X.loc[gone, "cell"] = None
    return X, y, len({which[i] for i in np.flatnonzero(~gone)})


def triples(encoder):
    return [("cell", encoder, ["cell"]), ("number", "passthrough", ["number"])]


def search(encoder, n_jobs):
    early = make_pipeline(EarlyFusion(triples(encoder)), LogisticRegression())
    late = LateFusionClassifier(triples(encoder), cv=3)
    joint = JointFusionClassifier(triples(encoder), n_components=8, max_epochs=3, random_state=0)
    return GridSearchCV(
        Pipeline([("fusion", early)]),
        [
            {"fusion": [early], "fusion__logisticregression__C": [0.1, 1.0]},
            {"fusion": [late], "fusion__rule": ["mean", "stacking"]},
            {"fusion": [joint], "fusion__strategy": ["mean", "gated"]},
        ],
        cv=3,
        n_jobs=n_jobs,
        error_score="raise",
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sequential", "loky", "threading"])
def test_one_search_encodes_every_distinct_cell_once(tmp_path, backend):
    X, y, n_distinct = frame()
    log = tmp_path / "log"
    encoder = ModuleEncoder(CountingModule(log, pause=0.01), batch_size=4, store=tmp_path / "store")
    n_jobs = 1 if backend == "sequential" else 2
    with joblib.parallel_backend(backend if n_jobs > 1 else "loky", n_jobs=n_jobs):
        found = search(encoder, n_jobs).fit(X, y)
    assert len(lines(log)) == n_distinct
    assert EmbeddingStore(tmp_path / "store").stats()["encoded"] == n_distinct
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    found.predict(X)
    assert len(lines(log)) == n_distinct


@pytest.mark.slow
def test_workers_share_the_private_store_of_the_process(tmp_path):
    """Without any setting; the pool of workers is older than the session."""

    def warm_up():
        import skmm.fusion  # noqa: F401 - a worker that imports for seconds comes too late

        time.sleep(0.5)

    joblib.Parallel(n_jobs=2)(joblib.delayed(warm_up)() for _ in range(2))
    X, y, n_distinct = frame(seed=1)
    log = tmp_path / "log"
    encoder = ModuleEncoder(CountingModule(log, pause=0.05), batch_size=2)
    search(encoder, n_jobs=2).fit(X, y)
    assert len(lines(log)) == n_distinct
    assert len({line.split()[0] for line in lines(log)}) > 1, "only one worker worked"


@pytest.mark.slow
def test_workers_follow_the_configured_store(tmp_path):
    X, y, n_distinct = frame(seed=2)
    log = tmp_path / "log"
    with config_context(store=tmp_path / "chosen"):
        search(ModuleEncoder(CountingModule(log)), n_jobs=2).fit(X, y)
    assert len(lines(log)) == n_distinct
    assert EmbeddingStore(tmp_path / "chosen").stats()["n_embeddings"] == n_distinct


@pytest.mark.slow
def test_each_setting_of_the_encoder_is_encoded_once(tmp_path):
    X, y, n_distinct = frame(seed=3)
    log = tmp_path / "log"
    modules = [CountingModule(log), CountingModule(log, width=5)]
    encoder = ModuleEncoder(modules[0], store=tmp_path / "store")
    pipeline = Pipeline([("fusion", EarlyFusion(triples(encoder))), ("head", LogisticRegression())])
    grid = {"fusion__cell__module": modules, "head__C": [0.1, 1.0, 10.0]}
    GridSearchCV(pipeline, grid, cv=4, n_jobs=2).fit(X, y)
    assert len(lines(log)) == 2 * n_distinct


def test_same_content_is_a_hit_whatever_holds_it(tmp_path):
    X, _, n_distinct = frame(seed=4)
    log = tmp_path / "log"
    encoder = ModuleEncoder(CountingModule(log), store=tmp_path / "store").fit(X[["cell"]])
    first = encoder.transform(X[["cell"]])
    n_seen = len(lines(log))
    shuffled = X.sample(frac=1, random_state=0).rename(index=str, columns={"cell": "other"})
    again = ModuleEncoder(CountingModule(log), store=tmp_path / "store")
    moved = again.fit_transform(shuffled[["other"]])
    order = [int(i) for i in shuffled.index]
    np.testing.assert_array_equal(moved, first[order])
    assert n_seen == n_distinct
    assert len(lines(log)) == n_seen


@pytest.mark.slow
def test_cross_val_predict_over_a_frame_with_missing_cells(tmp_path):
    X, y, _ = frame(n=120, n_distinct=100, seed=6)
    encoder = ModuleEncoder(CountingModule(tmp_path / "log"))
    model = LateFusionClassifier(triples(encoder), rule="mean")
    predicted = cross_val_predict(model, X, y, cv=3, n_jobs=2)
    assert (predicted == y).mean() > 0.6


def words_and_images(n=36, seed=0):
    """Texts, images and numbers with duplicates and missing cells; all three tell y."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    texts = [("good" if label else "bad") + f" {i % 9}" for i, label in enumerate(y)]
    images = [np.full((8, 8, 3), 40 + 150 * label + i % 5, np.uint8) for i, label in enumerate(y)]
    X = pd.DataFrame({"text": texts, "image": pd.Series(images, dtype=object)})
    X["number"] = y + rng.normal(size=n)
    X.loc[rng.random(n) < 0.2, "text"] = None
    X.loc[rng.random(n) < 0.2, "image"] = None
    X.loc[rng.random(n) < 0.2, "number"] = np.nan
    n_texts = X["text"].nunique()
    n_images = len({p.tobytes() for p in X["image"].dropna()})
    return X, y, n_texts, n_images


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_main_job_with_pretrained_encoders(tiny_bert, tiny_vit, tmp_path, n_jobs):
    """Fusion step, strategy and encoder parameters vary in one search over a frame with gaps."""
    X, y, n_texts, n_images = words_and_images()
    store = EmbeddingStore(tmp_path / "store")
    modalities = [
        ("text", TextEncoder(str(tiny_bert), store=store), ["text"]),
        ("image", make_pipeline(ImageEncoder(str(tiny_vit), store=store), PCA(3)), ["image"]),
        ("table", "tabular", ["number"]),
    ]
    early = make_pipeline(EarlyFusion(modalities), LogisticRegression())
    joint = JointFusionClassifier(modalities, n_components=8, max_epochs=2, random_state=0)
    found = GridSearchCV(
        Pipeline([("fusion", early)]),
        [
            {"fusion": [early], "fusion__earlyfusion__text__pooling": ["mean", "cls"]},
            {"fusion": [LateFusionClassifier(modalities, cv=2)], "fusion__rule": ["vote"]},
            {
                "fusion": [joint],
                "fusion__strategy": ["concat", "gated", "low_rank"],
                "fusion__image__imageencoder__normalize": [False, True],
            },
        ],
        cv=3,
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(X, y)
    # Two settings of each encoder.
    stats = store.stats()
    assert stats["encoded"] == stats["n_embeddings"] == 2 * n_texts + 2 * n_images
    assert stats["looked_up"] == stats["found"] + stats["encoded"]
    assert stats["rows"] > 10 * stats["encoded"]
    assert found.best_score_ > 0.5
    # A row without anything, and one whose image was never missing in training.
    nothing = X.iloc[[0]].assign(text=None, image=None, number=np.nan)
    assert np.isfinite(found.predict_proba(nothing)).all()
    store.close()


@pytest.mark.slow
def test_frame_library_does_not_matter_to_a_search(tiny_bert, tmp_path):
    polars = pytest.importorskip("polars")
    X, y, *_ = words_and_images()
    X = X.drop(columns="image")
    encoder = TextEncoder(str(tiny_bert), store=tmp_path / "store")
    model = LateFusionClassifier(
        [("text", encoder, ["text"]), ("table", "tabular", ["number"])], rule="mean"
    )
    grid = {"text__pooling": ["mean", "cls"]}
    ours = GridSearchCV(model, grid, cv=3).fit(X, y)
    theirs = GridSearchCV(model, grid, cv=3).fit(polars.from_pandas(X), y)
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    )
    stats = EmbeddingStore(tmp_path / "store").stats()
    assert stats["encoded"] == 2 * X["text"].nunique()
