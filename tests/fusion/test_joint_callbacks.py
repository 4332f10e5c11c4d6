"""Callbacks of skorch and of scikit-learn in a joint fusion, and its pickles."""

import copy
import pickle

import numpy as np
import pytest
import torch
from fusing import TRIPLES, views, with_trainer
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from skorch.callbacks import Callback, Checkpoint, EpochScoring, LRScheduler

from skmm import EarlyFusion, JointFusionClassifier, JointFusionRegressor, LateFusionClassifier
from skmm.fusion import AttentionFusion

FAST = {"n_components": 8, "batch_size": 32, "learning_rate": 5e-3, "random_state": 0}


def classifier(**options):
    return JointFusionClassifier(TRIPLES, **with_trainer(**{**FAST, "max_epochs": 4, **options}))


@pytest.fixture(scope="module")
def data():
    X, score = views(120)
    return X, np.array(["no", "yes"])[(score > 0).astype(int)]


# --- skorch's callbacks ------------------------------------------------------------------------


class Count(Callback):
    n_batches_ = n_epochs_ = 0

    def on_batch_end(self, net, **kwargs):
        self.n_batches_ += bool(kwargs.get("training"))

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs_ += 1


def test_callbacks_are_called_and_left_as_they_were(data):
    given = Count()
    model = classifier(callbacks=[given], early_stopping=False).fit(*data)
    used = dict(model.net_.callbacks_)["Count"]
    assert (used.n_epochs_, used.n_batches_) == (4, 4 * 4)
    assert (given.n_epochs_, given.n_batches_) == (0, 0)
    assert clone(model).trainer.callbacks[0] is not given


def test_checkpoint_keeps_the_best_epoch(data, tmp_path):
    keep = Checkpoint(dirname=str(tmp_path), f_optimizer=None, f_history=None)
    model = classifier(callbacks=[keep], max_epochs=8).fit(*data)
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    # Early stopping goes back to the best epoch; the checkpoint holds the same one.
    for name, tensor in model.module_.state_dict().items():
        torch.testing.assert_close(saved[name], tensor)


def test_scores_of_every_epoch(data):
    def recall(net, dataset, y):
        return float((net.predict(dataset).argmax(axis=1) == dataset.target.numpy()).mean())

    model = classifier(callbacks=[("score", EpochScoring(recall, name="right"))]).fit(*data)
    assert len(model.net_.history[:, "right"]) == 4
    assert 0.0 <= model.net_.history[-1, "right"] <= 1.0


def test_schedule_of_the_learning_rate(data):
    schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    model = classifier(callbacks=[schedule], early_stopping=False).fit(*data)
    assert model.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(5e-3 * 0.1**4)


def test_callback_of_the_users_may_stop_the_training(data):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt  # as all of skorch's callbacks do it

    assert classifier(callbacks=[Stop()]).fit(*data).n_iter_ == 2


# --- scikit-learn's callbacks ------------------------------------------------------------------

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 has callbacks")


class Log:
    """Notes every task; one that ends a training after its second epoch, if asked."""

    def __init__(self, stop_at=None):
        self.tasks = []
        self.stop_at = stop_at

    def setup(self, estimator, context):
        self.tasks.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.tasks.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context):
        self.tasks.append(("end", context.task_name))
        return context.task_name == "epoch" and context.task_id == self.stop_at


def test_epochs_are_tasks(data):
    log = Log()
    classifier(early_stopping=False).set_callbacks(log).fit(*data)
    epochs = [("begin", "epoch"), ("end", "epoch")] * 4
    assert log.tasks == [
        *(("setup", "fit"), ("begin", "fit")),
        *epochs,
        *(("end", "fit"), ("teardown", "fit")),
    ]


def test_scikit_learn_may_stop_the_training(data):
    assert classifier().set_callbacks(Log(stop_at=1)).fit(*data).n_iter_ == 2


def test_modalities_are_tasks_of_early_and_stages_of_late(data):
    log = Log()
    EarlyFusion(TRIPLES).set_callbacks(log).fit_transform(*data)
    assert log.tasks.count(("end", "modality")) == 3
    log = Log()
    LateFusionClassifier(TRIPLES, cv=2).set_callbacks(log).fit(*data)
    assert log.tasks.count(("end", "stage")) == 2
    assert log.tasks[-1] == ("teardown", "fit")


def test_teardown_also_after_an_error(data):
    log = Log()
    with pytest.raises(ValueError, match="requires y"):
        classifier().set_callbacks(log).fit(data[0], None)
    broken = classifier(strategy=AttentionFusion(n_heads=3)).set_callbacks(log)
    with pytest.raises(ValueError, match="n_heads"):
        broken.fit(*data)
    assert log.tasks[-1] == ("teardown", "fit")


def test_monitored_score_of_the_last_epoch_is_that_of_the_model(data):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = classifier(early_stopping=False).set_callbacks(monitor).fit(*data)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 4
    assert rows[-1]["accuracy"] == pytest.approx(model.score(*data))


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_inside_a_search_over_a_pipeline(data, n_jobs, capsys):
    pytest.importorskip("rich", reason="the progress bar needs rich")
    monitor = callback.ScoringMonitor(scoring="accuracy")
    joint = classifier(max_epochs=2, early_stopping=False).set_callbacks(monitor)
    search = GridSearchCV(
        Pipeline([("fusion", joint)]), {"fusion__strategy": ["mean", "max"]}, cv=2, n_jobs=n_jobs
    )
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None))
    search.fit(*data)
    scored = [
        row
        for log in monitor.get_logs(select="all")
        for row in log.data
        if row["task_name"] == "epoch"
    ]
    assert len(scored) == (2 * 2 + 1) * 2  # fits times epochs
    assert "JointFusionClassifier" in capsys.readouterr().out


def test_progress_bar_over_a_pipeline_with_an_early_fusion(data, capsys):
    """No warning that a fusion supports no callbacks."""
    pytest.importorskip("rich", reason="the progress bar needs rich")
    model = make_pipeline(EarlyFusion(TRIPLES), LogisticRegression())
    model.set_callbacks(callback.ProgressBar()).fit(*data)
    assert "EarlyFusion" in capsys.readouterr().out


# --- copies and pickles ------------------------------------------------------------------------


@pytest.mark.parametrize("restore", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_pickle_predicts_the_same(data, restore):
    X, y = data
    model = classifier().fit(X, y)
    again = restore(model)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert not hasattr(again, "net_")
    assert again.classes_.tolist() == ["no", "yes"]
    assert again.history_ == model.history_


def test_pickle_holds_the_weights_once(data):
    X, score = views(120)
    model = JointFusionRegressor(TRIPLES, n_components=256, max_epochs=2, random_state=0)
    model.fit(X, score)
    n_bytes = 4 * sum(p.numel() for p in model.module_.parameters())
    assert n_bytes > 500_000
    assert len(pickle.dumps(model)) < 1.1 * n_bytes


def test_shallow_copy_shares_the_network(data):
    """scikit-learn's callbacks copy the estimator while it trains."""
    model = classifier().fit(*data)
    twin = copy.copy(model)
    assert twin.module_ is model.module_ and twin.net_ is model.net_


def test_pickle_and_clone_before_fit(data):
    model = classifier(callbacks=[EpochScoring("accuracy")])
    assert pickle.loads(pickle.dumps(model)).max_epochs == 4
    assert clone(model).trainer.callbacks is not model.trainer.callbacks
