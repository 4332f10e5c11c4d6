"""A pretrained captioner: it writes texts of cells, and says how likely given texts are."""

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

# Whose prompt is the beginning of what the decoder writes, as against an input of the encoder.
_BEGUN = {"vision-encoder-decoder", "whisper"}
# What a checkpoint may ask of its generator beyond the model's own probabilities. How likely a
# text is, is a matter of these alone.
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
# The longest text that a config allows, by the names it has.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions")
# As transformers has it.
_USUAL_LENGTH = 20


_Rule: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # from ids and logits to logits


class _Generation(Protocol):
    """How a checkpoint of speech wants to be asked; what else it may say is looked for."""

    decoder_start_token_id: int
    lang_to_id: dict[str, int]
    task_to_id: dict[str, int]


class CaptionerInputs:
    """All of a captioner's checkpoint but its weights.

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
        Samples a second of the audio clips that it takes.
    longest : float or None
        Seconds of audio that it hears.
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
            Images of shape (height, width, 3), uint8, or audio clips of shape (n_samples,).
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
        images = [Image.fromarray(cell) for cell in cells]
        if self.is_chat:
            assert self.processor is not None
            made = self.processor(
                images=[[image] for image in images],
                text=[self._chat(prompt) for prompt in prompts],
                padding=True,
                return_tensors="pt",
            )
        elif self.kind in _BEGUN or self.processor is None:
            made = self.reader(images=images, return_tensors="pt")
        elif not any(prompts):
            made = self.processor(images=images, return_tensors="pt")
        else:
            made = self.processor(images=images, text=list(prompts), return_tensors="pt")
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
        told: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return told

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


class Captioner:
    """A loaded checkpoint with what prepares its input.

    Parameters
    ----------
    model : PreTrainedModel
        Frozen, in eval mode, on its device.
    inputs : CaptionerInputs
        The checkpoint's.
    name : str
        Its name, for messages.
    """

    model: Any  # its attributes are the architecture's

    def __init__(self, model: nn.Module, inputs: CaptionerInputs, name: str):
        self.model = model
        self.inputs = inputs
        self.name = name
        self.end = self._end()
        config = _text_config(self.model.config)
        known = (getattr(config, key, None) for key in _POSITIONS)
        # Ids that the model can read, those of a prompt included.
        self.positions: int | None = next((n for n in known if n), None)

    def _end(self) -> int:
        """Id behind a text."""
        if self.inputs.kind == "blip":
            return int(self.model.config.text_config.sep_token_id)
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            ends = getattr(_text_config(self.model.config), "eos_token_id", None)
        if isinstance(ends, list | tuple):
            ends = ends[0] if ends else None
        if ends is None:
            raise CheckpointError(
                f"{self.name!r} does not say which token ends a text, so nothing that it writes"
                " would end. Set eos_token_id in its generation_config.json."
            )
        return int(ends)

    def write(
        self,
        cells: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        max_length: int | None,
        choose: Callable[[int, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> list[str]:
        """Write a text for each cell.

        Parameters
        ----------
        cells : sequence of ndarray
            As ``CaptionerInputs.tensors`` takes them.
        prompts : sequence of str
            One for each, of equally many tokens.
        max_length : int or None
            Most tokens, those of the prompt not counted; None is the checkpoint's own limit.
        choose : callable, default=None
            From the number of a token and logits of shape (n_cells, n_tokens) to the ids that are
            written; None for the likeliest.
        **options : object
            Of ``generate``.

        Returns
        -------
        texts : list of str
            Without the prompts.
        """
        max_length = max_length or self._usual_length()
        if max_length is not None:
            options["max_new_tokens"] = max_length
        start = _Start()
        rules: list[_Rule] = [start]
        if choose is not None:
            rules.append(_Choice(start, choose))
        ids = self._generate(
            cells, prompts, rules, stopping_criteria=[_Full(self.positions)], **options
        )
        texts = []
        for row in ids[:, start.length :].tolist():
            own = row[: row.index(self.end)] if self.end in row else row
            texts.append(self.inputs.text(own))
        return texts

    def _usual_length(self) -> int | None:
        """Most tokens of a text, if the checkpoint does not say it."""
        own = getattr(self.model, "text_decoder", None) or getattr(
            self.model, "language_model", None
        )
        settings = getattr(own, "generation_config", None) or self.model.generation_config
        said = settings.max_new_tokens or settings.max_length
        return None if said else _USUAL_LENGTH

    def likelihoods(
        self, cells: Sequence[np.ndarray], prompts: Sequence[str], texts: Sequence[str]
    ) -> np.ndarray:
        """Return how likely texts are, their ends included.

        The generator is made to write them, so that a text is judged exactly as it would be
        written, whatever the architecture.

        Parameters
        ----------
        cells, prompts : sequence
            As in :meth:`write`.
        texts : sequence of str
            One for each cell.

        Returns
        -------
        log_likelihoods : ndarray of shape (n_cells,), float64
            NaN for a text that is longer than the model can read.
        """
        pairs = zip(prompts, texts, strict=True)
        ids = [[*self.inputs.after(prompt, text), self.end] for prompt, text in pairs]
        start = _Start()
        told = _Told(start, ids, self.end)
        free = dict.fromkeys(_RULES)
        self._generate(
            cells,
            prompts,
            [start, told],
            stopping_criteria=[_Full(self.positions)],
            max_new_tokens=max(map(len, ids)),
            num_beams=1,
            **free,
        )
        return told.likelihoods()

    def _generate(
        self,
        cells: Sequence[np.ndarray],
        prompts: Sequence[str],
        rules: Sequence[_Rule],
        **options: Any,
    ) -> Tensor:
        """Ids that are written, (n_cells, n_steps), those of a prompt or a start in front."""
        model = self.model
        with _running(self):
            made = self.inputs.tensors(cells, prompts)
            begun = self.inputs.begun(prompts)
        tensors = {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in made.items()
            # Tokenizers give it by habit.
            if key != "token_type_ids" or key in signature(model.forward).parameters
        }
        with _running(self), quiet() as transformers, torch.inference_mode():
            generate = model.generate
            if self.inputs.kind == "whisper":
                tensors["decoder_input_ids"] = self._heard(begun or [], tensors)
                # Its own generate cuts what is longer than it hears, and hides where it starts.
                generate = transformers.GenerationMixin.generate.__get__(model)
            elif begun is not None and any(begun):
                own = model.generation_config.decoder_start_token_id
                ids = [[self._decoder_start(own), *row] for row in begun]
                tensors["decoder_input_ids"] = torch.tensor(ids, device=model.device)
            written: Tensor = generate(
                **tensors,
                logits_processor=list(rules),
                **{"do_sample": False, "num_return_sequences": 1, **options},
            )
            return written

    def _decoder_start(self, own: int | None) -> int:
        for start in (
            own,
            self.model.config.decoder_start_token_id,
            self.inputs.tokenizer.bos_token_id,
        ):
            if start is not None:
                return int(start)
        return self.end

    def _heard(self, begun: list[list[int]], tensors: dict[str, Tensor]) -> Tensor:
        """What stands before a transcript: earlier speech, start, language, task, no times."""
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
        """Id of each audio clip's language: the checkpoint's, else what the model hears."""
        language = getattr(settings, "language", None)
        if language is None:
            features = tensors["input_features"]
            heard: Tensor = self.model.detect_language(
                input_features=features, num_segment_frames=features.shape[2]
            )
            return heard
        known = settings.lang_to_id
        codes = import_optional(
            "transformers.models.whisper.tokenization_whisper", needed_by="Whisper"
        ).TO_LANGUAGE_CODE
        own = known.get(language, known.get(f"<|{codes.get(language.lower(), language)}|>"))
        if own is None:
            raise CheckpointError(
                f"The generation_config.json of {self.name!r} names the language {language!r}, and"
                f" knows {', '.join(sorted(known)[:5])}, ... Write one of these."
            )
        return torch.full((len(tensors["input_features"]),), own, device=self.model.device)


def _text_config(config: Config) -> Config:
    """The part of a config that is of the texts."""
    for part in ("decoder", "text_config"):
        own = getattr(config, part, None)
        if own is not None and not isinstance(own, dict):
            return cast(Config, own)
    return config


@contextmanager
def _running(captioner: Captioner) -> Iterator[None]:
    """One sentence for whatever a model or its processor raises."""
    try:
        yield
    except (CheckpointError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture has its own demands, and its own words
        reason = str(error).strip().partition("\n")[0].rstrip(".")[:200]
        raise CheckpointError(
            f"{captioner.name!r}, a {captioner.inputs.kind!r} model, cannot write"
            f" ({type(error).__name__}: {reason}). It may want another prompt."
        ) from error


class _Start:
    """Notes how many ids stand before the first that is written."""

    def __init__(self) -> None:
        self.length = 0
        self._known = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self._known:
            self.length, self._known = input_ids.shape[1], True
        return scores


class _Choice:
    """Leaves of all tokens those that were chosen."""

    def __init__(self, start: _Start, choose: Callable[[int, Tensor], Tensor]):
        self.start = start
        self.choose = choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids = self.choose(input_ids.shape[1] - self.start.length, scores)
        return torch.full_like(scores, -torch.inf).scatter(1, ids[:, None], 0.0)


class _Told:
    """Has given texts written, and notes how likely each of their tokens was."""

    def __init__(self, start: _Start, texts: list[list[int]], end: int):
        self.start = start
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
        """Sum of each text's tokens; NaN for a text that was not written to its end."""
        steps = torch.stack(self.found, dim=1).numpy()
        return np.array(
            [
                row[:n].sum() if n <= len(row) else np.nan
                for row, n in zip(steps, self.lengths, strict=True)
            ]
        )


class _Full:
    """Stops where the model can read no further."""

    def __init__(self, positions: int | None):
        self.positions = positions

    def __call__(self, input_ids: Tensor, scores: object, **rest: object) -> Tensor:
        full = self.positions is not None and input_ids.shape[1] > self.positions
        return torch.full((len(input_ids),), full, dtype=torch.bool, device=input_ids.device)
