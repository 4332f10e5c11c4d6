"""Planted copies are found in all forms, and other rows are not reported."""

import io
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from columns import objects
from PIL import Image
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, StratifiedKFold

from skmm.exceptions import CellTypeError, LeakageError, LeakageWarning
from skmm.model_selection import check_group_leakage, group_by_content

RNG = np.random.default_rng(0)
HALVES = [(np.arange(4), np.arange(4, 8))]  # of eight rows


def png(seed):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def find(cells, name="c", **options):
    options = {"cv": HALVES, "on_leak": "ignore", **options}
    return check_group_leakage(pd.DataFrame({name: objects(cells)}), **options)


@pytest.fixture
def photos(tmp_path):
    """Return eight files of different images."""
    paths = [tmp_path / f"photo{i}.png" for i in range(8)]
    for i, path in enumerate(paths):
        path.write_bytes(png(i))
    return paths


TEXTS = [f"the review number {i} is not like another" for i in range(8)]


# ---- planted copies ------------------------------------------------------------------------


def test_no_findings():
    found = find(TEXTS)
    assert found.empty
    assert list(found) == [
        *("fold", "column", "modality", "same", "example", "digest", "train_rows", "test_rows")
    ]
    assert found.attrs["message"] == "No content is on both sides of a split."


def test_no_findings_give_no_warning():
    check_group_leakage(pd.DataFrame({"c": TEXTS}), cv=2)
    check_group_leakage(pd.DataFrame({"c": TEXTS}), groups=range(8), on_leak="raise")


def test_same_text():
    found = find([*TEXTS[:7], TEXTS[1]])
    (row,) = found.to_dict("records")
    assert row["fold"] == 0 and row["train_rows"] == (1,) and row["test_rows"] == (7,)
    assert (row["column"], row["modality"], row["same"]) == ("c", "text", "content")
    assert row["example"] == TEXTS[1] and len(row["digest"]) == 32


def test_copies_on_one_side_are_not_reported():
    assert find([TEXTS[0], TEXTS[0], *TEXTS[2:6], TEXTS[6], TEXTS[6]]).empty


def test_same_bytes_under_two_names(photos):
    shutil.copy(photos[2], photos[5])
    (row,) = find(list(map(str, photos))).to_dict("records")
    assert (row["modality"], row["same"]) == ("image", "content")
    assert (row["train_rows"], row["test_rows"]) == ((2,), (5,))
    assert row["example"].endswith("photo2.png")
    assert find(list(map(str, photos)), read_files=False).empty  # other paths


def test_same_bytes_in_a_file_and_in_a_cell(photos):
    cells = [*photos[:4], photos[3].read_bytes(), *photos[5:]]
    (row,) = find(cells).to_dict("records")
    assert row["same"] == "content" and (row["train_rows"], row["test_rows"]) == ((3,), (4,))


@pytest.mark.parametrize("read_files", [True, False])
def test_same_path_twice(photos, read_files):
    detour = photos[0].parent / "x" / ".." / photos[0].name
    (photos[0].parent / "x").mkdir()
    cells = [str(photos[0]), *photos[1:6], detour, photos[7]]
    (row,) = find(cells, read_files=read_files).to_dict("records")
    assert row["same"] == "file" and row["train_rows"] == (0,) and row["test_rows"] == (6,)
    assert (row["digest"] == "") is not read_files


def test_link_is_the_same_file(photos):
    photos[4].unlink()
    photos[4].symlink_to(photos[0])
    (row,) = find(photos, read_files=False).to_dict("records")
    assert row["same"] == "file"


@pytest.mark.parametrize("path", ["gone.jpg", "https://example.org/a.jpg", "a\0.jpg"])
def test_same_path_of_a_file_that_cannot_be_read(path):
    (row,) = find([path, *(f"{i}.jpg" for i in range(6)), path]).to_dict("records")
    assert row["same"] == "file" and row["digest"] == "" and row["example"] == path


def test_each_file_is_read_once(photos, monkeypatch):
    from skmm.model_selection import _group_leakage as _contents

    read = []
    digest = _contents._DIGESTS["image"]
    monkeypatch.setitem(_contents._DIGESTS, "image", lambda cell: read.append(cell) or digest(cell))
    find(photos[:2] * 4)
    assert read == photos[:2]
    find(photos, read_files=False)
    assert read == photos[:2]


def test_same_array_and_another_of_equal_values():
    series = [RNG.normal(size=(5 + i, 2)) for i in range(8)]
    series[6] = series[1].copy()
    (row,) = find(series).to_dict("records")
    assert row["modality"] == "timeseries" and row["test_rows"] == (6,)
    vectors = [RNG.normal(size=4).astype("float32") for _ in range(8)]
    vectors[7] = vectors[0].tolist()  # digests of series do not depend on the container
    (row,) = find(vectors).to_dict("records")
    assert row["modality"] == "vector" and row["test_rows"] == (7,)


