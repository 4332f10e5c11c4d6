"""Training of the networks of joint fusions, alignments and generators."""

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from torch import nn

from skmm._compose._callbacks import TaskReporter
from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE_INT,
    POSITIVE_REAL,
    RANDOM_STATE,
    VERBOSE,
    RandomState,
    StrOptions,
    refuse_unused,
)
from skmm._environment._device import (
    lies_on,
    one_thread,
    resolve_device,
    resolve_dtype,
    shared_threads,
)
from skmm._training._batches import TensorDataset
from skmm._training._net import JointNet, Report, make_net

__all__ = [
    "FEWEST_TO_HOLD_OUT",
    "TrainedNetworkMixin",
    "Trainer",
    "TrainingDefaults",
    "threads_for",
]

# With fewer rows a held-out part is too small to be informative: training runs all epochs.
FEWEST_TO_HOLD_OUT = 40

Auto: TypeAlias = Literal["auto"]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class TrainingDefaults:
    """What ``"auto"`` of a :class:`Trainer` means for one kind of estimator.

    The table of all of them, each with its reason, is in the docstring of :class:`Trainer`.
    """

    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    max_grad_norm: float | None = None
    early_stopping: bool = True


class Trainer(BaseEstimator):
    """Options of the training of a network, for every estimator that trains one.

    The optimizer is AdamW [1]_. A fraction of the rows is held out, and training stops when their
    loss no longer decreases, with the weights of the best epoch. Training runs in skorch and
    accepts its callbacks. An estimator with ``trainer=None`` uses ``Trainer()``, and a search
    sets its parameters by names such as ``trainer__learning_rate``.

    Parameters
    ----------
    max_epochs : int, default=100
        Maximum number of passes over the training rows. ``max_epochs`` of the estimator
        overrides it.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW.
    encoder_learning_rate : float or "auto", default="auto"
        Step size of the encoders that are trained with the network. ``"auto"`` is, for
        pretrained ones, 5e-5 for the last blocks, 2e-5 for all and 2e-4 for adapters; from
        scratch it is that of the network. It has no effect on frozen encoders.
    batch_size : int or "auto", default="auto"
        Number of rows in a batch.
    accumulate : int, default=1
        Number of batches whose gradients are summed for one step. A step then covers
        ``accumulate * batch_size`` rows and needs the memory of one batch. Estimators whose loss
        compares the rows of a batch do not support it.
    warmup : float, default=0
        Number of epochs, such as 1 or 0.5, in which all step sizes grow linearly from 0.
    weight_decay : float or "auto", default="auto"
        Decoupled weight decay of AdamW.
    max_grad_norm : float, None or "auto", default="auto"
        Norm to which longer gradients are clipped; None clips none.
    early_stopping : bool or "auto", default="auto"
        Whether to hold out a fraction of the training rows, stop when their loss no longer
        decreases, and restore the weights of the best epoch. Nothing is held out of fewer than
        40 rows.
    validation_fraction : float, default=0.1
        Fraction of the rows that is held out.
    n_iter_no_change : int, default=10
        Number of epochs without a lower held-out loss after which training stops.
    callbacks : list of skorch callbacks, default=None
        Callbacks of the training, of which copies are used.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products in training (autocast). ``"auto"`` is bfloat16 on a GPU that
        has it where an encoder is trained or images are generated, else float32.

    See Also
    --------
    skmm.fusion.JointFusionClassifier : Network over all modalities.

    Notes
    -----
    What ``"auto"`` means:

    ========================  ==========  =============  ============  =============  ==============
    estimator                 batch_size  learning_rate  weight_decay  max_grad_norm  early_stopping
    ========================  ==========  =============  ============  =============  ==============
    joint fusions             32          1e-3 [a]       1e-2          None           True
    ContrastiveAlignment      128 [b]     1e-3           1e-2          None           False [c]
    AutoencoderAlignment      128 [b]     1e-3           1e-2          None           True
    CCAAlignment, deep        1024 [d]    1e-3           1e-2          None           False [c]
    captions, series          64 [e]      1e-3           1e-2          1.0 [f]        True
    answers, chosen           64          1e-3           1e-2          None           True
    answers, written          64 [e]      1e-3           1e-2          1.0 [f]        True
    images, flow matching     64 [e]      1e-3           0 [g]         1.0 [f]        True
    images, GAN               64 [e]      3e-4 [h]       0 [g]         None [i]       False [j]
    ========================  ==========  =============  ============  =============  ==============

    - [a] 3e-4 under attention among tokens, whose layers diverge with larger steps.
    - [b] The rows of a batch are each other's negatives: more of them say more.
    - [c] By the loss of held-out pairs, training would stop too early: partners are often found
      better still after it has begun to rise.
    - [d] A covariance of a hundred components needs several hundred rows.
    - [e] A row is a whole sequence or image; a step over 64 of them uses the machine well.
    - [f] Errors of many steps of a decoder add up, and their gradients are sometimes huge.
    - [g] The moving average of the weights regularizes, and decay pulls it toward zero.
    - [h] Of the generator; ``GAN`` has that of the discriminator.
    - [i] One norm of both gradients would let the larger one shorten the step of the other network.
    - [j] The losses of the two networks do not say how good the images are.

    ``dropout`` is a parameter of the estimators: 0.2 in joint fusions and ``ContrastiveAlignment``;
    0.1 where texts, answers and images are generated, for many layers in a row each drop their
    share; 0 in ``SeriesGenerator``, ``AutoencoderAlignment`` and deep ``CCAAlignment``, which
    predict values or correlations: the noise of dropout adds to their error.

    References
    ----------
    .. [1] Loshchilov, Hutter (2019), "Decoupled weight decay regularization", ICLR.

    Examples
    --------
    >>> from skmm import JointFusionClassifier, Trainer
    >>> fusion = JointFusionClassifier(trainer=Trainer(learning_rate=3e-4, warmup=1))
    >>> fusion.set_params(trainer__batch_size=16).get_params()["trainer__batch_size"]
    16
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "max_epochs": POSITIVE_INT,
        "learning_rate": [*POSITIVE_REAL, StrOptions({"auto"})],
        "encoder_learning_rate": [*POSITIVE_REAL, StrOptions({"auto"})],
        "batch_size": [*BATCH_SIZE, StrOptions({"auto"})],
        "accumulate": POSITIVE_INT,
        "warmup": NON_NEGATIVE,
        "weight_decay": [*NON_NEGATIVE, StrOptions({"auto"})],
        "max_grad_norm": [*POSITIVE_REAL, None, StrOptions({"auto"})],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": OPEN_FRACTION,
        "n_iter_no_change": POSITIVE_INT,
        "callbacks": [list, tuple, None],
        "dtype": [StrOptions({"auto", "float32", "bfloat16"})],
    }

    def __init__(
        self,
        *,
        max_epochs: int = 100,
        learning_rate: float | Auto = "auto",
        encoder_learning_rate: float | Auto = "auto",
        batch_size: int | Auto = "auto",
        accumulate: int = 1,
        warmup: float = 0,
        weight_decay: float | Auto = "auto",
        max_grad_norm: float | Auto | None = "auto",
        early_stopping: bool | Auto = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: Sequence[object] | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    ):
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.encoder_learning_rate = encoder_learning_rate
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.dtype = dtype

    def check(self, defaults: TrainingDefaults) -> None:
        """Check the parameters.

        Estimators call this method before they encode any cell.

        Parameters
        ----------
        defaults : TrainingDefaults
            Meaning of ``"auto"`` for the calling estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or has no effect with the others.
        TypeError
            If one of ``callbacks`` is not a callback of skorch.
        """
        self._validate_params()
        given: Any
        for position, given in enumerate(self.callbacks or ()):
            pair = isinstance(given, tuple | list) and len(given) == 2
            callback = given[1] if pair else given
            if not (hasattr(callback, "initialize") and hasattr(callback, "set_params")):
                raise TypeError(
                    f"{type(self).__name__}: callbacks must be a list of skorch callbacks or of"
                    f" (name, callback), got {given!r} at position {position}. Give, for example,"
                    " skorch.callbacks.EpochScoring('accuracy')."
                )
        if not _given(self.early_stopping, defaults.early_stopping):
            unused = ["validation_fraction", "n_iter_no_change"]
            refuse_unused(self, unused, "without early_stopping")

    def refuse_accumulate(self, reason: str) -> None:
        """Raise an error if ``accumulate`` is set, for estimators that do not support it.

        Estimators call this method before training.

        Parameters
        ----------
        reason : str
            End of the message, such as "with a loss that compares the rows of a batch". It follows
            "accumulate=2 is not supported".

        Raises
        ------
        ValueError
            If ``accumulate`` is more than 1.
        """
        if self.accumulate > 1:
            raise ValueError(
                f"{type(self).__name__}: accumulate={self.accumulate} is not supported {reason}."
                " Leave it out, and raise batch_size if the memory allows it."
            )

    def rows_per_step(self, defaults: TrainingDefaults) -> int:
        """Return the number of rows in a batch.

        Parameters
        ----------
        defaults : TrainingDefaults
            Meaning of ``"auto"`` for the calling estimator.

        Returns
        -------
        n_rows : int
            ``batch_size``, or the default of the estimator if that is ``"auto"``.
        """
        return _given(self.batch_size, defaults.batch_size)

    def hold_out(
        self,
        rows: np.ndarray,
        strata: np.ndarray | None,
        defaults: TrainingDefaults,
        random_state: int,
    ) -> np.ndarray:
        """Choose the rows that are held out for early stopping.

        Parameters
        ----------
        rows : ndarray of shape (n,), int
            Positions of the rows that there are to train on.
        strata : ndarray of shape (n,) or None
            Group of each of them: the held-out part has a share of each, if they are not too few.
        defaults : TrainingDefaults
            Meaning of ``"auto"`` for the calling estimator.
        random_state : int
            Seed of the choice.

        Returns
        -------
        held_out : ndarray of int
            Some of ``rows``; none without early stopping, or where there are too few.
        """
        n = len(rows)
        if not _given(self.early_stopping, defaults.early_stopping) or n < FEWEST_TO_HOLD_OUT:
            return rows[:0]
        n_held = min(math.ceil(n * self.validation_fraction), n - 1)
        if strata is not None:
            counts = np.unique(strata, return_counts=True)[1]
            if counts.min() < 2 or not len(counts) <= n_held <= n - len(counts):
                strata = None  # too few of some group to be in both parts
        parts = train_test_split(rows, test_size=n_held, stratify=strata, random_state=random_state)
        held_out: np.ndarray = parts[1]
        return held_out

    def fit(
        self,
        module: nn.Module,
        dataset: TensorDataset,
        loss: nn.Module,
        *,
        valid: TensorDataset | None = None,
        defaults: TrainingDefaults | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        callbacks: Sequence[object] = (),
        device: str = "auto",
        verbose: bool | int = 0,
        net: JointNet | None = None,
    ) -> JointNet:
        """Train a module in place.

        Parameters
        ----------
        module : nn.Module
            From a batch to outputs.
        dataset : TensorDataset
            Rows to train on, on the device.
        loss : nn.Module
            From outputs and target to the loss of each row.
        valid : TensorDataset or None, default=None
            Held-out rows of early stopping; None trains for all epochs.
        defaults : TrainingDefaults, default=None
            What ``"auto"`` means; None takes those of a joint fusion.
        max_epochs : int, default=None
            None is the trainer's.
        batch_size : int, default=None
            None is the trainer's; for a method that divides the rows itself.
        callbacks : sequence of skorch callbacks, default=()
            Those of the method; the user's come first.
        device : str, default="auto"
            Device on which the module is trained.
        verbose : bool or int, default=0
            Whether to print a line for each epoch.
        net : JointNet, default=None
            Net of an earlier call, whose optimizer continues with its state and settings; of the
            other parameters only ``dataset`` is used.

        Returns
        -------
        net : JointNet
            What trained the module; its ``history`` has an entry for each epoch.

        Raises
        ------
        ConvergenceError
            If the loss is not finite.
        """
        if net is None:
            defaults = defaults or TrainingDefaults()
            net = self._new_net(
                module,
                loss,
                valid,
                defaults,
                max_epochs or self.max_epochs,
                batch_size or _given(self.batch_size, defaults.batch_size),
                [*copy.deepcopy(list(self.callbacks or [])), *callbacks],
                resolve_device(device),
                verbose,
            )
        with threads_for(module):
            net.train(dataset)
        module.eval()
        return net

    def _new_net(
        self,
        module: nn.Module,
        loss: nn.Module,
        valid: TensorDataset | None,
        defaults: TrainingDefaults,
        max_epochs: int,
        batch_size: int,
        callbacks: list[object],
        device: torch.device,
        verbose: bool | int,
    ) -> JointNet:
        networks = _trained_encoders(module)
        rates: list[float | None] = [getattr(network, "step_size", None) for network in networks]
        if self.encoder_learning_rate != "auto":
            rates = [float(self.encoder_learning_rate)] * len(networks)
        return make_net(
            module,
            loss,
            valid=valid,
            max_epochs=max_epochs,
            batch_size=int(batch_size),  # torch takes no integer of numpy's
            accumulate=int(self.accumulate),
            learning_rate=_given(self.learning_rate, defaults.learning_rate),
            encoder_learning_rates=rates,
            warmup=self.warmup,
            weight_decay=_given(self.weight_decay, defaults.weight_decay),
            max_grad_norm=_given(self.max_grad_norm, defaults.max_grad_norm),
            n_iter_no_change=self.n_iter_no_change,
            callbacks=callbacks,
            device=device,
            half=self._is_half(device, module),
            verbose=verbose,
        )

    def _is_half(self, device: torch.device, module: nn.Module) -> bool:
        if self.dtype != "auto":
            return self.dtype == "bfloat16"
        # A small network over features gains nothing by it, unless its module says so.
        gains = bool(getattr(module, "gains_by_half", _trained_encoders(module)))
        return gains and resolve_dtype("auto", device) == torch.bfloat16


def _given(value: _Value | Auto, default: _Value) -> _Value:
    """Return the value that the user gave, or the default if that is "auto", its only string."""
    return default if isinstance(value, str) else value


def _trained_encoders(module: nn.Module) -> list[nn.Module]:
    """Return the encoders that are trained with a module."""
    encoders = getattr(module, "encoders", None)
    return [] if encoders is None else list(encoders.networks)


def threads_for(module: nn.Module) -> AbstractContextManager[Any]:
    """Return a context with one thread for small networks, which several threads slow down.

    A module can set ``gains_by_threads``; otherwise it counts as large if a pretrained encoder is
    trained with it.
    """
    large = getattr(module, "gains_by_threads", None)
    if large is None:
        networks = _trained_encoders(module)
        large = any(getattr(network, "step_size", None) is not None for network in networks)
    return shared_threads() if large else one_thread()


# --- Base of the estimators that train a network: parameters, training, device, pickles ---


class TrainedNetworkMixin:
    """Mixin of the estimators that train a network, ``module_``, by a :class:`Trainer`."""

    module_: Any
    net_: JointNet
    history_: list[dict[str, float]]

    # Parameters of the estimator.
    trainer: Trainer | None
    max_epochs: int | None
    device: str
    random_state: RandomState
    verbose: bool | int

    _training_constraints: ClassVar[dict[str, Any]] = {
        "trainer": [Trainer, None],
        "max_epochs": [*POSITIVE_INT, None],
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator and of its parts.

        Parameters
        ----------
        **params : dict
            Names as ``get_params`` gives them, e.g. ``photo__pooling="max"``, or ``photo="drop"``
            to leave a modality out; and ``trainer__<parameter>``, also where ``trainer`` is None.

        Returns
        -------
        self : object
            This estimator.
        """
        nested = any(name.startswith("trainer__") for name in params)
        if nested and params.get("trainer", self.trainer) is None:
            params["trainer"] = Trainer()
        super().set_params(**params)  # type: ignore[misc]  # a mixin
        return self

    # --- fit --------------------------------------------------------------------------------

    def _training_defaults(self) -> TrainingDefaults:
        """Return what ``"auto"`` of the trainer means for this estimator."""
        return TrainingDefaults()

    def _checked_trainer(self) -> Trainer:
        trainer = Trainer() if self.trainer is None else self.trainer
        trainer.check(self._training_defaults())
        return trainer

    def _n_epochs(self, trainer: Trainer) -> int:
        return trainer.max_epochs if self.max_epochs is None else self.max_epochs

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _train(
        self,
        trainer: Trainer,
        dataset: TensorDataset,
        loss: nn.Module,
        *,
        valid: TensorDataset | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        callbacks: tuple[tuple[str, object], ...] = (),
        reporter: TaskReporter | None = None,
        net: JointNet | None = None,
    ) -> None:
        """Train ``module_`` and record the losses; a failed training leaves no network."""
        n_before = 0 if net is None else len(net.history)
        report = () if reporter is None else (("skmm_report", Report(reporter)),)
        try:
            self.net_ = trainer.fit(
                self.module_,
                dataset,
                loss,
                valid=valid,
                defaults=self._training_defaults(),
                max_epochs=self._n_epochs(trainer) if max_epochs is None else max_epochs,
                batch_size=batch_size,
                callbacks=(*callbacks, *report),
                device=self.device,
                verbose=self.verbose,
                net=net,
            )
        except Exception:
            self.__dict__.pop("net_", None)
            del self.module_  # not fitted, and nothing to continue with
            raise
        n_epochs = len(self.history_)
        self.history_ = self.history_ + [
            {
                "epoch": n_epochs + i,
                **{key: epoch[key] for key in ("train_loss", "valid_loss") if key in epoch},
            }
            for i, epoch in enumerate(self.net_.history[n_before:], start=1)
        ]
        self.n_iter_ = len(self.history_)

    # --- after fit --------------------------------------------------------------------------

    def _placed(self) -> torch.device:
        """Move the trained network to its device for prediction and return that device."""
        device = resolve_device(self.device)
        # The check is faster than a move, which visits all modules and takes as long as one row.
        if not lies_on(next(self.module_.parameters()), device):
            self.module_.to(device)
        if self.module_.training:
            self.module_.eval()
        place: torch.device = next(self.module_.parameters()).device  # of several GPUs, the same
        return place

    # --- copies and pickles -----------------------------------------------------------------

    def __copy__(self) -> Self:
        # A shallow copy shares the network, and the training may be running: callbacks of
        # scikit-learn copy the estimator after an epoch. It must not be moved, as below.
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]  # a mixin
        # The optimizer's state is twice as large as the weights and useless without the data.
        state.pop("net_", None)
        # An unpickled estimator has no net, but a prediction may have moved its module to the GPU.
        if "module_" in state:
            self.module_.cpu()  # the pickle opens on a machine without the GPU
        return state
