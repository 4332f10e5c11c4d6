"""Modules whose decoder attends to a memory: the vectors or tokens of all modalities of a row."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from skmm._training._batches import Batch
from skmm._training._module import ModalityEncoders
from skmm.nets._layers import TokenMemory
from skmm.nets._series_decoders import SeriesDecoder
from skmm.nets._text_decoders import TextDecoder

__all__ = [
    "CaptionBatch",
    "CaptionGeneratorModule",
    "MemoryModule",
    "SeriesBatch",
    "SeriesGeneratorModule",
]

_PREFIX = "__prefix"  # no name of a modality has two underscores in a row
_NO_TOKEN = -1  # padding of a prefix

_Decoder = TypeVar("_Decoder", TextDecoder, SeriesDecoder)


class MemoryModule(nn.Module, Generic[_Decoder]):
    """Turn a batch into a memory for a decoder.

    Parameters
    ----------
    encoders : ModalityEncoders
        From the batch to tokens.
    memory : TokenMemory
        From tokens and masks to one sequence, of the width of the decoder.
    decoder : TextDecoder or SeriesDecoder
        Decoder that attends to the memory.
    """

    # Self-attention takes memory quadratic in the steps, and each step has logits of a vocabulary.
    rows_at_once = 128

    def __init__(self, encoders: ModalityEncoders, memory: TokenMemory, decoder: _Decoder):
        super().__init__()
        self.encoders = encoders
        self.memory = memory
        self.decoder: _Decoder = decoder

    def make_memory(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the memory, (n_rows, n_memory, width), and its mask, (n_rows, n_memory)."""
        memory, mask = self.memory(*self.encoders(batch))
        return memory, mask


# --- Texts ---


@dataclass(frozen=True)
class CaptionBatch(Batch):
    """Rows for which texts are written.

    Attributes
    ----------
    text : Tensor of shape (n_rows, n_steps), int64, or None
        Token ids that the decoder reads, in training.
    prefix : Tensor of shape (n_rows, n_prefix), int64, or None
        Ids of the tokens that precede each text, padded with -1.
    """

    text: Tensor | None = None
    prefix: Tensor | None = None


class CaptionGeneratorModule(MemoryModule[TextDecoder]):
    """Predict the next tokens of a text from the modalities and the tokens so far.

    In training a row may lose its prefix as it may lose a modality.
    """

    def memory_and_prefix(self, batch: CaptionBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the memory, (n_rows, n_memory, width), its mask, and the prefix."""
        if batch.prefix is None:
            return *self.make_memory(batch), None
        tokens, known = self.encoders.gather(batch)
        # Dropped in training as a modality is, so that a question may be missing as an image may.
        known = {**known, _PREFIX: batch.prefix >= 0}
        tokens, masks = self.encoders.completed(tokens, known)
        prefix = batch.prefix.where(masks.pop(_PREFIX), _NO_TOKEN)
        memory, mask = self.memory(tokens, masks)
        return memory, mask, prefix

    def forward(self, batch: CaptionBatch) -> Tensor:
        """Return the logits of the next token at each step, (n_rows, n_steps, n_tokens)."""
        memory, mask, prefix = self.memory_and_prefix(batch)
        logits: Tensor = self.decoder(memory, mask, batch.text, prefix)
        return logits


# --- Series ---


@dataclass(frozen=True)
class SeriesBatch(Batch):
    """Rows for which series are generated.

    Attributes
    ----------
    lengths : Tensor of shape (n_rows,), int64, or None
        Lengths of the true series in time steps, in training.
    """

    lengths: Tensor | None = None


class SeriesGeneratorModule(MemoryModule[SeriesDecoder]):
    """Predict the length of a series and its values from the modalities."""

    def forward(self, batch: SeriesBatch) -> Tensor:
        """Return the predicted lengths and the series of the given lengths.

        The output has shape (n_rows, 1 + n_steps, n_channels): the length is in the first channel
        of the first step, the series follows.
        """
        memory, mask = self.make_memory(batch)
        series: Tensor = self.decoder(memory, mask, batch.lengths)
        first = torch.zeros_like(series[:, :1])
        first[:, 0, 0] = self.decoder.predict_length(memory, mask)
        return torch.cat([first, series], dim=1)
