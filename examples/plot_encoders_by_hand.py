"""
The output of an encoder
========================

*What does an encoder return, and how does it treat a missing cell?*

Encoders are transformers: they can be used by hand, in a ``Pipeline`` or in a
``ColumnTransformer``. Here three of them encode the same characters: their names, their images and
a table of their properties. Nothing is downloaded.
"""

# %%
# A frame with gaps
# -----------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from skmm import ImageEncoder, TabularEncoder, TextEncoder
from skmm.datasets import load_glyphs

glyphs = load_glyphs(task="category", image_size=32, n_samples=1200)
X, y = glyphs.data.copy(), glyphs.target
rng = np.random.default_rng(0)
X.loc[rng.random(len(X)) < 0.2, "name"] = None
X.loc[rng.random(len(X)) < 0.2, "image"] = None
shown = X[["image", "name", "ink_width", "numeric_value", "mirrored"]].head(8)
print(shown.to_string(max_colwidth=28))

# %%
# From a column to features
# -------------------------
# ``"tfidf"`` is learned from the names. A missing name is a row of NaN, not an empty text. With
# ``set_output`` the result is a DataFrame, and the features have names.

names = TextEncoder("tfidf", n_components=16, random_state=0).set_output(transform="pandas")
name_features = names.fit_transform(X[["name"]])
print(name_features.iloc[:8, :4].round(2).to_string())

# %%
# A table is encoded as a whole. A single missing number is marked in a column of its own; only a
# row without any of them would be NaN.

table = TabularEncoder().fit(X[["ink_width", "numeric_value", "mirrored"]])
print(table.get_feature_names_out())

# %%
# From scratch or frozen
# ----------------------
# ``"cnn"`` is a small network from scratch. Outside a fusion it is trained with ``y`` through a
# linear head that is then dropped. ``ImageEncoder()`` without arguments is frozen and pretrained:
# it learns nothing from the data and needs no ``y``.

images = ImageEncoder("cnn", image_size=32, n_components=32, max_epochs=12, random_state=0)
train, test = slice(0, 800), slice(800, None)
images.fit(X[train][["image"]], y[train])
print("Loss of the epochs:", [round(epoch["train_loss"], 2) for epoch in images.history_])
image_features = images.transform(X[test][["image"]])
print(image_features.shape, image_features.dtype)

# %%
# Tokens
# ------
# Attention to parts of a cell needs tokens: ``transform_sequence`` returns the vectors before
# pooling and a mask of those that exist. A missing cell has none.

words = TextEncoder("gru", n_components=32, max_epochs=1, random_state=0).fit(X[["name"]])
tokens, mask = words.transform_sequence(X[["name"]])
print("tokens", tokens.shape, "mask", mask.shape)
for name, n_tokens in zip(X["name"].head(8).fillna("(missing)"), mask[:8].sum(axis=1), strict=True):
    print(f"{n_tokens:2d} tokens: {name}")

# %%
# Plots of the features
# ---------------------
# Left: the features of twelve names, with stronger colors for larger values; the rows of the
# missing ones are empty. Right: the images of the test rows, by the first two principal components
# of their features.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.8), width_ratios=[1, 1.1], layout="constrained"
)
shown = name_features.head(12)
limit = np.nanmax(np.abs(shown))
left.set_facecolor("0.85")
left.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
labels = X["name"].head(12).fillna("(missing)")
left.set_yticks(range(12), [label if len(label) < 30 else f"{label[:28]}..." for label in labels])
left.set_xticks([0, 15], [shown.columns[0], shown.columns[-1]])
left.set_title("TextEncoder: a row a name")

present = ~np.isnan(image_features[:, 0])
plane = PCA(2).fit_transform(image_features[present])
categories = y[test][present]
common = categories.value_counts().index[:6]
for category in common:
    chosen = (categories == category).to_numpy()
    right.scatter(*plane[chosen].T, s=14, alpha=0.8, label=category)
right.set_title("ImageEncoder: a point an image")
right.set_xticks([])
right.set_yticks([])
right.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
for axes in (left, right):
    axes.spines[:].set_visible(False)
plt.show()
