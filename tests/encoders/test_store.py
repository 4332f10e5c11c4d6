import contextlib
import os
import pickle
import re
import sqlite3
import stat
import struct
import subprocess
import time
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from processes import command, run
from sharing import check_sharing

from skmm import TextEncoder, config_context, get_config, set_config
from skmm.encoders import EmbeddingStore
from skmm.encoders._store import _connection, _session, _store
from skmm.encoders._store._store import NullStore, resolve_store
from skmm.exceptions import StoreWarning


def file_of(store):
    return next(p for p in store.folder.iterdir() if p.suffix == ".sqlite3")


def test_stored_arrays_are_returned(store):
    items = {bytes([i]): np.full((i, 2), i, np.float32) for i in range(5)}
    store.put_many(items)
    found = store.get_many([*items, b"absent"])
    assert found.keys() == items.keys()
    for key, array in items.items():
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.slow
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements=st.floats(width=32, allow_nan=True),
    )
)
@settings(max_examples=50, deadline=None)
def test_any_array_is_returned_bit_by_bit(tmp_path_factory, array):
    store = EmbeddingStore(tmp_path_factory.getbasetemp() / "hypothesis-store")
    store.clear()
    store.put_many({b"k": array})
    found = store.get_many([b"k"])[b"k"]
    assert found.shape == array.shape
    np.testing.assert_array_equal(found.view(np.uint32), array.view(np.uint32))


def test_first_value_stays(store):
    store.put_many({b"k": np.zeros(2, np.float32)})
    store.put_many({b"k": np.ones(2, np.float32)})
    np.testing.assert_array_equal(store.get_many([b"k"])[b"k"], [0, 0])


def test_more_keys_than_sqlite_takes_at_once(store):
    items = {i.to_bytes(4, "big"): np.array([i], np.float32) for i in range(3000)}
    store.put_many(items)
    found = store.get_many(list(items))
    assert all(found[key][0] == items[key][0] for key in items)


@pytest.mark.parametrize("n", [7, 1200], ids=["a query", "three queries"])
def test_order_of_the_keys_does_not_matter(store, n):
    items = {i.to_bytes(4, "big"): np.array([i], np.float32) for i in range(n)}
    store.put_many(items)
    shuffled = np.random.default_rng(0).permutation(n).tolist()
    asked = [i.to_bytes(4, "big") for i in shuffled]
    found = EmbeddingStore(store.folder).get_many(asked)
    assert {key: array.tolist() for key, array in found.items()} == {
        key: array.tolist() for key, array in items.items()
    }


def test_another_process_reads_a_stored_array(store):
    store.put_many({b"k": np.array([1.5], np.float32)})
    code = (
        "import sys; from bare_store import EmbeddingStore;"
        "print(EmbeddingStore(sys.argv[1]).get_many([b'k'])[b'k'][0])"
    )
    assert run(code, arguments=[store.folder]).strip() == "1.5"


def test_files_are_private(store):
    store.put_many({b"k": np.zeros(1, np.float32)})
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    for path in store.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_flipped_bits_are_misses_and_are_replaced(store):
    items = {i.to_bytes(4, "big"): np.full(64, i, np.float32) for i in range(50)}
    store.put_many(items)
    with sqlite3.connect(file_of(store)) as raw:
        key, value = raw.execute("SELECT k, v FROM e LIMIT 1 OFFSET 7").fetchone()
        damaged = bytearray(value)
        damaged[30] ^= 1
        raw.execute("UPDATE e SET v = ? WHERE k = ?", (bytes(damaged), key))
    raw.close()
    with pytest.warns(StoreWarning, match="1 damaged"):
        found = store.get_many(list(items))
    assert found.keys() == items.keys() - {key}
    assert store.claim([key]) == [key]
    store.put_many({key: items[key]})
    np.testing.assert_array_equal(store.get_many([key])[key], items[key])


