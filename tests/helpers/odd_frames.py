"""Random frames of any dtype, names, labels and cells."""

import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from columns import objects
from hypothesis import strategies as st

TEXTS = ["a warm coat", "", " ", "fell apart", "ok", "né à Zürich", "\x00", "<b>", "a" * 300, "3"]
PNG = b"\x89PNG\r\n\x1a\n"


class Hostile:
    """Object whose methods raise."""

    def __str__(self):
        raise RuntimeError("no words for it")

    __repr__ = __str__

    def __eq__(self, other):
        raise RuntimeError("nor is it like anything")

    __hash__ = None


def some(rng, n, share=0.25):
    """Sample the rows without a cell."""
    return rng.random(n) < share


def with_missing(cells, rng, by=None):
    cells = list(cells)
    for i in np.flatnonzero(some(rng, len(cells))):
        cells[i] = by
    return objects(cells)


def image(rng, channels=3):
    return rng.integers(0, 256, (rng.integers(3, 9), rng.integers(3, 9), channels)).astype("uint8")


def arrays(rng, n, shape):
    return [rng.normal(size=shape).astype(np.float32) for _ in range(n)]


# --- usual columns ------------------------------------------

ORDINARY = {
    "floats": lambda rng, n: pd.Series(np.where(some(rng, n), np.nan, rng.normal(size=n))),
    "integers": lambda rng, n: pd.Series(rng.integers(-5, 5, n)),
    "booleans": lambda rng, n: pd.Series(rng.random(n) < 0.5),
    "words": lambda rng, n: pd.Series(rng.choice(["red", "blue", "green"], n), dtype=object),
    "texts": lambda rng, n: with_missing(rng.choice(TEXTS[:6], n).tolist(), rng),
    "category": lambda rng, n: pd.Series(
        pd.Categorical(rng.choice(["S", "M"], n), categories=["S", "M", "L"], ordered=True)
    ),
    "dates": lambda rng, n: pd.Series(pd.date_range("2020-01-01", periods=n)),
    "vectors": lambda rng, n: with_missing(arrays(rng, n, 3), rng),
    "images": lambda rng, n: with_missing([image(rng) for _ in range(n)], rng),
    "audio_clips": lambda rng, n: with_missing(
        [rng.normal(size=rng.integers(1, 900)).astype("f4") / 9 for _ in range(n)], rng
    ),
    "series": lambda rng, n: with_missing(
        [rng.normal(size=(rng.integers(1, 9), 2)) for _ in range(n)], rng
    ),
    "points": lambda rng, n: with_missing(
        [rng.normal(size=(rng.integers(1, 9), 4)) for _ in range(n)], rng
    ),
    "clips": lambda rng, n: with_missing(
        [rng.integers(0, 256, (2, 5, 4, 3)).astype("uint8") for _ in range(n)], rng
    ),
}

# --- other columns ---------------------------------------------------------------------------

