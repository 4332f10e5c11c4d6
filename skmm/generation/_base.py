"""What all generators share: inputs, the module's memory, step sizes, batches of a prediction."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import Tags, check_random_state
from torch import Tensor, nn

from skmm._compose._base import BaseMultimodalEstimator
from skmm._compose._callbacks import CallbackSupportMixin
from skmm._compose._sequence_block import block_of
from skmm._training._inputs import JointInputs
from skmm._training._module import JointModule
from skmm._training._net import Report
from skmm._training._trainer import TrainingMixin
from skmm.nets import TokenMemory

__all__ = [
    "BaseGenerator",
    "MemoryModule",
]

# --- The torch module of what is written or drawn step by step: encoders, memory, decoder ---


class MemoryModule(JointModule):
    """From tensors of all modalities to what a decoder looks at.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features or tokens of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    decoder : nn.Module
        What looks at the memory, of a ``width``.
    dropout : float
        Share of the memory that is zeroed in training.
    modality_dropout : float
        Probability that a row loses a modality in training.
    granularity : {"pooled", "sequence"}
        Whether the encoders' vectors or their tokens are looked at.
    max_tokens : int or None
        Most tokens of an encoder that are kept.
    """

    # The attention among the steps takes their number squared, and logits a vocabulary each.
    rows_at_once = 128

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        decoder: Any,
        *,
        dropout: float,
        modality_dropout: float,
        granularity: str,
        max_tokens: int | None,
    ):
        super().__init__(
            list(widths),
            encoders,
            TokenMemory(widths, decoder.width, dropout=dropout),
            decoder.width,
            1,
            modality_dropout=modality_dropout,
            dropout=0.0,
            granularity=granularity,
            max_tokens=max_tokens,
        )
        self.head: Any = decoder

    def see(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoder looks at, (n_rows, n_memory, width), and what of it exists."""
        tokens, known = self.gather(**inputs)
        return self.fusion(*self.completed(tokens, known))


class BaseGenerator(TrainingMixin, CallbackSupportMixin, BaseMultimodalEstimator):
    """A network under which cells of some modalities become cells of another one.

    It is trained by the trainer of the joint fusions. A subclass writes ``fit`` and ``predict``.
    """

    accumulate = 1
    model: Any = None  # a pretrained one in place of training, where a generator takes any
    _first_step_size: ClassVar[float] = 1e-3  # what learning_rate="auto" is

    # Parameters of the generator, told to type checkers.
    granularity: str
    max_tokens: int | None
    dropout: float
    modality_dropout: float
    callbacks: Any

    def _frozen_inputs(self, X: Any) -> tuple[Any, int]:
        """Inputs whose frozen transformers are fitted, and the seed of the rest."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        kind: Any = {"granularity": self.granularity, "max_tokens": self.max_tokens}
        inputs: Any = JointInputs([block_of(own, seed, **kind) for own in self._resolve(X)])
        # Before torch is seeded, for that lets in one thread of the process at a time.
        inputs.fit_frozen(X, None)
        return inputs, seed

    def _all_inputs(self, X: Any, inputs: JointInputs) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors of all rows, and the networks that are trained, started."""
        nothing: Any = None
        tensors, networks = inputs.fit(X, nothing)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        return tensors, networks

    def _memory_of(
        self, kind: type[MemoryModule], inputs: JointInputs, networks: dict[str, Any], decoder: Any
    ) -> Any:
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

    def _all_callbacks(self, reporter: Any, *own: tuple[str, Any]) -> list[Any]:
        """Copies of the user's callbacks, those of the method, and the report of progress."""
        return [
            *copy.deepcopy(list(self.callbacks or [])),
            *own,
            ("skmm_report", Report(reporter)),
        ]

    def _step_size(self) -> float:
        if self.learning_rate == "auto":
            return self._first_step_size
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
        tags.target_tags.required = self.model is None
        return tags
