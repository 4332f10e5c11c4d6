"""Early stopping watches rows that the network is not trained on, in every estimator."""

import numpy as np
import pandas as pd
import pytest
from skorch.callbacks import Callback

from skmm import (
    AutoencoderAlignment,
    CaptionGenerator,
    CCAAlignment,
    ContrastiveAlignment,
    ImageGenerator,
    JointFusionClassifier,
    JointFusionMultiTask,
    JointFusionRegressor,
    QuestionAnswerer,
    SeriesGenerator,
    Trainer,
)
from skmm.generation import FlowMatching

N = 80
TRIPLES = [("left", "passthrough", ["left"]), ("right", "passthrough", ["right"])]
SMALL = {"n_components": 4, "max_epochs": 2, "random_state": 0}


# A trainer clones its callbacks, so what they see is kept here.
TRAINED, WATCHED = set(), set()


class Rows(Callback):
    """Record which rows are trained on, and which are watched, by a number that each has once."""

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        rows = batch[0].modalities["left"].values
        numbers = {round(float(row.reshape(-1)[0]), 4) for row in rows}
        (TRAINED if training else WATCHED).update(numbers)


def frame():
    rng = np.random.default_rng(0)
    left = rng.normal(size=(N, 3))
    left[:, 0] = np.arange(N) / N  # a number that no other row has
    words = np.array(["one", "two", "three"])[np.arange(N) % 3]
    return pd.DataFrame({"left": list(left), "right": list(left + 0.1), "words": words})


def targets():
    """Return a target of each form."""
    rng = np.random.default_rng(1)
    return {
        "class": np.arange(N) % 3,
        "value": rng.normal(size=N),
        "tasks": pd.DataFrame({"a": np.arange(N) % 2, "b": rng.normal(size=N)}),
        "text": [f"row {i % 5}" for i in range(N)],
        "series": [rng.normal(size=4) for _ in range(N)],
        "image": list(rng.integers(0, 256, (N, 8, 8), dtype=np.uint8)),
        "nothing": None,
    }


ESTIMATORS = [
    (JointFusionClassifier(TRIPLES), "class"),
    (JointFusionRegressor(TRIPLES), "value"),
    (JointFusionMultiTask(TRIPLES), "tasks"),
    (ContrastiveAlignment(TRIPLES), "nothing"),
    (AutoencoderAlignment(TRIPLES), "nothing"),
    (CCAAlignment(TRIPLES, method="deep"), "nothing"),
    (CaptionGenerator(TRIPLES), "text"),
    (SeriesGenerator(TRIPLES), "series"),
    (ImageGenerator(TRIPLES, method=FlowMatching(2), image_size=8, n_channels=4), "image"),
    (QuestionAnswerer(TRIPLES, question_column="words"), "text"),
]


@pytest.mark.parametrize(
    ("estimator", "form"), ESTIMATORS, ids=[type(estimator).__name__ for estimator, _ in ESTIMATORS]
)
def test_watched_rows_are_not_trained_on(estimator, form):
    TRAINED.clear()
    WATCHED.clear()
    trainer = Trainer(batch_size=16, early_stopping=True, callbacks=[Rows()])
    estimator.set_params(trainer=trainer, **SMALL).fit(frame(), targets()[form])
    assert len(WATCHED) == N // 10
    assert len(TRAINED) == N - N // 10
    assert TRAINED.isdisjoint(WATCHED)
