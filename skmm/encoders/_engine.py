"""What stands behind an encoder: a frozen checkpoint, a network trained here, a TF-IDF.

An engine turns decoded cells into arrays. It is what a fitted encoder pickles, so it holds
what was learned and never a pretrained weight.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from skmm._device import resolve_device, resolve_dtype

__all__ = ["Engine", "Runtime", "run_backbone"]


class Runtime(NamedTuple):
    """How a pass runs, as against what it computes."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int

    @classmethod
    def of(cls, encoder: Any) -> "Runtime":
        """Read the runtime parameters of an encoder."""
        device = resolve_device(encoder.device)
        return cls(device, resolve_dtype(encoder.dtype, device), encoder.batch_size)


class Engine(ABC):
    """Turns decoded cells of one modality into arrays.

    Attributes
    ----------
    n_outputs : int
        Width of a vector and of a token.
    trainable : bool
        Whether the engine is a network that is trained with the head it stands under.
    """

    n_outputs: int
    trainable = False

    def fingerprint(self, runtime: Runtime) -> str | None:
        """All that changes the output, or None if outputs are not to be kept."""
        return None

    def batches(
        self, cells: Sequence[Any], indices: list[int], runtime: Runtime
    ) -> Iterator[list[int]]:
        """Cut the cells at ``indices`` into batches."""
        for start in range(0, len(indices), runtime.batch_size):
            yield indices[start : start + runtime.batch_size]

    def follow(self, encoder: Any) -> None:  # noqa: B027 - most engines have nothing to follow
        """Take over a parameter that may be set after ``fit``: where the weights lie."""

    @abstractmethod
    def encode(self, cells: list[Any], runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        """Encode one batch of decoded cells: (n_outputs,) or (n_tokens, n_outputs) each."""


def run_backbone(
    backbone: Any, cells: list[Any], runtime: Runtime, *, sequence: bool
) -> list[np.ndarray]:
    """Put one batch through a backbone in inference mode."""
    tensors = {
        name: tensor.to(
            runtime.device, runtime.dtype if tensor.is_floating_point() else None, non_blocking=True
        )
        for name, tensor in backbone.collate(cells).items()
    }
    backbone.eval()
    with torch.inference_mode():
        encoded = backbone(**tensors)
    if not sequence:
        return list(encoded.pooled.float().cpu().numpy())
    tokens, masks = encoded.tokens.float().cpu().numpy(), encoded.mask.cpu().numpy()
    return [row[mask] for row, mask in zip(tokens, masks, strict=True)]
