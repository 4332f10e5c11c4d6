"""Devices, seeds and the number of torch threads."""

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from skmm import config_context
from skmm._environment import _device
from skmm._environment._device import (
    keep_to_one_thread,
    lies_on,
    n_decoding_threads,
    on_device,
    one_thread,
    resolve_device,
    resolve_dtype,
    seeded,
    shared_threads,
)

BLOCKS = {"one": one_thread, "shared": shared_threads}
CORES = 8


@pytest.fixture
def cores(monkeypatch):
    """Simulate a machine of eight cores."""
    before = torch.get_num_threads()
    monkeypatch.setattr(_device, "cpu_count", lambda: CORES)
    torch.set_num_threads(CORES)
    _device._threads._usual = None  # count the cores again
    yield CORES
    assert torch.get_num_threads() == CORES, "the test's thread has another number than before"
    assert number_in_a_new_thread() == CORES, "a new thread starts with another number than before"
    torch.set_num_threads(before)
    _device._threads._usual = None


def number_in_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result(timeout=60)


class Actor:
    """Thread that does one step at a time, on request."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._open = []

    def __call__(self, function, *args):
        return self._pool.submit(function, *args).result(timeout=60)

    def enter(self, kind):
        context = BLOCKS[kind]()
        self._open.append((context, self(context.__enter__)))
        return self.n

    def adjust(self):
        self(self._open[-1][1])
        return self.n

    def leave(self):
        self(self._open.pop()[0].__exit__, None, None, None)
        return self.n

    @property
    def n(self):
        return self(torch.get_num_threads)


@pytest.fixture
def actors(cores):
    made = [Actor() for _ in range(3)]
    yield made
    for actor in made:
        actor._pool.shutdown()


class TestThreads:
    def test_a_pass_alone_has_them_all(self, cores):
        with shared_threads():
            assert torch.get_num_threads() == cores

    def test_one_thread(self, cores):
        with one_thread():
            assert torch.get_num_threads() == 1
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1

    def test_passes_share_as_they_come_and_go(self, actors):
        a, b, c = actors
        assert a.enter("shared") == 8
        assert b.enter("shared") == 4
        assert a.n == 8 and a.adjust() == 4
        assert c.enter("shared") == 2
        assert [a.adjust(), b.adjust()] == [2, 2]
        assert a.leave() == 8
        assert [b.adjust(), c.adjust()] == [4, 4]
        assert [c.leave(), b.adjust(), b.leave()] == [8, 8, 8]

    def test_never_more_together_than_there_are(self, actors):
        """Three passes that run at the same time share the threads."""
        barrier = threading.Barrier(3)

        def encode():
            seen = []
            with shared_threads() as adjust:
                for _ in range(5):
                    barrier.wait(timeout=60)
                    adjust()
                    seen.append(torch.get_num_threads())
                    barrier.wait(timeout=60)
            return seen

        with ThreadPoolExecutor(3) as pool:
            passes = [pool.submit(encode) for _ in range(3)]
            seen = [done.result(timeout=60) for done in passes]
        assert seen == [[2] * 5] * 3

    def test_more_passes_than_threads_have_one_each(self, actors):
        torch.set_num_threads(2)
        numbers = [actor.enter("shared") for actor in actors]
        assert numbers == [2, 1, 1] and actors[0].adjust() == 1
        assert [actor.leave() for actor in actors] == [2, 2, 2]
        torch.set_num_threads(CORES)

    def test_training_beside_a_pass_takes_one(self, actors):
        a, b, c = actors
        assert [a.enter("one"), b.enter("shared"), c.enter("shared")] == [1, 7, 3]
        assert b.adjust() == 3
        assert [c.leave(), b.adjust(), b.leave(), a.leave()] == [8, 7, 8, 8]

    def test_training_inside_a_pass_and_the_other_way_round(self, actors):
        a, b, _ = actors
        assert [a.enter("shared"), a.enter("one"), b.enter("shared")] == [8, 1, 7]
        assert [a.leave(), a.leave(), b.leave()] == [4, 8, 8]
        assert [a.enter("one"), a.enter("shared"), a.adjust()] == [1, 1, 1]
        assert [a.leave(), a.leave()] == [1, 8]

    def test_a_pass_in_a_pass_counts_once(self, actors):
        a, b, _ = actors
        assert [a.enter("shared"), a.enter("shared"), b.enter("shared")] == [8, 8, 4]
        assert [a.adjust(), a.leave(), a.leave(), b.leave()] == [4, 4, 8, 8]

    @pytest.mark.parametrize("first", [0, 1])
    def test_restored_when_blocks_of_threads_overlap(self, actors, first):
        """A thread that starts in the block of another thread and outlives it."""
        a, b, _ = actors
        a.enter("one")
        b.enter("one")
        for actor in [(a, b), (b, a)][first]:
            actor.leave()
        assert [a.n, b.n, number_in_a_new_thread()] == [8, 8, 8]

    @pytest.mark.parametrize("kind", BLOCKS)
    def test_restored_after_an_error(self, actors, kind):
        a, *_ = actors
        a.enter("shared")
        with pytest.raises(ZeroDivisionError), BLOCKS[kind]():
            assert torch.get_num_threads() == {"one": 1, "shared": 4}[kind]
            _ = 1 / 0
        assert torch.get_num_threads() == 8
        a.leave()

    def test_number_of_the_user_between_blocks_is_respected(self, cores):
        with shared_threads():
            pass
        torch.set_num_threads(3)
        with shared_threads(), one_thread():
            pass
        assert torch.get_num_threads() == 3
        with shared_threads():
            assert torch.get_num_threads() == 3
        torch.set_num_threads(cores)

    def test_number_that_leaked_into_a_thread_is_not_taken_for_the_users(self, actors):
        """A thread that starts in the block of another one gets the usual number afterward."""
        a, b, _ = actors
        a.enter("one")
        assert b.n == 1
        a.leave()
        assert b.n == 1
        assert b.enter("shared") == 8
        assert b.leave() == 8

    def test_more_threads_than_cores_are_not_used(self, cores):
        torch.set_num_threads(4 * cores)
        with shared_threads():
            assert torch.get_num_threads() == cores
        assert torch.get_num_threads() == 4 * cores
        torch.set_num_threads(cores)

    def test_adjust_outside_of_a_block_does_nothing(self, cores):
        with shared_threads() as adjust:
            pass
        torch.set_num_threads(3)
        adjust()
        assert torch.get_num_threads() == 3
        torch.set_num_threads(cores)

    def test_pass_that_is_never_read_to_its_end(self, cores):
        """A generator that is closed when it is garbage collected."""

        def batches():
            with one_thread():
                yield torch.get_num_threads()
                raise AssertionError("nobody asks for a second batch")

        running = batches()
        assert next(running) == 1
        del running
        gc.collect()
        assert torch.get_num_threads() == cores

    def test_many_threads_in_disorder(self, cores):
        """The number is restored for any order of the starts and ends of blocks."""

        def work(seed):
            kinds = [list(BLOCKS)[seed >> i & 1] for i in range(4)]
            for kind in kinds:
                with BLOCKS[kind]() as adjust, BLOCKS[kinds[0]]():
                    adjust()
                    torch.randn(8, 8).sum()
            return torch.get_num_threads()

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(200))) == {cores}


class TestHelperThreads:
    @pytest.mark.parametrize("inside", [True, False])
    def test_keep_to_one_thread(self, cores, inside):
        with (
            shared_threads() if inside else nothing(),
            # One worker: a second thread might still be starting when the numbers are read.
            ThreadPoolExecutor(1, initializer=keep_to_one_thread) as pool,
        ):
            assert list(pool.map(lambda _: torch.get_num_threads(), range(8))) == [1] * 8
            assert torch.get_num_threads() == cores
            assert number_in_a_new_thread() == cores

    def test_decoding_threads_are_shared_by_the_passes(self, actors):
        assert n_decoding_threads() == 8
        a, b, c = actors
        a.enter("shared")
        assert a(n_decoding_threads) == 8
        b.enter("shared")
        assert [a(n_decoding_threads), b(n_decoding_threads)] == [4, 4]
        assert n_decoding_threads() == 2  # would be the third
        c.enter("one")
        assert [a(n_decoding_threads), c(n_decoding_threads)] == [3, 1]
        for actor in actors:
            actor.leave()

    @pytest.mark.parametrize(("n_cores", "n_threads"), [(1, 1), (3, 3), (64, 16)])
    def test_decoding_threads_follow_the_cores_not_torch(
        self, cores, monkeypatch, n_cores, n_threads
    ):
        monkeypatch.setattr(_device, "cpu_count", lambda: n_cores)
        torch.set_num_threads(1)  # another number than before, so cores are counted too
        assert n_decoding_threads() == n_threads
        torch.set_num_threads(cores)


@contextmanager
def nothing():
    yield


# Child processes that report their numbers, with torch at four threads of eight cores.
CHILD = """
import multiprocessing, os, sys
import torch
from skmm._environment import _device

