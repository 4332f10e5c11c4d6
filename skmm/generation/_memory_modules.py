"""Modules whose decoder attends to a memory, the vectors or tokens of all modalities of a row."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skmm._training._module import SEPARATOR, JointModule
from skmm.nets import TokenMemory

__all__ = [
    "LENGTH",
    "PREFIX",
    "TEXT",
    "CaptionGeneratorModule",
    "MemoryModule",
    "SeriesGeneratorModule",
]

# Beside the modalities' tensors in a batch; no modality has an empty name.
TEXT = f"{SEPARATOR}text"
PREFIX = f"{SEPARATOR}prefix"
LENGTH = f"{SEPARATOR}length"

_NO_TOKEN = -1  # behind the end of a prefix


class MemoryModule(JointModule):
    """From tensors of all modalities to a memory, and the decoder that attends to it.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features or tokens of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    decoder : TextDecoder or SeriesDecoder
        What attends to the memory, of a ``width``.
    dropout : float
        Share of the memory that is zeroed in training.
    modality_dropout : float
        Probability that a row loses a modality in training.
    granularity : {"pooled", "sequence"}
        Whether the memory holds the encoders' vectors or their tokens.
    max_tokens : int or None
        Most tokens of an encoder that are kept.
    """

    # The attention among the steps takes their number squared, and logits a vocabulary each.
    rows_at_once = 128

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        decoder: Any,
        *,
        dropout: float,
        modality_dropout: float,
        granularity: str,
        max_tokens: int | None,
    ):
        super().__init__(
            list(widths),
            encoders,
            TokenMemory(widths, decoder.width, dropout=dropout),
            decoder.width,
            1,
            modality_dropout=modality_dropout,
            dropout=0.0,
            granularity=granularity,
            max_tokens=max_tokens,
        )
        self.head: Any = decoder

    def remember(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the memory, (n_rows, n_memory, width), and which of it exists."""
        tokens, known = self.gather(**inputs)
        memory, mask = self.fusion(*self.completed(tokens, known))
        return memory, mask


class CaptionGeneratorModule(MemoryModule):
    """From tensors of all modalities and the text so far to what comes next.

    A row may lose its prefix in training as it may lose a modality.
    """

    def remember_behind(self, **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the memory, (n_rows, n_memory, width), which of it exists, and the prefix.

        The prefix, if there is one, is ids (n_rows, n_prefix), negative behind its end.
        """
        prefix = inputs.get(PREFIX)
        if prefix is None:
            return *self.remember(**inputs), None
        tokens, known = self.gather(**inputs)
        # Hidden in training as a modality is: so of an image and a question either may be gone.
        tokens, masks = self.completed(tokens, {**known, PREFIX: prefix >= 0})
        prefix = prefix.where(masks.pop(PREFIX), _NO_TOKEN)
        memory, mask = self.fusion(tokens, masks)
        return memory, mask, prefix

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each token of the texts."""
        memory, mask, prefix = self.remember_behind(**inputs)
        logits: Tensor = self.head(memory, mask, inputs[TEXT], prefix)
        return logits


class SeriesGeneratorModule(MemoryModule):
    """From tensors of all modalities to the length of a series and its values."""

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return lengths, in the first channel of the first place, and series of those given."""
        memory, mask = self.remember(**inputs)
        series: Tensor = self.head(memory, mask, inputs[LENGTH])
        first = torch.zeros_like(series[:, :1])
        first[:, 0, 0] = self.head.predict_length(memory, mask)
        return torch.cat([first, series], dim=1)
