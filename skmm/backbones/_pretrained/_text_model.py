"""Pretrained text models: one vector per token and one per text.

A folder of sentence-transformers is a folder of transformers with additional JSON files. They are
read here to compute the published embeddings, so sentence-transformers is not required.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from skmm.backbones._base import Encoded
from skmm.backbones._pretrained._base import FrozenBackbone
from skmm.backbones._pretrained._files import read_json, sentence_modules
from skmm.backbones._pretrained._transformers import (
    Tower,
    is_dual,
    load_tower,
    read_config,
    reading,
    tower_width,
    try_out,
)
from skmm.exceptions import CheckpointError

__all__ = ["PretrainedText", "TextRecipe", "Tokenizer"]

_POOLINGS = {"mean", "max", "cls", "pooler", "last"}
# Their positions start after the padding id, so the position table is longer than a text.
_SHIFTED_POSITIONS = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
# These were trained on texts padded to one length, without a mask.
_UNMASKED = ("fnet", "siglip")
# Tokenizers without a limit have a very large number instead.
_NO_LIMIT = 10**9
# Maximum number of texts whose ids are kept between counting and encoding.
_KEPT_TEXTS = 50_000
# Pooling of sentence-transformers -> ours. Others (weighted mean, several at once) are rare.
_SENTENCE_POOLINGS = {"mean": "mean", "max": "max", "cls": "cls", "lasttoken": "last"}
# Before version 6 of sentence-transformers, each pooling had its own flag.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class LibraryTokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    pad_token_id: int | None
    model_input_names: list[str]
    model_max_length: int
    vocab_files_names: dict[str, str]

    def __call__(self, texts: list[str], **options: object) -> Mapping[str, list[list[int]]]: ...

    def num_special_tokens_to_add(self) -> int: ...


class Tokenizer:
    """A thread-safe tokenizer of transformers with its own padding.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The loaded tokenizer.
    prompt : str, default=""
        Prefix of every text.
    lower : bool, default=False
        Whether texts are lower-cased.
    masked : bool, default=True
        Whether the model takes an attention mask; if not, texts are padded to ``max_length``.
    """

    def __init__(
        self,
        tokenizer: LibraryTokenizer,
        *,
        prompt: str = "",
        lower: bool = False,
        masked: bool = True,
    ):
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.lower = lower
        self.masked = masked
        self.n_special = tokenizer.num_special_tokens_to_add()
        # Generators have no padding token; any id will do, since padding is masked.
        self._pads = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        # Truncation is a state of tokenizers in Rust, which fail if two threads set it ("Already
        # borrowed").
        self._lock = threading.Lock()
        self._counted: dict[tuple[str, int | None], dict[str, list[int]]] = {}

    def count(self, texts: Sequence[str], max_length: int | None) -> list[int]:
        """Count tokens, special ones included, and keep the ids for ``tensors``."""
        rows = self._encode(texts, max_length)
        keys = [(text, max_length) for text in texts[:_KEPT_TEXTS]]
        self._counted = dict(zip(keys, rows, strict=False))
        return [len(row["input_ids"]) for row in rows]

    def tensors(self, texts: Sequence[str], max_length: int | None) -> dict[str, Tensor]:
        """Convert texts to padded tensors.

        Parameters
        ----------
        texts : sequence of str, of length n_texts
            Any texts, empty ones included.
        max_length : int or None
            Maximum number of tokens; longer texts are cut.

        Returns
        -------
        tensors : dict of str to LongTensor of shape (n_texts, n_tokens)
            ``input_ids``, ``attention_mask``, and ``token_type_ids`` if the model has them.
        """
        counted = self._counted
        found = [counted.pop((text, max_length), None) for text in texts]
        uncounted = [text for text, row in zip(texts, found, strict=True) if row is None]
        encoded = iter(self._encode(uncounted, max_length))
        rows = [next(encoded) if row is None else row for row in found]
        # At least one column: models fail on a batch without tokens.
        longest = max((len(row["input_ids"]) for row in rows), default=0)
        width = max(longest, 1) if self.masked else max(longest, max_length or 1)
        tensors = {}
        for key in rows[0] if rows else ("input_ids", "attention_mask"):
            pad = self._pads.get(key, 0)
            padded = [row[key] + [pad] * (width - len(row[key])) for row in rows]
            tensors[key] = torch.tensor(padded, dtype=torch.int64).reshape(len(rows), width)
        return tensors

    def _encode(self, texts: Sequence[str], max_length: int | None) -> list[dict[str, list[int]]]:
        if not texts:
            return []
        texts = [self.prompt + (text.lower() if self.lower else text) for text in texts]
        with self._lock:
            encoded = self.tokenizer(
                texts,
                padding=False,
                truncation=max_length is not None,
                max_length=max_length,
                return_attention_mask=True,
            )
        keys = ["input_ids", "attention_mask"]
        if "token_type_ids" in self.tokenizer.model_input_names and "token_type_ids" in encoded:
            keys.append("token_type_ids")
        return [
            dict(zip(keys, row, strict=True))
            for row in zip(*(encoded[key] for key in keys), strict=True)
        ]


class PretrainedText(FrozenBackbone):
    """A pretrained text model with its tokenizer and a pooling.

    The weights may be shared with other instances, so they stay frozen, in eval mode and on their
    device.

    Parameters
    ----------
    tower : Module
        The model: tensors to tokens and a pooled vector, like ``Tower``.
    tokenizer : Tokenizer
        Tokenizer of the model.
    pooling : {"mean", "max", "cls", "pooler", "last"}
        How the tokens of a text are pooled.
    normalize : bool
        Whether pooled vectors are scaled to length 1.
    max_length : int or None
        Maximum number of tokens; longer texts are cut.
    width : int
        Length of the vectors.
    """

    needs_cells: ClassVar[bool] = True  # for the masks and other outputs of the tokenizer

    def __init__(
        self,
        tower: nn.Module,
        tokenizer: Tokenizer,
        *,
        pooling: str,
        normalize: bool,
        max_length: int | None,
        width: int,
    ):
        super().__init__(tower, pooling=pooling, normalize=normalize, width=width)
        self.tokenizer = tokenizer
        self.max_length = max_length

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of texts, which are cut as in ``collate``.

        The ids are kept for the following ``collate``.

        Parameters
        ----------
        texts : sequence of str, of length n_texts
            The texts.

        Returns
        -------
        lengths : list of int, of length n_texts
            Numbers of tokens, by which texts of similar length are batched.
        """
        return self.tokenizer.count(texts, self.max_length)

    def collate(self, cells: Sequence[str]) -> dict[str, Tensor]:
        """Convert texts to ids, padded to the longest."""
        return self.tokenizer.tensors(cells, self.max_length)

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor, **others: Tensor) -> Encoded:
        """Encode a batch.

        Parameters
        ----------
        input_ids : LongTensor of shape (n_texts, n_tokens)
            Ids of the tokens.
        attention_mask : LongTensor of shape (n_texts, n_tokens)
            1 for tokens of the text, special ones included, 0 for padding.
        **others : LongTensor of shape (n_texts, n_tokens)
            Other outputs of the tokenizer.

        Returns
        -------
        encoded : Encoded
            Tokens and pooled vectors in float32, for weights of any type.
        """
        tokens, summary, mask = self.through_tower(
            input_ids=input_ids, attention_mask=attention_mask, **others
        )
        tokens = tokens.float()
        return Encoded(tokens, mask, self.scaled(self.pooled(tokens, mask, summary)))

    def through_tower(
        self, *, input_ids: Tensor, attention_mask: Tensor, **others: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the output of the model, tokens and its own pooled vector, and the mask.

        Parameters
        ----------
        input_ids, attention_mask, **others : LongTensor of shape (n_texts, n_tokens)
            As in ``forward``.
        """
        mask = attention_mask.bool()
        if self.tokenizer.masked:
            # Rows without tokens attend to their padding, since an empty softmax is NaN.
            attended = attention_mask.clone()
            attended[:, 0] = torch.where(mask.any(1), attended[:, 0], 1)
            others["attention_mask"] = attended
        tokens, summary = self.tower(input_ids=input_ids, **others)
        return tokens, summary, mask

    def trial_cells(self) -> list[str]:
        """Return two short texts."""
        return ["a", "some more words, so that the other one is padded"]

    def trunk_arrays(self, **tensors: Tensor) -> list[np.ndarray]:
        """Return the tokens of each text, with padding if the model does not mask it."""
        hidden, _, mask = self.through_tower(**tensors)
        arrays = hidden.float().cpu().numpy()
        if not self.tokenizer.masked:
            return list(arrays)
        return [a[:n] for a, n in zip(arrays, mask.sum(1).tolist(), strict=True)]

    def head_part(self, tower: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the whole model: the tokenizer provides its inputs."""
        return tower, {}

    def head_inputs(self, arrays: Sequence[np.ndarray], cells: Sequence[str]) -> dict[str, Tensor]:
        """Return hidden states with the ids and masks of the texts."""
        tensors = self.collate(cells)
        hidden = torch.zeros(*tensors["input_ids"].shape, arrays[0].shape[-1])
        for row, array in enumerate(arrays):
            hidden[row, : len(array)] = torch.from_numpy(np.array(array))
        return {**tensors, "hidden": hidden}

    def trim(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remove padding beyond the longest text."""
        if not self.tokenizer.masked:
            return tensors
        mask = tensors["attention_mask"]
        longest = max(int(mask.sum(1).max()), 1) if len(mask) else 1
        return {name: tensor[:, :longest] for name, tensor in tensors.items()}


class TextRecipe:
    """A text checkpoint without its weights: config, tokenizer, pooling.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    name : str
        Name of the checkpoint, for errors.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.sentence = read_sentence_settings(folder)
        self.folder = self.sentence.folder
        self.config = read_config(self.folder, name)
        self.dual = is_dual(self.config, name)
        with reading(name, "tokenizer") as transformers:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.folder, trust_remote_code=False, local_files_only=True
            )
        _check_vocabulary(tokenizer, self.folder, name)
        self.tokenizer = Tokenizer(
            tokenizer,
            prompt=self.sentence.prompt,
            lower=self.sentence.lower,
            masked=not self.config.model_type.startswith(_UNMASKED),
        )
        width = tower_width(self.config, "text")
        if width is None:
            raise CheckpointError(
                f"The config of {name!r} ({self.config.model_type}) does not declare the length of"
                " its vectors. Use another checkpoint."
            )
        self.width: int = width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``.

        Parameters
        ----------
        pooling : {"auto", "mean", "max", "cls", "pooler", "last"}
            Parameter of the user.
        normalize : "auto" or bool
            Parameter of the user.
        max_length : int or None
            Parameter of the user.

        Returns
        -------
        settings : dict
            All that changes the output besides the files, as JSON types.
        """
        return {
            "pooling": self._pooling(pooling),
            "normalize": self.sentence.normalize if normalize == "auto" else bool(normalize),
            "max_length": self._max_length(max_length),
            "processor": type(self.tokenizer.tokenizer).__name__,
            "width": self.width,
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> Tower:
        """Load the weights."""
        tower = load_tower(self.folder, self.name, self.config, "text", device, dtype)
        return try_out(tower, self.name, self.sample(), self.width)

    def backbone(self, tower: nn.Module, settings: dict[str, Any]) -> PretrainedText:
        """Return a backbone with the weights of a tower."""
        if settings["pooling"] == "pooler" and not getattr(tower, "has_pooler", False):
            raise CheckpointError(
                f"pooling='pooler' needs the weights of the pooler, which are missing in"
                f" {self.name!r}. Use pooling='mean' or 'cls'."
            )
        options = {key: settings[key] for key in ("pooling", "normalize", "max_length", "width")}
        return PretrainedText(tower, self.tokenizer, **options)

    def sample(self) -> dict[str, Tensor]:
        """Return a small input, on which the model is tried."""
        return self.tokenizer.tensors(["a"], self._max_length(None))

    def _pooling(self, pooling: str) -> str:
        if pooling == "auto":
            if self.sentence.unsupported:
                raise CheckpointError(
                    f"pooling='auto' cannot follow {self.name!r}: skmm does not support"
                    f" {self.sentence.unsupported}. Use pooling='mean' or 'cls', which ignore it."
                )
            return self.sentence.pooling or ("pooler" if self.dual else "mean")
        if pooling not in _POOLINGS:
            raise ValueError(
                f"pooling={pooling!r} is none of 'auto', {', '.join(map(repr, sorted(_POOLINGS)))}."
            )
        return pooling

    def _max_length(self, max_length: float | None) -> int | None:
        config = getattr(self.config, "text_config", self.config)
        limit = getattr(config, "max_position_embeddings", None)
        if limit and config.model_type in _SHIFTED_POSITIONS:
            limit -= (config.pad_token_id or 0) + 1
        limit = limit if limit and limit > 0 else None
        if max_length is None:
            own = self.tokenizer.tokenizer.model_max_length
            limits = (limit, own if own < _NO_LIMIT else None, self.sentence.max_length)
            return min((int(n) for n in limits if n), default=None)
        least = self.tokenizer.n_special + 1
        if not least <= max_length <= (limit or max_length):
            raise ValueError(
                f"max_length={max_length} does not fit {self.name!r}, which reads {least} to"
                f" {limit or 'any number of'} tokens. Leave it None for the model's own limit."
            )
        return int(max_length)


def _check_vocabulary(tokenizer: LibraryTokenizer, folder: Path, name: str) -> None:
    # Without these files the library silently makes a tokenizer with an empty vocabulary.
    files = set(tokenizer.vocab_files_names.values())
    if files and not any((folder / file).is_file() for file in {"tokenizer.json", *files}):
        raise CheckpointError(
            f"The files of the tokenizer of {name!r} are missing ({', '.join(sorted(files))})."
            " Copy them from the source of its weights."
        )


@dataclass(frozen=True)
class SentenceSettings:
    """Settings of a folder of sentence-transformers.

    Attributes
    ----------
    folder : Path
        Folder of config.json, weights and tokenizer: the folder itself or a subfolder.
    pooling : str or None
        Pooling of the tokens, None if the folder does not declare one.
    normalize : bool
        Whether embeddings have length 1.
    max_length : int or None
        Maximum number of tokens of a text.
    lower : bool
        Whether texts are lower-cased before they are tokenized.
    prompt : str
        Prefix of every text.
    unsupported : str or None
        Module or pooling that skmm does not support.
    """

    folder: Path
    pooling: str | None = None
    normalize: bool = False
    max_length: int | None = None
    lower: bool = False
    prompt: str = ""
    unsupported: str | None = None


def read_sentence_settings(folder: Path) -> SentenceSettings:
    """Read the settings of sentence-transformers; the defaults for a plain transformers folder."""
    modules = sentence_modules(folder)
    if not modules:
        return SentenceSettings(folder)
    model_folder = folder / modules[0]["path"]
    pooling, normalize, unsupported = None, False, None
    for module in modules[1:]:
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            pooling, odd = _read_pooling(folder / module["path"])
            unsupported = unsupported or odd
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            unsupported = f"its module {kind!r}"
    limits = [_read(path) for path in sorted(model_folder.glob("sentence_*_config.json"))]
    limit = limits[0] if limits else {}
    prompts = _read(folder / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    return SentenceSettings(
        folder=model_folder,
        pooling=pooling,
        normalize=normalize,
        max_length=limit.get("max_seq_length"),
        lower=bool(limit.get("do_lower_case", False)),
        prompt=prompt,
        unsupported=unsupported,
    )


def _read_pooling(folder: Path) -> tuple[str | None, str | None]:
    config = _read(folder / "config.json")
    modes = config.get("pooling_mode") or [
        mode for switch, mode in _SWITCHES.items() if config.get(switch)
    ]
    modes = [modes] if isinstance(modes, str) else list(modes or ["mean"])
    if len(modes) > 1 or modes[0] not in _SENTENCE_POOLINGS:
        return None, f"its pooling {' + '.join(map(str, modes))}"
    if not config.get("include_prompt", True):
        return None, "its pooling without the prompt"
    return _SENTENCE_POOLINGS[modes[0]], None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
