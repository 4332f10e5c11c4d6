"""The torch module of a caption generator: encoders that are trained with it, memory, decoder."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from skmm.fusion._module import SEPARATOR, JointModule
from skmm.nets import TextDecoder, TokenMemory

__all__ = ["PREFIX", "TEXT", "CaptionModule"]

# Beside the modalities' tensors in a batch; no modality has an empty name.
TEXT = f"{SEPARATOR}text"
PREFIX = f"{SEPARATOR}prefix"
_NOTHING = -1  # behind the end of a prefix


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
        Probability that a row loses a modality, or its prefix, in training.
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

    def remember(self, **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the decoder looks at, (n_rows, n_memory, width), what of it exists, prefix.

        The prefix, if there is one, are ids (n_rows, n_prefix), negative behind its end.
        """
        tokens, known = self.gather(**inputs)
        prefix = inputs.get(PREFIX)
        if prefix is None:
            return *self.fusion(*self.completed(tokens, known)), None
        # Hidden in training as a modality is: so of a picture and a question either may be gone.
        tokens, masks = self.completed(tokens, {**known, PREFIX: prefix >= 0})
        prefix = prefix.where(masks.pop(PREFIX), _NOTHING)
        return *self.fusion(tokens, masks), prefix

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each token of the texts."""
        memory, mask, prefix = self.remember(**inputs)
        return self.head(memory, mask, inputs[TEXT], prefix)
