"""Metrics of generated images, computed from features."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "feature_rows",
    "frechet_distance",
    "paired_cosine",
]


def frechet_distance(features_true: ArrayLike, features_pred: ArrayLike) -> float:
    """Compute the Fréchet distance between Gaussians fitted to two sets of feature vectors.

    With features of an Inception network trained on ImageNet this is the FID of generated images
    [1]_. With those of another encoder, of any modality, it is the same distance in the space of
    that encoder.

    Parameters
    ----------
    features_true : array-like of shape (n_true, n_features)
        Vectors of real cells, at least two.
    features_pred : array-like of shape (n_pred, n_features)
        Vectors of generated cells, at least two. The rows of the two sets are not paired.

    Returns
    -------
    distance : float
        At least 0, lower is better: the squared distance of the means, plus the trace of
        ``C_true + C_pred - 2 (C_true C_pred)^(1/2)`` of the covariances, in squared units of the
        features.

    Raises
    ------
    ValueError
        If a set is not a matrix of finite numbers or has fewer than two rows, or if the numbers of
        columns differ.

    See Also
    --------
    paired_cosine : Measure whether each image agrees with its row, which this metric ignores.
    make_image_scorer : Make a scorer for ``cross_val_score`` and ``GridSearchCV``.

    Notes
    -----
    The trace of the root is computed as the sum of the singular values of the product of the
    centered sets, without the root of a matrix. The value is exact also with fewer rows than
    features, and two equal sets have distance 0 up to rounding.

    The distance is biased upward for few rows [2]_. Compare only values of the same encoder and of
    the same numbers of rows, and report the distance between two sets of real images with them.

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
    # Scaled to numbers near 1, so that no square overflows or vanishes.
    largest = max(np.abs(true).max(initial=0.0), np.abs(pred).max(initial=0.0))
    scale = 2.0 ** np.frexp(largest)[1] if largest > 0 else 1.0
    (mean, root), (mean_pred, root_pred) = _moments(true / scale), _moments(pred / scale)
    shift = float(((mean - mean_pred) ** 2).sum())
    spread = float((root**2).sum() + (root_pred**2).sum())  # traces of the covariances
    shared = float(np.linalg.svd(root @ root_pred.T, compute_uv=False).sum())
    # Only rounding makes it negative, if the sets are equal.
    return float((shift + max(spread - 2 * shared, 0.0)) * scale * scale)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, and a matrix R of at most n_features rows with R.T @ R the covariance."""
    mean = features.mean(axis=0)
    centered = (features - mean) / np.sqrt(len(features) - 1)
    if len(centered) > centered.shape[1]:
        centered = np.linalg.qr(centered, mode="r")
    return mean, centered


def feature_rows(features: ArrayLike, name: str, owner: str) -> np.ndarray:
    """Check a set of feature vectors and return it as (n, n_features) float64, n at least 2."""
    try:
        rows = np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner}: {name} must be a matrix of numbers with one row for each cell, got"
            f" {type(features).__name__} that is not one."
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


# --- Agreement of pairs of vectors in one space ---


def paired_cosine(vectors_true: ArrayLike, vectors_pred: ArrayLike) -> float:
    """Compute the mean cosine similarity of paired vectors, such as those of texts and images.

    With vectors of an alignment, such as :class:`~skmm.alignment.ContrastiveAlignment`, it measures
    how well generated images agree with the texts that they were generated from, without any real
    image.

    Parameters
    ----------
    vectors_true : array-like of shape (n_samples, n_components)
        Vectors of the inputs, such as texts. A row with a NaN is missing.
    vectors_pred : array-like of shape (n_samples, n_components)
        Vectors of the generated cells, such as images, in the same order. A row with a NaN is
        missing.

    Returns
    -------
    agreement : float
        From -1 to 1, higher is better. Rows with a missing vector are left out. The cosine of a
        vector of zeros is 0.

    Raises
    ------
    ValueError
        If shapes differ, a number is infinite, or every row is missing.

    See Also
    --------
    frechet_distance : Measure whether the images look real, which this metric ignores.
    recall_at_k : Measure whether each vector retrieves its pair among all others.

    Notes
    -----
    CLIPScore [1]_ is 2.5 times the mean of the cosines of a CLIP checkpoint, where negative cosines
    count as 0. Training can raise such a score without better images, so use an alignment that the
    generator was not trained with.

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
            " row that has both."
        )
    return float(np.clip(known, -1.0, 1.0).mean())


def _units(vectors: ArrayLike, name: str) -> np.ndarray:
    """Normalize vectors to unit length; zeros stay zeros, and a NaN makes its row NaN."""
    try:
        rows = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or 0 in rows.shape[1:] or np.isinf(rows).any():
        raise ValueError(
            f"paired_cosine: {name} must be a matrix (n_samples, n_components) of numbers without"
            f" infinity, got {type(vectors).__name__} of shape {np.shape(rows)}."
        )
    # Relative to the largest number, since the square of 1e-200 underflows.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest == 0, 1.0, largest)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)
