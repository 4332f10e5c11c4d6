# Why there are stubs at all: see sklearn/__init__.pyi.
from abc import ABCMeta
from collections.abc import Iterator
from typing import Any

import numpy as np

class BaseCrossValidator(metaclass=ABCMeta):
    # y has a default where a splitter does not look at it
    def split(
        self, X: Any, y: Any, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...
    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int: ...

def train_test_split(*arrays: Any, **options: Any) -> list[Any]: ...
def __getattr__(name: str) -> Any: ...
