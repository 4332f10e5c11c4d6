"""The only file that imports skorch: how a joint net is trained.

Data are tensors on the device before training starts and are cut into batches there; a
``DataLoader`` that collates sample by sample would cost about as much as the training.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from torch import Tensor
from torch.utils.data import Dataset

from skmm.exceptions import ConvergenceError

__all__ = ["SAMPLE_WEIGHT", "JointNet", "TensorDataset", "make_net"]

# Beside the modalities' tensors in a batch; no modality can have this name.
SAMPLE_WEIGHT = "|sample_weight"


class TensorDataset(Dataset):
    """Tensors of all rows; a batch is gathered at once, by an index tensor.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        First axis ``n_samples``.
    target : Tensor
        First axis ``n_samples``.
    """

    def __init__(self, inputs: Mapping[str, Tensor], target: Tensor):
        self.inputs = dict(inputs)
        self.target = target

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: Any) -> tuple[dict[str, Tensor], Tensor]:
        return {name: tensor[rows] for name, tensor in self.inputs.items()}, self.target[rows]


class BatchIterator:
    """Stands where skorch expects a ``DataLoader``.

    Parameters
    ----------
    dataset : TensorDataset
        Data.
    batch_size : int
        Rows per batch.
    shuffle : bool, default=False
        Whether to draw a new order for every pass.
    """

    def __init__(self, dataset: TensorDataset, batch_size: int, shuffle: bool = False, **_: Any):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        n = len(self.dataset)
        if not self.shuffle:
            for start in range(0, n, self.batch_size):
                yield self.dataset[start : start + self.batch_size]
            return
        # Drawn on the CPU, so that the order is the same on every device.
        order = torch.randperm(n).to(self.dataset.target.device)
        for rows in order.split(self.batch_size):
            yield self.dataset[rows]


class JointNet(NeuralNet):
    """A skorch net whose loss is a mean over rows, weighted where rows have weights."""

    _stopped_by_callback = _interrupted = False

    def get_loss(
        self, y_pred: Tensor, y_true: Tensor, X: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the mean loss of a batch.

        Parameters
        ----------
        y_pred : Tensor of shape (n_rows, n_outputs)
            Output of the module.
        y_true : Tensor of shape (n_rows,) or (n_rows, n_outputs)
            Target.
        X : dict of str to Tensor
            Batch; may hold weights of the rows.
        *args, **kwargs : object
            What skorch passes besides.

        Returns
        -------
        loss : Tensor of shape ()
            Mean.
        """
        losses = self.criterion_(y_pred, y_true)
        if losses.ndim > 1:
            losses = losses.mean(dim=1)
        weight = X.get(SAMPLE_WEIGHT)
        # Not divided by the weights of the batch: a heavy row would then count less in a
        # batch with other heavy rows.
        return losses.mean() if weight is None else (losses * weight).mean()

    def train(self, dataset: TensorDataset) -> None:
        """Train for ``max_epochs``, or until a callback says stop.

        Parameters
        ----------
        dataset : TensorDataset
            Training rows.
        """
        self._stopped_by_callback = self._interrupted = False
        self.partial_fit(dataset)
        # Neither gradients nor the held-out rows are of any more use.
        self.optimizer_.zero_grad()
        self.train_split = None
        if self._interrupted:
            raise KeyboardInterrupt("Training interrupted by the user.")

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks; they end a training by an interrupt.

        Parameters
        ----------
        method_name : str
            Event.
        **cb_kwargs : dict
            What the callbacks are told.
        """
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            self._stopped_by_callback = True
            raise

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any) -> Self:
        """Train; skorch takes every interrupt for the end, one from the keyboard is none.

        Parameters
        ----------
        X : TensorDataset
            Training rows.
        y : None
            Not used.
        epochs : int, default=None
            None is ``max_epochs``.
        **fit_params : dict
            Not used.

        Returns
        -------
        self : JointNet
            This net.
        """
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt:
            self._interrupted = not self._stopped_by_callback
            raise


class StopAtNaN(Callback):
    """Ends a training that has diverged, instead of going on for all epochs."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Raise if the loss is not a number."""
        loss = net.history[-1]["train_loss"]
        if not np.isfinite(loss):
            raise ConvergenceError(
                f"Training gave a loss of {loss} in epoch {len(net.history)}. Lower learning_rate,"
                f" now {net.lr}, or look for extreme values in the features."
            )


class Report(Callback):
    """Tells scikit-learn's callbacks of every epoch, and ends the training if one says so.

    Parameters
    ----------
    reporter : TaskReporter
        Of the ``fit`` that runs.
    """

    def __init__(self, reporter: Any):
        self.reporter = reporter

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Tell that an epoch begins."""
        self.reporter.begin()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Tell that an epoch has ended."""
        if self.reporter.end(usable=True):
            raise KeyboardInterrupt  # how skorch's callbacks end a training


def make_net(
    module: torch.nn.Module,
    criterion: torch.nn.Module,
    *,
    valid: TensorDataset | None,
    max_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    n_iter_no_change: int,
    callbacks: Any,
    device: torch.device,
    verbose: Any,
) -> JointNet:
    """Build the net that trains a joint fusion.

    Parameters
    ----------
    module : nn.Module
        Untrained; trained in place.
    criterion : nn.Module
        Loss of each row.
    valid : TensorDataset or None
        Rows on which early stopping looks; None trains for all epochs.
    max_epochs, batch_size, learning_rate, weight_decay, n_iter_no_change : number
        As in the joint fusions.
    callbacks : list of skorch callbacks
        Added to ours.
    device : torch.device
        Where the data are.
    verbose : int
        Whether skorch prints a line an epoch.

    Returns
    -------
    net : JointNet
        Initialised.
    """
    # Names that no callback of the user's will have.
    own: list[Any] = [("skmm_stop_at_nan", StopAtNaN())]
    if valid is not None:
        stopping = EarlyStopping(patience=n_iter_no_change, load_best=True, sink=_silent)
        own.append(("skmm_early_stopping", stopping))
    net = JointNet(
        module,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=weight_decay,
        # One fused step over all weights: fewer, larger operations, on every device.
        optimizer__fused=True,
        lr=learning_rate,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train=BatchIterator,
        iterator_train__shuffle=True,
        iterator_valid=BatchIterator,
        iterator_valid__batch_size=4096,
        train_split=None if valid is None else predefined_split(valid),
        callbacks=[*own, *callbacks],
        device=device,
        verbose=int(bool(verbose)),
    )
    if not verbose:
        net.set_params(callbacks__print_log=None)
    return net.initialize()


def _silent(_: str) -> None:
    """Take a message of early stopping and say nothing."""
