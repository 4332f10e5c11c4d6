"""What ``balance`` of a joint fusion is worth: a problem made for it, and real data.

The problem: the class is the sign of a product of two numbers of the modality ``slow``, among
others of no use. The modality ``quick`` says it by one number, right in 80 rows of 100, among many
of no use, which a network memorizes. The bar: each mode beats none in the mean over five
seeds, by more than twice the standard error of the difference.

On real data, three seeds, each another split of the rows in 3 : 1, there is no bar.
"""

import sys

import numpy as np
import pandas as pd
from digits import PIXELS
from digits import frame as digits_frame
from report import load_real, table, write_section
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from skmm import AudioEncoder, ImageEncoder, JointFusionClassifier, TextEncoder, Trainer, set_config

MODES = (None, "gradient", "auxiliary")
N_TRAIN, N_TEST = 1000, 4000
N_QUICK, N_SLOW, RIGHT = 60, 12, 0.8
# Of few rows a tenth says little about when to stop.
OPTIONS = {"n_components": 64, "trainer": Trainer(validation_fraction=0.2)}
VECTORS = [("quick", "passthrough", ["quick"]), ("slow", "passthrough", ["slow"])]


def problem(seed):
    """Return a frame and classes, -1 and 1."""
    rng = np.random.default_rng(seed)
    n = N_TRAIN + N_TEST
    slow, quick = rng.normal(size=(n, N_SLOW)), rng.normal(size=(n, N_QUICK))
    y = np.where(slow[:, 0] * slow[:, 1] > 0, 1, -1)
    quick[:, 0] += 3 * np.where(rng.random(n) < RIGHT, y, -y)
    blocks = {"quick": quick, "slow": slow}
    return pd.DataFrame({k: list(v.astype(np.float32)) for k, v in blocks.items()}), y


def made():
    """Yield (seed, model, accuracy) of the problem."""
    for seed in range(5):
        X, y = problem(seed)
        parts = X[:N_TRAIN], X[N_TRAIN:], y[:N_TRAIN], y[N_TRAIN:]
        yield from scores(VECTORS, parts, seed, **OPTIONS)


def emoji():
    data = load_real("emoji")
    triples = [("image", ImageEncoder(), ["image"]), ("name", TextEncoder(), ["name"])]
    yield from on_splits(data[["image", "name"]], data["label"], triples)


def avdigits():
    data = digits_frame()
    triples = [("audio", AudioEncoder(), ["audio"]), PIXELS]
    yield from on_splits(data[["audio", "pixels"]], data["label"], triples)


def on_splits(X, y, triples, seeds=(0, 1, 2)):
    for seed in seeds:
        parts = train_test_split(X, y, test_size=0.25, stratify=y, random_state=seed)
        yield from scores(triples, parts, seed)


def scores(triples, parts, seed, **options):
    X_train, X_test, y_train, y_test = parts
    alone = {f"{triple[0]} alone": ([triple], None) for triple in triples}
    both = {f"balance={mode!r}": (triples, mode) for mode in MODES}
    for name, (used, mode) in {**alone, **both}.items():
        used = [(n, m if isinstance(m, str) else clone(m), c) for n, m, c in used]
        model = JointFusionClassifier(used, balance=mode, random_state=seed, **options)
        yield seed, name, model.fit(X_train, y_train).score(X_test, y_test)


def measure(source):
    rows = []
    for row in source():
        print(source.__name__, *row, flush=True)
        rows.append(row)
    found = pd.DataFrame(rows, columns=["seed", "model", "accuracy"])
    found = found.pivot(index="seed", columns="model", values="accuracy")[
        list(dict.fromkeys(found["model"]))
    ]
    gains = found.sub(found["balance=None"], axis=0)
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    shown = pd.DataFrame(
        {"accuracy": found.mean(), "lowest": found.min(), "gain": gains.mean(), "error": error}
    )
    text = (
        f"Mean over {len(found)} seeds; `gain` over `balance=None` and its standard error. The"
        f" strategy is the default, 'concat'.\n\n{table(shown)}"
    )
    if source is made:
        met = all(shown["gain"][f"balance={m!r}"] > 2 * error[f"balance={m!r}"] for m in MODES[1:])
        text += (
            f"\n\nBar (each mode gains more than twice the error): {'met' if met else 'NOT MET'}"
        )
    write_section(f"Balance of modalities: {source.__name__}", "balance.py", text)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_config(store=sys.argv[1])  # a folder that stays, to measure again
    wanted = sys.argv[2:]
    for source in (made, avdigits, emoji):
        if not wanted or source.__name__ in wanted:
            measure(source)
