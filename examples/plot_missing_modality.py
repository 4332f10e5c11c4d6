"""
A modality that is missing only in prediction
=============================================

*What does a model predict if the camera breaks after training?*

In training every row has a review and a photo. In prediction more and more photos are missing. We
compare how early, late and joint fusion handle such rows, and what happens if a black image
replaces the photo, as is often done.
"""

# %%
# Data with a known answer
# ------------------------
# The photo contains more information about the label than the review: half of the score is only in
# the photo, a fifth only in the review, and three tenths in both. Cells are raw: texts and small
# images.

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
# The network for images is small and trained here: alone for early and late fusion, with the fusion
# in joint fusion. A pretrained model could replace it without another change.

triples = [
    ("review", TextEncoder("tfidf", n_components=32, random_state=0), ["review"]),
    (
        "photo",
        ImageEncoder("cnn", image_size=16, n_components=32, max_epochs=15, random_state=0),
        ["photo"],
    ),
]


def early(modalities):
    """Concatenate features for a logistic regression."""
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
# Remove photos
# -------------
# Every fusion recognizes ``None`` as an absent cell. A black image is not absent: the model treats
# it as a photo.

shares = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
order = np.random.default_rng(0).permutation(len(X_test))
black = np.zeros_like(X_test["photo"].iloc[0])


def without_photos(share, instead=None):
    """Return test rows of which a share has lost the photo."""
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
# Results
# -------
# Without any photo no model can beat a model of the review alone by much; the question is how close
# a fusion comes that was trained with all photos. Late fusion leaves out the absent vote, joint
# fusion was trained for such rows by modality dropout, and early fusion predicts as for the average
# photo. With a black image the accuracy falls below that of the review: the model still relies on
# the photo.

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
