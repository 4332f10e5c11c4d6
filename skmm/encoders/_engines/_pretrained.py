"""Engines of pretrained weights, which are loaded for the first cell."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import PIL
import torch

from skmm.backbones._pretrained._base import FrozenBackbone
from skmm.backbones._pretrained._checkpoint import Checkpoint, resolve_checkpoint
from skmm.backbones._pretrained._loading import describe, load_backbone
from skmm.backbones._pretrained._splitting import Trunk
from skmm.encoders._engines._base import BackboneEngine, HasModel, Runtime, precision

__all__ = ["HasCheckpoint", "PretrainedEngine", "TrunkEngine"]

# To be raised with every change of the code that changes the vectors of a checkpoint.
_FORMAT = 2
# A batch has at most this number of tokens times batch_size. On a CPU, batches of more than some
# thousand tokens are slower, because they exceed its cache.
_ORDINARY_LENGTH = 64


class HasCheckpoint(HasModel, Protocol):
    """Parameters of an encoder that define the checkpoint and its pooling."""

    pooling: str
    normalize: Any


class PretrainedEngine(BackboneEngine):
    """Engine of a frozen checkpoint.

    Parameters
    ----------
    encoder : TextEncoder, ImageEncoder, AudioEncoder or VideoEncoder
        Its ``model``, ``pooling``, ``normalize`` and ``max_length`` (or ``window``) are used.
    modality : {"text", "image", "audio", "video"}
        Modality of the checkpoint.
    """

    def __init__(self, encoder: HasCheckpoint, modality: str):
        self.modality = modality
        self.model = encoder.model
        self.options = {
            "pooling": encoder.pooling,
            "normalize": encoder.normalize,
            "max_length": getattr(encoder, "max_length", getattr(encoder, "window", None)),
        }
        self.owner = type(encoder).__name__
        checkpoint = self._resolve()
        self.identity: dict[str, Any] = checkpoint.identity()
        self.description = describe(checkpoint, modality=modality, **self.options)
        self.n_outputs = self.description["width"]
        self._ready: tuple[Runtime, FrozenBackbone] | None = None

    def _resolve(self) -> Checkpoint:
        return resolve_checkpoint(self.model, modality=self.modality, needed_by=self.owner)

    def follow(self, encoder: HasModel) -> None:
        """Use another name or folder of the same weights."""
        self.model = encoder.model
        self._ready = None  # the weights are checked once per pass

    def checked(self) -> Checkpoint:
        """Resolve the checkpoint again, and refuse weights other than those of ``fit``."""
        checkpoint = self._resolve()
        checkpoint.refuse_others(self.identity["digest"])
        return checkpoint

    def fingerprint(self, runtime: Runtime) -> str | None:
        facts = {
            "format": _FORMAT,
            "modality": self.modality,
            "digest": self.checked().digest,
            "description": self.description,
            "dtype": str(runtime.dtype),
            "compile": runtime.compile,
            "torch": torch.__version__.split("+")[0].rsplit(".", 1)[0],
            # Another decoder gives other pixels.
            "pillow": PIL.__version__ if self.modality == "image" else None,
        }
        return json.dumps(facts, sort_keys=True)

    def backbone_on(self, runtime: Runtime) -> FrozenBackbone:
        ready = self._ready
        if ready is None or ready[0] != runtime:
            backbone = load_backbone(
                self.checked(),
                modality=self.modality,
                device=runtime.device,
                dtype=torch.float32,  # of the weights; autocast computes in half precision
                compile=runtime.compile,
                **self.options,
            )
            self._ready = ready = (runtime, backbone)
        return ready[1]

    def batches(self, cells: Sequence[Any], runtime: Runtime) -> Iterator[list[int]]:
        if self.modality != "text":
            yield from super().batches(cells, runtime)
            return
        # Texts of similar length share a batch, which saves padding. The longest come first, so
        # that a lack of memory shows at once.
        backbone: Any = self.backbone_on(runtime)
        lengths = backbone.lengths(cells)
        budget = _ORDINARY_LENGTH * runtime.batch_size
        batch: list[int] = []
        for i in np.argsort(lengths, kind="stable")[::-1].tolist():
            # The first text of a batch is the longest, and the others are padded to it.
            padded = lengths[batch[0]] * (len(batch) + 1) if batch else 0
            if batch and (len(batch) == runtime.batch_size or padded > budget):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None}  # a pickle holds no weights


# To be raised with every change of the code that changes where a model is split.
_CUT_FORMAT = 1


class TrunkEngine(PretrainedEngine):
    """Engine of the trunk: the blocks of a checkpoint before the last ones, which are trained.

    Parameters
    ----------
    encoder : CellEncoder
        Parameters as for ``PretrainedEngine``.
    modality : {"text", "image", "audio", "video"}
        Modality of the checkpoint.
    n_blocks : int
        Number of last blocks that are left out.
    """

    def __init__(self, encoder: HasCheckpoint, modality: str, n_blocks: int):
        super().__init__(encoder, modality)
        self.n_blocks = n_blocks
        self._trunk: tuple[Runtime, FrozenBackbone] | None = None

    def follow(self, encoder: HasModel) -> None:
        super().follow(encoder)
        self._trunk = None

    def fingerprint(self, runtime: Runtime) -> str | None:
        """Return the facts of the checkpoint and of the split, without the pooling."""
        whole = super().fingerprint(runtime._replace(compile=False))
        assert whole is not None
        facts = json.loads(whole)
        for name in ("pooling", "normalize", "width"):
            facts["description"].pop(name)
        return json.dumps({**facts, "below": self.n_blocks, "cut": _CUT_FORMAT}, sort_keys=True)

    def backbone_on(self, runtime: Runtime) -> FrozenBackbone:
        ready = self._trunk
        if ready is None or ready[0] != runtime:
            whole = super().backbone_on(runtime._replace(compile=False))
            trunk = whole.with_tower(Trunk(whole.tower, self.n_blocks).eval())
            self._trunk = ready = (runtime, trunk)
        return ready[1]

    def run(
        self, prepared: dict[str, torch.Tensor], runtime: Runtime, *, sequence: bool
    ) -> list[np.ndarray]:
        """Encode a batch by the trunk: return the tokens of each cell, or its feature map."""
        backbone = self.backbone_on(runtime)
        tensors = {name: t.to(runtime.device, non_blocking=True) for name, t in prepared.items()}
        with torch.inference_mode(), precision(runtime):
            return backbone.trunk_arrays(**tensors)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_trunk": None}
