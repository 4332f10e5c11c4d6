"""
When fusion does not pay
========================

*Does a second modality always improve a model?*

No. This example generates data with a known amount of information per modality. Fusion pays if each
modality has information that the others do not have, or if each is noisy; it lowers the score if
one of them has no information.
"""

# %%
# Five kinds of data
# ------------------
# A row has a review and a sensor, both as ready-made embeddings: vectors, which a fusion passes
# through. The label is the sign of a score, and each modality contains a *share* of that score. The
# first kind of data splits the score between the two. From there we vary two properties: the
# modalities become redundant, or the sensor becomes uninformative. Both are noisy, and each has
# eight more numbers that do not depend on the score.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import EarlyFusion, JointFusionClassifier, LateFusionClassifier
from skmm.datasets import make_multimodal_classification

KINDS = {
    "half each": {"redundant": 0.0},
    "half the same": {"redundant": 0.5},
    "all the same": {"redundant": 1.0},
    "sensor: a quarter": {"redundant": 0.0, "private": {"review": 0.75, "sensor": 0.25}},
    "sensor: nothing": {"redundant": 0.0, "private": {"review": 1.0, "sensor": 0.0}},
}
N_TRAIN, N_TEST, SEEDS = 300, 1500, range(3)

# %%
# Every model on the same data
# ----------------------------
# A single modality is a fusion with one triple.

review = ("review", "passthrough", ["review"])
sensor = ("sensor", "passthrough", ["sensor"])


def early(modalities):
    """Concatenate features for a logistic regression."""
    return make_pipeline(EarlyFusion(modalities), LogisticRegression(max_iter=500))


models = {
    "review": early([review]),
    "sensor": early([sensor]),
    "early": early([review, sensor]),
    "late": LateFusionClassifier([review, sensor]),
    "joint": JointFusionClassifier([review, sensor], random_state=0),
}


def accuracies(seed, information):
    """Return the accuracy of every model on one sample of the data, in points."""
    X, y = make_multimodal_classification(
        N_TRAIN + N_TEST,
        modalities={"review": "vector", "sensor": "vector"},
        n_nuisance=8,
        noise=0.5,
        random_state=seed,
        **information,
    )
    return {
        name: 100 * model.fit(X[:N_TRAIN], y[:N_TRAIN]).score(X[N_TRAIN:], y[N_TRAIN:])
        for name, model in models.items()
    }


scores = {
    kind: pd.DataFrame([accuracies(seed, information) for seed in SEEDS])
    for kind, information in KINDS.items()
}
print(f"Accuracy in points, mean of {len(SEEDS)} samples")
print(pd.DataFrame({kind: draws.mean() for kind, draws in scores.items()}).T.round(1).to_string())

# %%
# Conclusions
# -----------
# Left: the more redundant the modalities are, the less a second one adds. It adds a little even if
# they are fully redundant, because two noisy measurements are better than one. Right: a modality
# without information costs accuracy, since the model fits its noise. Stacking, the default of late
# fusion, learns from out-of-fold votes to ignore it and loses least; a network has the most
# parameters and loses most.
#
# So add the single modalities to the search, next to the fusions: they are a line of the grid.

gains = {
    kind: draws[["early", "late", "joint"]].sub(draws[["review", "sensor"]].max(axis=1), axis=0)
    for kind, draws in scores.items()
}
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True, layout="constrained")
panels = (
    (axes[0], ["half each", "half the same", "all the same"]),
    (axes[1], ["half each", "sensor: a quarter", "sensor: nothing"]),
)
for panel, kinds in panels:
    for k, name in enumerate(("early", "late", "joint")):
        means = [gains[kind][name].mean() for kind in kinds]
        spread = [gains[kind][name].std() for kind in kinds]
        places = np.arange(len(kinds)) + 0.26 * (k - 1)
        panel.bar(places, means, 0.24, yerr=spread, color=f"C{k}", label=name, ecolor="0.3")
    panel.axhline(0, color="black", linewidth=1)
    panel.set_xticks(range(len(kinds)), kinds)
    panel.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("points gained over the better single modality")
axes[0].set_title("Two modalities become redundant")
axes[1].set_title("One modality becomes uninformative")
axes[1].legend(frameon=False)
plt.show()
