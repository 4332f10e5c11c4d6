"""Joint fusion: one network over all modalities. What both tasks share."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    FRACTION,
    LEARNING_RATE,
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    StrOptions,
    check_sample_weight,
)
from skmm._device import one_thread, resolve_device, seeded
from skmm.exceptions import ConvergenceError
from skmm.fusion._base import BaseFusion
from skmm.fusion._block import Block
from skmm.fusion._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm.fusion._inputs import JointInputs
from skmm.fusion._module import JointModule
from skmm.fusion._net import SAMPLE_WEIGHT, Report, TensorDataset, make_net
from skmm.nets import STRATEGIES, make_fusion

__all__ = ["BaseJointFusion"]

# Below this many rows a held-out part says nothing: training goes on for all epochs.
_FEWEST_TO_HOLD_OUT = 40
# Options of ours that a strategy takes; a module of the user's gets strategy_params alone.
_OPTIONS = {"attention": ("n_heads", "n_layers"), "low_rank": ("rank",)}


class BaseJointFusion(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseFusion
):
    """A network over the modalities' features, and over encoders that are trained with it."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFusion._parameter_constraints,
        "strategy": [StrOptions(set(STRATEGIES)), nn.Module, callable],
        "strategy_params": [dict, None],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "rank": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "max_epochs": POSITIVE_INT,
        "batch_size": BATCH_SIZE,
        "learning_rate": [*LEARNING_RATE, StrOptions({"auto"})],
        "weight_decay": NON_NEGATIVE,
        "early_stopping": ["boolean"],
        "validation_fraction": OPEN_FRACTION,
        "n_iter_no_change": POSITIVE_INT,
        "callbacks": [list, tuple, None],
        "warm_start": ["boolean"],
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    # --- written by the task --------------------------------------------------------------

    @abstractmethod
    def _encode_target(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        """Check ``y``; what the loss compares with.

        ``anew`` learns the classes (those that ``partial_fit`` was told, if any) or the number
        of targets from it; else they are known.
        """

    @abstractmethod
    def _target_tensor(self, target: np.ndarray) -> Tensor:
        """Target as a tensor."""

    @abstractmethod
    def _target_as_given(self, target: np.ndarray) -> np.ndarray:
        """Target as the user wrote it, for the transformers."""

    @abstractmethod
    def _n_net_outputs(self) -> int:
        """Width of the net's output."""

    @abstractmethod
    def _criterion(self) -> nn.Module:
        """Loss of each row."""

    @abstractmethod
    def _learn_target(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        """Learn prior and scale; not called where training goes on."""

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        """Weights of the rows in the loss."""
        return sample_weight

    @abstractmethod
    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        """Groups that a held-out part should hold in the same shares."""

    # --- fit --------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the transformers and train the network.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss. The transformers see rows of weight 0 too.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        self._validate_params()
        goes_on = self.warm_start and hasattr(self, "module_")
        X, target, weights = self._check_training(X, y, sample_weight, anew=not goes_on)
        if weights is not None:
            # The optimizer's steps have a length of their own: only proportions count.
            weights = weights / weights[weights > 0].mean()
        seed = self._draw_seed()
        ready = self._ready(X, target, seed, goes_on)
        with seeded(seed), TaskReporter(self, X, y, self.max_epochs, "epoch") as reporter:
            inputs = ready if goes_on else self._start(X, target, ready)
            rows = np.arange(len(target)) if weights is None else np.flatnonzero(weights)
            held_out = self._hold_out(rows, target, seed)
            rows = np.setdiff1d(rows, held_out)
            self._new_net(
                [*copy.deepcopy(list(self.callbacks or [])), ("skmm_report", Report(reporter))],
                self._dataset(inputs, target, weights, held_out) if len(held_out) else None,
                max_epochs=self.max_epochs,
            )
            self._train(self._dataset(inputs, target, weights, rows))
        self._net_is_open = False  # done: partial_fit builds another
        return self

    def _fit_one_epoch(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """Train one more epoch on the rows given: ``partial_fit`` of both tasks."""
        self._validate_params()
        first = not hasattr(self, "module_")
        X, target, weights = self._check_training(X, y, sample_weight, anew=first, classes=classes)
        seed = self._draw_seed()
        ready = self._ready(X, target, seed, not first)
        # Another seed every time, or each call would drop the same units.
        with seeded(seed + len(getattr(self, "history_", []))):
            inputs = self._start(X, target, ready) if first else ready
            # A call after another keeps the optimizer and what it knows.
            if not hasattr(self, "net_") or not self._net_is_open:
                self._new_net(copy.deepcopy(list(self.callbacks or [])), None, max_epochs=1)
                self._net_is_open = True
            rows = np.arange(len(target)) if weights is None else np.flatnonzero(weights)
            self._train(self._dataset(inputs, target, weights, rows))
        return self

    def _check_training(
        self, X: Any, y: Any, sample_weight: Any, *, anew: bool, classes: Any = None
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Frame, target and weights in the loss."""
        X = self._check_frame(X, reset=anew)
        target = self._encode_target(X, y, anew=anew, classes=classes)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, X)
        if anew:
            self._learn_target(target, sample_weight)
        weights = self._loss_weights(target, sample_weight)
        if weights is not None and not weights.any():
            raise ValueError(
                f"{type(self).__name__}: class_weight and sample_weight leave every row with"
                " weight 0. Give at least one row a positive weight."
            )
        return X, target, weights

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _ready(self, X: Any, target: np.ndarray, seed: int, goes_on: bool) -> Any:
        """Encode what is frozen: the tensors of a net that is there, or the inputs of a new one.

        Before torch is seeded, for that lets in one thread of the process at a time, and the
        others shall encode meanwhile.
        """
        if goes_on:
            return self._inputs.tensors(X)
        inputs = JointInputs([Block(modality, seed) for modality in self._resolve(X)])
        inputs.fit_frozen(X, self._target_as_given(target))
        return inputs

    def _start(self, X: Any, target: np.ndarray, inputs: JointInputs) -> dict[str, Tensor]:
        """Start the networks that are trained, and build the one above them."""
        tensors, networks = inputs.fit(X, self._target_as_given(target))
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        self._refuse_empty(inputs.present(tensors))
        widths = {block.name: inputs.widths[block.name] for block in inputs.blocks}
        module = JointModule(
            list(widths),
            networks,
            self._make_fusion(widths),
            self.n_components,
            self._n_net_outputs(),
            modality_dropout=self.modality_dropout,
            dropout=self.dropout,
        )
        self._inputs, self.module_ = inputs, module
        self._n_features_out = self.n_components
        self.history_: list[dict[str, float]] = []
        return tensors

    def _make_fusion(self, widths: dict[str, int]) -> nn.Module:
        options = dict(self.strategy_params or {})
        if isinstance(self.strategy, str):
            for name in _OPTIONS.get(self.strategy, ()):
                options.setdefault(name, getattr(self, name))
        return make_fusion(
            self.strategy, widths, self.n_components, dropout=self.dropout, **options
        )

    def _dataset(
        self,
        inputs: dict[str, Tensor],
        target: np.ndarray,
        weights: np.ndarray | None,
        rows: np.ndarray,
    ) -> TensorDataset:
        """Rows to train or to look at, on the device."""
        if weights is not None:
            inputs = {**inputs, SAMPLE_WEIGHT: torch.as_tensor(weights, dtype=torch.float32)}
        device, chosen = resolve_device(self.device), torch.as_tensor(rows)
        return TensorDataset(
            {name: tensor[chosen].to(device) for name, tensor in inputs.items()},
            self._target_tensor(target)[chosen].to(device),
        )

    def _step_size(self) -> float:
        if self.learning_rate != "auto":
            return float(self.learning_rate)
        return 3e-4 if self.strategy == "attention" else 1e-3

    def _new_net(
        self, callbacks: list[Any], valid: TensorDataset | None, *, max_epochs: int
    ) -> None:
        self.net_ = make_net(
            self.module_,
            self._criterion(),
            valid=valid,
            max_epochs=max_epochs,
            batch_size=self.batch_size,
            learning_rate=self._step_size(),
            weight_decay=self.weight_decay,
            n_iter_no_change=self.n_iter_no_change,
            callbacks=callbacks,
            device=resolve_device(self.device),
            verbose=self.verbose,
        )

    def _train(self, train: TensorDataset) -> None:
        """Train, and take over what was learned."""
        n_before = len(self.net_.history)
        self.module_.to(self.net_.device)  # a pickle in between has moved it to the CPU
        try:
            with one_thread():
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
        if not self.early_stopping or n < _FEWEST_TO_HOLD_OUT:
            return rows[:0]
        n_held = min(math.ceil(n * self.validation_fraction), n - 1)
        strata = self._strata(target[rows])
        if strata is not None:
            counts = np.unique(strata, return_counts=True)[1]
            if counts.min() < 2 or not len(counts) <= n_held <= n - len(counts):
                strata = None  # too few of some class to be in both parts
        return train_test_split(rows, test_size=n_held, stratify=strata, random_state=seed)[1]

    # --- predict ----------------------------------------------------------------------------

    def _batches(self, X: Any) -> Iterator[tuple[slice, dict[str, Tensor], np.ndarray]]:
        """Yield (rows, tensors on the device, which rows lack everything)."""
        X = self._check_frame(X, reset=False)
        device = resolve_device(self.device)
        # To ask is quicker than to go through all modules, which takes as long as one row.
        if next(self.module_.parameters()).device != device:
            self.module_.to(device)
        if self.module_.training:
            self.module_.eval()
        inputs = self._inputs.tensors(X)
        present = self._inputs.present(inputs)
        self._refuse_empty(present)
        for start in range(0, len(present), 4096):
            rows = slice(start, start + 4096)
            batch = {name: tensor[rows].to(device) for name, tensor in inputs.items()}
            yield rows, batch, np.logical_not(present[rows].any(axis=1))

    def _through(self, X: Any, part: Callable[..., Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Results of a part of the net, and which rows lack every modality."""
        results, empty = [], []
        for _, batch, lacking in self._batches(X):
            # Around the net alone: encoders behind ``_batches`` may use all threads.
            with one_thread(), torch.inference_mode():
                results.append(part(**batch).cpu().numpy())
            empty.append(lacking)
        return np.concatenate(results), np.concatenate(empty)

    def _outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Outputs of the net (n_samples, n_outputs), and which rows lack every modality."""
        check_is_fitted(self, "module_")
        outputs, empty = self._through(X, self.module_)
        return outputs.astype(np.float64), empty

    def transform(self, X: Any) -> Any:
        """Return the fused representation, the head's input.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        fused : ndarray of shape (n_samples, n_components), float32
            One vector a row.
        """
        check_is_fitted(self, "module_")
        return self._through(X, self.module_.represent)[0]

    # --- copies, pickles and tags -----------------------------------------------------------

    def __copy__(self) -> Self:
        # A shallow copy shares the network, and the training may be going on: callbacks of
        # scikit-learn copy the estimator after an epoch. It must not be moved, as below.
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        # The optimizer's state is twice the weights, and of no use without the data.
        if state.pop("net_", None) is not None:
            self.module_.cpu()  # the pickle opens on a machine without the GPU
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
