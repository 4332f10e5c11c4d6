"""One modality of a late fusion: its transformer and its estimator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from skmm._compose._base import Modality, SupervisedEstimator, is_predictor
from skmm._compose._block import Block, params_of_rows, seeded_clone
from skmm._frame._column import take_rows
from skmm._frame._types import CellColumn, Frame

__all__ = ["ModalityPredictor"]


class ModalityPredictor:
    """Predict from one modality, for the rows that have it.

    Parameters
    ----------
    modality : Modality
        Holds a transformer, or a predictor that takes the cells as they are.
    estimator : estimator
        Cloned; not used where the modality holds a predictor.
    scales : bool
        Whether features are standardized, as in ``EarlyFusion(scaling="block")``, before the
        estimator.
    seed : int
        Seed of each part whose ``random_state`` is None.

    Attributes
    ----------
    flaw : str or None
        Reason why it cannot vote, None if it can.
    saw_one_class : bool
        Whether the modality is present in rows of one class only.
    """

    def __init__(
        self, modality: Modality, estimator: SupervisedEstimator, *, scales: bool, seed: int
    ):
        self.block = Block(modality, seed)
        self.name = modality.name
        self.predicts_cells = is_predictor(modality.transformer)
        self.scales = scales and not self.predicts_cells
        unfitted = modality.transformer if self.predicts_cells else estimator
        self.estimator = seeded_clone(unfitted, seed)
        self.flaw: str | None = None
        self.saw_one_class = False

    @property
    def triple(self) -> tuple[str, Any, list[str]]:
        """Name, estimator fitted on the cells, and names of the columns."""
        if self.predicts_cells:
            return self.name, self.estimator, self.block.input_names
        return self.block.triple

    def fit(
        self, X: Frame, y: np.ndarray, params: Mapping[str, Any], *, classes: bool
    ) -> np.ndarray:
        """Fit on the rows of ``X`` that have the modality; return which those are.

        ``params`` are passed to the estimator's ``fit``; those with an entry per row are
        restricted to its rows.
        """
        value = self.block.fit_lazily(X) if self.predicts_cells else self.block.fit_transform(X, y)
        self.flaw = None if self.predicts_cells and value.present.any() else value.flaw
        if self.flaw:
            return value.present
        rows = np.flatnonzero(value.present)
        fit_params = params_of_rows(params, rows, len(y))
        weight = fit_params.get("sample_weight")
        if weight is not None and not has_fit_parameter(self.estimator, "sample_weight"):
            raise TypeError(
                f"sample_weight is given, but the estimator of modality {self.name!r},"
                f" {type(self.estimator).__name__}, does not take it. Choose one that does, or"
                " leave sample_weight out."
            )
        if self.predicts_cells:
            features = take_rows(self.block.select(X)[0], rows)
        else:
            features = self.block.present_rows(value)
            if self.scales:
                self._scaler = StandardScaler(copy=False).fit(features, sample_weight=weight)
                features = self._scaled(features)
        if classes and len(np.unique(y[rows])) == 1:
            self.saw_one_class = True
            self.estimator, fit_params = DummyClassifier(strategy="prior"), {}
        self.estimator.fit(features, y[rows], **fit_params)
        return value.present

    def vote(self, X: Frame, n_classes: int, *, first_choice: bool) -> np.ndarray:
        """Return (n_samples, n_outputs) predictions, NaN for rows without the modality.

        ``n_classes`` is 0 for regression.
        """
        cells, present = self.block.select(X)
        votes = np.full((len(present), max(n_classes, 1)), np.nan)
        if self.flaw or not present.any():
            return votes
        if self.predicts_cells:
            features = take_rows(cells, np.flatnonzero(present))
        else:
            value = self.block.transform(X)
            vectors, present = self.block.present_rows(value), value.present
            if not len(vectors):
                return votes
            features = self._scaled(vectors) if self.scales else vectors
        if not n_classes:
            votes[present, 0] = np.ravel(self.estimator.predict(features))
        elif first_choice:
            votes[present] = np.eye(n_classes)[np.asarray(self.estimator.predict(features), int)]
        else:
            votes[present] = self._probabilities(features, n_classes)
        return votes

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        # Also divided by the root of the number of features, so that one penalty suits
        # modalities of 5 and of 1280 features.
        scaled: np.ndarray = self._scaler.transform(features) / np.sqrt(features.shape[1])
        return scaled

    def _probabilities(self, features: CellColumn, n_classes: int) -> np.ndarray:
        if not hasattr(self.estimator, "predict_proba"):
            raise TypeError(
                f"The estimator of modality {self.name!r}, {type(self.estimator).__name__},"
                " has no predict_proba. Wrap it in CalibratedClassifierCV, or use rule='vote'."
            )
        own = self.estimator.predict_proba(features)
        # Its training rows may have no row of a class.
        probabilities = np.zeros((len(own), n_classes))
        probabilities[:, self.estimator.classes_] = own
        return probabilities
