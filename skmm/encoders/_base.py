"""Base class of all encoders: from columns of cells to float32 features.

It owns the public methods; subclasses implement the private ones.
"""

from abc import ABCMeta, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, metadata_routing
from sklearn.utils.validation import check_is_fitted, validate_data

from skmm._constraints import check_feature_names_in, refuse_unused, short_repr
from skmm._frame._column import Column, n_rows, to_columns
from skmm._frame._types import CellColumn
from skmm.encoders._store import _session

__all__ = ["BaseEncoder", "TokenSequence"]

# Values that state what is done anyway where the parameter has no effect: a network that is
# trained here computes in full precision, and its vectors are not stored.
_HARMLESS = {"dtype": "float32", "store": False}


class TokenSequence(NamedTuple):
    """Token vectors of every row, and a mask of those that exist.

    Attributes
    ----------
    tokens : ndarray of shape (n_samples, n_tokens, n_outputs)
        Token vectors, float32; zero where there is no token.
    mask : ndarray of shape (n_samples, n_tokens)
        True where a token exists. A row whose cell is absent has no token.
    """

    tokens: np.ndarray
    mask: np.ndarray


class BaseEncoder(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of all encoders: validates the input and calls the methods of a subclass."""

    n_outputs_: int

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    # ``out`` is not metadata of the rows.
    __metadata_request__transform: ClassVar[dict[str, Any]] = {"out": metadata_routing.UNUSED}

    def fit(self, X: CellColumn, y: ArrayLike | None = None) -> Self:
        """Fit the encoder on the training rows.

        Parameters
        ----------
        X : DataFrame, Series, ndarray or list of shape (n_samples, n_columns)
            Cells of one modality. A list or a Series is one column.
        y : array-like of shape (n_samples,), default=None
            Target, used by models that are trained. Frozen ones ignore it.

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
            Array that the vectors are written to, for instance one that
            ``numpy.lib.format.open_memmap`` maps to a file, if they do not fit into memory. None
            creates an array.

        Returns
        -------
        features : ndarray of shape (n_samples, n_outputs), float32
            One vector per row: the vectors of its columns, concatenated. NaN where a cell is
            absent. It is ``out``, if given.

        Raises
        ------
        ValueError
            If ``out`` has another shape or dtype, or is read-only.
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
            of shape (n_samples, n_tokens). The tokens of several columns are concatenated.
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
        return np.asarray(_deduplicated(self._output_names(names)), dtype=object)

    # --- implemented by a subclass -----------------------------------------------------

    @abstractmethod
    def _fit_columns(self, columns: list[Column], y: np.ndarray | None) -> None:
        """Fit on the columns and set at least ``n_outputs_``."""

    @abstractmethod
    def _encode_columns(self, columns: list[Column]) -> np.ndarray:
        """Return float32 (n_samples, n_outputs), with NaN rows where cells are absent."""

    def _encode_into(self, columns: list[Column], out: np.ndarray) -> None:
        """Write to ``out`` what ``_encode_columns`` returns."""
        out[...] = self._encode_columns(columns)

    @abstractmethod
    def _encode_sequence(self, columns: list[Column]) -> TokenSequence:
        """Return the tokens and the mask."""

    @abstractmethod
    def _output_names(self, names: list[str]) -> list[str]:
        """Return the names of the outputs, from the names of the inputs."""

    def _unused_parameters(self) -> dict[str, str]:
        """Return the parameters that the others make useless, each with the one responsible.

        Names that are not parameters of the class are ignored.
        """
        return {}

    # --- parameters -----------------------------------------------------------------------

    def _validate_params(self) -> None:
        super()._validate_params()
        self._refuse_unused(self._unused_parameters())

    def _refuse_unused(self, causes: dict[str, str]) -> None:
        """Refuse parameters that the user set although they have no effect.

        Parameters
        ----------
        causes : dict of str to str
            Parameters without effect, each with the name of the one responsible.
        """
        for name, cause in causes.items():
            reason = f"with {cause}={short_repr(getattr(self, cause))}"
            refuse_unused(self, [name], reason, harmless=_HARMLESS)

    # --- input ----------------------------------------------------------------------------

    def _check_columns(self, X: CellColumn, *, reset: bool) -> list[Column]:
        """Check the container, store or compare its column names, and split it."""
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
            self.__dict__.pop("history_", None)  # of an earlier fit
        return columns

    # --- pickles and tags -------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # A worker that receives this pickle must use the store of this process.
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


def _check_out(out: object, shape: tuple[int, int], name: str) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        got = f"{getattr(out, 'dtype', type(out).__name__)} of shape {getattr(out, 'shape', ())}"
        raise ValueError(
            f"{name} cannot write to out, {got}. Give a float32 ndarray of shape {shape}."
        )
    if not out.flags.writeable:
        raise ValueError(f"{name} cannot write to out, which is read-only. Open it with mode='r+'.")


def _deduplicated(names: list[str]) -> list[str]:
    """Number repeated names: a category may be called "missing"."""
    taken, unique_names = set(names), dict[str, None]()
    for name in names:
        unique, number = name, 2
        while unique in unique_names or (unique != name and unique in taken):
            unique, number = f"{name}_{number}", number + 1
        unique_names[unique] = None
    return list(unique_names)


def _as_table(X: CellColumn, columns: list[Column]) -> Any:
    """Return a two-dimensional container from which scikit-learn reads names and width."""
    if getattr(X, "ndim", None) == 2 or hasattr(X, "columns"):
        return X
    if hasattr(X, "to_frame"):  # a Series; scikit-learn only accepts column names of type str
        frame = X.to_frame()
        if all(isinstance(name, str) and name for name in frame.columns):
            return frame
    return np.empty((len(columns[0].values), len(columns)), dtype=np.int8)
