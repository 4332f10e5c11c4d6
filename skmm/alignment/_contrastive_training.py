"""How a contrastive alignment is trained, and what it gives afterwards."""

import copy
import math
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_consistent_length, column_or_1d
from torch import Tensor, nn

from skmm._compose._block import Block
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._environment._device import seeded
from skmm._frame._column import n_rows
from skmm._training._inputs import JointInputs
from skmm._training._module import SEPARATOR, modality_tensors
from skmm._training._net import Report
from skmm._training._trainer import TrainingMixin
from skmm.alignment._base import BaseAlignment, Cells
from skmm.alignment._contrastive_module import AlignmentModule
from skmm.alignment._recall import content_codes
from skmm.nets import CONTRASTIVE_LOSSES, PairwiseContrast

__all__ = ["BaseContrastive"]

_STEP_SIZE = 1e-3
_TEMPERED = ("infonce", "siglip")


class _PairCode:
    """What a row is for the loss: content of each modality and class, (n_rows, n + 1)."""

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        return torch.from_numpy(target)

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Classes, if any are known: a held-out part should hold them in the same shares."""
        return target[:, -1] if (target[:, -1] >= 0).any() else None


class BaseContrastive(TrainingMixin, BaseAlignment):
    """Training of the projections, with the trainer of the joint fusions."""

    module_: AlignmentModule
    accumulate = 1  # a loss that compares rows has no parts to add up
    _code = _PairCode()

    # Parameters of the alignment, told to type checkers.
    loss: str
    negatives: str
    temperature: float
    learn_temperature: bool
    margin: float
    projection: str
    dropout: float
    max_epochs: int
    callbacks: Any

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the transformers and train the projections, and encoders that need training.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality. Rows with fewer than two are not learned from.
        y : array-like of shape (n_samples,), default=None
            Classes: rows of one class belong together too. A row whose class is missing belongs
            to itself alone.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        classes = _class_codes(X, y)
        seed: Any = self._draw_seed()
        blocks = [Block(modality, seed) for modality in self._resolve(X)]
        self._refuse_single(blocks, usable=False)
        inputs: Any = JointInputs(blocks)
        given: Any = None if y is None else np.asarray(y)
        # Before torch is seeded, for that lets in one thread of the process at a time.
        inputs.fit_frozen(X, given)
        with seeded(seed), TaskReporter(self, X, y, self.max_epochs, "epoch") as reporter:
            tensors = self._start(X, given, inputs)
            present = inputs.present(tensors)
            target = self._target(tensors, present, classes)
            rows = np.flatnonzero(present.sum(axis=1) >= 2)
            held_out = self._hold_out(rows, target, seed)
            rows = np.setdiff1d(rows, held_out)
            self._new_net(
                [*copy.deepcopy(list(self.callbacks or [])), ("skmm_report", Report(reporter))],
                self._dataset(tensors, target, None, held_out) if len(held_out) else None,
                max_epochs=self.max_epochs,
            )
            self._train(self._dataset(tensors, target, None, rows, X))
        self._set_modalities(X, inputs.blocks)
        criterion: Any = self.net_.criterion_
        self.temperature_ = getattr(criterion.loss, "temperature", None)
        return self

    def _start(self, X: Any, y: Any, inputs: JointInputs) -> dict[str, Tensor]:
        """Start the networks that are trained, and build the projections above them."""
        tensors, networks = inputs.fit(X, y)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        self._refuse_single(inputs.blocks, usable=True)
        present = inputs.present(tensors)
        self._refuse_empty(present)
        self._refuse_unpaired(present)
        self._inputs = inputs
        self.module_ = AlignmentModule(
            {block.name: inputs.widths[block.name] for block in inputs.blocks},
            networks,
            self.n_components,
            projection=self.projection,
            dropout=self.dropout,
        )
        self.n_components_ = self.n_components
        self.history_ = []
        return tensors

    def _target(
        self, tensors: dict[str, Tensor], present: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """What each row holds of each modality, and its class, as codes (n_samples, n + 1)."""
        target = np.full((len(classes), present.shape[1] + 1), -1, dtype=np.int64)
        target[:, -1] = classes
        for m, block in enumerate(self._inputs.blocks):
            rows = torch.from_numpy(np.flatnonzero(present[:, m]))
            own = {n: t[rows] for n, t in modality_tensors(tensors, block.name).items()}
            target[present[:, m], m] = content_codes(own)
        return target

    def _criterion(self) -> nn.Module:
        options: dict[str, Any] = {"negatives": self.negatives}
        if self.loss in _TEMPERED:
            options["temperature"] = self.temperature
            options["learn_temperature"] = self.learn_temperature
        else:
            options["margin"] = self.margin
        if self.loss == "siglip":
            n_negative = 1 if self.negatives == "hard" else self.batch_size - 1
            options["bias"] = -math.log(max(n_negative, 1))
        return PairwiseContrast(CONTRASTIVE_LOSSES[self.loss](**options))

    def _step_size(self) -> float:
        return _STEP_SIZE if self.learning_rate == "auto" else float(self.learning_rate)

    # --- after fit --------------------------------------------------------------------------

    def _read(self, name: str, X: Any) -> Cells:
        block = next(block for block in self._inputs.blocks if block.name == name)
        tensors = JointInputs([block]).tensors(X)
        present = tensors[f"{name}{SEPARATOR}present"]
        own = modality_tensors(tensors, name)
        return Cells({key: tensor[present] for key, tensor in own.items()}, present.numpy())

    def _project(self, name: str, values: Any) -> np.ndarray:
        device = self._placed()
        n, step = len(next(iter(values.values()))), self.module_.rows_at_once
        parts = []
        with self._threads(), torch.inference_mode():
            for start in range(0, n, step):
                batch = {k: t[start : start + step].to(device) for k, t in values.items()}
                parts.append(self.module_.project(name, **batch).cpu().numpy())
        return np.concatenate(parts)


def _class_codes(X: Any, y: Any) -> np.ndarray:
    """Number of each row's class, -1 where it is not known, (n_samples,)."""
    if y is None:
        return np.full(n_rows(X), -1, dtype=np.int64)
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    return pd.factorize(y)[0].astype(np.int64)
