"""Joint fusion: one network over all modalities. What both tasks share."""

import copy
from abc import abstractmethod
from collections.abc import Iterator
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
from skmm.fusion._base import BaseFusion
from skmm.fusion._callbacks import CallbackSupportMixin, EpochReporter, with_callbacks
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
        "learning_rate": LEARNING_RATE,
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
    def _encode_target(self, X: Any, y: Any) -> np.ndarray:
        """Check ``y``; what the loss compares with."""

    @abstractmethod
    def _target_tensor(self, target: np.ndarray) -> Tensor:
        """Target as a tensor."""

    @abstractmethod
    def _n_net_outputs(self) -> int:
        """Width of the net's output."""

    @abstractmethod
    def _criterion(self) -> nn.Module:
        """Loss of each row."""

    @abstractmethod
    def _learn_target(
        self, target: np.ndarray, sample_weight: Any, *, resume: bool
    ) -> np.ndarray | None:
        """Learn prior and scale, unless training resumes; return the weights of the rows."""

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
            Weights of the rows in the loss.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        self._validate_params()
        resume = self.warm_start and hasattr(self, "module_")
        X = self._check_frame(X, reset=not resume)
        target = self._encode_target(X, y)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, X)
        weights = self._learn_target(target, sample_weight, resume=resume)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        reporter = EpochReporter(self, X, y, self.max_epochs)
        with seeded(seed):
            inputs = self._inputs.tensors(X) if resume else self._start(X, np.asarray(y), target)
            self._train(
                inputs,
                target,
                weights,
                held_out=self._held_out(target, seed),
                max_epochs=self.max_epochs,
                reporter=reporter,
            )
        reporter.close()
        return self

    def _start(self, X: Any, y: np.ndarray, target: np.ndarray) -> dict[str, Tensor]:
        """Fit the transformers and build the untrained network."""
        self._inputs = JointInputs(self._start_blocks(X))
        inputs, networks, widths = self._inputs.fit(X, y)
        self._blocks = self._inputs.blocks
        if not self._blocks:
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: every modality is absent in"
                " every training row."
            )
        self._refuse_empty(self._inputs.present(inputs))
        self.module_ = JointModule(
            list(widths),
            networks,
            self._make_fusion(widths),
            self.n_components,
            self._n_net_outputs(),
            modality_dropout=self.modality_dropout,
            dropout=self.dropout,
        )
        self._n_features_out = self.n_components
        self.history_: list[dict[str, float]] = []
        return inputs

    def _make_fusion(self, widths: dict[str, int]) -> nn.Module:
        options = dict(self.strategy_params or {})
        if isinstance(self.strategy, str):
            for name in _OPTIONS.get(self.strategy, ()):
                options.setdefault(name, getattr(self, name))
        return make_fusion(
            self.strategy, widths, self.n_components, dropout=self.dropout, **options
        )

    def _train(
        self,
        inputs: dict[str, Tensor],
        target: np.ndarray,
        weights: np.ndarray | None,
        *,
        held_out: np.ndarray | None,
        max_epochs: int,
        reporter: EpochReporter | None = None,
    ) -> None:
        """Train, and take over what was learned."""
        device = resolve_device(self.device)
        if weights is not None:
            inputs = {**inputs, SAMPLE_WEIGHT: torch.as_tensor(weights, dtype=torch.float32)}
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        train = TensorDataset(inputs, self._target_tensor(target).to(device))
        valid = None
        if held_out is not None:
            kept = np.setdiff1d(np.arange(len(target)), held_out)
            valid = TensorDataset(*train[torch.as_tensor(held_out, device=device)])
            train = TensorDataset(*train[torch.as_tensor(kept, device=device)])
        callbacks = copy.deepcopy(list(self.callbacks or []))
        if reporter is not None:
            callbacks.append(("report", Report(reporter.begin, reporter.end)))
        # A partial_fit after another keeps the optimizer and what it knows.
        if reporter is not None or getattr(self, "net_", None) is None or self.net_.train_split:
            self.net_ = make_net(
                self.module_,
                self._criterion(),
                valid=valid,
                max_epochs=max_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                n_iter_no_change=self.n_iter_no_change,
                callbacks=callbacks,
                device=device,
                verbose=self.verbose,
            )
        n_before = len(self.net_.history)
        with one_thread():
            self.net_.partial_fit(train)
        self.module_.eval()
        self.history_ = self.history_ + [
            {key: epoch[key] for key in ("train_loss", "valid_loss") if key in epoch}
            for epoch in self.net_.history[n_before:]
        ]
        self.n_iter_ = len(self.history_)
        for block in self._blocks:
            if block.name in self.module_.encoder_names:
                block.transformer.end_training(self.module_.encoder_of(block.name))
        self._set_modalities()

    def _held_out(self, target: np.ndarray, seed: int) -> np.ndarray | None:
        """Rows on which early stopping looks, None without it."""
        n = len(target)
        if not self.early_stopping or n < _FEWEST_TO_HOLD_OUT:
            return None
        strata = self._strata(target)
        n_held = max(1, int(np.ceil(n * self.validation_fraction)))
        if strata is not None:
            counts = np.unique(strata, return_counts=True)[1]
            if counts.min() < 2 or n_held < len(counts):
                strata = None  # too few of some class to be in both parts
        return train_test_split(np.arange(n), test_size=n_held, stratify=strata, random_state=seed)[
            1
        ]

    def _fit_one_epoch(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Train one more epoch on the rows given: ``partial_fit`` of both tasks."""
        self._validate_params()
        first = not hasattr(self, "module_")
        X = self._check_frame(X, reset=first)
        target = self._encode_target(X, y)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, X)
        weights = self._learn_target(target, sample_weight, resume=not first)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        # Another seed every time, or each call would drop the same units.
        with seeded(seed + len(getattr(self, "history_", []))):
            inputs = self._start(X, np.asarray(y), target) if first else self._inputs.tensors(X)
            self._train(inputs, target, weights, held_out=None, max_epochs=1)
        return self

    # --- predict ----------------------------------------------------------------------------

    def _batches(self, X: Any) -> Iterator[tuple[slice, dict[str, Tensor], np.ndarray]]:
        """Yield (rows, tensors on the device, which rows lack everything)."""
        check_is_fitted(self)
        X = self._check_frame(X, reset=False)
        device = resolve_device(self.device)
        self.module_.to(device).eval()
        inputs = self._inputs.tensors(X)
        present = self._inputs.present(inputs)
        self._refuse_empty(present)
        for start in range(0, len(present), 4096):
            rows = slice(start, start + 4096)
            batch = {name: tensor[rows].to(device) for name, tensor in inputs.items()}
            yield rows, batch, ~present[rows].any(axis=1)

    def _outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Outputs of the net (n_samples, n_outputs), and which rows lack every modality."""
        outputs, empty = [], []
        with one_thread(), torch.inference_mode():
            for _, batch, lacking in self._batches(X):
                outputs.append(self.module_(**batch).cpu().numpy())
                empty.append(lacking)
        return np.concatenate(outputs).astype(np.float64), np.concatenate(empty)

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
        with one_thread(), torch.inference_mode():
            parts = [
                self.module_.represent(**batch).cpu().numpy() for _, batch, _ in self._batches(X)
            ]
        return np.concatenate(parts)

    # --- pickles and tags -------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "net_" in state:
            # The optimizer's state is twice the weights, and of no use without the data.
            state = {name: value for name, value in state.items() if name != "net_"}
            self.module_.cpu()  # the pickle opens on a machine without the GPU
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
