"""The torch module of what is written or drawn step by step: encoders, memory, decoder."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from skmm._training._module import JointModule
from skmm.nets import TokenMemory

__all__ = ["MemoryModule"]


class MemoryModule(JointModule):
    """From tensors of all modalities to what a decoder looks at.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features or tokens of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    decoder : nn.Module
        What looks at the memory, of a ``width``.
    dropout : float
        Share of the memory that is zeroed in training.
    modality_dropout : float
        Probability that a row loses a modality in training.
    granularity : {"pooled", "sequence"}
        Whether the encoders' vectors or their tokens are looked at.
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

    def see(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoder looks at, (n_rows, n_memory, width), and what of it exists."""
        tokens, known = self.gather(**inputs)
        return self.fusion(*self.completed(tokens, known))
