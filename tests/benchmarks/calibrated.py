"""Imports of the worker processes of the benchmarks."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from counting import CountingModule, lines

__all__ = ["CalibratedModule", "import_all", "lines"]


class CalibratedModule(CountingModule):
    """Sleep a known time for every cell: the same on any machine, without processor time."""

    def __init__(self, log, *, seconds_a_cell):
        super().__init__(log)
        self.seconds_a_cell = seconds_a_cell

    def forward(self, x):
        time.sleep(self.seconds_a_cell * len(x))
        return super().forward(x)


def import_all(seconds):
    """Import what a worker needs; then wait, so that every worker of a pool gets one call."""
    import transformers.models.bert.modeling_bert  # noqa: F401

    import skmm

    time.sleep(seconds)
    return skmm.TextEncoder.__name__
