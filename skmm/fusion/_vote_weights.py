"""What a fitted late fusion says about the weight of each modality in a row."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmm.fusion._rules import rule_weights

__all__ = ["VoteWeightsMixin"]


class VoteWeightsMixin:
    """Tells the weights of the votes of a late fusion."""

    rule: str
    weights_: np.ndarray | None
    final_estimator_: Any
    _votes: Callable[[Any], np.ndarray]
    _stacked: Callable[[np.ndarray], np.ndarray]

    def modality_weights(self, X: Any) -> np.ndarray:
        """Return the weight of each modality's vote in each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_modalities)
            In the order of ``modalities_``; NaN where a modality is absent. A row sums to one over
            the others. With ``rule="stacking"`` a weight is how far the modality's vote moves the
            final estimator's linear score, from where the prior in its place would leave it.

        Raises
        ------
        TypeError
            With ``rule="max"``, or a final estimator without ``coef_``: they have no weights.
        """
        check_is_fitted(self, "estimators_")
        coefficients = getattr(self.final_estimator_, "coef_", None)
        if self.rule == "max" or (self.rule == "stacking" and coefficients is None):
            final = type(self.final_estimator_).__name__
            what = "rule='max'" if self.rule == "max" else f"a {final} as final_estimator_"
            raise TypeError(
                f"{type(self).__name__}: {what} gives the modalities no weights. Take another"
                " rule; skmm.inspection.modality_shapley divides any predictions."
            )
        votes = self._votes(X)
        weights = self.weights_
        if coefficients is not None:
            weights = self._moves(votes, np.atleast_2d(coefficients))
        return rule_weights(~np.isnan(votes[:, :, 0]), weights)

    def _moves(self, votes: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """How far each vote moves the scores, (n_samples, n_modalities)."""
        n = votes.shape[1]
        # The last columns mark who is absent.
        features, neutral = (
            self._stacked(v)[:, :-n] for v in (votes, np.full_like(votes[:1], np.nan))
        )
        shifts = (features - neutral).reshape(len(votes), n, -1)
        of_votes = coefficients[:, :-n].reshape(len(coefficients), n, -1)
        return np.abs(np.einsum("nmk,omk->nmo", shifts, of_votes)).sum(axis=2)
