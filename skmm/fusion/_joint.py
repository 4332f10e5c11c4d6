"""Joint fusion: one network over all modalities. What both tasks share."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skmm._compose._base import BaseMultimodalEstimator
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm._compose._sequence_block import block_of
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    StrOptions,
    check_sample_weight,
)
from skmm._environment._device import seeded
from skmm._training._inputs import JointInputs
from skmm._training._module import SEPARATOR, JointModule, make_stand_in
from skmm._training._net import Report
from skmm._training._trainer import BalancedTrainingMixin
from skmm.fusion._integrated_gradients import Integrated, integrate
from skmm.nets import STRATEGIES, make_fusion

__all__ = [
    "BaseJointFusion",
    "NetWeightsMixin",
]

# --- What a fitted joint fusion says about the weight of modalities and tokens in a row ---


class NetWeightsMixin:
    """Tells the weights of the modalities in a joint fusion."""

    module_: JointModule
    _code: Any
    _threads: Callable[[], AbstractContextManager[Any]]
    _batches: Callable[[Any], Iterator[tuple[slice, dict[str, torch.Tensor], np.ndarray]]]
    _through: Callable[..., tuple[np.ndarray, np.ndarray]]

    def modality_weights(self, X: Any) -> np.ndarray:
        """Return the weight of each modality in each row: its gate, or the attention it gets.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_modalities)
            In the order of ``modalities_``; NaN where a modality is absent. A row sums to one over
            the others. Gates are averaged over the units; attention is rolled out over the layers
            (Abnar and Zuidema, 2020).

        Raises
        ------
        TypeError
            If the strategy has no weights. ``"gated"``, ``"cross_gated"``, ``"attention"`` and
            ``"bottleneck"`` do, and so does a module with a method ``weights(tokens, masks)``.
        """
        check_is_fitted(self, "module_")
        if not hasattr(self.module_.fusion, "weights"):
            raise TypeError(
                f"{type(self).__name__}: {type(self.module_.fusion).__name__} gives the"
                " modalities no weights. Take strategy='gated', 'cross_gated', 'attention' or"
                " 'bottleneck'; skmm.inspection.modality_shapley divides any predictions."
            )
        return self._through(X, self.module_.weights)[0].astype(np.float64)

    def token_weights(self, X: Any, modality: str) -> list[np.ndarray]:
        """Return the weight of each token of a modality: the attention that reaches the output.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        modality : str
            Name of the modality.

        Returns
        -------
        weights : list of ndarray of shape (n_tokens,)
            One for each row, empty where it lacks the modality. Those of a row sum to one over
            all tokens of all modalities. Attention is rolled out over the layers (Abnar and
            Zuidema, 2020).

        Raises
        ------
        TypeError
            If the strategy has no attention. ``"attention"``, ``"bottleneck"`` and
            ``"cross_attention"`` do, and so does a module with a method
            ``token_weights(tokens, masks)``.
        """
        self._check_modality(modality)
        if not hasattr(self.module_.fusion, "token_weights"):
            raise TypeError(
                f"{type(self).__name__}: {type(self.module_.fusion).__name__} has no attention to"
                " tokens. Take strategy='attention', 'bottleneck' or 'cross_attention' with"
                " granularity='sequence'."
            )
        rows: list[np.ndarray] = []
        for _, batch, _ in self._batches(X):
            with self._threads(), torch.inference_mode():
                weights = self.module_.token_weights(**batch)[modality].cpu().numpy()
            rows += [row[~np.isnan(row)].astype(np.float64) for row in weights]
        return rows

    def token_gradients(
        self, X: Any, modality: str, *, target: int | None = None, n_steps: int = 64
    ) -> list[Integrated | None]:
        """Return integrated gradients of a modality (Sundararajan, Taly and Yan, 2017).

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        modality : str
            Name of the modality.
        target : int, default=None
            Number of the class, label or output that is explained; None takes the largest answer
            of each row.
        n_steps : int, default=64
            Steps of the integral.

        Returns
        -------
        gradients : list of Integrated or None
            One for each row, None where it lacks the modality: ``scores``, ndarray of shape
            (n_tokens,) or, over the pixels of a trained encoder, (height, width); ``prediction``
            and ``base``, the answer to the row and to the baseline, whose difference the scores
            sum to; ``target``, int. The baseline is the mean of standardised features, or zeros
            (grey pixels, embeddings of zero) in front of an encoder that is trained here.
        """
        self._check_modality(modality)
        rows: list[Integrated | None] = []
        for _, batch, _ in self._batches(X):
            there = batch[f"{modality}{SEPARATOR}present"]
            own = {name: tensor[there] for name, tensor in batch.items()}
            with self._threads():
                found = iter(
                    integrate(self.module_, self._code, own, modality, target, n_steps)
                    if bool(there.any())
                    else ()
                )
            rows += [next(found) if present else None for present in there.tolist()]
        return rows

    def _check_modality(self, modality: str) -> None:
        check_is_fitted(self, "module_")
        if modality not in self.module_.modalities:
            raise ValueError(
                f"{type(self).__name__} has no modality {modality!r}. Its modalities are"
                f" {self.module_.modalities}."
            )


# Options of ours that a strategy takes; a module of the user's gets strategy_params alone.
_OPTIONS = {
    "attention": ("n_heads", "n_layers"),
    "bilinear": ("rank",),
    "bottleneck": ("n_heads",),
    "cross_attention": ("n_heads", "n_layers"),
    "low_rank": ("rank",),
}


class BaseJointFusion(
    NetWeightsMixin,
    BalancedTrainingMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseMultimodalEstimator,
):
    """A network over the modalities' features, and over encoders that are trained with it."""

    _code: Any  # of the target: ClassCode, LabelCode, ValueCode or TaskCodes

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **BalancedTrainingMixin._training_constraints,
        "strategy": [StrOptions(set(STRATEGIES)), nn.Module, callable],
        "strategy_params": [dict, None],
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "rank": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "missing": [StrOptions({"mask", "token", "impute", "zero"})],
        "loss_params": [dict, None],
        "warm_start": ["boolean"],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    # --- written by the task --------------------------------------------------------------

    @abstractmethod
    def _encode_target(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        """Check ``y``; sets ``_code``, which knows what the net's outputs mean for it.

        ``anew`` learns the classes (those that ``partial_fit`` was told, if any) or the number
        of targets from it; else they are known.
        """

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        """Weights of the rows in the loss."""
        return sample_weight

    def _criterion(self) -> nn.Module:
        """Loss of each row."""
        return self._code.criterion()

    # --- fit --------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the transformers and train the network.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target: classes, labels or values; of several tasks a DataFrame.
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
            self._train(self._dataset(inputs, target, weights, rows, X))
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
            self._train(self._dataset(inputs, target, weights, rows, X))
        return self

    def _check_training(
        self, X: Any, y: Any, sample_weight: Any, *, anew: bool, classes: Any = None
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Frame, target and weights in the loss."""
        self._balance_options()  # what is wrong with them is told before any cell is encoded
        X = self._check_frame(X, reset=anew)
        target = self._encode_target(X, y, anew=anew, classes=classes)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, X)
        if anew:
            self._code.learn(target, sample_weight)
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
        kind: Any = {"granularity": self.granularity, "max_tokens": self.max_tokens}
        blocks = [block_of(modality, seed, **kind) for modality in self._resolve(X)]
        inputs = JointInputs(blocks)
        inputs.fit_frozen(X, self._code.as_given(target))
        return inputs

    def _start(self, X: Any, target: np.ndarray, inputs: JointInputs) -> dict[str, Tensor]:
        """Start the networks that are trained, and build the one above them."""
        tensors, networks = inputs.fit(X, self._code.as_given(target))
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        self._refuse_empty(inputs.present(tensors))
        widths = {block.name: inputs.widths[block.name] for block in inputs.blocks}
        module = JointModule(
            list(widths),
            networks,
            self._make_fusion(widths),
            self.n_components,
            self._code.n_outputs,
            modality_dropout=self.modality_dropout,
            dropout=self.dropout,
            granularity=self.granularity,
            max_tokens=self.max_tokens,
            stand_in=make_stand_in(self.missing, widths, self.n_components, self.dropout),
        )
        own_head = self._code.head(self.n_components, self.dropout)
        if own_head is not None:
            module.head = own_head
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

    # --- predict ----------------------------------------------------------------------------

    def _batches(self, X: Any) -> Iterator[tuple[slice, dict[str, Tensor], np.ndarray]]:
        """Yield (rows, tensors on the device, which rows lack everything)."""
        X = self._check_frame(X, reset=False)
        device = self._placed()
        inputs = self._inputs.tensors(X)
        present = self._inputs.present(inputs)
        self._refuse_empty(present)
        step = self.module_.rows_at_once
        for start in range(0, len(present), step):
            rows = slice(start, start + step)
            batch = {name: tensor[rows].to(device) for name, tensor in inputs.items()}
            yield rows, batch, np.logical_not(present[rows].any(axis=1))

    def _through(self, X: Any, part: Callable[..., Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Results of a part of the net, and which rows lack every modality."""
        results, empty = [], []
        for _, batch, lacking in self._batches(X):
            # Around the net alone: encoders behind ``_batches`` may use all threads.
            with self._threads(), torch.inference_mode():
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

    def encoder_for(self, name: str) -> Any:
        """Return the fitted transformer of a modality, with what it learned under this head.

        It is the fusion's own, not a copy: do not fit it again.

        Parameters
        ----------
        name : str
            Name of the modality.

        Returns
        -------
        encoder : transformer
            Fitted on the modality's columns.

        Raises
        ------
        ValueError
            If there is no such modality, or its cells are passed through.
        """
        check_is_fitted(self, "module_")
        encoders = {own: middle for own, middle, _ in self.modalities_}
        encoder = encoders.get(name)
        if encoder is None or isinstance(encoder, str):
            able = [own for own, middle in encoders.items() if not isinstance(middle, str)]
            raise ValueError(
                f"{type(self).__name__} has no encoder for {name!r}. It has one for each of {able}."
            )
        return encoder

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
