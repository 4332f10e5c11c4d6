"""``predict_proba`` of one row whose modalities come as vectors, against the bare forward.

With ``--profile`` it shows where the time of a call goes.
"""

import cProfile
import pstats
import sys
import time
from statistics import median

import numpy as np
import pandas as pd
import torch
from report import table, write_section
from timing import verdict

from skmm import JointFusionClassifier
from skmm._environment._device import one_thread
from skmm._training._batches import Batch, FeatureInputs

WIDTHS, CALLS, TURNS = {"text": 384, "photo": 1280, "numbers": 20}, 50, 40
BAR = 3.0


def fitted(n=400):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 4
    blocks = {k: rng.normal(size=(n, width)).astype(np.float32) for k, width in WIDTHS.items()}
    frame = pd.DataFrame({name: list(block) for name, block in blocks.items()})
    triples = [(name, "passthrough", [name]) for name in WIDTHS]
    model = JointFusionClassifier(triples, max_epochs=2, device="cpu", random_state=0)
    return model.fit(frame, y), frame


def bare_forward(module, row):
    """From the cells of a row to probabilities: tensors, network, softmax, array."""
    inputs = {
        name: FeatureInputs(
            torch.from_numpy(row[name].iloc[0][None]), torch.ones(1, dtype=torch.bool)
        )
        for name in WIDTHS
    }
    with torch.inference_mode():
        return torch.softmax(module(Batch(inputs)), dim=1).numpy()


def per_call(run):
    begin = time.perf_counter()
    for _ in range(CALLS):
        run()
    return (time.perf_counter() - begin) / CALLS * 1000


def main():
    model, frame = fitted()
    module, row = model.module_.eval(), frame[:1]
    sides = {
        "bare forward": lambda: bare_forward(module, row),
        "predict_proba": lambda: model.predict_proba(row),
    }
    milliseconds = {name: [] for name in sides}
    with one_thread():
        for run in sides.values():
            per_call(run)
        for _ in range(TURNS):  # interleaved
            for name, run in sides.items():
                milliseconds[name].append(per_call(run))
    bare = milliseconds["bare forward"]
    rows = {}
    for name, values in milliseconds.items():
        ratio = min(values) / min(bare)
        rows[name] = {
            "fastest (ms)": min(values),
            "median (ms)": median(values),
            "times the bare": "" if values is bare else f"{ratio:.2f}",
            "of medians": "" if values is bare else f"{median(values) / median(bare):.2f}",
            "bar": "" if values is bare else verdict(ratio < BAR, f"under {BAR:g}"),
        }
    text = (
        f"One row of {' + '.join(map(str, WIDTHS.values()))} features in a frame of vectors, the"
        " fitted network on the CPU, one torch thread. The bare forward takes the cells from the"
        " frame to tensors and the outputs to probabilities; `predict_proba` also checks the"
        f" frame, scales and masks. {TURNS} interleaved turns of {CALLS} calls.\n\n"
    )
    write_section("One row", "one_row.py", text + table(pd.DataFrame(rows).T))
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        with one_thread(), profile:
            for _ in range(CALLS * 10):
                model.predict_proba(row)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
