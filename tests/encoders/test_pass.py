"""One pass of cells: chunks, claims of other workers, released claims."""

import gc

import numpy as np
import pandas as pd
import pytest
import torch
from counting import CountingModule, lines

from skmm import ModuleEncoder, TextEncoder
from skmm.backbones._pretrained import _loading
from skmm.encoders import EmbeddingStore
from skmm.encoders._engines._base import BackboneEngine, Runtime
from skmm.encoders._pass import encode_once


class MemoryStore:
    """A store in memory; another worker has claimed some of its keys."""

    def __init__(self, busy=()):
        self.kept = {}
        self.busy = set(busy)
        self.claimed = []
        self.released = []
        self.counted = {}
        self.on_second_look = dict.fromkeys(busy)

    def get_many(self, keys):
        return {key: self.kept[key] for key in keys if key in self.kept}

    def put_many(self, items):
        self.kept |= items

    def claim(self, keys):
        granted = [key for key in keys if key not in self.busy]
        self.claimed += granted
        return granted

    def release(self, keys):
        self.released += keys

    def count(self, **increments):
        self.counted = increments


def value(key):
    return np.array([float(key)], dtype=np.float32)


def one_batch(missing):
    yield list(missing)


def encode(batches, missing):
    for keys in batches:
        yield keys, [value(key) for key in keys]


def chunks(*contents):
    for content in contents:
        yield {key: list(places) for key, places in content.items()}


A, B, C, D = (str(i).encode() for i in range(4))


def test_a_content_of_two_chunks_is_encoded_once():
    store = MemoryStore()
    first, second = {A: [(0, 0), (0, 2)], B: [(0, 1)]}, {A: [(0, 3)], C: [(0, 4)]}
    answers = list(encode_once(store, chunks(first, second), one_batch, encode, counted=True))
    rows = {row: array[0] for places, array in answers for _, row in places}
    assert rows == {0: 0, 1: 1, 2: 0, 3: 0, 4: 2}
    assert store.claimed == [A, B, C]
    assert store.counted == {"rows": 5, "looked_up": 4, "found": 1, "encoded": 3}


def test_contents_that_another_worker_encodes_come_last():
    store = MemoryStore(busy=[A])
    order = []

    def noting(batches, missing):
        for keys, arrays in encode(batches, missing):
            order.extend(keys)
            if C in keys:  # the other worker is done in the meantime
                store.kept[A] = value(A)
            yield keys, arrays

    first, second = {A: [(0, 0)], B: [(0, 1)]}, {A: [(0, 2)], C: [(0, 3)]}
    answers = list(encode_once(store, chunks(first, second), one_batch, noting, counted=True))
    rows = {row: array[0] for places, array in answers for _, row in places}
    assert rows == {0: 0, 1: 1, 2: 0, 3: 2}
    assert order == [B, C]
    assert store.counted["encoded"] == 2


def test_claim_of_a_dead_worker_is_granted_later():
    store = MemoryStore(busy=[A])
    looks = 0

    def granting(missing):
        nonlocal looks
        looks += 1
        if looks == 3:
            store.busy.clear()
        yield list(missing)

    one = chunks({A: [(0, 0)]})
    answers = list(encode_once(store, one, granting, encode, counted=True))
    assert answers[0][1][0] == 0
    assert store.claimed == [A]


def test_claims_are_released_on_an_error():
    store = MemoryStore()

    def failing(batches, missing):
        for keys in [list(batches)[0]]:
            yield keys[:1], [value(keys[0])]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(encode_once(store, chunks({A: [(0, 0)], B: [(0, 1)]}), one_batch, failing, counted=1))
    assert store.released == [B]
    assert store.counted["encoded"] == 1


