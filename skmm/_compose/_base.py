"""Base of the estimators over triples: validation, nested parameters, empty rows."""

import warnings
from abc import ABCMeta
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from scipy import sparse
from sklearn import get_config
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from skmm._compose._default_encoder import default_encoder
from skmm._constraints import BaseComposition, StrOptions, VisualBlock
from skmm._frame._column import Column, add_absent_columns, column_names, n_rows, to_columns
from skmm._frame._modality import infer_modalities
from skmm._frame._types import ColumnKey, DataFrameLike, Frame
from skmm.exceptions import ModalityMissingError, ModalityWarning

__all__ = [
    "BaseMultimodalEstimator",
    "Columns",
    "Modalities",
    "Modality",
    "SupervisedEstimator",
    "Transformer",
    "is_predictor",
    "presence",
    "resolve_modalities",
]


class Transformer(Protocol):
    """What a triple requires of its transformer; scikit-learn's transformers all have it."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Learn from the cells of a modality."""

    def transform(self, X: Any) -> Any:
        """Return features of the cells, (n_samples, n_features)."""


class SupervisedEstimator(Protocol):
    """Any scikit-learn classifier or regressor, or a pipeline that ends in one."""

    def fit(self, X: Any, y: Any) -> Any:
        """Learn from features, or from the cells of a modality."""

    def predict(self, X: Any) -> Any:
        """Return a class or a value for each row."""


# Columns of a triple: names, positions, or a function of a frame that returns them.
Columns: TypeAlias = ColumnKey | Callable[[Any], ColumnKey]
# The parameter ``modalities`` of the estimators over triples.
Modalities: TypeAlias = Literal["auto"] | Sequence[tuple[str, Transformer | str, Columns]]


class Modality(NamedTuple):
    """A triple whose columns and transformer are resolved for a training frame."""

    name: str
    transformer: Any  # unfitted; or a predictor where those are allowed, or "passthrough"
    columns: Any  # as take_columns takes them


class _HasName(Protocol):
    name: str


_Named = TypeVar("_Named", bound=_HasName)


