"""Features that a canonical correlation analysis takes in place of a modality's own.

Each is a map from features (n_rows, n_features) to others, float64, that can be pickled: of a
kernel, or of a trained network.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem
from torch import Tensor, nn

from skmm._environment._device import on_device, one_thread, resolve_device
from skmm._training._batches import Batch
from skmm.alignment._blocks import unpacked
from skmm.nets import CorrelationLoss, CorrelationNet

__all__ = [
    "DeepCCAModule",
    "FeatureMap",
    "KernelMap",
    "NetworkMap",
    "as_given",
]

FeatureMap: TypeAlias = Callable[[np.ndarray], np.ndarray]


def as_given(values: np.ndarray) -> np.ndarray:
    """Features as they are, float64."""
    return values.astype(np.float64)


class KernelMap:
    """Features whose inner products are a kernel, on the span of some rows.

    Parameters
    ----------
    kernel : str
        Name of scikit-learn's.
    n_landmarks : int
        Rows that span them, at most.
    seed : int
        Draws these rows.
    **params : float or None
        Parameters of the kernel.
    """

    def __init__(self, kernel: str, n_landmarks: int, seed: int, **params: float | None):
        self.n_landmarks = n_landmarks
        # Arrays, whatever scikit-learn is configured to give.
        self._nystroem = Nystroem(kernel, random_state=seed, **params).set_output(
            transform="default"
        )

    def fit(self, values: np.ndarray) -> Self:
        """Choose the landmarks among these rows."""
        self._nystroem.set_params(n_components=min(self.n_landmarks, len(values)))
        # Only landmarks are looked at, so the rest is not brought to float64.
        self._nystroem.fit(values)
        return self

    def __call__(self, values: np.ndarray) -> np.ndarray:
        features: np.ndarray = self._nystroem.transform(values.astype(np.float64))
        return features.astype(np.float64)


class NetworkMap:
    """Outputs of a modality's network.

    Parameters
    ----------
    network : nn.Module
        Trained.
    device : str
        Where it computes.
    """

    def __init__(self, network: nn.Module, device: str):
        self.network = network
        self.device = device

    def __call__(self, values: np.ndarray) -> np.ndarray:
        on_device(self.network, resolve_device(self.device))
        place = next(self.network.parameters()).device  # of several GPUs, the same one
        with one_thread(), torch.inference_mode():
            outputs: Tensor = self.network(torch.from_numpy(values).to(place))
        return outputs.cpu().numpy().astype(np.float64)

    def __getstate__(self) -> dict[str, Any]:
        self.network.cpu()  # the pickle opens on a machine without the GPU
        return dict(self.__dict__)


class DeepCCAModule(nn.Module):
    """A network for each modality, and how badly their outputs correlate.

    Parameters
    ----------
    n_features : sequence of int
        Length of the vectors of each modality.
    n_components : int
        Length of the outputs.
    hidden_sizes : sequence of int
        Hidden layers of each network.
    dropout : float
        Share of the hidden units that is zeroed in training.
    """

    def __init__(
        self,
        n_features: Sequence[int],
        n_components: int,
        *,
        hidden_sizes: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.net = CorrelationNet(
            n_features, n_components, hidden_sizes=hidden_sizes, dropout=dropout
        )
        self.loss = CorrelationLoss(n_components)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of the batch, for each of its rows, (n_rows,)."""
        present, values = unpacked(batch)
        outputs, present = self.net(present, **values)
        # Covariances are inverted, for which the precision of bfloat16 is too low.
        with torch.autocast(outputs.device.type, enabled=False):
            loss: Tensor = self.loss((outputs.float(), present), None)
        return loss.expand(len(present))
