"""Plot the figure of the README: a frame, its encoders, three fusions and their scores.

It takes about two minutes on two cores, most of them for the model of the images::

    python docs/figures/readme.py     # writes docs/_static/readme.png
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyBboxPatch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    LateFusionClassifier,
    TabularEncoder,
    TextEncoder,
)
from skmm.datasets import load_glyphs

TARGET = Path(__file__).parents[1] / "_static" / "readme.png"
TABLE = ["decomposition", "ink_width", "ink_height"]
SHOWN = 6
COLORS = {"image": "#4C72B0", "name": "#55A868", "table": "#8172B3"}
FUSED, GRAY = "#C44E52", "#6b6b6b"


def load():
    """Return characters of 27 scripts, of which every sixth image and tenth name is missing."""
    X, y = load_glyphs(task="script", n_samples=1000, return_X_y=True)
    X = X[["image", "name", *TABLE]].copy()
    X.loc[X.index[2::6], "image"] = None
    X.loc[X.index[4::10], "name"] = None
    return X, y


def measure(X, y):
    """Return the mean accuracy over five folds, of each modality alone and of the fusions."""
    triples = [
        ("image", ImageEncoder(), ["image"]),
        ("name", TextEncoder(), ["name"]),
        ("table", TabularEncoder(), TABLE),
    ]
    estimator = LogisticRegression(max_iter=1000)
    models = {name: make_pipeline(EarlyFusion([t]), estimator) for t in triples for name in t[:1]}
    models["early"] = make_pipeline(EarlyFusion(triples), estimator)
    models["late"] = LateFusionClassifier(triples)
    models["joint"] = JointFusionClassifier(triples, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = {}
    for name, model in models.items():
        scores[name] = cross_val_score(model, X, y, cv=folds).mean()
        print(f"{name:8} {scores[name]:.3f}")
    return scores


def draw_frame(ax, X, y):
    """Plot some rows as the cells of a table, with the missing ones empty."""
    left = {"image": 0.06, "name": 0.29, "decomposition": 1.01, "ink_width": 1.36, "script": 1.76}
    kinds = {"image": "image", "name": "name", "script": None}
    for column in left:
        color = COLORS.get(kinds.get(column, "table"), GRAY)
        label = column.replace("decomposition", "decomp.")
        ax.text(
            left[column], SHOWN + 0.25, label, fontsize=9, color=color, va="center", weight="bold"
        )
    for row in range(SHOWN):
        cells, height = X.iloc[row], SHOWN - 0.5 - row
        ax.axhline(height + 0.5, color="#d0d0d0", lw=0.8)
        if cells["image"] is None:
            ax.text(left["image"] + 0.05, height, "–", fontsize=12, color=GRAY, va="center")
        else:
            box = (left["image"], left["image"] + 0.15, height - 0.4, height + 0.4)
            ax.imshow(cells["image"], cmap="gray", extent=box, aspect="auto", zorder=2)
        missing = pd.isna(cells["name"])
        name = "–" if missing else textwrap.shorten(cells["name"], 26, placeholder=" …")
        ax.text(left["name"], height, name, fontsize=9, va="center", color=GRAY if missing else "k")
        ax.text(left["decomposition"], height, cells["decomposition"], fontsize=9, va="center")
        ax.text(left["ink_width"], height, f"{cells['ink_width']:.2f}", fontsize=9, va="center")
        ax.text(left["script"], height, y.iloc[row], fontsize=9, va="center", weight="bold")
    ax.axhline(0, color="#d0d0d0", lw=0.8)
    ax.axvline(1.70, color="#d0d0d0", lw=0.8, ymax=(SHOWN + 0.5) / (SHOWN + 0.6))
    ax.set(xlim=(0, 2.35), ylim=(-0.1, SHOWN + 0.5))
    ax.set_title("A frame: rows may lack any modality", fontsize=11, loc="left")
    ax.set_axis_off()


def draw_parts(ax):
    """Plot encoders on the left, fusions on the right, and an arrow from each to each."""
    encoders = {"ImageEncoder()": "image", "TextEncoder()": "name", "TabularEncoder()": "table"}
    fusions = ["EarlyFusion", "LateFusion", "JointFusion"]
    heights = [5, 3, 1]

    def box(x, y, width, text, color):
        ax.add_patch(
            FancyBboxPatch(
                (x, y - 0.42), width, 0.84, boxstyle="round,pad=0.02,rounding_size=0.12",
                fc=color, ec="none", mutation_aspect=3, zorder=2,
            )
        )  # fmt: skip
        ax.text(x + width / 2, y, text, color="w", fontsize=9.5, ha="center", va="center", zorder=3)

    for (text, modality), y in zip(encoders.items(), heights, strict=True):
        box(0, y, 0.42, text, COLORS[modality])
        for target in heights:
            ax.annotate(
                "", (0.63, target), (0.44, y),
                arrowprops={"arrowstyle": "-|>", "color": COLORS[modality], "alpha": 0.6},
            )  # fmt: skip
    for text, y in zip(fusions, heights, strict=True):
        box(0.65, y, 0.35, text, FUSED)
    ax.text(0.21, -0.05, "each cell encoded once", fontsize=9, color=GRAY, ha="center")
    ax.text(0.825, -0.05, "one search", fontsize=9, color=GRAY, ha="center")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.1, SHOWN + 0.5))
    ax.set_title("Encoders and fusions", fontsize=11, loc="left")
    ax.set_axis_off()


def draw_scores(ax, scores):
    """Plot a bar for each modality alone and for each fusion."""
    names = list(scores)
    labels = [f"{name} alone" if name in COLORS else f"{name} fusion" for name in names]
    colors = [COLORS.get(name, FUSED) for name in names]
    bars = ax.barh(labels, list(scores.values()), color=colors, height=0.7)
    ax.bar_label(bars, [f"{score:.2f}" for score in scores.values()], padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.tick_params(labelsize=9, length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("accuracy, five folds", fontsize=9)
    ax.set_title("Which of 27 scripts?", fontsize=11, loc="left")


def main():
    """Measure, plot and save."""
    X, y = load()
    scores = measure(X, y)
    figure, axes = plt.subplots(
        1, 3, figsize=(14, 3.7), width_ratios=[5.6, 4.3, 3.6], layout="constrained"
    )
    draw_frame(axes[0], X, y)
    draw_parts(axes[1])
    draw_scores(axes[2], scores)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=110, facecolor="white")
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
