"""Targets of a joint fusion: one class a row, any number of labels, or values."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array
from torch import Tensor, nn

from skmm._frame._column import is_missing
from skmm._frame._types import Frame
from skmm._training._batches import Target
from skmm.nets._layers import Head
from skmm.nets._losses import OrdinalHead, make_loss

__all__ = [
    "ClassTarget",
    "ClassWeight",
    "JointTarget",
    "LabelTarget",
    "ValueTarget",
    "class_indices",
    "is_indicator",
    "regression_target",
    "row_loss",
]

ClassWeight: TypeAlias = Mapping[Any, float] | Literal["balanced"]


class JointTarget(Target):
    """Base of the targets of a joint fusion.

    ``encode`` checks ``y`` and gives an array with a row for each row; ``learn`` takes from it what
    is needed later.
    """

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of outputs of the network."""

    @property
    def is_ordinal(self) -> bool:
        """Whether outputs are thresholds between classes in an order, from a head of its own."""
        return False

    @abstractmethod
    def learn(self, encoded: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn priors or scales."""

    @abstractmethod
    def as_given(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the target in the form of ``y``, for the transformers."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> Tensor:
        """Return what outputs mean, (n_samples, n_answers), with a gradient."""

    def head(self, n_components: int, dropout: float) -> nn.Module:
        """Return an untrained head, from the fused vector to the outputs."""
        return Head(n_components, self.n_outputs, dropout=dropout)


class ClassTarget(JointTarget):
    """Target with one class for each row.

    Parameters
    ----------
    owner : str
        Class of the estimator, for messages.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted.
    prior : ndarray of shape (n_classes,)
        Shares in training.
    """

    kind = "classes"
    classes: np.ndarray
    prior: np.ndarray
    loss: str | nn.Module

    def __init__(self, owner: str):
        self.owner = owner

    @property
    def has_probabilities(self) -> bool:
        """Whether outputs are probabilities, not margins."""
        return not (isinstance(self.loss, str) and self.loss == "max_margin")

    @property
    def is_ordinal(self) -> bool:
        """Whether the loss uses an order of the classes."""
        return isinstance(self.loss, str) and self.loss == "ordinal"

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self.classes) - self.is_ordinal

    def set_loss(self, loss: str | nn.Module, params: Mapping[str, Any] | None) -> None:
        """Set the loss of the next training."""
        ordinal = isinstance(loss, str) and loss == "ordinal"
        if hasattr(self, "loss") and ordinal != self.is_ordinal:
            raise ValueError(
                f"{self.owner}: loss='ordinal' has other outputs than any other loss, so the"
                " network cannot be trained further. Fit with warm_start=False."
            )
        self.loss, self.params = loss, dict(params or {})
        self.order = self.params.pop("order", None) if ordinal else None
        self.criterion()  # refuses wrong parameters before any cell is encoded

    def encode(
        self, X: Frame, y: ArrayLike, *, first: bool, classes: np.ndarray | None = None
    ) -> np.ndarray:
        """Check ``y``; indices of the classes, which are learned in the ``first`` call."""
        announced = None if classes is None else np.unique(classes)
        if not first and announced is not None and not np.array_equal(announced, self.classes):
            raise ValueError(
                f"{self.owner}: classes are {announced.tolist()}, but were {self.classes.tolist()}"
                " before. Leave them out, or call fit."
            )
        known = announced if first else self.classes
        self.classes, indices = class_indices(X, y, self.owner, known=known)
        if first:
            self.ranks = self._rank()
        return indices

    def _rank(self) -> np.ndarray:
        """Return the rank of each class in the order of the network."""
        if not self.is_ordinal:
            return np.arange(len(self.classes))
        if self.order is None:
            if self.classes.dtype.kind not in "biuf":
                raise ValueError(
                    f"{self.owner}: loss='ordinal' needs to know the order of classes that are no"
                    " numbers. Give loss_params={'order': [lowest, ..., highest]}."
                )
            return np.arange(len(self.classes))
        order = list(self.order)
        if sorted(map(str, order)) != sorted(map(str, self.classes.tolist())):
            raise ValueError(
                f"{self.owner}: the order in loss_params is {order}, but the classes are"
                f" {self.classes.tolist()}. Name each class once."
            )
        places = {str(name): place for place, name in enumerate(order)}
        return np.array([places[str(name)] for name in self.classes.tolist()])

    def learn(self, encoded: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn the prior."""
        shares = np.bincount(encoded, weights=sample_weight, minlength=len(self.classes))
        self.prior = shares / shares.sum()

    def class_weights(self, target: np.ndarray, class_weight: ClassWeight) -> np.ndarray:
        """Return the weight of each class, (n_classes,)."""
        if isinstance(class_weight, dict):
            return compute_class_weight(class_weight, classes=self.classes, y=self.classes[target])
        counts = np.bincount(target, minlength=len(self.classes))
        present = counts > 0
        rarity = len(target) / (present.sum() * np.maximum(counts, 1))
        weights: np.ndarray = np.where(present, rarity, 1.0)
        return weights

    def in_net_order(self, by_class: np.ndarray) -> np.ndarray:
        """Put one number a class, or column, in the order in which the net has the classes."""
        return by_class[..., np.argsort(self.ranks)]

    def as_given(self, encoded: np.ndarray) -> np.ndarray:
        """Return the target in the form of ``y``."""
        given: np.ndarray = self.classes[encoded]
        return given

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as the loss takes it."""
        return torch.as_tensor(self.ranks[encoded], dtype=torch.int64)

    def strata(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the groups that a held-out part should contain in the same proportions."""
        return encoded

    def criterion(self) -> nn.Module:
        """Return the loss of each row."""
        return row_loss(self.owner, self.loss, self.kind, self.params)

    def thresholds(self) -> np.ndarray:
        """Return the initial thresholds of an ordinal head, from the shares of the classes."""
        shares = self.in_net_order(self.prior) + 1e-3
        below = np.cumsum(shares)[:-1] / shares.sum()
        thresholds: np.ndarray = np.log(below / (1 - below))
        return thresholds

    def first_outputs(self) -> np.ndarray:
        """Return the outputs (n_outputs,) of an untrained network."""
        return -self.thresholds() if self.is_ordinal else np.zeros(self.n_outputs)

    def head(self, n_components: int, dropout: float) -> nn.Module:
        """Return an untrained head: linear, or ordered thresholds."""
        if not self.is_ordinal:
            return super().head(n_components, dropout)
        return OrdinalHead(n_components, torch.as_tensor(self.thresholds()), dropout=dropout)

    def answers(self, outputs: Tensor) -> Tensor:
        """Return probabilities or scores (n_samples, n_classes), with a gradient."""
        if not self.has_probabilities:
            return outputs
        if not self.is_ordinal:
            return torch.softmax(outputs, dim=1)
        edge = torch.ones_like(outputs[:, :1])
        above = torch.cat([edge, torch.sigmoid(outputs), 0 * edge], dim=1)
        return (above[:, :-1] - above[:, 1:])[:, torch.as_tensor(self.ranks)]

    def probabilities(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return probabilities (n_samples, n_classes), the prior for rows that are ``empty``."""
        probabilities: np.ndarray
        if self.is_ordinal:
            edge = np.ones((len(outputs), 1))
            above = np.hstack([edge, expit(outputs), 0 * edge])
            probabilities = (above[:, :-1] - above[:, 1:])[:, self.ranks]
        else:
            probabilities = softmax(outputs, axis=1)
        probabilities[empty] = self.prior
        return probabilities

    def margins(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return scores (n_samples, n_classes), or (n_samples,) for two classes."""
        outputs[empty] = np.log(np.maximum(self.prior, 1e-12))
        if len(self.classes) > 2:
            return outputs
        lead: np.ndarray = outputs[:, 1] - outputs[:, 0]
        return lead

    def decide(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return the most probable class of each row."""
        best: np.ndarray = self.classes[self.probabilities(outputs, empty).argmax(axis=1)]
        return best


def is_indicator(y: object) -> bool:
    """Return whether a target is a label indicator matrix."""
    if sparse.issparse(y):
        return True
    try:
        matrix = np.asarray(y)
    except ValueError:  # ragged
        return False
    # What is not finite is left to the checks of a target of classes, which refuse it.
    whole = matrix.dtype.kind in "biu" or (matrix.dtype.kind == "f" and np.isfinite(matrix).all())
    return matrix.ndim == 2 and whole and type_of_target(matrix) == "multilabel-indicator"


class _WeightedLabels(nn.Module):
    """A loss in which presence and absence of each label have a weight, (2, n_labels)."""

    weights: Tensor

    def __init__(self, loss: nn.Module, weights: np.ndarray):
        super().__init__()
        self.loss = loss
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        losses: Tensor = self.loss(outputs, target)
        if losses.shape != target.shape:
            raise ValueError(
                "class_weight needs a loss that gives a value for each label, not one a row. Leave"
                " class_weight out."
            )
        return losses * torch.where(target > 0, self.weights[1], self.weights[0])


class LabelTarget(JointTarget):
    """Target with any number of labels for each row.

    Parameters
    ----------
    owner : str
        Class of the estimator, for messages.

    Attributes
    ----------
    classes : ndarray of shape (n_labels,)
        Positions of the labels.
    prior : ndarray of shape (n_labels,)
        Share of the training rows that have each label.
    """

    kind = "labels"
    classes: np.ndarray
    prior: np.ndarray
    weights: np.ndarray | None = None

    def __init__(self, owner: str):
        self.owner = owner

    @property
    def has_probabilities(self) -> bool:
        """Whether outputs are probabilities, not margins."""
        return not (isinstance(self.loss, str) and self.loss == "max_margin")

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self.classes)

    def set_loss(self, loss: str | nn.Module, params: Mapping[str, Any] | None) -> None:
        """Set the loss of the next training."""
        self.loss, self.params = loss, dict(params or {})
        if isinstance(loss, str) and loss == "ordinal":
            raise ValueError(
                f"{self.owner}: loss='ordinal' is for classes in an order, but y is a matrix of"
                " labels. Choose another loss."
            )
        # Refuses wrong parameters before any cell is encoded.
        row_loss(self.owner, loss, self.kind, self.params)

    def encode(
        self, X: Frame, y: Any, *, first: bool, classes: np.ndarray | None = None
    ) -> np.ndarray:
        """Check ``y``; a matrix of 0 and 1, whose width is learned in the ``first`` call."""
        target = y.toarray() if sparse.issparse(y) else np.asarray(y)
        if not is_indicator(target) or not np.isin(target, (0, 1)).all():
            raise ValueError(
                f"{self.owner}: y is no matrix of labels, 0 and 1, of shape (n_samples, n_labels)."
                " Use sklearn.preprocessing.MultiLabelBinarizer to make one."
            )
        check_consistent_length(X, target)
        if first:
            self.classes = np.arange(target.shape[1])
        n_named = target.shape[1] if classes is None else len(classes)
        if not target.shape[1] == n_named == len(self.classes):
            raise ValueError(
                f"{self.owner}: y has {target.shape[1]} labels, but there are"
                f" {len(self.classes) if n_named == target.shape[1] else n_named}. Give as many, or"
                " call fit."
            )
        return target.astype(np.int64)

    def learn(self, encoded: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn the prior."""
        self.prior = np.average(encoded, axis=0, weights=sample_weight)

    def set_class_weight(self, target: np.ndarray, class_weight: ClassWeight | None) -> None:
        """Set the weights of presence and absence of each label."""
        if class_weight is None:
            self.weights = None
        elif isinstance(class_weight, dict):
            strange = [label for label in class_weight if label not in self.classes]
            if strange:
                raise ValueError(
                    f"{self.owner}: class_weight names label {strange[0]!r}, but labels are"
                    f" numbered from 0 to {len(self.classes) - 1}. Name those."
                )
            by_label = [class_weight.get(label, 1.0) for label in self.classes.tolist()]
            self.weights = np.array([by_label, by_label], dtype=float)
        else:
            counts = np.stack([(1 - target).sum(axis=0), target.sum(axis=0)])
            both = counts.all(axis=0)
            self.weights = np.where(both, len(target) / (2.0 * np.maximum(counts, 1)), 1.0)

    def as_given(self, encoded: np.ndarray) -> np.ndarray:
        """Return the target in the form of ``y``."""
        return encoded

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as the loss takes it."""
        return torch.as_tensor(encoded, dtype=torch.float32)

    def criterion(self) -> nn.Module:
        """Return the loss of each row and label."""
        loss = row_loss(self.owner, self.loss, self.kind, self.params)
        return loss if self.weights is None else _WeightedLabels(loss, self.weights)

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the probability or score of each label, with a gradient."""
        return torch.sigmoid(outputs) if self.has_probabilities else outputs

    def probabilities(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return the probability of each label, the prior for rows that are ``empty``."""
        probabilities: np.ndarray = expit(outputs)
        probabilities[empty] = self.prior
        return probabilities

    def margins(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return scores (n_samples, n_labels), positive for labels that a row has."""
        prior = np.clip(self.prior, 1e-12, 1 - 1e-12)
        outputs[empty] = np.log(prior / (1 - prior))
        return outputs

    def decide(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return 0 or 1 for each row and label."""
        has_label = self.margins(outputs, empty) > 0
        return has_label.astype(np.int64)


class ValueTarget(JointTarget):
    """Target with one or several values for each row, which are standardized.

    Parameters
    ----------
    owner : str
        Class of the estimator, for messages.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_targets,)
        Of the training target.
    is_1d : bool
        Whether ``y`` had one axis when it was last seen.
    """

    kind = "values"
    n_targets: int
    mean: np.ndarray
    scale: np.ndarray
    is_1d: bool

    def __init__(self, owner: str):
        self.owner = owner

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return self.n_targets

    def set_loss(self, loss: str | nn.Module, params: Mapping[str, Any] | None) -> None:
        """Set the loss of the next training."""
        self.loss, self.params = loss, dict(params or {})
        self.criterion()  # refuses wrong parameters before any cell is encoded

    def encode(self, X: Frame, y: ArrayLike, *, first: bool) -> np.ndarray:
        """Check ``y``; values (n_samples, n_targets), whose number the ``first`` call learns."""
        given = regression_target(X, y, self.owner, multi_output=True)
        target = given.reshape(len(given), -1)
        if first:
            self.n_targets = target.shape[1]
        if target.shape[1] != self.n_targets:
            raise ValueError(
                f"{self.owner}: y has {target.shape[1]} targets, but had"
                f" {self.n_targets} before. Give as many, or call fit."
            )
        self.is_1d = given.ndim == 1
        return target

    def learn(self, encoded: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn mean and scale."""
        # Relative to the largest value: the square of 1e200 overflows.
        largest = np.abs(encoded).max(axis=0)
        unit = np.where(largest > 0, largest, 1.0)
        mean = np.average(encoded / unit, axis=0, weights=sample_weight)
        variance = np.average((encoded / unit - mean) ** 2, axis=0, weights=sample_weight)
        constant = np.sqrt(variance) <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        self.mean = mean * unit
        self.scale = np.where(constant, 1.0, np.sqrt(variance) * unit)

    def as_given(self, encoded: np.ndarray) -> np.ndarray:
        """Return the target in the form of ``y``."""
        return encoded[:, 0] if self.is_1d else encoded

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as the loss takes it."""
        # The scale belongs to the weights of the network: a warm start keeps it.
        standardized = (encoded - self.mean) / self.scale
        return torch.as_tensor(standardized, dtype=torch.float32)

    def criterion(self) -> nn.Module:
        """Return the loss of each row and target."""
        return row_loss(self.owner, self.loss, self.kind, self.params)

    def first_outputs(self) -> np.ndarray:
        """Return the outputs (n_outputs,) of an untrained network."""
        return np.zeros(self.n_outputs)

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the values of the outputs, (n_samples, n_targets), with a gradient."""
        scale, mean = (
            torch.as_tensor(number, dtype=outputs.dtype, device=outputs.device)
            for number in (self.scale, self.mean)
        )
        return outputs * scale + mean

    def decide(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Return values, the mean of the training target for rows that are ``empty``."""
        outputs[empty] = 0.0
        values: np.ndarray = outputs * self.scale + self.mean
        return values[:, 0] if self.is_1d else values


# --- Checks of y, for late fusion too ---

_Target = TypeVar("_Target")


def class_indices(
    X: Frame, y: ArrayLike | None, owner: str, *, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Check a classification target.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame.
    y : array-like of shape (n_samples,)
        Class labels.
    owner : str
        Class of the estimator, for messages.
    known : ndarray of shape (n_classes,), default=None
        Sorted classes that there are; None takes those of ``y``.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted.
    indices : ndarray of shape (n_samples,)
        Of each row's class.
    """
    target = column_or_1d(_given(y, owner), warn=True)
    check_consistent_length(X, target)
    _refuse_missing(target, owner)
    check_classification_targets(target)
    if known is not None:
        strange = sorted(set(target.tolist()) - set(known.tolist()), key=str)
        if strange:
            raise ValueError(
                f"{owner}: y holds {strange[0]!r}, which is not among the classes"
                f" {known.tolist()}. Name all classes in the first partial_fit, or fit again."
            )
        return known, np.searchsorted(known, target)
    classes, indices = np.unique(target, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{owner} needs at least 2 classes, but y holds 1 class only: {classes.tolist()[0]!r}."
            " Give training rows of another class too."
        )
    return classes, indices


def regression_target(
    X: Frame, y: ArrayLike | None, owner: str, *, multi_output: bool = False
) -> np.ndarray:
    """Check a regression target.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Frame.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Values.
    owner : str
        Class of the estimator, for messages.
    multi_output : bool, default=False
        Whether several targets are taken.

    Returns
    -------
    y : ndarray of float64, of the same shape
        Finite.
    """
    given = _given(y, owner)
    target = check_array(
        given if multi_output else column_or_1d(given, warn=True),
        dtype=np.float64,
        ensure_2d=False,
        ensure_all_finite=False,
        input_name="y",
        estimator=owner,
    )
    check_consistent_length(X, target)
    _refuse_missing(target, owner)
    return target


def row_loss(
    owner: str, loss: str | nn.Module, kind: str, params: Mapping[str, object]
) -> nn.Module:
    """Build the loss of each row; errors name the ``owner``."""
    try:
        return make_loss(loss, kind, **params)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def _given(y: _Target | None, owner: str) -> _Target:
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None. Give the target."
        )
    return y


def _refuse_missing(y: np.ndarray, owner: str) -> None:
    if y.dtype.kind == "O":
        absent = is_missing(y)
    elif y.dtype.kind == "f":
        absent = ~np.isfinite(y).reshape(len(y), -1).all(axis=1)
    else:
        return
    if absent.any():
        raise ValueError(
            f"{owner}: Input y contains NaN or infinity, first in row"
            f" {int(np.flatnonzero(absent)[0])} (by position). Drop the rows without a target."
        )
    if y.dtype.kind == "O" and type_of_target(y) == "unknown":
        raise ValueError(f"Unknown label type: {owner} takes classes that are str or numbers.")
