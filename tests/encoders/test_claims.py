"""Claims: exclusion, renewal, expiry, and death of their owners."""

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
    """Claim in another thread; return the granted keys and a function that ends the thread."""
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
    """``elsewhere(keys)`` returns the keys that another living thread is granted."""
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
    """``clock(seconds)`` advances the time of claims."""
    now = [time.time()]

    class Clock:
        time = staticmethod(lambda: now[0])

    monkeypatch.setattr(_store, "time", Clock)

    def advance(seconds):
        now[0] += seconds

    return advance


def write_claim(store, key, *, host=None, pid=None, until):
    """Write a claim of another process."""
    host, pid = host or socket.gethostname(), pid or os.getppid()
    row = (key, f"{host}:{pid}:1", host, pid, until)
    _connection.connect(store.folder).execute("INSERT INTO claim VALUES (?, ?, ?, ?, ?)", row)


def test_exclude_other_threads_and_end(store, elsewhere):
    keys = [b"a", b"b", b"c"]
    assert store.claim(keys[:2]) == keys[:2]
    assert elsewhere(keys) == [b"c"]
    store.put_many({b"a": np.zeros(1, np.float32)})
    store.release([b"b"])
    assert elsewhere(keys[:2]) == [b"b"]  # a is stored, b was released


def test_many_keys_are_claimed_in_their_order(store):
    keys = [i.to_bytes(4, "big") for i in range(3000, 0, -1)]
    store.put_many({key: np.zeros(1, np.float32) for key in keys[::2]})
    assert store.claim(keys) == keys[1::2]
    assert store.claim([]) == []


def test_only_an_owner_releases(store, elsewhere):
    assert elsewhere([b"k"]) == [b"k"]
    store.release([b"k"])
    assert store.claim([b"k"]) == []


class TestLease:
    def test_own_claims_are_renewed(self, store, elsewhere, clock):
        """A pass may take longer than a lease."""
        assert store.claim([b"k"]) == [b"k"]
        for _ in range(3):
            clock(0.9 * _store.LEASE)
            assert store.claim([b"k"]) == [b"k"]
            assert elsewhere([b"k"]) == []

    def test_claims_of_a_slow_owner_expire(self, store, elsewhere, clock):
        assert store.claim([b"k", b"j"]) == [b"k", b"j"]
        clock(0.9 * _store.LEASE)
        assert elsewhere([b"k"]) == []
        clock(0.2 * _store.LEASE)
        assert elsewhere([b"k"]) == [b"k"]
        assert store.claim([b"k", b"j"]) == [b"j"]  # another thread has claimed k
        store.release([b"k"])
        assert store.claim([b"k"]) == []  # another thread's claim cannot be released
        # Storing the array ends the claim.
        store.put_many({b"k": np.ones(1, np.float32)})
        assert elsewhere([b"k"]) == []
        assert store.get_many([b"k"])[b"k"] == [1.0]

    def test_lease_is_long_enough_for_a_large_model_on_a_cpu(self):
        assert _store.LEASE >= 300

    def test_another_machine(self, store, clock):
        """Its processes cannot be checked, so the claim ends by time only."""
        write_claim(store, b"k", host="elsewhere", pid=1, until=_store.time.time() + 100)
        assert store.claim([b"k"]) == []
        clock(101)
        assert store.claim([b"k"]) == [b"k"]

    def test_pid_of_a_dead_process_that_is_used_again(self, store, clock):
        """The new process lives, so the claim ends by time."""
        write_claim(store, b"k", until=_store.time.time() + _store.LEASE)
        assert store.claim([b"k"]) == []
        clock(1.01 * _store.LEASE)
        assert store.claim([b"k"]) == [b"k"]

    def test_claim_from_the_future_ends(self, store, clock):
        """It comes from a wrong clock."""
        write_claim(store, b"k", until=_store.time.time() + 1e6)
        assert store.claim([b"k"]) == [b"k"]


class TestDeath:
    """The death of an owner is noticed at once, long before the lease ends."""

    def test_ended_process(self, store):
        said = run(CLAIM, arguments=[store.folder], stdin=subprocess.DEVNULL)
        assert "b'k'" in said
        assert store.claim([b"k"]) == [b"k"]

    def test_killed_process(self, store):
        with start(CLAIM, arguments=[store.folder], stdin=subprocess.PIPE) as process:
            assert "b'k'" in process.stdout.readline()
            assert store.claim([b"k"]) == []  # it lives
            process.kill()
            # The parent has not read its exit status yet.
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
