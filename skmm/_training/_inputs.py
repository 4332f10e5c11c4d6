"""Convert frames to batches of a joint network, and start the encoders trained with it."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from skmm._compose._base import Modality
from skmm._compose._block import FARTHEST, Block, BlockValues, seeded_clone
from skmm._compose._sequence_block import SequenceBlock, TokenValues
from skmm._frame._column import take_rows
from skmm._frame._types import Frame
from skmm._training._batches import Batch, EncoderInputs, FeatureInputs
from skmm._training._module import ModalityEncoders

__all__ = ["JointInputs"]


class JointInputs:
    """Fit the transformers of an estimator and convert frames to batches.

    ``fit`` of the estimator calls, in this order,

    1. ``encode``: what is frozen is fitted, and its features are computed. Torch should not be
       seeded, which only one thread of the process can do at a time.
    2. ``build``: the networks of transformers that ``needs_training`` are started, with weights
       from torch's current generator, and the training rows become one batch.
    3. ``end_training``: the trained networks go back into their transformers.

    Parameters
    ----------
    blocks : list of Block
        Modalities. Those that cannot be used are removed after ``encode``.

    Attributes
    ----------
    flaws : list of str or None
        After ``encode``: why a block cannot be used, in their order.
    widths : dict of str to int
        After ``build``: length of the features or tokens of each modality.
    networks : dict of str to nn.Module
        After ``build``: what is trained, by modality.
    """

    def __init__(self, blocks: Sequence[Block]):
        self.blocks = list(blocks)

    @classmethod
    def of(
        cls, modalities: Sequence[Modality], seed: int, *, granularity: str, max_tokens: int | None
    ) -> Self:
        """Make the inputs of modalities whose vectors (``"pooled"``) or tokens are used."""
        if granularity == "sequence":
            return cls([SequenceBlock(own, seed, max_tokens=max_tokens) for own in modalities])
        return cls([Block(own, seed) for own in modalities])

    # --- fit --------------------------------------------------------------------------------

    def encode(self, X: Frame, y: np.ndarray | None = None) -> None:
        """Fit the frozen transformers on a training frame, and find unusable modalities."""
        self._values: dict[str, BlockValues] = {}
        self.flaws: list[str | None] = []
        for block in self.blocks:
            if _is_trained(block.unfitted):
                value = block.fit_lazily(X)
                self.flaws.append(None if value.present.any() else value.flaw)
            else:
                value = self._values[block.name] = block.fit_transform(X, y)
                self.flaws.append(value.flaw)

    def build(self, X: Frame, y: np.ndarray | None = None) -> Batch:
        """Start the networks that are trained, and return the training rows."""
        self.widths: dict[str, int] = {}
        self.networks: dict[str, nn.Module] = {}
        inputs: dict[str, FeatureInputs | EncoderInputs] = {}
        for block in self.blocks:
            if _is_trained(block.unfitted):
                network = self._start(block, X, y)
                self.networks[block.name], self.widths[block.name] = network, network.width
                inputs[block.name] = _encoder_inputs(block, X)
            else:
                self.widths[block.name] = block.n_features
                inputs[block.name] = _feature_inputs(block, self._values.pop(block.name))
        del self._values
        return Batch(inputs)

    @staticmethod
    def _start(block: Block, X: Frame, y: np.ndarray | None) -> Any:
        block.transformer = seeded_clone(block.unfitted, block.seed)
        own, _ = block.select(X)
        return block.transformer.start_training(own, y)

    def end_training(self, encoders: ModalityEncoders) -> None:
        """Give the transformers their trained networks."""
        for block in self.blocks:
            if block.name in encoders.trained:
                block.transformer.end_training(encoders.network_of(block.name))

    # --- after fit --------------------------------------------------------------------------

    def batch(self, X: Frame, modalities: Sequence[str] | None = None) -> Batch:
        """Return the rows of a new frame, with all modalities or some of them."""
        inputs: dict[str, FeatureInputs | EncoderInputs] = {}
        for block in self.blocks:
            if modalities is not None and block.name not in modalities:
                continue
            if _is_trained(block.unfitted):
                inputs[block.name] = _encoder_inputs(block, X)
            else:
                inputs[block.name] = _feature_inputs(block, block.transform(X))
        return Batch(inputs)

    @property
    def augments(self) -> bool:
        """Whether an encoder changes its cells from epoch to epoch."""
        return any(_augments(block) for block in self.blocks)

    def renewal(
        self, X: Frame, rows: np.ndarray, device: torch.device
    ) -> Callable[[], dict[str, EncoderInputs]] | None:
        """Return what changes the cells of some training rows for each epoch, None if nothing."""
        if not self.augments:
            return None
        own = take_rows(X, rows)

        def renew() -> dict[str, EncoderInputs]:
            seed = int(torch.randint(2**31 - 1, ()))
            return {
                block.name: _encoder_inputs(block, own, seed=seed).to(device)
                for block in self.blocks
                if _augments(block)
            }

        return renew


def _is_trained(transformer: object) -> bool:
    return bool(getattr(transformer, "needs_training", False)) and hasattr(
        transformer, "start_training"
    )


def _augments(block: Block) -> bool:
    return _is_trained(block.unfitted) and getattr(block.transformer, "augments", False)


def _feature_inputs(block: Block, value: BlockValues) -> FeatureInputs:
    present = torch.from_numpy(value.present.copy())
    if isinstance(value, TokenValues):
        value.standardize(block.mean, block.deviation, FARTHEST)
        return FeatureInputs(torch.from_numpy(value.values), present, torch.from_numpy(value.mask))
    return FeatureInputs(torch.from_numpy(block.standardized(value)), present)


def _encoder_inputs(block: Block, X: Frame, **augmentation: int) -> EncoderInputs:
    own, present = block.select(X)
    inputs = block.transformer.training_tensors(own, **augmentation)
    # A cell that cannot be read counts as absent.
    return EncoderInputs(inputs, torch.from_numpy(present.copy()) & inputs.present)
