"""Scorers of estimators that map several modalities into one space."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from skmm.metrics._measure import METRICS, check_params, measure

__all__ = ["make_retrieval_scorer", "modality_names"]

# Scores looked at in one go, so that the matrix of all pairs is never there.
_PART = 1 << 22


def make_retrieval_scorer(
    metric: str = "recall_at_k",
    *,
    source: str | None = None,
    target: str | None = None,
    relevance: str = "row",
    **params: Any,
) -> "RetrievalScorer":
    """Make a scorer for ``cross_val_score`` and ``GridSearchCV`` of a metric of retrieval.

    It asks a fitted estimator for the vectors of each modality, compares them by their cosine
    and measures how well the rows that are scored find each other across modalities.

    Parameters
    ----------
    metric : str, default="recall_at_k"
        Name of a metric of this module.
    source, target : str, default=None
        Modality of the queries and of what they look for. None stands for each modality in turn:
        with both None the score is the mean over all ordered pairs.
    relevance : {"row", "label"}, default="row"
        What answers a query: the same row, or every row with the same ``y``.
    **params : dict
        Parameters of the metric, e.g. ``k=10``.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None)`` gives a float, higher is better: the ranks are taken
        negative. ``estimator`` is fitted and has ``modalities_`` and
        ``transform_modality(X, modality)``, as the estimators of ``skmm.alignment``.

    Raises
    ------
    ValueError
        If there is no such metric or value of ``relevance``.

    Notes
    -----
    Rows that lack the source ask nothing and rows that lack the target are no answers. A pair
    of modalities that no row has both of is left out of the mean. Rows with equal vectors are
    tied, see :func:`recall_at_k`.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.metrics import make_retrieval_scorer
    >>> class Columns:  # a ready-made space
    ...     modalities_ = ["image", "text"]
    ...     def transform_modality(self, X, modality):
    ...         return np.stack(X[modality])
    >>> X = {"image": [[1, 0], [0, 1]], "text": [[2, 1], [1, 2]]}
    >>> make_retrieval_scorer("recall_at_k", k=1)(Columns(), X)
    1.0
    >>> make_retrieval_scorer("mean_rank", source="text", target="image")(Columns(), X)
    -1.0
    """
    if metric not in METRICS:
        raise ValueError(
            f"make_retrieval_scorer: metric must be one of {sorted(METRICS)}, got {metric!r}."
        )
    if relevance not in ("row", "label"):
        raise ValueError(
            f"make_retrieval_scorer: relevance must be 'row' or 'label', got {relevance!r}."
        )
    return RetrievalScorer(metric, source, target, relevance, check_params(metric, params))


class RetrievalScorer:
    """What :func:`make_retrieval_scorer` makes: a class, so that workers can be sent one."""

    def __init__(
        self,
        metric: str,
        source: str | None,
        target: str | None,
        relevance: str,
        params: dict[str, Any],
    ):
        self.metric = metric
        self.source = source
        self.target = target
        self.relevance = relevance
        self.params = params

    def __repr__(self) -> str:
        given = {"source": self.source, "target": self.target, **self.params}
        shown = "".join(f", {k}={v!r}" for k, v in given.items() if v is not None)
        label = ", relevance='label'" if self.relevance == "label" else ""
        return f"make_retrieval_scorer({self.metric!r}{shown}{label})"

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score a fitted estimator on rows."""
        if self.relevance == "label" and y is None:
            raise ValueError(f"{self!r} needs y. Give it, or set relevance='row'.")
        pairs = self._pairs(modality_names(estimator))
        vectors = {
            name: _Vectors(estimator.transform_modality(X, name))
            for name in dict.fromkeys(name for pair in pairs for name in pair)
        }
        labels = np.asarray(y) if self.relevance == "label" else None
        values = [
            measure(self.metric, _parts(vectors[source], vectors[target], labels), self.params)
            for source, target in pairs
        ]
        known = [value for value in values if value == value]
        if not known:
            raise ValueError(
                f"{self!r}: no row has two modalities between which something could be found."
                " Give rows with at least two."
            )
        mean = float(np.mean(known))
        return mean if METRICS[self.metric].greater_is_better else -mean

    def _pairs(self, names: list[str]) -> list[tuple[str, str]]:
        for name in (self.source, self.target):
            if name is not None and name not in names:
                raise ValueError(f"{self!r}: no modality is named {name!r}. There are {names}.")
        if self.source is not None and self.source == self.target:
            return [(self.source, self.target)]
        pairs = [
            (source, target)
            for source, target in permutations(names, 2)
            if self.source in (None, source) and self.target in (None, target)
        ]
        if not pairs:
            raise ValueError(f"{self!r} needs two modalities, and the estimator has {names}.")
        return pairs


def modality_names(estimator: Any) -> list[str]:
    """Names of the modalities of a fitted estimator, be they listed as names or as triples."""
    if not hasattr(estimator, "transform_modality"):
        raise TypeError(
            f"{type(estimator).__name__} has no transform_modality. Give an estimator that maps"
            " modalities into one space, such as those of skmm.alignment."
        )
    return [name if isinstance(name, str) else name[0] for name in estimator.modalities_]


class _Vectors:
    """Vectors of unit length; those that are equal are kept once, so that they tie."""

    def __init__(self, values: Any):
        values = np.asarray(values, dtype=np.float64)
        self.missing = np.isnan(values).any(axis=1)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units = np.where(self.missing[:, None], 0.0, values / np.where(lengths > 0, lengths, 1.0))
        self.distinct, inverse = np.unique(units, axis=0, return_inverse=True)
        self.position = inverse.ravel()


def _parts(
    source: _Vectors, target: _Vectors, labels: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores and relevance of parts of the queries, against all items."""
    n = len(source.position)
    step = max(1, _PART // n)
    for begin in range(0, n, step):
        rows = np.arange(begin, min(begin + step, n))
        near = source.distinct[source.position[rows]] @ target.distinct.T
        scores = near[:, target.position]
        scores[source.missing[rows]] = np.nan
        scores[:, target.missing] = np.nan
        yield scores, rows if labels is None else labels[rows, None] == labels[None, :]
