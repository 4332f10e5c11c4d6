"""The torch module of a caption generator."""

from torch import Tensor

from skmm._training._module import SEPARATOR
from skmm.generation._memory_module import MemoryModule

__all__ = ["PREFIX", "TEXT", "CaptionModule"]

# Beside the modalities' tensors in a batch; no modality has an empty name.
TEXT = f"{SEPARATOR}text"
PREFIX = f"{SEPARATOR}prefix"
_NOTHING = -1  # behind the end of a prefix


class CaptionModule(MemoryModule):
    """From tensors of all modalities and the text so far to what comes next.

    A row may lose its prefix in training as it may lose a modality.
    """

    def remember(self, **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the decoder looks at, (n_rows, n_memory, width), what of it exists, prefix.

        The prefix, if there is one, are ids (n_rows, n_prefix), negative behind its end.
        """
        prefix = inputs.get(PREFIX)
        if prefix is None:
            return *self.see(**inputs), None
        tokens, known = self.gather(**inputs)
        # Hidden in training as a modality is: so of a picture and a question either may be gone.
        tokens, masks = self.completed(tokens, {**known, PREFIX: prefix >= 0})
        prefix = prefix.where(masks.pop(PREFIX), _NOTHING)
        return *self.fusion(tokens, masks), prefix

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return logits (n_rows, n_steps, n_tokens) of what follows each token of the texts."""
        memory, mask, prefix = self.remember(**inputs)
        return self.head(memory, mask, inputs[TEXT], prefix)
