"""
Find a character by its name
============================

*Neither the name nor the image was in training: can one be found by the other?*

Each row pairs the full Unicode name of a character with its image. A contrastive alignment maps the
output of a small convolutional network and TF-IDF features of words into a common space: a name and
its image become similar, other pairs dissimilar. Then we search the images of new characters by
their names, and the names by their images.
"""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.frozen import FrozenEstimator

from skmm import ContrastiveAlignment, CrossModalRetriever, ImageEncoder, TextEncoder, Trainer
from skmm.datasets import load_glyphs_retrieval
from skmm.metrics import median_rank, recall_at_k

train = load_glyphs_retrieval(subset="train", n_samples=2500, image_size=32).data
test = load_glyphs_retrieval(subset="test", n_samples=500, image_size=32).data
print(f"{len(train)} pairs to learn from, {len(test)} others to search.")

# %%
# A common space
# --------------
# The network for images is trained with the alignment, as it would be with a joint fusion.

alignment = ContrastiveAlignment(
    [
        ("image", ImageEncoder("cnn", image_size=32, n_components=64), ["image"]),
        ("name", TextEncoder("tfidf"), ["name"]),
    ],
    n_components=64,
    trainer=Trainer(early_stopping=False, learning_rate=1e-3),
    max_epochs=25,
    random_state=0,
).fit(train)

# %%
# How well do names find images?
# ------------------------------
# ``transform_modality`` needs the columns of one modality only. Its vectors have unit length, so
# products are cosines.

names, images = (alignment.transform_modality(test, name) for name in ("name", "image"))
directions = {"name to image": names @ images.T, "image to name": images @ names.T}
measured = {
    direction: {
        "recall@1": recall_at_k(scores),
        "recall@10": recall_at_k(scores, k=10),
        "median rank": median_rank(scores),
    }
    for direction, scores in directions.items()
}
n = len(test)
measured["chance"] = {"recall@1": 1 / n, "recall@10": 10 / n, "median rank": (n + 1) / 2}
print(pd.DataFrame(measured).T.round(3).to_string())

# %%
# Search images by names
# ----------------------
# A retriever keeps the rows that are searched and their vectors. It would fit the alignment to
# them; ours is already fitted to other rows, so we wrap it in a ``FrozenEstimator``. ``search``
# returns rows of the frame. The outlined image is the one that belongs to the name.

retriever = CrossModalRetriever(FrozenEstimator(alignment)).fit(test)


def show(queries, source, target):
    """Plot a row for each query, with its five answers."""
    found = retriever.search(queries, 5, source=source, target=target)
    figure, axes = plt.subplots(len(queries), 6, figsize=(11, 1.75 * len(queries)))
    for row, (label, query) in zip(axes, queries.iterrows(), strict=True):
        draw(row[0], query, source == "image", bold=True)
        answers = found[found["query"] == label].sort_values("rank")
        for axis, (answer, cells) in zip(row[1:], answers.iterrows(), strict=True):
            draw(axis, cells, source == "name", right=answer == label)
    figure.tight_layout()


def draw(axis, cells, is_image, *, bold=False, right=False):
    """Plot one cell: an image, or a name."""
    axis.set(xticks=[], yticks=[], xlim=(-0.5, 31.5), ylim=(31.5, -0.5))
    if is_image:
        axis.imshow(cells["image"], cmap="gray", vmin=0, vmax=255)
    else:
        weight = "bold" if bold else "normal"
        words = textwrap.fill(str(cells["name"]), 18)
        axis.text(15.5, 15.5, words, ha="center", va="center", fontsize=9, fontweight=weight)
    axis.spines[:].set_visible(right or is_image)
    axis.spines[:].set(color="C2" if right else "0.85", linewidth=4 if right else 1)


queries = test.iloc[[2, 17, 31, 44, 58, 73]]
show(queries, "name", "image")

# %%
# Search names by images
# ----------------------

show(queries, "image", "name")

# %%
# Free queries
# ------------
# A query is any frame with the column, also with a text that is not the name of a character.

asked = pd.DataFrame({"name": ["arrow pointing left", "a heart", "square with something in it"]})
found = retriever.search(asked, 3, source="name", target="image")
print(found[["query", "rank", "score", "name"]].to_string())
