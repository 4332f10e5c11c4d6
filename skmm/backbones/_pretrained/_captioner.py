"""A pretrained captioner: it generates texts from cells, and computes likelihoods of texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from skmm._environment._optional import import_optional
from skmm.backbones._pretrained._transformers import LOCAL, Config, quiet, reading
from skmm.exceptions import CheckpointError

__all__ = ["Captioner", "CaptionerInputs"]

# Models whose prompt is the beginning of the decoder's text, not an input of the encoder.
_DECODER_PROMPTED = {"vision-encoder-decoder", "whisper"}
# Settings of a checkpoint that change the model's probabilities in generation. Likelihoods are
# computed without them.
_RULES = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "suppress_tokens",
    "watermarking_config",
)
# Names of the maximum number of positions in a config.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions")
# Default of transformers.
_DEFAULT_LENGTH = 20


_Processor: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # from ids and logits to logits


class _Generation(Protocol):
    """The required attributes of the generation config of a speech model."""

    decoder_start_token_id: int
    lang_to_id: dict[str, int]
    task_to_id: dict[str, int]


class CaptionerInputs:
    """A captioner's checkpoint without its weights: tokenizer and preprocessing.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    name : str
        Name of the checkpoint, for errors.
    config : PreTrainedConfig
        Result of ``read_config``.
    modality : {"image", "audio"}
        Modality of the cells.

    Attributes
    ----------
    kind : str
        Type of the model.
    rate : int or None
        Samples per second of audio cells.
    longest : float or None
        Maximum seconds of an audio cell.
    """

    def __init__(self, folder: Path, name: str, config: Config, modality: str):
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
                # Always the same backend: others resize to different pixels.
                self.reader = transformers.AutoImageProcessor.from_pretrained(
                    folder, backend="pil", **LOCAL
                )
        if self.processor is not None and hasattr(self.processor, "image_processor"):
            self.processor.image_processor = self.reader
        if self.is_chat:
            self.tokenizer.padding_side = "left"
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
        elif self.kind not in _DECODER_PROMPTED and self.processor is None:
            raise CheckpointError(
                f"{name!r} is a {self.kind!r} model saved without its processor. Save the processor"
                " into the same folder with its save_pretrained."
            )
        self.rate = getattr(self.reader, "sampling_rate", None)
        self.longest = getattr(self.reader, "chunk_length", None)

    @property
    def is_chat(self) -> bool:
        """Whether the model was trained on conversations; the prompt is then the user's turn."""
        return bool(getattr(self.processor, "chat_template", None))

    def tensors(self, cells: Sequence[np.ndarray], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Preprocess a batch, including prompts that are inputs of the encoder.

        Parameters
        ----------
        cells : sequence of ndarray
            Images of shape (height, width, 3), uint8, or audio clips of shape (n_samples,).
        prompts : sequence of str
            Prompt of each cell, "" for none. All must have the same number of tokens.

        Returns
        -------
        tensors : dict of str to Tensor
            Tensors under the names of the model.
        """
        if self.modality == "audio":
            made = self.reader(list(cells), sampling_rate=self.rate, return_tensors="pt")
            return dict(made)
        images = [Image.fromarray(cell) for cell in cells]
        if self.is_chat:
            assert self.processor is not None
            made = self.processor(
                images=[[image] for image in images],
                text=[self._chat(prompt) for prompt in prompts],
                padding=True,
                return_tensors="pt",
            )
        elif self.kind in _DECODER_PROMPTED or self.processor is None:
            made = self.reader(images=images, return_tensors="pt")
        elif not any(prompts):
            made = self.processor(images=images, return_tensors="pt")
        else:
            made = self.processor(images=images, text=list(prompts), return_tensors="pt")
            if self.kind == "git":
                # As in training: no end-of-text token between prompt and answer.
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
        chat: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return chat

    def decoder_prompts(self, prompts: Sequence[str]) -> list[list[int]] | None:
        """Return the ids of prompts with which the decoder starts, None if it does not."""
        return (
            [self.prompt_ids(prompt) for prompt in prompts]
            if self.kind in _DECODER_PROMPTED
            else None
        )

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return the ids of a prompt."""
        if self.kind == "whisper" and prompt:
            # For Whisper, the prompt is the transcript of preceding speech.
            return [int(i) for i in self.tokenizer.get_prompt_ids(prompt)]
        return self.ids(prompt) if prompt else []

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without special ones."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def continuation_ids(self, prompt: str, text: str) -> list[int]:
        """Return the ids of a text that follows a prompt."""
        if self.kind == "whisper":
            return self.ids(f" {text.lstrip()}") if text.strip() else []
        if not prompt or self.is_chat:
            return self.ids(text)
        joint = "" if prompt[-1].isspace() or text[:1].isspace() else " "
        before, whole = self.ids(prompt), self.ids(prompt + joint + text)
        # Some tokenizers mark the beginning of a text, so its parts have other ids.
        return whole[len(before) :] if whole[: len(before)] == before else self.ids(joint + text)

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids to a text."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


class Captioner:
    """A loaded model that generates texts, with its preprocessing.

    Parameters
    ----------
    model : PreTrainedModel
        The frozen model in eval mode, on its device.
    inputs : CaptionerInputs
        Tokenizer and preprocessing.
    name : str
        Name of the checkpoint, for errors.
    """

    model: Any  # its attributes are the architecture's

    def __init__(self, model: nn.Module, inputs: CaptionerInputs, name: str):
        self.model = model
        self.inputs = inputs
        self.name = name
        self.end = self._end()
        config = _text_config(self.model.config)
        known = (getattr(config, key, None) for key in _POSITIONS)
        # Maximum number of ids, those of a prompt included.
        self.positions: int | None = next((n for n in known if n), None)

    def _end(self) -> int:
        """Return the id of the end-of-text token."""
        if self.inputs.kind == "blip":
            return int(self.model.config.text_config.sep_token_id)
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            ends = getattr(_text_config(self.model.config), "eos_token_id", None)
        if isinstance(ends, list | tuple):
            ends = ends[0] if ends else None
        if ends is None:
            raise CheckpointError(
                f"{self.name!r} does not declare the token that ends a text. Set eos_token_id in"
                " its generation_config.json."
            )
        return int(ends)

    def generate(
        self,
        cells: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        max_length: int | None,
        choose: Callable[[int, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> list[str]:
        """Generate a text for each cell.

        Parameters
        ----------
        cells : sequence of ndarray
            Cells, as in ``CaptionerInputs.tensors``.
        prompts : sequence of str
            Prompt of each cell. All must have the same number of tokens.
        max_length : int or None
            Maximum number of generated tokens, without those of the prompt. None is the limit of
            the checkpoint.
        choose : callable, default=None
            Function from the position of a token and logits of shape (n_cells, n_tokens) to the
            next ids. None is the generation of transformers, greedy by default.
        **options : object
            Options of the model's ``generate``.

        Returns
        -------
        texts : list of str
            Texts without the prompts.
        """
        max_length = max_length or self._default_length()
        if max_length is not None:
            options["max_new_tokens"] = max_length
        start = _Start()
        processors: list[_Processor] = [start]
        if choose is not None:
            processors.append(_Choice(start, choose))
        ids = self._generate(
            cells, prompts, processors, stopping_criteria=[_Full(self.positions)], **options
        )
        texts = []
        for row in ids[:, start.length :].tolist():
            own = row[: row.index(self.end)] if self.end in row else row
            texts.append(self.inputs.text(own))
        return texts

    def _default_length(self) -> int | None:
        """Return the maximum number of tokens, None if the checkpoint declares it."""
        own = getattr(self.model, "text_decoder", None) or getattr(
            self.model, "language_model", None
        )
        settings = getattr(own, "generation_config", None) or self.model.generation_config
        declared = settings.max_new_tokens or settings.max_length
        return None if declared else _DEFAULT_LENGTH

    def likelihoods(
        self, cells: Sequence[np.ndarray], prompts: Sequence[str], texts: Sequence[str]
    ) -> np.ndarray:
        """Compute the log-likelihoods of texts, their ends included.

        The texts are forced in generation, so that their likelihoods are exactly those of
        generated texts, for every architecture.

        Parameters
        ----------
        cells, prompts : sequence
            As in :meth:`generate`.
        texts : sequence of str
            Text of each cell.

        Returns
        -------
        log_likelihoods : ndarray of shape (n_cells,), float64
            Log-likelihoods; NaN for a text that is longer than the model's maximum.
        """
        pairs = zip(prompts, texts, strict=True)
        ids = [[*self.inputs.continuation_ids(prompt, text), self.end] for prompt, text in pairs]
        start = _Start()
        forced = _ForcedTexts(ids, self.end)
        no_rules = dict.fromkeys(_RULES)
        self._generate(
            cells,
            prompts,
            [start, forced],
            stopping_criteria=[_Full(self.positions)],
            max_new_tokens=max(map(len, ids)),
            num_beams=1,
            **no_rules,
        )
        return forced.likelihoods()

    def _generate(
        self,
        cells: Sequence[np.ndarray],
        prompts: Sequence[str],
        processors: Sequence[_Processor],
        **options: Any,
    ) -> Tensor:
        """Return the generated ids, (n_cells, n_steps), after those of a prompt or a start."""
        model = self.model
        with _running(self):
            made = self.inputs.tensors(cells, prompts)
            begun = self.inputs.decoder_prompts(prompts)
        tensors = {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in made.items()
            # Some tokenizers return it for models that do not take it.
            if key != "token_type_ids" or key in signature(model.forward).parameters
        }
        with _running(self), quiet() as transformers, torch.inference_mode():
            generate = model.generate
            if self.inputs.kind == "whisper":
                tensors["decoder_input_ids"] = self._speech_prompts(begun or [], tensors)
                # Whisper's own generate splits long audio, and removes the start of the ids.
                generate = transformers.GenerationMixin.generate.__get__(model)
            elif begun is not None and any(begun):
                own = model.generation_config.decoder_start_token_id
                ids = [[self._decoder_start(own), *row] for row in begun]
                tensors["decoder_input_ids"] = torch.tensor(ids, device=model.device)
            generated: Tensor = generate(
                **tensors,
                logits_processor=list(processors),
                **{"do_sample": False, "num_return_sequences": 1, **options},
            )
            return generated

    def _decoder_start(self, own: int | None) -> int:
        for start in (
            own,
            self.model.config.decoder_start_token_id,
            self.inputs.tokenizer.bos_token_id,
        ):
            if start is not None:
                return int(start)
        return self.end

    def _speech_prompts(self, begun: list[list[int]], tensors: dict[str, Tensor]) -> Tensor:
        """Return the ids before a transcript: prompt, start, language, task, no timestamps."""
        settings: _Generation = self.model.generation_config
        starts = torch.full(
            (len(begun), 1), settings.decoder_start_token_id, device=self.model.device
        )
        columns = [starts]
        if getattr(settings, "lang_to_id", None):
            columns.append(self._languages(settings, tensors)[:, None])
            task = getattr(settings, "task", None) or "transcribe"
            columns.append(torch.full_like(starts, settings.task_to_id[task]))
        silent = getattr(settings, "no_timestamps_token_id", None)
        if silent is not None:
            columns.append(torch.full_like(starts, silent))
        before = torch.tensor(begun, dtype=torch.int64, device=starts.device)
        return torch.cat([before.reshape(len(begun), -1), *columns], dim=1)

    def _languages(self, settings: _Generation, tensors: dict[str, Tensor]) -> Tensor:
        """Return the id of each clip's language: the checkpoint's, else the detected one."""
        language = getattr(settings, "language", None)
        if language is None:
            features = tensors["input_features"]
            detected: Tensor = self.model.detect_language(
                input_features=features, num_segment_frames=features.shape[2]
            )
            return detected
        known = settings.lang_to_id
        codes = import_optional(
            "transformers.models.whisper.tokenization_whisper", needed_by="Whisper"
        ).TO_LANGUAGE_CODE
        own = known.get(language, known.get(f"<|{codes.get(language.lower(), language)}|>"))
        if own is None:
            raise CheckpointError(
                f"The generation_config.json of {self.name!r} has the unknown language"
                f" {language!r}. Set it to one of {', '.join(sorted(known)[:5])}, ..."
            )
        return torch.full((len(tensors["input_features"]),), own, device=self.model.device)


def _text_config(config: Config) -> Config:
    """Return the part of a config for the text decoder."""
    for part in ("decoder", "text_config"):
        own = getattr(config, part, None)
        if own is not None and not isinstance(own, dict):
            return cast(Config, own)
    return config


@contextmanager
def _running(captioner: Captioner) -> Iterator[None]:
    """Raise the errors of a model or its processor as `CheckpointError`."""
    try:
        yield
    except (CheckpointError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture has its own errors
        reason = str(error).strip().partition("\n")[0].rstrip(".")[:200]
        raise CheckpointError(
            f"{captioner.name!r}, a {captioner.inputs.kind!r} model, cannot generate"
            f" ({type(error).__name__}: {reason}). It may require another prompt."
        ) from error


class _Start:
    """Logits processor that stores the number of ids before the first generated one."""

    def __init__(self) -> None:
        self.length = 0
        self._known = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self._known:
            self.length, self._known = input_ids.shape[1], True
        return scores


class _Choice:
    """Logits processor that forces the ids of a function."""

    def __init__(self, start: _Start, choose: Callable[[int, Tensor], Tensor]):
        self.start = start
        self.choose = choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids = self.choose(input_ids.shape[1] - self.start.length, scores)
        return torch.full_like(scores, -torch.inf).scatter(1, ids[:, None], 0.0)


class _ForcedTexts:
    """Logits processor that forces given texts, and stores the log-likelihoods of their tokens."""

    def __init__(self, texts: list[list[int]], end: int):
        self.lengths = [len(text) for text in texts]
        longest = max(self.lengths)
        self.ids = torch.tensor([text + [end] * (longest - len(text)) for text in texts])
        self.found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids = self.ids[:, len(self.found), None].to(scores.device)
        likely = torch.log_softmax(scores.double(), dim=1).gather(1, ids)
        self.found.append(likely[:, 0].cpu())
        return torch.full_like(scores, -torch.inf).scatter(1, ids, 0.0)

    def likelihoods(self) -> np.ndarray:
        """Return the sum over the tokens of each text; NaN for a text not generated to its end."""
        steps = torch.stack(self.found, dim=1).numpy()
        return np.array(
            [
                row[:n].sum() if n <= len(row) else np.nan
                for row, n in zip(steps, self.lengths, strict=True)
            ]
        )


class _Full:
    """Stopping criterion at the maximum number of positions."""

    def __init__(self, positions: int | None):
        self.positions = positions

    def __call__(self, input_ids: Tensor, scores: object, **rest: object) -> Tensor:
        full = self.positions is not None and input_ids.shape[1] > self.positions
        return torch.full((len(input_ids),), full, dtype=torch.bool, device=input_ids.device)
