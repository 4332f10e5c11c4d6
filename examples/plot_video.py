"""
Does a video need a model of time?
==================================

*Are single frames enough?*

They often are: the content of a video is visible in any of its frames. An action is not. Here the
same clips have two targets: the color of a ball, and whether it moves to the left or to the right.
"""

# %%
# Clips that differ in color and direction
# ----------------------------------------
# A cell is an array of frames. Every path occurs in both directions, so the direction is not in the
# frames of a clip but in their order. A cell could also be the path or the bytes of a video file.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import VideoEncoder

rng = np.random.default_rng(0)
COLORS = {"red": (230, 60, 50), "blue": (60, 90, 230)}


def clip(color, direction, size=20):
    """Return frames of a ball that moves across a noisy image."""
    n_frames = rng.integers(6, 10)
    frames = rng.integers(0, 90, (n_frames, size, size, 3))
    places = np.linspace(rng.uniform(2, 5), rng.uniform(14, 17), n_frames)
    height = rng.uniform(4, 16) + np.linspace(0, rng.uniform(-3, 3), n_frames)
    y, x = np.mgrid[:size, :size]
    for k in range(n_frames):
        ball = (x - places[k]) ** 2 + (y - height[k]) ** 2 < 7
        frames[k][ball] = COLORS[color]
    return frames[:: 1 if direction == "right" else -1].astype(np.uint8)


n = 240
truth = pd.DataFrame(
    {"color": rng.choice(list(COLORS), n), "direction": rng.choice(["left", "right"], n)}
)
X = pd.DataFrame({"clip": [clip(*row) for row in truth.itertuples(index=False)]})
train, test = slice(0, 160), slice(160, n)

figure, axes = plt.subplots(2, 6, figsize=(7.5, 2.6), layout="constrained")
for direction, axes_of_row in zip(["left", "right"], axes, strict=True):
    row = truth.index[truth["direction"] == direction][0]
    for k, axis in enumerate(axes_of_row):
        axis.imshow(X["clip"][row][k])
        axis.set(xticks=[], yticks=[])
    axes_of_row[0].set_ylabel(f"{truth['color'][row]},\n{direction}")
figure.suptitle("The first frames of two clips")

# %%
# Three ways to pool frames
# -------------------------
# The network for a frame is the same. The pooling over frames differs: their mean, a recurrent
# network over them, or attention between them. All are trained here.

options = {"image_size": 20, "n_components": 32, "max_epochs": 12, "learning_rate": 5e-3}
scores = {}
for pooling in ("mean", "gru", "attention"):
    scores[pooling] = {}
    for question in ("color", "direction"):
        model = make_pipeline(
            VideoEncoder("cnn", temporal_pooling=pooling, random_state=0, **options),
            LogisticRegression(max_iter=1000),
        )
        model.fit(X[train], truth[question][train])
        scores[pooling][question] = model.score(X[test], truth[question][test])
scores = pd.DataFrame(scores).T
print(scores.round(2).to_string())

# %%
# When the order matters
# ----------------------
# All of them recognize the color. The mean cannot represent the direction: both directions have the
# same vector, and no classifier can recover the difference. So check first whether your videos
# differ in their content or in their actions; the mean over a pretrained image model, which needs
# no training, represents only the content.

figure, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
places = np.arange(len(scores))
for shift, question, color in ((-0.2, "color", "C0"), (0.2, "direction", "C1")):
    bars = axis.bar(places + shift, scores[question], 0.36, color=color, label=f"which {question}?")
    axis.bar_label(bars, fmt="%.2f", padding=2)
axis.axhline(0.5, color="0.4", linewidth=1, linestyle="--")
axis.set(xticks=places, xticklabels=scores.index, ylim=(0, 1.15), ylabel="accuracy")
axis.set(xlabel="temporal_pooling", title="The direction requires the order of frames")
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
axis.spines[["top", "right"]].set_visible(False)
plt.show()
