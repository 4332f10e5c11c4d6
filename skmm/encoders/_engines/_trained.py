"""Engine of a network that is trained here, with a head that is then dropped."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.multiclass import type_of_target
from torch import nn

from skmm._environment._device import on_device, one_thread, shared_threads
from skmm._environment._progress import Progress
from skmm.backbones import Backbone
from skmm.encoders._engines._base import BackboneEngine, Runtime
from skmm.exceptions import ConvergenceError

__all__ = ["LearningRate", "TrainedEngine", "train_backbone"]

LearningRate: TypeAlias = float | Literal["auto"]

Tensors = dict[str, torch.Tensor]

# What "auto" means for weights that are trained from scratch.
_LEARNING_RATE = 1e-3
# Early stopping, with the defaults of skmm.Trainer.
_VALIDATION_FRACTION = 0.1
_N_ITER_NO_CHANGE = 10
_FEWEST_TO_HOLD_OUT = 40


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


class _Supervision(NamedTuple):
    """What a network is trained to predict.

    Attributes
    ----------
    target : Tensor of shape (n_cells, ...)
        One value or vector per cell.
    n_outputs : int
        Width of the head.
    loss : callable
        From the head's outputs and rows of ``target`` to their mean loss.
    classes : ndarray of shape (n_cells,) or None
        Class of each cell, if the target is a class.
    """

    target: torch.Tensor
    n_outputs: int
    loss: Callable[..., torch.Tensor]
    classes: np.ndarray | None = None


def train_backbone(
    backbone: Backbone,
    tensors: Tensors,
    y: np.ndarray | None,
    *,
    max_epochs: int,
    learning_rate: LearningRate,
    batch_size: int,
    warmup: float,
    early_stopping: bool,
    device: torch.device,
    owner: str,
    verbose: bool | int,
    renew: Callable[[int], Tensors] | None = None,
) -> list[dict[str, float]]:
    """Train a network with a linear head, or to reconstruct its input without ``y``.

    Random numbers come from torch's current generators: the caller seeds them.

    Parameters
    ----------
    backbone : Backbone
        Trained in place.
    tensors : dict of str to Tensor
        Its inputs, one row per cell.
    y : ndarray of shape (n_cells,) or (n_cells, n_targets), or None
        Target.
    max_epochs, learning_rate, batch_size, warmup, early_stopping
        Parameters of the encoder.
    device : torch.device
        Where to train.
    owner : str
        Class of the encoder, for what ``verbose`` shows.
    verbose : bool or int
        Whether to report progress.
    renew : callable, default=None
        From a seed to inputs that replace ``tensors`` for one epoch of training.

    Returns
    -------
    history : list of dict
        ``epoch``, ``train_loss`` and, where cells are held out, ``valid_loss`` of every epoch.
    """
    backbone.to(device).train()
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    supervision = _supervision(backbone, tensors, y, device)
    network = _WithHead(backbone, supervision.n_outputs).to(device)
    rows, held_out = _split(len(supervision.target), supervision.classes, early_stopping)
    n_steps = -(-len(rows) // batch_size)
    optimizer, schedule = _optimizer(network, learning_rate, warmup * n_steps)
    best = _BestEpoch(backbone)
    history: list[dict[str, float]] = []
    progress = Progress(f"{owner}, training", max_epochs * len(rows), verbose)
    # A second thread would slow a small network down.
    with one_thread() if network.step_size is None else shared_threads(), progress:
        for epoch in range(1, max_epochs + 1):
            inputs = tensors
            if renew is not None:
                fresh = renew(int(torch.randint(2**31 - 1, ())))
                inputs = {name: tensor.to(device) for name, tensor in fresh.items()}
            total = torch.zeros((), device=device)
            # Of nearly one size: a last batch of one row is noise, and batch norms refuse it.
            for batch in rows[torch.randperm(len(rows))].to(device).tensor_split(n_steps):
                loss = network.loss(inputs, supervision, batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.detach() * len(batch)
                progress.advance(len(batch))
            history.append({"epoch": epoch, "train_loss": float(total) / len(rows)})
            _check_converges(history[-1], backbone, optimizer)
            if len(held_out):
                valid_loss = _valid_loss(network, tensors, supervision, held_out, batch_size)
                history[-1]["valid_loss"] = valid_loss
                if best.is_past(valid_loss):
                    break
    best.restore()
    backbone.eval()
    return history


class _WithHead(nn.Module):
    """A backbone and the linear head that it is trained with.

    Attributes
    ----------
    step_size : float or None
        Step size that suits pretrained weights of the backbone; None if it has none.
    """

    def __init__(self, backbone: Backbone, n_outputs: int):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.width, n_outputs)
        self.step_size: float | None = getattr(backbone, "step_size", None)

    def loss(self, tensors: Tensors, supervision: _Supervision, rows: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of some rows."""
        encoded = self.backbone(**{name: tensor[rows] for name, tensor in tensors.items()})
        return supervision.loss(self.head(encoded.pooled), supervision.target[rows])