class BaseMultimodalEstimator(BaseComposition, metaclass=ABCMeta):
    """Base of the meta-estimators over (name, transformer, columns) triples."""

    modalities: Any  # checked in fit
    all_missing: str
    missing_columns: str

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "modalities": [StrOptions({"auto"}), list, tuple],
        "all_missing": [StrOptions({"prior", "raise"})],
        "missing_columns": [StrOptions({"raise", "absent"})],
    }

    # --- parameters ----------------------------------------------------------------------

    @property
    def _named_transformers(self) -> list[tuple[str, Any]]:
        try:
            return [(name, transformer) for name, transformer, _ in self.modalities]
        except (TypeError, ValueError):  # "auto", or no triples, which fit refuses
            return []

    @_named_transformers.setter
    def _named_transformers(self, pairs: list[tuple[str, Any]]) -> None:
        self.modalities = [
            (name, transformer, columns)
            for (name, transformer), (_, _, columns) in zip(pairs, self.modalities, strict=True)
        ]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of this fusion and, if ``deep``, of its transformers.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include ``<modality>`` and ``<modality>__<parameter>``.

        Returns
        -------
        params : dict
            Names and values.
        """
        return self._get_params("_named_transformers", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this fusion and of its transformers.

        Parameters
        ----------
        **params : dict
            Names as :meth:`get_params` gives them, e.g. ``photo__pooling="max"``, or
            ``photo="drop"`` to leave a modality out.

        Returns
        -------
        self : object
            This fusion.
        """
        if "modalities" in params:  # first, because the others may refer to the new triples
            self.modalities = params.pop("modalities")
        transformers, own = dict(self._named_transformers), self.get_params(deep=False)
        for key in params:
            name, _, rest = key.partition("__")
            if not rest:
                continue
            value = params.get(name, own.get(name))
            if name in own and isinstance(value, str):
                raise ValueError(
                    f"{type(self).__name__} has {name}={value!r}, which has no parameter"
                    f" {rest!r}. Put an object there, and then set its parameters."
                )
            if name not in params and isinstance(transformers.get(name), str):
                raise ValueError(
                    f"Modality {name!r} of {type(self).__name__} is {transformers[name]!r}, which"
                    f" has no parameter {rest!r}. Put a transformer there, and then set its"
                    " parameters."
                )
        self._set_params("_named_transformers", **params)
        return self

    # --- validation of the frame ------------------------------------------------------------

    def _check_frame(self, X: Frame, *, reset: bool) -> DataFrameLike | np.ndarray:
        """Check the container, and store or compare its columns."""
        name = type(self).__name__
        frame: Any = X
        if self.missing_columns == "absent" and not reset:
            frame = add_absent_columns(X, getattr(self, "feature_names_in_", ()))
        if sparse.issparse(frame):
            raise TypeError(
                f"Sparse data was passed to {name}, which takes a frame of cells. Use"
                " X.toarray() to get a dense array."
            )
        if not hasattr(frame, "columns"):
            frame = _as_array(frame)
            if frame.dtype.kind == "c":
                raise ValueError(f"Complex data not supported by {name}.")
            if frame.ndim != 2:
                raise ValueError(
                    f"Expected 2D array, got {frame.ndim}D array instead by {name}. Reshape your"
                    " data or give a DataFrame."
                )
        if n_rows(frame) == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape={frame.shape}) while a minimum of 1 is"
                f" required by {name}."
            )
        if frame.shape[1] == 0:
            raise ValueError(
                f"Found array with 0 feature(s) (shape={frame.shape}) while a minimum of 1 is"
                f" required by {name}."
            )
        names = list(getattr(frame, "columns", ()))
        if len(set(names)) < len(names):
            twice = next(other for other in names if names.count(other) > 1)
            raise ValueError(f"{name}: X has several columns named {twice!r}. Rename them.")
        validate_data(self, X=frame, reset=reset, skip_check_array=True)
        checked: DataFrameLike | np.ndarray = frame
        return checked

    def _resolve(self, X: Frame, *, predictors: bool = False) -> list[Modality]:
        """Resolve the triples for a training frame."""
        return resolve_modalities(
            self.modalities,
            X,
            type(self).__name__,
            reserved=self.get_params(deep=False),
            predictors=predictors,
        )

    def _keep_usable(self, blocks: list[_Named], flaws: list[str | None]) -> list[_Named]:
        """Return the blocks without a flaw; warn of the others, and raise if none remains."""
        for block, flaw in zip(blocks, flaws, strict=True):
            if flaw:
                message = f"Modality {block.name!r} {flaw} and is left out."
                warnings.warn(message, ModalityWarning, stacklevel=2)
        if all(flaws):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: modality {blocks[0].name!r}"
                f" {flaws[0]}, and so is any other. Give rows that have at least one modality."
            )
        return [block for block, flaw in zip(blocks, flaws, strict=True) if not flaw]

    def _refuse_unrouted(self, fit_params: dict[str, Any]) -> None:
        """Refuse metadata that is not routed."""
        if fit_params and not get_config()["enable_metadata_routing"]:
            raise ValueError(
                f"{type(self).__name__}.fit got {sorted(fit_params)}, which it can hand on only"
                " under sklearn.set_config(enable_metadata_routing=True). Set that, or leave them"
                " out."
            )

    def _refuse_empty(self, present: np.ndarray) -> None:
        """Raise for a row without any modality if ``all_missing="raise"``.

        ``present`` has shape (n_samples, n_modalities).
        """
        if self.all_missing != "raise":
            return
        empty = ~present.any(axis=1)
        if empty.any():
            (other,) = self._parameter_constraints["all_missing"][0].options - {"raise"}
            raise ModalityMissingError(
                f"{type(self).__name__}: {int(empty.sum())} of {len(present)} rows have no"
                f" modality; the first is row {int(np.flatnonzero(empty)[0])} (by position). Drop"
                f" such rows, or set all_missing={other!r}."
            )

    # --- diagram and tags -----------------------------------------------------------------

    def _sk_visual_block_(self) -> Any:
        triples = getattr(self, "modalities_", self.modalities)
        try:
            names, transformers, columns = zip(*triples, strict=True)
        except (TypeError, ValueError):  # "auto", or no triples, which fit refuses
            return VisualBlock("single", self, names=type(self).__name__, name_details=str(self))
        return VisualBlock(
            "parallel",
            list(transformers),
            names=list(names),
            name_details=[str(c) for c in columns],
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags


def resolve_modalities(
    modalities: object,
    X: Frame,
    owner: str,
    *,
    reserved: Collection[str] = (),
    predictors: bool = False,
) -> list[Modality]:
    """Check the triples against a frame, and resolve their columns and default encoders.

    Parameters
    ----------
    modalities : list of (name, transformer, columns), or "auto"
        Parameter of the estimator.
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Training frame.
    owner : str
        Class of the estimator, for messages.
    reserved : collection of str, default=()
        Names of the owner's parameters, which a modality must not have.
    predictors : bool, default=False
        Whether a triple may hold a predictor in place of its transformer.

    Returns
    -------
    resolved : list of Modality
        Those that are not dropped.
    """
    if isinstance(modalities, str):
        triples = _infer(X, owner)
    else:
        triples = _checked(modalities, owner, predictors)
        _check_names([name for name, _, _ in triples], owner, reserved)
    resolved = []
    for name, transformer, columns in triples:
        if callable(columns):
            columns = columns(X)
        if isinstance(transformer, str) and transformer == "drop":
            continue
        names = column_names(X, columns)  # raises for a column that is not there
        if not names:
            continue
        if isinstance(transformer, str) and transformer != "passthrough":
            transformer = default_encoder(transformer)
        resolved.append(Modality(name, transformer, columns))
    if not resolved:
        raise ValueError(
            f"{owner} has no modality to fuse: every triple is dropped or selects no column."
            " Give at least one (name, transformer, columns)."
        )
    return resolved


def _checked(modalities: object, owner: str, predictors: bool) -> list[tuple[str, Any, Any]]:
    """Return the triples, and raise for the first element that is not one."""
    hint = "modalities must be 'auto' or a list of (name, transformer, columns)"
    if not isinstance(modalities, list | tuple) or not len(modalities):
        raise ValueError(f"{owner}: {hint}, got {modalities!r}.")
    for position, triple in enumerate(modalities):
        if not isinstance(triple, list | tuple) or len(triple) != 3:
            raise ValueError(f"{owner}: {hint}, got {triple!r} at position {position}.")
        name, transformer, _ = triple
        if not isinstance(name, str):
            raise ValueError(f"{owner}: {hint} with a str as name, got {name!r}.")
        usable = hasattr(transformer, "fit") and hasattr(transformer, "transform")
        usable = usable or (predictors and is_predictor(transformer))
        if not isinstance(transformer, str) and not usable:
            raise TypeError(
                f"{owner}: the transformer of modality {name!r} must have fit and transform, or"
                f" be 'drop', 'passthrough' or a modality's name; got {transformer!r}."
            )
    return [tuple(triple) for triple in modalities]


def _check_names(names: list[str], owner: str, reserved: Collection[str]) -> None:
    for name in names:
        if not name or "__" in name:
            raise ValueError(
                f"{owner}: the name of a modality must not be empty nor hold '__', which stands"
                f" between the names of nested parameters; got {name!r}."
            )
        if name in reserved:
            raise ValueError(
                f"{owner}: a modality cannot be named {name!r}, for that is a parameter of"
                f" {owner}. Choose another name."
            )
        if names.count(name) > 1:
            raise ValueError(f"{owner}: the names of modalities must differ, got {name!r} twice.")


def _infer(X: Frame, owner: str) -> list[tuple[str, Any, Any]]:
    """Return a triple for each column of cells, and one for all tabular columns."""
    found = infer_modalities(X)
    kinds = list(found.values())
    if all(kind == "drop" for kind in kinds):
        # Constant columns say nothing, but a frame of one row has no others.
        kinds = ["drop" if column.missing.all() else "tabular" for column in to_columns(X)]
    if all(kind == "drop" for kind in kinds):
        raise ValueError(
            f"{owner} has nothing to learn from: every cell of X is missing. Give rows that have at"
            " least one modality."
        )
    # Columns by position: their names may be no text, or be absent in a later array.
    triples: list[tuple[str, Any, Any]] = []
    table = [position for position, kind in enumerate(kinds) if kind == "tabular"]
    for position, (name, kind) in enumerate(zip(found, kinds, strict=True)):
        if kind not in ("tabular", "drop"):
            triples.append((_free_name(name, triples), kind, [position]))
    if table:
        triples.append((_free_name("tabular", triples), "tabular", table))
    return triples


def _free_name(wanted: str, triples: list[tuple[str, Any, Any]]) -> str:
    while "__" in wanted:  # separates the names of nested parameters
        wanted = wanted.replace("__", "_")
    wanted = wanted or "column"
    taken = {name for name, _, _ in triples}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def is_predictor(transformer: object) -> bool:
    """Return whether an object predicts from the cells as they are and does not transform them."""
    predicts = hasattr(transformer, "fit") and hasattr(transformer, "predict")
    return predicts and not hasattr(transformer, "transform")


def presence(columns: list[Column]) -> np.ndarray:
    """Return which rows have at least one cell that is not missing, (n_samples,) bool."""
    missing = columns[0].missing
    for column in columns[1:]:
        missing = missing & column.missing
    return ~missing


def _as_array(X: object) -> np.ndarray:
    """Convert lists and the like to an array without changing the cells."""
    array = np.asarray(X)
    # numpy converts the numbers in [["good", 5.0]] to strings.
    return np.asarray(X, dtype=object) if array.dtype.kind in "US" else array