@pytest.mark.parametrize("damage", ["noise", "cut", "version"])
def test_damaged_file_is_renamed(store, damage):
    items = {i.to_bytes(4, "big"): np.full(64, i, np.float32) for i in range(500)}
    store.put_many(items)
    store.close()
    path = file_of(store)
    size = path.stat().st_size
    if damage == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(size))
    elif damage == "cut":
        with open(path, "r+b") as file:
            file.truncate(size // 2)
    else:
        with sqlite3.connect(path) as raw:
            raw.execute("PRAGMA user_version = 99")
        raw.close()
    with pytest.warns(StoreWarning, match="renamed to"):
        found = store.get_many(list(items))
    assert all(np.array_equal(found[k], items[k]) for k in found)  # nothing wrong
    assert any("damaged" in p.name for p in store.folder.iterdir())
    store.put_many(items)
    assert store.get_many(list(items)).keys() == items.keys()


def test_read_only_store_is_read(store):
    store.put_many({b"k": np.zeros(1, np.float32)})
    # Like a read-only folder, but also for root.
    _connection.connect(store.folder).execute("PRAGMA query_only = 1")
    with pytest.warns(StoreWarning, match="cannot be used now .*readonly"):
        store.put_many({b"j": np.zeros(1, np.float32)})
    assert store.get_many([b"k", b"j"]).keys() == {b"k"}


def test_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    store = EmbeddingStore(tmp_path / "file" / "below")
    with pytest.warns(StoreWarning, match="cannot be used"):
        assert store.get_many([b"k"]) == {}
    assert store.claim([b"k"]) == [b"k"]  # the work continues


def test_stats_and_clear(store):
    store.put_many({b"k": np.zeros(4, np.float32)})
    store.count(rows=5, looked_up=3, found=2, encoded=1)
    store.count(rows=1)
    stats = store.stats()
    assert stats["n_bytes"] >= 16
    assert {k: v for k, v in stats.items() if k != "n_bytes"} == {
        "rows": 6,
        "looked_up": 3,
        "found": 2,
        "encoded": 1,
        "n_embeddings": 1,
    }
    store.clear()
    assert set(store.stats().values()) == {0}


def test_settings_choose_the_store(tmp_path):
    with config_context(store=tmp_path / "chosen"):
        assert resolve_store(None).folder == tmp_path / "chosen"
        assert resolve_store(tmp_path / "own").folder == tmp_path / "own"
        assert isinstance(resolve_store(False), NullStore)
    with config_context(store=False):
        assert isinstance(resolve_store(None), NullStore)
    assert get_config()["store"] is None
    with pytest.raises(TypeError, match="store must be a folder"):
        set_config(store=3)


def test_session_store_is_private_shared_and_removed(tmp_path):
    """The store of a process is in a private folder, which is removed at its exit."""
    code = """
import os, sys
import numpy as np
from bare_store import EmbeddingStore
store = EmbeddingStore()
store.put_many({b"k": np.zeros(1, np.float32)})
assert os.stat(store.folder).st_mode & 0o077 == 0
print(store.folder)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert str(tmp_path) in run(code, env=environment)
    assert list(tmp_path.glob("skmm-*")) == []


@pytest.mark.slow
def test_folder_of_a_killed_process_is_removed(tmp_path):
    code = """
import os
from bare_store import EmbeddingStore
print(EmbeddingStore().folder, flush=True)
if "die" in os.environ:
    os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run(command(code), env={**environment, "die": "1"}, check=False)
    assert len(list(tmp_path.glob("skmm-*"))) == 1
    run(code, env=environment)
    assert list(tmp_path.glob("skmm-*")) == []


def vectors(n, width=256):
    return {i.to_bytes(4, "big"): np.full(width, i, np.float32) for i in range(n)}


def test_least_recently_used_are_evicted(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "USE_RESOLUTION", 0)
    monkeypatch.setattr(_connection, "USE_RESOLUTION", 0)
    store = EmbeddingStore(tmp_path / "store", max_size=1_000_000)
    clock = iter(range(1000, 9000))
    monkeypatch.setattr(_store.time, "time", lambda: next(clock))
    items = vectors(2000)  # 2 MB
    keys = list(items)
    for first in range(0, 700, 100):
        store.put_many({key: items[key] for key in keys[first : first + 100]})
    assert len(store.get_many(keys[:700])) == 700
    store.get_many(keys[:50])  # the oldest, but used last
    for first in range(700, 2000, 100):
        store.get_many(keys[:50])
        store.put_many({key: items[key] for key in keys[first : first + 100]})
    found = store.get_many(keys)
    assert set(keys[:50]) <= found.keys()
    assert set(keys[1900:]) <= found.keys()
    assert not set(keys[100:700]) & found.keys()
    assert sum(p.stat().st_size for p in store.folder.glob("*.sqlite3")) < 1_200_000
    store.close()


def test_prune_shrinks_the_file(store):
    items = vectors(2000)
    store.put_many(items)
    before = sum(path.stat().st_size for path in store.folder.iterdir())
    store.prune(max_size=400_000)
    after = sum(path.stat().st_size for path in store.folder.iterdir())
    assert after < 500_000 < before
    found = store.get_many(list(items))
    assert 0 < len(found) < 500
    assert all(np.array_equal(found[k], items[k]) for k in found)


@pytest.mark.slow
@pytest.mark.parametrize("permanent", [True, False], ids=["folder", "session"])
def test_max_size_holds_in_workers(tmp_path, permanent):
    """The workers are started by loky."""

    def fill(sent):
        """Fill the store, as encoders in a worker do."""
        import os

        import numpy as np

        from skmm.encoders._store._store import resolve_store

        store = resolve_store(None)
        for i in range(0, 1000, 10):  # 1 MB
            keys = [j.to_bytes(4, "big") for j in range(i, i + 10)]
            store.put_many({key: np.zeros(250, np.float32) for key in keys})
        return os.getpid(), store.max_size, str(store.folder), store.stats()["n_bytes"]

    chosen = EmbeddingStore(tmp_path / "store" if permanent else None, max_size=300_000)
    with config_context(store=chosen):
        # A worker finds the store when it unpickles an encoder.
        work = joblib.delayed(fill)(TextEncoder("tfidf"))
        answers = joblib.Parallel(n_jobs=2, backend="loky")([work, work])
        EmbeddingStore().prune()
        assert 0 < sum(p.stat().st_size for p in chosen.folder.glob("*.sqlite3")) <= 300_000
    for pid, max_size, folder, n_bytes in answers:
        assert pid != os.getpid()
        assert max_size == 300_000
        assert folder == str(chosen.folder)
        assert 0 < n_bytes <= 300_000
    chosen.clear()
    chosen.close()


def test_workers_use_the_session_instead_of_a_user_defined_store(tmp_path):
    """Other processes cannot find a store without a folder."""

    class Own:
        get_many = None

    with config_context(store=Own()):
        token = _session.token_for_workers()
    assert (_session.session_folder() / "location.json").read_text() == "null"
    assert token in _session.session_folder().name


def test_a_problem_is_reported_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(StoreWarning) as caught:
        for _ in range(3):
            store = EmbeddingStore(tmp_path / "file" / "below")
            store.get_many([b"k"])
            store.put_many({b"k": np.zeros(1, np.float32)})
            store.claim([b"k"])
            store.count(rows=1)
    assert len(caught) == 1


def test_arrays_are_stored_without_pickle(store):
    """An array is stored as its shape and numbers."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    store.put_many({b"k": array})
    with contextlib.closing(sqlite3.connect(file_of(store))) as raw:
        (value,) = raw.execute("SELECT v FROM e").fetchone()
        kinds = {
            row[0] for row in raw.execute("SELECT typeof(v) FROM e UNION SELECT typeof(k) FROM e")
        }
    assert value == struct.pack("<BII6f", 2, 2, 3, *range(6))
    assert kinds == {"blob"}
    source = "".join(Path(module.__file__).read_text() for module in (_store, _connection))
    assert not re.search(r"import (pickle|joblib|marshal|dill)|allow_pickle|\beval\(", source)


def test_malformed_bytes_are_a_miss(store):
    """The checksum is right, but the bytes are a pickle, nothing, or cut off."""
    items = {b"p": pickle.dumps(os.getcwd), b"n": b"", b"t": b"\x01\x04"}
    store.stats()
    rows = [(key, value, zlib.crc32(key + value), 0) for key, value in items.items()]
    _connection.connect(store.folder).executemany("INSERT INTO e VALUES (?, ?, ?, ?)", rows)
    with pytest.warns(StoreWarning, match="3 damaged"):
        assert store.get_many(list(items)) == {}
    assert store.stats()["n_embeddings"] == 0


@pytest.mark.slow
def test_eight_processes_on_one_store(store):
    """All of them write the same keys and read them at the same time."""
    check_sharing(store, [""] * 8, n_keys=400, n_at_once=20)


@pytest.mark.slow
def test_processes_that_create_the_same_store_at_once(tmp_path):
    """Four processes create the same twenty stores; none fails."""
    code = """
import sys, time
import numpy as np
from bare_store import EmbeddingStore
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
for i in range(20):
    store = EmbeddingStore(f"{sys.argv[1]}/{i}")
    store.put_many({b"k": np.zeros(1, np.float32)})
    assert b"k" in store.get_many([b"k"])
"""
    at = time.time() + 2
    racers = [subprocess.Popen(command(code, arguments=[tmp_path, at])) for _ in range(4)]
    assert [racer.wait(timeout=300) for racer in racers] == [0, 0, 0, 0]


def test_full_disk(store):
    """SQLite's limit on pages replaces a full disk."""
    store.put_many(vectors(10))
    connection = _connection.connect(store.folder)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.warns(StoreWarning, match=r"cannot be used now \(database or disk is full\)"):
        store.put_many(vectors(2000))
    found = store.get_many(list(vectors(2000)))
    assert len(found) == 10
    assert store.claim([b"new"]) == [b"new"]
