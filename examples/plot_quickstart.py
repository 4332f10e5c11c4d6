"""
From a frame of images, names and numbers to a tuned fusion
===========================================================

*Which fusion pays, and what does it cost to find out?*

A row of this frame is a character: its image, its name, and a table of its properties. Some images
and some names are missing. The target is the script of the character. We compare each modality
alone with early, late and joint fusion, all in one grid search that encodes every distinct cell
once.
"""

# %%
# The frame
# ---------
# Characters are rendered in the font that matplotlib ships. Words that name the script are removed
# from the names, so that no column reveals the answer. We then remove every sixth image and every
# tenth name, as in real frames.

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline

from skmm import (
    EarlyFusion,
    ImageEncoder,
    JointFusionClassifier,
    LateFusionClassifier,
    TabularEncoder,
    TextEncoder,
    infer_modalities,
)
from skmm.datasets import load_glyphs
from skmm.encoders import EmbeddingStore

started = time.perf_counter()

glyphs = load_glyphs(task="script", n_samples=1000)
X, y = glyphs.data.copy(), glyphs.target
rng = np.random.default_rng(0)
X.loc[rng.random(len(X)) < 1 / 6, "image"] = None
X.loc[rng.random(len(X)) < 1 / 10, "name"] = None

print(f"{len(X)} characters of {y.nunique()} scripts, {X['image'].isna().sum()} without an image,")
print(f"{X['name'].isna().sum()} without a name. The inferred modalities:")
print(pd.Series(infer_modalities(X)).to_string())
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# Encoders and fusions
# --------------------
# A modality is a triple ``(name, transformer, columns)``, as in ``ColumnTransformer``. The
# transformer may be a pipeline: inside a fusion a PCA receives no missing cell. The weights of the
# encoders are part of the extra ``weights``; nothing is downloaded.

table = [column for column in X if column not in ("image", "name")]
triples = [
    ("image", make_pipeline(ImageEncoder(verbose=1), PCA(64, random_state=0)), ["image"]),
    ("name", make_pipeline(TextEncoder(verbose=1), PCA(64, random_state=0)), ["name"]),
    ("table", TabularEncoder(), table),
]


def early(modalities):
    """Concatenate features for a logistic regression."""
    return make_pipeline(EarlyFusion(modalities), LogisticRegression(C=0.1, max_iter=500))


late = LateFusionClassifier(triples, cv=3)
joint = JointFusionClassifier(triples, max_epochs=40, random_state=0)

# %%
# One search over everything
# --------------------------
# The candidates are whole models. The first fit that needs a cell encodes it; every other
# fold, candidate and worker finds its vector in the store.


def describe(model):
    """Name a candidate in a few words."""
    if isinstance(model, JointFusionClassifier):
        return f"joint, {model.strategy}"
    if isinstance(model, LateFusionClassifier):
        return f"late, {model.rule}"
    modalities = model.named_steps["earlyfusion"].modalities
    return f"{modalities[0][0]} alone" if len(modalities) == 1 else "early"


n_fits = 0


def score_and_report(pipeline, X, y):
    """Return the accuracy, and report the progress of the search."""
    global n_fits
    n_fits += 1
    accuracy = pipeline.score(X, y)
    print(f"  fit {n_fits:2d} of 27: {describe(pipeline.named_steps['model']):18} {accuracy:.3f}")
    return accuracy


search = GridSearchCV(
    Pipeline([("model", joint)]),
    [
        {"model": [early([triple]) for triple in triples]},
        {"model": [early(triples)]},
        {"model": [late], "model__rule": ["mean", "stacking"]},
        {"model": [joint], "model__strategy": ["concat", "gated", "attention"]},
    ],
    scoring=score_and_report,
    cv=3,
)
print("\nThe search, 9 candidates on 3 folds:")
search.fit(X_train, y_train)

# %%
# Results
# -------

results = search.cv_results_
scores = pd.DataFrame(
    {
        "accuracy": results["mean_test_score"],
        "+-": results["std_test_score"],
        "fit time (s)": results["mean_fit_time"],
    },
    index=[describe(clone(search.estimator).set_params(**p)["model"]) for p in results["params"]],
)
print("\nAccuracy in 3-fold cross-validation:")
print(scores.round(3).to_string())
print(f"\nThe search chose: {describe(search.best_estimator_['model'])}")
unseen = search.best_estimator_.score(X_test, y_test)
print(f"Accuracy on {len(X_test)} characters that it has not seen: {unseen:.3f}")

stats = EmbeddingStore().stats()
print(f"\nCells that went through a frozen model: {stats['encoded']}")
print(f"Cells that a plain Pipeline would have encoded: {stats['rows']}")
print(f"Ratio: {stats['rows'] / stats['encoded']:.0f}")

# %%
# A character without an image
# ----------------------------
# A missing image needs no special treatment. Of the recognized characters we show the one whose
# image matters most.

whole = X_test[X_test["image"].notna() & X_test["name"].notna()].head(50)
blind = whole.assign(image=None)
chances = {
    "with its image": pd.DataFrame(search.predict_proba(whole), whole.index, search.classes_),
    "without its image": pd.DataFrame(search.predict_proba(blind), whole.index, search.classes_),
}
change = (chances["with its image"] - chances["without its image"]).abs().sum(axis=1)
recognized = search.predict(whole) == y_test[whole.index]
row = change[recognized].idxmax()
print(f"\n{row}, named {whole['name'][row]!r}, is {y_test[row]}.")
for label, table in chances.items():
    shown = ", ".join(f"{name} {chance:.2f}" for name, chance in table.loc[row].nlargest(3).items())
    print(f"  {label}: {shown}")

# %%
# Plot of the scores
# ------------------

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4), width_ratios=[2, 3], layout="constrained"
)
shown = X_train[X_train["image"].notna()].head(30)
canvas = np.vstack(
    [np.hstack(list(shown["image"].iloc[start : start + 6])) for start in range(0, 30, 6)]
)
left.imshow(canvas, cmap="gray")
left.set_axis_off()
left.set_title("Thirty of the characters")
colors = ["C7"] * 3 + ["C0"] + ["C1"] * 2 + ["C2"] * 3
right.barh(scores.index, scores["accuracy"], xerr=scores["+-"], color=colors)
right.invert_yaxis()
right.set_xlabel("accuracy, 3-fold cross-validation")
right.set_title("Each modality alone, then early, late and joint fusion")
right.spines[["top", "right"]].set_visible(False)

output = Path("outputs") / "quickstart.png"
output.parent.mkdir(exist_ok=True)
figure.savefig(output, dpi=120)
print(f"\nThe plot of these scores is in {output}.")
print(f"All of this took {time.perf_counter() - started:.0f} s.")
