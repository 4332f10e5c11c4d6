"""A fusion and the frame on which it is checked."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier, is_regressor

from skmm._constraints import Estimator
from skmm.encoders import TextEncoder
from skmm.testing._toys import fusion_frame

__all__ = ["FusionCase", "triples"]


def triples(**changed: object) -> list[tuple[str, Any, list[str]]]:
    """Return triples of the toy frame: an encoded text, and numbers and vectors passed through.

    Parameters
    ----------
    **changed : transformer or str
        Transformers that replace those of the modalities of these names.
    """
    transformers = {
        "words": TextEncoder("tfidf", n_components=3, random_state=0),
        "numbers": "passthrough",
        "vector": "passthrough",
    }
    columns = {"words": ["text"], "numbers": ["a", "b"], "vector": ["vector"]}
    return [(name, {**transformers, **changed}[name], columns[name]) for name in columns]


class FusionCase:
    """A fusion, of which only clones are fitted, and the frame on which it is checked.

    Parameters
    ----------
    fusion : estimator
        Fusion; its ``modalities`` are replaced by those of the toy frame.
    """

    def __init__(self, fusion: Estimator):
        self.fusion = clone(fusion).set_params(modalities=triples())
        self.X, classes, values = fusion_frame()
        self.y: Any = values if is_regressor(fusion) else classes
        if hasattr(fusion, "tasks"):
            self.y = pd.DataFrame({"class": classes, "value": values}, index=self.X.index)

        if hasattr(fusion, "image_size"):  # it generates images: each class is a gray one
            grays = np.where(classes == "yes", 200, 50).astype(np.uint8)
            self.y = np.tile(grays[:, None, None], (1, 8, 8))
        if hasattr(fusion, "position"):  # it generates series: each class has a length and a level
            self.y = [np.ones(4) if own == "yes" else np.zeros(2) for own in classes]

    def __str__(self) -> str:
        return type(self.fusion).__name__

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.X)

    @property
    def prior(self) -> np.ndarray | None:
        """Prediction without any modality: class frequencies or mean; None if undefined."""
        if hasattr(self.fusion, "tasks"):
            shares = self.y["class"].value_counts(normalize=True).sort_index()
            return np.array([*shares, self.y["value"].mean()])
        if hasattr(self.fusion, "decision_function"):
            return None  # scores have no unit
        if is_classifier(self.fusion):
            return np.unique(self.y, return_counts=True)[1] / self.n
        return np.array([self.y.mean()]) if is_regressor(self.fusion) else None

    def fit(self, X: pd.DataFrame | None = None, **params: object) -> Any:
        """Fit a clone, by default on the frame of the case."""
        return clone(self.fusion).set_params(**params).fit(self.X if X is None else X, self.y)

    @cached_property
    def fitted(self) -> Any:
        """A clone fitted on the frame; it must not be changed."""
        return self.fit()

    @cached_property
    def predictions(self) -> np.ndarray:
        """Output of the fitted fusion for the frame."""
        return self.predict(self.X)

    def predict(self, X: Any, fusion: Any = None) -> np.ndarray:
        """Return probabilities, scores, predictions or features, float (n_samples, n_outputs)."""
        fusion = self.fitted if fusion is None else fusion
        if hasattr(fusion, "tasks"):  # probabilities by task, and values
            values = np.asarray(fusion.predict(X)["value"], dtype=float)
            return np.column_stack([*fusion.predict_proba(X).values(), values])
        verbs = ("predict_proba", "decision_function", "predict", "transform")
        verb = next(verb for verb in verbs if hasattr(fusion, verb))
        return np.asarray(getattr(fusion, verb)(X), dtype=float).reshape(len(X), -1)
