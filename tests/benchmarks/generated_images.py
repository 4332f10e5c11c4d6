"""Images of characters from their names alone: flow matching and the GAN, compared.

Names of 13 scripts, of which the first word is the script. Images are generated for names that
were in no training row. Classifiers of scripts that are trained on real images only rate them.
"""

import argparse
import copy
import pickle
import textwrap
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from report import table, write_section
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from skmm import ContrastiveAlignment, ImageEncoder, ImageGenerator, TextEncoder, Trainer
from skmm.datasets import load_glyphs_retrieval
from skmm.metrics import frechet_distance, paired_cosine, recall_at_k

BAR = 0.70
SIZE = 32
SCRIPTS = (
    "arabic armenian braille canadian cyrillic georgian greek hebrew lao latin lisu nko tifinagh"
).split()
FLOW, GAN = "flow matching", "GAN"
REAL, NEAREST = "real images", "nearest name"
FLOW_EPOCHS, GAN_EPOCHS = 50, 24
READERS = {
    "tfidf": TextEncoder("tfidf", n_components=192, random_state=0),
    "minilm": TextEncoder(),
    "gru": TextEncoder("gru", n_components=128),
}
SAID = {
    "tfidf": "TF-IDF of words, 192 components",
    "minilm": "frozen all-MiniLM-L6-v2",
    "gru": "a GRU that is trained with the generator",
}
RECOGNIZED = "script recognized"
# Read at predict: nothing is trained again.
SCALES = (1.0, 2.0, 3.0, 4.0, 6.0)
WAYS = [{"guidance_scale": value} for value in SCALES[:2]] + [{"n_steps": 4}]  # of the method
FIGURE = Path(__file__).parents[2] / "docs" / "_static" / "generated_glyphs.png"
SHOWN = (
    "latin small letter",
    "latin capital letter",
    "greek",
    "cyrillic",
    "arabic",
    "hebrew",
    "georgian",
    "canadian",
    "braille",
    "lao",
)


def load(subset, n_rows=None):
    """Return names and images, and the scripts."""
    X = load_glyphs_retrieval(subset=subset, image_size=SIZE).data
    script = X["name"].str.partition(" ")[0]
    X = X[script.isin(SCRIPTS)][:n_rows]
    return X, script[X.index]


def generators(names, max_epochs):
    """The two methods."""
    options = {"image_size": SIZE, "dropout": 0.0, "random_state": 0, "verbose": 1}
    trainer = Trainer(batch_size=32, early_stopping=False)
    own = {
        FLOW: {
            "method": "flow_matching",
            "trainer": clone(trainer).set_params(learning_rate=2e-3),
        },
        GAN: {"method": "gan", "trainer": trainer},
    }
    for name, kind in own.items():
        triples = [("name", names, ["name"])]
        yield name, ImageGenerator(triples, max_epochs=max_epochs[name], **kind, **options)


def nearest(train, test):
    """Return the images of the training rows with the most similar names."""
    words = TfidfVectorizer(token_pattern=r"\S+").fit(train["name"])
    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(words.transform(train["name"]))
    found = index.kneighbors(words.transform(test["name"]), return_distance=False)[:, 0]
    return np.stack(train["image"].iloc[found])


def chosen_scale(model, X, y, folder):
    """Guidance by which images of a fifth of the training rows are recognized most often."""
    X, X_held, y, y_held = train_test_split(X, y, test_size=0.2, random_state=0)
    model, _ = fitted("four fifths", clone(model), X, folder)
    classifier = by_pixels().fit(list(X["image"]), y)
    share = {}
    for scale in SCALES:
        images = model.set_params(method__guidance_scale=scale).predict(X_held[["name"]])
        share[scale] = np.mean(classifier.predict(list(images)) == y_held)
    print("held-out training rows, script recognized by guidance", share, flush=True)
    return max(share, key=share.get)


