"""The torch module of a series generator."""

import torch
from torch import Tensor

from skmm._training._module import SEPARATOR
from skmm.generation._memory_module import MemoryModule

__all__ = ["LENGTH", "SeriesModule"]

# Beside the modalities' tensors in a batch; no modality has an empty name.
LENGTH = f"{SEPARATOR}length"


class SeriesModule(MemoryModule):
    """From tensors of all modalities to the length of a series and its values."""

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return lengths, in the first channel of the first place, and series of those given."""
        seen = self.see(**inputs)
        series = self.head(*seen, inputs[LENGTH])
        first = torch.zeros_like(series[:, :1])
        first[:, 0, 0] = self.head.predict_length(*seen)
        return torch.cat([first, series], dim=1)
