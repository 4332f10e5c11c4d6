import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skmm.exceptions import CellTypeError
from skmm.readers import read_text
from skmm.readers._source import digest_bytes
from skmm.readers._text import digest_text


@given(st.text())
def test_a_string_is_kept_character_by_character(text):
    assert read_text(text) == text
    assert read_text(np.str_(text)) == np.str_(text)


def test_the_result_is_a_plain_str():
    assert type(read_text(np.str_("a"))) is str

    class Tag(str):
        def __str__(self):
            return "something else"

    assert read_text(Tag("a")) == "a"
    assert type(read_text(Tag("a"))) is str


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (3, "3"),
        (-3, "-3"),
        (10**30, "1" + "0" * 30),
        (np.int64(3), "3"),
        (np.uint8(3), "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (0.1, "0.1"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.1), "0.1"),
        (np.float16(0.1), "0.1"),
        (np.float16(3), "3"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        (np.float32("-inf"), "-inf"),
        (True, "True"),
        (np.bool_(False), "False"),
    ],
)
def test_numbers_have_one_spelling(cell, text):
    assert read_text(cell) == text
    assert type(read_text(cell)) is str


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_integers_that_became_floats_are_spelled_as_integers(number):
    assert read_text(float(number)) == read_text(number) == str(number)


@given(st.floats(allow_nan=False))
def test_a_spelled_float_reads_back(number):
    assert float(read_text(number)) == number


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (b"abc", "bytes.*Decode it first"),
        (bytearray(b"abc"), "bytearray.*Decode it first"),
        (np.bytes_(b"abc"), "bytes_.*Decode it first"),
        ({"a": 1}, "dict"),
        (["a"], "list"),
        (("a",), "tuple"),
        (np.array("a"), "ndarray"),
        (np.array(["a"]), "ndarray"),
        (Image.new("L", (1, 1)), "Image"),
        (Path("a.txt"), "Path"),
        (object(), "object"),
        (1j, "complex"),
        (Decimal(1), "Decimal"),
        (datetime.date(2020, 1, 1), "date"),
        (np.datetime64("2020-01-01"), "datetime64"),
        (np.timedelta64(1, "s"), "timedelta64"),
        # A missing cell must not become the text "nan".
        (None, "NoneType.*absent text give None"),
        (float("nan"), "float that is not a number"),
        (np.float32("nan"), "float32 that is not a number"),
        (pd.NA, "NAType"),
        (pd.NaT, "NaTType"),
    ],
)
@pytest.mark.parametrize("read", [read_text, digest_text])
def test_other_cells_are_refused_by_type(read, cell, name):
    with pytest.raises(CellTypeError, match=f"Cannot read a text from a cell of type .*{name}"):
        read(cell)


@given(st.text(), st.text())
def test_digest_is_equal_where_texts_are(a, b):
    assert (digest_text(a) == digest_text(b)) == (a == b)


def test_digest_of_lone_surrogates():
    broken = "\ud83d\ude00"
    assert digest_text(broken) != digest_text("\U0001f600")
    assert len({digest_text(t) for t in ("\ud83d", "\ud83e", "?", "\ufffd")}) == 4


def test_digest_follows_the_reading():
    assert digest_text(3.0) == digest_text(np.int8(3)) == digest_text(np.str_("3"))
    assert digest_text("3.0") != digest_text(3.0)


def test_digest_is_not_that_of_a_file_and_never_changes():
    assert digest_text("abc") != digest_bytes(b"abc")
    # Stores outlive a process, so this digest must not change.
    assert digest_text("abc").hex() == "1eff8b139e288f8d37ca65ae686e28ea"
