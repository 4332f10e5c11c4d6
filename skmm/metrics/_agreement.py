"""Whether each generated cell is the one that was asked for, by vectors in one space."""

from typing import Any

import numpy as np

__all__ = ["paired_cosine"]


def paired_cosine(vectors_true: Any, vectors_pred: Any) -> float:
    """Mean cosine of the vectors of each pair: agreement of texts and pictures.

    Of vectors of an alignment, such as :class:`~skmm.alignment.ContrastiveAlignment`, it says how
    well generated pictures agree with the texts that they were generated from, without any real
    picture.

    Parameters
    ----------
    vectors_true : array-like of shape (n_samples, n_components)
        Vectors of what was asked for, such as texts. A row with a NaN is missing.
    vectors_pred : array-like of shape (n_samples, n_components)
        Vectors of what was given, such as pictures, in the same order. A row with a NaN is missing.

    Returns
    -------
    agreement : float
        From -1 to 1, higher is better; over the rows of which neither vector is missing. A vector
        of zeros agrees with nothing: its cosine is 0.

    Raises
    ------
    ValueError
        If shapes differ, a number is infinite, or every row is missing.

    See Also
    --------
    frechet_distance : Whether the pictures look real, which this does not see.
    recall_at_k : Whether each finds its own among the others.

    Notes
    -----
    CLIPScore [1]_ is 2.5 times the mean of the cosines of a CLIP checkpoint, negative ones
    counted as 0. A model can be trained to raise such a score and its pictures need not get
    better: judge by an alignment that the model was not trained with.

    References
    ----------
    .. [1] Hessel, Holtzman, Forbes, Le Bras, Choi (2021), "CLIPScore: a reference-free evaluation
       metric for image captioning", EMNLP.

    Examples
    --------
    >>> from skmm.metrics import paired_cosine
    >>> paired_cosine([[1, 0], [1, 0]], [[3, 0], [0, 2]])  # the same, and at a right angle
    0.5
    """
    units, others = (
        _units(vectors, name)
        for vectors, name in ((vectors_true, "vectors_true"), (vectors_pred, "vectors_pred"))
    )
    if units.shape != others.shape:
        raise ValueError(
            f"paired_cosine: vectors_true has shape {units.shape} and vectors_pred {others.shape}."
            " Give one vector of each for every row."
        )
    cosines = (units * others).sum(axis=1)  # NaN where one is missing
    known = cosines[~np.isnan(cosines)]
    if not len(known):
        raise ValueError(
            f"paired_cosine: none of the {len(cosines)} rows has both vectors. Give at least one"
            " that has."
        )
    return float(np.clip(known, -1.0, 1.0).mean())


def _units(vectors: Any, name: str) -> np.ndarray:
    """Vectors divided by their lengths; zeros stay zeros and NaN makes the whole row NaN."""
    try:
        rows = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or 0 in rows.shape[1:] or np.isinf(rows).any():
        raise ValueError(
            f"paired_cosine: {name} must be a matrix (n_samples, n_components) of numbers without"
            f" infinity, got {type(vectors).__name__} of shape {np.shape(rows)}."
        )
    # Relative to the largest number, for the square of 1e-200 is none.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest == 0, 1.0, largest)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)
