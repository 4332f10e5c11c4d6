"""Retrieval of rows across modalities."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._constraints import BATCH_SIZE, DEVICE, POSITIVE_INT, VERBOSE, HasMethods, StrOptions
from skmm._frame._column import take_rows
from skmm._frame._types import Frame
from skmm.metrics import make_retrieval_scorer
from skmm.metrics._scorers import Alignment, modality_names
from skmm.retrieval._rows import (
    VectorSet,
    append_rows,
    as_rows,
    check_names,
    check_pair,
    found_frame,
    present_rows,
    row_labels,
    unit_vectors,
)
from skmm.retrieval._search import ApproximateIndex, ExactSearch, best_of

__all__ = ["CrossModalRetriever"]


class CrossModalRetriever(MetaEstimatorMixin, BaseEstimator):
    """Find rows by the similarity of one of their modalities to another modality of a query.

    The alignment maps every modality into one space. The retriever keeps the vectors of the rows
    it was fitted on and returns those with the highest cosine similarity to a query. A row
    without the target modality is never returned.

    Rows are numbered in order, first those of ``fit``, then those of each ``partial_fit``. When
    rows are removed, the others keep their numbers and new rows get new ones, so that the numbers
    that are returned can index arrays that belong to the rows.

    Parameters
    ----------
    alignment : estimator
        An estimator of ``skmm.alignment``, or any estimator that has ``fit``,
        ``transform_modality(X, modality)`` and, once fitted, ``modalities_``, a list of (name,
        transformer, columns). It is cloned and fitted; wrap a fitted one in scikit-learn's
        ``FrozenEstimator`` to keep it as it is.
    index : {"exact", "hnsw", "faiss"}, default="exact"
        Search structure. ``"exact"`` compares a query with every row. ``"hnsw"``, a graph, and
        ``"faiss"``, any index of faiss, compare it with a part of the rows and may miss some; they
        need the extra ``index``.
    index_params : dict, default=None
        Parameters of the index. Of ``"hnsw"``: ``M`` (default 16), links per row;
        ``ef_construction`` (80) and ``ef_search`` (128), rows visited when a row is added and when
        a query is searched. Of ``"faiss"``: ``factory``, a string for its ``index_factory``
        (default: an inverted file, or ``"Flat"`` below 10,000 rows), and ``search``, a string such
        as ``"nprobe=64"``.
    targets : list of str, default=None
        Modalities that can be searched. None is all of them.
    batch_size : int, default=512
        Number of queries that are compared at once.
    block_size : int, default=16384
        Number of rows that are compared at once. Exact search keeps the scores of ``batch_size``
        x ``block_size`` pairs in memory, however many rows there are.
    k : int, default=1
        Number of nearest rows that :meth:`score` considers.
    missing_query : {"raise", "nan"}, default="raise"
        What a query without its modality gets: ``"raise"`` raises ``ValueError``, ``"nan"``
        returns row number -1 at distance NaN.
    device : str, default="auto"
        Device of exact search: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``,
        ``"cuda:1"``.
    verbose : bool or int, default=0
        Whether :meth:`fit` and :meth:`partial_fit` print a line for each modality that is encoded
        and for each approximate index that is built.

    Attributes
    ----------
    alignment_ : estimator
        Fitted alignment.
    modalities_ : list of (name, transformer, columns)
        Modalities of the fitted alignment.
    rows_ : DataFrame or ndarray of shape (n_rows, n_columns)
        The rows that are searched.
    numbers_ : ndarray of shape (n_rows,), int
        Numbers of these rows.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    sklearn.neighbors.NearestNeighbors : Nearest neighbors within one space of features.

    Notes
    -----
    Exact search returns the result of brute force in float64, with ties in the order of the rows:
    a first pass in float32 proposes candidates, which are compared again in float64, and so is
    every row that rounding could have hidden. The candidates of an approximate index are compared
    in float64 too: its distances are exact, and only its choice of rows is approximate.

    An index ``"hnsw"`` is built by several threads in an order that is not repeatable, so two
    builds may differ in a few results. A pickle contains the index itself.

    References
    ----------
    Malkov and Yashunin (2020), "Efficient and robust approximate nearest neighbor search using
    hierarchical navigable small world graphs", TPAMI. Douze et al. (2024), "The Faiss library".

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.base import BaseEstimator
    >>> from skmm import CrossModalRetriever
    >>> class Ready(BaseEstimator):  # an alignment whose cells are vectors of the space
    ...     def fit(self, X, y=None):
    ...         self.modalities_ = [(name, "passthrough", [name]) for name in ("text", "image")]
    ...         return self
    ...     def transform_modality(self, X, modality):
    ...         return np.stack(X[modality])
    >>> X = pd.DataFrame({
    ...     "name": ["cat", "dog", "car"],
    ...     "text": [[1.0, 0.1], [0.9, 0.5], [0.0, 1.0]],
    ...     "image": [[1.0, 0.0], [0.8, 0.4], [0.1, 1.0]],
    ... })
    >>> retriever = CrossModalRetriever(Ready()).fit(X)
    >>> query = pd.DataFrame({"text": [[0.1, 0.9]]})
    >>> retriever.search(query, 2, source="text", target="image")[["rank", "score", "name"]]
       rank  score name
    2     1    1.0  car
    1     2    0.5  dog
    >>> retriever.kneighbors(query, 2, source="text", target="image", return_distance=False)
    array([[2, 1]])
    >>> retriever.score(X)
    1.0
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "alignment": [HasMethods(["fit", "transform_modality"])],
        "index": [StrOptions({"exact", "hnsw", "faiss"})],
        "index_params": [dict, None],
        "targets": [list, tuple, None],
        "batch_size": BATCH_SIZE,
        "block_size": POSITIVE_INT,
        "k": POSITIVE_INT,
        "missing_query": [StrOptions({"raise", "nan"})],
        "device": DEVICE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        alignment: Alignment,
        *,
        index: Literal["exact", "hnsw", "faiss"] = "exact",
        index_params: Mapping[str, Any] | None = None,
        targets: list[str] | None = None,
        batch_size: int = 512,
        block_size: int = 16_384,
        k: int = 1,
        missing_query: Literal["raise", "nan"] = "raise",
        device: str = "auto",
        verbose: bool | int = 0,
    ):
        self.alignment = alignment
        self.index = index
        self.index_params = index_params
        self.targets = targets
        self.batch_size = batch_size
        self.block_size = block_size
        self.k = k
        self.missing_query = missing_query
        self.device = device
        self.verbose = verbose

    def fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Fit the alignment and keep the vectors of the rows.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities. The frame is kept, not
            copied.
        y : array-like of shape (n_samples,), default=None
            Target, passed to the alignment.

        Returns
        -------
        self : object
            The fitted retriever.
        """
        self._validate_params()
        rows = as_rows(X, type(self).__name__)
        validate_data(self, X=rows, reset=True, skip_check_array=True)
        self.alignment_ = clone(self.alignment).fit(X, y)
        self._names = modality_names(self.alignment_)
        self.modalities_ = list(self.alignment_.modalities_)
        check_names(self.targets, self._names, type(self).__name__)
        self.rows_ = rows[:0] if isinstance(rows, np.ndarray) else cast(Any, rows).head(0)
        self.numbers_ = np.empty(0, dtype=np.int64)
        self._next = 0
        self._sets: dict[str, VectorSet] = {}
        self._indices: dict[str, ApproximateIndex] = {}
        self._add(rows)
        self.rows_ = rows
        return self

    def partial_fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Add rows without fitting the alignment again; the first call is :meth:`fit`.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            New rows, in the same type of frame and with the same columns as in ``fit``.
        y : array-like of shape (n_samples,), default=None
            Target, used by the first call only.

        Returns
        -------
        self : object
            The retriever.
        """
        if not hasattr(self, "alignment_"):
            return self.fit(X, y)
        rows = as_rows(X, type(self).__name__)
        longer = append_rows(self.rows_, rows, type(self).__name__)
        self._add(rows)
        self.rows_ = longer
        return self

    def remove(self, numbers: ArrayLike | None = None, *, labels: ArrayLike | None = None) -> Self:
        """Remove rows; the others keep their numbers.

        Parameters
        ----------
        numbers : array-like of int, or of bool of shape (n_rows,), default=None
            Numbers of the rows to remove, or a mask of ``rows_``.
        labels : array-like, default=None
            Labels of the rows to remove, instead of numbers, in the index of ``rows_`` if this is
            a pandas frame. All rows of a label are removed.

        Returns
        -------
        self : object
            The retriever.

        Raises
        ------
        ValueError
            If no row has such a number or label.
        """
        check_is_fitted(self)
        kept = np.ones(len(self.numbers_), dtype=bool)
        kept[self._positions(numbers, labels)] = False
        removed = self.numbers_[~kept]
        self.rows_, self.numbers_ = take_rows(self.rows_, kept), self.numbers_[kept]
        for name, known in self._sets.items():
            known.remove(removed)
            if name in self._indices and not self._indices[name].remove(removed):
                self._build(name)
        return self

    def kneighbors(
        self,
        X_query: Frame | None = None,
        n_neighbors: int = 5,
        source: str | None = None,
        target: str | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest rows of each query across modalities.

        Parameters
        ----------
        X_query : DataFrame of shape (n_queries, n_columns), default=None
            Queries, one in each row. Only the columns of ``source`` are required. None takes each
            row of ``rows_`` as a query; with ``source`` equal to ``target`` a row does not find
            itself.
        n_neighbors : int, default=5
            Number of rows to find.
        source, target : str, default=None
            Modality of the queries and modality that is searched. If there are two modalities,
            None is the other one; if both are None, they are the first and the second modality.
        return_distance : bool, default=True
            Whether to return the distances.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            One minus the cosine similarity, nearest first. Only with ``return_distance=True``.
        numbers : ndarray of shape (n_queries, n_neighbors), int
            Numbers of the rows, as in ``numbers_``. Rows at equal distance are in the order of
            their numbers.

        Raises
        ------
        ValueError
            If fewer than ``n_neighbors`` rows have the target modality, or if a query has no source
            modality and ``missing_query="raise"``.
        """
        check_is_fitted(self)
        source, target = check_pair(source, target, self._names, type(self).__name__)
        n_found = self._n_found(n_neighbors, target, own=X_query is None and source == target)
        if n_neighbors > n_found:
            raise ValueError(
                f"{type(self).__name__} got n_neighbors={n_neighbors} and {n_found} rows that can"
                f" be found by {target!r}. Lower n_neighbors."
            )
        _, numbers, near = self._find(X_query, n_neighbors, source, target)
        return (np.clip(1 - near, 0, 2), numbers) if return_distance else numbers

    def search(
        self,
        X_query: Frame | None = None,
        n_neighbors: int = 5,
        *,
        source: str | None = None,
        target: str | None = None,
    ) -> pd.DataFrame:
        """Find the nearest rows of each query, as a DataFrame.

        Parameters
        ----------
        X_query : DataFrame of shape (n_queries, n_columns), default=None
            Queries, one in each row. Only the columns of ``source`` are required. None takes each
            row of ``rows_`` as a query; with ``source`` equal to ``target`` a row does not find
            itself.
        n_neighbors : int, default=5
            Maximum number of rows to find for each query. If fewer rows have the target modality,
            all of them are found.
        source, target : str, default=None
            Modality of the queries and modality that is searched. If there are two modalities,
            None is the other one; if both are None, they are the first and the second modality.

        Returns
        -------
        found : pandas.DataFrame
            One row for each query and each row that it found, in the order of the queries and then
            of the ranks. The index has the labels of the found rows in ``rows_``; these are
            positions if ``rows_`` is not a pandas frame. The columns are:

            - ``query``: label of the query in the index of ``X_query``, or its position;
            - ``rank``: int, 1 for the nearest row;
            - ``score``: float, the cosine similarity from -1 to 1;
            - the columns of ``rows_``. A column with one of the names above gets the suffix
              ``_row``.

            With ``missing_query="nan"``, a query without the source modality has no rows in the
            result.

        Raises
        ------
        ValueError
            If ``n_neighbors`` is less than 1, if ``source`` or ``target`` is unknown or cannot be
            searched, or if a query has no source modality and ``missing_query="raise"``.
        """
        check_is_fitted(self)
        source, target = check_pair(source, target, self._names, type(self).__name__)
        n_found = self._n_found(n_neighbors, target, own=X_query is None and source == target)
        labels, numbers, near = self._find(X_query, min(n_neighbors, n_found), source, target)
        queries, ranks = np.nonzero(numbers >= 0)
        positions = np.searchsorted(self.numbers_, numbers[queries, ranks])
        front = {"query": labels[queries], "rank": ranks + 1, "score": near[queries, ranks]}
        return found_frame(self.rows_, positions, front)

    def score(self, X: Frame, y: ArrayLike | None = None) -> float:
        """Return the mean recall at ``k`` over all ordered pairs of modalities.

        The rows of ``X`` are both the queries and the rows that are searched; the rows of ``fit``
        are not used.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. One modality of each row is the query, and another modality of the same row is
            to be found among all rows of ``X``.
        y : None
            Ignored.

        Returns
        -------
        score : float
            Between 0 and 1, see :func:`skmm.metrics.recall_at_k`.
        """
        check_is_fitted(self)
        return make_retrieval_scorer("recall_at_k", k=self.k)(self.alignment_, X)

    def _add(self, rows: Any) -> None:
        """Number new rows and keep their vectors."""
        vectors = {name: self._encoded(rows, name) for name in self._names}
        numbers = np.arange(self._next, self._next + len(rows))
        self._next += len(rows)
        self.numbers_ = np.concatenate([self.numbers_, numbers])
        for name, values in vectors.items():
            present = present_rows(values)
            own = (numbers, values) if present.all() else (numbers[present], values[present])
            known = self._sets.setdefault(name, VectorSet(values.shape[1]))
            known.add(*own)
            if name not in self._indices:
                self._build(name)
            elif len(own[0]):
                self._indices[name].add(*own)

    def _encoded(self, rows: Any, name: str) -> np.ndarray:
        """Return the unit vectors of one modality of new rows."""
        begin = perf_counter()
        vectors = unit_vectors(self.alignment_.transform_modality(rows, name))
        self._report(f"encoded {len(vectors)} rows by {name!r}", begin)
        return vectors

    def _report(self, done: str, begin: float) -> None:
        """Print what was done and how long it took, with ``verbose``."""
        if self.verbose:
            print(f"{type(self).__name__}: {done} in {perf_counter() - begin:.1f} s", flush=True)

    def _build(self, name: str) -> None:
        """Build the approximate index of a modality, if it has one, from all its vectors."""
        self._indices.pop(name, None)
        is_target = self.targets is None or name in self.targets
        if self.index == "exact" or not is_target or not len(self._sets[name]):
            return
        begin = perf_counter()
        index = ApproximateIndex(self.index, self.index_params, type(self).__name__)
        index.build(self._sets[name].numbers, self._sets[name].vectors)
        self._indices[name] = index
        n = len(self._sets[name])
        self._report(f"built index {self.index!r} over {n} vectors of {name!r}", begin)

    def _positions(self, numbers: ArrayLike | None, labels: ArrayLike | None) -> np.ndarray:
        """Return the positions in ``rows_`` of the rows to remove."""
        owner = f"{type(self).__name__}.remove"
        if (numbers is None) == (labels is None):
            raise ValueError(f"{owner} takes either numbers or labels. Give one of them.")
        if labels is not None:
            known = row_labels(self.rows_)
            given = pd.Index(np.asarray(labels))
            unknown = given[~given.isin(known)]
            if len(unknown):
                raise ValueError(
                    f"{owner}: no row is labeled {unknown[0]!r}. Give labels of the index of rows_."
                )
            return np.flatnonzero(known.isin(given))
        chosen = np.asarray(numbers)
        if chosen.dtype == bool and chosen.shape == self.numbers_.shape:
            return np.flatnonzero(chosen)
        if chosen.size and (chosen.ndim != 1 or chosen.dtype.kind not in "iu"):
            raise ValueError(
                f"{owner}: numbers must be ints, or bools for {len(self.numbers_)} rows; got"
                f" {chosen.dtype} of shape {chosen.shape}."
            )
        unknown = chosen[~np.isin(chosen, self.numbers_)]
        if len(unknown):
            raise ValueError(
                f"{owner}: there is no row of number {int(unknown[0])}. Give numbers of numbers_."
            )
        return np.searchsorted(self.numbers_, chosen.astype(np.int64))

    def _n_found(self, n_neighbors: object, target: str, *, own: bool) -> int:
        """Return the maximum number of rows that a query can find."""
        if not POSITIVE_INT[0].is_satisfied_by(n_neighbors):
            raise ValueError(
                f"{type(self).__name__}: n_neighbors must be an int of at least 1, got"
                f" {n_neighbors!r}."
            )
        if self.targets is not None and target not in self.targets:
            raise ValueError(
                f"{type(self).__name__} cannot search modality {target!r}, which is not in"
                f" targets={self.targets!r}. Add it there and fit again."
            )
        return max(0, len(self._sets[target]) - own)

    def _find(
        self, X_query: Frame | None, k: int, source: str, target: str
    ) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """Return labels of the queries, numbers of the rows found (-1: none) and similarities."""
        if X_query is None:
            labels: pd.Index = row_labels(self.rows_)
            queries = self._sets[source].get(self.numbers_)
        else:
            queries = unit_vectors(self.alignment_.transform_modality(X_query, source))
            labels = pd.RangeIndex(len(queries))
            if hasattr(X_query, "iloc"):
                labels = cast(pd.DataFrame, X_query).index
        present = present_rows(queries)
        if self.missing_query == "raise" and not present.all():
            first = labels[np.flatnonzero(~present)[0]]
            raise ValueError(
                f"{type(self).__name__}: modality {source!r} is missing in query {first!r}, and in"
                f" {int((~present).sum())} queries in all. Leave them out, or set"
                " missing_query='nan'."
            )
        numbers = np.full((len(queries), k), -1, dtype=np.int64)
        near = np.full((len(queries), k), np.nan)
        if k and present.any():
            own = self.numbers_[present] if X_query is None and source == target else None
            numbers[present], near[present] = self._nearest(queries[present], target, k, own)
        return labels, numbers, near

    def _nearest(
        self, queries: np.ndarray, target: str, k: int, own: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers and similarities of the k nearest rows, without a query's own row."""
        if own is not None:
            numbers, near = self._nearest(queries, target, k + 1, None)
            other = numbers != own[:, None]
            # A row may be hidden by equal ones of lower numbers; then the last one goes.
            other[other.all(axis=1), -1] = False
            return numbers[other].reshape(-1, k), near[other].reshape(-1, k)
        known = self._sets[target]
        positions = np.empty((len(queries), k), dtype=np.int64)
        near = np.empty((len(queries), k))
        rest = np.ones(len(queries), dtype=bool)
        if target in self._indices:
            proposed = self._indices[target].search(queries, k)
            rest = (proposed >= 0).sum(axis=1) < k
            candidates = proposed[~rest]
            candidates = np.where(candidates < 0, -1, known.positions(candidates))
            positions[~rest], near[~rest] = best_of(queries[~rest], known.vectors, candidates, k)
        if rest.any():
            exact = ExactSearch(self.batch_size, self.block_size, self.device)
            positions[rest], near[rest] = exact(queries[rest], known.vectors, k)
        return known.numbers[positions], near

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags
