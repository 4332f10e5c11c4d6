"""Synthetic views: vectors of several modalities generated from a shared latent vector."""

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from skmm.datasets._latent import check_integer, check_rates, check_real, sample_missing

__all__ = ["make_paired_views"]


def make_paired_views(
    n_samples: int = 200,
    *,
    n_views: int = 2,
    n_latent: int = 6,
    n_private: int = 4,
    n_features: int = 20,
    noise: float = 0.2,
    missing_rate: float = 0.0,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Generate several views of a shared latent vector (alignment and retrieval).

    A view is ``tanh((shared @ A + 0.5 * private @ B) / sqrt(n_latent)) + noise`` with standard
    normal vectors ``shared``, common to all views, and ``private``, and standard normal matrices
    ``A`` and ``B``.

    Parameters
    ----------
    n_samples : int, default=200
        Number of rows.
    n_views : int, default=2
        Number of views, at least 2.
    n_latent : int, default=6
        Length of the latent vector that all views share.
    n_private : int, default=4
        Length of the private vector of each view.
    n_features : int, default=20
        Length of a view.
    noise : float, default=0.2
        Standard deviation of the noise added to each feature.
    missing_rate : float, default=0.0
        Exact share of missing cells in each view, rounded to a number of rows.
    random_state : int, RandomState instance or None, default=None
        Determines all random numbers. Pass an int for the same data in every process.
        The views do not depend on ``missing_rate``.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        With these keys:

        - ``data`` : DataFrame of shape (n_samples, n_views) with the columns ``view_0``,
          ``view_1``, ...: float32 vectors, None where missing.
        - ``latent`` : ndarray of shape (n_samples, n_latent), the shared vectors.

    Examples
    --------
    >>> from skmm.datasets import make_paired_views
    >>> views = make_paired_views(100, missing_rate=0.1, random_state=0)
    >>> list(views.data), int(views.data["view_0"].isna().sum()), views.latent.shape
    (['view_0', 'view_1'], 10, (100, 6))
    """
    function = "make_paired_views"
    n_samples = check_integer(function, "n_samples", n_samples, 1)
    n_views = check_integer(function, "n_views", n_views, 2)
    n_latent = check_integer(function, "n_latent", n_latent, 1)
    n_private = check_integer(function, "n_private", n_private, 0)
    n_features = check_integer(function, "n_features", n_features, 1)
    noise = check_real(function, "noise", noise, 0)
    names = tuple(f"view_{view}" for view in range(n_views))
    rates = check_rates(function, missing_rate, names, "random")
    rng = check_random_state(random_state)
    latent = rng.normal(size=(n_samples, n_latent))
    columns = {}
    for name in names:
        private = rng.normal(size=(n_samples, n_private))
        shared = latent @ rng.normal(size=(n_latent, n_features))
        own = private @ rng.normal(size=(n_private, n_features))
        view = np.tanh((shared + 0.5 * own) / np.sqrt(n_latent))
        view += noise * rng.normal(size=view.shape)
        columns[name] = pd.Series(list(view.astype(np.float32)), dtype=object)
    absent = sample_missing("random", rates, np.zeros(n_samples), rng)
    for name, is_absent in zip(names, absent.T, strict=True):
        columns[name][is_absent] = None
    return Bunch(data=pd.DataFrame(columns), latent=latent)
