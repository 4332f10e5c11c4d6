"""Batches that do not fit into the device's memory are run in parts."""

import gc
import warnings
from typing import Any

import torch

from skmm.encoders._engines._base import Engine, Runtime

__all__ = ["FittingRunner"]


class FittingRunner:
    """Runs prepared batches of one pass, halving them as often as memory asks for it.

    Parameters
    ----------
    engine : Engine
        What runs a batch.
    runtime : Runtime
        How.
    sequence : bool
        Whether tokens are asked for.
    name : str
        The encoder's class, for messages.
    """

    def __init__(self, engine: Engine, runtime: Runtime, *, sequence: bool, name: str):
        self.engine = engine
        self.runtime = runtime
        self.sequence = sequence
        self.name = name
        self._most: int | None = None  # cells that are known not to be too many

    def __call__(self, prepared: Any, n_cells: int) -> list[Any]:
        """Encode a prepared batch of ``n_cells`` cells."""
        if self._most is not None and n_cells > self._most:
            return self._in_parts(prepared, n_cells, self._most)
        try:
            return self.engine.run(prepared, self.runtime, sequence=self.sequence)
        except RuntimeError as error:
            if isinstance(error, _CellTooLarge) or not _is_out_of_memory(error):
                raise
            if n_cells == 1:
                raise _CellTooLarge(
                    f"{self.name}: the memory of {self.runtime.device} does not hold the model"
                    " with a single cell. Use a smaller model, shorter or smaller cells, or"
                    " device='cpu'."
                ) from error
        # Here the error is gone, and with its traceback the tensors of the failed batch.
        gc.collect()
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (n_cells + 1) // 2
        if self._most is None:
            warnings.warn(
                f"{self.name}: a batch of {n_cells} does not fit into the memory of"
                f" {self.runtime.device} and is halved. Set batch_size={half} or less to spare the"
                " attempt.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._most = half
        return self._in_parts(prepared, n_cells, half)

    def _in_parts(self, prepared: Any, n_cells: int, size: int) -> list[Any]:
        arrays: list[Any] = []
        for start in range(0, n_cells, size):
            end = min(start + size, n_cells)
            arrays += self(self.engine.part(prepared, slice(start, end)), end - start)
        return arrays


class _CellTooLarge(torch.OutOfMemoryError):
    """No smaller batch can be tried."""


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the CPU's allocator, had too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        "out of memory" in str(error) or "can't allocate memory" in str(error)
    )