def test_pixels_of_a_file_are_different_content(photos):
    with Image.open(photos[0]) as image:
        pixels = np.asarray(image)
    assert find([*photos[:7], pixels]).empty  # as documented
    copies = [np.asarray(Image.open(path)) for path in photos]
    copies[5] = copies[2].copy()
    assert len(find(copies)) == 1


def test_audio_video_and_points(photos):
    waves = [b"RIFF\0\0\0\0WAVE" + bytes([i]) for i in range(8)]
    waves[7] = waves[0]
    assert find(waves)["modality"].tolist() == ["audio"]
    clips = [np.full((2, 4, 4, 3), i, "uint8") for i in range(8)]
    clips[4] = clips[3].copy()
    assert find(clips)["train_rows"].tolist() == [(3,)]
    clouds = [RNG.normal(size=(5, 3)) for _ in range(8)]
    clouds[4] = clouds[3].copy()
    assert find(clouds, name="points")["modality"].tolist() == ["pointcloud"]


def test_lists_of_images_by_each_image(photos):
    cells = [[a, b] for a, b in zip(photos, photos[::-1], strict=True)]
    found = find(cells)
    assert len(found) == 8 and found["same"].eq("file").all()


def test_columns_of_one_modality_are_compared():
    X = pd.DataFrame({"front": objects([png(i) for i in range(8)])})
    X["back"] = objects([png(100 + i) for i in range(7)] + [png(1)])
    X["title"], X["text"] = TEXTS, [f"{text} again" for text in TEXTS]
    found = check_group_leakage(X, cv=HALVES, on_leak="ignore")
    assert found["column"].tolist() == ["front + back"]
    assert found["train_rows"].tolist() == [(1,)] and found["test_rows"].tolist() == [(7,)]


def test_repeated_content_in_one_row_is_not_reported():
    X = pd.DataFrame({"front": objects([png(i) for i in range(8)])})
    X["back"] = X["front"]
    assert check_group_leakage(X, cv=HALVES).empty


# ---- what is compared ----------------------------------------------------------------------


def test_numbers_categories_and_absent_cells_are_not_compared():
    X = pd.DataFrame(
        {
            "price": [1.0] * 4 + [2.0] * 4,
            "color": ["red", "blue"] * 4,
            "review": [None, "", " ", *TEXTS[:2], None, "", " "],
        }
    )
    assert check_group_leakage(X, cv=HALVES).empty
    found = check_group_leakage(X, cv=HALVES, columns=["color", "price"], on_leak="ignore")
    assert found["example"].tolist() == ["red", "blue"] and set(found["column"]) == {"color"}
    found = check_group_leakage(X, cv=HALVES, columns="color", on_leak="ignore")
    assert found["column"].tolist() == ["color"] * 2
    assert check_group_leakage(X, cv=HALVES, columns=[0], on_leak="ignore").empty


def test_minimal_length():
    cells = ["ok", *TEXTS[:3], "ok", *TEXTS[4:6], TEXTS[0]]
    assert find(cells)["example"].tolist() == ["ok", TEXTS[0]]
    assert find(cells, min_length=20)["example"].tolist() == [TEXTS[0]]
    assert find(cells, min_length=200).empty


def test_given_modalities():
    paths = [f"{i}.jpg" for i in range(7)] + ["0.jpg"]
    assert find(paths)["modality"].tolist() == ["image"]
    assert find(paths, modalities={"c": "text"})["modality"].tolist() == ["text"]
    assert find(paths, modalities={"c": "tabular"}).empty


def test_polars_and_lists():
    polars = pytest.importorskip("polars", reason="needs the extra 'polars'")
    texts = [*TEXTS[:7], TEXTS[1]]
    for X in (polars.DataFrame({"c": texts}), pd.Series(texts, name="c"), texts):
        found = check_group_leakage(X, cv=HALVES, on_leak="ignore")
        assert found["test_rows"].tolist() == [(7,)]


def test_positions_not_labels():
    X = pd.DataFrame({"c": [*TEXTS[:7], TEXTS[1]]}, index=list("aabbccdd"))
    found = check_group_leakage(X, cv=HALVES, on_leak="ignore")
    assert found["train_rows"].tolist() == [(1,)] and found["test_rows"].tolist() == [(7,)]


# ---- splits and groups ---------------------------------------------------------------------


def test_each_fold_is_reported():
    cells = [*TEXTS[:7], TEXTS[1]]
    found = find(cells, cv=LeaveOneOut())
    assert found[["fold", "train_rows", "test_rows"]].to_numpy().tolist() == [
        [1, (7,), (1,)],
        [7, (1,), (7,)],
    ]
    found = find(cells, cv=StratifiedKFold(2), y=[0, 0, 0, 0, 1, 1, 1, 1])
    by_hand = [
        (fold, tuple(r for r in (1, 7) if r in train), tuple(r for r in (1, 7) if r in test))
        for fold, (train, test) in enumerate(StratifiedKFold(2).split(cells, [0] * 4 + [1] * 4))
    ]
    by_hand = [row for row in by_hand if row[1] and row[2]]
    assert found[["fold", "train_rows", "test_rows"]].to_numpy().tolist() == list(
        map(list, by_hand)
    )


