"""Things that are costly to make, kept for whoever asks for them again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["Shelf"]


class Shelf:
    """Keeps the few things last used, each made once however many threads ask for it.

    Parameters
    ----------
    size : int
        How many are kept.

    Attributes
    ----------
    n_made : int
        How many were made so far.
    """

    def __init__(self, size: int):
        self.size = size
        self.n_made = 0
        self._things: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Give what is kept under a key, or make it."""
        found = self._find(key)
        if found is not None:
            return found
        with self._making:
            found = self._find(key)  # another thread may have made it meanwhile
            if found is not None:
                return found
            made = make()
            with self._lock:
                self.n_made += 1
                self._things[key] = made
                while len(self._things) > self.size:
                    self._things.popitem(last=False)
            return made

    def _find(self, key: Hashable) -> Any:
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
            return self._things.get(key)
