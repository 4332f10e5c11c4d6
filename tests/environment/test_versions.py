"""``show_versions`` shows installed, missing and broken packages."""

import re
import sys
import types
from importlib.metadata import requires

import pytest

from skmm import show_versions
from skmm._environment import _optional, _versions


def lines_by_name(printed: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in printed.splitlines() if line.strip())


def test_shows_each_library_once(capsys):
    import sklearn
    import torch

    show_versions()
    shown = lines_by_name(capsys.readouterr().out)
    assert {"skmm", "python", "platform", "devices", *_versions._PACKAGES} <= set(shown)
    assert shown["scikit-learn"] == sklearn.__version__
    assert shown["torch"] == torch.__version__
    assert shown["devices"].startswith("cpu")


def test_every_optional_package_is_shown():
    named = {"faiss": "faiss-cpu", "huggingface_hub": "huggingface-hub"}
    assert {named.get(name, name) for name in _optional._EXTRAS} <= set(_versions._PACKAGES)


def test_dependencies_of_skmm_are_shown():
    required = [line for line in requires("skmm") if "extra ==" not in line]
    assert len(required) > 5
    assert {re.match(r"[\w-]+", line).group() for line in required} <= set(_versions._PACKAGES)


def test_devices(capsys, monkeypatch):
    import torch

    gpu = types.SimpleNamespace(name="A GPU", total_memory=80_000_000_000, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: gpu)
    show_versions()
    shown = lines_by_name(capsys.readouterr().out)["devices"]
    assert shown.startswith(f"cpu ({torch.get_num_threads()} threads), cuda:0 A GPU (80 GB, ")
    assert "cuda:1 A GPU" in shown and "compute capability 9.0" in shown


def test_absent_package_is_reported(capsys, monkeypatch):
    monkeypatch.setattr(_versions, "_PACKAGES", ("torch", "no-such-package"))
    show_versions()
    assert lines_by_name(capsys.readouterr().out)["no-such-package"] == "not installed"


def test_broken_torch_is_reported(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    show_versions()
    assert "torch cannot be imported" in lines_by_name(capsys.readouterr().out)["devices"]


@pytest.mark.parametrize("error", ["RuntimeError", "ImportError", "OSError"])
def test_broken_torchvision_is_reported(error, capsys, monkeypatch, tmp_path):
    message = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision.py").write_text(f"raise {error}({message!r})")
    monkeypatch.syspath_prepend(tmp_path)
    show_versions()
    printed = capsys.readouterr().out
    assert message in printed
    assert "uninstall it" in printed


def test_working_or_missing_torchvision_is_not_reported(capsys, monkeypatch, tmp_path):
    show_versions()
    assert "torchvision" not in capsys.readouterr().out
    (tmp_path / "torchvision.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    show_versions()
    assert "torchvision" not in capsys.readouterr().out
    sys.modules.pop("torchvision")
