"""The digest of a checkpoint depends on its files and on nothing else."""

import json
import os
import time
from pathlib import Path

import pytest

from skmm.backbones._pretrained import _files
from skmm.backbones._pretrained._checkpoint import resolve_checkpoint
from skmm.exceptions import CheckpointError

pytest.importorskip("transformers", reason="pretrained models need the extra 'hub'")


def resolve(model):
    return resolve_checkpoint(model, modality="text", needed_by="TextEncoder")


def test_same_files_elsewhere(tiny_checkpoint, copied_checkpoint):
    copy = copied_checkpoint("clip", "other name")
    for name in ("README.md", ".gitattributes", "LICENSE.txt", "run.py", "pytorch_model.bin"):
        (copy / name).write_text("not part of the digest")
    (copy / ".git").mkdir()
    (copy / ".git" / "config.json").write_text("{}")
    (copy / "checkpoint-500").mkdir()
    (copy / "checkpoint-500" / "model.safetensors").write_text("an older one")
    assert resolve(copy).digest == resolve(tiny_checkpoint("clip")).digest


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_digest_depends_on_every_bit(copied_checkpoint, name):
    folder = copied_checkpoint("bert")
    before = resolve(folder).digest
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert _files.digest_of(folder, hub=False) != before


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "unknown.kind"])
def test_digest_depends_on_added_files(copied_checkpoint, name):
    folder = copied_checkpoint("bert")
    before = resolve(folder).digest
    (folder / name).write_text("a")
    assert resolve(folder).digest != before


def test_digest_depends_on_names(tmp_path):
    digests = set()
    for names in (("a.json", "b.json"), ("b.json", "a.json"), ("a.json", "c.json")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name, content in zip(names, "xy", strict=True):
            (folder / name).write_text(content)
        digests.add(_files.digest_of(folder, hub=False))
    assert len(digests) == 3


def test_digest_depends_on_subfolders_of_sentence_transformers(copied_checkpoint):
    folder = copied_checkpoint("bert")
    (folder / "1_Pooling").mkdir()
    modules = [
        {"idx": 0, "path": "", "type": "x.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "x.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    seen = set()
    for mode in ("cls", "mean"):
        config = folder / "1_Pooling" / "config.json"
        config.write_text(json.dumps({"pooling_mode": mode}))
        seen.add(resolve(folder).digest)
    assert len(seen) == 2


@pytest.mark.parametrize("fresh_ns", [2 * 10**9, 0], ids=["just written", "old"])
def test_change_in_place_that_keeps_size_and_time(copied_checkpoint, monkeypatch, fresh_ns):
    monkeypatch.setattr(_files, "_STAMP_NS", fresh_ns)
    folder = copied_checkpoint("bert")
    file = folder / "model.safetensors"
    stat = file.stat()
    before = resolve(folder)
    time.sleep(0.05)  # longer than the resolution of the file system's clock
    with file.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x55")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    assert resolve(folder).digest != before.digest
    with pytest.raises(CheckpointError, match="TextEncoder: the files of .* have changed"):
        before.verify()


def test_unchanged_files_are_hashed_once(copied_checkpoint, monkeypatch):
    folder = copied_checkpoint("bert")
    monkeypatch.setattr(_files, "_STAMP_NS", 0)  # as if the files were old
    hashed = []
    original = _files.hashlib.file_digest

    def counted(stream, name):
        hashed.append(Path(stream.name).name)
        return original(stream, name)

    monkeypatch.setattr(_files.hashlib, "file_digest", counted)
    first = resolve(folder)
    n_files = len(hashed)
    assert n_files >= 4 and resolve(folder) == first
    assert len(hashed) == n_files
    os.utime(folder / "config.json")
    resolve(folder).verify()
    assert hashed[n_files:] == ["config.json"]


def test_files_just_written_are_hashed_again(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("1")
    first = _files.file_digest(file)
    assert str(file) not in _files._HASHES
    file.write_text("2")
    assert _files.file_digest(file) != first
