"""The page of a frame has the right numbers, runs nothing, and no cell raises an error."""

import io
import re
import shutil
import subprocess
import webbrowser
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from columns import objects as in_a_series
from hypothesis import given
from hypothesis import strategies as st
from odd_frames import Hostile
from PIL import Image

import skmm
from skmm import frame_report
from skmm._frame_report import _cells

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "rect", "path", "br", "link"}


class Page(HTMLParser):
    """Parser that collects the elements of a page and checks that they are closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.open, self.words = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def values(self, attribute):
        return [value for _, name, value in self.attributes if name == attribute]


def assert_harmless(text):
    page = Page(text)
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "div", "h1", "h2", "p", "table"),
        *("caption", "thead", "tbody", "tr", "th", "td", "a", "bdi", "span", "section", "ul"),
        *("li", "img", "svg", "rect", "path"),
    }
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for value in page.values("src"))
    assert all(value.startswith("#skmm-") for value in page.values("href"))
    anchors = {value.removeprefix("#") for value in page.values("href")}
    assert anchors <= set(page.values("id"))
    assert page.tags.count("img") == len([alt for alt in page.values("alt") if alt])
    assert page.tags.count("svg") == len([label for label in page.values("aria-label") if label])
    # Styles have no external references either, and the text can be encoded.
    assert "url(" not in text and "@import" not in text
    text.encode("utf-8")
    return page


def objects(cells):
    return in_a_series(cells).to_numpy()  # without labels, which a frame would align


def colored(color=(255, 0, 255), size=(60, 40)):
    return Image.new("RGB", size, color)


def png(**options):
    file = io.BytesIO()
    colored(**options).save(file, "PNG")
    return file.getvalue()


def wav(seconds=0.5, rate=8000):
    soundfile = pytest.importorskip("soundfile", reason="audio files need the extra 'audio'")
    file = io.BytesIO()
    t = np.arange(int(seconds * rate)) / rate
    soundfile.write(file, np.sin(2 * np.pi * 300 * t), rate, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "photo": objects([colored(), png(), np.zeros((5, 7, 3), "uint8"), None, png()]),
            "audio": objects([wav(), None, wav(0.25), wav(), wav()]),
            "motion": objects([rng.normal(size=(9 + i, 2)) for i in range(5)]),
            "scan points": objects([rng.normal(size=(30, 3)) for _ in range(5)]),
            "vector": objects([rng.normal(size=4) for _ in range(5)]),
            "review": ["A warm coat", "Fell apart", None, "Bought it twice", "Much too small"],
            "price": [1.0, 2.5, None, 1000.0, 2.5],
            "color": ["red", "blue", "red", "red", "red"],
            "when": pd.date_range("2024-01-01", periods=5),
        },
        index=list("abcde"),
    )


def one(cells, **options):
    return frame_report(pd.DataFrame({"c": pd.Series(objects(cells), dtype=object)}), **options)


# ---- numbers -------------------------------------------------------------------------------


def test_summary(frame):
    report = frame_report(frame)
    table = report.summary_.set_index("column")
    inferred = skmm.infer_modalities(frame)
    assert table["modality"].to_dict() == inferred
    assert table.loc["photo", "missing"] == 0.2 and table.loc["price", "missing"] == 0.2
    assert table.loc["price", "distinct"] == 3 and table.loc["color", "distinct"] == 2
    assert table.loc["audio", "distinct"] == 2  # three of the four are the same bytes
    assert pd.isna(table.loc["photo", "distinct"])  # would require decoding
    assert table["unreadable"].eq(0).all() and report.unreadable_.empty
    words = " ".join(Page(report.html).words)
    for fact in ("5 rows and 9 columns", "From 1 to 1,000, median 2.5", "2 to 3 words"):
        assert fact in words
    assert "9 timestamps, 2 channels" in words and "30 points" in words and "0.25 s" in words
    assert "60 × 40" in words and "7 × 5" in words and "Sizes from 7 × 5 to 60 × 40" in words


def test_repr_is_the_table(frame):
    text = repr(frame_report(frame))
    assert text.startswith("Frame of 5 rows and 9 columns")
    for name in frame:
        assert name in text


def test_each_modality_is_shown(frame):
    page = assert_harmless(frame_report(frame).html)
    labels = " ".join([*page.values("aria-label"), *page.values("alt")])
    for words in ("Image of row a, 60 by 40", "Waveform of row a", "Series of row b", "Points of",
                  "Vector of row c", "Histogram of the numbers from 1 to 1,000",
                  "Histogram of the dates", "Histogram of the words per cell"):  # fmt: skip
        assert words in labels


def test_histogram_counts():
    page = frame_report(pd.DataFrame({"n": [0.0] * 10 + [1.0] * 5})).html
    heights = [float(part.split('"')[0]) for part in page.split(' height="')[1:]][1:]
    tall, low = [h for h in heights if h > 1]
    assert tall == 2 * low


def test_video_shows_frames_in_order():
    grays = np.arange(0, 240, 30, dtype=np.uint8)
    clip = np.repeat(grays, 8 * 8 * 3).reshape(8, 8, 8, 3)
    page = assert_harmless(one([clip, clip[:5]]).html)
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(shown) == 8
    alts = page.values("alt")
    assert alts[0] == "Frame 1 of 4 taken from row 0"
    import base64

    first = [
        int(np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))[0, 0, 0])
        for uri in shown[:4]
    ]
    assert first == sorted(first) and len(set(first)) == 4
    assert "8 frames, 8 × 8" in " ".join(page.words)


def test_overridden_modality():
    cells = [np.sin(np.arange(4000) / 9).astype("float32") for _ in range(3)]
    assert one(cells).summary_["modality"].tolist() == ["vector"]
    report = one(cells, modalities={"c": "audio"})
    assert report.summary_["modality"].tolist() == ["audio"]
    assert "Waveform of row 0, 4,000 samples" in report.html


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"photos": "image"}, "modalities has a column 'photos' that X does not have"),
        ({"photo": "images"}, "gives column 'photo' the modality 'images'"),
    ],
)
def test_wrong_modalities_are_refused(frame, modalities, message):
    with pytest.raises(ValueError, match=message):
        frame_report(frame, modalities=modalities)


@pytest.mark.parametrize("n_samples", [-1, 101, 2.5, "many"])
def test_wrong_number_of_samples_is_refused(frame, n_samples):
    with pytest.raises(ValueError, match="n_samples must be an int from 0 to 100"):
        frame_report(frame, n_samples=n_samples)


# ---- what is decoded -----------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [0, 3])
def test_few_cells_are_decoded(n_samples, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        _cells, "read_image", lambda cell, draft: decoded.append(1) or np.zeros((4, 4, 3), "uint8")
    )
    report = one([png(color=(i, 0, 0)) for i in range(255)] * 3, n_samples=n_samples)
    assert len(decoded) == n_samples
    assert "200 of 765 cells were inspected" in report.html
    assert report.summary_["distinct"].tolist() == [255]


def test_page_depends_on_the_frame_and_the_seed():
    cells = [f"review number {i} is a text of its own" for i in range(300)]
    assert one(cells).html == one(cells).html
    assert one(cells).html != one(cells, random_state=1).html


def test_samples_of_a_column_do_not_depend_on_those_before_it():
    texts = [f"review number {i} is a text of its own" for i in range(300)]
    frame = pd.DataFrame({"a": texts, "b": texts[::-1]})
    first, other = (frame_report(X).html for X in (frame, frame.assign(a=range(300))))
    first, other = (page.split("<section")[2].partition("<h2>")[2] for page in (first, other))
    assert first == other


def test_many_columns():
    frame = pd.DataFrame(np.arange(260).reshape(2, 130))
    report = frame_report(frame)
    assert len(report.summary_) == 130
    page = assert_harmless(report.html)
    assert page.tags.count("section") == 100
    assert "30 more columns are only in the table" in report.html


# ---- unreadable cells are listed ----------------------------------------------------------


def test_unreadable_cells_are_named(tmp_path):
    truncated = tmp_path / "half.png"
    truncated.write_bytes(png(size=(200, 200))[:150])
    (tmp_path / "text.jpg").write_text("no image")
    cells = [str(tmp_path / name) for name in ("half.png", "text.jpg", "gone.jpg")]
    report = one([*cells, "https://example.org/a.jpg", png()])
    bad = report.unreadable_
    assert bad["row"].tolist() == ["1", "2", "3", "0"]  # the last one was found by decoding
    assert bad["column"].eq("c").all()
    assert "no such file" in bad["reason"][1] and "URLs are not fetched" in bad["reason"][2]
    assert "4 inspected cells cannot be read" in repr(report)
    assert report.summary_["unreadable"].tolist() == [4]
    page = assert_harmless(report.html)
    assert page.tags.count("img") == 1


def test_unreadable_cells_are_counted():
    report = frame_report(pd.DataFrame({"c": [f"{i}.jpg" for i in range(60)]}, index=[7] * 60))
    assert report.summary_["unreadable"].tolist() == [60]
    assert "40 more unreadable cells" in report.html
    assert repr(report).endswith("...")


def test_missing_reader_is_reported(monkeypatch):
    from skmm.exceptions import MissingExtraError

    def without(*args, **options):
        raise MissingExtraError("needs the package 'soundfile'")

    monkeypatch.setattr(_cells, "read_audio", without)
    report = one([b"RIFF\0\0\0\0WAVEfmt ", b"RIFF\0\0\0\1WAVEfmt "])
    assert "needs the package &#x27;soundfile&#x27;" in report.html
    assert report.unreadable_.empty


ODD = {
    "no rows": pd.DataFrame({"a": [], "b": pd.Series([], dtype="category")}),
    "no columns": pd.DataFrame(index=range(3)),
    "nothing": pd.DataFrame(),
    "twice a name": pd.DataFrame([[1, "x"], [2, "y"]], columns=["a", "a"]),
    "tuples for names": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1)] * 2)),
    "odd labels": pd.DataFrame({"a": ["x y z w"] * 3}, index=[None, "b", ("c", 1)]),
    "mixed cells": pd.DataFrame({"a": objects([1, "x", png(), {}, Hostile()])}),
    "hostile": pd.DataFrame({"a": objects([Hostile(), Hostile()])}),
    "all missing": pd.DataFrame({"a": [None, None], "b": [np.nan, np.nan]}),
    "complex": pd.DataFrame({"a": [1j, 2.0]}),
    "infinite": pd.DataFrame({"a": [np.inf, -np.inf, 1.0], "b": [np.inf] * 3}),
    "huge": pd.DataFrame({"a": [-1.7e308, 1.7e308, 0]}),
    "long integers": pd.DataFrame({"a": objects([10**400, 1])}),
    "decimals": pd.DataFrame({"a": objects([Decimal("1.5"), Decimal("nan"), Decimal("2")])}),
    "zones": pd.DataFrame({"a": pd.date_range("2024", periods=2, tz="Europe/Rome")}),
    "years": pd.DataFrame({"a": objects([np.datetime64("9999-01-01"), np.datetime64("1000")])}),
    "spans": pd.DataFrame({"a": pd.to_timedelta([1, 2], unit="h"), "b": pd.interval_range(0, 2)}),
    "arrow": pd.DataFrame({"a": pd.array(["x", None], dtype="string"), "b": pd.array([1, None])}),
    "array": np.arange(6.0).reshape(3, 2),
    "images": np.zeros((3, 8, 8, 3), "uint8"),
    "list": ["one text of words", "another text of words"],
    "series": pd.Series([1, 2]),
    "images in a cell": pd.DataFrame({"a": objects([[png(), png()], [png()]])}),
    "empty bytes": pd.DataFrame({"a": objects([png(), b"\x89PNG"])}),
    "numbers as text": pd.DataFrame({"a": ["1", "2.5", "-3"]}),
    "one point": pd.DataFrame({"points": objects([np.ones((1, 3)), np.zeros((2, 3))])}),
    "no timestamps": pd.DataFrame({"a": objects([np.ones((0, 2)), np.full((3, 2), np.nan)])}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_frames(name):
    X = ODD[name]
    report = frame_report(X)
    assert_harmless(report.html)
    assert repr(report)
    assert len(report.summary_) == (X.shape[1] if isinstance(X, pd.DataFrame) else len(
        report.summary_))  # fmt: skip


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="must hold one row per sample"):
        frame_report({"a": [1]})


def test_polars(frame):
    polars = pytest.importorskip("polars", reason="needs the extra 'polars'")
    names = ["review", "price", "color", "when"]
    plain = polars.DataFrame(
        {name: [None if pd.isna(c) else c for c in frame[name]] for name in names}, strict=False
    )
    report = frame_report(plain)
    expected = frame_report(frame[names]).summary_
    for kind in ("column", "modality", "missing", "distinct"):
        assert report.summary_[kind].tolist() == expected[kind].tolist()
    assert_harmless(report.html)


cells = st.one_of(
    st.none(), st.text(), st.integers(), st.floats(), st.binary(max_size=20), st.booleans(),
    st.dates(), st.decimals(), st.lists(st.floats(), max_size=4),
    st.sampled_from([EVIL, "a.jpg", png(), np.ones((3, 2)), pd.NaT, {}, Hostile()]),
)  # fmt: skip


@pytest.mark.slow
@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), max_size=4),
    st.lists(st.text(), min_size=4, max_size=4),
)
def test_any_frame_has_a_page(columns, names):
    frame = pd.DataFrame({i: objects(column) for i, column in enumerate(columns)})
    frame.columns = names[: len(columns)]
    report = frame_report(frame, n_samples=2)
    assert_harmless(report.html)
    assert len(report.summary_) == len(columns) and repr(report)


# ---- texts of the user are escaped ----------------------------------------------------------


def test_user_text_is_escaped():
    frame = pd.DataFrame(
        {
            f"{EVIL}1": [f"{EVIL} and a text of many words {i}" for i in range(3)],
            f"{EVIL}2": [f"{EVIL}{i}.jpg" for i in range(3)],
            f"{EVIL}3": ["x", EVIL, EVIL],
            f"{EVIL}4": objects([colored()] * 3),
            f"{EVIL}5": objects([{EVIL: 1}] * 3),
        },
        index=[EVIL, f"b{EVIL}", "c"],
    )
    report = frame_report(frame, title=EVIL)
    page = assert_harmless(report.html)
    assert "<script" not in report.html and "<script" not in report._repr_html_()
    words = "".join(page.words)
    assert f"{EVIL} and a text of many words 0" in words  # nothing is lost
    assert any(EVIL in alt for alt in page.values("alt"))


def test_characters_not_allowed_in_html(tmp_path):
    report = one(["a text with \x00 and \ud800 in it", "one with 👩‍👩‍👧 and \u202e in it"])
    report.save(tmp_path / "page.html")
    page = Path(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\x00" not in page and "👩‍👩‍👧" in page
    assert_harmless(page)


# ---- the object ----------------------------------------------------------------------------


def test_save_open_and_notebook(frame, tmp_path, monkeypatch):
    report = frame_report(frame, title="Coats")
    report.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == report.html
    assert report.html.startswith("<!DOCTYPE html>") and "<title>Coats</title>" in report.html
    assert "default-src 'none'" in report.html
    assert report._repr_html_() in report.html and "<html" not in report._repr_html_()
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = report.open()
    assert opened == [Path(path).as_uri()]
    assert Path(path).read_text(encoding="utf-8") == report.html


def test_style_applies_only_to_the_report(frame):
    style = frame_report(frame)._repr_html_().split("<style>")[1].split("</style>")[0]
    # The text before a brace, inside a media query too.
    selectors = [found.strip() for found in re.findall(r"([^{}]+)\{", style)]
    rules = [own for own in selectors if not own.startswith("@media")]
    assert len(rules) > 20
    for selector in rules:
        for part in selector.split(","):
            assert part.strip().startswith(".skmm-frame"), part


# ---- in a browser --------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def browse(page, tmp_path, *options):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1400"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True, cwd=tmp_path)
    return done.stdout.decode("utf-8", "replace")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
def test_in_a_browser(frame, tmp_path):
    evil = frame.assign(evil=f"{EVIL} in a text")
    evil.loc["a", "evil"] = "another text in this column"
    page = tmp_path / "page.html"
    frame_report(evil).save(page)
    dom = browse(page, tmp_path, "--dump-dom")
    assert "<script" not in dom and 'src="x"' not in dom
    assert dom.count("<section") == 10
    corners = []
    for scheme in (1, 0):  # light, dark
        shot = tmp_path / f"shot{scheme}.png"
        preference = f"--blink-settings=preferredColorScheme={scheme}"
        browse(page, tmp_path, f"--screenshot={shot}", preference)
        with Image.open(shot) as image:
            pixels = np.asarray(image.convert("RGB"))
        corners.append(int(pixels[3, 3].mean()))
        # A thumbnail of the magenta image, larger than any line.
        assert (pixels == (255, 0, 255)).all(axis=2).sum() > 1000
    assert corners[0] > 240 and corners[1] < 60
