"""Packed embeddings, and the cache of those that a process read."""

import numpy as np
import pytest

from skmm.encoders import EmbeddingStore
from skmm.encoders._store import _connection
from skmm.encoders._store._connection import RecentVectors, checksum, pack, unpack


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
def test_packed_and_back(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    back = unpack(pack(array))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("value", [b"", b"\x02", b"\x01\x05\0\0\0abcd"])
def test_unpacking_malformed_bytes_gives_none(value):
    assert unpack(value) is None


def test_checksum_is_of_key_and_value():
    assert checksum(b"a", b"bc") != checksum(b"a", b"bd")
    assert checksum(b"a", b"bc") != checksum(b"b", b"bc")


def arrays(*names):
    return {name: np.full(256, i, dtype=np.float32) for i, name in enumerate(names)}  # 1 KiB each


def test_cache_is_bounded():
    recent = RecentVectors(max_bytes=3 * 1024, max_age=100)
    recent.remember(arrays(b"a", b"b"))
    recent.remember(arrays(b"c", b"d"))
    assert set(recent.get_many([b"a", b"b", b"c", b"d"])) == {b"b", b"c", b"d"}
    recent.remember(arrays(b"b"))  # read again: not the oldest any more
    recent.remember(arrays(b"e"))
    assert set(recent.get_many([b"a", b"b", b"c", b"d", b"e"])) == {b"b", b"d", b"e"}


def test_old_arrays_are_read_from_the_file_again(monkeypatch):
    now = 0.0
    monkeypatch.setattr(_connection.time, "monotonic", lambda: now)
    recent = RecentVectors(max_age=100)
    recent.remember(arrays(b"a"))
    assert recent.get_many([b"a"])
    now = 101.0
    assert not recent.get_many([b"a"])


def test_a_store_caches_a_vector_until_it_is_deleted(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.put_many(arrays(b"a"))
    first = store.get_many([b"a"])[b"a"]
    assert store.get_many([b"a"])[b"a"] is first
    assert not first.flags.writeable
    store.clear()
    assert store.get_many([b"a"]) == {}
    store.put_many({b"a": np.ones(2, np.float32)})
    store.get_many([b"a"])
    store.prune(0)
    assert store.get_many([b"a"]) == {}
    store.close()
