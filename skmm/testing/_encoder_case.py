"""An encoder and the cells on which it is checked."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from skmm._frame._types import Frame
from skmm.testing._toys import tidy, toy_cells

__all__ = ["EncoderCase"]


class EncoderCase:
    """An encoder, of which only clones are fitted, and the cells on which it is checked.

    Parameters
    ----------
    encoder : estimator
        Encoder, unfitted.
    X : DataFrame of shape (n_samples, n_columns), default=None
        Cells; None takes toy cells of the encoder's ``modality``.
    """

    def __init__(self, encoder: Any, X: pd.DataFrame | None = None):
        self.encoder = encoder
        if encoder.get_params(deep=False).get("dtype") == "auto":
            # On a GPU that is half precision, whose rounding depends on the size of a batch.
            self.encoder = clone(encoder).set_params(dtype="float32")
        self.X = tidy(toy_cells(getattr(encoder, "modality", "unknown")) if X is None else X)
        self.y = np.arange(len(self.X)) % 2

    def __str__(self) -> str:
        return type(self.encoder).__name__

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.X)

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the encoder."""
        params: dict[str, Any] = self.encoder.get_params(deep=False)
        return params

    @property
    def needs_training(self) -> bool:
        """Whether the network of the encoder is trained together with the head of a fusion."""
        return bool(getattr(self.encoder, "needs_training", False))

    def fit(self, X: Frame | None = None, **params: object) -> Any:
        """Fit a clone, by default on the cells of the case."""
        encoder = clone(self.encoder).set_params(**params)
        return encoder.fit(self.X if X is None else X, self.y)

    @cached_property
    def fitted(self) -> Any:
        """A clone fitted on the cells; it must not be changed."""
        return self.fit()

    @cached_property
    def vectors(self) -> np.ndarray:
        """Vectors of the cells."""
        return np.asarray(self.fitted.transform(self.X))

    def encode(self, X: Frame) -> np.ndarray:
        """Encode other cells with the same fitted encoder."""
        return np.asarray(self.fitted.transform(X))
