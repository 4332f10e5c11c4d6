"""Features that a canonical correlation analysis takes in place of a modality's own."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem

from skmm._environment._device import on_device, one_thread, resolve_device, seeded
from skmm._training._net import TensorDataset, make_net
from skmm.nets import CorrelationLoss, CorrelationNet

__all__ = ["KernelMap", "NetworkMap", "as_given"]


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

    def __init__(self, kernel: str, n_landmarks: int, seed: int, **params: Any):
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
        return self._nystroem.transform(values.astype(np.float64)).astype(np.float64)


class NetworkMap:
    """Outputs of a modality's network.

    Parameters
    ----------
    network : nn.Module
        Trained.
    device : str
        Where it computes.
    """

    def __init__(self, network: torch.nn.Module, device: str):
        self.network = network
        self.device = device

    @classmethod
    def train(
        cls,
        blocks: Mapping[str, np.ndarray],
        present: Mapping[str, np.ndarray],
        n_outputs: int,
        *,
        hidden_sizes: tuple[int, ...],
        dropout: float,
        max_epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        device: str,
        seed: int,
    ) -> dict[str, Any]:
        """Train the networks of all modalities together; returns a map for each.

        Parameters
        ----------
        blocks, present : dict of str to ndarray
            As ``_fit_blocks`` gets them.
        n_outputs : int
            Outputs of each network.
        hidden_sizes, dropout, max_epochs, batch_size, learning_rate, weight_decay : object
            As in :class:`CCAAlignment`.
        device : str
            As in :class:`CCAAlignment`.
        seed : int
            Draws weights and the order of rows.
        """
        place = resolve_device(device)
        mask = np.column_stack(list(present.values()))
        rows = np.flatnonzero(mask.sum(axis=1) >= 2)
        tensors = {"present": torch.from_numpy(mask[rows]).to(place)}
        for i, values in enumerate(blocks.values()):
            tensors[f"values_{i}"] = torch.from_numpy(values[rows]).to(place)
        # Of equal size: the correlation of a small last batch would be noise.
        n_batches = -(-len(rows) // batch_size)
        with seeded(seed), one_thread():
            module = CorrelationNet(
                [values.shape[1] for values in blocks.values()],
                n_outputs,
                hidden_sizes=hidden_sizes,
                dropout=dropout,
            )
            net = make_net(
                module,
                CorrelationLoss(n_outputs),
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
            name: cls(network, device)
            for name, network in zip(blocks, module.networks, strict=True)
        }

    def __call__(self, values: np.ndarray) -> np.ndarray:
        on_device(self.network, resolve_device(self.device))
        place = next(self.network.parameters()).device  # of several GPUs, the same one
        with one_thread(), torch.inference_mode():
            outputs = self.network(torch.from_numpy(values).to(place))
        return outputs.cpu().numpy().astype(np.float64)

    def __getstate__(self) -> dict[str, Any]:
        self.network.cpu()  # the pickle opens on a machine without the GPU
        return dict(self.__dict__)
