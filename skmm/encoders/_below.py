"""Pretrained models up to their last blocks: the part that stays frozen, encoded once."""

import json
from typing import Any

import numpy as np
import torch

from skmm.backbones._pretrained._splitting import Lower, around
from skmm.encoders._engines._base import Runtime, precision
from skmm.encoders._engines._pretrained import PretrainedEngine

__all__ = ["LowerEngine"]

# Raised when code of ours changes where a model is cut.
_FORMAT = 1


class LowerEngine(PretrainedEngine):
    """The frozen part of a checkpoint below its last blocks, whose results are stored.

    Parameters
    ----------
    encoder : CellEncoder
        As for ``PretrainedEngine``.
    modality : {"text", "image", "audio", "video"}
        What the checkpoint must be for.
    n_blocks : int
        How many blocks are left out.
    """

    def __init__(self, encoder: Any, modality: str, n_blocks: int):
        super().__init__(encoder, modality)
        self.n_blocks = n_blocks
        self._lower: tuple[Runtime, Any] | None = None

    def follow(self, encoder: Any) -> None:
        super().follow(encoder)
        self._lower = None

    def fingerprint(self, runtime: Runtime) -> str | None:
        """Facts of the checkpoint and of the cut; how tokens are pooled comes after it."""
        told = super().fingerprint(runtime._replace(compile=False))
        assert told is not None
        facts = json.loads(told)
        for name in ("pooling", "normalize", "width"):
            facts["description"].pop(name)
        return json.dumps({**facts, "below": self.n_blocks, "cut": _FORMAT}, sort_keys=True)

    def _backbone(self, runtime: Runtime) -> Any:
        ready = self._lower
        if ready is None or ready[0] != runtime:
            whole = super()._backbone(runtime._replace(compile=False))
            lower = around(whole, Lower(whole.tower, self.n_blocks).eval())
            self._lower = ready = (runtime, lower)
        return ready[1]

    def run(self, prepared: Any, runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        """Encode a batch as far as the cut: the tokens of each cell, or its map."""
        backbone = self._backbone(runtime)
        tensors = {name: t.to(runtime.device, non_blocking=True) for name, t in prepared.items()}
        with torch.inference_mode(), precision(runtime):
            return backbone.below(**tensors)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_lower": None}
