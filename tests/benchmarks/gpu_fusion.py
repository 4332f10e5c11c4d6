"""Joint fusion of a million rows on a GPU, against what memory bandwidth allows.

Says so and ends where there is no CUDA device. ``--small`` runs all of it in small, on any
device, and writes nothing down: it shows that the script works.
"""

import sys

import numpy as np
import pandas as pd
import torch
from report import table, write_section
from timing import interleaved

from skmm import JointFusionClassifier, Trainer

SMALL = "--small" in sys.argv
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N_ROWS, WIDTH, BATCH_SIZE, EPOCHS = (3000, 64, 128, 2) if SMALL else (10**6, 768, 8192, 4)
N_PROFILED = 10


def copy_bandwidth(n_bytes):
    """Return the bytes per second that the device reads and writes in a copy."""
    source = torch.empty(n_bytes // 4, dtype=torch.float32, device=DEVICE)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = interleaved({"copy": lambda: [target.copy_(source) for _ in range(10)]}, repeats=5)
    return 20 * n_bytes / min(seconds["copy"])


def launches(model, frame, y):
    """Return the kernels that a step of training launches, counted over some steps."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if DEVICE == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    rows = slice(N_PROFILED * BATCH_SIZE)
    with torch.profiler.profile(activities=activities) as profile:
        model.partial_fit(frame[rows], y[rows])
    n = sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)
    return n / N_PROFILED


def fusion():
    """Return the seconds of an epoch, against moving the bytes that an epoch must move."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, N_ROWS)
    names, columns = ("a", "b", "c"), {}
    for name in names:
        block = rng.standard_normal((N_ROWS, WIDTH), dtype=np.float32)
        block[np.arange(N_ROWS), y] += 1.0
        columns[name] = list(block)
    model = JointFusionClassifier(
        [(name, "passthrough", [name]) for name in names],
        trainer=Trainer(batch_size=BATCH_SIZE, early_stopping=False),
        max_epochs=EPOCHS,
        device=DEVICE,
        random_state=0,
    )
    frame = pd.DataFrame(columns)
    model.fit(frame, y)
    epoch = min(model.net_.history[:, "dur"])
    n_bytes = N_ROWS * WIDTH * len(names) * 4
    n_launches = launches(model, frame, y)
    bandwidth = copy_bandwidth(min(n_bytes, 2**31))
    # A row is read and written as its batch is gathered, read in the forward, and read again for
    # the gradient of the first layer's weights.
    moved = 4 * n_bytes
    bound = moved / bandwidth
    rows = {
        "an epoch": {"seconds": f"{epoch:.3f}", "of the bound": f"{epoch / bound:.2f}"},
        "bound by memory": {"seconds": f"{bound:.3f}", "of the bound": "1.00"},
    }
    text = (
        f"Joint fusion of {N_ROWS} rows x {len(names)} blocks of {WIDTH}, batches of {BATCH_SIZE},"
        f" strategy 'concat', data on the device. An epoch moves at least {moved / 1e9:.1f} GB"
        " (each row is read and written as it is gathered, read forward and read backward); a"
        f" copy moves {bandwidth / 1e9:.0f} GB/s, reading and writing. A step launches"
        f" {n_launches:.0f} kernels."
    )
    return f"{text}\n\n{table(pd.DataFrame(rows).T)}"


def main():
    if DEVICE == "cpu" and not SMALL:
        print("No CUDA device here: nothing is measured. --small runs it in small on the CPU.")
        return
    if SMALL:
        print(fusion())
    else:
        write_section("Joint fusion on a GPU", "gpu_fusion.py", fusion())


if __name__ == "__main__":
    main()
