"""Rows that are searched: numbered, kept with their vectors, added and taken away."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._frame._column import take_rows
from skmm.metrics._scorers import modality_names
from skmm.retrieval._approximate import ApproximateIndex
from skmm.retrieval._pair import check_names, present_rows
from skmm.retrieval._rows import append_rows, as_rows, row_labels
from skmm.retrieval._vectors import VectorSet, unit_vectors

__all__ = ["BaseRowKeeper"]


class BaseRowKeeper(MetaEstimatorMixin, BaseEstimator):
    """Base of what keeps rows with the vectors of their modalities."""

    alignment: Any
    index: str
    index_params: Mapping[str, Any] | None
    targets: list[str] | None

    def fit(self, X: Any, y: Any = None) -> Self:
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
        self.modalities_ = modality_names(self.alignment_)
        check_names(self.targets, self.modalities_, type(self).__name__)
        self.rows_ = rows[:0] if isinstance(rows, np.ndarray) else rows.head(0)
        self.numbers_ = np.empty(0, dtype=np.int64)
        self._next = 0
        self._sets: dict[str, VectorSet] = {}
        self._indices: dict[str, ApproximateIndex] = {}
        self._add(rows)
        self.rows_ = rows
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
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

    def _add(self, rows: Any) -> None:
        """Give rows numbers, and keep their vectors."""
        vectors = {
            name: unit_vectors(self.alignment_.transform_modality(rows, name))
            for name in self.modalities_
        }
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

    def _build(self, name: str) -> None:
        """Build the approximate index of a modality anew, if it is to have one."""
        self._indices.pop(name, None)
        wanted = self.targets is None or name in self.targets
        if self.index == "exact" or not wanted or not len(self._sets[name]):
            return
        index = ApproximateIndex(self.index, self.index_params, type(self).__name__)
        index.build(self._sets[name].numbers, self._sets[name].vectors)
        self._indices[name] = index

    def remove(self, numbers: Any = None, *, labels: Any = None) -> Self:
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

    def _places(self, numbers: Any, labels: Any) -> np.ndarray:
        """Where the rows to be removed stand in ``rows_``."""
        owner = f"{type(self).__name__}.remove"
        if (numbers is None) == (labels is None):
            raise ValueError(f"{owner} takes numbers or labels. Give one of them.")
        if labels is not None:
            known = row_labels(self.rows_)
            wanted = pd.Index(labels)
            lacking = wanted[~wanted.isin(known)]
            if len(lacking):
                raise ValueError(f"{owner}: no row is labelled {lacking[0]!r}.")
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
