"""The files of a pretrained model that change its output, and their digest.

Folders of sentence-transformers and of diffusers have a file that lists their subfolders. This
module does not import torch.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skmm.exceptions import CheckpointError

__all__ = [
    "FETCHED",
    "INDEX",
    "NOT_FETCHED",
    "PICKLES",
    "component_folders",
    "digest_of",
    "file_digest",
    "module_folders",
    "read_index",
    "read_json",
    "sentence_modules",
]

INDEX = "model_index.json"  # of a folder of diffusers
# Files downloaded from the hub: configs, weights, tokenizers, chat templates; no code, no pickles.
FETCHED = (".json", ".safetensors", ".txt", ".model", ".spm", ".codes", ".tiktoken", ".jinja")
NOT_FETCHED = ("consolidated*", "*.fp16.safetensors", "*.non_ema.safetensors", "adapter_model*")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
# Files that are never read, so they are not part of the digest. All other files are: an
# unnecessary new encoding is better than reuse of a wrong one.
_IGNORED_SUFFIXES = {
    *PICKLES,
    *(".gguf", ".h5", ".md", ".msgpack", ".onnx", ".ot", ".py", ".pyc", ".tflite"),
    *(".csv", ".gif", ".jpeg", ".jpg", ".log", ".pdf", ".png"),
}
_IGNORED_NAMES = re.compile(
    r"\..*|(readme|licen[cs]e|notice|consolidated).*|data_config\.json|trainer_state\.json"
    r"|(all|eval|train)_results\.json",
    re.IGNORECASE,
)

# Path of a hashed file to its stamp and its digest.
_HASHES: dict[str, tuple[tuple[int, ...], str]] = {}
_HASHES_LOCK = threading.Lock()
# A file system may give two writes within this time the same stamp.
_STAMP_NS = 2 * 10**9


def digest_of(path: Path, *, hub: bool) -> str:
    """Return the digest of a file, or of the files of a folder that change a model's output.

    Parameters
    ----------
    path : Path
        The file with the weights, or the folder.
    hub : bool
        Whether the folder is a snapshot in the hub's cache, where other programs may have
        downloaded further files.

    Returns
    -------
    digest : str
        Hexadecimal sha256 over names, relative to the folder, and contents.
    """
    files = {path.name: path} if path.is_file() else dict(_files(path, hub=hub))
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{file_digest(files[name])}\n".encode())
    return digest.hexdigest()


def _files(folder: Path, *, hub: bool) -> Iterator[tuple[str, Path]]:
    inner = {*module_folders(folder), *component_folders(folder)}
    places = [folder, *(folder / name for name in sorted(inner))]
    for file in (file for place in places if place.is_dir() for file in place.iterdir()):
        if not file.is_file() or _IGNORED_NAMES.fullmatch(file.name):
            continue
        known = file.suffix in FETCHED if hub else file.suffix.lower() not in _IGNORED_SUFFIXES
        if known and not (hub and any(map(file.match, NOT_FETCHED))):
            yield file.relative_to(folder).as_posix(), file


def file_digest(file: Path) -> str:
    """Return the sha256 of a file, computed once unless size, times or inode change."""
    name, stamp = str(file.absolute()), _stamp(file)
    with _HASHES_LOCK:
        known = _HASHES.get(name)
    if known is not None and known[0] == stamp:
        return known[1]
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    # A recently written file may be written again without a change of its times.
    fresh = abs(time.time_ns() - max(stamp[1], stamp[2])) < _STAMP_NS
    if _stamp(file) == stamp and not fresh:
        with _HASHES_LOCK:
            _HASHES[name] = (stamp, digest)
    return digest


def _stamp(file: Path) -> tuple[int, ...]:
    stat = file.stat()
    # ctime also moves when a program sets mtime back after writing.
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders listed in modules.json, such as ``["1_Pooling"]``."""
    return sorted({module["path"] for module in sentence_modules(folder) if module["path"]})


def sentence_modules(folder: Path) -> list[dict[str, Any]]:
    """Return the modules listed in modules.json of sentence-transformers; [] without the file."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = read_json(file)
    try:
        for module in modules:
            path = Path(module["path"])
            # The digest does not include files outside the folder; no library writes such a path.
            if path.is_absolute() or ".." in path.parts or not isinstance(module["type"], str):
                raise ValueError(f"a module at {module['path']!r}")
        return sorted(modules, key=lambda module: module["idx"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not a list of modules ({type(error).__name__}: {error})."
            " Copy or download the checkpoint again."
        ) from error


def component_folders(folder: Path) -> list[str]:
    """Return the subfolders listed in the index of diffusers, such as ``["scheduler", "unet"]``."""
    return sorted(
        name
        for name, value in read_index(folder).items()
        # The digest does not include files outside the folder; no library writes such a name.
        if isinstance(value, list) and any(value) and re.fullmatch(r"[A-Za-z]\w*", name)
    )


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of ``model_index.json``, {} without a valid file."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def read_json(path: Path) -> Any:
    """Read a JSON file of a checkpoint; the error names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Copy or download the checkpoint again."
        ) from error
