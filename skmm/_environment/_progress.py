"""Progress of long work, printed with ``verbose``."""

import sys
import time
from types import TracebackType
from typing import Self

__all__ = ["Progress"]


class Progress:
    """Write the cells done, the speed and the time left to standard error, once a second at most.

    Parameters
    ----------
    name : str
        Name of the work, the first word of each line.
    n_total : int
        Number of cells.
    verbose : bool or int
        Whether to write; 0 writes nothing.
    """

    def __init__(self, name: str, n_total: int, verbose: bool | int):
        self.name = name
        self.n_total = n_total
        self.verbose = verbose
        self._begin = self._last = time.perf_counter()
        self._n_done = 0
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def advance(self, n: int) -> None:
        """Count ``n`` more cells as done."""
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
        """End the line, so that the next output starts on its own line."""
        if self._shown and sys.stderr.isatty():
            print(file=sys.stderr)
