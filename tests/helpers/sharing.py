"""Processes that claim and encode the same contents in one store at the same time."""

from processes import start

_SHARE = """
import sys
import numpy as np
from bare_store import EmbeddingStore
store, n_keys, n_at_once = EmbeddingStore(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
mine = 0
for start in range(0, n_keys, n_at_once):
    keys = [i.to_bytes(4, "big") for i in range(start, start + n_at_once)]
    granted = store.claim(keys)
    store.put_many({k: np.full(64, int.from_bytes(k, "big"), np.float32) for k in granted})
    mine += len(granted)
    for key, value in store.get_many(keys).items():
        assert (value == int.from_bytes(key, "big")).all()
print(mine)
"""


def check_sharing(store, preambles, *, n_keys, n_at_once):
    """Start a process per preamble; check that nothing is encoded twice, lost or changed."""
    arguments = [store.folder, n_keys, n_at_once]
    workers = [start(code, _SHARE, arguments=arguments) for code in preambles]
    answers = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    assert sum(map(int, answers)) == n_keys
    found = store.get_many([i.to_bytes(4, "big") for i in range(n_keys)])
    assert len(found) == n_keys
    for key, value in found.items():
        assert (value == int.from_bytes(key, "big")).all()
