"""Features that a canonical correlation analysis takes in place of a modality's own.

Each is a map from features (n_rows, n_features) to others, float64, that can be pickled: of a
kernel, or of a trained network.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem
from torch import Tensor, nn

from skmm._environment._device import on_device, one_thread, resolve_device
from skmm._training._net import TensorDataset, make_net
from skmm.nets import CorrelationLoss, CorrelationNet, GivenLoss

__all__ = [
    "DeepCCAModule",
    "FeatureMap",
    "KernelMap",
    "NetworkMap",
    "as_given",
    "train_networks",
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

    def forward(self, present: Tensor, **values: Tensor) -> Tensor:
        """Return the loss of the batch, for each of its rows, (n_rows,).

        Parameters
        ----------
        present : BoolTensor of shape (n_rows, n_modalities)
            True where the row has the modality.
        **values : Tensor of shape (n_rows, n_features)
            ``values_0``, ``values_1`` and so on, as the networks take them.
        """
        loss: Tensor = self.loss(self.net(present, **values), None)
        return loss.expand(len(present))


def train_networks(
    module: DeepCCAModule,
    blocks: Mapping[str, np.ndarray],
    present: Mapping[str, np.ndarray],
    *,
    max_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    device: str,
) -> dict[str, NetworkMap]:
    """Train the networks of all modalities together; returns a map for each.

    Parameters
    ----------
    module : DeepCCAModule
        Untrained; trained in place.
    blocks, present : dict of str to ndarray
        As ``_fit_blocks`` gets them.
    max_epochs, batch_size, learning_rate, weight_decay, device : object
        As in :class:`CCAAlignment`.

    Returns
    -------
    maps : dict of str to NetworkMap
        By modality.
    """
    place = resolve_device(device)
    mask = np.column_stack(list(present.values()))
    rows = np.flatnonzero(mask.sum(axis=1) >= 2)
    tensors = {"present": torch.from_numpy(mask[rows]).to(place)}
    for i, values in enumerate(blocks.values()):
        tensors[f"values_{i}"] = torch.from_numpy(values[rows]).to(place)
    # Of equal size: the correlation of a small last batch would be noise.
    n_batches = -(-len(rows) // batch_size)
    net = make_net(
        module,
        GivenLoss(),
        valid=None,
        max_epochs=max_epochs,
        batch_size=-(-len(rows) // n_batches),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        n_iter_no_change=1,
        callbacks=[],
        device=place,
        verbose=0,
    )
    net.train(TensorDataset(tensors, torch.zeros(len(rows), device=place)))
    module.eval().cpu()
    return {
        name: NetworkMap(network, device)
        for name, network in zip(blocks, module.net.networks, strict=True)
    }
