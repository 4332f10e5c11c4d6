"""The skorch net that a trainer builds around a module; no other file imports skorch."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from skmm._compose._callbacks import TaskReporter
from skmm._training._balance import NETWORKS, Balance
from skmm._training._batches import Batch, BatchIterator, TensorDataset
from skmm.exceptions import ConvergenceError

__all__ = ["Callback", "JointNet", "NeuralNet", "Report", "make_net"]


class JointNet(NeuralNet):
    """Train a module with skorch; the loss is the mean over rows, which may have weights.

    Parameters
    ----------
    *args : object
        Of ``NeuralNet``.
    rows_at_once : int or None, default=None
        Rows of a step that go through the module together; their gradients are added up.
    max_grad_norm : float or None, default=None
        Norm to which longer gradients are clipped.
    half : bool, default=False
        Whether matrix products are computed in bfloat16.
    **kwargs : object
        Of ``NeuralNet``.
    """

    _stopped_by_callback = _interrupted = False

    def __init__(
        self,
        *args: Any,
        rows_at_once: int | None = None,
        max_grad_norm: float | None = None,
        half: bool = False,
        **kwargs: Any,
    ):
        self.rows_at_once = rows_at_once
        self.max_grad_norm = max_grad_norm
        self.half = half
        super().__init__(*args, **kwargs)

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: TensorDataset | None = None, **kwargs: Any
    ) -> None:
        """Update the inputs that change from epoch to epoch."""
        super().on_epoch_begin(net, dataset_train=dataset_train, **kwargs)
        if dataset_train is not None:
            dataset_train.begin_epoch()

    def train_step_single(
        self, batch: tuple[Batch, Tensor], **fit_params: Any
    ) -> dict[str, Tensor]:
        """Compute the gradient of a step, part by part.

        Parameters
        ----------
        batch : (Batch, Tensor)
            Inputs and target.
        **fit_params : dict
            Not used.

        Returns
        -------
        step : dict
            ``loss`` and ``y_pred``.
        """
        if not (self.module_.training and self.criterion_.training):
            self._set_training(True)  # visits all layers, which is slow for a small net
        inputs, target = batch
        n = len(target)
        outputs, losses = [], []
        for start in range(0, n, self.rows_at_once or n):
            rows = slice(start, start + (self.rows_at_once or n))
            part, truth = inputs.rows(rows), target[rows]
            outputs.append(self.infer(part))
            loss = self.get_loss(outputs[-1], truth, X=part, training=True)
            if len(truth) < n:
                loss = loss * (len(truth) / n)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            losses.append(loss.detach())
        balance = self._balance()
        if balance is not None and balance.modulates:
            balance.shorten(self.optimizer_.param_groups)
        if self.max_grad_norm is not None:
            clip_grad_norm_(self.module_.parameters(), self.max_grad_norm)
        if len(losses) == 1:
            return {"loss": losses[0], "y_pred": outputs[0]}
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(outputs)}

    def train_step(self, batch: tuple[Batch, Tensor], **fit_params: Any) -> dict[str, Tensor]:
        """Take a step, which a balance shortens for the leading modality."""
        if self._balance() is None:
            return super().train_step(batch, **fit_params)
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        try:
            return super().train_step(batch, **fit_params)
        finally:  # `Balance.shorten` holds for a step
            for group, rate in zip(self.optimizer_.param_groups, rates, strict=True):
                group["lr"] = rate

    def _balance(self) -> Balance | None:
        """Return what balances the modalities, None without a balance."""
        balance: Balance | None = getattr(self.module_, "balance", None)
        return balance

    def infer(self, x: Batch, **fit_params: Any) -> Tensor:
        """Run the module.

        Parameters
        ----------
        x : Batch
            Inputs, on the device.
        **fit_params : dict
            Not used.

        Returns
        -------
        outputs : Tensor
            In full precision.
        """
        outputs: Tensor
        if not self.half:
            outputs = self.module_(x)
            return outputs
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16):
            outputs = self.module_(x)
        return outputs.float()

    def get_loss(
        self, y_pred: Tensor, y_true: Tensor, X: Batch | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the mean loss of a batch.

        Parameters
        ----------
        y_pred : Tensor of shape (n_rows, n_outputs)
            Output of the module.
        y_true : Tensor of shape (n_rows,) or (n_rows, n_outputs)
            Target.
        X : Batch
            May hold weights of the rows.
        *args, **kwargs : object
            What skorch passes besides.

        Returns
        -------
        loss : Tensor of shape ()
            Mean.
        """
        losses: Tensor = self.criterion_(y_pred, y_true)
        if losses.ndim > 1:
            losses = losses.mean(dim=1)
        if self.module_.training and hasattr(self.module_, "take_auxiliary"):
            auxiliary = self.module_.take_auxiliary()
            losses = losses if auxiliary is None else losses + auxiliary
        weight = None if X is None else X.sample_weight
        balance = self._balance()
        if self.module_.training and balance is not None:
            auxiliary = balance.losses(self.criterion_, y_true, weight)
            losses = losses if auxiliary is None else losses + auxiliary
        # Not divided by the weights of the batch: a heavy row would then count less in a
        # batch with other heavy rows.
        return losses.mean() if weight is None else (losses * weight).mean()

    def train(self, dataset: TensorDataset) -> None:
        """Train for ``max_epochs``, or until a callback stops the training.

        Parameters
        ----------
        dataset : TensorDataset
            Training rows.
        """
        self._stopped_by_callback = self._interrupted = False
        self.module_.to(self.device)  # pickling has moved it to the CPU
        self.partial_fit(dataset)
        if self.train_split is None and not self._interrupted:
            # The loss of an epoch is measured before its steps, so a last step that diverges
            # shows in none; held-out rows are evaluated after the steps.
            batch = dataset[: self.batch_size]
            refuse_divergence(self, float(self.validation_step(batch)["loss"]))
        # Gradients and held-out rows are no longer needed.
        self.optimizer_.zero_grad()
        self.train_split = None
        if self._interrupted:
            raise KeyboardInterrupt("Training interrupted by the user.")

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks, which stop a training by an interrupt.

        Parameters
        ----------
        method_name : str
            Event.
        **cb_kwargs : dict
            What the callbacks get.
        """
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            self._stopped_by_callback = True
            raise

    def fit_loop(
        self, X: TensorDataset, y: None = None, epochs: int | None = None, **fit_params: Any
    ) -> Self:
        """Train, and record whether an interrupt came from the keyboard or from a callback.

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
    callbacks: Sequence[object],
    device: torch.device,
    verbose: bool | int,
    accumulate: int = 1,
    encoder_learning_rates: Sequence[float | None] = (),
    warmup: float = 0.0,
    max_grad_norm: float | None = None,
    half: bool = False,
) -> JointNet:
    """Build the net that trains a module.

    Parameters
    ----------
    module : nn.Module
        Untrained; trained in place.
    criterion : nn.Module
        Loss of each row.
    valid : TensorDataset or None
        Held-out rows of early stopping; None trains for all epochs.
    max_epochs, batch_size, learning_rate, weight_decay, n_iter_no_change : number
        As in :class:`Trainer`.
    callbacks : sequence of skorch callbacks
        Added to the built-in ones.
    device : torch.device
        Device of the data.
    verbose : bool or int
        Whether skorch prints a line for each epoch.
    accumulate, warmup, max_grad_norm : number
        As in :class:`Trainer`.
    encoder_learning_rates : sequence of float or None, default=()
        Step size of each of the module's encoders; None is that of the rest.
    half : bool, default=False
        Whether matrix products are computed in bfloat16.

    Returns
    -------
    net : JointNet
        Initialized.
    """
    # Names that are not those of user callbacks.
    own: list[Any] = [("skmm_stop_at_nan", StopAtNaN())]
    if valid is not None:
        stopping = EarlyStopping(patience=n_iter_no_change, load_best=True, sink=_silent)
        own.append(("skmm_early_stopping", stopping))
    if warmup:
        own.append(("skmm_warmup", Warmup(warmup)))
    net = JointNet(
        module,
        rows_at_once=batch_size if accumulate > 1 else None,
        max_grad_norm=max_grad_norm,
        half=half,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=weight_decay,
        optimizer__param_groups=parameter_groups(module, encoder_learning_rates, learning_rate),
        # One fused step over all weights: fewer, larger operations, on every device.
        optimizer__fused=True,
        lr=learning_rate,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train=BatchIterator,
        iterator_train__shuffle=True,
        iterator_train__batch_size=batch_size * accumulate,
        iterator_valid=BatchIterator,
        iterator_valid__batch_size=getattr(module, "rows_at_once", 4096),
        train_split=None if valid is None else predefined_split(valid),
        callbacks=[*own, *callbacks],
        device=device,
        verbose=int(bool(verbose)),
    )
    if not verbose:
        net.set_params(callbacks__print_log=None)
    return net.initialize()


