"""The torch module of a caption generator: encoders that are trained with it, memory, decoder."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from skmm.fusion._module import SEPARATOR, JointModule
from skmm.nets import TextDecoder, TokenMemory

__all__ = ["TEXT", "CaptionModule"]

# Beside the modalities' tensors in a batch; no modality has an empty name.
TEXT = f"{SEPARATOR}text"


class CaptionModule(JointModule):
    """From tensors of all modalities and the text so far to what comes next.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features or tokens of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    decoder : TextDecoder
        What writes.
    dropout : float
        Share of the memory that is zeroed in training.
    modality_dropout : float
        Probability that a row loses a modality in training.
    granularity : {"pooled", "sequence"}
        Whether the encoders' vectors or their tokens are looked at.
    max_tokens : int or None
        Most tokens of an encoder that are kept.
    """

    # What a row's logits take is its text times the vocabulary.
    rows_at_once = 128

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        decoder: TextDecoder,
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
        """Return logits (n_rows, n_steps, n_tokens) of what follows each token of the texts."""
        return self.head(*self.remember(**inputs), inputs[TEXT])
