"""What a sentence-transformers folder says beside its weights: pooling, limit, prompt.

Such a folder is a transformers folder with a few JSON files around it. Reading those files is
all it takes to give the published embedding, so sentence-transformers itself is not needed.
Leaf of its folder: it imports no torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skmm.exceptions import CheckpointError

__all__ = ["SentenceSettings", "module_folders", "read_json", "read_sentence_settings"]

# Their name of a way to pool -> ours. The others (weighted mean, several at once) are rare.
_POOLINGS = {"mean": "mean", "max": "max", "cls": "cls", "lasttoken": "last"}
# Before version 6 each way to pool had a switch of its own.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


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


def module_folders(folder: Path) -> list[str]:
    """Folders inside ``folder`` that its modules.json names, e.g. ``["1_Pooling"]``."""
    return sorted({module["path"] for module in _modules(folder) if module["path"]})


def read_sentence_settings(folder: Path) -> SentenceSettings:
    """Read what a folder says about pooling; a plain transformers folder says nothing."""
    modules = _modules(folder)
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
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        return None, f"its pooling {' + '.join(map(str, modes))}"
    if not config.get("include_prompt", True):
        return None, "its pooling without the prompt"
    return _POOLINGS[modes[0]], None


def _modules(folder: Path) -> list[dict[str, Any]]:
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = read_json(file)
    try:
        for module in modules:
            path = Path(module["path"])
            # A path that leaves the folder would escape the digest; no library writes one.
            if path.is_absolute() or ".." in path.parts or not isinstance(module["type"], str):
                raise ValueError(f"a module at {module['path']!r}")
        return sorted(modules, key=lambda module: module["idx"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is no list of modules ({type(error).__name__}: {error})."
            " Copy or download the checkpoint again."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> Any:
    """Read a file of a checkpoint; one that is no JSON is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Copy or download the checkpoint again."
        ) from error
