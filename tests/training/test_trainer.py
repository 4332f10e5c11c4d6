"""The trainer as a part of estimators: what it holds, what wins, and what is refused."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from fusing import TRIPLES, views
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from skmm import JointFusionClassifier, ModuleEncoder, Trainer
from skmm._training._trainer import FEWEST_TO_HOLD_OUT, TrainingDefaults
from skmm.exceptions import ConvergenceError


@pytest.fixture(scope="module")
def data():
    X, score = views(120)
    return X, np.where(score > 0, "yes", "no")


def classifier(**options):
    return JointFusionClassifier(
        TRIPLES, **{"n_components": 8, "max_epochs": 3, "random_state": 0, **options}
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


# --- one nested estimator ------------------------------------------------------------------------


def test_none_is_a_trainer_with_its_defaults(data):
    first, second = classifier().fit(*data), classifier(trainer=Trainer()).fit(*data)
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=0)
    assert first.trainer is None  # a fit changes no parameter


def test_max_epochs_of_the_estimator_wins(data):
    trainer = Trainer(max_epochs=2)
    assert classifier(trainer=trainer, max_epochs=None).fit(*data).n_iter_ == 2
    assert classifier(trainer=trainer, max_epochs=4).fit(*data).n_iter_ == 4


@pytest.mark.slow
def test_parameters_are_reached_by_name_also_where_there_is_no_trainer_yet(data):
    model = classifier().set_params(trainer__learning_rate=3e-3)
    assert model.trainer.learning_rate == 3e-3 and model.fit(*data).net_.lr == 3e-3
    other = clone(model).set_params(trainer__batch_size=16, trainer__learning_rate=1e-2)
    assert model.trainer.learning_rate == 3e-3  # the clone has a trainer of its own
    assert (other.trainer.learning_rate, other.trainer.batch_size) == (1e-2, 16)
    with pytest.raises(ValueError, match="Invalid parameter 'step' for estimator Trainer"):
        classifier().set_params(trainer__step=1)
    search = GridSearchCV(classifier(max_epochs=2), {"trainer__learning_rate": [1e-9, 1e-2]}, cv=2)
    assert search.fit(*data).best_params_ == {"trainer__learning_rate": 1e-2}
    restored = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(restored.predict(data[0]), search.predict(data[0]))


# --- every parameter changes something, or is refused --------------------------------------------


class Stop(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            raise KeyboardInterrupt


OTHER = {
    "max_epochs": 2,
    "batch_size": 8,
    "accumulate": 2,
    "learning_rate": 1e-2,
    "encoder_learning_rate": 1e-2,
    "warmup": 1,
    "weight_decay": 0.5,
    "max_grad_norm": 1e-3,
    "early_stopping": False,
    "validation_fraction": 0.3,
    "n_iter_no_change": 1,
    "callbacks": [Stop()],
    "dtype": "bfloat16",
}


def test_the_table_of_other_values_names_every_parameter():
    defaults = inspect.signature(Trainer).parameters
    assert set(OTHER) == set(defaults)
    assert all(OTHER[name] != defaults[name].default for name in OTHER)


class Cells(nn.Module):
    """Reads numbers, and is trained."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(1, 4)

    def forward(self, x):
        return self.map(x)


def trained_encoder():
    encoder = ModuleEncoder(Cells(), fine_tune="full")
    return [("size", encoder, ["size"]), ("text", "passthrough", ["text"])]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_every_parameter_changes_the_training(name, data):
    # Rates far too high: the held-out loss soon rises, so that patience counts.
    options = {"modalities": trained_encoder(), "max_epochs": None, "n_components": 8}
    rising = {"learning_rate": 0.3} if name == "n_iter_no_change" else {}
    base = {"max_epochs": 12 if rising else 3, **rising}
    plain = JointFusionClassifier(**options, trainer=Trainer(**base), random_state=0)
    other = clone(plain).set_params(trainer=Trainer(**{**base, name: OTHER[name]}))
    first, second = weights(plain.fit(*data)), weights(other.fit(*data))
    assert plain.n_iter_ != other.n_iter_ or not torch.allclose(first, second, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["validation_fraction", "n_iter_no_change"])
def test_what_only_early_stopping_uses_is_refused_without_it(name, data):
    trainer = Trainer(early_stopping=False, **{name: OTHER[name]})
    message = f"Trainer: {name}={OTHER[name]} has no effect without early_stopping"
    with pytest.raises(ValueError, match=message):
        classifier(trainer=trainer).fit(*data)


