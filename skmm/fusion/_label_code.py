"""Target and outputs of a joint net that says which of several labels a row has."""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.special import expit
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target
from torch import Tensor, nn

from skmm._compose._target_checks import row_loss

__all__ = ["LabelCode", "is_indicator"]


def is_indicator(y: Any) -> bool:
    """Whether a target is a matrix that says which labels each row has."""
    if sparse.issparse(y):
        return True
    try:
        matrix = np.asarray(y)
    except ValueError:  # ragged
        return False
    # What is not finite is told by the checks of a target of classes.
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
        losses = self.loss(outputs, target)
        if losses.shape != target.shape:
            raise ValueError(
                "class_weight needs a loss that gives a value for each label, not one a row. Leave"
                " class_weight out."
            )
        return losses * torch.where(target > 0, self.weights[1], self.weights[0])


class LabelCode:
    """What a net's outputs mean, for any number of labels a row.

    Parameters
    ----------
    owner : str
        Who asks, for messages.

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
        """Width of the net's output."""
        return len(self.classes)

    def set_loss(self, loss: Any, params: dict[str, Any] | None) -> None:
        """Take the loss of the next training."""
        self.loss, self.params = loss, dict(params or {})
        if isinstance(loss, str) and loss == "ordinal":
            raise ValueError(
                f"{self.owner}: loss='ordinal' is for classes in an order, but y is a matrix of"
                " labels. Choose another loss."
            )
        row_loss(self.owner, loss, self.kind, self.params)  # told before any cell is encoded

    def encode(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        """Check ``y``; a matrix of 0 and 1, whose width is learned if ``anew``."""
        target = y.toarray() if sparse.issparse(y) else np.asarray(y)
        if not is_indicator(target) or not np.isin(target, (0, 1)).all():
            raise ValueError(
                f"{self.owner}: y is no matrix of labels, 0 and 1, of shape (n_samples, n_labels)."
                " Use sklearn.preprocessing.MultiLabelBinarizer to make one."
            )
        check_consistent_length(X, target)
        if anew:
            self.classes = np.arange(target.shape[1])
        n_told = target.shape[1] if classes is None else len(classes)
        if not target.shape[1] == n_told == len(self.classes):
            raise ValueError(
                f"{self.owner}: y has {target.shape[1]} labels, but there are"
                f" {len(self.classes) if n_told == target.shape[1] else n_told}. Give as many, or"
                " fit anew."
            )
        return target.astype(np.int64)

    def learn(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn the prior."""
        self.prior = np.average(target, axis=0, weights=sample_weight)

    def set_class_weight(self, target: np.ndarray, class_weight: Any) -> None:
        """Take weights of presence and absence of each label."""
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

    def as_given(self, target: np.ndarray) -> np.ndarray:
        """Target as the user wrote it."""
        return target

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        return torch.as_tensor(target, dtype=torch.float32)

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Groups that a held-out part should hold in the same shares: too many, so none."""
        return None

    def criterion(self) -> nn.Module:
        """Loss of each row and label."""
        loss = row_loss(self.owner, self.loss, self.kind, self.params)
        return loss if self.weights is None else _WeightedLabels(loss, self.weights)

    def head(self, n_components: int, dropout: float) -> nn.Module | None:
        """Head of its own: none, for a linear map will do."""
        return None

    def answers(self, outputs: Tensor) -> Tensor:
        """Probability, or else score, of each label, with a gradient."""
        return torch.sigmoid(outputs) if self.has_probabilities else outputs

    def probabilities(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Probability of each label, the prior for rows that are ``empty``."""
        probabilities = expit(outputs)
        probabilities[empty] = self.prior
        return probabilities

    def margins(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Scores (n_samples, n_labels), positive for labels that a row has."""
        prior = np.clip(self.prior, 1e-12, 1 - 1e-12)
        outputs[empty] = np.log(prior / (1 - prior))
        return outputs

    def decide(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """0 or 1 for each row and label."""
        return (self.margins(outputs, empty) > 0).astype(np.int64)