def test_unreadable_content_gives_none_and_its_claim_is_released():
    store = MemoryStore()

    def unreadable(batches, missing):
        for keys in batches:
            yield keys, [None if key == B else value(key) for key in keys]

    both = chunks({A: [(0, 0)], B: [(0, 1)]})
    answers = dict(
        (places[0][1], array)
        for places, array in encode_once(store, both, one_batch, unreadable, counted=True)
    )
    assert answers[1] is None
    assert store.released == [B]
    assert store.counted == {"rows": 2, "looked_up": 2, "found": 0, "encoded": 1}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(ModuleEncoder, "chunk_size", 16)
    monkeypatch.setattr(TextEncoder, "chunk_size", 16)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_do_not_change_the_result(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    cells = [vectors[i] for i in rng.integers(0, 50, 200)]
    X = pd.DataFrame({"cell": pd.Series(cells, dtype=object)})
    X.loc[rng.random(200) < 0.2, "cell"] = None
    n_distinct = len({cell.tobytes() for cell in X["cell"].dropna()})
    log = tmp_path / "log"
    encoder = ModuleEncoder(CountingModule(log), batch_size=8, store=tmp_path / "store")
    features = encoder.fit_transform(X)
    assert len(lines(log)) == n_distinct
    stats = EmbeddingStore(tmp_path / "store").stats()
    assert stats["rows"] == X["cell"].notna().sum()
    weight = encoder.module.weight.detach().numpy()
    for row, cell in enumerate(X["cell"]):
        expected = np.full(3, np.nan) if cell is None else cell @ weight
        np.testing.assert_allclose(features[row], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_only_a_few_batches_are_in_memory(tmp_path, monkeypatch):
    """``transform`` with ``out`` holds some batches, not all vectors."""
    alive = most = 0

    class Watched(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    run = BackboneEngine.run

    def watched(self, prepared, runtime, *, sequence):
        nonlocal alive, most
        arrays = [a.copy().view(Watched) for a in run(self, prepared, runtime, sequence=sequence)]
        alive += len(arrays)
        most = max(most, alive)
        return arrays

    monkeypatch.setattr(BackboneEngine, "run", watched)
    X = pd.DataFrame({"cell": list(np.eye(4, dtype=np.float32)[np.arange(400) % 4] * np.c_[1:401])})
    encoder = ModuleEncoder(CountingModule(tmp_path / "log"), batch_size=8, store=False).fit(X)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (400, 3))
    gc.collect()
    assert encoder.transform(X, out=out) is out
    assert np.isfinite(out).all()
    assert most <= 4 * 8


class TestOut:
    X = pd.DataFrame({"text": ["a coat", None, "a hat", "a coat"]})

    def test_equals_transform_and_returns_out(self, tmp_path, tiny_bert):
        encoder = TextEncoder(str(tiny_bert)).fit(self.X)
        expected = encoder.transform(self.X)
        out = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float32, expected.shape)
        assert encoder.transform(self.X, out=out) is out
        out.flush()
        np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), expected)

    def test_engines_without_a_store_accept_it(self):
        encoder = TextEncoder("tfidf", n_components=2, random_state=0).fit(self.X)
        out = np.zeros((4, 2), dtype=np.float32)
        np.testing.assert_array_equal(encoder.transform(self.X, out=out), encoder.transform(self.X))

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (np.zeros((4, 3), np.float32), r"float32 of shape \(4, 3\).*shape \(4, 2\)"),
            (np.zeros((4, 2)), r"float64.*Give a float32"),
            ([[0.0, 0.0]] * 4, "list"),
        ],
    )
    def test_wrong_out_is_refused(self, out, message):
        encoder = TextEncoder("tfidf", n_components=2).fit(self.X)
        with pytest.raises(ValueError, match=f"TextEncoder cannot write to out.*{message}"):
            encoder.transform(self.X, out=out)

    def test_read_only_out_is_refused(self):
        encoder = TextEncoder("tfidf", n_components=2).fit(self.X)
        out = np.zeros((4, 2), np.float32)
        out.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            encoder.transform(self.X, out=out)

    def test_out_is_not_metadata(self):
        assert not hasattr(TextEncoder, "set_transform_request")


def test_text_batches_have_similar_lengths_and_a_token_limit(tiny_bert):
    """64 tokens per text: many short texts or few long ones."""
    encoder = TextEncoder(str(tiny_bert), batch_size=2, max_length=60, store=False)
    rng = np.random.default_rng(0)
    texts = ["a " * int(n) for n in rng.integers(1, 58, 60)]
    X = pd.DataFrame({"text": texts})
    encoder.fit(X)
    encoder.batch_size = 16
    runtime = Runtime.of(encoder)
    engine = encoder._engine
    lengths = engine.backbone_on(runtime).lengths(texts)
    batches = list(engine.batches(texts, runtime))
    assert sorted(i for batch in batches for i in batch) == list(range(60))
    padded = [max(lengths[i] for i in batch) * len(batch) for batch in batches]
    assert max(padded) <= 64 * 16
    assert max(map(len, batches)) <= 16
    waste = sum(padded) / sum(lengths)
    plain = [lengths[i : i + 16] for i in range(0, 60, 16)]
    assert waste < sum(max(part) * len(part) for part in plain) / sum(lengths)
    # A text beyond the limit is a batch of its own.
    tight = list(engine.batches(texts, runtime._replace(batch_size=1)))
    assert [len(batch) for batch in tight] == [1] * 60


def test_half_precision_is_autocast_over_full_weights(tiny_bert):
    X = pd.DataFrame({"text": ["a coat", "a hat and a scarf", "shoes"]})
    full = TextEncoder(str(tiny_bert), dtype="float32").fit(X)
    half = TextEncoder(str(tiny_bert), dtype="bfloat16").fit(X)
    a, b = full.transform(X), half.transform(X)
    assert b.dtype == np.float32
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(b, a, atol=0.1)
    module = half._engine.backbone_on(Runtime.of(half))
    assert {p.dtype for p in module.parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_model_is_compiled_once_and_stored_separately(tiny_bert, monkeypatch, tmp_path):
    X = pd.DataFrame({"text": ["a coat", "a hat and a scarf", "shoes"]})
    compiled = []
    compile_ = torch.compile

    def eagerly(module, **options):
        compiled.append(options)
        # Traced, but run by Python: machine code needs a compiler.
        return compile_(module, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", eagerly)
    monkeypatch.setattr(_loading, "_COMPILED", _loading.LRUCache(4))
    plain = TextEncoder(str(tiny_bert), store=tmp_path).fit(X)
    expected = plain.transform(X)
    for _ in range(2):
        encoder = TextEncoder(str(tiny_bert), compile=True, store=tmp_path).fit(X)
        np.testing.assert_allclose(encoder.transform(X), expected, atol=1e-5)
    assert compiled == [{"dynamic": True}]
    assert EmbeddingStore(tmp_path).stats()["encoded"] == 6