def look(_=None):
    with _device.shared_threads() as adjust:
        adjust()
        # A forked process with more than one thread would wait for ever.
        torch.randn(600, 600) @ torch.randn(600, 600)
        return torch.get_num_threads(), _device.n_decoding_threads()

def start():
    _device.cpu_count = lambda: 8
    torch.set_num_threads(4)

if __name__ == "__main__":
    start()
    assert look() == (4, 8), "the main process is no worker"
    method = sys.argv[1]
    if method == "process":
        context = multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        from child import tell
        process = context.Process(target=tell, args=(queue,))
        process.start()
        print(queue.get())
        process.join()
    else:
        context = multiprocessing.get_context(method)
        from child import look, start
        with context.Pool(1, initializer=start) as pool:
            print(*pool.map(look, range(2)), sep="|")
    assert torch.get_num_threads() == 4

def tell(queue):
    start()
    queue.put(look())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "environment", "expected"),
    [
        ("fork", None, (1, 1)),  # no limit was set
        ("fork", "3", (1, 1)),  # the threads were not forked, so there are none
        ("spawn", "3", (3, 3)),
        pytest.param("process", None, (4, 4), marks=pytest.mark.slow),  # no pool
    ],
)
def test_worker_processes(tmp_path, method, environment, expected):
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    (tmp_path / "child.py").write_text(CHILD)
    variables = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if environment:
        variables["OMP_NUM_THREADS"] = environment
    done = subprocess.run(
        [sys.executable, "child.py", method],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=variables,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.strip().split("|")) == {str(expected)}


