# Why there are stubs at all: see sklearn/__init__.pyi.
from typing import Any

import numpy as np

def compute_class_weight(class_weight: Any, *, classes: np.ndarray, y: Any) -> np.ndarray: ...
def __getattr__(name: str) -> Any: ...
