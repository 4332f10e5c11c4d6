"""Claims: who encodes what, until when, and what happens when he dies or is too slow."""

import os
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
from processes import run, start

from skmm.encoders._store import _connection, _store

CLAIM = """
import sys
from bare_store import EmbeddingStore
print(EmbeddingStore(sys.argv[1]).claim([b"k"]), flush=True)
sys.stdin.read()
"""


def claim_elsewhere(store, keys):
    """Claim in another thread, which lives on until it is told to end."""
    granted, done, end = [], threading.Event(), threading.Event()

    def work():
        granted.extend(store.claim(keys))
        done.set()
        end.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    done.wait(60)
    return granted, lambda: (end.set(), thread.join())


@pytest.fixture
def elsewhere(store):
    """``elsewhere(keys)`` are the keys that another living thread is granted."""
    ends = []

    def claim(keys):
        granted, end = claim_elsewhere(store, keys)
        ends.append(end)
        return granted

    yield claim
    for end in ends:
        end()


@pytest.fixture
def clock(monkeypatch):
    """``clock(seconds)`` lets time go by for claims."""
    now = [time.time()]

    class Clock:
        time = staticmethod(lambda: now[0])

    monkeypatch.setattr(_store, "time", Clock)

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


def write_claim(store, key, *, host=None, pid=None, until):
    """Put a claim as another process would."""
    host, pid = host or socket.gethostname(), pid or os.getppid()
    row = (key, f"{host}:{pid}:1", host, pid, until)
    _connection.connect(store.folder).execute("INSERT INTO claim VALUES (?, ?, ?, ?, ?)", row)


def test_exclude_other_threads_and_end(store, elsewhere):
    keys = [b"a", b"b", b"c"]
    assert store.claim(keys[:2]) == keys[:2]
    assert elsewhere(keys) == [b"c"]
    store.put_many({b"a": np.zeros(1, np.float32)})
    store.release([b"b"])
    assert elsewhere(keys[:2]) == [b"b"]  # a is there, b was given back


def test_order_is_kept_and_many_keys_are_taken(store):
    keys = [i.to_bytes(4, "big") for i in range(3000, 0, -1)]
    store.put_many({key: np.zeros(1, np.float32) for key in keys[::2]})
    assert store.claim(keys) == keys[1::2]
    assert store.claim([]) == []


def test_only_an_owner_gives_back(store, elsewhere):
    assert elsewhere([b"k"]) == [b"k"]
    store.release([b"k"])
    assert store.claim([b"k"]) == []


class TestLease:
    def test_own_claims_are_renewed(self, store, elsewhere, clock):
        """As often as wanted; so a pass may take longer than a lease."""
        assert store.claim([b"k"]) == [b"k"]
        for _ in range(3):
            clock(0.9 * _store.LEASE)
            assert store.claim([b"k"]) == [b"k"]
            assert elsewhere([b"k"]) == []

    def test_a_slow_owner_is_relieved_and_learns_so(self, store, elsewhere, clock):
        assert store.claim([b"k", b"j"]) == [b"k", b"j"]
        clock(0.9 * _store.LEASE)
        assert elsewhere([b"k"]) == []
        clock(0.2 * _store.LEASE)
        assert elsewhere([b"k"]) == [b"k"]
        assert store.claim([b"k", b"j"]) == [b"j"]  # k is another's now
        store.release([b"k"])
        assert store.claim([b"k"]) == []  # what is another's cannot be given back
        # Whoever is ready first stores it, and the claim is over.
        store.put_many({b"k": np.ones(1, np.float32)})
        assert elsewhere([b"k"]) == []
        assert store.get_many([b"k"])[b"k"] == [1.0]

    def test_long_enough_for_a_large_model_on_a_cpu(self):
        assert _store.LEASE >= 300

    def test_another_machine(self, store, clock):
        """Its processes cannot be asked after, so only time tells."""
        write_claim(store, b"k", host="elsewhere", pid=1, until=_store.time.time() + 100)
        assert store.claim([b"k"]) == []
        clock(101)
        assert store.claim([b"k"]) == [b"k"]

    def test_pid_that_another_process_has_now(self, store, clock):
        """It lives, and never encodes what the dead one claimed."""
        write_claim(store, b"k", until=_store.time.time() + _store.LEASE)
        assert store.claim([b"k"]) == []
        clock(1.01 * _store.LEASE)
        assert store.claim([b"k"]) == [b"k"]

    def test_clock_that_was_wrong(self, store, clock):
        """A claim from the future ends too."""
        write_claim(store, b"k", until=_store.time.time() + 1e6)
        assert store.claim([b"k"]) == [b"k"]


class TestDeath:
    """A dead owner is seen at once, long before the lease is over."""

    def test_ended_process(self, store):
        said = run(CLAIM, arguments=[store.folder], stdin=subprocess.DEVNULL)
        assert "b'k'" in said
        assert store.claim([b"k"]) == [b"k"]

    def test_killed_process(self, store):
        with start(CLAIM, arguments=[store.folder], stdin=subprocess.PIPE) as process:
            assert "b'k'" in process.stdout.readline()
            assert store.claim([b"k"]) == []  # it lives
            process.kill()
            # Not waited for: its parent has not asked after it yet.
            deadline = time.monotonic() + 60
            while not (granted := store.claim([b"k"])) and time.monotonic() < deadline:
                time.sleep(0.01)
        assert granted == [b"k"]

    def test_ended_thread(self, store):
        granted, end = claim_elsewhere(store, [b"k"])
        assert granted == [b"k"]
        assert store.claim([b"k"]) == []
        end()
        assert store.claim([b"k"]) == [b"k"]
