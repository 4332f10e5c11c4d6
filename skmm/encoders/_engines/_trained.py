"""Engine over a network that is trained here, with a head that is then dropped."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.multiclass import type_of_target
from torch import nn

from skmm._environment._device import on_device, one_thread, shared_threads
from skmm._environment._progress import Progress
from skmm.backbones import Backbone
from skmm.encoders._engines._base import BackboneEngine, Runtime
from skmm.exceptions import ConvergenceError

__all__ = ["TrainedEngine", "train_backbone"]

Tensors = dict[str, torch.Tensor]


class TrainedEngine(BackboneEngine):
    """A small network and its learned weights.

    Parameters
    ----------
    backbone : Backbone
        Untrained network.
    """

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.n_outputs = backbone.width

    def backbone_on(self, runtime: Runtime) -> Backbone:
        backbone: Backbone = on_device(self.backbone, runtime.device)
        return backbone

    def run(self, prepared: Tensors, runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        runtime = runtime._replace(dtype=torch.float32)  # as it was trained
        return super().run(prepared, runtime, sequence=sequence)

    def __getstate__(self) -> dict[str, Any]:
        # On the CPU, so that the pickle opens on a machine without the GPU.
        self.backbone.cpu()
        return self.__dict__


def train_backbone(
    backbone: Backbone,
    tensors: Tensors,
    y: np.ndarray | None,
    *,
    max_epochs: int,
    learning_rate: float,
    batch_size: int,
    device: torch.device,
    owner: str,
    verbose: bool | int,
    renew: Callable[[int], Tensors] | None = None,
) -> list[float]:
    """Train a network with a linear head on top, or to reproduce its input without ``y``.

    Draws from torch's current generators: the caller seeds them.

    Parameters
    ----------
    backbone : Backbone
        Trained in place.
    tensors : dict of str to Tensor
        Its inputs, a row a cell.
    y : ndarray of shape (n_cells,) or None
        Target.
    max_epochs, learning_rate, batch_size : int, float, int
        As in the encoders.
    device : torch.device
        Where to train.
    owner : str
        The encoder's class, for what ``verbose`` shows.
    verbose : bool or int
        Whether to report progress.
    renew : callable or None, default=None
        From a seed to inputs that are used for one epoch in place of ``tensors``.

    Returns
    -------
    losses : list of float
        Mean loss of every epoch.
    """
    backbone.to(device).train()
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    n = len(next(iter(tensors.values())))
    target, n_outputs, loss_of = _supervision(backbone, tensors, y, device)
    head = nn.Linear(backbone.width, n_outputs).to(device)
    parameters = [*backbone.parameters(), *head.parameters()]
    own = getattr(backbone, "step_size", None)  # of weights that know something already
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if own is not None:
        groups = [{"params": parameters[:-2], "lr": own}, {"params": parameters[-2:]}]
    optimizer = torch.optim.Adam(groups, lr=learning_rate)
    losses = []
    progress = Progress(f"{owner}, training", max_epochs * n, verbose)
    # A second thread costs a small network more than it gives.
    with one_thread() if own is None else shared_threads(), progress:
        for _ in range(max_epochs):
            if renew is not None:
                fresh = renew(int(torch.randint(2**31 - 1, ())))
                tensors = {name: tensor.to(device) for name, tensor in fresh.items()}
            total = torch.zeros((), device=device)
            # Of nearly one size: a last batch of one row is noise, and batch norms refuse it.
            for rows in torch.randperm(n).to(device).tensor_split(-(-n // batch_size)):
                encoded = backbone(**{name: t[rows] for name, t in tensors.items()})
                loss = loss_of(head(encoded.pooled), target[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                total += loss.detach() * len(rows)
                progress.advance(len(rows))
            losses.append(float(total) / n)
            if not np.isfinite(losses[-1]):
                raise ConvergenceError(
                    f"Training {type(backbone).__name__} gave a loss of {losses[-1]} in epoch"
                    f" {len(losses)}. Lower learning_rate, now {learning_rate}."
                )
    backbone.eval()
    return losses


def _supervision(
    backbone: Backbone, tensors: Tensors, y: np.ndarray | None, device: torch.device
) -> tuple[torch.Tensor, int, Callable[..., torch.Tensor]]:
    """Target, width of the head and loss, by what kind of target there is."""
    if y is None:
        with torch.no_grad():
            target = backbone.reconstruction_target(**tensors)
        return target, target.shape[1], nn.functional.mse_loss
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.ravel()
    if _is_classes(y):
        labels = LabelEncoder().fit_transform(y)
        target = torch.as_tensor(labels, dtype=torch.int64, device=device)
        return target, int(labels.max()) + 1, nn.functional.cross_entropy
    if type_of_target(y) == "multilabel-indicator":
        target = torch.as_tensor(y, dtype=torch.float32, device=device)
        return target, y.shape[1], nn.functional.binary_cross_entropy_with_logits
    values = y.reshape(len(y), -1).astype(np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    target = torch.as_tensor(values, dtype=torch.float32, device=device)
    return target, values.shape[1], nn.functional.mse_loss


def _is_classes(y: np.ndarray) -> bool:
    """Whether ``y`` names classes; whole numbers that hardly repeat are quantities."""
    if type_of_target(y) not in ("binary", "multiclass"):
        return False
    return y.dtype.kind not in "fiu" or len(np.unique(y)) <= max(20, len(y) // 10)
