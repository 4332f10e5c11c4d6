"""A line that says how far a long pass is; nothing by default."""

import sys
import time
from types import TracebackType
from typing import Self

__all__ = ["Progress"]


class Progress:
    """Writes cells done, speed and time left to standard error, one line a second at most.

    Parameters
    ----------
    name : str
        What is working.
    n_total : int
        Cells to do.
    verbose : bool or int
        Nothing is written if zero.
    """

    def __init__(self, name: str, n_total: int, verbose: "bool | int"):
        self.name = name
        self.n_total = n_total
        self.verbose = verbose
        self._begin = self._last = time.perf_counter()
        self._n_done = 0
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def advance(self, n: int) -> None:
        """Report that ``n`` more cells have their vectors."""
        self._n_done += n
        if not self.verbose:
            return
        now = time.perf_counter()
        if now - self._last < 1.0 and self._n_done < self.n_total:
            return
        self._last, self._shown = now, True
        speed = self._n_done / max(now - self._begin, 1e-9)
        left = (self.n_total - self._n_done) / max(speed, 1e-9)
        end = "\r" if sys.stderr.isatty() else "\n"
        line = f"{self.name}: {self._n_done}/{self.n_total} cells, {speed:.0f}/s, {left:.0f} s left"
        print(f"{line:<70}", end=end, file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the line, so that what follows starts on its own."""
        if self._shown and sys.stderr.isatty():
            print(file=sys.stderr)
