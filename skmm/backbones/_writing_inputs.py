"""What a pretrained model that writes takes: pictures or sounds, prompts, and texts to judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skmm.backbones._pretrained._transformers import LOCAL, reading
from skmm.exceptions import CheckpointError

__all__ = ["WriterInputs"]

# Whose prompt is the beginning of what the decoder writes, as against an input of the encoder.
_BEGUN = {"vision-encoder-decoder", "whisper"}


class WriterInputs:
    """All of a checkpoint that writes but its weights.

    Parameters
    ----------
    folder : Path
        The checkpoint's.
    name : str
        Its name, for messages.
    config : PreTrainedConfig
        What ``read_config`` gave.
    modality : {"image", "audio"}
        What it writes from.

    Attributes
    ----------
    kind : str
        Type of the model.
    rate : int or None
        Samples a second of the sounds that it takes.
    longest : float or None
        Seconds of sound that it hears.
    """

    def __init__(self, folder: Path, name: str, config: Any, modality: str):
        self.name = name
        self.kind = str(config.model_type)
        self.modality = modality
        with reading(name, "processor") as transformers:
            whole = transformers.AutoProcessor.from_pretrained(folder, **LOCAL)
            self.processor = whole if isinstance(whole, transformers.ProcessorMixin) else None
            tokenizer = getattr(self.processor, "tokenizer", None)
            if tokenizer is None:
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
            self.tokenizer = tokenizer
            if modality == "audio":
                self.reader = transformers.AutoFeatureExtractor.from_pretrained(folder, **LOCAL)
            else:
                # Always by the same library, whatever else is installed: others give other pixels.
                self.reader = transformers.AutoImageProcessor.from_pretrained(
                    folder, backend="pil", **LOCAL
                )
        if self.processor is not None and hasattr(self.processor, "image_processor"):
            self.processor.image_processor = self.reader
        if self.is_chat:
            self.tokenizer.padding_side = "left"
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
        elif self.kind not in _BEGUN and self.processor is None:
            raise CheckpointError(
                f"{name!r} is a {self.kind!r} model saved without its processor. Save that into"
                " the same folder (processor.save_pretrained)."
            )
        self.rate = getattr(self.reader, "sampling_rate", None)
        self.longest = getattr(self.reader, "chunk_length", None)

    @property
    def is_chat(self) -> bool:
        """Whether the model was trained on conversations, of which the prompt is the question."""
        return bool(getattr(self.processor, "chat_template", None))

    def tensors(self, cells: Sequence[np.ndarray], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Prepare a batch for the encoder and, where the model wants it so, its prompts.

        Parameters
        ----------
        cells : sequence of ndarray
            Pictures of shape (height, width, 3), uint8, or sounds of shape (n_samples,).
        prompts : sequence of str
            One for each, of equally many tokens; "" for none.

        Returns
        -------
        tensors : dict of str to Tensor
            By the model's own names.
        """
        if self.modality == "audio":
            made = self.reader(list(cells), sampling_rate=self.rate, return_tensors="pt")
            return dict(made)
        pictures = [Image.fromarray(cell) for cell in cells]
        if self.is_chat:
            assert self.processor is not None
            made = self.processor(
                images=[[picture] for picture in pictures],
                text=[self._chat(prompt) for prompt in prompts],
                padding=True,
                return_tensors="pt",
            )
        elif self.kind in _BEGUN or self.processor is None:
            made = self.reader(images=pictures, return_tensors="pt")
        elif not any(prompts):
            made = self.processor(images=pictures, return_tensors="pt")
        else:
            made = self.processor(images=pictures, text=list(prompts), return_tensors="pt")
            if self.kind == "git":
                # As the model was trained: what ends a text does not stand before the answer.
                begin = self.tokenizer.cls_token_id
                ids = [[begin, *self.ids(prompt)] for prompt in prompts]
                made["input_ids"] = torch.tensor(ids)
                made["attention_mask"] = torch.ones_like(made["input_ids"])
        return {key: value for key, value in made.items() if isinstance(value, Tensor)}

    def _chat(self, prompt: str) -> str:
        content: list[dict[str, str]] = [{"type": "image"}]
        if prompt:
            content.append({"type": "text", "text": prompt})
        assert self.processor is not None
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def begun(self, prompts: Sequence[str]) -> list[list[int]] | None:
        """Ids of the prompts where these begin what the decoder writes, else None."""
        return [self.before(prompt) for prompt in prompts] if self.kind in _BEGUN else None

    def before(self, prompt: str) -> list[int]:
        """Ids of a prompt."""
        if self.kind == "whisper" and prompt:
            # What was said before, as far as the model is to believe.
            return [int(i) for i in self.tokenizer.get_prompt_ids(prompt)]
        return self.ids(prompt) if prompt else []

    def ids(self, text: str) -> list[int]:
        """Ids of a text, without any that stand for no text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def after(self, prompt: str, text: str) -> list[int]:
        """Ids of a text as it would be written behind a prompt."""
        if self.kind == "whisper":
            return self.ids(f" {text.lstrip()}") if text.strip() else []
        if not prompt or self.is_chat:
            return self.ids(text)
        joint = "" if prompt[-1].isspace() or text[:1].isspace() else " "
        before, whole = self.ids(prompt), self.ids(prompt + joint + text)
        # Some tokenizers mark the beginning of a text, so that its parts have other ids.
        return whole[len(before) :] if whole[: len(before)] == before else self.ids(joint + text)

    def text(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