def _silent(_: str) -> None:
    """Discard a message of early stopping."""


def refuse_divergence(net: NeuralNet, loss: float) -> None:
    """Raise if a loss of the last epoch is not finite."""
    if not np.isfinite(loss):
        raise ConvergenceError(
            f"Training diverged: the loss is {loss} in epoch {len(net.history)}. Use a"
            f" learning_rate below {net.lr}, or remove extreme values from the features."
        )


class StopAtNaN(Callback):
    """Stop a training that has diverged."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Raise if the loss of the epoch is not finite."""
        for name in ("train_loss", "valid_loss"):
            refuse_divergence(net, net.history[-1].get(name, 0.0))


class Warmup(Callback):
    """Increase the step sizes linearly from 0 to their values.

    Parameters
    ----------
    n_epochs : float
        Number of epochs of the warm-up.
    """

    def __init__(self, n_epochs: float):
        self.n_epochs = n_epochs

    def initialize(self) -> "Warmup":
        """Begin at the first step."""
        self.epochs_ = 0.0
        self.rates_: list[float] | None = None
        return self

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: TensorDataset | None = None, **kwargs: Any
    ) -> None:
        """Compute the fraction of an epoch that a step is."""
        iterator = net.get_iterator(dataset_train, training=True)
        self.share_ = 1.0 / max(len(iterator), 1)

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Set the step sizes; after the warm-up they no longer change."""
        if not training or self.epochs_ >= self.n_epochs:
            return
        groups = net.optimizer_.param_groups
        self.rates_ = self.rates_ or [group["lr"] for group in groups]
        self.epochs_ += self.share_
        # Rounding must not leave the last step a little short.
        factor = min(1.0, (self.epochs_ + 1e-9) / self.n_epochs)
        for group, rate in zip(groups, self.rates_, strict=True):
            group["lr"] = rate * factor


class Report(Callback):
    """Report every epoch to scikit-learn's callbacks, and stop the training if one requests it.

    Parameters
    ----------
    reporter : TaskReporter
        Reporter of the running ``fit``.
    """

    def __init__(self, reporter: TaskReporter):
        self.reporter = reporter

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Report that an epoch begins."""
        self.reporter.begin()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Report that an epoch has ended."""
        if self.reporter.end(usable=True):
            raise KeyboardInterrupt  # how skorch's callbacks stop a training


def parameter_groups(
    module: nn.Module, encoder_rates: Sequence[float | None], learning_rate: float
) -> list[tuple[str, dict[str, Any]]]:
    """Return patterns of parameter names, each with its step size and its modality."""
    rates = {f"{NETWORKS}.{i}.*": rate for i, rate in enumerate(encoder_rates) if rate is not None}
    balance = getattr(module, "balance", None)
    if balance is None or not balance.modulates:
        return [(pattern, {"lr": rate}) for pattern, rate in rates.items()]
    return [
        (pattern, {"lr": rates.get(pattern, learning_rate), "modality": name})
        for name, patterns in balance.own.items()
        for pattern in patterns
    ]
