"""Target and outputs of a joint net that chooses one of several classes."""

from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from skmm._compose._target_checks import class_indices, row_loss
from skmm.nets import OrdinalHead

__all__ = ["ClassCode"]


class ClassCode:
    """What a net's outputs mean, for one class a row.

    Parameters
    ----------
    owner : str
        Who asks, for messages.

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
    is_value = False

    def __init__(self, owner: str):
        self.owner = owner
        self.loss: Any = None

    @property
    def has_probabilities(self) -> bool:
        """Whether outputs are probabilities, not margins."""
        return not (isinstance(self.loss, str) and self.loss == "max_margin")

    @property
    def is_ordinal(self) -> bool:
        """Whether the classes have an order that the net knows."""
        return isinstance(self.loss, str) and self.loss == "ordinal"

    @property
    def n_outputs(self) -> int:
        """Width of the net's output."""
        return len(self.classes) - self.is_ordinal

    def set_loss(self, loss: Any, params: dict[str, Any] | None) -> None:
        """Take the loss of the next training."""
        ordinal = isinstance(loss, str) and loss == "ordinal"
        if self.loss is not None and ordinal != self.is_ordinal:
            raise ValueError(
                f"{self.owner}: loss='ordinal' has other outputs than any other loss, so the"
                " network cannot go on. Fit anew, with warm_start=False."
            )
        self.loss, self.params = loss, dict(params or {})
        self.order = self.params.pop("order", None) if ordinal else None
        self.criterion()  # what is wrong with the parameters is told before any cell is encoded

    def encode(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        """Check ``y``; indices of the classes, which are learned if ``anew``."""
        announced = None if classes is None else np.unique(classes)
        if not anew and announced is not None and not np.array_equal(announced, self.classes):
            raise ValueError(
                f"{self.owner}: classes are {announced.tolist()}, but were {self.classes.tolist()}"
                " before. Leave them out, or fit anew."
            )
        known = announced if anew else self.classes
        self.classes, indices = class_indices(X, y, self.owner, known=known)
        if anew:
            self.ranks = self._rank()
        return indices

    def _rank(self) -> np.ndarray:
        """Place of each class in the order that the net knows."""
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

    def learn(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn the prior."""
        shares = np.bincount(target, weights=sample_weight, minlength=len(self.classes))
        self.prior = shares / shares.sum()

    def class_weights(self, target: np.ndarray, class_weight: Any) -> np.ndarray:
        """Weight of each class, (n_classes,), for a ``class_weight`` that is not None."""
        if isinstance(class_weight, dict):
            return compute_class_weight(class_weight, classes=self.classes, y=self.classes[target])
        counts = np.bincount(target, minlength=len(self.classes))
        present = counts > 0
        return np.where(present, len(target) / (present.sum() * np.maximum(counts, 1)), 1.0)

    def in_net_order(self, by_class: np.ndarray) -> np.ndarray:
        """Put one number a class, or column, in the order in which the net has the classes."""
        return by_class[..., np.argsort(self.ranks)]

    def as_given(self, target: np.ndarray) -> np.ndarray:
        """Target as the user wrote it."""
        return self.classes[target]

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        return torch.as_tensor(self.ranks[target], dtype=torch.int64)

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Groups that a held-out part should hold in the same shares."""
        return target

    def criterion(self) -> nn.Module:
        """Loss of each row."""
        return row_loss(self.owner, self.loss, self.kind, self.params)

    def thresholds(self) -> np.ndarray:
        """Where the thresholds of an ordinal head start: at the shares of the classes."""
        shares = self.in_net_order(self.prior) + 1e-3
        below = np.cumsum(shares)[:-1] / shares.sum()
        return np.log(below / (1 - below))

    def first_outputs(self) -> np.ndarray:
        """Outputs (n_outputs,) of a net that knows nothing of a row yet."""
        return -self.thresholds() if self.is_ordinal else np.zeros(self.n_outputs)

    def head(self, n_components: int, dropout: float) -> nn.Module | None:
        """Head of its own, if a linear map is none."""
        if not self.is_ordinal:
            return None
        return OrdinalHead(n_components, torch.as_tensor(self.thresholds()), dropout=dropout)

    def answers(self, outputs: Tensor) -> Tensor:
        """Probability, or else score, of each class, (n_samples, n_classes), with a gradient."""
        if not self.has_probabilities:
            return outputs
        if not self.is_ordinal:
            return torch.softmax(outputs, dim=1)
        edge = torch.ones_like(outputs[:, :1])
        above = torch.cat([edge, torch.sigmoid(outputs), 0 * edge], dim=1)
        return (above[:, :-1] - above[:, 1:])[:, torch.as_tensor(self.ranks)]

    def probabilities(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Probabilities (n_samples, n_classes), the prior for rows that are ``empty``."""
        if self.is_ordinal:
            edge = np.ones((len(outputs), 1))
            above = np.hstack([edge, expit(outputs), 0 * edge])
            probabilities = (above[:, :-1] - above[:, 1:])[:, self.ranks]
        else:
            probabilities = softmax(outputs, axis=1)
        probabilities[empty] = self.prior
        return probabilities

    def margins(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Scores (n_samples, n_classes), or (n_samples,) for two classes."""
        outputs[empty] = np.log(np.maximum(self.prior, 1e-12))
        return outputs[:, 1] - outputs[:, 0] if len(self.classes) == 2 else outputs

    def decide(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Most probable class of each row."""
        return self.classes[self.probabilities(outputs, empty).argmax(axis=1)]
