"""A space for what stands on an alignment: it learns nothing and is there at once."""

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

__all__ = ["ToySpace", "toy_rows"]

_LETTERS = "abcd"


class ToySpace(BaseEstimator):
    """Texts point where their letters do; vectors are what they are."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn nothing."""
        self.modalities_ = ["text", "vector"]
        return self

    def transform_modality(self, X: Any, modality: str) -> np.ndarray:
        """Vectors of one modality, NaN where it is absent."""
        check_is_fitted(self)
        vectors = np.full((len(X), len(_LETTERS)), np.nan, dtype=np.float32)
        for vector, cell in zip(vectors, X[modality], strict=True):
            if cell is not None:
                vector[:] = _letters_of(cell) if modality == "text" else cell
        return vectors


def _letters_of(cell: Any) -> list[int]:
    if not isinstance(cell, str):
        raise TypeError(f"ToySpace: a text must be a str, got {type(cell).__name__}.")
    return [cell.count(letter) for letter in _LETTERS]


def toy_rows() -> tuple[pd.DataFrame, np.ndarray]:
    """Rows for the toy space, one without a text and one without a vector; and their classes."""
    texts = ["a", "b", "aab", "bba", None, "c", "acd", "bd"]
    vectors = [[n + 0.1 for n in _letters_of(t)] for t in ("a", "b", "aab", "bba", "b", "c")]
    cells = pd.Series([*vectors, None, [0.0, 1.0, 0.0, 1.0]], dtype=object)
    X = pd.DataFrame({"text": pd.Series(texts, dtype=object), "vector": cells})
    return X, np.array(["a", "b"] * 4)