@pytest.mark.slow
def test_integers_of_numpy_and_subclasses_of_trainer(data):
    sizes = GridSearchCV(classifier(), {"trainer__batch_size": np.array([8, 16])}, cv=2)
    assert sizes.fit(*data).best_params_["trainer__batch_size"] in (8, 16)

    class Slow(Trainer):
        def __init__(self, *, learning_rate=1e-4):
            super().__init__(learning_rate=learning_rate)

    assert classifier(trainer=Slow()).fit(*data).net_.lr == 1e-4


class Fail(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("no disk")


@pytest.mark.parametrize(
    "trainer, error",
    [
        (Trainer(callbacks=[Fail()]), RuntimeError),
        (Trainer(learning_rate=1e30), ConvergenceError),
        # One step an epoch: its loss is measured before it diverges.
        (Trainer(learning_rate=1e30, batch_size=200), ConvergenceError),
        (Trainer(learning_rate=1e30, batch_size=200, early_stopping=False), ConvergenceError),
    ],
)
def test_a_failed_training_leaves_no_network(trainer, error, data):
    model = classifier().partial_fit(*data)
    with pytest.raises(error):
        clone(model).set_params(trainer=trainer, max_epochs=1).fit(*data)
    with pytest.raises(error):
        model.set_params(trainer=trainer, max_epochs=1).fit(*data)
    with pytest.raises(NotFittedError):
        model.predict(data[0])
    model.set_params(trainer=None).partial_fit(*data).partial_fit(*data)
    assert model.net_.module_ is model.module_


@pytest.mark.parametrize(
    "wrong", [{"max_epochs": 0}, {"batch_size": "all"}, {"learning_rate": -1.0}, {"warmup": None}]
)
def test_values_out_of_range_are_refused_before_any_cell_is_encoded(wrong, data):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"'{name}' parameter of Trainer"):
        classifier(trainer=Trainer(**wrong)).fit(data[0], None)
    with pytest.raises(ValueError, match="'trainer' parameter of JointFusionClassifier"):
        classifier(trainer="fast").fit(*data)


@pytest.mark.parametrize("wrong", ["x", ("score", "x"), 3])
def test_other_objects_than_callbacks_are_refused(wrong, data):
    trainer = Trainer(callbacks=[Fail(), wrong])
    with pytest.raises(TypeError, match=r"Trainer: callbacks must be a list .* at position 1\."):
        classifier(trainer=trainer).fit(*data)


def test_parameters_are_in_the_order_of_all_classes():
    first = ["max_epochs", "learning_rate", "encoder_learning_rate", "batch_size"]
    assert list(inspect.signature(Trainer).parameters)[:4] == first


def test_history_numbers_the_epochs_also_of_a_warm_start(data):
    model = classifier(max_epochs=2, warm_start=True).fit(*data).fit(*data)
    assert [epoch["epoch"] for epoch in model.history_] == [1, 2, 3, 4]
    assert all(set(e) == {"epoch", "train_loss", "valid_loss"} for e in model.history_)


def test_a_parameter_that_the_user_gives_wins_over_the_estimators_default():
    defaults = TrainingDefaults(early_stopping=False)
    rows = np.arange(100)
    assert not len(Trainer().hold_out(rows, None, defaults, 0))
    assert len(Trainer(early_stopping=True).hold_out(rows, None, defaults, 0)) == 10


# --- rows that are held out ----------------------------------------------------------------------


def test_held_out_rows_have_their_share_of_each_group():
    rows, strata = np.arange(50, 150), np.repeat([0, 1], [80, 20])
    held = Trainer(validation_fraction=0.2).hold_out(rows, strata, TrainingDefaults(), 0)
    assert len(held) == 20 and set(held) <= set(rows)
    assert np.bincount(strata[held - 50]).tolist() == [16, 4]
    again = Trainer(validation_fraction=0.2).hold_out(rows, strata, TrainingDefaults(), 0)
    np.testing.assert_array_equal(held, again)
    few = rows[: FEWEST_TO_HOLD_OUT - 1]
    assert not len(Trainer().hold_out(few, None, TrainingDefaults(), 0))


def test_held_out_rows_are_not_trained_on(data):
    """What the network is shown in training mode never holds a held-out row, and all others."""
    seen = {True: set(), False: set()}

    class Look(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            # Only the first column of a view tells the row apart: it is a real number.
            seen[training] |= set(batch[0].modalities["photo"].values[:, 0].tolist())

    classifier(trainer=Trainer(callbacks=[Look()])).fit(*data)
    assert len(seen[True]) == 108 and len(seen[False]) == 12
    assert not seen[True] & seen[False]
