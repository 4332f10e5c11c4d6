"""The torch module of a series generator: encoders that are trained with it, memory, decoder."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skmm.fusion._module import SEPARATOR, JointModule
from skmm.nets import SeriesDecoder, TokenMemory

__all__ = ["LENGTH", "SeriesModule"]

# Beside the modalities' tensors in a batch; no modality has an empty name.
LENGTH = f"{SEPARATOR}length"


class SeriesModule(JointModule):
    """From tensors of all modalities to the length of a series and its values.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features or tokens of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    decoder : SeriesDecoder
        What draws.
    dropout : float
        Share of the memory that is zeroed in training.
    modality_dropout : float
        Probability that a row loses a modality in training.
    granularity : {"pooled", "sequence"}
        Whether the encoders' vectors or their tokens are looked at.
    max_tokens : int or None
        Most tokens of an encoder that are kept.
    """

    # The attention among the steps of a series takes their number squared.
    rows_at_once = 128

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        decoder: SeriesDecoder,
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
        """Return what the decoder looks at, (n_rows, n_memory, width), and what of it exists."""
        tokens, known = self.gather(**inputs)
        return self.fusion(*self.completed(tokens, known))

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return lengths, in the first channel of the first place, and series of those given."""
        seen = self.remember(**inputs)
        series = self.head(*seen, inputs[LENGTH])
        first = torch.zeros_like(series[:, :1])
        first[:, 0, 0] = self.head.predict_length(*seen)
        return torch.cat([first, series], dim=1)
