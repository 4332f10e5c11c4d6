"""Cells that consist of parts: pooling, bounded memory, errors."""

import numpy as np
import pytest
import torch

from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._parts import PartsEngine
from skmm.exceptions import MediaDecodeError

RUNTIME = Runtime(torch.device("cpu"), torch.float32, 4)


class Squares(Engine):
    """A part is a number x; its vector is (x, x squared)."""

    n_outputs = 2

    def __init__(self):
        self.sizes = []

    def fingerprint(self, runtime):
        return "squares"

    def run(self, prepared, runtime, *, sequence):
        self.sizes.append(len(prepared))
        return [np.array([x, x * x], dtype=np.float32) for x in prepared]


def encode(cells, pooling="mean", *, sequence=False):
    engine = PartsEngine(Squares(), pooling, owner="AudioEncoder")
    return engine.run([iter(cell) for cell in cells], RUNTIME, sequence=sequence)


CELLS = [[1.0, 2.0, 3.0], [5.0], list(np.arange(11.0)), [-2.0, 2.0]]


@pytest.mark.parametrize(("pooling", "pool"), [("mean", np.mean), ("max", np.max)])
def test_pooling(pooling, pool):
    vectors = encode(CELLS, pooling)
    expected = [pool([[x, x * x] for x in cell], axis=0) for cell in CELLS]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)
    assert all(vector.dtype == np.float32 for vector in vectors)


def test_as_a_sequence_a_part_is_a_token():
    tokens = encode(CELLS, sequence=True)
    assert [len(t) for t in tokens] == [3, 1, 11, 2]
    np.testing.assert_array_equal(tokens[2][:, 0], np.arange(11.0))


def test_batches_are_full_across_cells():
    inner = Squares()
    PartsEngine(inner, owner="e").run([iter(c) for c in CELLS], RUNTIME, sequence=False)
    assert inner.sizes == [4, 4, 4, 4, 1]


def test_only_a_few_batches_of_parts_are_prefetched():
    """For a recording of any length."""
    n_read, most = 0, 0

    class Watching(Squares):
        def run(self, prepared, runtime, *, sequence):
            nonlocal most
            most = max(most, n_read - sum(self.sizes))
            return super().run(prepared, runtime, sequence=sequence)

    def parts():
        nonlocal n_read
        for x in range(1000):
            n_read += 1
            yield float(x % 7)

    PartsEngine(Watching(), owner="e").run([parts()], RUNTIME, sequence=False)
    assert n_read == 1000
    assert most <= 4 * RUNTIME.batch_size


def test_an_error_replaces_the_array_of_its_cell():
    def broken():
        yield 1.0
        raise MediaDecodeError("cut off")

    results = encode([[1.0], broken(), [], [2.0]])
    assert isinstance(results[1], MediaDecodeError)
    assert isinstance(results[2], MediaDecodeError)
    np.testing.assert_array_equal(results[0], [1.0, 1.0])
    np.testing.assert_array_equal(results[3], [2.0, 4.0])


def test_fingerprint_depends_on_pooling_and_inner_engine():
    fingerprints = {
        PartsEngine(Squares(), p, owner="e").fingerprint(RUNTIME) for p in ("mean", "max")
    }
    assert len(fingerprints) == 2
    assert all("squares" in fingerprint for fingerprint in fingerprints)
    unstored = Squares()
    unstored.fingerprint = lambda runtime: None
    assert PartsEngine(unstored, owner="e").fingerprint(RUNTIME) is None
