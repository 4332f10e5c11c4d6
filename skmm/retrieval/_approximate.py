"""Approximate search by faiss, with rows that come and go."""

from collections.abc import Mapping
from math import ceil, isqrt
from typing import Any

import numpy as np

from skmm._environment._optional import import_optional

__all__ = ["APPROXIMATE", "ApproximateIndex"]

# Kind of index -> its parameters and their defaults.
APPROXIMATE: dict[str, dict[str, Any]] = {
    "hnsw": {"M": 16, "ef_construction": 80, "ef_search": 128},
    "faiss": {"factory": None, "search": None},
}
_FEW = 10_000  # rows among which an inverted file is slower than to look at all


class ApproximateIndex:
    """Index of faiss over unit vectors under numbers.

    faiss cannot take a row out of every kind of index. So rows that are removed stay in it and
    are left out of the answers, until they are the majority and the index is built anew.

    Parameters
    ----------
    kind : {"hnsw", "faiss"}
        Which index.
    params : mapping of str to object
        Its parameters, see ``CrossModalRetriever``.
    owner : str
        Class that asks, for messages.
    """

    def __init__(self, kind: str, params: Mapping[str, Any] | None, owner: str):
        known = APPROXIMATE[kind]
        unknown = sorted(set(params or {}) - set(known))
        if unknown:
            raise ValueError(
                f"{owner}: index_params of index={kind!r} are {sorted(known)}, got {unknown[0]!r}."
            )
        self.kind = kind
        self.params = {**known, **(params or {})}
        self.owner = owner
        self._index: Any = None
        self._stored: np.ndarray | None = None  # the index as bytes, until it is asked

    def build(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Index vectors, and nothing else; both as :class:`VectorSet` has them."""
        faiss = import_optional("faiss", needed_by=f"{self.owner} with index={self.kind!r}")
        self._stored = None
        try:
            self._index = self._empty(faiss, len(vectors), vectors.shape[1])
            if not self._index.is_trained:
                self._index.train(vectors)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rpartition(": ")[2]
            raise ValueError(
                f"{self.owner}: faiss refuses index_params={self.params!r} for {len(vectors)}"
                f" vectors: {reason}"
            ) from error
        self._numbers = np.empty(0, dtype=np.int64)
        self._removed = np.empty(0, dtype=bool)
        self.add(numbers, vectors)

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Index more vectors."""
        self._faiss.add(np.ascontiguousarray(vectors))
        self._numbers = np.concatenate([self._numbers, numbers])
        self._removed = np.concatenate([self._removed, np.zeros(len(numbers), dtype=bool)])

    def remove(self, numbers: np.ndarray) -> bool:
        """Leave numbers out from now on; False if the index is better built anew."""
        self._removed |= np.isin(self._numbers, numbers)
        return 2 * int(self._removed.sum()) <= len(self._removed)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Numbers of near rows, (n_queries, at least k); -1 where none was found."""
        n, n_removed = len(self._removed), int(self._removed.sum())
        wanted = k if not n_removed else min(n, ceil(k * n / max(1, n - n_removed)) + k)
        _, places = self._faiss.search(np.ascontiguousarray(queries), wanted)
        lacking = (places < 0) | self._removed[places]
        return np.where(lacking, -1, self._numbers[places])

    @property
    def _faiss(self) -> Any:
        if self._index is None:
            faiss = import_optional("faiss", needed_by=f"{self.owner} with index={self.kind!r}")
            self._index = faiss.deserialize_index(self._stored)
            self._stored = None
        return self._index

    def _empty(self, faiss: Any, n: int, width: int) -> Any:
        """Index of the kind asked for, not trained yet."""
        params = self.params
        if self.kind == "hnsw":
            index = faiss.IndexHNSWFlat(width, params["M"], faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = params["ef_construction"]
            index.hnsw.efSearch = params["ef_search"]
            return index
        factory, search = params["factory"], params["search"]
        if factory is None:
            n_lists = 2 * isqrt(n)
            factory = "Flat" if n < _FEW else f"IVF{n_lists},Flat"
            if search is None and n >= _FEW:
                search = f"nprobe={n_lists // 8}"
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        if search is not None:
            faiss.ParameterSpace().set_index_parameters(index, search)
        return index

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "_index": None}
        if self._index is not None:
            faiss = import_optional("faiss", needed_by=f"{self.owner} with index={self.kind!r}")
            state["_stored"] = faiss.serialize_index(self._index)
        return state
