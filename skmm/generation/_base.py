"""What generators share: training under the modalities of a frame, and methods as parameters."""

import copy
from collections.abc import Collection, Iterator
from inspect import signature
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags, check_random_state
from torch import Tensor, nn

from skmm._compose._base import BaseMultimodalEstimator
from skmm._compose._callbacks import CallbackSupportMixin
from skmm._compose._sequence_block import block_of
from skmm._constraints import RandomState
from skmm._frame._types import Frame
from skmm._training._inputs import JointInputs
from skmm._training._net import Report
from skmm._training._trainer import TrainingMixin
from skmm.generation._memory_modules import MemoryModule

__all__ = ["BaseGenerator", "BaseMethod", "MethodsMixin", "refuse_useless"]

_Module = TypeVar("_Module", bound=MemoryModule)


# --- Methods as parameters: an object with parameters of its own, or the shorthand for one ---


class BaseMethod(BaseEstimator):
    """Base of the objects that hold a method of a generator with the parameters of that method."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def check(self) -> Self:
        """Check the parameters.

        Returns
        -------
        self : object
            This method.
        """
        self._validate_params()
        return self


class MethodsMixin:
    """Nested parameters of methods that may be given by a shorthand, such as ``"beam"``."""

    # Of each parameter that takes a method: its shorthands and what they stand for.
    _shorthands: ClassVar[dict[str, dict[str, type[BaseMethod]]]] = {}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator, its transformers and its methods.

        Parameters
        ----------
        **params : dict
            Names as ``get_params`` gives them. A parameter of a method that is given by its
            shorthand, such as ``decoding__beam_size`` with ``decoding="beam"``, replaces the
            shorthand by the method's object.

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
        super().set_params(**params)  # type: ignore[misc]
        return self

    def __copy__(self) -> Self:
        # The copy shares the trained network, and has methods of its own: set_params on it leaves
        # the original as it is. It does not go through __getstate__, which moves the network.
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        for name in self._shorthands:
            value = getattr(self, name)
            if isinstance(value, BaseMethod):
                setattr(new, name, clone(value))
        return new


def refuse_useless(estimator: BaseEstimator, setting: str, names: Collection[str]) -> None:
    """Refuse parameters that another one makes useless, where they are not at their default.

    Parameters
    ----------
    estimator : estimator
        Whose parameters.
    setting : str
        Parameter whose value makes the others useless.
    names : collection of str
        The others.
    """
    known = signature(type(estimator)).parameters
    for name in names:
        value, default = getattr(estimator, name), known[name].default
        if value is not default and value != default:
            raise ValueError(
                f"{type(estimator).__name__}: {name} has no effect with"
                f" {setting}={getattr(estimator, setting)!r}, got {value!r}. Leave it out."
            )


# --- Training ---


class BaseGenerator(MethodsMixin, TrainingMixin, CallbackSupportMixin, BaseMultimodalEstimator):
    """A network under which cells of some modalities become cells of another one.

    A subclass writes ``fit`` and ``predict``.
    """

    accumulate = 1
    _default_step_size: ClassVar[float] = 1e-3  # what learning_rate="auto" is

    # Parameters of the generator, for type checkers.
    granularity: str
    max_tokens: int | None
    dropout: float
    modality_dropout: float
    callbacks: list[Any] | None
    random_state: RandomState

    _training_constraints: ClassVar[dict[str, Any]] = {
        name: constraint
        for name, constraint in TrainingMixin._training_constraints.items()
        if name != "accumulate"
    }

    def _check_params(self) -> None:
        """Refuse parameters out of range, and those that others make useless."""
        self._validate_params()
        if self.granularity == "pooled":
            refuse_useless(self, "granularity", ["max_tokens"])

    def _frozen_inputs(self, X: Frame) -> tuple[JointInputs, int]:
        """Inputs whose frozen transformers are fitted, and the seed of the rest."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        blocks = [
            block_of(own, seed, granularity=self.granularity, max_tokens=self.max_tokens)
            for own in self._resolve(X)
        ]
        inputs = JointInputs(blocks)
        no_target: Any = None
        # Before torch is seeded, for that lets in one thread of the process at a time.
        inputs.fit_frozen(X, no_target)
        return inputs, seed

    def _all_inputs(
        self, X: Frame, inputs: JointInputs
    ) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
        """Tensors of all rows, and the networks that are trained, started."""
        no_target: Any = None
        tensors, networks = inputs.fit(X, no_target)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        return tensors, networks

    def _make_memory_module(
        self,
        kind: type[_Module],
        inputs: JointInputs,
        networks: dict[str, nn.Module],
        decoder: nn.Module,
    ) -> _Module:
        """Build a module of a kind whose decoder looks at what the inputs give."""
        return kind(
            {block.name: inputs.widths[block.name] for block in inputs.blocks},
            networks,
            decoder,
            dropout=self.dropout,
            modality_dropout=self.modality_dropout,
            granularity=self.granularity,
            max_tokens=self.max_tokens,
        )

    def _all_callbacks(self, reporter: object, *own: tuple[str, object]) -> list[object]:
        """Copies of the user's callbacks, those of the method, and the report of progress."""
        return [
            *copy.deepcopy(list(self.callbacks or [])),
            *own,
            ("skmm_report", Report(reporter)),
        ]

    def _step_size(self) -> float:
        if self.learning_rate == "auto":
            return self._default_step_size
        return float(self.learning_rate)

    def _batches(
        self, inputs: dict[str, Tensor], rows: np.ndarray, device: torch.device
    ) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Rows in parts, each with its tensors on the device."""
        step = self.module_.rows_at_once
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            chosen = torch.from_numpy(some)
            yield some, {name: tensor[chosen].to(device) for name, tensor in inputs.items()}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # its target is cells, which no common check has
        tags.target_tags.required = True
        return tags
