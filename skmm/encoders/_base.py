"""What every encoder does: columns in, float32 features out, names and absent rows kept.

A subclass writes the private verbs; this file owns the public ones.
"""

from abc import ABCMeta, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, metadata_routing
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._constraints import check_feature_names_in
from skmm._frame._column import Column, n_rows, to_columns
from skmm.encoders._store import _session

__all__ = ["BaseEncoder", "TokenSequence"]


class TokenSequence(NamedTuple):
    """Token vectors of every row, and which of them exist.

    Attributes
    ----------
    tokens : ndarray of shape (n_samples, n_tokens, n_outputs)
        Vectors, float32; zero where there is no token.
    mask : ndarray of shape (n_samples, n_tokens)
        True where a token exists. A row whose cell is absent has none.
    """

    tokens: np.ndarray
    mask: np.ndarray


class BaseEncoder(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of all encoders: validates, calls one private verb, restores the container."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    # A place to write to is no metadata of the rows.
    __metadata_request__transform: ClassVar[dict[str, Any]] = {"out": metadata_routing.UNUSED}

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what has to be learned from the training rows.

        Parameters
        ----------
        X : DataFrame, Series, ndarray or list of shape (n_samples, n_columns)
            Cells of one modality. A list or a Series is one column.
        y : array-like of shape (n_samples,), default=None
            Target, used by models that are trained here.

        Returns
        -------
        self : object
            The fitted encoder.
        """
        self._validate_params()
        columns = self._check_columns(X, reset=True)
        if y is not None:
            y = np.asarray(y)
            if y.shape[:1] != columns[0].values.shape:
                raise ValueError(
                    f"X has {len(columns[0].values)} rows and y has shape {y.shape}. Give y with"
                    " one value, or one row of values, per row of X."
                )
        self._fit_columns(columns, y)
        return self

    def transform(self, X: Any, out: np.ndarray | None = None) -> Any:
        """Encode every row.

        Parameters
        ----------
        X : DataFrame, Series, ndarray or list of shape (n_samples, n_columns)
            Cells of the columns seen in ``fit``.
        out : ndarray of shape (n_samples, n_outputs), float32, default=None
            Where the vectors are written, for instance a file that
            ``numpy.lib.format.open_memmap`` maps, where they are more than the memory holds.
            None makes a new array.

        Returns
        -------
        features : ndarray of shape (n_samples, n_outputs), float32
            One vector a row, the columns' vectors side by side. NaN where a cell is absent.
            It is ``out`` if that was given.

        Raises
        ------
        ValueError
            If ``out`` has another shape or dtype, or cannot be written to.
        """
        check_is_fitted(self)
        columns = self._check_columns(X, reset=False)
        if out is None:
            return self._encode_columns(columns)
        _check_out(out, (len(columns[0].values), self.n_outputs_), type(self).__name__)
        self._encode_into(columns, out)
        return out

    def transform_sequence(self, X: Any) -> TokenSequence:
        """Encode every row as a sequence of tokens: words, patches or table columns.

        Parameters
        ----------
        X : DataFrame, Series, ndarray or list of shape (n_samples, n_columns)
            Cells of the columns seen in ``fit``.

        Returns
        -------
        sequence : TokenSequence
            ``tokens`` of shape (n_samples, n_tokens, n_outputs of one column) and ``mask``
            of shape (n_samples, n_tokens). Several columns: one after the other.
        """
        check_is_fitted(self)
        return self._encode_sequence(self._check_columns(X, reset=False))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the output columns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input columns; must be those of ``fit`` if given.

        Returns
        -------
        names : ndarray of str
            For instance ``review_000`` ... ``review_383``.
        """
        check_is_fitted(self)
        names = [str(name) for name in check_feature_names_in(self, input_features)]
        return np.asarray(_told_apart(self._output_names(names)), dtype=object)

    # --- written by a subclass ---------------------------------------------------------

    @abstractmethod
    def _fit_columns(self, columns: list[Column], y: Any) -> None:
        """Learn from the columns; sets at least ``n_outputs_``."""

    @abstractmethod
    def _encode_columns(self, columns: list[Column]) -> np.ndarray:
        """Return float32 (n_samples, n_outputs), NaN rows where absent."""

    def _encode_into(self, columns: list[Column], out: np.ndarray) -> None:
        """Write to ``out`` what ``_encode_columns`` returns."""
        out[...] = self._encode_columns(columns)

    @abstractmethod
    def _encode_sequence(self, columns: list[Column]) -> TokenSequence:
        """Return tokens and mask."""

    @abstractmethod
    def _output_names(self, names: list[str]) -> list[str]:
        """Names of the outputs, from the names of the inputs."""

    # --- input ----------------------------------------------------------------------------

    def _check_columns(self, X: Any, *, reset: bool) -> list[Column]:
        """Check the container, remember or compare its columns, and take it apart."""
        name = type(self).__name__
        if sparse.issparse(X):
            raise TypeError(
                f"Sparse data was passed to {name}, which takes cells. Use X.toarray() to get a"
                " dense array."
            )
        dtype = getattr(X, "dtype", None)
        if isinstance(dtype, np.dtype) and dtype.kind == "c":
            raise ValueError(f"Complex data not supported by {name}.")
        if getattr(X, "ndim", None) == 0:
            raise ValueError(f"Expected 2D array, got scalar array instead by {name}.")
        if getattr(X, "ndim", None) == 1 and isinstance(dtype, np.dtype) and dtype.kind in "fiu":
            if isinstance(X, np.ndarray):
                raise ValueError(
                    f"Expected 2D array, got 1D array instead by {name}. Reshape your data with"
                    " X.reshape(-1, 1) if it is one column."
                )
        if n_rows(X) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) while a minimum of 1 is required by {name}."
            )
        columns = to_columns(X)
        if not columns:
            raise ValueError(
                f"Found array with 0 feature(s) (shape={getattr(X, 'shape', None)}) while a"
                f" minimum of 1 is required by {name}."
            )
        known = [column.name for column in columns if column.name is not None]
        if len(set(known)) < len(known):
            twice = next(other for other in known if known.count(other) > 1)
            raise ValueError(f"{name}: X has several columns named {twice!r}. Rename them.")
        validate_data(self, X=_as_table(X, columns), reset=reset, skip_check_array=True)
        if reset:
            self.__dict__.pop("loss_curve_", None)  # of an earlier fit with another model
        return columns

    # --- pickles and tags -------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # A worker that gets this pickle has to use the store of this process.
        return {**state, "_session_token": _session.token_for_workers()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        token = state.pop("_session_token", None)
        if token is not None:
            _session.adopt(token)
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_out(out: Any, shape: tuple[int, int], name: str) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        got = f"{getattr(out, 'dtype', type(out).__name__)} of shape {np.shape(out)}"
        raise ValueError(
            f"{name} cannot write to out, {got}. Give a float32 ndarray of shape {shape}."
        )
    if not out.flags.writeable:
        raise ValueError(f"{name} cannot write to out, which is read-only. Open it with mode='r+'.")


def _told_apart(names: list[str]) -> list[str]:
    """Number the names that are there already: a category may be called "missing"."""
    taken, apart = set(names), dict[str, None]()
    for name in names:
        unique, number = name, 2
        while unique in apart or (unique != name and unique in taken):
            unique, number = f"{name}_{number}", number + 1
        apart[unique] = None
    return list(apart)


def _as_table(X: Any, columns: list[Column]) -> Any:
    """Something two-dimensional from which scikit-learn reads names and width."""
    if getattr(X, "ndim", None) == 2 or hasattr(X, "columns"):
        return X
    if hasattr(X, "to_frame"):  # a Series; a name that is no text would not be a column's name
        frame = X.to_frame()
        if all(isinstance(name, str) and name for name in frame.columns):
            return frame
    return np.empty((len(columns[0].values), len(columns)), dtype=np.int8)
