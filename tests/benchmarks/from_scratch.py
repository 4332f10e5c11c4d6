"""Textbook intermediate fusion: a CNN and a GRU, trained together from raw data on emoji.

Nothing is pretrained: the networks learn from images and names of some 1,400 emoji. They are
compared with each network alone, and with the same fusion over frozen pretrained encoders.
``--small`` takes a few rows and epochs, so that the suite can run it.
"""

import argparse
import time

import pandas as pd
from report import load_real, table, write_section
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import train_test_split

from skmm import ImageEncoder, JointFusionClassifier, TextEncoder, Trainer

SEEDS = (0, 1, 2)
IMAGE = ("image", ImageEncoder("cnn"), ["image"])
NAME = ("name", TextEncoder("gru"), ["name"])
FROZEN = [("image", ImageEncoder(), ["image"]), ("name", TextEncoder(), ["name"])]


def models(seed, max_epochs):
    """Yield models by name, all trained for the same number of epochs."""
    # A tenth of so few rows says too little to stop by: it stopped half-way on other splits.
    fusion = {
        "max_epochs": max_epochs,
        "trainer": Trainer(early_stopping=False),
        "random_state": seed,
    }
    yield "most frequent group", DummyClassifier()
    yield "CNN alone", JointFusionClassifier([IMAGE], **fusion)
    yield "GRU alone", JointFusionClassifier([NAME], **fusion)
    yield "CNN + GRU, trained together", JointFusionClassifier([IMAGE, NAME], **fusion)
    yield (
        "CNN + GRU, gated",
        JointFusionClassifier([IMAGE, NAME], strategy="gated", **fusion),
    )
    yield "pretrained and frozen", JointFusionClassifier(FROZEN, **fusion)


def measure(X, y, seeds, max_epochs):
    rows = []
    for seed in seeds:
        parts = train_test_split(X, y, test_size=0.25, stratify=y, random_state=seed)
        X_train, X_test, y_train, y_test = parts
        for name, model in models(seed, max_epochs):
            started = time.process_time()
            answer = model.fit(X_train, y_train).predict(X_test)
            seconds = time.process_time() - started
            rows.append(
                {
                    "model": name,
                    "accuracy": accuracy_score(y_test, answer),
                    "balanced accuracy": balanced_accuracy_score(y_test, answer),
                    "CPU s": seconds,
                }
            )
            print(seed, rows[-1], flush=True)
    found = pd.DataFrame(rows).groupby("model", sort=False)
    means = found.mean()
    means.insert(1, "+-", found["accuracy"].std())
    means["CPU s"] = means["CPU s"].round().astype(int)
    return means


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a few rows and epochs")
    small = parser.parse_args().small
    frame = load_real("emoji")
    if small:
        frame = frame.sample(200, random_state=0)
    X, y = frame[["image", "name"]], frame["label"]
    seeds, max_epochs = (SEEDS[:1], 2) if small else (SEEDS, 30)
    results = measure(X, y, seeds, max_epochs)
    text = (
        f"{len(X)} emoji in {y.nunique()} groups, a quarter of them held out; mean over"
        f" {len(seeds)} splits, +- is the standard deviation of the accuracy. {max_epochs} epochs"
        " without early stopping, other parameters by default. `pretrained and frozen` are"
        f" EfficientNet-Lite0 and all-MiniLM-L6-v2 under the same fusion.\n\n{table(results)}"
    )
    write_section("From scratch: CNN + GRU on emoji", "from_scratch.py", text)


if __name__ == "__main__":
    main()
