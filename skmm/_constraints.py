"""Shared parameter ranges, and the only place that touches scikit-learn's private API.

``sklearn.utils._param_validation`` keeps the same names from 1.6 to 1.9. Should it move,
this file alone has to follow.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any, Protocol, TypeAlias

import numpy as np
from sklearn.utils._param_validation import (
    HasMethods,
    Hidden,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
)
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import _check_feature_names_in, _check_sample_weight

try:
    from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock
except ImportError:  # scikit-learn before 1.8
    from sklearn.utils._estimator_html_repr import (
        _VisualBlock as VisualBlock,
    )

__all__ = [
    "BATCH_SIZE",
    "DEVICE",
    "DTYPE",
    "FINE_TUNE",
    "FRACTION",
    "LEARNING_RATE",
    "NON_NEGATIVE",
    "ON_ERROR",
    "OPEN_FRACTION",
    "POSITIVE_INT",
    "POSITIVE_REAL",
    "RANDOM_STATE",
    "RandomState",
    "STORE",
    "VERBOSE",
    "BaseComposition",
    "Estimator",
    "HasMethods",
    "Hidden",
    "Interval",
    "InvalidParameterError",
    "Options",
    "Scoring",
    "Splits",
    "Splitter",
    "StrOptions",
    "VisualBlock",
    "check_feature_names_in",
    "check_sample_weight",
    "refuse_unused",
    "short_repr",
]

# --- Type hints of parameters ---


class Estimator(Protocol):
    """Anything that scikit-learn can clone and fit."""

    def fit(self, X: Any, y: Any, /) -> Any:
        """Learn from rows."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters."""

    def set_params(self, **params: Any) -> Any:
        """Set parameters."""


class Splitter(Protocol):
    """What makes folds: any of scikit-learn's splitters does."""

    def split(self, X: Any, y: Any, groups: Any, /) -> Iterable[tuple[Any, Any]]:
        """Yield rows to train on and rows to test on."""

    def get_n_splits(self, X: Any, y: Any, groups: Any, /) -> int:
        """Return how many pairs there will be."""


Splits: TypeAlias = int | Splitter | Iterable[tuple[np.ndarray, np.ndarray]] | None  # cv
Scoring: TypeAlias = str | Callable[..., float] | None
RandomState: TypeAlias = int | np.random.RandomState | None

# --- Constraints of parameters ---


POSITIVE_INT = [Interval(Integral, 1, None, closed="left")]
POSITIVE_REAL = [Interval(Real, 0, None, closed="neither")]
NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]
FRACTION = [Interval(Real, 0, 1, closed="left")]  # a dropout rate of 1 drops everything
OPEN_FRACTION = [Interval(Real, 0, 1, closed="neither")]
BATCH_SIZE = POSITIVE_INT
LEARNING_RATE = [*POSITIVE_REAL, StrOptions({"auto"})]
RANDOM_STATE = ["random_state"]
VERBOSE = ["verbose"]
# "auto", "cpu", "cuda", "cuda:1", "mps": which of them exist is known to torch alone, at fit.
DEVICE = [str]
DTYPE = [StrOptions({"auto", "float32", "bfloat16", "float16"})]
# Which weights of a checkpoint are trained; an int is the number of last blocks.
FINE_TUNE = [StrOptions({"frozen", "last", "lora", "full"}), *POSITIVE_INT]
ON_ERROR = [StrOptions({"raise", "missing"})]
# A folder, an EmbeddingStore, False for none, None for the configured one.
STORE = [str, PathLike, HasMethods(["get_many", "put_many"]), Options(bool, {False}), None]


def check_feature_names_in(estimator: object, input_features: object = None) -> np.ndarray:
    """Return the input feature names of a fitted transformer, checked against the given ones."""
    return _check_feature_names_in(estimator, input_features)


def check_sample_weight(sample_weight: object, X: object) -> np.ndarray:
    """Return the weights of the rows as an array: finite, not negative, not all zero."""
    weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("All sample weights are zero. Give at least one row a positive weight.")
    return weights


def refuse_unused(
    estimator: object,
    names: Iterable[str],
    reason: str,
    *,
    harmless: Mapping[str, object] | None = None,
) -> None:
    """Refuse parameters that another setting makes useless, where the user set them.

    Parameters
    ----------
    estimator : object
        With the parameters as attributes.
    names : iterable of str
        Parameters without effect.
    reason : str
        Completes "has no effect ..." in the message, e.g. "with model='tfidf'".
    harmless : mapping of str to object, default=None
        For some parameters, a value besides the default that is accepted because it only states
        what is done anyway.

    Raises
    ------
    ValueError
        If one of them is neither its default nor harmless.
    """
    defaults = inspect.signature(type(estimator)).parameters
    for name in names:
        if name not in defaults:  # a subclass may have fewer parameters
            continue
        value, accepted = getattr(estimator, name), [defaults[name].default]
        if harmless is not None and name in harmless:
            accepted.append(harmless[name])
        if not any(value is other or (_is_plain(value) and value == other) for other in accepted):
            raise ValueError(
                f"{type(estimator).__name__}: {name}={short_repr(value)} has no effect {reason}."
                " Leave it out, or change the other setting."
            )


def short_repr(value: object) -> str:
    """Return the repr of a parameter's value for a message, or its class if that is long."""
    if isinstance(value, PathLike):
        return repr(str(value))
    text = repr(value)
    return text if len(text) < 60 else f"{type(value).__name__}(...)"


def _is_plain(value: object) -> bool:
    """Return whether ``==`` with a value gives a single bool, as it does not for arrays."""
    return isinstance(value, bool | int | float | str | tuple | np.generic)
