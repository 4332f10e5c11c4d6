"""Rules that turn the modalities' predictions into one, as functions of arrays.

Everywhere ``votes`` has shape (n_samples, n_modalities, n_outputs): class probabilities, or
predicted values with n_outputs 1. NaN where the modality is absent: it has
no vote. A row without any modality gets ``prior``, of shape (n_outputs,).
"""

import numpy as np
from scipy.optimize import minimize

__all__ = ["RULES", "combine", "learn_weights", "rule_weights", "stack_features"]

RULES = ("mean", "weighted", "vote", "max", "product")
_SMALLEST = 1e-12  # probability below which a logarithm is cut


def combine(
    votes: np.ndarray, rule: str, prior: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Apply a fixed rule.

    Parameters
    ----------
    votes : ndarray of shape (n_samples, n_modalities, n_outputs)
        Predictions, NaN where absent.
    rule : {"mean", "weighted", "vote", "max", "product"}
        Kittler et al. (1998): ``"vote"`` counts each modality's first choice, ``"max"`` takes
        the largest probability, ``"product"`` multiplies them.
    prior : ndarray of shape (n_outputs,)
        Answer for a row without any modality.
    weights : ndarray of shape (n_modalities,), default=None
        Of ``"weighted"``; not negative.

    Returns
    -------
    combined : ndarray of shape (n_samples, n_outputs)
        Probabilities sum to one.
    """
    present = ~np.isnan(votes[:, :, 0])  # (n_samples, n_modalities)
    share = _weighed(present, weights if rule == "weighted" else None)
    filled = np.where(present[:, :, None], votes, 0.0)
    if rule == "vote":
        filled = np.where(present[:, :, None], _first_choice(filled), 0.0)
    if rule == "max":
        combined = np.where(present[:, :, None], votes, -np.inf).max(axis=1)
    elif rule == "product":
        logs = np.log(np.maximum(filled, _SMALLEST))
        total = np.where(present[:, :, None], logs, 0.0).sum(axis=1)
        combined = np.exp(total - total.max(axis=1, keepdims=True))
    else:
        combined = (filled * share[:, :, None]).sum(axis=1)
        combined = combined / np.maximum(share.sum(axis=1, keepdims=True), _SMALLEST)
    combined[~present.any(axis=1)] = prior
    if votes.shape[2] > 1:
        combined = combined / combined.sum(axis=1, keepdims=True)
    answers: np.ndarray = combined
    return answers


def _weighed(present: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the weights of the votes of each row, (n_samples, n_modalities), 0 where absent."""
    votes = present.astype(float)
    if weights is None:
        return votes
    share: np.ndarray = votes * weights
    # Rows with modalities of weight zero only weigh these equally.
    lost = present.any(axis=1) & (share.sum(axis=1) <= 0)
    share[lost] = present[lost]
    return share


def rule_weights(present: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the shares of the modalities in the prediction of each row.

    Parameters
    ----------
    present : ndarray of shape (n_samples, n_modalities), bool
        Which modalities are present.
    weights : ndarray of shape (n_modalities,) or (n_samples, n_modalities), or None
        Not negative; None counts each vote once.

    Returns
    -------
    shares : ndarray of shape (n_samples, n_modalities)
        NaN where absent; a row sums to one over the others.
    """
    share = _weighed(present, weights)
    total = np.maximum(share.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    shares: np.ndarray = np.where(present, share / total, np.nan)
    return shares


def _first_choice(votes: np.ndarray) -> np.ndarray:
    """Return 1 for the most probable class of each modality, else 0, in the shape of ``votes``."""
    choices: np.ndarray = np.eye(votes.shape[2])[votes.argmax(axis=2)]
    return choices


def learn_weights(
    votes: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None, *, classes: bool
) -> np.ndarray:
    """Learn the weights, non-negative and of sum one, whose weighted mean fits best.

    Parameters
    ----------
    votes : ndarray of shape (n_samples, n_modalities, n_outputs)
        Out-of-fold predictions, NaN where absent.
    y : ndarray of shape (n_samples,)
        Class indices or values.
    sample_weight : ndarray of shape (n_samples,) or None
        Weights of the rows.
    classes : bool
        Whether to minimize log loss, else squared error.

    Returns
    -------
    weights : ndarray of shape (n_modalities,)
        Of the modalities.
    """
    present = ~np.isnan(votes[:, :, 0])
    n_modalities = votes.shape[1]
    rows = present.any(axis=1)
    if not rows.any():  # no vote out of fold: each modality is in one row at most
        return np.full(n_modalities, 1 / n_modalities)
    if classes:
        own = np.take_along_axis(votes, y[:, None, None], axis=2)[:, :, 0]
    else:
        own = votes[:, :, 0]
    own, share, y = np.where(present, own, 0.0)[rows], present[rows].astype(float), y[rows]
    row_weight = np.ones(len(y)) if sample_weight is None else sample_weight[rows]
    unit = float(np.var(y)) or 1.0  # of the squared error, so that the penalty below is scale-free

    def loss(logits: np.ndarray) -> float:
        weights = np.exp(logits - logits.max())
        mean = (own @ weights) / np.maximum(share @ weights, _SMALLEST)
        error = -np.log(np.maximum(mean, _SMALLEST)) if classes else (mean - y) ** 2 / unit
        # A small penalty toward equal weights decides where the data do not.
        return float(np.average(error, weights=row_weight) + 1e-4 * np.mean(logits**2))

    found = minimize(
        loss, np.zeros(n_modalities), method="L-BFGS-B", bounds=[(-8, 8)] * n_modalities
    )
    largest_is_one = np.exp(found.x - found.x.max())
    weights: np.ndarray = largest_is_one / largest_is_one.sum()
    return weights


def stack_features(
    votes: np.ndarray, prior: np.ndarray, *, classes: bool, spread: float = 1.0
) -> np.ndarray:
    """Return the features of a final estimator: the votes, and which of them are absent.

    Parameters
    ----------
    votes : ndarray of shape (n_samples, n_modalities, n_outputs)
        Predictions, NaN where absent.
    prior : ndarray of shape (n_outputs,)
        Replaces an absent vote.
    classes : bool
        Whether votes are probabilities: their logarithms, centered, are then the features
        (one per modality for two classes), in which independent evidence adds up.
    spread : float, default=1.0
        Standard deviation of the target: values become their distance from the prior in this
        unit, so that a ridge penalty means the same in any unit of the target.

    Returns
    -------
    features : ndarray of shape (n_samples, n_features)
        Finite.
    """
    absent = np.isnan(votes[:, :, 0])
    filled = np.where(absent[:, :, None], prior, votes)
    if classes:
        # A vote of 0 or 1 counts as very sure, not as certain.
        logs = np.log(np.clip(filled, 1e-4, 1.0))
        if votes.shape[2] == 2:
            filled = logs[:, :, 1:] - logs[:, :, :1]
        else:
            filled = logs - logs.mean(axis=2, keepdims=True)
    else:
        filled = (filled - prior) / spread
    return np.concatenate([filled.reshape(len(votes), -1), absent], axis=1)
