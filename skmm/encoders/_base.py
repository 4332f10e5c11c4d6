"""What every encoder does: columns in, float32 features out, names and absent rows kept.

A subclass writes the private verbs; this file owns the public ones.
"""

import inspect
import os
from abc import ABCMeta, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, metadata_routing
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._constraints import check_feature_names_in
from skmm._frame._column import Column, n_rows, to_columns
from skmm._frame._types import CellColumn
from skmm.encoders._store import _session

__all__ = ["BaseEncoder", "TokenSequence"]

# Values of parameters that say what is done anyway where they have no effect: what is trained
# here computes in full precision, and nothing of it is kept.
_TRUE_ANYWAY = {"dtype": "float32", "store": False}


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

    n_outputs_: int

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    # A place to write to is no metadata of the rows.
    __metadata_request__transform: ClassVar[dict[str, Any]] = {"out": metadata_routing.UNUSED}

    def fit(self, X: CellColumn, y: ArrayLike | None = None) -> Self:
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
        target = None if y is None else np.asarray(y)
        if target is not None and target.shape[:1] != columns[0].values.shape:
            raise ValueError(
                f"X has {len(columns[0].values)} rows and y has shape {target.shape}. Give y with"
                " one value, or one row of values, per row of X."
            )
        self._fit_columns(columns, target)
        return self

    def transform(self, X: CellColumn, out: np.ndarray | None = None) -> Any:
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

    def transform_sequence(self, X: CellColumn) -> TokenSequence:
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

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
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
    def _fit_columns(self, columns: list[Column], y: np.ndarray | None) -> None:
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

    def _without_effect(self) -> dict[str, str]:
        """Parameters that do nothing as the others are set, each with the one that makes it so.

        Names that are no parameters of the class do not matter.
        """
        return {}

    # --- parameters -----------------------------------------------------------------------

    def _validate_params(self) -> None:
        super()._validate_params()
        self._refuse_without_effect(self._without_effect())

    def _refuse_without_effect(self, causes: dict[str, str]) -> None:
        """Refuse what the user set and would wait for in vain.

        Parameters
        ----------
        causes : dict of str to str
            Parameters that do nothing, each with the name of the one that makes it so.
        """
        signature = inspect.signature(type(self).__init__).parameters
        for name in [name for name in signature if name in causes]:
            value, accepted = getattr(self, name), [signature[name].default]
            if name in _TRUE_ANYWAY:
                accepted.append(_TRUE_ANYWAY[name])
            if _is_one_of(value, accepted):
                continue
            cause = causes[name]
            raise ValueError(
                f"{type(self).__name__}: {name}={_shown(value)} has no effect with"
                f" {cause}={_shown(getattr(self, cause))}. Leave it out, or change {cause}."
            )

    # --- input ----------------------------------------------------------------------------

    def _check_columns(self, X: CellColumn, *, reset: bool) -> list[Column]:
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


def _is_one_of(value: object, others: list[object]) -> bool:
    # By type as well: 0 is not False, and an array has no truth.
    return any(
        value is other or (type(value) is type(other) and bool(value == other)) for other in others
    )


def _shown(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        return repr(str(value))
    text = repr(value)
    return text if len(text) < 60 else f"{type(value).__name__}(...)"


def _check_out(out: object, shape: tuple[int, int], name: str) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        got = f"{getattr(out, 'dtype', type(out).__name__)} of shape {getattr(out, 'shape', ())}"
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


def _as_table(X: CellColumn, columns: list[Column]) -> Any:
    """Something two-dimensional from which scikit-learn reads names and width."""
    if getattr(X, "ndim", None) == 2 or hasattr(X, "columns"):
        return X
    if hasattr(X, "to_frame"):  # a Series; a name that is no text would not be a column's name
        frame = X.to_frame()
        if all(isinstance(name, str) and name for name in frame.columns):
            return frame
    return np.empty((len(columns[0].values), len(columns)), dtype=np.int8)
