"""Engine over pretrained weights, which are loaded when the first cell needs them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL
import torch

from skmm.backbones._pretrained import describe, load_backbone
from skmm.encoders._checkpoint import Checkpoint, resolve_checkpoint
from skmm.encoders._engine import Engine, Runtime, run_backbone
from skmm.exceptions import CheckpointError

__all__ = ["PretrainedEngine"]

# Raised when code of ours changes what a checkpoint's vectors are.
_FORMAT = 1


class PretrainedEngine(Engine):
    """A frozen checkpoint.

    Parameters
    ----------
    encoder : TextEncoder or ImageEncoder
        Whose ``model``, ``pooling``, ``normalize`` and ``max_length`` are used.
    modality : {"text", "image"}
        What the checkpoint must be for.
    """

    def __init__(self, encoder: Any, modality: str):
        self.modality = modality
        self.model = encoder.model
        self.options = {
            "pooling": encoder.pooling,
            "normalize": encoder.normalize,
            "max_length": getattr(encoder, "max_length", None),
        }
        self.owner = type(encoder).__name__
        checkpoint = self._resolve()
        self.identity = checkpoint.identity()
        self.description = describe(checkpoint, modality=modality, **self.options)
        self.n_outputs = self.description["width"]

    def _resolve(self) -> Checkpoint:
        return resolve_checkpoint(self.model, modality=self.modality, needed_by=self.owner)

    def follow(self, encoder: Any) -> None:
        """Take the weights from another name or folder; they must be the same weights."""
        self.model = encoder.model

    def checked(self) -> Checkpoint:
        """Resolve the checkpoint again, and refuse weights other than those of ``fit``."""
        checkpoint = self._resolve()
        if checkpoint.digest != self.identity["digest"]:
            raise CheckpointError(
                f"{self.owner} was fitted with other weights than {str(self.model)!r} holds now"
                f" (digest {self.identity['digest'][:12]}, now {checkpoint.digest[:12]})."
                " Fit it again, or set model= to a folder with the weights it was fitted with."
            )
        return checkpoint

    def fingerprint(self, runtime: Runtime) -> str | None:
        facts = {
            "format": _FORMAT,
            "modality": self.modality,
            "digest": self.checked().digest,
            "description": self.description,
            "dtype": str(runtime.dtype),
            "torch": torch.__version__.split("+")[0].rsplit(".", 1)[0],
            # Another decoder gives other pixels.
            "pillow": PIL.__version__ if self.modality == "image" else None,
        }
        return json.dumps(facts, sort_keys=True)

    def _backbone(self, runtime: Runtime) -> Any:
        return load_backbone(
            self.checked(),
            modality=self.modality,
            device=runtime.device,
            dtype=runtime.dtype,
            **self.options,
        )

    def batches(
        self, cells: Sequence[Any], indices: list[int], runtime: Runtime
    ) -> Iterator[list[int]]:
        if self.modality == "text":
            # Batches of like length: padding is work, and the slowest batch pays for all.
            lengths = self._backbone(runtime).lengths([cells[i] for i in indices])
            order = np.argsort(lengths, kind="stable")
            indices = [indices[j] for j in order]
        yield from super().batches(cells, indices, runtime)

    def encode(self, cells: list[Any], runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        return run_backbone(self._backbone(runtime), cells, runtime, sequence=sequence)
