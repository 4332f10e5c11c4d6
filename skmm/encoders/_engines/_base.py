"""Base classes of engines, which run the model of an encoder.

An engine turns decoded cells into arrays in two steps: it prepares a batch, in threads that work
while the model is busy, and runs it. It is part of the pickle of a fitted encoder, so it holds
learned weights and never pretrained ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from skmm._environment._device import resolve_device, resolve_dtype
from skmm.backbones import Backbone

__all__ = ["BackboneEngine", "Engine", "HasModel", "HasRuntime", "Runtime", "precision"]

Tensors = dict[str, torch.Tensor]


class HasRuntime(Protocol):
    """Parameters of an encoder that its engine needs to run."""

    device: str
    dtype: str
    batch_size: int


class HasModel(Protocol):
    """Parameter of an encoder that may be set after ``fit``."""

    model: Any


class Runtime(NamedTuple):
    """Device, precision and batch size of a pass."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    compile: bool = False

    @classmethod
    def of(cls, encoder: HasRuntime) -> "Runtime":
        """Read the runtime parameters of an encoder."""
        device = resolve_device(encoder.device)
        dtype = resolve_dtype(encoder.dtype, device)
        return cls(device, dtype, encoder.batch_size, getattr(encoder, "compile", False))


class Engine(ABC):
    """Base of engines, which turn decoded cells of one modality into arrays.

    Attributes
    ----------
    n_outputs : int
        Width of a vector and of a token.
    identity : dict or None
        ``name``, ``source`` and ``digest`` of the pretrained weights, None without such weights.
    """

    n_outputs: int
    identity: dict[str, Any] | None = None

    def fingerprint(self, runtime: Runtime) -> str | None:
        """Return a text of everything that changes the output; None if outputs are not stored."""
        return None

    def batches(self, cells: Sequence[Any], runtime: Runtime) -> Iterator[list[int]]:
        """Yield the positions of the cells of each batch; cells that are not yet read are None."""
        for start in range(0, len(cells), runtime.batch_size):
            yield list(range(start, min(start + runtime.batch_size, len(cells))))

    def follow(self, encoder: HasModel) -> None:  # noqa: B027 - most engines have nothing to follow
        """Adopt a parameter that may be set after ``fit``: the location of the weights."""

    def separable(self, runtime: Runtime) -> bool:
        """Whether preparing single cells and joining them equals preparing the batch."""
        return False

    def prepare(self, cells: list[Any], runtime: Runtime) -> Any:
        """Prepare cells for the model; several threads may call this at once."""
        return cells

    def join(self, prepared: list[Any]) -> Any:
        """Join separately prepared cells to a batch, if they are separable."""
        return [cell for cells in prepared for cell in cells]

    def pin(self, prepared: Any, runtime: Runtime) -> Any:
        """Move a prepared batch to pinned memory, from which a GPU copies asynchronously."""
        return prepared

    def part(self, prepared: Any, rows: slice) -> Any:
        """Return some rows of a prepared batch."""
        return prepared[rows]

    @abstractmethod
    def run(self, prepared: Any, runtime: Runtime, *, sequence: bool) -> list[Any]:
        """Encode a prepared batch: (n_outputs,) or (n_tokens, n_outputs) for each cell.

        A ``MediaDecodeError`` replaces the array of a cell that proves unreadable while it is
        encoded.
        """


class BackboneEngine(Engine):
    """An engine around a torch module: tensors are prepared, copied to the device and run."""

    @abstractmethod
    def backbone_on(self, runtime: Runtime) -> Backbone:
        """Return the module, on the device of the pass."""

    def separable(self, runtime: Runtime) -> bool:
        return self.backbone_on(runtime).separable

    def prepare(self, cells: list[Any], runtime: Runtime) -> Tensors:
        return self.backbone_on(runtime).collate(cells)

    def join(self, prepared: list[Tensors]) -> Tensors:
        return {name: torch.cat([part[name] for part in prepared]) for name in prepared[0]}

    def pin(self, prepared: Tensors, runtime: Runtime) -> Tensors:
        if runtime.device.type != "cuda":
            return prepared
        return {name: tensor.pin_memory() for name, tensor in prepared.items()}

    def part(self, prepared: Tensors, rows: slice) -> Tensors:
        return {name: tensor[rows] for name, tensor in prepared.items()}

    def run(self, prepared: Tensors, runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        backbone = self.backbone_on(runtime)
        tensors = {
            name: tensor.to(runtime.device, non_blocking=True) for name, tensor in prepared.items()
        }
        backbone.eval()
        with torch.inference_mode(), precision(runtime):
            encoded = backbone(**tensors)
        if not sequence:
            return list(encoded.pooled.float().cpu().numpy())
        tokens, masks = encoded.tokens.float().cpu().numpy(), encoded.mask.cpu().numpy()
        return [row[mask] for row, mask in zip(tokens, masks, strict=True)]


def precision(runtime: Runtime) -> AbstractContextManager[object]:
    """Return autocast: matrix products in half precision; sums, norms and softmax in full."""
    if runtime.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(runtime.device.type, dtype=runtime.dtype)
