"""
See what a fusion listens to
============================

*Which modality mattered, in which rows, and which part of a cell?*

A row is a character: its image, its name, and a table of its properties. A late fusion tells
its category: uppercase letter, number, punctuation, ... Each question about it has a function in
``skmm.inspection`` and an image, made like scikit-learn's displays: ``from_estimator`` asks and
draws, ``from_predictions`` draws what was found before, and ``ax`` says where.
"""

# %%
# A fitted fusion
# ---------------
# Every sixth image is missing. Images are 24 pixels wide, and a PCA of the pixels is enough
# here; any encoder could stand in its place.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmm import LateFusionClassifier, TabularEncoder, TextEncoder
from skmm.datasets import load_glyphs
from skmm.inspection import (
    FusionReportDisplay,
    MissingModalityCurveDisplay,
    ModalityImportanceDisplay,
    ModalityShapleyDisplay,
    TokenAttributionDisplay,
    modality_shapley,
)

glyphs = load_glyphs(task="category", n_samples=900, image_size=24)
X, y = glyphs.data.copy(), glyphs.target
X.loc[np.random.default_rng(0).random(len(X)) < 1 / 6, "image"] = None
table = [name for name in X.columns if name not in ("image", "name")]
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)


def pixels(frame):
    """Images as rows of numbers from 0 to 1."""
    return np.stack([cell.ravel() / 255 for cell in frame["image"]])


model = LateFusionClassifier(
    [
        ("image", make_pipeline(FunctionTransformer(pixels), PCA(40, random_state=0)), ["image"]),
        ("name", TextEncoder("tfidf", n_components=60, random_state=0), ["name"]),
        ("properties", TabularEncoder(), table),
    ],
    estimator=LogisticRegression(C=10, max_iter=1000),
    rule="mean",
).fit(X_train, y_train)
print(f"Right on {model.score(X_test, y_test):.3f} of the test rows.")

# %%
# How much does the model lean on each modality?
# ----------------------------------------------
# All columns of a modality are shuffled together, and the score is what is left. Every dot is one
# shuffle.

ModalityImportanceDisplay.from_estimator(model, X_test, y_test, n_repeats=10, random_state=0)
plt.show()

# %%
# Shares that add up
# ------------------
# Two modalities that say the same can stand in for each other, and look unimportant when they are
# shuffled one at a time. Shapley values divide the whole way from the score without any modality
# to the score with all of them.

shares = modality_shapley(model, X_test, y_test)
columns = {"image": ["image"], "name": ["name"], "properties": table}
ModalityShapleyDisplay.from_predictions(shares, score_name="accuracy")
plt.show()

# %%
# The same for each row: how far did its image, its name, its properties move the probability of
# the class that it was told to be? Hollow points are rows without an image, which moves nothing.

ModalityShapleyDisplay.from_predictions(shares, kind="beeswarm", X=X_test, modalities=columns)
plt.show()

# %%
# What if a modality goes missing?
# --------------------------------
# The lines begin where they do because some images are missing already. Around each is a band of
# one standard deviation over the draws of the rows that lose the modality.

MissingModalityCurveDisplay.from_estimator(model, X_test, y_test, random_state=0)
plt.show()

# %%
# Does the fusion pay?
# --------------------
# The fusion, each modality alone and all subsets are fitted on the same folds. A line that does
# not reach the dashed one says that the fusion is better. That of "all but image" does: with
# names and properties at hand, little is gained by these images.

FusionReportDisplay.from_estimator(model, X, y, cv=3, scoring="accuracy")
plt.show()

# %%
# Inside a cell
# -------------
# A word is taken out, or a square of the image is painted over, and the probability of the
# class is looked at again. Red parts speak for the class, blue ones against it.

told = model.predict(X_test) == y_test
row = int(np.flatnonzero(told & X_test["image"].notna() & X_test["name"].str.count(" ").gt(2))[0])
TokenAttributionDisplay.from_estimator(model, X_test, "name", row=row)
plt.show()

# %%

TokenAttributionDisplay.from_estimator(model, X_test, "image", row=row, n_parts=6)
plt.show()