def _optimizer(
    network: _WithHead, learning_rate: LearningRate, n_warmup_steps: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return Adam, and the schedule of its step sizes."""
    rate = _LEARNING_RATE if learning_rate == "auto" else learning_rate
    pretrained_rate = rate
    if learning_rate == "auto" and network.step_size is not None:
        pretrained_rate = network.step_size
    groups: list[dict[str, Any]] = [
        {"params": list(network.backbone.parameters()), "lr": pretrained_rate},
        {"params": list(network.head.parameters())},
    ]
    optimizer = torch.optim.Adam(groups, lr=rate)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / n_warmup_steps) if n_warmup_steps else 1.0

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _split(
    n: int, classes: np.ndarray | None, early_stopping: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows to train on and the rows to hold out."""
    if not early_stopping or n < _FEWEST_TO_HOLD_OUT:
        return torch.arange(n), torch.arange(0)
    n_held_out = math.ceil(n * _VALIDATION_FRACTION)
    if classes is not None:
        counts = np.unique(classes, return_counts=True)[1]
        if counts.min() < 2 or len(counts) > n_held_out:
            classes = None  # too few rows of some class to be in both parts
    seed = int(torch.randint(2**31 - 1, ()))
    parts = train_test_split(
        np.arange(n), test_size=n_held_out, stratify=classes, random_state=seed
    )
    return torch.from_numpy(parts[0]), torch.from_numpy(parts[1])


def _valid_loss(
    network: _WithHead,
    tensors: Tensors,
    supervision: _Supervision,
    held_out: torch.Tensor,
    batch_size: int,
) -> float:
    """Return the mean loss of the held-out rows, as in prediction."""
    network.eval()
    total = 0.0
    with torch.no_grad():
        rows = held_out.to(supervision.target.device)
        for batch in rows.tensor_split(-(-len(rows) // batch_size)):
            total += float(network.loss(tensors, supervision, batch)) * len(batch)
    network.train()
    return total / len(held_out)


class _BestEpoch:
    """Keeps the weights of the epoch with the lowest loss of the held-out rows.

    Parameters
    ----------
    network : nn.Module
        Network whose weights are kept.
    """

    def __init__(self, network: nn.Module):
        self.network = network
        self._loss = math.inf
        self._n_worse = 0
        self._saved: Tensors = {}

    def is_past(self, loss: float) -> bool:
        """Note the loss of an epoch; return whether training should stop."""
        if loss < self._loss:
            self._loss, self._n_worse = loss, 0
            self._saved = {name: t.detach().clone() for name, t in self._state().items()}
        else:
            self._n_worse += 1
        return self._n_worse >= _N_ITER_NO_CHANGE

    def restore(self) -> None:
        """Put the weights of the best epoch back, if there is one."""
        with torch.no_grad():
            for name, tensor in self._state().items():
                if name in self._saved:
                    tensor.copy_(self._saved[name])

    def _state(self) -> Tensors:
        # Not state_dict, which omits the buffers that a module does not save.
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}


def _check_converges(
    epoch: dict[str, float], backbone: Backbone, optimizer: torch.optim.Optimizer
) -> None:
    """Raise ConvergenceError if the loss of an epoch is infinite or NaN."""
    if not np.isfinite(epoch["train_loss"]):
        rate = optimizer.param_groups[0]["initial_lr"]
        raise ConvergenceError(
            f"Training {type(backbone).__name__} gave a loss of {epoch['train_loss']} in epoch"
            f" {epoch['epoch']}. Lower learning_rate, now {rate:g}."
        )


def _supervision(
    backbone: Backbone, tensors: Tensors, y: np.ndarray | None, device: torch.device
) -> _Supervision:
    """Return what to predict, by the kind of target."""
    if y is None:
        with torch.no_grad():
            target = backbone.reconstruction_target(**tensors)
        return _Supervision(target, target.shape[1], nn.functional.mse_loss)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.ravel()
    if _is_classes(y):
        labels = LabelEncoder().fit_transform(y)
        target = torch.as_tensor(labels, dtype=torch.int64, device=device)
        n_classes = int(labels.max()) + 1
        return _Supervision(target, n_classes, nn.functional.cross_entropy, labels)
    if type_of_target(y) == "multilabel-indicator":
        target = torch.as_tensor(y, dtype=torch.float32, device=device)
        loss = nn.functional.binary_cross_entropy_with_logits
        return _Supervision(target, y.shape[1], loss)
    values = y.reshape(len(y), -1).astype(np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    target = torch.as_tensor(values, dtype=torch.float32, device=device)
    return _Supervision(target, values.shape[1], nn.functional.mse_loss)


def _is_classes(y: np.ndarray) -> bool:
    """Whether ``y`` names classes; whole numbers that rarely repeat are quantities."""
    if type_of_target(y) not in ("binary", "multiclass"):
        return False
    return y.dtype.kind not in "fiu" or len(np.unique(y)) <= max(20, len(y) // 10)