ODD = {
    "infinite": lambda rng, n: pd.Series(rng.choice([np.inf, -np.inf, 1.0, np.nan], n)),
    "huge": lambda rng, n: pd.Series(rng.choice([1.7e308, -1.7e308, 1e-308], n)),
    "long integers": lambda rng, n: objects([10 ** int(rng.integers(0, 400)) for _ in range(n)]),
    "unsigned": lambda rng, n: pd.Series(rng.integers(0, 2**63, n).astype("uint64") * 2),
    "half": lambda rng, n: pd.Series(rng.normal(size=n).astype("float16").astype("float32")),
    "nullable": lambda rng, n: pd.Series(rng.integers(0, 3, n), dtype="Int64").mask(some(rng, n)),
    "nullable floats": lambda rng, n: pd.Series(rng.normal(size=n), dtype="Float32").mask(
        some(rng, n)
    ),
    "nullable booleans": lambda rng, n: pd.Series(rng.random(n) < 0.5, dtype="boolean").mask(
        some(rng, n)
    ),
    "strings": lambda rng, n: pd.Series(rng.choice(TEXTS, n), dtype="string").mask(some(rng, n)),
    "arrow strings": lambda rng, n: pd.Series(
        rng.choice(TEXTS, n).tolist(), dtype="string[pyarrow]"
    ),
    "arrow integers": lambda rng, n: pd.Series(
        rng.integers(0, 4, n).tolist(), dtype="int32[pyarrow]"
    ),
    "arrow dates": lambda rng, n: pd.Series(
        pd.date_range("2020", periods=n).tolist(), dtype="timestamp[ns][pyarrow]"
    ),
    "complex": lambda rng, n: pd.Series(rng.normal(size=n) + 1j),
    "sparse": lambda rng, n: pd.Series(pd.arrays.SparseArray(rng.integers(0, 2, n) * 1.0)),
    "zones": lambda rng, n: pd.Series(pd.date_range("2020", periods=n, tz="Europe/Rome")),
    "spans": lambda rng, n: pd.Series(pd.to_timedelta(rng.integers(0, 99, n), unit="h")),
    "periods": lambda rng, n: pd.Series(pd.period_range("2020", periods=n, freq="M")),
    "intervals": lambda rng, n: (
        pd.Series(pd.interval_range(0, n)) if n else pd.Series([], dtype=object)
    ),
    "numbers as categories": lambda rng, n: pd.Series(pd.Categorical(rng.integers(0, 3, n))),
    "categories with none": lambda rng, n: pd.Series(pd.Categorical([None] * n, categories=["a"])),
    "constant": lambda rng, n: pd.Series([1.5] * n, dtype=float),
    "constant text": lambda rng, n: objects(["same"] * n),
    "nothing": lambda rng, n: objects([None] * n),
    "no numbers": lambda rng, n: pd.Series([np.nan] * n, dtype=float),
    "decimals": lambda rng, n: objects(
        [rng.choice([Decimal("1.5"), Decimal("NaN"), Decimal("Infinity")]) for _ in range(n)]
    ),
    "fractions": lambda rng, n: objects([Fraction(int(k), 3) for k in rng.integers(0, 9, n)]),
    "days": lambda rng, n: objects([datetime.date(2020, 1, 1 + i % 28) for i in range(n)]),
    "times": lambda rng, n: objects([datetime.time(i % 24) for i in range(n)]),
    "bytes": lambda rng, n: objects(
        [[b"", PNG, b"text", bytearray(b"x")][i % 4] for i in range(n)]
    ),
    "paths": lambda rng, n: objects([Path("no/such/file.png"), "gone.wav", "x.mp4", ""] * n).head(
        n
    ),
    "lists": lambda rng, n: objects([[1.0] * int(k) for k in rng.integers(0, 4, n)]),
    "lists of words": lambda rng, n: objects([["a", "b"][: int(k)] for k in rng.integers(0, 3, n)]),
    "dicts": lambda rng, n: objects([{"a": i} for i in range(n)]),
    "sets": lambda rng, n: objects([{i} for i in range(n)]),
    "hostile": lambda rng, n: objects([Hostile() for _ in range(n)]),
    "functions": lambda rng, n: objects([len] * n),
    "frames": lambda rng, n: objects([pd.DataFrame({"a": [1.0, 2.0]})] * n),
    "empty arrays": lambda rng, n: objects([np.empty((0, 3)), np.empty(0)] * n).head(n),
    "unknown values": lambda rng, n: objects([np.full((2, 3), np.nan)] * n),
    "infinite arrays": lambda rng, n: objects([np.full(3, np.inf)] * n),
    "arrays of several widths": lambda rng, n: objects(
        [rng.normal(size=(3, int(k))) for k in rng.integers(1, 5, n)]
    ),
    "arrays of words": lambda rng, n: objects([np.array(["a", "b"])] * n),
    "arrays of objects": lambda rng, n: objects([np.array([None, {}], dtype=object)] * n),
    "five dimensions": lambda rng, n: objects([np.zeros((1, 1, 1, 1, 1))] * n),
    "numpy scalars": lambda rng, n: objects(list(rng.normal(size=n).astype("float16"))),
    "surrogates": lambda rng, n: objects(["\ud800 half a pair"] * n),
    "mixed": lambda rng, n: objects(
        [
            [1, "x", None, image(rng), b"y", {}, 2.5, np.nan, pd.NaT, ()][int(k)]
            for k in rng.integers(0, 10, n)
        ]
    ),  # fmt: skip
}
KINDS = ORDINARY | ODD

NAMES = ["a", "b", "c", "", "a b", "<script>", "x0", 0, 1, 2.5, ("a", 1), None, True]
LABELS = {
    "range": lambda rng, n: pd.RangeIndex(n),
    "backwards": lambda rng, n: pd.RangeIndex(n)[::-1],
    "shuffled": lambda rng, n: pd.Index(rng.permutation(n)),
    "repeated": lambda rng, n: pd.Index([7] * n),
    "words": lambda rng, n: pd.Index([f"row {i}" for i in range(n)]),
    "missing": lambda rng, n: pd.Index([None, np.nan, "x"] * n, dtype=object)[:n],
    "dates": lambda rng, n: pd.date_range("2020", periods=n),
    "several levels": lambda rng, n: pd.MultiIndex.from_arrays([[0] * n, list(range(n))]),
    "tuples": lambda rng, n: pd.Index([(i, "a") for i in range(n)], tupleize_cols=False),
}


@st.composite
def odd_frames(draw, likely=None, n_columns=None):
    """A frame.

    ``likely`` names kinds of columns that are drawn every other time; ``n_columns`` says how many
    columns there are, else one to three.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([8, 12, 5, 2, 1, 0]))
    width = n_columns or draw(st.integers(1, 3))
    anything = st.sampled_from([*ORDINARY, *ODD])
    kind = st.one_of(st.sampled_from(list(likely)), anything) if likely else anything
    if likely and draw(st.booleans()):  # a frame of usual columns
        kind = st.sampled_from(list(likely))
    columns = [KINDS[draw(kind)](rng, n).reset_index(drop=True) for _ in range(width)]
    frame = pd.concat(columns, axis=1) if n else pd.DataFrame({i: c for i, c in enumerate(columns)})
    if draw(st.booleans()):
        frame.columns = list("abc")[:width]
    else:
        frame.columns = pd.Index(
            draw(st.lists(st.sampled_from(NAMES), min_size=width, max_size=width)),
            tupleize_cols=False,
        )
    frame.index = LABELS[draw(st.sampled_from(list(LABELS)))](rng, n)
    return frame
