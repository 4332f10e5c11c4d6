"""Target and outputs of a joint net that predicts values."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._target_checks import regression_target, row_loss

__all__ = ["ValueCode"]


class ValueCode:
    """What a net's outputs mean, for one or several values a row: standardised targets.

    Parameters
    ----------
    owner : str
        Who asks, for messages.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_targets,)
        Of the training target.
    is_1d : bool
        Whether ``y`` had one axis when it was last seen.
    """

    kind = "values"
    is_value = True

    def __init__(self, owner: str):
        self.owner = owner

    @property
    def n_outputs(self) -> int:
        """Width of the net's output."""
        return self.n_targets

    def set_loss(self, loss: Any, params: dict[str, Any] | None) -> None:
        """Take the loss of the next training."""
        self.loss, self.params = loss, dict(params or {})
        self.criterion()  # what is wrong with the parameters is told before any cell is encoded

    def encode(self, X: Any, y: Any, *, anew: bool) -> np.ndarray:
        """Check ``y``; values (n_samples, n_targets), whose number is learned if ``anew``."""
        y = regression_target(X, y, self.owner, multi_output=True)
        target = y.reshape(len(y), -1)
        if anew:
            self.n_targets = target.shape[1]
        if target.shape[1] != self.n_targets:
            raise ValueError(
                f"{self.owner}: y has {target.shape[1]} targets, but had"
                f" {self.n_targets} before. Give as many, or fit anew."
            )
        self.is_1d = y.ndim == 1
        return target

    def learn(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn mean and scale."""
        # In units of the largest, for the square of 1e200 is no number.
        largest = np.abs(target).max(axis=0)
        unit = np.where(largest > 0, largest, 1.0)
        mean = np.average(target / unit, axis=0, weights=sample_weight)
        variance = np.average((target / unit - mean) ** 2, axis=0, weights=sample_weight)
        constant = np.sqrt(variance) <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        self.mean = mean * unit
        self.scale = np.where(constant, 1.0, np.sqrt(variance) * unit)

    def as_given(self, target: np.ndarray) -> np.ndarray:
        """Target as the user wrote it."""
        return target[:, 0] if self.is_1d else target

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        # The scale belongs to the weights of the net: a net that goes on keeps it.
        standardised = (target - self.mean) / self.scale
        return torch.as_tensor(standardised, dtype=torch.float32)

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Groups that a held-out part should hold in the same shares: values have none."""
        return None

    def criterion(self) -> nn.Module:
        """Loss of each row and target."""
        return row_loss(self.owner, self.loss, self.kind, self.params)

    def first_outputs(self) -> np.ndarray:
        """Outputs (n_outputs,) of a net that knows nothing of a row yet."""
        return np.zeros(self.n_outputs)

    def head(self, n_components: int, dropout: float) -> nn.Module | None:
        """Head of its own: none, for a linear map will do."""
        return None

    def answers(self, outputs: Tensor) -> Tensor:
        """Values that outputs mean, (n_samples, n_targets), with a gradient."""
        scale, mean = (
            torch.as_tensor(number, dtype=outputs.dtype, device=outputs.device)
            for number in (self.scale, self.mean)
        )
        return outputs * scale + mean

    def decide(self, outputs: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Values, the mean of the training target for rows that are ``empty``."""
        outputs[empty] = 0.0
        values = outputs * self.scale + self.mean
        return values[:, 0] if self.is_1d else values
