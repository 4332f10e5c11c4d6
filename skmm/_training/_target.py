"""What a network is trained to give, and what its outputs mean."""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

__all__ = ["Target"]


class Target(ABC):
    """Base of the targets: classes, labels, values, several tasks, texts, series, images.

    A target checks and encodes what the user gives as ``y`` into an array with an entry for each
    row, in ways of its own, and knows from then on

    - ``tensor(encoded)``, what the loss takes;
    - ``criterion()``, the loss of each row;
    - ``strata(encoded)``, groups of which a held-out part should have its share.
    """

    @abstractmethod
    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as the loss takes it, first axis ``n_rows``."""

    @abstractmethod
    def criterion(self) -> nn.Module:
        """Return the loss of each row."""

    def strata(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the group of each row, (n_rows,); None where rows fall into no groups."""
        return None
