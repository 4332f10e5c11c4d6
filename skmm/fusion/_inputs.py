"""What a joint net eats: tensors of every modality, made from a frame."""

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn

from skmm.fusion._block import Block, BlockValues
from skmm.fusion._module import SEPARATOR

__all__ = ["JointInputs"]

_FARTHEST = 20.0  # standard deviations


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

    def fit(self, X: Any, y: Any) -> tuple[dict[str, Tensor], dict[str, nn.Module], dict[str, int]]:
        """Fit; return tensors, networks to be trained, and the width of every modality."""
        tensors: dict[str, Tensor] = {}
        networks: dict[str, nn.Module] = {}
        widths: dict[str, int] = {}
        kept = []
        for block in self.blocks:
            if self._is_trained(block):
                value = block.fit_lazily(X)
                block.n_features = 0
                if not value.present.any():
                    block.warn_absent()
                    continue
                block.transformer = clone(block.middle)
                own, _ = block.select(X)
                networks[block.name] = block.transformer.start_training(own, y)
                widths[block.name] = networks[block.name].width
                tensors |= self._network_tensors(block, own, value.present)
            else:
                value = block.fit_transform(X, y)
                if not block.n_features:
                    continue
                widths[block.name] = block.n_features
                tensors |= self._feature_tensors(block, value)
            kept.append(block)
        self.blocks = kept
        return tensors, networks, widths

    def tensors(self, X: Any) -> dict[str, Tensor]:
        """Tensors of a new frame."""
        tensors: dict[str, Tensor] = {}
        for block in self.blocks:
            if self._is_trained(block):
                own, present = block.select(X)
                tensors |= self._network_tensors(block, own, present)
            else:
                tensors |= self._feature_tensors(block, block.transform(X))
        return tensors

    def present(self, tensors: dict[str, Tensor]) -> np.ndarray:
        """Return which modalities each row has, (n_samples, n_modalities) bool."""
        columns = [tensors[f"{block.name}{SEPARATOR}present"] for block in self.blocks]
        return torch.stack(columns, dim=1).cpu().numpy()

    @staticmethod
    def _is_trained(block: Block) -> bool:
        middle = block.transformer or block.middle
        return bool(getattr(middle, "needs_training", False)) and hasattr(middle, "start_training")

    def _feature_tensors(self, block: Block, value: BlockValues) -> dict[str, Tensor]:
        scaled = ((value.values - block.mean) / block.deviation).astype(np.float32)
        # What lies far outside training would drown the rest; what is NaN is masked, or the
        # part of a modality that is lacking: the average stands there.
        np.clip(scaled, -_FARTHEST, _FARTHEST, out=scaled)
        np.nan_to_num(scaled, copy=False)
        return {
            f"{block.name}{SEPARATOR}values": torch.from_numpy(scaled),
            f"{block.name}{SEPARATOR}present": torch.from_numpy(value.present.copy()),
        }

    def _network_tensors(self, block: Block, own: Any, present: np.ndarray) -> dict[str, Tensor]:
        tensors = block.transformer.training_tensors(own)
        readable = [t for name, t in tensors.items() if name.endswith("/present")]
        mask = torch.from_numpy(present.copy())
        if readable:  # a cell may turn out unreadable and then counts as absent
            mask &= torch.stack(readable, dim=1).any(dim=1)
        named = {f"{block.name}{SEPARATOR}{name}": tensor for name, tensor in tensors.items()}
        return named | {f"{block.name}{SEPARATOR}present": mask}
