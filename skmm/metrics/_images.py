"""How far the pictures that a model makes are from real ones, by their features."""

from typing import Any

import numpy as np

__all__ = ["feature_rows", "frechet_distance"]


def frechet_distance(features_true: Any, features_pred: Any) -> float:
    """Fréchet distance between two sets of feature vectors, each taken for a Gaussian.

    With the features of an Inception network of ImageNet this is the FID of generated pictures;
    with those of any other encoder, of any medium, the same distance in the space of that encoder.

    Parameters
    ----------
    features_true : array-like of shape (n_true, n_features)
        Vectors of what is real, at least two.
    features_pred : array-like of shape (n_pred, n_features)
        Vectors of what was generated, at least two. The rows of the two sets are not paired.

    Returns
    -------
    distance : float
        At least 0, lower is better: the squared distance of the means, plus the trace of
        ``C_true + C_pred - 2 (C_true C_pred)^(1/2)`` of the covariances. In squared units of the
        features.

    Raises
    ------
    ValueError
        If a set is no matrix of finite numbers, has fewer than two rows, or the widths differ.

    See Also
    --------
    paired_cosine : Whether each picture is the one that was asked for, which this does not see.
    make_picture_scorer : For ``cross_val_score`` and ``GridSearchCV``.

    Notes
    -----
    The trace of the root is the sum of the singular values of the product of the centred sets, so
    no root of a matrix is taken: the value is exact also where there are fewer rows than
    features, and two equal sets have distance 0 but for rounding.

    Few rows make the distance larger [2]_. Compare values only of the same encoder and of the same
    numbers of rows, and beside them the distance of two sets of real pictures.

    References
    ----------
    .. [1] Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), "GANs trained by a two
       time-scale update rule converge to a local Nash equilibrium", NeurIPS.
    .. [2] Chong, Forsyth (2020), "Effectively unbiased FID and inception score and where to find
       them", CVPR.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.metrics import frechet_distance
    >>> real = np.random.default_rng(0).standard_normal((500, 4))
    >>> frechet_distance(real, real + [2, 0, 0, 0])  # a shift: its square
    4.0
    >>> made = np.random.default_rng(1).standard_normal((500, 4))
    >>> frechet_distance(real, made) < 0.05
    True
    """
    true = feature_rows(features_true, "features_true", "frechet_distance")
    pred = feature_rows(features_pred, "features_pred", "frechet_distance")
    if true.shape[1] != pred.shape[1]:
        raise ValueError(
            f"frechet_distance: features_true has {true.shape[1]} columns and features_pred has"
            f" {pred.shape[1]}. Give features of one encoder."
        )
    # Numbers near 1, so that no square overflows or vanishes.
    largest = max(np.abs(true).max(initial=0.0), np.abs(pred).max(initial=0.0))
    scale = 2.0 ** np.frexp(largest)[1] if largest > 0 else 1.0
    (mean, root), (mean_pred, root_pred) = _moments(true / scale), _moments(pred / scale)
    shift = float(((mean - mean_pred) ** 2).sum())
    spread = float((root**2).sum() + (root_pred**2).sum())  # traces of the covariances
    shared = float(np.linalg.svd(root @ root_pred.T, compute_uv=False).sum())
    # Rounding alone makes it negative, where the sets are equal.
    return float((shift + max(spread - 2 * shared, 0.0)) * scale * scale)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and a matrix R of at most n_features rows with R.T @ R the covariance."""
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    if len(centred) > centred.shape[1]:
        centred = np.linalg.qr(centred, mode="r")
    return mean, centred


def feature_rows(features: Any, name: str, owner: str) -> np.ndarray:
    """Check a set of feature vectors: (n, n_features) of float64, two rows or more."""
    try:
        rows = np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner}: {name} must be a matrix of numbers with one row for each cell, got"
            f" {type(features).__name__} that is none."
        ) from None
    if rows.ndim != 2 or 0 in rows.shape[1:]:
        raise ValueError(
            f"{owner}: {name} must have shape (n, n_features), got {rows.shape}. Give one vector"
            " for each row."
        )
    if len(rows) < 2:
        raise ValueError(
            f"{owner}: {name} has {len(rows)} rows, and a covariance needs two. Give more rows."
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{owner}: {name} holds NaN or infinity in row {bad[0]} (by position), {len(bad)} of"
            f" {len(rows)} rows do. Leave out the rows of missing cells."
        )
    return rows