def by_pixels():
    """Return a classifier of images as they are."""
    pixels = FunctionTransformer(lambda cells: 1 - np.stack(cells).reshape(len(cells), -1) / 255)
    return make_pipeline(pixels, SVC(C=10))


class Measures:
    """Two classifiers, features of images and an alignment, all fitted on real images only."""

    def __init__(self, X, y, test, *, alignment_epochs=25):
        self.by_pixels = by_pixels().fit(list(X["image"]), y)
        self.encoder = ImageEncoder().fit(X[["image"]])
        features = self.vectors(X["image"])
        self.by_encoder = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=3000)
        ).fit(features, y)
        self.alignment = ContrastiveAlignment(
            [
                ("image", ImageEncoder("cnn", image_size=SIZE, n_components=64), ["image"]),
                ("name", TextEncoder("tfidf"), ["name"]),
            ],
            n_components=64,
            trainer=Trainer(early_stopping=False, learning_rate=1e-3),
            max_epochs=alignment_epochs,
            random_state=0,
        ).fit(X)
        self.test, self.real = test, self.vectors(test["image"])
        rows = np.random.default_rng(0).choice(len(X), min(len(X), len(test)), replace=False)
        self.reference = features[rows]

    def vectors(self, images):
        return np.asarray(self.encoder.transform(pd.DataFrame({"image": list(images)})))

    def __call__(self, images, scripts):
        """Return the figures of the images of all test rows."""
        found = self.vectors(images)
        units = found / np.linalg.norm(found, axis=1, keepdims=True)
        real = self.real / np.linalg.norm(self.real, axis=1, keepdims=True)
        is_real = np.array_equal(found, self.real)
        space = self.alignment
        return {
            RECOGNIZED: float(np.mean(self.by_pixels.predict(list(images)) == scripts)),
            "by EfficientNet": float(np.mean(self.by_encoder.predict(found) == scripts)),
            # Of the real ones themselves: to as many training images.
            "Fréchet distance": frechet_distance(self.reference if is_real else self.real, found),
            "recall@10": recall_at_k(units @ real.T, k=10),
            "agreement": paired_cosine(
                space.transform_modality(self.test, "name"),
                space.transform_modality(list(images), "image"),
            ),
        }


def fitted(name, model, X, folder):
    """Fit a generator, or take the one that lies in the folder; and the CPU seconds of the fit."""
    path = None if folder is None else folder / f"{name.replace(' ', '_')}.pkl"
    if path is not None and path.exists():
        return pickle.loads(path.read_bytes())
    started = time.process_time()
    model.fit(X[["name"]], X["image"])
    found = model, time.process_time() - started
    print(f"{name}: fitted in {found[1]:.0f} CPU s", flush=True)
    if path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(found))
    return found


