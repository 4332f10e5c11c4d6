"""From images to names: the captioner against the name of the nearest training image.

Emoji and their names, or glyphs and theirs (``--set glyphs``). Both sides look at the same frozen
features, and each chooses what it can choose on a validation part of the training rows: the
captioner how it decodes, the neighbors which features, and whether the nearest or the one of five
that is most like the others. ``--small`` takes a few rows and epochs, so that the
suite can run it.
"""

import argparse
import time

import numpy as np
import pandas as pd
from PIL import Image
from report import load_real, table, write_section
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler, normalize

from skmm import CaptionGenerator, ImageEncoder, Trainer, set_config
from skmm.datasets import load_glyphs_retrieval
from skmm.generation import BeamSearch
from skmm.metrics import chrf, corpus_bleu, exact_match

SIDE = 24
WAYS = (
    {"decoding": "greedy"},
    *({"decoding": BeamSearch(5, length_penalty=p)} for p in (0.0, 0.5, 1.0)),
)
CAPTIONER, NEIGHBOR = "captioner", "nearest neighbor"


def load(name, n_rows):
    """Return images and names, at most ``n_rows`` if it is given."""
    frame = load_real("emoji") if name == "emoji" else load_glyphs_retrieval().data
    frame = frame[["image", "name"]].reset_index(drop=True)
    return frame if n_rows is None else frame.sample(n_rows, random_state=0, ignore_index=True)


def pixels(cell):
    """Return a small image on white."""
    image = Image.open(cell) if isinstance(cell, str) else Image.fromarray(cell)
    image = image.convert("RGBA")
    on_white = Image.new("RGBA", image.size, "white")
    on_white.alpha_composite(image)
    small = on_white.convert("RGB").resize((SIDE, SIDE))
    return np.asarray(small, dtype=np.float32).ravel() / 255


def neighbors(spaces, texts, train, asked):
    """Names by cosine similarity: yields which way, and a name for each query."""
    for name, vectors in spaces.items():
        scaled = StandardScaler().fit(vectors[train])
        for kind, values in (("", vectors), (", standardized", scaled.transform(vectors))):
            unit = normalize(values)
            order = np.argsort(-(unit[asked] @ unit[train].T), axis=1)[:, :5]
            near = texts[train][order]  # (n_asked, 5)
            yield f"{name}{kind}, nearest", near[:, 0]
            yield f"{name}{kind}, consensus of 5", np.array([consensus(row) for row in near])


def consensus(names):
    """Return the name that is most like the others: Devlin et al. (2015)."""
    likeness = [np.mean([chrf([other], [name]) for other in names]) for name in names]
    return names[int(np.argmax(likeness))]


def fitted(features, texts, rows, seed, max_epochs):
    captions = CaptionGenerator(
        [("image", "passthrough", ["vector"])],
        decoder="gru",
        n_layers=1,
        dropout=0.4,
        max_epochs=max_epochs,
        trainer=Trainer(early_stopping=False),
        random_state=seed,
    )
    return captions.fit(as_frame(features, rows), texts[rows])


def as_frame(features, rows):
    return pd.DataFrame({"vector": list(features[rows])})


def compare(spaces, texts, seed, max_epochs):
    """Return measures of both on a test part, each with what was best on a validation part."""
    rows, test = train_test_split(np.arange(len(texts)), test_size=0.2, random_state=seed)
    train, valid = train_test_split(rows, test_size=0.2, random_state=seed)
    features = spaces["EfficientNet-Lite0"]

    found = {way: corpus_bleu(texts[valid], t) for way, t in neighbors(spaces, texts, train, valid)}
    best = max(found, key=found.get)
    nearest = dict(neighbors(spaces, texts, rows, test))

    captions = fitted(features, texts, train, seed, max_epochs)
    asked = as_frame(features, valid)
    scores = [captions.set_params(**way).score(asked, texts[valid]) for way in WAYS]
    way = WAYS[int(np.argmax(scores))]
    captions = fitted(features, texts, rows, seed, max_epochs).set_params(**way)
    written = captions.predict(as_frame(features, test))
    answers = {
        f"{CAPTIONER}, decoding chosen": (written, str(way)),
        f"{NEIGHBOR}, EfficientNet-Lite0": (nearest["EfficientNet-Lite0, nearest"], ""),
        f"{NEIGHBOR}, chosen": (nearest[best], best),
    }
    for name, (answer, choice) in answers.items():
        yield {
            "method": name,
            "BLEU": corpus_bleu(texts[test], answer),
            "chrF": chrf(texts[test], answer),
            "exact match": exact_match(texts[test], answer),
            "chosen": choice,
            "seed": seed,
        }


def report(name, frame, results, max_epochs, seconds):
    n_splits = results["seed"].nunique()
    grouped = results.groupby("method", sort=False)
    means = grouped[["BLEU", "chrF", "exact match"]].mean()
    means.insert(1, "+-", grouped["BLEU"].std())
    means["chosen"] = ["; ".join(sorted(set(part["chosen"]))) or "-" for _, part in grouped]
    scores = results.pivot(index="seed", columns="method", values="BLEU")
    rivals = scores.drop(columns=[c for c in scores if c.startswith(CAPTIONER)])
    own = scores.drop(columns=rivals.columns).iloc[:, 0]
    lead = own - rivals.max(axis=1)
    spread = lead.std() if n_splits > 1 else np.nan
    reached = "reached" if lead.mean() > spread else "MISSED"
    text = (
        f"{len(frame)} images and their names, {frame['name'].nunique()} different; a fifth held"
        f" out, {n_splits} splits. The captioner is a GRU with attention over frozen"
        f" EfficientNet-Lite0 vectors, {max_epochs} epochs; decoding by the BLEU of a fifth of the"
        " training rows, then trained again on all of them. Neighbors by cosine; features"
        f" (EfficientNet-Lite0 or {SIDE} x {SIDE} pixels, as they are or standardized) and"
        " the nearest or the most typical of five, by the same BLEU."
        f" {seconds:.0f} CPU seconds in all.\n\n{table(means)}\n\n"
        f"Bar (captioner's BLEU above the better neighbor's in the mean by more than the spread of"
        f" the difference): {lead.mean():+.3f} +- {spread:.3f}, {reached}."
    )
    write_section(f"Names of images: {name}", "texts_from_images.py", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a few rows and epochs")
    parser.add_argument("--set", choices=["emoji", "glyphs"], default="emoji")
    parser.add_argument("--store", help="a folder for the encoded images that stays")
    options = parser.parse_args()
    if options.store:
        set_config(store=options.store)
    started = time.process_time()
    frame = load(options.set, 150 if options.small else None)
    spaces = {
        "EfficientNet-Lite0": np.asarray(ImageEncoder().fit_transform(frame[["image"]])),
        "pixels": np.stack([pixels(cell) for cell in frame["image"]]),
    }
    n_splits, max_epochs = (1, 2) if options.small else (3, 40)
    rows = []
    for seed in range(n_splits):
        for row in compare(spaces, frame["name"].to_numpy(), seed, max_epochs):
            rows.append(row)
            print(row, flush=True)
    seconds = time.process_time() - started
    report(options.set, frame, pd.DataFrame(rows), max_epochs, seconds)


if __name__ == "__main__":
    main()
