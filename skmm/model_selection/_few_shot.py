"""Few-shot episodes: a few training rows of a few classes, and test rows of these classes."""

from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state

if TYPE_CHECKING:
    from skmm._constraints import RandomState

__all__ = ["FewShotSplit"]


class FewShotSplit(BaseCrossValidator):
    """Few-shot cross-validator: each split has few training rows of each class.

    Each split is an N-way K-shot episode [1]_: N classes are sampled, K rows of each class are the
    training rows, and other rows of the same classes are the test rows. The splitter can be passed
    as ``cv`` to functions of scikit-learn. The literature on few-shot learning reports the mean
    score over the episodes.

    Parameters
    ----------
    n_shots : int, default=5
        Number of training rows of each class (K). Classes with ``n_shots`` rows or fewer are never
        sampled.
    n_ways : int, default=None
        Number of classes in an episode (N), at least 2. None takes all classes that have enough
        rows.
    n_queries : int, default=None
        Maximum number of test rows of each class in an episode. None takes all rows that are not
        training rows.
    n_splits : int, default=100
        Number of episodes.
    random_state : int, RandomState instance or None, default=None
        Seed with which classes and rows are sampled.

    See Also
    --------
    skmm.retrieval.PrototypeClassifier : Classifier for few training rows per class.
    sklearn.model_selection.StratifiedShuffleSplit : Random splits with proportions of classes.

    References
    ----------
    .. [1] Vinyals et al. (2016), "Matching networks for one shot learning", NeurIPS.

    Examples
    --------
    With ten training rows of each class the accuracy is higher than with one:

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from skmm import PrototypeClassifier
    >>> from skmm.model_selection import FewShotSplit
    >>> X, y = load_iris(return_X_y=True)
    >>> one, ten = (
    ...     cross_val_score(PrototypeClassifier(), X, y, cv=FewShotSplit(k, random_state=0)).mean()
    ...     for k in (1, 10)
    ... )
    >>> bool(0.7 < one < ten)
    True
    """

    def __init__(
        self,
        n_shots: int = 5,
        *,
        n_ways: int | None = None,
        n_queries: int | None = None,
        n_splits: int = 100,
        random_state: "RandomState" = None,
    ):
        self.n_shots = n_shots
        self.n_ways = n_ways
        self.n_queries = n_queries
        self.n_splits = n_splits
        self.random_state = random_state

    def split(
        self, X: object, y: ArrayLike, groups: object = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Generate the training and test rows of each episode.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Ignored, exists for API consistency.
        y : array-like of shape (n_samples,)
            Class labels. Classes with ``n_shots`` rows or fewer are left out.
        groups : None
            Ignored, exists for API consistency.

        Yields
        ------
        train : ndarray of int
            Positions of ``n_shots`` rows of each class, in random order.
        test : ndarray of int
            Positions of other rows of these classes, in random order.

        Raises
        ------
        ValueError
            If a parameter is out of range, or too few classes have enough rows.
        """
        self._check()
        classes, indices = np.unique(np.asarray(y), return_inverse=True)
        rows = [np.flatnonzero(indices == c) for c in range(len(classes))]
        rows = [own for own in rows if len(own) > self.n_shots]
        n_ways = len(rows) if self.n_ways is None else self.n_ways
        if len(rows) < max(n_ways, 2):
            raise ValueError(
                f"{type(self).__name__} needs {max(n_ways, 2)} classes with more than"
                f" n_shots={self.n_shots} rows, and y has {len(rows)}. Reduce n_ways or"
                " n_shots."
            )
        rng = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            chosen = rng.permutation(len(rows))[:n_ways]
            sampled = [rng.permutation(rows[c]) for c in chosen]
            end = None if self.n_queries is None else self.n_shots + self.n_queries
            train = np.concatenate([own[: self.n_shots] for own in sampled])
            test = np.concatenate([own[self.n_shots : end] for own in sampled])
            yield rng.permutation(train), rng.permutation(test)

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return the number of episodes.

        Parameters
        ----------
        X, y, groups : object
            Ignored, exists for API consistency.

        Returns
        -------
        n_splits : int
            Number of episodes.
        """
        return self.n_splits

    def _check(self) -> None:
        lowest = {"n_shots": 1, "n_ways": 2, "n_queries": 1, "n_splits": 1}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is None and name in ("n_ways", "n_queries"):
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"{type(self).__name__}: {name} must be an int of at least {least}, got"
                    f" {value!r}."
                )
