"""
Inspect a fusion
================

*Which modality mattered, in which rows, and which part of a cell?*

A row is a character: its image, its name, and a table of its properties. A late fusion predicts its
category: uppercase letter, number, punctuation, ... Each measure has a function in
``skmm.inspection`` and a plot, made like scikit-learn's displays: ``from_estimator`` computes and
plots, ``from_predictions`` plots earlier results, and ``ax`` says where.
"""

# %%
# A fitted fusion
# ---------------
# Every sixth image is missing. Images are 24 pixels wide, and a PCA of the pixels is enough here;
# any encoder could replace it.

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
    """Return images as rows of numbers from 0 to 1."""
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
# How much does the model depend on each modality?
# ------------------------------------------------
# All columns of a modality are shuffled together, and the plot shows what the score loses. Every
# dot is one shuffle.

ModalityImportanceDisplay.from_estimator(model, X_test, y_test, n_repeats=10, random_state=0)
plt.show()

# %%
# Shares that add up
# ------------------
# Two redundant modalities can replace each other, and look unimportant when they are shuffled one
# at a time. Shapley values divide the whole difference between the score without any modality and
# the score with all of them.

shares = modality_shapley(model, X_test, y_test)
columns = {"image": ["image"], "name": ["name"], "properties": table}
ModalityShapleyDisplay.from_predictions(shares, score_name="accuracy")
plt.show()

# %%
# The same for each row: how far did its image, its name and its properties change the probability
# of the predicted class? Hollow points are rows without an image, whose share is 0.

ModalityShapleyDisplay.from_predictions(shares, kind="beeswarm", X=X_test, modalities=columns)
plt.show()

# %%
# What if a modality is missing?
# ------------------------------
# Some images are missing already, so that line does not start at 0. The band around each line is
# one standard deviation over random choices of the rows that lose the modality.

MissingModalityCurveDisplay.from_estimator(model, X_test, y_test, random_state=0)
plt.show()

# %%
# Does the fusion pay?
# --------------------
# The fusion, each modality alone and all subsets are fitted on the same folds. If an interval does
# not reach the dashed line, the fusion is better. That of "all but image" does reach it: with names
# and properties, these images add little.

FusionReportDisplay.from_estimator(model, X, y, cv=3, scoring="accuracy")
plt.show()

# %%
# Inside a cell
# -------------
# A word is removed, or a square of the image is covered, and the probability of the class is
# computed again. Red parts raise it, blue ones lower it.

right = model.predict(X_test) == y_test
row = int(np.flatnonzero(right & X_test["image"].notna() & X_test["name"].str.count(" ").gt(2))[0])
TokenAttributionDisplay.from_estimator(model, X_test, "name", row=row)
plt.show()

# %%

TokenAttributionDisplay.from_estimator(model, X_test, "image", row=row, n_parts=6)
plt.show()
