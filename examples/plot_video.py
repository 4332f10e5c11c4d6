"""
Does a video need a model of time?
==================================

*Is it enough to look at single frames?*

Often it is: what is in a video is seen in any of its frames. What happens is another matter. Here
two questions are asked of the same clips: which color is the ball, and does it go to the left or
to the right?
"""

# %%
# Clips that differ in color and direction
# ----------------------------------------
# A cell is an array of frames. Every path is traveled in both directions, so the frames of a clip
# say nothing about its direction; their order does. The path or the bytes of a video file would do
# as well.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import VideoEncoder

rng = np.random.default_rng(0)
COLORS = {"red": (230, 60, 50), "blue": (60, 90, 230)}


def clip(color, direction, size=20):
    """Frames of a ball on its way across a noisy image."""
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
# The network that looks at a frame is the same. What differs is what is made of the frames: their
# mean, a recurrent network over them, or attention between them. All are trained here.

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
# What the order is needed for
# ----------------------------
# The color is seen by all of them. The direction is hidden from the mean: it gives forth and back
# the same vector, and no classifier behind it can tell what was lost. So ask first whether your
# videos differ in what they show or in what happens; the mean over a pretrained image model, which
# needs no training, answers only the first question.

figure, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
places = np.arange(len(scores))
for shift, question, color in ((-0.2, "color", "C0"), (0.2, "direction", "C1")):
    bars = axis.bar(places + shift, scores[question], 0.36, color=color, label=f"which {question}?")
    axis.bar_label(bars, fmt="%.2f", padding=2)
axis.axhline(0.5, color="0.4", linewidth=1, linestyle="--")
axis.set(xticks=places, xticklabels=scores.index, ylim=(0, 1.15), ylabel="accuracy")
axis.set(xlabel="temporal_pooling", title="Only what knows the order sees the direction")
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
axis.spines[["top", "right"]].set_visible(False)
plt.show()
