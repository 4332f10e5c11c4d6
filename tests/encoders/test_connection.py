"""The file of a store: journal modes, folders without shared memory, read-only folders."""

import os
import sqlite3
import sys

import numpy as np
import pytest
from processes import run
from sharing import check_sharing

from skmm.encoders import EmbeddingStore
from skmm.encoders._store import _connection
from skmm.exceptions import StoreWarning

# SQLite as on a file system without shared memory, where WAL is not available.
NO_SHARED_MEMORY = """
import sqlite3
sqlite3_connect = sqlite3.connect

def connect(path, uri=False, **options):
    return sqlite3_connect(f"file:{path}?vfs=unix-dotfile", uri=True, **options)

sqlite3.connect = connect
"""
# A network file system.
ON_NETWORK = """
from bare_store import _connection
_connection.is_on_network = lambda folder: True
"""


@pytest.fixture
def no_shared_memory(monkeypatch):
    if os.name == "nt":
        pytest.skip("unix-dotfile is a part of SQLite on Unix")
    monkeypatch.setattr(sqlite3, "connect", sqlite3.connect)  # put back afterwards
    exec(NO_SHARED_MEMORY, {})


@pytest.fixture
def on_network(monkeypatch):
    monkeypatch.setattr(_connection, "is_on_network", lambda folder: True)


def journal(store):
    return _connection.connect(store.folder).execute("PRAGMA journal_mode").fetchone()[0]


def pragma(store, name):
    return _connection.connect(store.folder).execute(f"PRAGMA {name}").fetchone()[0]


def one(value=1.0):
    return {b"k": np.full(3, value, np.float32)}


def check_shared(store, preambles):
    check_sharing(store, preambles, n_keys=60, n_at_once=6)
    check = _connection.connect(store.folder).execute("PRAGMA integrity_check").fetchone()
    assert check == ("ok",)


class TestJournal:
    def test_wal_on_a_local_disk(self, store):
        store.put_many(one())
        assert (journal(store), pragma(store, "synchronous")) == ("wal", 1)
        assert pragma(store, "mmap_size") > 0

    def test_without_shared_memory(self, no_shared_memory, store):
        """All methods work without a warning: warnings are errors here."""
        store.put_many(one())
        assert (journal(store), pragma(store, "synchronous")) == ("delete", 2)
        assert pragma(store, "mmap_size") == 0
        np.testing.assert_array_equal(store.get_many([b"k"])[b"k"], one()[b"k"])
        assert store.claim([b"k", b"j"]) == [b"j"]
        store.release([b"j"])
        store.count(rows=2)
        store.prune(max_size=10**6)
        assert store.stats()["n_embeddings"] == 1
        store.clear()
        assert not any(store.stats().values())
        assert [path.suffix for path in store.folder.iterdir()] == [".sqlite3"]

    def test_in_a_network_folder(self, on_network, store):
        store.put_many(one())
        assert (journal(store), pragma(store, "mmap_size")) == ("delete", 0)
        assert b"k" in store.get_many([b"k"])
        assert [path.suffix for path in store.folder.iterdir()] == [".sqlite3"]

    @pytest.mark.parametrize("without", ["no_shared_memory", "on_network"])
    def test_a_wal_store_that_was_moved_to_such_a_folder(self, store, without, request):
        store.put_many(one())
        assert journal(store) == "wal"
        store.close()
        request.getfixturevalue(without)
        assert b"k" in store.get_many([b"k"])
        assert journal(store) == "delete"

    def test_is_never_changed_to_wal(self, store, monkeypatch):
        """Otherwise a machine with the file open in a network folder would change, too."""
        with monkeypatch.context() as patch:
            patch.setattr(_connection, "is_on_network", lambda folder: True)
            store.put_many(one())
            store.close()
        assert b"k" in store.get_many([b"k"])
        assert journal(store) == "delete"

    def test_while_another_process_has_it_in_wal(self, store, monkeypatch, on_network):
        """The second process cannot use the file, and warns once."""
        monkeypatch.setattr(_connection, "_OPEN_TIMEOUT", 0.1)
        store.folder.mkdir()
        _connection._make(store.folder / _connection._FILE, wal=True)
        other = _connection.Connection(store.folder / _connection._FILE, shared_memory=True)
        other.execute("INSERT INTO stat VALUES ('rows', 7)")
        with pytest.warns(StoreWarning, match="locked") as caught:
            assert store.get_many([b"k"]) == {}
            store.put_many(one())
            assert store.claim([b"k"]) == [b"k"]  # the work continues
        assert len(caught) == 1
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()
        _connection._refused.clear()  # as after ten minutes
        assert store.stats()["rows"] == 7
        assert journal(store) == "delete"

    def test_folder_without_links(self, store, monkeypatch):
        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
        store.put_many(one())
        assert b"k" in store.get_many([b"k"])
        assert journal(store) == "delete"
        assert [path.suffix for path in store.folder.iterdir()] == [".sqlite3"]


