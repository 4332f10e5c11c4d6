"""Texts through any pretrained text model: tokens in, one vector a token and one a text.

A folder of sentence-transformers is a folder of transformers with a few JSON files around it.
Reading those files is all it takes to give the published embedding, so sentence-transformers
itself is not needed.
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
# Their position table begins behind the padding id, so it is longer than what they read.
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
# These were trained on texts padded to one length, with the padding in sight.
_UNMASKED = ("fnet", "siglip")
# What a tokenizer says when it knows no limit is a number beyond any text.
_NO_LIMIT = 10**9
# Token ids kept between counting and encoding; a text is some dozens of them.
_KEPT_TEXTS = 50_000
# Their name of a way to pool -> ours. The others (weighted mean, several at once) are rare.
_SENTENCE_POOLINGS = {"mean": "mean", "max": "max", "cls": "cls", "lasttoken": "last"}
# Before version 6 each way to pool had a switch of its own.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class LibraryTokenizer(Protocol):
    """A tokenizer of transformers, as far as it is used here."""

    pad_token_id: int | None
    model_input_names: list[str]
    model_max_length: int
    vocab_files_names: dict[str, str]

    def __call__(self, texts: list[str], **options: object) -> Mapping[str, list[list[int]]]: ...

    def num_special_tokens_to_add(self) -> int: ...


class Tokenizer:
    """A tokenizer of transformers that threads may share, and that pads on its own.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        What the library loaded.
    prompt : str, default=""
        Put before every text.
    lower : bool, default=False
        Whether texts are lowered first.
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
        # Generators have no padding token; the mask hides whichever stands in for it.
        self._pads = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        }
        # A tokenizer written in Rust keeps the truncation as its own state and refuses two
        # threads that set it ("Already borrowed").
        self._lock = threading.Lock()
        self._ahead: dict[tuple[str, int | None], dict[str, list[int]]] = {}

    def count(self, texts: Sequence[str], max_length: int | None) -> list[int]:
        """Count tokens, the special ones too; ids are kept for ``tensors`` to pick up."""
        rows = self._encode(texts, max_length)
        keys = [(text, max_length) for text in texts[:_KEPT_TEXTS]]
        self._ahead = dict(zip(keys, rows, strict=False))
        return [len(row["input_ids"]) for row in rows]

    def tensors(self, texts: Sequence[str], max_length: int | None) -> dict[str, Tensor]:
        """Turn texts into padded tensors.

        Parameters
        ----------
        texts : sequence of str, of length n_texts
            Any texts, empty ones too.
        max_length : int or None
            Tokens after which a text is cut.

        Returns
        -------
        tensors : dict of str to LongTensor of shape (n_texts, n_tokens)
            ``input_ids``, ``attention_mask``, and ``token_type_ids`` where the model has them.
        """
        ahead = self._ahead
        found = [ahead.pop((text, max_length), None) for text in texts]
        absent = [text for text, row in zip(texts, found, strict=True) if row is None]
        fresh = iter(self._encode(absent, max_length))
        rows = [next(fresh) if row is None else row for row in found]
        # One column at least: no model takes a batch without any token.
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
    """A pretrained text model with its tokenizer and a way to pool.

    The weights may be shared with other instances, so they stay frozen, in eval mode and where
    they are.

    Parameters
    ----------
    tower : Module
        The model: tensors to tokens and a pooled vector, as ``Tower`` does it.
    tokenizer : Tokenizer
        Its tokenizer.
    pooling : {"mean", "max", "cls", "pooler", "last"}
        How the tokens of a text become one vector.
    normalize : bool
        Whether that vector gets length 1.
    max_length : int or None
        Tokens after which a text is cut.
    width : int
        Length of the vectors.
    """

    looks_again: ClassVar[bool] = True  # masks, and what else the tokenizer gives

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
        """Count the tokens of texts, as ``collate`` will cut them.

        Parameters
        ----------
        texts : sequence of str, of length n_texts
            The texts.

        Returns
        -------
        lengths : list of int, of length n_texts
            To make batches of like length; the ids are kept for the ``collate`` that follows.
        """
        return self.tokenizer.count(texts, self.max_length)

    def collate(self, cells: Sequence[str]) -> dict[str, Tensor]:
        """Turn texts into ids, padded to the longest."""
        return self.tokenizer.tensors(cells, self.max_length)

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor, **others: Tensor) -> Encoded:
        """Encode a batch.

        Parameters
        ----------
        input_ids : LongTensor of shape (n_texts, n_tokens)
            Ids.
        attention_mask : LongTensor of shape (n_texts, n_tokens)
            1 where the id is one of the text, special ones included.
        **others : LongTensor of shape (n_texts, n_tokens)
            What else the tokenizer gave.

        Returns
        -------
        encoded : Encoded
            In float32, whatever the type of the weights.
        """
        tokens, summary, mask = self.through_tower(
            input_ids=input_ids, attention_mask=attention_mask, **others
        )
        tokens = tokens.float()
        return Encoded(tokens, mask, self.scaled(self.pooled(tokens, mask, summary)))

    def through_tower(
        self, *, input_ids: Tensor, attention_mask: Tensor, **others: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return what the model itself gives, tokens and its own summary, and the mask.

        Parameters
        ----------
        input_ids, attention_mask, **others : LongTensor of shape (n_texts, n_tokens)
            As for ``forward``.
        """
        mask = attention_mask.bool()
        if self.tokenizer.masked:
            # A row without a token would be a softmax over nothing: let it see its padding.
            attended = attention_mask.clone()
            attended[:, 0] = torch.where(mask.any(1), attended[:, 0], 1)
            others["attention_mask"] = attended
        tokens, summary = self.tower(input_ids=input_ids, **others)
        return tokens, summary, mask

    def trial(self) -> list[str]:
        """Give two short texts."""
        return ["a", "some more words, so that the other one is padded"]

    def below(self, **tensors: Tensor) -> list[np.ndarray]:
        """Give the tokens of each text; padding where the model looks at it."""
        hidden, _, mask = self.through_tower(**tensors)
        arrays = hidden.float().cpu().numpy()
        if not self.tokenizer.masked:
            return list(arrays)
        return [a[:n] for a, n in zip(arrays, mask.sum(1).tolist(), strict=True)]

    def remainder(self, tower: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
        """Run the whole of it: its input is known again."""
        return tower, {}

    def above(self, arrays: Sequence[np.ndarray], cells: Sequence[str]) -> dict[str, Tensor]:
        """Put hidden states beside the ids and masks of the texts."""
        tensors = self.collate(cells)
        hidden = torch.zeros(*tensors["input_ids"].shape, arrays[0].shape[-1])
        for row, array in enumerate(arrays):
            hidden[row, : len(array)] = torch.from_numpy(np.array(array))
        return {**tensors, "hidden": hidden}

    def trimmed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cut off what stands behind the longest text."""
        if not self.tokenizer.masked:
            return tensors
        mask = tensors["attention_mask"]
        longest = max(int(mask.sum(1).max()), 1) if len(mask) else 1
        return {name: tensor[:, :longest] for name, tensor in tensors.items()}


class TextRecipe:
    """All of a text checkpoint but its weights: config, tokenizer, the way to pool.

    Parameters
    ----------
    folder : Path
        The checkpoint's.
    name : str
        Its name, for messages.
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
                f"The config of {name!r} ({self.config.model_type}) does not say how long its"
                " vectors are, so it cannot be used. Use another checkpoint."
            )
        self.width: int = width

    def settings(
        self, pooling: str, normalize: bool | str, max_length: float | None
    ) -> dict[str, Any]:
        """Resolve every ``"auto"``.

        Parameters
        ----------
        pooling : {"auto", "mean", "max", "cls", "pooler", "last"}
            As the user gave it.
        normalize : "auto" or bool
            As the user gave it.
        max_length : int or None
            As the user gave it.

        Returns
        -------
        settings : dict
            Of JSON types: all that changes the output beside the files themselves.
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
        """Put a way to pool around the weights."""
        if settings["pooling"] == "pooler" and not getattr(tower, "has_pooler", False):
            raise CheckpointError(
                f"pooling='pooler' needs the pooler's weights, which {self.name!r} lacks."
                " Use pooling='mean' or 'cls'."
            )
        options = {key: settings[key] for key in ("pooling", "normalize", "max_length", "width")}
        return PretrainedText(tower, self.tokenizer, **options)

    def sample(self) -> dict[str, Tensor]:
        """Give the smallest input, to see what the model makes of it."""
        return self.tokenizer.tensors(["a"], self._max_length(None))

    def _pooling(self, pooling: str) -> str:
        if pooling == "auto":
            if self.sentence.unsupported:
                raise CheckpointError(
                    f"pooling='auto' cannot follow {self.name!r}: skmm does not know"
                    f" {self.sentence.unsupported}. Choose pooling='mean' or 'cls', which leave"
                    " it out."
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
            said = self.tokenizer.tokenizer.model_max_length
            limits = (limit, said if said < _NO_LIMIT else None, self.sentence.max_length)
            return min((int(n) for n in limits if n), default=None)
        least = self.tokenizer.n_special + 1
        if not least <= max_length <= (limit or max_length):
            raise ValueError(
                f"max_length={max_length} does not fit {self.name!r}, which reads {least} to"
                f" {limit or 'any number of'} tokens. Leave it None for the model's own limit."
            )
        return int(max_length)


def _check_vocabulary(tokenizer: LibraryTokenizer, folder: Path, name: str) -> None:
    # Without these files the library makes a tokenizer that knows no word, and says nothing.
    files = set(tokenizer.vocab_files_names.values())
    if files and not any((folder / file).is_file() for file in {"tokenizer.json", *files}):
        raise CheckpointError(
            f"{name!r} lacks the files of its tokenizer ({', '.join(sorted(files))}). Copy them"
            " from where its weights come from."
        )


@dataclass(frozen=True)
class SentenceSettings:
    """How a folder wants its texts to be embedded.

    Attributes
    ----------
    folder : Path
        Where config.json, weights and tokenizer lie: the folder itself or one inside it.
    pooling : str or None
        Its way to pool, None where the folder does not say.
    normalize : bool
        Whether its embeddings have length 1.
    max_length : int or None
        Tokens after which it cuts a text.
    lower : bool
        Whether texts are lowered before they reach the tokenizer.
    prompt : str
        What is put before every text.
    unsupported : str or None
        A part of its recipe that skmm does not follow.
    """

    folder: Path
    pooling: str | None = None
    normalize: bool = False
    max_length: int | None = None
    lower: bool = False
    prompt: str = ""
    unsupported: str | None = None


def read_sentence_settings(folder: Path) -> SentenceSettings:
    """Read what a folder says about pooling; a plain transformers folder says nothing."""
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
