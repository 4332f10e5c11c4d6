"""Modules whose decoder attends to a memory, the vectors or tokens of all modalities of a row."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from skmm._training._batches import Batch
from skmm._training._module import ModalityEncoders
from skmm.nets import SeriesDecoder, TextDecoder, TokenMemory

__all__ = [
    "CaptionBatch",
    "CaptionGeneratorModule",
    "MemoryModule",
    "SeriesBatch",
    "SeriesGeneratorModule",
]

_PREFIX = "__prefix"  # beside the names of modalities, which hold no two underscores
_NO_TOKEN = -1  # behind the end of a prefix

_Decoder = TypeVar("_Decoder", TextDecoder, SeriesDecoder)


class MemoryModule(nn.Module, Generic[_Decoder]):
    """From a batch to a memory, and the decoder that attends to it.

    Parameters
    ----------
    encoders : ModalityEncoders
        From the batch to tokens.
    memory : TokenMemory
        From tokens and masks to one sequence, of the decoder's width.
    decoder : TextDecoder or SeriesDecoder
        What attends to it.
    """

    # The attention among the steps takes their number squared, and logits a vocabulary each.
    rows_at_once = 128

    def __init__(self, encoders: ModalityEncoders, memory: TokenMemory, decoder: _Decoder):
        super().__init__()
        self.encoders = encoders
        self.memory = memory
        self.decoder: _Decoder = decoder

    def remember(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the memory, (n_rows, n_memory, width), and which of it exists."""
        memory, mask = self.memory(*self.encoders(batch))
        return memory, mask


# --- Texts ---


@dataclass(frozen=True)
class CaptionBatch(Batch):
    """Rows of which texts are written.

    Attributes
    ----------
    text : Tensor of shape (n_rows, n_steps), int64, or None
        Ids that the decoder reads, in training.
    prefix : Tensor of shape (n_rows, n_prefix), int64, or None
        Ids of what stands in front of each text, negative behind its end.
    """

    text: Tensor | None = None
    prefix: Tensor | None = None


class CaptionGeneratorModule(MemoryModule[TextDecoder]):
    """From the modalities and the text so far to what comes next.

    A row may lose its prefix in training as it may lose a modality.
    """

    def remember_behind(self, batch: CaptionBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the memory, (n_rows, n_memory, width), which of it exists, and the prefix."""
        if batch.prefix is None:
            return *self.remember(batch), None
        tokens, known = self.encoders.gather(batch)
        # Hidden in training as a modality is: so of an image and a question either may be gone.
        known = {**known, _PREFIX: batch.prefix >= 0}
        tokens, masks = self.encoders.completed(tokens, known)
        prefix = batch.prefix.where(masks.pop(_PREFIX), _NO_TOKEN)
        memory, mask = self.memory(tokens, masks)
        return memory, mask, prefix

    def forward(self, batch: CaptionBatch) -> Tensor:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each token of the texts."""
        memory, mask, prefix = self.remember_behind(batch)
        logits: Tensor = self.decoder(memory, mask, batch.text, prefix)
        return logits


# --- Series ---


@dataclass(frozen=True)
class SeriesBatch(Batch):
    """Rows of which series are generated.

    Attributes
    ----------
    lengths : Tensor of shape (n_rows,), int64, or None
        Steps of the true series, in training.
    """

    lengths: Tensor | None = None


class SeriesGeneratorModule(MemoryModule[SeriesDecoder]):
    """From the modalities to the length of a series and its values."""

    def forward(self, batch: SeriesBatch) -> Tensor:
        """Return lengths, in the first channel of the first place, and series of those given."""
        memory, mask = self.remember(batch)
        series: Tensor = self.decoder(memory, mask, batch.lengths)
        first = torch.zeros_like(series[:, :1])
        first[:, 0, 0] = self.decoder.predict_length(memory, mask)
        return torch.cat([first, series], dim=1)