def test_rows_that_a_split_leaves_out_do_not_count():
    cells = [*TEXTS[:7], TEXTS[1]]
    assert find(cells, cv=[(np.arange(4), np.arange(4, 7))]).empty


def test_one_content_in_several_groups():
    X = pd.DataFrame({"c": [*TEXTS[:6], TEXTS[0], TEXTS[4]]})
    groups = ["anna", "anna", "ben", "ben", "cleo", "cleo", "anna", "ben"]
    found = check_group_leakage(X, groups=groups, on_leak="ignore")
    (row,) = found.to_dict("records")
    assert row["groups"] == ("ben", "cleo") or row["groups"] == ("cleo", "ben")
    assert row["rows"] == (4, 7) and row["example"] == TEXTS[4]
    assert found.attrs["message"].startswith(
        "1 content is in several groups (1 in column 'c'), which touches 2 rows."
    )


def test_group_by_content():
    """Groups by content have no leak, keep the given groups together and merge no others."""
    X = pd.DataFrame(
        {
            "text": [f"text of its own number {i}" for i in range(40)],
            "photo": objects([png(i) for i in range(40)]),
        }
    )
    X.loc[[3, 17], "text"] = "a review that was copied"
    X["photo"] = objects([png(5) if i in (17, 30) else c for i, c in enumerate(X["photo"])])
    given = np.arange(40) // 2
    with pytest.warns(LeakageWarning):
        check_group_leakage(X, cv=GroupKFold(4), groups=given)
    groups = group_by_content(X, groups=given)
    assert check_group_leakage(X, cv=GroupKFold(4), groups=groups).empty
    assert check_group_leakage(X, groups=groups).empty
    # 3 - 17 by text, 17 - 30 - 5 by photo, and the neighbors in their given groups.
    joined = {2, 3, 16, 17, 30, 31, 4, 5}
    assert {row for row in range(40) if groups[row] == groups[3]} == joined
    for a in range(40):
        same = {b for b in range(40) if groups[b] == groups[a]}
        assert same == (joined if a in joined else {a // 2 * 2, a // 2 * 2 + 1})
    first = [int(np.flatnonzero(groups == g)[0]) for g in range(groups.max() + 1)]
    assert first == sorted(first)  # numbered in the order of the rows


def test_groups_without_any_copy():
    assert group_by_content(pd.DataFrame({"c": TEXTS})).tolist() == list(range(8))
    assert group_by_content(pd.DataFrame({"c": TEXTS}), groups=list("aabbccdd")).tolist() == [
        *(0, 0, 1, 1, 2, 2, 3, 3)
    ]


# ---- messages ----------------------------------------------------------------------------


def test_warning_error_and_message():
    X = pd.DataFrame({"c": [*TEXTS[:6], TEXTS[0], TEXTS[1]]})
    message = (
        "2 contents are on both sides of a split .2 in column 'c'., which touches 50% of the"
        " test rows. Split by groups"
    )
    with pytest.warns(LeakageWarning, match=message):
        check_group_leakage(X, cv=HALVES)
    with pytest.raises(LeakageError, match=message):
        check_group_leakage(X, cv=HALVES, on_leak="raise")
    assert "2 contents are" in check_group_leakage(X, cv=HALVES, on_leak="ignore").attrs["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs cv, the splits to check, or groups"),
        ({"groups": [1, 2]}, "groups has 2 entries, and X has 8 rows"),
        ({"cv": 2, "on_leak": "shout"}, "on_leak must be 'warn', 'raise' or 'ignore'"),
        ({"cv": 2, "min_length": 0.5}, "min_length must be a number"),
        ({"cv": 2, "columns": "d"}, "X has no column 'd'"),
        ({"cv": 2, "modalities": {"d": "text"}}, "modalities gives column 'd'"),
        ({"cv": 2, "modalities": {"c": "words"}}, "the modality 'words'"),
        ({"cv": KFold(9)}, "Cannot have number of splits"),
    ],
)
def test_wrong_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        check_group_leakage(pd.DataFrame({"c": TEXTS}), **options)


def test_cell_of_a_wrong_type_is_named():
    X = pd.DataFrame({"c": objects([png(0), png(1), object()]).to_numpy()}, index=list("xyz"))
    with pytest.raises(CellTypeError, match="'c', row 'z'"):
        check_group_leakage(X, cv=2, modalities={"c": "image"})


def test_nothing_is_written_into_the_folder(photos):
    before = sorted(os.listdir(photos[0].parent))
    find(photos)
    assert sorted(os.listdir(photos[0].parent)) == before
