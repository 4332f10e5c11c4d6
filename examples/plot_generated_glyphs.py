"""
Generate the image of a character from its name
===============================================

*The name was in no training row. Is the image right?*

A Braille cell has up to eight dots, and its Unicode name lists them: "braille pattern dots-1246".
With some of the 256 patterns one can draw the others. A generator learns that from images and
names: by flow matching, a small network is trained to turn noise into images in a few steps,
conditioned on the name.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer

from skmm import ImageGenerator, Trainer
from skmm.datasets import load_glyphs_retrieval
from skmm.generation import FlowMatching

SIZE = 16


def load(subset):
    """Names and images of Braille patterns."""
    X = load_glyphs_retrieval(subset=subset, image_size=SIZE).data
    return X[X["name"].str.startswith("braille pattern dots")]


train, test = load("train"), load("test")
print(f"{len(train)} patterns to learn from, {len(test)} others to generate.")

# %%
# Names to images
# ---------------
# The triples are those of any fusion of skmm: a name, a transformer, the columns. Here the
# transformer is scikit-learn's own, for which each digit is a word. The target is a column of
# images.

generator = ImageGenerator(
    [("name", CountVectorizer(token_pattern=r"\d|[a-z]+"), "name")],
    image_size=SIZE,
    n_channels=16,
    n_components=32,
    dropout=0.0,
    trainer=Trainer(batch_size=16, learning_rate=2e-3, early_stopping=False),
    max_epochs=55,
    random_state=0,
).fit(train[["name"]], train["image"])
generated = generator.predict(test[["name"]])
print(generated.shape, generated.dtype)

# %%
# The first row has the real images, the second the generated ones.

figure, axes = plt.subplots(2, 10, figsize=(10, 2.6))
for column, place in zip(axes.T, range(10), strict=True):
    for axis, image in zip(column, (test["image"].iloc[place], generated[place]), strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[])
    column[0].set_title(test["name"].iloc[place].split()[-1], fontsize=8)
figure.tight_layout()

# %%
# Is it the right pattern?
# ------------------------
# Each generated image is classified as the nearest of all real patterns. The baseline is the image
# of the training row whose name shares the most dots.

known = pd.concat([train, test])
real = np.stack(known["image"]).reshape(len(known), -1).astype(float)


def read(images):
    """Return the name of the real pattern that is nearest to each image."""
    pixels = np.asarray(images, dtype=float).reshape(len(images), -1)
    distances = (pixels**2).sum(1)[:, None] - 2 * pixels @ real.T + (real**2).sum(1)
    return known["name"].to_numpy()[distances.argmin(axis=1)]


def dots(names):
    """Return which of the eight dots the names list, (n, 8)."""
    return np.array([[digit in name for digit in "12345678"] for name in names])


shared = (dots(test["name"])[:, None] == dots(train["name"])[None]).sum(axis=2)
nearest = np.stack(train["image"].iloc[shared.argmax(axis=1)])
for label, images in {"flow matching": generated, "most similar name": nearest}.items():
    found = read(images)
    exact = np.mean(found == test["name"])
    single = np.mean(dots(found) == dots(test["name"]))
    print(f"{label:18} whole pattern right {exact:.2f}, single dots right {single:.3f}")

# %%
# Steps and guidance
# ------------------
# The method is read by ``predict``: use ``set_params`` on the fitted generator, and nothing is
# trained again. A few steps are enough for these simple images. With a ``guidance_scale`` above 1
# the images follow the name more strictly than learned; with 0 they do not depend on the name.

ways = [
    FlowMatching(n_steps=n_steps, guidance_scale=scale)
    for n_steps, scale in ((1, 2.0), (4, 2.0), (16, 2.0), (16, 1.0), (16, 0.0))
]
figure, axes = plt.subplots(len(ways), 8, figsize=(8, 1.1 * len(ways)))
for line, way in zip(axes, ways, strict=True):
    images = generator.set_params(method=way).predict(test[["name"]])
    right = np.mean(read(images) == test["name"])
    words = f"n_steps {way.n_steps}\nguidance {way.guidance_scale:g}\n{right:.2f} right"
    line[0].text(0.5, 0.5, words, ha="center", va="center", fontsize=8)
    line[0].set_axis_off()
    for axis, image in zip(line[1:], images, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[])
figure.tight_layout()
