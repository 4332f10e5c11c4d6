"""Prefetching: order, bounds, errors, threads."""

import threading

import pytest
import torch

from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._prefetch import prefetched, prepared_batches

RUNTIME = Runtime(torch.device("cpu"), torch.float32, 4)


class Doubling(Engine):
    """Double numbers, and record the threads that do it."""

    n_outputs = 1

    def __init__(self, *, separable=False):
        self._separable = separable
        self.threads = set()

    def separable(self, runtime):
        return self._separable

    def prepare(self, cells, runtime):
        self.threads.add(threading.current_thread().name)
        return [2 * cell for cell in cells]

    def run(self, prepared, runtime, *, sequence):
        return prepared


BATCHES = [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("n_threads", [0, 1, 3])
def test_batches_come_in_order_and_unreadable_items_are_marked(n_threads, separable):
    def read(item):
        return None if item in (2, 9) else item

    engine = Doubling(separable=separable)
    ready = list(prepared_batches(BATCHES, read, engine, RUNTIME, n_threads=n_threads))
    assert [batch.items for batch in ready] == BATCHES
    assert [batch.prepared for batch in ready] == [[0, 2, 6], [8, 10], [12, 14, 16], None]
    assert [batch.readable for batch in ready][0] == [True, True, False, True]
    here = threading.current_thread().name
    assert (engine.threads == {here}) == (n_threads == 0)


def test_several_threads_read_one_batch():
    barrier = threading.Barrier(3, timeout=30)

    def read(item):
        barrier.wait()  # passed only if three threads are here at once
        return item

    batches = [[0, 1, 2], [3, 4, 5]]
    ready = prepared_batches(batches, read, Doubling(separable=True), RUNTIME, n_threads=3)
    assert [batch.prepared for batch in ready] == [[0, 2, 4], [6, 8, 10]]


def test_next_batch_is_read_while_the_model_runs():
    read_by_now = set()
    all_of_second = threading.Event()

    def read(item):
        read_by_now.add(item)
        if item == 3:
            all_of_second.set()
        return item

    ready = prepared_batches([[0, 1], [2, 3]], read, Doubling(), RUNTIME, n_threads=1)
    assert next(ready).items == [0, 1]
    assert all_of_second.wait(timeout=30), "the second batch was not prefetched"


def test_two_batches_are_prefetched():
    taken = []

    def batches():
        for start in range(100):
            taken.append(start)
            yield [start]

    ready = prepared_batches(batches(), lambda item: item, Doubling(), RUNTIME, n_threads=2)
    for n in range(1, 20):
        next(ready)
        assert len(taken) <= n + 2
    ready.close()
    assert len(taken) <= 22


@pytest.mark.parametrize("n_threads", [0, 2])
def test_error_of_a_reader_is_raised_at_its_batch(n_threads):
    def read(item):
        if item == 5:
            raise ZeroDivisionError("five")
        return item

    ready = prepared_batches(BATCHES, read, Doubling(), RUNTIME, n_threads=n_threads)
    assert next(ready).items == BATCHES[0]
    with pytest.raises(ZeroDivisionError, match="five"):
        next(ready)


def test_threads_end_with_the_pass():
    before = set(threading.enumerate())  # those of another test may be ending now
    ready = prepared_batches(BATCHES, lambda item: item, Doubling(), RUNTIME, n_threads=2)
    next(ready)
    assert set(threading.enumerate()) - before
    ready.close()
    for thread in threading.enumerate():
        if thread.name.startswith("skmm-"):
            thread.join(timeout=30)
    assert not [t for t in threading.enumerate() if t.name.startswith("skmm-")]


def test_prefetched_runs_in_a_thread_and_keeps_order_and_errors():
    where = set()

    def items():
        for i in range(5):
            where.add(threading.current_thread().name)
            yield i
        raise KeyError("end")

    got = []
    with pytest.raises(KeyError, match="end"):
        for item in prefetched(items()):
            got.append(item)
    assert got == list(range(5))
    assert threading.current_thread().name not in where
