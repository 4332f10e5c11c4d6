"""Time alternatives in turns, so that a busy moment of the machine affects all of them."""

import gc
import time
from statistics import median

import pandas as pd
import torch


def interleaved(sides, *, repeats):
    """Run each side once per turn, for as many turns as ``repeats``.

    Parameters
    ----------
    sides : dict of str to callable
        What to run. A side that gives a number has measured itself: that number of seconds
        counts instead of the time of the call.
    repeats : int
        Turns.

    Returns
    -------
    seconds : dict of str to list of float
        Of every run.
    """
    seconds = {name: [] for name in sides}
    for turn in range(repeats):
        for name, run in sides.items():
            gc.collect()  # garbage of one side is not collected in the time of the next
            begin = time.perf_counter()
            own = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken = time.perf_counter() - begin
            seconds[name].append(own if isinstance(own, float) else taken)
            print(f"  turn {turn + 1}, {name}: {seconds[name][-1]:.3f} s", flush=True)
    return seconds


def speeds(seconds, ours, bars):
    """Return a table of all sides, and how fast ours is compared with each.

    Parameters
    ----------
    seconds : dict of str to list of float
        From `interleaved`.
    ours : str
        The side that is compared with the others.
    bars : dict of str to float
        Speed of ours against a side that is to be reached.

    Returns
    -------
    table : DataFrame
        A row a side. Ratios above 1 mean that ours is the faster one.
    """
    rows = {}
    for name, values in seconds.items():
        ratio = min(values) / min(seconds[ours])
        rows[name] = {
            "fastest (s)": min(values),
            "median (s)": median(values),
            f"speed of {ours} against it": "" if name == ours else f"{ratio:.2f}",
            "of medians": "" if name == ours else f"{median(values) / median(seconds[ours]):.2f}",
            "bar": verdict(ratio >= bars[name], f"at least {bars[name]}") if name in bars else "",
        }
    return pd.DataFrame(rows).T


def verdict(reached, bar):
    """Return a word for a bar and whether it is reached."""
    return f"{bar}: {'reached' if reached else 'MISSED'}"
