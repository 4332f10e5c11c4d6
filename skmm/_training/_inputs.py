"""What a joint net eats: tensors of every modality, made from a frame."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._block import FARTHEST, Block, BlockValues, seeded_clone
from skmm._compose._sequence_block import TokenValues
from skmm._training._module import SEPARATOR

__all__ = ["JointInputs"]


class JointInputs:
    """Fits the transformers of a joint fusion and turns frames into tensors.

    A transformer that ``needs_training`` is not fitted: its network is handed out, to be
    trained under the head, and its tensors stand in place of features.

    Parameters
    ----------
    blocks : list of Block
        Modalities.
    """

    def __init__(self, blocks: list[Block]):
        self.blocks = blocks

    def fit_frozen(self, X: Any, y: np.ndarray) -> None:
        """Fit what is not trained under the head: the first half of :meth:`fit`."""
        self._values = {
            block.name: block.fit_transform(X, y)
            for block in self.blocks
            if not _is_trained(block.middle)
        }

    def fit(self, X: Any, y: np.ndarray) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
        """Return tensors and the networks to be trained, after :meth:`fit_frozen`.

        Sets ``widths``, of every modality, and ``flaws``, why one cannot be used. Weights of the
        networks are drawn from torch's current generator.
        """
        tensors: dict[str, Tensor] = {}
        networks: dict[str, nn.Module] = {}
        self.widths: dict[str, int] = {}
        self.flaws: list[str | None] = []
        for block in self.blocks:
            trained = _is_trained(block.middle)
            value = block.fit_lazily(X) if trained else self._values.pop(block.name)
            self.flaws.append(None if trained and value.present.any() else value.flaw)
            if self.flaws[-1]:
                continue
            if trained:
                network = self._start_training(block, X, y)
                networks[block.name], self.widths[block.name] = network, network.width
                tensors |= self._network_tensors(block, X)
            else:
                self.widths[block.name] = block.n_features
                tensors |= self._feature_tensors(block, value)
        return tensors, networks

    @staticmethod
    def _start_training(block: Block, X: Any, y: np.ndarray) -> Any:
        block.transformer = seeded_clone(block.middle, block.seed)
        own, _ = block.select(X)
        return block.transformer.start_training(own, y)

    def tensors(self, X: Any) -> dict[str, Tensor]:
        """Tensors of a new frame."""
        tensors: dict[str, Tensor] = {}
        for block in self.blocks:
            if _is_trained(block.middle):
                tensors |= self._network_tensors(block, X)
            else:
                tensors |= self._feature_tensors(block, block.transform(X))
        return tensors

    @property
    def augments(self) -> bool:
        """Whether an encoder changes its cells from epoch to epoch."""
        return any(self._augments(block) for block in self.blocks)

    def augmented(self, X: Any, seed: int) -> dict[str, Tensor]:
        """Tensors of the encoders that augment, their cells changed as the seed tells."""
        tensors: dict[str, Tensor] = {}
        for block in self.blocks:
            if self._augments(block):
                tensors |= self._network_tensors(block, X, seed=seed)
        return tensors

    @staticmethod
    def _augments(block: Block) -> bool:
        return _is_trained(block.middle) and getattr(block.transformer, "augments", False)

    def present(self, tensors: dict[str, Tensor]) -> np.ndarray:
        """Return which modalities each row has, (n_samples, n_modalities) bool."""
        columns = [tensors[f"{block.name}{SEPARATOR}present"] for block in self.blocks]
        return torch.stack(columns, dim=1).cpu().numpy()

    def _feature_tensors(self, block: Block, value: BlockValues) -> dict[str, Tensor]:
        if isinstance(value, TokenValues):
            value.standardise(block.mean, block.deviation, FARTHEST)
            return {
                f"{block.name}{SEPARATOR}values": torch.from_numpy(value.values),
                f"{block.name}{SEPARATOR}mask": torch.from_numpy(value.mask),
                f"{block.name}{SEPARATOR}present": torch.from_numpy(value.present),
            }
        return {
            f"{block.name}{SEPARATOR}values": torch.from_numpy(block.standardised(value)),
            f"{block.name}{SEPARATOR}present": torch.from_numpy(value.present.copy()),
        }

    def _network_tensors(self, block: Block, X: Any, **augmentation: int) -> dict[str, Tensor]:
        own, present = block.select(X)
        tensors = block.transformer.training_tensors(own, **augmentation)
        readable = [t for name, t in tensors.items() if name.endswith("/present")]
        mask = torch.from_numpy(present.copy())
        if readable:  # a cell may turn out unreadable and then counts as absent
            mask &= torch.stack(readable, dim=1).any(dim=1)
        named = {f"{block.name}{SEPARATOR}{name}": tensor for name, tensor in tensors.items()}
        return named | {f"{block.name}{SEPARATOR}present": mask}


def _is_trained(middle: Any) -> bool:
    return bool(getattr(middle, "needs_training", False)) and hasattr(middle, "start_training")
