"""Batches that do not fit into memory, on a simulated device with room for some cells."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skmm import ModuleEncoder
from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._prefetch import FittingRunner

RUNTIME = Runtime(torch.device("cpu"), torch.float32, 8)


class SmallDevice(Engine):
    """Run batches of at most ``room`` cells."""

    n_outputs = 1

    def __init__(self, room, error=None):
        self.room = room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes = []

    def run(self, prepared, runtime, *, sequence):
        self.sizes.append(len(prepared))
        if len(prepared) > self.room:
            raise self.error
        return [np.array([value], dtype=np.float32) for value in prepared]


def runner(engine):
    return FittingRunner(engine, RUNTIME, sequence=False, name="TextEncoder")


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_batch_is_halved_until_it_fits(error):
    engine = SmallDevice(3, error)
    run = runner(engine)
    with pytest.warns(RuntimeWarning, match=r"batch of 10 does not fit.*batch_size=5"):
        arrays = run(list(range(10)), 10)
    assert np.concatenate(arrays).tolist() == list(range(10))
    assert engine.sizes == [10, 5, 3, 2, 3, 2]


@pytest.mark.slow
def test_next_batches_are_halved_at_once_and_one_warning_is_shown():
    engine = SmallDevice(3)
    run = runner(engine)
    with pytest.warns(RuntimeWarning) as caught:
        run(list(range(10)), 10)
        engine.sizes.clear()
        run(list(range(10)), 10)
    assert engine.sizes == [3, 3, 3, 1]
    assert len(caught) == 1


def test_error_of_a_single_cell_that_does_not_fit():
    with pytest.raises(torch.OutOfMemoryError, match=r"TextEncoder.*single cell.*device='cpu'"):
        runner(SmallDevice(0))([1.0], 1)


def test_other_errors_are_raised():
    engine = SmallDevice(3, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        runner(engine)(list(range(10)), 10)
    assert engine.sizes == [10]


class Greedy(nn.Module):
    """A module with memory for five cells."""

    room = 5

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x @ self.weight


@pytest.mark.slow
def test_encoder_continues_with_smaller_batches():
    cells = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    X = pd.DataFrame({"cell": list(cells)})
    encoder = ModuleEncoder(Greedy(), batch_size=16, store=False)
    with pytest.warns(RuntimeWarning, match="ModuleEncoder: a batch of 16"):
        features = encoder.fit_transform(X)
    np.testing.assert_array_equal(features, cells)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.set_params(batch_size=5).transform(X)
