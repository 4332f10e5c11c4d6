"""How a joint fusion is trained: the net around its module, held-out rows, step sizes."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    LEARNING_RATE,
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE_INT,
    POSITIVE_REAL,
    StrOptions,
)
from skmm._environment._device import (
    lies_on,
    one_thread,
    resolve_device,
    resolve_dtype,
    shared_threads,
)
from skmm._frame._column import take_rows
from skmm._training._balance import balance_options, make_balance
from skmm._training._net import SAMPLE_WEIGHT, TensorDataset, make_net
from skmm.exceptions import ConvergenceError
from skmm.nets import Head

__all__ = [
    "BalancedTrainingMixin",
    "FEWEST_TO_HOLD_OUT",
    "TrainingMixin",
]

# Below this many rows a held-out part says nothing: training goes on for all epochs.
FEWEST_TO_HOLD_OUT = 40

# Their layers want small steps.
_ATTENTIVE = ("attention", "cross_attention", "bottleneck")


class TrainingMixin:
    """The training of a joint fusion that has its module, ``module_``, and its inputs."""

    # Attributes and parameters of the fusion, told to type checkers.
    module_: Any
    _inputs: Any
    _code: Any
    _criterion: Any
    learning_rate: Any
    encoder_learning_rate: Any
    strategy: Any
    dtype: str
    batch_size: int
    accumulate: int
    warmup: float
    weight_decay: float
    max_grad_norm: float | None
    n_iter_no_change: int
    early_stopping: bool
    validation_fraction: float
    device: str
    verbose: Any
    history_: list[dict[str, float]]

    _training_constraints: ClassVar[dict[str, Any]] = {
        "max_epochs": POSITIVE_INT,
        "batch_size": BATCH_SIZE,
        "accumulate": POSITIVE_INT,
        "learning_rate": [*LEARNING_RATE, StrOptions({"auto"})],
        "encoder_learning_rate": [*LEARNING_RATE, StrOptions({"auto"})],
        "warmup": NON_NEGATIVE,
        "weight_decay": NON_NEGATIVE,
        "max_grad_norm": [*POSITIVE_REAL, None],
        "early_stopping": ["boolean"],
        "validation_fraction": OPEN_FRACTION,
        "n_iter_no_change": POSITIVE_INT,
        "callbacks": [list, tuple, None],
        "device": DEVICE,
        "dtype": [StrOptions({"auto", "float32", "bfloat16"})],
    }

    def _dataset(
        self,
        inputs: dict[str, Tensor],
        target: np.ndarray,
        weights: np.ndarray | None,
        rows: np.ndarray,
        X: Any = None,
    ) -> TensorDataset:
        """Rows to train or to look at, on the device; with ``X`` they may be augmented."""
        if weights is not None:
            inputs = {**inputs, SAMPLE_WEIGHT: torch.as_tensor(weights, dtype=torch.float32)}
        device, chosen = resolve_device(self.device), torch.as_tensor(rows)
        return TensorDataset(
            {name: tensor[chosen].to(device) for name, tensor in inputs.items()},
            self._code.tensor(target)[chosen].to(device),
            renew=None if X is None else self._renewal(X, rows),
        )

    def _renewal(self, X: Any, rows: np.ndarray) -> Callable[[], dict[str, Tensor]] | None:
        """Give the tensors of those encoders that augment their cells, anew at each call."""
        if not self._inputs.augments:
            return None
        device, own = resolve_device(self.device), take_rows(X, rows)

        def renew() -> dict[str, Tensor]:
            tensors = self._inputs.augmented(own, int(torch.randint(2**31 - 1, ())))
            return {name: tensor.to(device) for name, tensor in tensors.items()}

        return renew

    def _step_size(self) -> float:
        if self.learning_rate != "auto":
            return float(self.learning_rate)
        return 3e-4 if self.strategy in _ATTENTIVE else 1e-3

    def _encoder_step_sizes(self) -> list[float | None]:
        """Step size of each encoder that is trained; None is that of the rest."""
        if self.encoder_learning_rate != "auto":
            return [float(self.encoder_learning_rate)] * len(self.module_.encoders)
        return [_own_step_size(encoder) for encoder in self.module_.encoders]

    def _is_half(self, device: torch.device) -> bool:
        if self.dtype != "auto":
            return self.dtype == "bfloat16"
        # A small net over features gains nothing by it.
        halves = resolve_dtype("auto", device) == torch.bfloat16
        return halves and len(self.module_.encoders) > 0

    def _threads(self) -> AbstractContextManager[Any]:
        """One thread for small nets, which lose by a second one; pretrained ones gain."""
        large = any(_own_step_size(encoder) is not None for encoder in self.module_.encoders)
        return shared_threads() if large else one_thread()

    def _new_net(
        self, callbacks: list[Any], valid: TensorDataset | None, *, max_epochs: int
    ) -> None:
        device = resolve_device(self.device)
        self.net_ = make_net(
            self.module_,
            self._criterion(),
            valid=valid,
            max_epochs=max_epochs,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            learning_rate=self._step_size(),
            encoder_learning_rates=self._encoder_step_sizes(),
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            n_iter_no_change=self.n_iter_no_change,
            callbacks=callbacks,
            device=device,
            half=self._is_half(device),
            verbose=self.verbose,
        )

    def _train(self, train: TensorDataset) -> None:
        """Train, and take over what was learned."""
        n_before = len(self.net_.history)
        self.module_.to(self.net_.device)  # a pickle in between has moved it to the CPU
        try:
            with self._threads():
                self.net_.train(train)
        except ConvergenceError:
            del self.module_, self.net_  # not fitted, and nothing to go on with
            raise
        self.module_.eval()
        self.history_ = self.history_ + [
            {key: epoch[key] for key in ("train_loss", "valid_loss") if key in epoch}
            for epoch in self.net_.history[n_before:]
        ]
        self.n_iter_ = len(self.history_)
        for block in self._inputs.blocks:
            if block.name in self.module_.encoder_names:
                block.transformer.end_training(self.module_.encoder_of(block.name))
        self.modalities_ = [block.triple for block in self._inputs.blocks]

    def _hold_out(self, rows: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
        """Which of the rows early stopping looks at; none without it."""
        n = len(rows)
        if not self.early_stopping or n < FEWEST_TO_HOLD_OUT:
            return rows[:0]
        n_held = min(math.ceil(n * self.validation_fraction), n - 1)
        strata = self._code.strata(target[rows])
        if strata is not None:
            counts = np.unique(strata, return_counts=True)[1]
            if counts.min() < 2 or not len(counts) <= n_held <= n - len(counts):
                strata = None  # too few of some class to be in both parts
        return train_test_split(rows, test_size=n_held, stratify=strata, random_state=seed)[1]

    def _placed(self) -> torch.device:
        """Bring the trained network to where it answers, and return that place."""
        device = resolve_device(self.device)
        # To ask is quicker than to go through all modules, which takes as long as one row.
        if not lies_on(next(self.module_.parameters()), device):
            self.module_.to(device)
        if self.module_.training:
            self.module_.eval()
        return next(self.module_.parameters()).device  # of several GPUs, the same one

    # --- copies and pickles -----------------------------------------------------------------

    def __copy__(self) -> Self:
        # A shallow copy shares the network, and the training may be going on: callbacks of
        # scikit-learn copy the estimator after an epoch. It must not be moved, as below.
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        state = dict(state)
        # The optimizer's state is twice the weights, and of no use without the data.
        state.pop("net_", None)
        # What was loaded has no net, and predicting may have moved it to the GPU all the same.
        if "module_" in state:
            self.module_.cpu()  # the pickle opens on a machine without the GPU
        return state


def _own_step_size(encoder: nn.Module) -> float | None:
    """Step size that an encoder asks for: one that knows something before it is trained."""
    return getattr(encoder, "step_size", None)


# --- The training of a joint fusion whose modalities may be balanced ---


class BalancedTrainingMixin(TrainingMixin):
    """Gives the module what ``balance`` names before a net is built around it."""

    dropout: float
    balance: str | None
    balance_params: dict[str, Any] | None

    _training_constraints: ClassVar[dict[str, Any]] = {
        **TrainingMixin._training_constraints,
        "balance": [StrOptions({"gradient", "auxiliary"}), None],
        "balance_params": [dict, None],
    }

    def _new_net(
        self, callbacks: list[Any], valid: TensorDataset | None, *, max_epochs: int
    ) -> None:
        self._set_balance()
        super()._new_net(callbacks, valid, max_epochs=max_epochs)

    def _balance_options(self) -> dict[str, float]:
        return balance_options(type(self).__name__, self.balance, self.balance_params)

    def _set_balance(self) -> None:
        """Give the module what balances it; a module that goes on keeps its heads."""
        options, old = self._balance_options(), self.module_.balance
        if self.balance is None:
            self.module_.balance = None
        elif old is not None and old.mode == self.balance:
            old.options = options
        else:
            self.module_.balance = make_balance(
                type(self).__name__,
                self.balance,
                options,
                self.module_,
                {name: self._inputs.widths[name] for name in self.module_.modalities},
                self._unimodal_head,
            )

    def _unimodal_head(self, width: int) -> nn.Module:
        """Head over one modality alone."""
        # Where it measures only, it draws nothing: the network above is trained as without it.
        dropout = self.dropout if self.balance == "auxiliary" else 0.0
        own = self._code.head(width, dropout)
        return Head(width, self._code.n_outputs, dropout=dropout) if own is None else own