def measure(train, test, names, max_epochs, *, alignment_epochs=25, folder=None):
    """Return the figures of everything and by script, CPU seconds, the images, the guidance."""
    (X, y), (X_test, y_test) = train, test
    scripts = y_test.to_numpy()
    made = {REAL: np.stack(X_test["image"]), NEAREST: nearest(X, X_test)}
    seconds = {}
    for name, model in generators(names, max_epochs):
        if name == FLOW:
            scale = chosen_scale(model, X, y, folder)
        model, seconds[name] = fitted(name, model, X, folder)
        if name == FLOW:
            model.set_params(method__guidance_scale=scale)
        made[name] = model.predict(X_test[["name"]])
        for way in WAYS if name == FLOW else []:
            words = ", ".join(f"{key}={value:g}" for key, value in way.items())
            own = {f"method__{key}": value for key, value in way.items()}
            other = copy.copy(model).set_params(**own)
            made[f"{name}, {words}"] = other.predict(X_test[["name"]])
    measures, rows = Measures(X, y, X_test, alignment_epochs=alignment_epochs), {}
    for name, images in made.items():
        rows[name] = measures(images, scripts)
        print(name, {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
    right = {
        name: pd.Series(measures.by_pixels.predict(list(made[name])) == scripts)
        for name in (REAL, FLOW, GAN)
    }
    by_script = pd.DataFrame({name: own.groupby(scripts).mean() for name, own in right.items()})
    by_script.insert(0, "rows", pd.Series(scripts).value_counts())
    return pd.DataFrame(rows).T, by_script, seconds, made, scale


def draw(names, made, path):
    """Two rows for each shown beginning of a name: the real image, and those that were made."""
    kept = [REAL, NEAREST, FLOW, GAN]
    places = [
        place
        for start in SHOWN
        for place in np.flatnonzero(names.str.startswith(start).to_numpy())[:2]
    ]
    figure, axes = plt.subplots(
        -(-len(places) // 2), 2 * (len(kept) + 1), figsize=(9.5, 0.42 * len(places)), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for line, place in zip(axes.reshape(-1, len(kept) + 1), places, strict=False):
        words = textwrap.fill(names.iloc[place], 20)
        line[0].text(1.0, 0.5, words, ha="right", va="center", fontsize=6)
        for axis, name in zip(line[1:], kept, strict=True):
            axis.imshow(made[name][place], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.set_axis_on()
    for i, axis in enumerate(axes[0]):
        title = (None, *kept)[i % (len(kept) + 1)]
        if title:
            axis.set_title(title, fontsize=7)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as drawn:  # a few grays are enough, and a small file
        drawn.convert("L").quantize(16).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, help="training and test rows; all by default")
    parser.add_argument("--epochs", type=int, default=FLOW_EPOCHS, help="of flow matching")
    parser.add_argument("--gan-epochs", type=int, default=GAN_EPOCHS)
    parser.add_argument("--names", choices=sorted(READERS), default="tfidf")
    parser.add_argument("--models", type=Path, help="folder that keeps the fitted generators")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    train, test = load("train", options.rows), load("test", options.rows)
    max_epochs = {FLOW: options.epochs, GAN: options.gan_epochs}
    results, by_script, seconds, made, scale = measure(
        train,
        test,
        READERS[options.names],
        max_epochs,
        alignment_epochs=min(25, options.epochs),
        folder=options.models,
    )
    draw(test[0]["name"], made, options.figure)
    reached = "reached" if results.loc[FLOW, RECOGNIZED] >= BAR else "MISSED"
    text = f"""
{len(train[0])} characters of {len(SCRIPTS)} scripts to learn from, {len(test[0])} others to
generate, {SIZE} x {SIZE} pixels, gray. Input: the name alone, read by {SAID[options.names]}.
Flow matching {options.epochs} epochs ({seconds[FLOW]:.0f} CPU seconds), the GAN
{options.gan_epochs} ({seconds[GAN]:.0f}); guidance {scale:g}, of
{", ".join(f"{own:g}" for own in SCALES)} that by which images of a fifth of the training
rows, left out of a fit of their own, are recognized most
often. The classifier is a support vector machine on pixels, trained on the real training
images; a logistic regression on frozen EfficientNet-Lite0 is a second one. Fréchet distance of
these EfficientNet features to the real held-out images (of the real ones themselves: to as many
training images); recall@10: share of images that have the real one among the 10 nearest of
{len(test[0])}, by the same features; agreement of name and image by a contrastive alignment of
the training rows. "{NEAREST}" takes the real image of the training row with the most
similar name.

{table(results)}

Bar (flow matching: script recognized at least {BAR:.2f}): {reached}. By script:
{"; ".join(_line(script, row) for script, row in by_script.iterrows())}.
"""
    write_section("Generated images: glyphs", "generated_images.py", text)


def _line(script, row):
    return (
        f"{script} ({row['rows']:.0f} rows) real {row[REAL]:.2f}, flow {row[FLOW]:.2f},"
        f" GAN {row[GAN]:.2f}"
    )


if __name__ == "__main__":
    main()
