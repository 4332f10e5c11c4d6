"""Which files of a pretrained model change what it gives, and the digest over them."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from skmm.backbones._pipelines import component_folders
from skmm.backbones._sentence_transformers import module_folders

__all__ = ["FETCHED", "NOT_FETCHED", "PICKLES", "digest_of", "file_digest"]

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
    r"\..*|(readme|license|licence|notice|consolidated).*|data_config\.json|trainer_state\.json"
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
