"""
A modality that training never lacked goes missing
==================================================

*What does a model do when the camera breaks after it was trained?*

In training every row has a review and a photo. At prediction more and more photos are missing.
We look at what early, late and joint fusion make of such rows, and at what happens when the gap
is filled with a black image, as is often done.
"""

# %%
# Data with a known answer
# ------------------------
# The photo knows more of the label than the review: half of the score is its own, a fifth is the
# review's, and three tenths are shown by both. Cells are raw: texts and small images.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    LateFusionClassifier,
    TextEncoder,
)
from skmm.datasets import make_multimodal_classification

X, y = make_multimodal_classification(
    1400,
    modalities={"review": "text", "photo": "image"},
    redundant=0.3,
    private={"review": 0.2, "photo": 0.5},
    noise=0.3,
    random_state=0,
)
X_train, y_train, X_test, y_test = X[:400], y[:400], X[400:], y[400:]
print(X_train.isna().sum().to_string())
print(X_train["review"].iloc[0])

# %%
# Three fusions of the same encoders
# ----------------------------------
# The images' network is small and trained here: alone for early and late fusion, with the head
# in joint fusion. With a pretrained model in its place nothing else would change.

triples = [
    ("review", TextEncoder("tfidf", n_components=32, random_state=0), ["review"]),
    (
        "photo",
        ImageEncoder("cnn", image_size=16, n_components=32, max_epochs=15, random_state=0),
        ["photo"],
    ),
]


def early(modalities):
    """Features side by side, then a logistic regression."""
    return make_pipeline(EarlyFusion(modalities), LogisticRegression(C=0.1))


models = {
    "early": early(triples),
    "late": LateFusionClassifier(triples, cv=3),
    "joint": JointFusionClassifier(triples, random_state=0),
}
for model in models.values():
    model.fit(X_train, y_train)
review_alone = early(triples[:1]).fit(X_train, y_train).score(X_test, y_test)

# %%
# Take photos away
# ----------------
# ``None`` is all it takes: an absent cell is a fact to every fusion. The black image is not: the
# model takes it for a photo.

shares = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
order = np.random.default_rng(0).permutation(len(X_test))
black = np.zeros_like(X_test["photo"].iloc[0])


def without_photos(share, instead=None):
    """Test rows of which a share has lost the photo."""
    photos = X_test["photo"].copy()
    for row in order[: int(share * len(order))]:
        photos.iloc[row] = instead
    return X_test.assign(photo=photos)


curves = {
    name: [model.score(without_photos(share), y_test) for share in shares]
    for name, model in models.items()
}
curves["joint, black image"] = [
    models["joint"].score(without_photos(share, black), y_test) for share in shares
]
print(pd.DataFrame(curves, index=pd.Index(shares, name="share missing")).round(3).to_string())
print(f"A model of the review alone: {review_alone:.3f}")

# %%
# What is left
# ------------
# Without any photo nothing can beat a model of the review alone by much; the question is how near
# a fusion that was never trained for the case comes. Late fusion leaves the absent vote out, joint
# fusion has met such rows through modality dropout, and early fusion answers as for the average
# photo. The black image takes the review down with it: the model goes on believing the photo.

figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
styles = {
    "early": ("C0", "-", "o"),
    "late": ("C1", "-", "s"),
    "joint": ("C2", "-", "^"),
    "joint, black image": ("C2", ":", "^"),
}
for name, values in curves.items():
    color, line, marker = styles[name]
    axes.plot(100 * shares, values, color=color, linestyle=line, marker=marker, label=name)
axes.axhline(review_alone, color="0.4", linewidth=1, linestyle="--")
axes.annotate("review alone", (1, review_alone - 0.005), color="0.3", va="top")
axes.set(
    xlabel="test rows whose photo is missing (%)",
    ylabel="accuracy",
    title="No photo was missing in training",
)
axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.05))
axes.spines[["top", "right"]].set_visible(False)
plt.show()
