"""One modality of a late fusion: its transformer and its estimator."""

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from skmm._column import take_rows
from skmm.exceptions import ModalityWarning
from skmm.fusion._block import Block
from skmm.fusion._modalities import Modality

__all__ = ["Expert"]


class Expert:
    """Predicts from one modality, for the rows that have it.

    Parameters
    ----------
    modality : Modality
        Its middle is a transformer, or a predictor that takes the cells as they are.
    estimator : estimator
        Cloned; not used where the middle is a predictor.
    scales : bool
        Whether features are standardised before the estimator.
    """

    def __init__(self, modality: Modality, estimator: Any, *, scales: bool):
        self.block = Block(modality)
        self.name = modality.name
        middle = modality.middle
        self.predicts_cells = hasattr(middle, "predict") and not hasattr(middle, "transform")
        self.scales = scales and not self.predicts_cells
        self.estimator = clone(middle if self.predicts_cells else estimator)

    def fit(
        self, X: Any, y: np.ndarray, *, classes: bool, sample_weight: Any = None, params: Any = None
    ) -> Self:
        """Fit on the rows of ``X`` that have the modality."""
        features, present = self._features(X, y)
        rows = np.flatnonzero(present)
        self.usable = len(rows) > 0
        if not self.usable:
            return self
        fit_params = dict(params or {})
        if sample_weight is not None:
            if not _takes_sample_weight(self.estimator):
                raise TypeError(
                    f"sample_weight is given, but the estimator of modality {self.name!r},"
                    f" {type(self.estimator).__name__}, does not take it."
                )
            fit_params["sample_weight"] = sample_weight[rows]
        if classes and len(np.unique(y[rows])) == 1:
            warnings.warn(
                f"Modality {self.name!r} is there in rows of one class only, and votes for it.",
                ModalityWarning,
                stacklevel=3,
            )
            self.estimator, fit_params = DummyClassifier(strategy="prior"), {}
        self.estimator.fit(features, y[rows], **fit_params)
        return self

    def _features(self, X: Any, y: np.ndarray) -> tuple[Any, np.ndarray]:
        if self.predicts_cells:
            value = self.block.fit_lazily(X)
            own, _ = self.block.select(X)
            return take_rows(own, np.flatnonzero(value.present)), value.present
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModalityWarning)  # told once by the fusion
            value = self.block.fit_transform(X, y)
        features = self.block.present_rows(value)
        if self.scales and len(features):
            self._scaler = StandardScaler().fit(features)
        return self._scaled(features), value.present

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return self._scaler.transform(features) if self.scales and len(features) else features

    def vote(self, X: Any, n_classes: int, *, first_choice: bool) -> np.ndarray:
        """Return (n_samples, n_outputs) predictions, NaN for rows without the modality.

        ``n_classes`` 0 asks for values instead of probabilities.
        """
        if self.predicts_cells:
            own, present = self.block.select(X)
            features = take_rows(own, np.flatnonzero(present)) if present.any() else None
        else:
            value = self.block.transform(X)
            present = value.present
            features = self._scaled(self.block.present_rows(value)) if present.any() else None
        votes = np.full((len(present), max(n_classes, 1)), np.nan)
        if not present.any() or not self.usable:
            return votes
        if not n_classes:
            votes[present, 0] = np.ravel(self.estimator.predict(features))
        elif first_choice:
            votes[present] = np.eye(n_classes)[self.estimator.predict(features)]
        else:
            if not hasattr(self.estimator, "predict_proba"):
                raise TypeError(
                    f"The estimator of modality {self.name!r}, {type(self.estimator).__name__},"
                    " has no predict_proba. Wrap it in CalibratedClassifierCV, or use rule='vote'."
                )
            votes[present] = 0.0
            rows = np.flatnonzero(present)
            votes[np.ix_(rows, self.estimator.classes_)] = self.estimator.predict_proba(features)
        return votes


def _takes_sample_weight(estimator: Any) -> bool:
    return has_fit_parameter(estimator, "sample_weight")
