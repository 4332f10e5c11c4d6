"""Which files of a pretrained model change what it gives, and the digest over them.

A folder of sentence-transformers or of diffusers has a file that names the folders inside it;
these are read here, and nothing that needs torch.
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
# What is fetched from the hub: configs, weights, tokenizers, chat templates. Never code, never a
# pickle.
FETCHED = (".json", ".safetensors", ".txt", ".model", ".spm", ".codes", ".tiktoken", ".jinja")
NOT_FETCHED = ("consolidated*", "*.fp16.safetensors", "*.non_ema.safetensors", "adapter_model*")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
# Files of a folder that no loader of ours reads, so they are no part of its digest. Any file
# that is not listed here is: to encode once more in vain is better than to reuse wrongly.
_IGNORED_SUFFIXES = {
    *PICKLES,
    *(".gguf", ".h5", ".md", ".msgpack", ".onnx", ".ot", ".py", ".pyc", ".tflite"),
    *(".csv", ".gif", ".jpeg", ".jpg", ".log", ".pdf", ".png"),
}
_IGNORED_NAMES = re.compile(
    r"\..*|(readme|license|license|notice|consolidated).*|data_config\.json|trainer_state\.json"
    r"|(all|eval|train)_results\.json",
    re.IGNORECASE,
)

# What was hashed: the stamp of the file then, and its digest.
_HASHES: dict[str, tuple[tuple[int, ...], str]] = {}
_HASHES_LOCK = threading.Lock()
# A file system may give two writes within this time the same stamp.
_STAMP_NS = 2 * 10**9


def digest_of(path: Path, *, hub: bool) -> str:
    """Digest of a file, or of the files of a folder that change what a model gives.

    Parameters
    ----------
    path : Path
        The file with the weights, or the folder.
    hub : bool
        Whether the folder is a snapshot in the hub's cache, which is shared with other programs
        and may hold files that they fetched.

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
    """Sha256 of a file, computed once as long as its stamps stay."""
    name, stamp = str(file.absolute()), _stamp(file)
    with _HASHES_LOCK:
        known = _HASHES.get(name)
    if known is not None and known[0] == stamp:
        return known[1]
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    # A file written a moment ago may be written again without a trace in its stamps.
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
    """Folders inside ``folder`` that its modules.json names, e.g. ``["1_Pooling"]``."""
    return sorted({module["path"] for module in sentence_modules(folder) if module["path"]})


def sentence_modules(folder: Path) -> list[dict[str, Any]]:
    """Modules that ``modules.json`` of sentence-transformers names, in order; [] without one."""
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


def component_folders(folder: Path) -> list[str]:
    """Folders inside ``folder`` that its index names, e.g. ``["scheduler", "unet"]``."""
    return sorted(
        name
        for name, value in read_index(folder).items()
        # A name that leaves the folder would escape the digest; no library writes one.
        if isinstance(value, list) and any(value) and re.fullmatch(r"[A-Za-z]\w*", name)
    )


def read_index(folder: Path) -> dict[str, Any]:
    """Content of ``model_index.json``; nothing if there is none, or it is no such thing."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def read_json(path: Path) -> Any:
    """Read a file of a checkpoint; one that is no JSON is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Copy or download the checkpoint again."
        ) from error
