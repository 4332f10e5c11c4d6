"""Pretrained captioners: found by name or folder, loaded once per process.

Captioners are all models of ``AutoModelForImageTextToText`` of transformers, and Whisper, which
transcribes speech.
"""

import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from skmm._environment._optional import import_optional
from skmm.backbones._pretrained._captioner import Captioner, CaptionerInputs
from skmm.backbones._pretrained._checkpoint import (
    Checkpoint,
    Source,
    check_folder,
    fetched,
    is_path,
    model_folder,
    name_of,
    no_folder,
)
from skmm.backbones._pretrained._files import digest_of
from skmm.backbones._pretrained._loading import LRUCache
from skmm.backbones._pretrained._transformers import (
    LOCAL,
    check_complete,
    detach,
    read_config,
    reading,
)
from skmm.exceptions import CheckpointError

__all__ = ["Captioner", "load_captioner", "resolve_captioner", "captioner_count"]

# Models of speech whose inputs and prompts are supported.
_SPEECH = {"whisper"}
_WANTED = {
    "image": "a model from images to texts, such as BLIP, GIT or a vision-encoder-decoder",
    "audio": "a model from speech to texts: Whisper",
}
# Models are large; two can be compared.
_CAPTIONERS: LRUCache[Captioner] = LRUCache(2)


def captioner_count() -> int:
    """Return how often this process has loaded a captioner."""
    return _CAPTIONERS.n_made


def resolve_captioner(
    model: str | os.PathLike[str], *, modality: str | None, needed_by: str
) -> tuple[Checkpoint, str]:
    """Find a pretrained captioner: a folder, else the hub. No weights are loaded.

    Parameters
    ----------
    model : str or path-like
        A folder, or the name of a repository of the Hugging Face hub.
    modality : {"image", "audio"} or None
        Modality from which it must generate texts; None for either.
    needed_by : str
        Name of the calling class, for errors.

    Returns
    -------
    checkpoint : Checkpoint
        The files and their digest.
    modality : {"image", "audio"}
        Modality from which it generates texts.

    Raises
    ------
    CheckpointError
        If there are no such weights, they are incomplete or pickled, or the model does not
        generate texts from the modality.
    """
    name = name_of(model, needed_by)
    asked = f"{needed_by}: model={name!r}"
    path = Path(name).expanduser()
    source: Source = "folder"
    if not (name and path.is_dir()):
        if is_path(model, path):
            raise CheckpointError(no_folder(path, asked))
        source, path = "hub", fetched(name, asked, check=_check_tokenizer)
    check_folder(path, asked)
    digest = digest_of(path, hub=source == "hub")
    kind, found = _kind(path, name, digest, needed_by)
    if found is None or modality not in (found, None):
        writes = "writes no texts" if found is None else f"writes from {found} cells"
        raise CheckpointError(
            f"{asked} is a {kind!r} model, which {writes}. Give"
            f" {_WANTED[modality] if modality else ' or '.join(_WANTED.values())}."
        )
    checkpoint = Checkpoint(name, source, "transformers", path, digest, needed_by)
    return checkpoint, found


def _check_tokenizer(folder: Path) -> None:
    # Another program may have downloaded only a part of the repository into the cache.
    for patterns in (("*token*", "vocab*", "*.model"), ("*processor*.json",)):
        if not any(file for pattern in patterns for file in folder.glob(pattern)):
            raise CheckpointError(f"{folder} has no tokenizer or processor.")


@lru_cache(maxsize=16)
def _kind(folder: Path, name: str, digest: str, needed_by: str) -> tuple[str, str | None]:
    """Return model type and modality; the digest is a key of the cache, not used otherwise."""
    transformers = import_optional("transformers", needed_by=needed_by)
    config = read_config(model_folder(folder), name)
    if config.model_type in _SPEECH:
        return config.model_type, "audio"
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return config.model_type, "image"
    return config.model_type, None


def load_captioner(
    checkpoint: Checkpoint, modality: str, *, device: torch.device, dtype: torch.dtype
) -> Captioner:
    """Return a frozen captioner; its weights are loaded at most once per process.

    Parameters
    ----------
    checkpoint : Checkpoint
        Result of ``resolve_captioner``.
    modality : {"image", "audio"}
        Modality from which it generates texts.
    device : torch.device
        Device of the weights.
    dtype : torch.dtype
        Type of the weights.

    Returns
    -------
    captioner : Captioner
        The cached captioner, which must not be changed.

    Raises
    ------
    CheckpointError
        If the weights are incomplete, unreadable, or have changed since they were resolved.
    """

    def load() -> Captioner:
        checkpoint.verify()
        name = checkpoint.name
        config = read_config(checkpoint.path, name)
        inputs = CaptionerInputs(checkpoint.path, name, config, modality)
        captioner = Captioner(_model(checkpoint, modality, device, dtype), inputs, name)
        checkpoint.verify()  # the files did not change while they were read
        return captioner

    # The name is part of the key: it is in error messages.
    key = (checkpoint.name, checkpoint.digest, modality, str(device), dtype)
    return _CAPTIONERS.get(key, load)


def _model(
    checkpoint: Checkpoint, modality: str, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    name = checkpoint.name
    # The library samples missing weights from the global generator. They are refused, and the
    # state of the generator is restored.
    with reading(name, "weights") as transformers, torch.random.fork_rng(devices=[]):
        if modality == "audio":
            loader = transformers.AutoModelForSpeechSeq2Seq
        else:
            loader = transformers.AutoModelForImageTextToText
        model, info = loader.from_pretrained(
            checkpoint.path, dtype=dtype, use_safetensors=True, output_loading_info=True, **LOCAL
        )
        check_complete(info, name)
    model.requires_grad_(False).eval()
    detach(model)
    moved: nn.Module = model.to(device)
    return moved