class TestDevice:
    def test_configured_device_is_auto(self):
        with config_context(device="cpu"):
            assert resolve_device("auto") == torch.device("cpu")

    def test_unknown_device(self):
        with pytest.raises(ValueError, match="device='tpu9' is not a device of torch"):
            resolve_device("tpu9")

    def test_unavailable_device(self):
        with pytest.raises(ValueError, match="is not available on this machine"):
            resolve_device("cuda:99")

    def test_dtype(self):
        cpu = torch.device("cpu")
        assert resolve_dtype("auto", cpu) is torch.float32
        assert resolve_dtype("float16", cpu) is torch.float16


def test_seeded_restores_the_generator():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    with seeded(7):
        assert torch.equal(torch.rand(3), first)


def test_module_on_the_device_is_not_changed():
    """``Module.to`` would copy the flattened weights of a recurrent network."""
    network = torch.nn.GRU(2, 2)
    weights = network._flat_weights
    assert on_device(network, torch.device("cpu")) is network
    assert network._flat_weights is weights
    assert on_device(network, torch.device("meta")).weight_ih_l0.device.type == "meta"


@pytest.mark.parametrize(
    ("here", "wanted", "there"),
    [
        ("cuda:0", "cuda", True),
        ("cuda:1", "cuda:1", True),
        ("cuda:0", "cuda:1", False),
        ("cpu", "cuda", False),
    ],
)
def test_device_without_index_is_any_device_of_its_type(here, wanted, there):
    tensor = SimpleNamespace(device=torch.device(here))  # the machine may not have it
    assert lies_on(tensor, torch.device(wanted)) is there
