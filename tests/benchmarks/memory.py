"""Peak memory of encoding many short texts, above what the input itself takes.

Each case runs in a process of its own. ``--rows 1000 10000`` measures other numbers of rows::

    python tests/benchmarks/memory.py --rows 10000 100000 1000000
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from report import table, write_section

ROWS = (10_000, 100_000, 1_000_000)


def kilobytes(field):
    """Read a figure of this process from the kernel; the highest resident size is VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise SystemExit("Memory is measured on Linux only.")


class AnonymousPeak(threading.Thread):
    """Return the peak memory that is not backed by a file; the kernel keeps no record of it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.value, self.ended = 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            self.value = max(self.value, kilobytes("RssAnon"))


def child(n_rows, way, folder):
    """Encode in this process, and write the measures to standard output."""
    from skmm import TextEncoder

    encoder = TextEncoder(str(folder / "tiny"), device="cpu", store=str(folder / "store"))
    warm_up = pd.DataFrame({"text": [f"a word {i}" for i in range(256)]})
    encoder.fit(warm_up).transform(warm_up)  # model, tokenizer and store are there
    frame = pd.DataFrame({"text": [f"item {i} in red and size {i % 50}" for i in range(n_rows)]})
    options = {}
    if way == "memmap":
        shape = (n_rows, encoder.n_outputs_)
        options["out"] = np.lib.format.open_memmap(
            folder / "vectors.npy", mode="w+", dtype=np.float32, shape=shape
        )
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak until now
    before, anonymous, peak = kilobytes("VmRSS"), kilobytes("RssAnon"), AnonymousPeak()
    peak.start()
    begin = time.perf_counter()
    result = encoder.transform(frame, **options)
    seconds = time.perf_counter() - begin
    peak.ended.set()
    peak.join()
    if np.isnan(result[-1]).any() or not np.any(result[-1]):
        raise SystemExit("The last row has not been encoded.")
    figures = {
        "seconds": seconds,
        "peak": (kilobytes("VmHWM") - before) / 1024,
        "anonymous": (peak.value - anonymous) / 1024,
        "result": result.nbytes / 2**20,
    }
    print(json.dumps(figures))


def measure(n_rows, way):
    """Run a case in its own process, with a new store."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from checkpoints import bert
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny").mkdir()
        bert(Path(folder) / "tiny")
        command = [sys.executable, __file__, "--child", str(n_rows), way, folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(counts):
    from skmm import TextEncoder

    ways = ["array"]
    if "out" in inspect.signature(TextEncoder.transform).parameters:
        ways.append("memmap")
    rows = {}
    for way in ways:
        for n_rows in counts:
            print(f"  {n_rows} rows, {way}", flush=True)
            found = measure(n_rows, way)
            name = "out=memmap" if way == "memmap" else "array in memory"
            rows[f"{n_rows}, {name}"] = {
                "peak above the input (MB)": round(found["peak"]),
                "of it, not backed by a file": round(found["anonymous"]),
                "the result itself (MB)": f"{found['result']:.1f}",
                "anonymous bytes a row": round(found["anonymous"] * 2**20 / n_rows),
                "rows/s": round(n_rows / found["seconds"]),
            }
    text = (
        "Short distinct texts through a random BERT of one layer and 16 wide, store on disk and"
        " empty at first. Peak resident memory, less what was resident when the input and"
        " the model were ready. Pages of a file (the store, a memory-mapped result) count as"
        " resident while there is room, and the kernel drops them otherwise: the second column"
        " leaves them out.\n\n"
    )
    write_section("Memory", "memory.py", text + table(pd.DataFrame(rows).T))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    else:
        parser = argparse.ArgumentParser(description="Peak memory of encoding many texts.")
        parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
        main(parser.parse_args().rows)