class TestProcesses:
    def test_without_shared_memory(self, no_shared_memory, store):
        check_shared(store, [NO_SHARED_MEMORY] * 2)
        assert journal(store) == "delete"

    def test_local_and_network_at_once(self, store):
        """A file server and its client, on a store that the client created."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_connection, "is_on_network", lambda folder: True)
            store.stats()
            store.close()
        check_shared(store, [ON_NETWORK, "", ON_NETWORK])
        assert journal(store) == "delete"

    def test_a_wal_store_is_changed_back_once(self, store):
        store.put_many(one())
        store.close()
        check_shared(store, [ON_NETWORK] * 3)
        assert b"k" in store.get_many([b"k"])
        assert journal(store) == "delete"


MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:40 / /home rw,relatime shared:2 master:3 - nfs4 server:/home rw,vers=4.2
31 30 8:1 / /home/me/fast\040disk rw - xfs /dev/sda1 rw
32 27 0:41 / /mnt/share rw - cifs //server/share rw
33 27 0:42 / /mnt/cluster rw - lustre mds:/fs rw
34 27 0:43 / /mnt/far rw - fuse.sshfs me@far: rw
35 27 0:44 / /mnt/box rw - fuse.fuse-overlayfs overlay rw
36 27 8:2 / /mnt/usb rw - fuseblk /dev/sdb1 rw
37 27 8:3 / /mnt/twice rw - ext4 /dev/sdc1 rw
38 37 0:45 / /mnt/twice rw - nfs server:/twice rw
a line that is none
"""


class TestMounts:
    @pytest.mark.parametrize(
        ("path", "network"),
        [
            ("/", False),
            ("/tmp/store", False),
            ("/home", True),
            ("/home/me/store", True),
            ("/homework", False),
            ("/home/me/fast disk/store", False),
            ("/mnt/share/store", True),
            ("/mnt/cluster", True),
            ("/mnt/far/store", True),
            ("/mnt/box/store", False),
            ("/mnt/usb", False),
            ("/mnt/twice/store", True),
        ],
    )
    @pytest.mark.skipif(os.name == "nt", reason="paths of Linux")
    def test_by_the_table_of_mounts(self, path, network, tmp_path, monkeypatch):
        table = tmp_path / "mountinfo"
        table.write_text(MOUNTS)
        monkeypatch.setattr(_connection, "_MOUNTS", table)
        monkeypatch.setattr(os.path, "realpath", str)
        assert _connection.is_on_network(path) is network

    def test_links_are_followed(self, tmp_path, monkeypatch):
        table = tmp_path / "mountinfo"
        far = tmp_path.resolve() / "far"
        table.write_text(f"1 1 0:1 / / rw - ext4 a rw\n2 1 0:2 / {far} rw - nfs b rw\n")
        far.mkdir()
        (tmp_path / "near").symlink_to(far)
        monkeypatch.setattr(_connection, "_MOUNTS", table)
        assert _connection.is_on_network(tmp_path / "near")
        assert not _connection.is_on_network(tmp_path)
        store = EmbeddingStore(tmp_path / "near" / "store")
        store.put_many(one())
        assert journal(store) == "delete"
        store.close()

    def test_without_a_table(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_connection, "_MOUNTS", tmp_path / "absent")
        assert not _connection.is_on_network(tmp_path)


NO_RIGHTS = """
import ctypes, struct
# Drop the rights of root, which may write everywhere.
assert ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gives up rights as on Linux")
@pytest.mark.parametrize("preamble", ["", ON_NETWORK], ids=["local", "network"])
def test_sealed_folder_is_read(store, preamble):
    """A read-only folder: stored arrays are found, and one warning is shown."""
    store.put_many(one(2.5))
    store.close()
    code = """
    import sys, warnings
    import numpy as np
    from bare_store import EmbeddingStore
    store = EmbeddingStore(sys.argv[1])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert store.get_many([b"k", b"j"])[b"k"].tolist() == [2.5] * 3
        assert store.claim([b"j"]) == [b"j"]
        for _ in range(3):
            store.put_many({b"j": np.zeros(1, np.float32)})
            store.count(rows=1)
        assert store.get_many([b"k", b"j"]).keys() == {b"k"}
    print(len(warned), warned[0].message)
    """
    for path in store.folder.iterdir():
        path.chmod(0o400)
    store.folder.chmod(0o500)
    try:
        said = run(preamble, NO_RIGHTS, code, arguments=[store.folder])
    finally:
        store.folder.chmod(0o700)
    assert said.startswith("1 ") and "readonly" in said


@pytest.mark.skipif(os.name == "nt", reason="limits of Unix")
def test_full_disk(store):
    """The system limits the size of the file, like a full disk or a quota."""
    code = """
    import resource, signal, sys, warnings
    import numpy as np
    from bare_store import EmbeddingStore
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    store = EmbeddingStore(sys.argv[1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(200):
            key = i.to_bytes(4, "big")
            assert store.claim([key]) == [key]
            store.put_many({key: np.full(1000, i, np.float32)})
            for found, value in store.get_many([key]).items():
                assert (value == int.from_bytes(found, "big")).all()
    print(*{str(w.message) for w in caught}, sep="\\n")
    """
    said = run(code, arguments=[store.folder])
    assert 1 <= said.count("cannot be used now") <= 2  # full or read-only
    found = store.get_many([i.to_bytes(4, "big") for i in range(200)])
    assert 0 < len(found) < 200
    assert all((value == int.from_bytes(key, "big")).all() for key, value in found.items())
    store.put_many(one())  # there is room again
    assert b"k" in store.get_many([b"k"])
