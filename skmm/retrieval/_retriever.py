"""Search of one modality by another."""

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
    """Find rows by one modality whose other modality is asked for.

    An alignment maps every modality into one space; the retriever keeps the vectors of the rows
    it was fitted on and finds those that are nearest to a query by the cosine. A row that lacks
    the modality looked for is never an answer.

    Rows are numbered in the order in which they come, first those of ``fit``, then those of
    each ``partial_fit``. A number is never given to another row: when rows are removed, the
    others keep theirs, so arrays beside the frame can still be indexed by what is found.

    Parameters
    ----------
    alignment : estimator
        An estimator of ``skmm.alignment``, or any estimator that has ``fit``,
        ``transform_modality(X, modality)`` and, once fitted, ``modalities_``, a list of (name,
        transformer, columns). It is cloned and fitted; wrap a fitted one in scikit-learn's
        ``FrozenEstimator`` to keep it as it is.
    index : {"exact", "hnsw", "faiss"}, default="exact"
        ``"exact"`` compares with every row. ``"hnsw"``, a graph, and ``"faiss"``, any index that
        faiss knows, look at a part of them and may miss some; they need the extra ``index``.
    index_params : dict, default=None
        Of ``"hnsw"``: ``M`` (16), links of a row; ``ef_construction`` (80) and ``ef_search``
        (128), rows looked at when a row is added and when it is searched for. Of ``"faiss"``:
        ``factory``, a string for its ``index_factory`` (default: lists of rows near each other,
        or ``"Flat"`` below 10 000 rows), and ``search``, a string such as ``"nprobe=64"``.
    targets : list of str, default=None
        Modalities that are looked for, which alone get an index; None for all.
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
        The fitted alignment.
    modalities_ : list of (name, transformer, columns)
        Modalities of the fitted alignment.
    rows_ : DataFrame or ndarray of shape (n_rows, n_columns)
        The rows that are searched.
    numbers_ : ndarray of shape (n_rows,), int
        Their numbers.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    sklearn.neighbors.NearestNeighbors : The same within one modality.

    Notes
    -----
    Exact search is brute force with every product in float64, ties in the order of the rows: a
    first pass in float32 proposes candidates, and what its rounding leaves open is compared
    again. The candidates of an approximate index are compared the same way, so its distances
    are exact, and only its choice of rows may not be.

    An index "hnsw" is built by several threads, in an order that nobody repeats: two builds may
    differ in a few answers. A pickle holds the index itself.

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
            Cells; any row may lack any modality. The frame is kept, not copied.
        y : array-like of shape (n_samples,), default=None
            Handed to the alignment.

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
        """Add rows; the alignment stays as it is. The first call is :meth:`fit`.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            More rows, in the same kind of frame as those of ``fit`` and with its columns.
        y : array-like of shape (n_samples,), default=None
            Looked at by the first call only.

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
        """Take rows away; the others keep their numbers.

        Parameters
        ----------
        numbers : array-like of int, or of bool of shape (n_rows,), default=None
            Numbers of the rows, or a mask of ``rows_``.
        labels : array-like, default=None
            Instead of numbers: labels of the rows in the index of ``rows_``, a pandas frame. Of
            a label that is there more than once every row goes.

        Returns
        -------
        self : object
            The retriever.

        Raises
        ------
        ValueError
            If there is no row of such a number or label.
        """
        check_is_fitted(self)
        gone = self._places(numbers, labels)
        kept = np.ones(len(self.numbers_), dtype=bool)
        kept[gone] = False
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
        """Find the rows whose one modality is nearest to another modality of the queries.

        Parameters
        ----------
        X_query : DataFrame of shape (n_queries, n_columns), default=None
            Cells; the columns of ``source`` are enough. None asks with each row that is kept,
            which with ``source`` equal to ``target`` does not find itself.
        n_neighbors : int, default=5
            How many rows to find.
        source, target : str, default=None
            Modality of the queries and modality that is searched. Of two modalities None is the
            other one, and both None are the first and the second.
        return_distance : bool, default=True
            Whether to return distances too.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            One minus the cosine, nearest first. Only with ``return_distance``.
        numbers : ndarray of shape (n_queries, n_neighbors), int
            Numbers of the rows; of rows at equal distance the first comes first.

        Raises
        ------
        ValueError
            If fewer rows than ``n_neighbors`` have the target; or if a query lacks the source,
            unless ``missing_query="nan"``.
        """
        check_is_fitted(self)
        source, target = check_pair(source, target, self._names, type(self).__name__)
        n_found = self._n_found(n_neighbors, target, own=X_query is None and source == target)
        if n_neighbors > n_found:
            raise ValueError(
                f"{type(self).__name__} was asked for n_neighbors={n_neighbors} and {n_found} rows"
                f" can be found by {target!r}. Ask for fewer."
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
        """Find rows and return them.

        Parameters
        ----------
        X_query : DataFrame of shape (n_queries, n_columns), default=None
            As in :meth:`kneighbors`.
        n_neighbors : int, default=5
            How many rows to find for each query; fewer where there are fewer.
        source, target : str, default=None
            As in :meth:`kneighbors`.

        Returns
        -------
        found : pandas.DataFrame
            A row for each query and row found, under the label of the latter, with the columns

            - ``query``: label of the query in its index, or its position;
            - ``rank``: int, from 1;
            - ``score``: float, the cosine;
            - the columns of the row itself; one of the names above gets ``_row`` behind it.

            A query that lacks the source has no row here (``missing_query="nan"``).
        """
        check_is_fitted(self)
        source, target = check_pair(source, target, self._names, type(self).__name__)
        n_found = self._n_found(n_neighbors, target, own=X_query is None and source == target)
        labels, numbers, near = self._find(X_query, min(n_neighbors, n_found), source, target)
        asked, ranks = np.nonzero(numbers >= 0)
        places = np.searchsorted(self.numbers_, numbers[asked, ranks])
        front = {"query": labels[asked], "rank": ranks + 1, "score": near[asked, ranks]}
        return found_frame(self.rows_, places, front)

    def score(self, X: Frame, y: ArrayLike | None = None) -> float:
        """Return the mean recall at ``k`` among other rows, over all ordered pairs of modalities.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Each row asks with one modality for its own other one among these rows.
        y : None
            Not used.

        Returns
        -------
        score : float
            From 0 to 1, see :func:`skmm.metrics.recall_at_k`.
        """
        check_is_fitted(self)
        return make_retrieval_scorer("recall_at_k", k=self.k)(self.alignment_, X)

    def _add(self, rows: Any) -> None:
        """Give rows numbers, and keep their vectors."""
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
        if self.verbose:
            print(f"{type(self).__name__}: {done} in {perf_counter() - begin:.1f} s", flush=True)

    def _build(self, name: str) -> None:
        """Build the approximate index of a modality anew, if it is to have one."""
        self._indices.pop(name, None)
        wanted = self.targets is None or name in self.targets
        if self.index == "exact" or not wanted or not len(self._sets[name]):
            return
        begin = perf_counter()
        index = ApproximateIndex(self.index, self.index_params, type(self).__name__)
        index.build(self._sets[name].numbers, self._sets[name].vectors)
        self._indices[name] = index
        n = len(self._sets[name])
        self._report(f"built index {self.index!r} over {n} vectors of {name!r}", begin)

    def _places(self, numbers: ArrayLike | None, labels: ArrayLike | None) -> np.ndarray:
        """Where the rows to be removed stand in ``rows_``."""
        owner = f"{type(self).__name__}.remove"
        if (numbers is None) == (labels is None):
            raise ValueError(f"{owner} takes numbers or labels. Give one of them.")
        if labels is not None:
            known = row_labels(self.rows_)
            wanted = pd.Index(np.asarray(labels))
            strangers = wanted[~wanted.isin(known)]
            if len(strangers):
                raise ValueError(f"{owner}: no row is labeled {strangers[0]!r}.")
            return np.flatnonzero(known.isin(wanted))
        chosen = np.asarray(numbers)
        if chosen.dtype == bool and chosen.shape == self.numbers_.shape:
            return np.flatnonzero(chosen)
        if chosen.size and (chosen.ndim != 1 or chosen.dtype.kind not in "iu"):
            raise ValueError(
                f"{owner}: numbers must be ints, or bools for {len(self.numbers_)} rows; got"
                f" {chosen.dtype} of shape {chosen.shape}."
            )
        lacking = chosen[~np.isin(chosen, self.numbers_)]
        if len(lacking):
            raise ValueError(f"{owner}: there is no row of number {int(lacking[0])}.")
        return np.searchsorted(self.numbers_, chosen.astype(np.int64))

    def _n_found(self, n_neighbors: object, target: str, *, own: bool) -> int:
        """How many rows a query can find at most."""
        if not POSITIVE_INT[0].is_satisfied_by(n_neighbors):
            raise ValueError(
                f"{type(self).__name__}: n_neighbors must be an int of at least 1, got"
                f" {n_neighbors!r}."
            )
        if self.targets is not None and target not in self.targets:
            raise ValueError(
                f"{type(self).__name__} does not search {target!r}, which is not in"
                f" targets={self.targets!r}. Add it there and fit again."
            )
        return max(0, len(self._sets[target]) - own)

    def _find(
        self, X_query: Frame | None, k: int, source: str, target: str
    ) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """Labels of the queries, numbers of the rows found, -1 for none, and similarities."""
        if X_query is None:
            labels: pd.Index = row_labels(self.rows_)
            queries = self._sets[source].spread(self.numbers_)
        else:
            queries = unit_vectors(self.alignment_.transform_modality(X_query, source))
            labels = pd.RangeIndex(len(queries))
            if hasattr(X_query, "iloc"):
                labels = cast(pd.DataFrame, X_query).index
        present = present_rows(queries)
        if self.missing_query == "raise" and not present.all():
            first = labels[np.flatnonzero(~present)[0]]
            raise ValueError(
                f"{type(self).__name__}: query {first!r} lacks {source!r}, and"
                f" {int((~present).sum())} queries do. Leave them out, or set missing_query='nan'."
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
        """Numbers and similarities of the k nearest rows, leaving out a query's own."""
        if own is not None:
            numbers, near = self._nearest(queries, target, k + 1, None)
            other = numbers != own[:, None]
            other[other.all(axis=1), -1] = False  # hidden behind equals of lower number
            return numbers[other].reshape(-1, k), near[other].reshape(-1, k)
        known = self._sets[target]
        positions = np.empty((len(queries), k), dtype=np.int64)
        near = np.empty((len(queries), k))
        rest = np.ones(len(queries), dtype=bool)
        if target in self._indices:
            proposed = self._indices[target].search(queries, k)
            rest = (proposed >= 0).sum(axis=1) < k
            asked = proposed[~rest]
            asked = np.where(asked < 0, -1, known.positions(asked))
            positions[~rest], near[~rest] = best_of(queries[~rest], known.vectors, asked, k)
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
