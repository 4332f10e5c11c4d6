"""
A task with few targets learns from one with many
=================================================

*A hundred rows have the label of interest. Does it help that all rows have a rating?*

Somebody must read a report to decide whether it is urgent, so few rows have that label. All rows
have the rating of their author. Both depend on the same latent variable, which a network for both
tasks learns only once.
"""

# %%
# Data with a known answer
# ------------------------
# Two modalities of twenty numbers each hold a latent. A report is urgent where the latent is
# positive; the rating is the latent with noise.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score

from skmm import JointFusionMultiTask, Trainer

TRAIN = 800


def make_reports(n_labeled, related=True, seed=0, n=1600):
    """Return frame and targets; only ``n_labeled`` training rows have the label."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(n, 40))
    latent, other = (cells @ rng.normal(size=40) / 6 for _ in range(2))
    X = pd.DataFrame({"text": list(cells[:, :20]), "photo": list(cells[:, 20:])})
    y = pd.DataFrame({"urgent": np.where(latent > 0, "yes", "no").astype(object)})
    y["rating"] = (latent if related else other) + 0.3 * rng.normal(size=n)
    unlabeled = rng.permutation(TRAIN)[n_labeled:]
    y.loc[unlabeled, "urgent"] = None
    return X, y


X, y = make_reports(100)
y.head()

# %%
# One task, two tasks
# -------------------
# Rows without any target are not used in training, so the network for one task is trained on 100
# rows and the other on 800. The first one gets more epochs, for the same number of steps.

MODALITIES = [("text", "passthrough", ["text"]), ("photo", "passthrough", ["photo"])]
ALONE = {"urgent": "classification"}
BOTH = {**ALONE, "rating": "regression"}


def accuracy(tasks, n_labeled, **options):
    """Return the mean accuracy of ``urgent`` on new rows, over two samples."""
    scores = []
    for seed in range(2):
        X, y = make_reports(n_labeled, seed=seed, **options)
        steps = TRAIN if "rating" in tasks else n_labeled
        fusion = JointFusionMultiTask(
            MODALITIES,
            tasks=tasks,
            n_components=16,
            max_epochs=15 * TRAIN // steps,
            trainer=Trainer(learning_rate=3e-3, early_stopping=False),
            random_state=seed,
        )
        fusion.fit(X[:TRAIN], y[:TRAIN])
        predicted = fusion.predict(X[TRAIN:])
        scores.append(accuracy_score(y["urgent"][TRAIN:], predicted["urgent"]))
    return np.mean(scores)


numbers = [25, 100, 400]
curves = {
    "urgent alone": [accuracy(ALONE, n) for n in numbers],
    "with the rating": [accuracy(BOTH, n) for n in numbers],
    "with an unrelated rating": [accuracy(BOTH, n, related=False) for n in numbers],
}
print(pd.DataFrame(curves, index=numbers).round(2))

# %%
for name, scores in curves.items():
    plt.plot(numbers, scores, marker="o", label=name)
plt.xscale("log")
plt.xticks(numbers, numbers)
plt.xlabel("rows with the label")
plt.ylabel("accuracy on new rows")
plt.legend()
plt.show()

# %%
# The fewer labels there are, the more the rating helps. An unrelated rating has no information
# about urgency: measure whether a second task helps.
