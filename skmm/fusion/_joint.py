"""Base of joint fusion for all tasks: one network over all modalities."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skmm._compose._base import BaseMultimodalEstimator, Transformer
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    StrOptions,
    check_sample_weight,
    refuse_unused,
)
from skmm._environment._device import resolve_device, seeded
from skmm._frame._types import Frame
from skmm._training._balance import balance_options, make_balance
from skmm._training._batches import Batch, dataset_of
from skmm._training._inputs import JointInputs
from skmm._training._module import JointModule, ModalityEncoders, make_imputer
from skmm._training._trainer import TrainedNetworkMixin, Trainer, TrainingDefaults, threads_for
from skmm.fusion._integrated_gradients import Integrated, integrate
from skmm.fusion._strategies import FusionStrategy, StrategyLike, make_strategy
from skmm.fusion._targets import JointTarget

__all__ = ["BaseJointFusion", "Classes"]

# All classes there will be, as partial_fit takes them: of the target, or of each task.
Classes: TypeAlias = ArrayLike | Mapping[Any, ArrayLike]


class BaseJointFusion(
    TrainedNetworkMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseMultimodalEstimator,
):
    """Base of the joint fusions: a network over features, and encoders trained with it."""

    module_: JointModule
    _target: JointTarget

    # Parameters of the estimator.
    strategy: StrategyLike
    granularity: str
    max_tokens: int | None
    n_components: int
    dropout: float
    modality_dropout: float
    missing: str
    balance: str | None
    balance_params: Mapping[str, float] | None
    warm_start: bool

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "strategy": [str, FusionStrategy, nn.Module, callable],
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "missing": [StrOptions({"mask", "token", "impute", "zero"})],
        "balance": [StrOptions({"gradient", "auxiliary"}), None],
        "balance_params": [dict, None],
        "loss_params": [dict, None],
        "warm_start": ["boolean"],
    }

    # --- implemented by each task ---------------------------------------------------------

    @abstractmethod
    def _encode_target(
        self, X: Frame, y: ArrayLike, *, first: bool, classes: Classes | None = None
    ) -> np.ndarray:
        """Check and encode ``y``, and set ``_target``, which interprets the network's outputs.

        The ``first`` call learns the classes (those that ``partial_fit`` names, if any) or the
        number of targets from it; later they are known.
        """

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        """Return the weights of the rows in the loss."""
        return sample_weight

    def _criterion(self) -> nn.Module:
        """Return the loss of each row."""
        return self._target.criterion()

    # --- fit --------------------------------------------------------------------------------

    @with_callbacks
    def fit(self, X: Frame, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the transformers and train the network.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target: classes, labels or values; of several tasks a DataFrame.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss. The transformers see rows of weight 0 too.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        continues = self.warm_start and hasattr(self, "module_")
        trainer, X, target, weights = self._check(X, y, sample_weight, first=not continues)
        if weights is not None:
            # The step size of the optimizer does not depend on the scale: only proportions matter.
            weights = weights / weights[weights > 0].mean()
        seed = self._draw_seed()
        # Before torch is seeded, which only one thread of the process can do at a time.
        inputs, batch = self._encode(X, target, seed, continues)
        with (
            seeded(seed),
            TaskReporter(self, X, y, self._n_epochs(trainer), "epoch") as reporter,
        ):
            if batch is None:
                batch = self._build(X, target, inputs)
            rows = np.arange(len(target)) if weights is None else np.flatnonzero(weights)
            strata = self._target.strata(target[rows])
            held_out = trainer.hold_out(rows, strata, self._training_defaults(), seed)
            self._train_on(
                trainer,
                X,
                batch,
                target,
                weights,
                np.setdiff1d(rows, held_out),
                held_out=held_out,
                reporter=reporter,
            )
        self._net_is_open = False  # done: partial_fit builds another
        return self

    def _fit_one_epoch(
        self,
        X: Frame,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        classes: Classes | None = None,
    ) -> Self:
        """Train one more epoch on the rows given: ``partial_fit`` of all tasks."""
        first = not hasattr(self, "module_")
        trainer, X, target, weights = self._check(X, y, sample_weight, first=first, classes=classes)
        seed = self._draw_seed()
        inputs, batch = self._encode(X, target, seed, not first)
        # A different seed for each call, or all would drop the same units.
        with seeded(seed + len(getattr(self, "history_", []))):
            if batch is None:
                batch = self._build(X, target, inputs)
            # A call that follows another keeps the optimizer and its state.
            continues = hasattr(self, "net_") and self._net_is_open
            rows = np.arange(len(target)) if weights is None else np.flatnonzero(weights)
            self._train_on(
                trainer,
                X,
                batch,
                target,
                weights,
                rows,
                max_epochs=1,
                net=self.net_ if continues else None,
            )
            self._net_is_open = True
        return self

    def _check(
        self,
        X: Frame,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        *,
        first: bool,
        classes: Classes | None = None,
    ) -> tuple[Trainer, Frame, np.ndarray, np.ndarray | None]:
        """Check everything before any cell is encoded: trainer, frame, target and weights."""
        self._validate_params()
        if self.granularity == "pooled":
            refuse_unused(self, ["max_tokens"], "with granularity='pooled'")
        self._strategy = make_strategy(self.strategy)
        trainer = self._checked_trainer()
        if self.balance is not None or self.balance_params is not None:
            balance_options(type(self).__name__, self.balance, self.balance_params)
        X = self._check_frame(X, reset=first)
        target = self._encode_target(X, y, first=first, classes=classes)
        checked = None if sample_weight is None else check_sample_weight(sample_weight, X)
        if first:
            self._target.learn(target, checked)
        weights = self._loss_weights(target, checked)
        if weights is not None and not weights.any():
            raise ValueError(
                f"{type(self).__name__}: class_weight and sample_weight leave every row with"
                " weight 0. Give at least one row a positive weight."
            )
        return trainer, X, target, weights

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(learning_rate=self._strategy.learning_rate)

    def _encode(
        self, X: Frame, target: np.ndarray, seed: int, continues: bool
    ) -> tuple[JointInputs, Batch | None]:
        """Encode the frozen modalities; for a network that continues, return its batch."""
        if continues:
            return self._inputs, self._inputs.batch(X)
        inputs = JointInputs.of(
            self._resolve(X), seed, granularity=self.granularity, max_tokens=self.max_tokens
        )
        inputs.encode(X, self._target.as_given(target))
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        return inputs, None

    def _build(self, X: Frame, target: np.ndarray, inputs: JointInputs) -> Batch:
        """Start the encoders that are trained, and build the network over them."""
        batch = inputs.build(X, self._target.as_given(target))
        self._refuse_empty(batch.present())
        fusion = self._strategy.build(inputs.widths, self.n_components, dropout=self.dropout)
        imputer = make_imputer(self.missing, inputs.widths, self.n_components, self.dropout)
        encoders = ModalityEncoders(
            list(inputs.widths),
            inputs.networks,
            modality_dropout=self.modality_dropout,
            granularity=self.granularity,
            max_tokens=self.max_tokens,
            imputer=imputer,
        )
        head = self._target.head(self.n_components, self.dropout)
        self._inputs = inputs
        self.module_ = JointModule(encoders, fusion, head, self.n_components)
        self._n_features_out = self.n_components
        self.history_ = []
        # The net of an earlier module is not used any more.
        self.__dict__.pop("net_", None)
        self._net_is_open = False
        return batch

    def _train_on(
        self,
        trainer: Trainer,
        X: Frame,
        batch: Batch,
        target: np.ndarray,
        weights: np.ndarray | None,
        rows: np.ndarray,
        *,
        held_out: np.ndarray | None = None,
        **training: Any,
    ) -> None:
        """Train on the rows, evaluate on the held-out ones, and store the trained encoders."""
        if weights is not None:
            batch = replace(batch, sample_weight=torch.as_tensor(weights, dtype=torch.float32))
        device, goal = resolve_device(self.device), self._target.tensor(target)
        if training.get("net") is None:
            self._set_balance()
        self._train(
            trainer,
            dataset_of(batch, goal, rows, device, self._inputs.renewal(X, rows, device)),
            self._criterion(),
            valid=None
            if held_out is None or not len(held_out)
            else dataset_of(batch, goal, held_out, device),
            **training,
        )
        self._inputs.end_training(self.module_.encoders)
        self.modalities_ = [block.triple for block in self._inputs.blocks]

    def _set_balance(self) -> None:
        """Set the balance of the module; a module that continues keeps its heads."""
        old = self.module_.balance
        if self.balance is None:
            self.module_.balance = None
            return
        owner = type(self).__name__
        options = balance_options(owner, self.balance, self.balance_params)
        if old is not None and old.mode == self.balance:
            old.options = options
        else:
            # Heads that only measure have no dropout: the network is trained as without them.
            dropout = self.dropout if self.balance == "auxiliary" else 0.0
            self.module_.balance = make_balance(
                owner,
                self.balance,
                options,
                self.module_,
                self._inputs.widths,
                lambda width: self._target.head(width, dropout),
            )

    # --- predict ----------------------------------------------------------------------------

    def _batches(self, X: Frame) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield batches of rows on the device, and which rows have no modality."""
        check_is_fitted(self, "module_")
        X = self._check_frame(X, reset=False)
        device = self._placed()
        batch = self._inputs.batch(X)
        present = batch.present()
        self._refuse_empty(present)
        step = self.module_.rows_at_once
        for start in range(0, len(present), step):
            rows = slice(start, start + step)
            yield batch.rows(rows).to(device), np.logical_not(present[rows].any(axis=1))

    def _through(self, X: Frame, part: Callable[[Batch], Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Return the results of a part of the network, and which rows have no modality."""
        results, empty = [], []
        for batch, is_empty in self._batches(X):
            # For the network only: encoders inside ``_batches`` may use all threads.
            with threads_for(self.module_), torch.inference_mode():
                results.append(part(batch).cpu().numpy())
            empty.append(is_empty)
        return np.concatenate(results), np.concatenate(empty)

    def _outputs(self, X: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs (n_samples, n_outputs), and which rows have no modality."""
        check_is_fitted(self, "module_")
        outputs, empty = self._through(X, self.module_)
        return outputs.astype(np.float64), empty

    def transform(self, X: Frame) -> np.ndarray:
        """Return the fused representation, the head's input.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        fused : ndarray of shape (n_samples, n_components), float32
            One vector a row.
        """
        check_is_fitted(self, "module_")
        return self._through(X, self.module_.represent)[0]

    def encoder_for(self, name: str) -> Transformer:
        """Return the fitted transformer of a modality, trained with this network if it was.

        It is the transformer of the fusion, not a copy: do not fit it again.

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
        encoders = {own: transformer for own, transformer, _ in self.modalities_}
        encoder: Transformer | str | None = encoders.get(name)
        if encoder is None or isinstance(encoder, str):
            able = [
                own for own, transformer in encoders.items() if not isinstance(transformer, str)
            ]
            raise ValueError(
                f"{type(self).__name__} has no encoder for {name!r}. It has one for each of {able}."
            )
        return encoder

    # --- weights ------------------------------------------------------------------------------

    def modality_weights(self, X: Frame) -> np.ndarray:
        """Return the weight of each modality in each row: its gate, or its attention.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

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

    def token_weights(self, X: Frame, modality: str) -> list[np.ndarray]:
        """Return the weight of each token of a modality: the attention that reaches the output.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        modality : str
            Name of the modality.

        Returns
        -------
        weights : list of ndarray of shape (n_tokens,)
            One for each row, empty without the modality. Those of a row sum to one over
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
        for batch, _ in self._batches(X):
            with threads_for(self.module_), torch.inference_mode():
                weights = self.module_.token_weights(batch)[modality].cpu().numpy()
            rows += [row[~np.isnan(row)].astype(np.float64) for row in weights]
        return rows

    def token_gradients(
        self, X: Frame, modality: str, *, target: int | None = None, n_steps: int = 64
    ) -> list[Integrated | None]:
        """Return integrated gradients of a modality (Sundararajan, Taly and Yan, 2017).

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
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
            One for each row, None without the modality: ``scores``, ndarray of shape
            (n_tokens,) or, over the pixels of a trained encoder, (height, width); ``prediction``
            and ``base``, the answer to the row and to the baseline, whose difference the scores
            sum to; ``target``, int. The baseline is the mean of standardized features, or zeros
            (gray pixels, embeddings of zero) in front of an encoder that is trained here.
        """
        self._check_modality(modality)
        rows: list[Integrated | None] = []
        for batch, _ in self._batches(X):
            there = batch.modalities[modality].present
            own = batch.rows(torch.nonzero(there).squeeze(1))
            with threads_for(self.module_):
                found = iter(
                    integrate(self.module_, self._target, own, modality, target, n_steps)
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
