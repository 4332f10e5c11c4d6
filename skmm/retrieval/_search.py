"""Exact search with the result of brute force in float64, at the cost of float32.

The device compares in float32, whose rounding depends on the block, the threads and the device.
Therefore float32 only proposes a few more candidates than required, which are compared again in
float64, pair by pair. For queries whose result could be affected by rounding, a second pass
compares every row in question. Equal vectors tie exactly, and tied rows are in their order.
"""

from collections.abc import Mapping
from math import ceil, isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skmm._environment._device import resolve_device, shared_threads
from skmm._environment._optional import import_optional

__all__ = [
    "APPROXIMATE",
    "ApproximateIndex",
    "ExactSearch",
    "best_of",
    "similarities",
]

_SPARE = 16  # candidates beyond the k required
_PAIRS = 1 << 22  # numbers in memory at once when pairs are compared


class ExactSearch:
    """Find the nearest rows by the inner product of unit vectors.

    Parameters
    ----------
    batch_size : int
        Number of queries that are compared at once.
    block_size : int
        Number of rows that are compared at once; ``batch_size`` times as many scores are kept.
    device : str
        Name of a torch device, or ``"auto"``.
    """

    def __init__(self, batch_size: int, block_size: int, device: str):
        self.batch_size = batch_size
        self.block_size = block_size
        self.device = resolve_device(device)

    def __call__(
        self, queries: np.ndarray, vectors: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and similarities, each (n_queries, k), nearest first.

        ``queries`` has shape (n_queries, d), ``vectors`` (n, d) with n of at least k; both are
        float32 and of unit length, or zero.
        """
        positions = np.empty((len(queries), k), dtype=np.int64)
        near = np.empty((len(queries), k))
        with torch.inference_mode(), shared_threads() as adjust:
            for begin in range(0, len(queries), self.batch_size):
                adjust()
                part = slice(begin, begin + self.batch_size)
                positions[part], near[part] = self._batch(queries[part], vectors, k)
        return positions, near

    def _batch(
        self, queries: np.ndarray, vectors: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search one batch of queries."""
        on_device = torch.from_numpy(np.ascontiguousarray(queries)).to(self.device)
        proposed, last = self._propose(on_device, vectors, min(k + _SPARE, len(vectors)))
        positions, near = best_of(queries, vectors, proposed, k)
        if proposed.shape[1] == len(vectors):
            return positions, near
        # A row that was not proposed has at most the last score, up to rounding.
        bound = near[:, -1] - _rounding(vectors.shape[1])
        unsure = np.flatnonzero(last >= bound)
        if len(unsure):
            positions[unsure], near[unsure] = self._compare_again(
                on_device[unsure], queries[unsure], vectors, bound[unsure], k
            )
        return positions, near

    def _propose(self, queries: Tensor, vectors: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
        """Return the k best rows in float32, in any order, and the lowest of their scores."""
        best = torch.empty((len(queries), 0), device=self.device)
        rows = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
        for begin in range(0, len(vectors), self.block_size):
            scores = self._scores(queries, vectors, begin)
            values, found = scores.topk(min(k, scores.shape[1]), dim=1, sorted=False)
            best = torch.cat([best, values], dim=1)
            rows = torch.cat([rows, found + begin], dim=1)
            if best.shape[1] > k:
                best, kept = best.topk(k, dim=1, sorted=False)
                rows = rows.gather(1, kept)
        return rows.cpu().numpy(), best.amin(dim=1).double().cpu().numpy()

    def _compare_again(
        self,
        on_device: Tensor,
        queries: np.ndarray,
        vectors: np.ndarray,
        bound: np.ndarray,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compare every row whose float32 score reaches the bound of its query in float64."""
        limit = torch.from_numpy(bound).to(self.device)[:, None]
        pairs = rows = np.empty(0, dtype=np.int64)  # query and row of each pair
        near = np.empty(0)
        for begin in range(0, len(vectors), self.block_size):
            scores = self._scores(on_device, vectors, begin)
            own, found = (
                index.cpu().numpy() for index in torch.nonzero(scores >= limit, as_tuple=True)
            )
            found += begin
            pairs, rows = np.concatenate([pairs, own]), np.concatenate([rows, found])
            near = np.concatenate([near, similarities(queries, vectors, own, found)])
            order = np.lexsort((rows, -near, pairs))
            pairs, rows, near = pairs[order], rows[order], near[order]
            rank = np.arange(len(pairs)) - np.searchsorted(pairs, pairs)
            pairs, rows, near = pairs[rank < k], rows[rank < k], near[rank < k]
        return rows.reshape(-1, k), near.reshape(-1, k)

    def _scores(self, queries: Tensor, vectors: np.ndarray, begin: int) -> Tensor:
        # This copies the block if the vectors are a read-only memory map.
        block = np.require(vectors[begin : begin + self.block_size], requirements="W")
        return queries @ torch.from_numpy(block).to(self.device).T


def best_of(
    queries: np.ndarray, vectors: np.ndarray, proposed: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of the rows proposed for each query, and their similarities.

    ``proposed`` has shape (n_queries, n_proposed), with -1 for no row. Tied rows are in their
    order.
    """
    own = np.repeat(np.arange(len(queries)), proposed.shape[1])
    near = similarities(queries, vectors, own, proposed.ravel()).reshape(proposed.shape)
    near[proposed < 0] = -np.inf
    order = np.lexsort((proposed, -near))[:, :k]
    return np.take_along_axis(proposed, order, axis=1), np.take_along_axis(near, order, axis=1)


def similarities(
    queries: np.ndarray, vectors: np.ndarray, own: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Compute inner products in float64, exactly the same for equal pairs.

    A pair is ``queries[own[i]]`` and ``vectors[rows[i]]``.
    """
    near = np.empty(len(rows))
    step = max(1, _PAIRS // max(1, vectors.shape[1]))
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        left = queries[own[part]].astype(np.float64)
        near[part] = (left * vectors[rows[part]]).sum(axis=1)
    return near


def _rounding(width: int) -> float:
    """Return the largest error of a product of unit vectors in the precision of the device."""
    if torch.get_float32_matmul_precision() != "highest":
        return 2.0**-6  # products are in TF32 or bfloat16
    return 2 * (width + 2) * 2.0**-24


# --- Approximate search by faiss, with rows that are added and removed ---

# Parameters of each index and their defaults.
APPROXIMATE: dict[str, dict[str, Any]] = {
    "hnsw": {"M": 16, "ef_construction": 80, "ef_search": 128},
    "faiss": {"factory": None, "search": None},
}
_FEW = 10_000  # rows among which an inverted file is slower than brute force


class ApproximateIndex:
    """Index of faiss over the unit vectors of numbered rows.

    faiss cannot remove rows from every type of index. Rows that are removed stay in it and are
    left out of the results, until they are the majority and the index should be built again.

    Parameters
    ----------
    index : {"hnsw", "faiss"}
        Search structure.
    params : mapping of str to object
        Parameters of the index, see ``CrossModalRetriever``.
    owner : str
        Class of the estimator, for messages.
    """

    def __init__(self, index: str, params: Mapping[str, Any] | None, owner: str):
        known = APPROXIMATE[index]
        unknown = sorted(set(params or {}) - set(known))
        if unknown:
            raise ValueError(
                f"{owner}: index_params of index={index!r} are {sorted(known)}, got {unknown[0]!r}."
            )
        self.index = index
        self.params = {**known, **(params or {})}
        self.owner = owner
        self._index: Any = None
        self._stored: np.ndarray | None = None  # the index as bytes, until it is used

    def build(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Build the index over the vectors of a :class:`VectorSet`."""
        faiss = import_optional("faiss", needed_by=f"{self.owner} with index={self.index!r}")
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
        """Add vectors to the index."""
        self._faiss.add(np.ascontiguousarray(vectors))
        self._numbers = np.concatenate([self._numbers, numbers])
        self._removed = np.concatenate([self._removed, np.zeros(len(numbers), dtype=bool)])

    def remove(self, numbers: np.ndarray) -> bool:
        """Remove numbers from the results; return False if the index should be built again."""
        self._removed |= np.isin(self._numbers, numbers)
        return 2 * int(self._removed.sum()) <= len(self._removed)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the numbers of near rows, (n_queries, at least k), -1 where none was found."""
        n, n_removed = len(self._removed), int(self._removed.sum())
        n_found = k if not n_removed else min(n, ceil(k * n / max(1, n - n_removed)) + k)
        _, positions = self._faiss.search(np.ascontiguousarray(queries), n_found)
        absent = (positions < 0) | self._removed[positions]
        return np.where(absent, -1, self._numbers[positions])

    @property
    def _faiss(self) -> Any:
        if self._index is None:
            faiss = import_optional("faiss", needed_by=f"{self.owner} with index={self.index!r}")
            self._index = faiss.deserialize_index(self._stored)
            self._stored = None
        return self._index

    def _empty(self, faiss: Any, n: int, width: int) -> Any:
        """Return an untrained and empty faiss index."""
        params = self.params
        if self.index == "hnsw":
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
            faiss = import_optional("faiss", needed_by=f"{self.owner} with index={self.index!r}")
            state["_stored"] = faiss.serialize_index(self._index)
        return state
