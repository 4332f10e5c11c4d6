"""How an encoder trains its network: history, step sizes, warmup, early stopping."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from columns import objects
from torch import nn

from skmm import ModuleEncoder, TextEncoder
from skmm.exceptions import ConvergenceError


class Recorder(nn.Module):
    """A linear layer that records the first number of each cell, by mode."""

    seen: dict[bool, set] = {True: set(), False: set()}

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        self.seen[self.training] |= set(x[:, 0].tolist())
        return self.linear(x)


@pytest.fixture
def recorded():
    Recorder.seen = {True: set(), False: set()}
    return Recorder.seen


def noise(n):
    """Cells, and classes that they say nothing about."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"cell": objects(list(rng.normal(size=(n, 3)).astype(np.float32)))}
    ), rng.integers(0, 2, n)


def encoder(module=None, **params):
    torch.manual_seed(0)
    params = {"max_epochs": 3, "random_state": 0, **params}
    return ModuleEncoder(module or nn.Linear(3, 2), fine_tune="full", **params)


def weights(fitted):
    return torch.cat([weight.detach().flatten() for weight in fitted._engine.backbone.parameters()])


def test_history_has_one_record_per_epoch():
    X, y = noise(20)
    history = encoder().fit(X, y).history_
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert all(set(record) == {"epoch", "train_loss"} for record in history)
    assert not hasattr(ModuleEncoder(nn.Linear(3, 2)).fit(X), "history_")


@pytest.mark.parametrize("supervised", [True, False])
def test_held_out_cells_are_never_trained_on(recorded, supervised):
    X, y = noise(60)
    history = encoder(Recorder(), early_stopping=True).fit(X, y if supervised else None).history_
    trained, evaluated = recorded[True], recorded[False]
    assert len(trained) == 54
    assert len(evaluated - trained) == 6
    assert all(set(record) == {"epoch", "train_loss", "valid_loss"} for record in history)


def test_held_out_cells_have_the_share_of_each_class(recorded):
    X, _ = noise(100)
    y = np.array(["rare"] * 20 + ["frequent"] * 80)
    encoder(Recorder(), early_stopping=True).fit(X, y)
    first = np.array([cell[0] for cell in X["cell"]])
    held_out = ~np.isin(first, list(recorded[True]))
    assert held_out[:20].sum() == 2 and held_out[20:].sum() == 8


def test_few_cells_are_all_trained_on(recorded):
    X, y = noise(39)
    history = encoder(Recorder(), early_stopping=True).fit(X, y).history_
    assert len(recorded[True]) == 39
    assert "valid_loss" not in history[0]


def test_early_stopping_keeps_the_best_epoch():
    X, y = noise(60)
    params = {"learning_rate": 0.1, "early_stopping": True}
    stopped = encoder(max_epochs=200, **params).fit(X, y)
    losses = [record["valid_loss"] for record in stopped.history_]
    best = int(np.argmin(losses)) + 1
    assert 1 < best < len(losses) == best + 10 < 200
    at_best = encoder(max_epochs=best, **params).fit(X, y)
    torch.testing.assert_close(weights(stopped), weights(at_best), rtol=0, atol=0)
    later = encoder(max_epochs=best + 1, **params).fit(X, y)
    torch.testing.assert_close(weights(later), weights(at_best), rtol=0, atol=0)


def test_buffers_are_those_of_the_best_epoch_too():
    X, y = noise(60)
    params = {"learning_rate": 0.1, "early_stopping": True}
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    stopped = encoder(module, max_epochs=200, **params).fit(X, y)
    best = int(np.argmin([record["valid_loss"] for record in stopped.history_])) + 1
    assert best < len(stopped.history_)
    at_best = encoder(module, max_epochs=best, **params).fit(X, y)
    np.testing.assert_array_equal(stopped.transform(X), at_best.transform(X))


@pytest.mark.parametrize(
    ("warmup", "share"), [(0, 1.0), (0.5, 1.0), (1, 1.0), (2, 0.5), (8, 0.125)]
)
def test_warmup_scales_the_first_steps(warmup, share):
    X, y = noise(20)
    module = nn.Linear(3, 2)
    # One step: that of Adam has the length of the step size in each direction.
    fitted = encoder(module, max_epochs=1, learning_rate=0.01, warmup=warmup).fit(X, y)
    step = (weights(fitted) - nn.utils.parameters_to_vector(module.parameters())).abs()
    torch.testing.assert_close(step, torch.full((8,), 0.01 * share), rtol=1e-3, atol=0)


def test_warmup_ends():
    X, y = noise(64)  # of 2 steps an epoch, so the 4 steps have 1/4, 2/4, 3/4 and all of it
    params = {"batch_size": 32, "learning_rate": 1e-4}
    start = nn.Linear(3, 2)
    moved = [
        (weights(encoder(start, max_epochs=n, warmup=2, **params).fit(X, y))
         - nn.utils.parameters_to_vector(start.parameters())).abs().max().item()
        for n in (1, 2, 3)
    ]  # fmt: skip
    # At so small a step size the gradient hardly turns, so the steps add up.
    np.testing.assert_allclose(moved, np.array([0.75, 2.5, 4.5]) * 1e-4, rtol=0.1)


@pytest.mark.parametrize(("rate", "expected"), [("auto", 1e-3), (1e-3, 1e-3), (0.02, 0.02)])
def test_step_size_from_scratch(rate, expected):
    X, y = noise(20)
    module = nn.Linear(3, 2)
    fitted = encoder(module, max_epochs=1, learning_rate=rate).fit(X, y)
    step = (weights(fitted) - nn.utils.parameters_to_vector(module.parameters())).abs()
    assert step.max().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("fine_tune", "rate", "expected"),
    [("last", "auto", 5e-5), ("full", "auto", 2e-5), ("full", 1e-3, 1e-3), ("last", 0.01, 0.01)],
)
def test_step_size_of_pretrained_weights(fine_tune, rate, expected, tiny_checkpoint):
    X = pd.DataFrame({"review": ["good", "bad", "a coat", "red"]})
    model = TextEncoder(
        tiny_checkpoint("bert"), fine_tune=fine_tune, learning_rate=rate, max_epochs=1,
        random_state=0,
    )  # fmt: skip
    before = model.start_training(X, [0, 1, 0, 1]).backbone.weights
    before = torch.cat([weight.detach().flatten() for weight in before])
    step = (weights(model.fit(X, [0, 1, 0, 1])) - before).abs().max().item()
    assert step == pytest.approx(expected, rel=0.02)


def test_the_error_of_a_divergence_names_the_step_size():
    X, y = noise(20)
    with pytest.raises(ConvergenceError, match=r"loss of nan in epoch 1. Lower .* now 0.001"):
        encoder(Exploding()).fit(X, y)


class Exploding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x * self.weight * (math.nan if self.training else 1.0)
