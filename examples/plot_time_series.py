"""
Time series: random convolutions or a trained network
=====================================================

*Does it pay to train a network on sensor recordings?*

A wrist band records three motions. They have the same mean, variance and period, and differ only in
the shape of the wave. Recordings have any length and phase, and missing values.
"""

# %%
# Three motions
# -------------
# A cell is an array ``(n_timestamps, n_channels)``. Nothing is cut, aligned or imputed before.

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmm import TimeSeriesEncoder

SHAPES = {
    "walk": lambda t: np.sqrt(2) * np.sin(t),
    "jump": lambda t: np.sign(np.sin(t)),
    "saw": lambda t: np.sqrt(3) * (t / np.pi % 2 - 1),
}
rng = np.random.default_rng(0)


def recording(motion, noise=0.8):
    """Return two channels with a lag, noise, and gaps."""
    n = rng.integers(40, 80)
    t = 2 * np.pi * np.arange(n) / rng.uniform(18, 22) + rng.uniform(0, 2 * np.pi)
    cell = np.column_stack([SHAPES[motion](t), SHAPES[motion](t + 1)])
    cell += noise * rng.normal(size=(n, 2))
    cell[rng.random(cell.shape) < 0.05] = np.nan
    return cell


y = rng.choice(list(SHAPES), 480)
X = pd.DataFrame({"wrist": [recording(motion) for motion in y]})
X_test, y_test = X[240:], y[240:]

# %%
# Three kinds of features
# -----------------------
# The features are the mean, spread and range of a channel; the shares of random convolutions; and
# those of a network whose convolutions are trained. The same classifier follows each.


def summary(X):
    """Return mean, standard deviation, smallest and largest value of each channel."""
    return np.array(
        [
            np.concatenate([f(cell, axis=0) for f in (np.nanmean, np.nanstd, np.nanmin, np.nanmax)])
            for cell in X["wrist"]
        ]
    )


encoders = {
    "summary statistics": FunctionTransformer(summary),
    "random convolutions": TimeSeriesEncoder(n_kernels=2000, random_state=0),
    "network from scratch": TimeSeriesEncoder(
        "inception", n_components=16, max_epochs=30, learning_rate=3e-3, random_state=0
    ),
}
sizes = (30, 60, 120, 240)
scores = pd.DataFrame(index=sizes, columns=list(encoders), dtype=float)
seconds = scores.copy()
for n in sizes:
    for name, encoder in encoders.items():
        model = make_pipeline(encoder, StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        start = time.perf_counter()
        model.fit(X[:n], y[:n])
        seconds.loc[n, name] = time.perf_counter() - start
        scores.loc[n, name] = model.score(X_test, y_test)
print(f"Accuracy\n{scores.round(2).to_string()}\n")
print(f"Seconds to fit\n{seconds.round(1).to_string()}")

# %%
# Conclusions
# -----------
# The summary does not depend on the shape and is near chance. Random convolutions capture it,
# although only the weights of a linear model are learned, in a small part of the network's time.
# The network is a few points better with a hundred recordings or more. So start with the default,
# and try a network if those points count, or to train it together with other modalities in a joint
# fusion.

figure, (cells, curve) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for k, motion in enumerate(SHAPES):
    cell = X["wrist"][np.flatnonzero(y == motion)[0]]
    cells.plot(cell[:, 0] + 6 * k, color=f"C{k}", linewidth=1)
    cells.text(81, 6 * k, motion, color=f"C{k}", va="center")
cells.set_xlim(0, 90)
cells.set_yticks([])
cells.set_xlabel("timestamp")
cells.set_title("A recording of each motion, first channel")
for k, name in enumerate(encoders):
    curve.plot(sizes, scores[name], "o-", color=f"C{k + 3}", label=name)
curve.set_xscale("log", base=2)
curve.set_xticks(sizes, sizes)
curve.set_xlabel("training recordings")
curve.set_ylabel("accuracy")
curve.set_ylim(0.2, 1.02)
curve.legend(frameon=False)
for panel in (cells, curve):
    panel.spines[["top", "right"]].set_visible(False)
plt.show()
