"""The data sets on which every fusion is compared: cells, encoders, and a split for each seed.

Encoders are frozen. Each cell is encoded once, into the store, for all methods and seeds.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from report import load_real
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedShuffleSplit

from skmm import AudioEncoder, ImageEncoder, TabularEncoder, TextEncoder
from skmm.datasets import load_glyphs

CLOTHING_TABLE = ["age", "positive_feedback_count", "division", "department", "class_name"]


@dataclass
class DataSet:
    """Cells, target, and how rows are parted into training and test."""

    name: str
    X: pd.DataFrame
    y: pd.Series
    triples: list[tuple[str, Any, list[str]]]
    about: str
    metric: str = "accuracy"  # a scorer's name: accuracy or roc_auc
    test_size: float | int = 0.25
    groups: pd.Series | None = None
    tokens: bool = False  # whether attention over single tokens is cheap enough
    _sizes: tuple[int, int] = field(default=(0, 0), init=False)

    def split(self, seed):
        """Return the positions of the training and of the test rows."""
        if self.groups is None:
            splitter = StratifiedShuffleSplit(1, test_size=self.test_size, random_state=seed)
        else:
            splitter = GroupShuffleSplit(1, test_size=self.test_size, random_state=seed)
        train, test = next(splitter.split(self.X, self.y, self.groups))
        self._sizes = len(train), len(test)
        return train, test

    def folds(self, train):
        """Return three folds of the training rows, on which a penalty or a modality is chosen."""
        if self.groups is None:
            return 3
        return list(GroupKFold(3).split(train, groups=self.groups.iloc[train]))

    @property
    def sizes(self):
        """Return the rows of the training and of the test part, of the last split."""
        return self._sizes


def emoji(n=None):
    frame = _some(load_real("emoji"), n)
    return DataSet(
        "emoji",
        frame[["image", "name"]],
        frame["label"],
        [("image", ImageEncoder(), ["image"]), ("name", TextEncoder(), ["name"])],
        "9 groups from an image and a name",
        tokens=True,
    )


def clothing(n=3000):
    frame = _some(load_real("clothing"), n)
    return DataSet(
        "clothing",
        frame[["title", "review_text", *CLOTHING_TABLE]],
        frame["label"],
        [
            ("title", TextEncoder(), ["title"]),
            ("review", TextEncoder(), ["review_text"]),
            ("table", TabularEncoder(), CLOTHING_TABLE),
        ],
        "recommended or not, from title, review and a table without the rating",
        metric="roc_auc",
        test_size=1 / 3,
    )


def avdigits(n=1500):
    frame = _some(load_real("avdigits"), n)
    pixels = [image.ravel() / np.float32(255) for image in frame["image"]]
    return DataSet(
        "avdigits",
        pd.DataFrame({"audio": frame["audio"], "pixels": pixels}, index=frame.index),
        frame["label"],
        [("audio", AudioEncoder("mfcc"), ["audio"]), ("image", "passthrough", ["pixels"])],
        "10 spoken and written digits, of two of six speakers who are not in training",
        test_size=2,
        # For known speakers, the audio alone is right in 98 of 100 rows.
        groups=frame["speaker"],
    )


def glyphs(n=1500, **options):
    X, y = load_glyphs(n_samples=n, return_X_y=True, **options)
    return DataSet(
        "glyphs",
        X,
        y,
        [
            ("image", ImageEncoder(), ["image"]),
            ("name", TextEncoder(), ["name"]),
            ("table", TabularEncoder(), [c for c in X if c not in ("image", "name")]),
        ],
        "27 scripts from an image, a name and a table of characters",
        test_size=1 / 3,
    )


LOADERS = {
    "emoji": emoji,
    "clothing": clothing,
    "avdigits": avdigits,
    "glyphs": glyphs,
}


def _some(frame, n):
    return frame if n is None else frame.sample(n, random_state=0)


def matrices(triples, X_train, X_test):
    """Features of each modality as (training, test) matrices; rows of NaN where it is absent.

    The input of the methods that read no cells: the same numbers that fusions use.
    """
    found = {}
    for name, transformer, columns in triples:
        if transformer == "passthrough":
            found[name] = tuple(np.stack(list(X[columns[0]])) for X in (X_train, X_test))
            continue
        encoder = clone(transformer).fit(X_train[columns])
        found[name] = tuple(
            np.asarray(encoder.transform(X[columns]), dtype=np.float32) for X in (X_train, X_test)
        )
    return found
