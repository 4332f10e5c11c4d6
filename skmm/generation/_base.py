"""Base classes of the generators: training on the modalities of a frame, methods as parameters."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags

from skmm._compose._base import BaseMultimodalEstimator
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter
from skmm._constraints import POSITIVE_INT, StrOptions, refuse_unused
from skmm._environment._device import resolve_device
from skmm._frame._types import Frame
from skmm._training._batches import Batch, Target, dataset_of
from skmm._training._inputs import JointInputs
from skmm._training._module import ModalityEncoders
from skmm._training._trainer import TrainedNetworkMixin, Trainer

__all__ = ["BaseGenerator", "BaseMethod", "MethodsMixin", "chosen_rows"]


# --- Methods as parameters: an object with its own parameters, or its shorthand ---


class BaseMethod(BaseEstimator):
    """Base of the objects that hold a method of a generator and its parameters."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def check(self) -> Self:
        """Validate the parameters.

        Returns
        -------
        self : object
            This method.
        """
        self._validate_params()
        return self


class MethodsMixin:
    """Nested parameters for methods that may be given by a shorthand, such as ``"beam"``."""

    # For each parameter that takes a method: shorthand -> class.
    _shorthands: ClassVar[Mapping[str, Mapping[str, type[BaseEstimator]]]] = {}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator, its transformers and its methods.

        Parameters
        ----------
        **params : dict
            Names as in ``get_params``. A nested parameter of a method given by its shorthand, such
            as ``decoding__beam_size`` with ``decoding="beam"``, replaces the shorthand by an object
            of the method.

        Returns
        -------
        self : object
            This estimator.
        """
        for key in list(params):
            name, _, inner = key.partition("__")
            value = params.get(name, getattr(self, name, None))
            known = self._shorthands.get(name, {})
            if inner and isinstance(value, str) and value in known:
                params[name] = known[value]()
        super().set_params(**params)  # type: ignore[misc]  # a mixin
        return self

    def __copy__(self) -> Self:
        # The copy shares the trained network, but no object that set_params changes. __getstate__
        # is not used, since it moves the network to the CPU.
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        for name in ("trainer", "strategy", *self._shorthands):
            value = getattr(self, name, None)
            if isinstance(value, BaseEstimator):
                setattr(new, name, clone(value))
        return new


# --- Training ---


class BaseGenerator(
    MethodsMixin, TrainedNetworkMixin, CallbackSupportMixin, BaseMultimodalEstimator
):
    """Base of the generators that train a network from modalities to cells of another one.

    A subclass implements ``fit`` and ``predict``.
    """

    _inputs: JointInputs
    _target: Target

    # Parameters of the generator.
    granularity: str
    max_tokens: int | None
    modality_dropout: float

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
    }

    def _check_params(self) -> Trainer:
        """Refuse parameters out of range and parameters without effect."""
        self._validate_params()
        if self.granularity == "pooled":
            refuse_unused(self, ["max_tokens"], "with granularity='pooled'")
        return self._checked_trainer()

    def _encode(self, X: Frame, seed: int) -> JointInputs:
        """Fit and apply the frozen transformers, and leave out modalities that cannot be used."""
        inputs = JointInputs.of(
            self._resolve(X), seed, granularity=self.granularity, max_tokens=self.max_tokens
        )
        inputs.encode(X)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        return inputs

    def _make_encoders(self, inputs: JointInputs) -> ModalityEncoders:
        return ModalityEncoders(
            list(inputs.widths),
            inputs.networks,
            modality_dropout=self.modality_dropout,
            granularity=self.granularity,
            max_tokens=self.max_tokens,
        )

    def _train_on(
        self,
        trainer: Trainer,
        X: Frame,
        batch: Batch,
        target: np.ndarray,
        places: np.ndarray,
        seed: int,
        reporter: TaskReporter,
        callbacks: tuple[tuple[str, object], ...] = (),
    ) -> None:
        """Train on a batch, with a part held out, and set the fitted attributes.

        ``places`` are the rows of ``X`` that the rows of the batch come from, in ascending order.
        All rows of the batch that come from one row of ``X`` are on the same side of the split.
        """
        device, goal = resolve_device(self.device), self._target.tensor(target)
        rows = np.unique(places)
        held_out = trainer.hold_out(rows, None, self._training_defaults(), seed)
        is_held = np.isin(places, held_out)
        train, valid = np.flatnonzero(~is_held), np.flatnonzero(is_held)
        self.history_ = []
        self._train(
            trainer,
            dataset_of(batch, goal, train, device, self._inputs.renewal(X, places[train], device)),
            self._target.criterion(),
            valid=dataset_of(batch, goal, valid, device) if len(valid) else None,
            callbacks=callbacks,
            reporter=reporter,
        )
        self._inputs.end_training(self.module_.encoders)
        self.modalities_ = [block.triple for block in self._inputs.blocks]

    def _parts(self, batch: Batch, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the rows in parts, each with the batch that the network receives."""
        device, step = self._placed(), self.module_.rows_at_once
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            yield some, batch.rows(torch.from_numpy(some)).to(device)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # the target holds cells, which no common check has
        tags.target_tags.required = True
        return tags


def chosen_rows(batch: Batch, places: np.ndarray) -> Batch:
    """Return rows of a batch, without a copy if they are all rows."""
    if np.array_equal(places, np.arange(len(batch))):
        return batch
    return batch.rows(torch.from_numpy(places))
