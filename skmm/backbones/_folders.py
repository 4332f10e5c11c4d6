"""Folders that hold a pretrained model: found by name, complete, safe to load, known by digest."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from skmm._environment._optional import import_optional
from skmm.backbones._pretrained._files import FETCHED, NOT_FETCHED, PICKLES, digest_of
from skmm.backbones._sentence_transformers import module_folders, read_json
from skmm.exceptions import CheckpointError

__all__ = [
    "Checkpoint",
    "check_folder",
    "fetched",
    "is_path",
    "model_folder",
    "name_of",
    "no_folder",
]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """Pretrained weights that were found, with all that belongs to them.

    Attributes
    ----------
    name : str
        As the user gave it.
    source : {"folder", "package", "hub"}
        Where they were found.
    family : {"transformers", "efficientnet-lite0", "whisper-tiny.en", "ge2e"}
        What can load them.
    path : Path
        Folder, or the file with the weights.
    digest : str
        sha256 over name and content of every file that changes the output; the same files in
        another folder have the same digest.
    needed_by : str
        Class that asked for them, for messages.
    """

    name: str
    source: Literal["folder", "package", "hub"]
    family: str
    path: Path
    digest: str
    needed_by: str = field(default="The encoder", compare=False, repr=False)

    def identity(self) -> dict[str, str]:
        """What a fitted estimator remembers; it holds no path of this machine but a name."""
        return {"name": self.name, "source": self.source, "digest": self.digest}

    def refuse_others(self, digest: str) -> None:
        """Check that these are the weights of a fit.

        Parameters
        ----------
        digest : str
            What the fitted estimator remembers.

        Raises
        ------
        CheckpointError
            If they are others.
        """
        if self.digest != digest:
            raise CheckpointError(
                f"{self.needed_by} was fitted with other weights than {self.name!r} holds now"
                f" (digest {digest[:12]}, now {self.digest[:12]}). Fit it again, or set model= to a"
                " folder with the weights it was fitted with."
            )

    def verify(self) -> None:
        """Check that the files are those that were resolved.

        Raises
        ------
        CheckpointError
            If one of them has changed since.
        """
        now = digest_of(self.path, hub=self.source == "hub")
        if now != self.digest:
            raise CheckpointError(
                f"{self.needed_by}: the files of model={self.name!r} have changed since they were"
                f" resolved (digest {self.digest[:12]}, now {now[:12]}). Fit again."
            )


def name_of(model: object, needed_by: str) -> str:
    """Text of a ``model`` parameter, which is a name or a folder."""
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            f"{needed_by}: model={model!r} is a {type(model).__name__}, not the name or the folder"
            " of a pretrained model."
        )
    return os.fsdecode(model)


def is_path(model: str | os.PathLike[str], path: Path) -> bool:
    """Whether ``model``, which is no folder that exists, can only be meant as one."""
    # The hub knows 'name' and 'owner/name'; everything else can only be meant as a path.
    name = os.fsdecode(model)
    return (
        not isinstance(model, str)
        or re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is None
        or path.is_file()
    )


def no_folder(path: Path, asked: str) -> str:
    """Word that a path is no folder; ``asked`` says who asked for which model."""
    if path.is_file():
        return (
            f"{asked} is a file, and a pretrained model is a folder with config.json and"
            " safetensors. Give the folder."
        )
    return (
        f"{asked} is no folder that exists. Give a folder that was written by save_pretrained,"
        " or the name of a model."
    )


def fetched(
    repository: str,
    asked: str,
    *,
    check: Callable[[Path], None] | None = None,
    install: str | None = None,
    whole: Callable[[Path, str], None] | None = None,
    snapshot: Callable[..., Path] | None = None,
) -> Path:
    """Take a repository of the hub from the local cache, else from the network.

    Parameters
    ----------
    repository : str
        Its name.
    asked : str
        Who asked for which model, for messages.
    check : callable, default=None
        Raises if a folder lacks something more: the cache may hold half a repository.
    install : str, default=None
        Command that installs the weights otherwise.
    whole : callable, default=None
        Raises if a folder, asked for in these words, is no whole checkpoint; None is
        ``check_folder``.
    snapshot : callable, default=None
        Fetches the repository, ``local=True`` from the cache alone; None takes what a folder of
        transformers has.

    Returns
    -------
    folder : Path
        In the cache.
    """
    whole, snapshot = whole or check_folder, snapshot or _snapshot
    import_optional("transformers", needed_by=asked.partition(":")[0])  # brings the hub's client
    try:
        folder = snapshot(repository, local=True)
        whole(folder, asked)
        if check is not None:
            check(folder)
        return folder
    except Exception:  # absent or half there, in the words of whichever client it is
        pass
    try:
        return snapshot(repository, local=False)
    except Exception as error:  # its http library has exceptions of its own
        reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
        way_out = "Check the name and the connection, or download it and give its folder"
        if install is not None:
            way_out = f"Install it with: {install}"
        raise CheckpointError(
            f"{asked} is neither a folder here nor an installed package, and {repository!r} could"
            f" not be fetched from the Hugging Face hub ({type(error).__name__}: {reason})."
            f" {way_out}."
        ) from error


def _snapshot(repository: str, *, local: bool) -> Path:
    hub = import_optional("huggingface_hub", needed_by="A model of the hub")
    folder = Path(
        hub.snapshot_download(
            repository,
            local_files_only=local,
            allow_patterns=[f"*{suffix}" for suffix in FETCHED],
            ignore_patterns=["*/*", *NOT_FETCHED],
        )
    )
    if modules := module_folders(folder):  # what sentence-transformers keeps in subfolders
        hub.snapshot_download(
            repository,
            revision=folder.name,  # the same commit
            local_files_only=local,
            allow_patterns=[f"{module}/*{suffix}" for module in modules for suffix in FETCHED],
            ignore_patterns=list(NOT_FETCHED),
        )
    return folder


def model_folder(folder: Path) -> Path:
    """Where config and weights lie: sentence-transformers may keep them in a subfolder."""
    if (folder / "config.json").is_file():
        return folder
    inside = [folder / name for name in module_folders(folder)]
    return next((path for path in inside if _has_weights(path)), folder)


def _has_weights(folder: Path) -> bool:
    return (folder / _WEIGHTS).is_file() or (folder / _INDEX).is_file()


def check_folder(folder: Path, asked: str) -> None:
    """Refuse a folder that is no whole model of transformers with weights in safetensors."""
    root = model_folder(folder)
    if not (root / "config.json").is_file():
        raise CheckpointError(
            f"{asked} is a folder without config.json, so it is no model of transformers."
            " Give a folder that was written by save_pretrained."
        )
    if (root / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{asked} holds an adapter, not a whole model. Merge it into its base model first"
            " (peft: merge_and_unload) and save that."
        )
    if not _has_weights(root):
        pickled = any(file.suffix in PICKLES for file in root.iterdir())
        found = "pickled weights, which can run code when loaded" if pickled else "no weights"
        raise CheckpointError(
            f"{asked} has {found}, and only safetensors are read. Load the model where you trust"
            " it and save it with save_pretrained, which writes safetensors."
        )
    if not (root / _WEIGHTS).is_file():
        index = read_json(root / _INDEX)
        shards = sorted(set(index.get("weight_map", {}).values()))
        # Beside the index, where the digest sees them.
        here = {file.name for file in root.iterdir() if file.is_file()}
        absent = [shard for shard in shards if shard not in here]
        if absent or not shards:
            raise CheckpointError(
                f"{asked} lacks {len(absent)} of the {len(shards)} files of its weights"
                f" ({', '.join(absent[:3]) or 'its index is empty'}). Copy or download it again."
            )
