"""
When fusion does not pay
========================

*Is a second modality always worth its price?*

No. This example makes data whose information per modality is known, so that the answer can be
read off: fusion pays where each modality tells something that the others do not, or where each is
noisy; it costs where one of them tells nothing.
"""

# %%
# Two kinds of data
# -----------------
# The label is the sign of a score, and a *share* of the score is what a modality shows of it.
#
# - In the first kind, a part of the score is redundant (review and sensor both show it) and the
#   rest is split between them.
# - In the second kind nothing is redundant, and the sensor's own share shrinks to nothing, while it
#   goes on showing eight numbers that have nothing to do with the label.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import EarlyFusion, JointFusionClassifier, LateFusionClassifier, TextEncoder
from skmm.datasets import make_multimodal_classification

REDUNDANT = [{"redundant": share} for share in (0.0, 0.5, 1.0)]
LOPSIDED = [
    {"redundant": 0.0, "private": {"review": 1 - share, "sensor": share}, "n_nuisance": 8}
    for share in (0.5, 0.25, 0.0)
]
N_TRAIN, N_TEST, SEEDS = 300, 1500, range(3)

# %%
# Every model on the same data
# ----------------------------
# A single modality is a fusion with one triple. The review is encoded by TF-IDF; the sensor's cells
# are vectors already.


def early(modalities):
    """Features side by side, then a logistic regression."""
    return make_pipeline(EarlyFusion(modalities), LogisticRegression(max_iter=500))


def accuracies(seed, information):
    """Accuracy of every model on one draw of the data."""
    X, y = make_multimodal_classification(
        N_TRAIN + N_TEST,
        modalities={"review": "text", "sensor": "vector"},
        noise=0.5,
        random_state=seed,
        **information,
    )
    review = ("review", TextEncoder("tfidf", n_components=32, random_state=0), ["review"])
    sensor = ("sensor", "passthrough", ["sensor"])
    models = {
        "review": early([review]),
        "sensor": early([sensor]),
        "early": early([review, sensor]),
        "late": LateFusionClassifier([review, sensor]),
        "joint": JointFusionClassifier([review, sensor], max_epochs=30, random_state=0),
    }
    return {
        name: model.fit(X[:N_TRAIN], y[:N_TRAIN]).score(X[N_TRAIN:], y[N_TRAIN:])
        for name, model in models.items()
    }


def gains(information):
    """Points that each fusion wins over the better single modality, one row a draw."""
    scores = pd.DataFrame([accuracies(seed, information) for seed in SEEDS])
    best_single = scores[["review", "sensor"]].max(axis=1)
    return 100 * scores[["early", "late", "joint"]].sub(best_single, axis=0)


redundant = [gains(information) for information in REDUNDANT]
lopsided = [gains(information) for information in LOPSIDED]
print("Accuracy won over the better single modality, in points, mean of three draws")
for title, found, labels in (
    ("redundant share of the score", redundant, ("0", "0.5", "1")),
    ("sensor's share of the score", lopsided, ("0.5", "0.25", "0")),
):
    table = pd.DataFrame([draws.mean() for draws in found], index=pd.Index(labels, name=title))
    print(table.round(1).to_string(), end="\n\n")

# %%
# What to take from it
# --------------------
# Left: the more the modalities repeat each other, the less a second one adds. Something is left
# even when they tell the same, because both are noisy here and two noisy readings are better than
# one. Right: a modality that tells nothing costs accuracy, for its features are fitted all the
# same. Stacking (late fusion) learns from out-of-fold votes not to listen to it, so it loses least.
#
# So put the single modalities into the search, next to the fusions: it is a line of the grid.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True, layout="constrained")
panels = (
    (axes[0], redundant, ["none", "half", "all"], "share of the score that both show"),
    (axes[1], lopsided, ["half", "a quarter", "nothing"], "share of the score that the sensor shows"),
)
for panel, found, labels, xlabel in panels:
    for k, name in enumerate(("early", "late", "joint")):
        means = [draws[name].mean() for draws in found]
        spread = [draws[name].std() for draws in found]
        places = np.arange(len(found)) + 0.26 * (k - 1)
        panel.bar(places, means, 0.24, yerr=spread, color=f"C{k}", label=name, ecolor="0.3")
    panel.axhline(0, color="black", linewidth=1)
    panel.set_xticks(range(len(found)), labels)
    panel.set_xlabel(xlabel)
    panel.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("points won over the better\nsingle modality")
axes[0].set_title("Two modalities that repeat each other")
axes[1].set_title("One modality that has little to say")
axes[1].legend(frameon=False)
plt.show()
